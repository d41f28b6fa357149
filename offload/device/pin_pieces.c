/*
 * Pinned pieces: their sizes along a range.
 *
 * Thread: any.
 */

#include "offload/device/pin_pieces.h"

/* Bytes from an offset to where the next piece of the size may begin, at most to the end. */
static uint64_t piece_at(const struct pinned_range *range, uint64_t at, uint64_t size)
{
    uint64_t bytes = size - ((uintptr_t)range->base + at) % size;
    return bytes < range->bytes - at ? bytes : range->bytes - at;
}

/* The size in use from an offset on. */
static uint32_t size_at(const struct pinned_range *range, uint64_t at)
{
    uint32_t i = 0;
    while (i < range->last && range->from[i + 1] <= at)
        i++;
    return i;
}

void strata_unpin_pieces(const struct pinned_range *range, const struct pin_calls *calls)
{
    for (uint64_t at = 0; at < range->bytes;) {
        uint64_t bytes = piece_at(range, at, PIN_PIECE_MAX >> size_at(range, at));
        calls->unpin(calls->user, range->base + at);
        at += bytes;
    }
}

int strata_pin_pieces(struct pinned_range *out, void *base, uint64_t bytes,
                      const struct pin_calls *calls)
{
    *out = (struct pinned_range){.base = base, .bytes = bytes};
    for (uint64_t at = 0; at < bytes;) {
        uint64_t piece = piece_at(out, at, PIN_PIECE_MAX >> out->last);
        int refused = calls->pin(calls->user, out->base + at, piece);
        if (refused == 0) {
            at += piece;
            continue;
        }
        if (out->last + 1 == PIN_SIZES) {
            out->bytes = at;
            strata_unpin_pieces(out, calls);
            return refused;
        }
        out->from[++out->last] = at;
    }
    out->piece_bytes = PIN_PIECE_MAX >> out->last;
    return 0;
}
