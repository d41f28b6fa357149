#ifndef STRATA_OFFLOAD_PIN_PIECES_H
#define STRATA_OFFLOAD_PIN_PIECES_H

/*
 * Pinning a range of host memory in pieces, because a driver refuses some large ones.
 *
 * A piece begins at a multiple of its size in the address space. A piece that is refused is
 * tried again at half the size, and that is the size from there on; what is pinned already
 * stays. A copy that does not cross a multiple of the smallest size lies in one piece.
 *
 * Thread: any; a range is its owner's.
 */

#include <stdint.h>

/* 32 GiB: half of a size that is known to be refused. 64 MiB: if the driver refuses even this,
 * smaller pieces do not help. */
#define PIN_PIECE_MAX (UINT64_C(32) << 30)
#define PIN_PIECE_MIN (UINT64_C(64) << 20)
#define PIN_SIZES     10u /* from the one to the other by halves */

/* The driver's two calls. pin: 0, or its code. */
struct pin_calls {
    int (*pin)(void *user, void *base, uint64_t bytes);
    void (*unpin)(void *user, void *base);
    void *user;
};

struct pinned_range {
    uint8_t *base;
    uint64_t bytes;
    uint64_t piece_bytes;     /* the smallest size taken                                */
    uint64_t from[PIN_SIZES]; /* offset from which on pieces are PIN_PIECE_MAX >> i     */
    uint32_t last;            /* the last i in use                                      */
};

/* 0: all of it is pinned; else the code of the last refusal, and nothing is. */
int strata_pin_pieces(struct pinned_range *out, void *base, uint64_t bytes,
                      const struct pin_calls *calls);
void strata_unpin_pieces(const struct pinned_range *range, const struct pin_calls *calls);

#endif
