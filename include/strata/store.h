#ifndef STRATA_STORE_H
#define STRATA_STORE_H

/*
 * A durable store without its run: which commits it holds, whether the last one is whole, and
 * how one that was retained is let go. No model, plan or device is needed: what a store is
 * stands in its files.
 *
 *     const char *dirs[] = {"/nvme0/run", "/nvme1/run"};
 *     strata_store_listing listing;
 *     if (strata_store_list(&listing, dirs, 2, &error) == STRATA_OK)
 *         printf("goes on from step %llu\n", (unsigned long long)listing.commits[0].step);
 *
 * Directories are all those of the store, in the order in which the run named them. Every
 * function here locks them while it lasts: a store in use is refused, and nobody begins to use
 * it meanwhile.
 *
 * Thread: any.
 */

#include "strata/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The last commit and as many retained ones as a store may have. */
#define STRATA_STORE_MAX_COMMITS 17u
/* Bytes of an identity, the zero at its end included. */
#define STRATA_STORE_IDENTITY_BYTES 2049u

typedef struct strata_commit_info {
    uint64_t step;
    bool retained; /* false: the last one, where a resume goes on */
} strata_commit_info;

typedef struct strata_store_listing {
    /* The last commit, then the retained ones, newest first. */
    strata_commit_info commits[STRATA_STORE_MAX_COMMITS];
    uint32_t commit_count; /* 0: the run was stopped before its first */
    uint32_t commit_every; /* steps from one to the next; 0: there is none */
    uint32_t keep;         /* how many may be retained at once */
    uint32_t slots;        /* places of each state record */
    uint32_t tiles;
    /* "name=value" lines: what a run must have in common with the store to go on from it. */
    char identity[STRATA_STORE_IDENTITY_BYTES];
} strata_store_listing;

/*
 * STRATA_E_IO: native ENOENT: no such directory, or one without a store.
 * STRATA_E_INVALID: not all drives of one store, or not in order.
 * STRATA_E_STATE: in use.
 * STRATA_E_UNSUPPORTED: a file of another version, or not a store's.
 * STRATA_E_CORRUPT: a header is damaged, or no commit record is left, though there was one. Or
 * the newest commit is lost: then out is filled in with the commits that are left, and the
 * message says which is lost.
 */
STRATA_API STRATA_NODISCARD strata_status strata_store_list(strata_store_listing *out,
                                                            const char *const *dirs,
                                                            uint32_t dir_count,
                                                            strata_error *error);

typedef struct strata_scrub_desc {
    const char *const *dirs; /* required; borrowed during the call */
    uint32_t dir_count;      /* required */
    /* NULL: none; called in the caller's thread with a line on each damaged tile: tile, slot,
     * file, offset, what is wrong. A damaged copy of a tile table or of a commit record has a
     * line as well, though the other copy may be whole. */
    strata_log_fn on_bad;
    void *on_bad_user;
    strata_progress_fn progress; /* NULL: none; see strata/types.h */
    void *progress_user;
    uint32_t io_deadline_s; /* 0: 120; a request that takes longer: STRATA_E_TIMEOUT */
} strata_scrub_desc;

typedef struct strata_scrub_result {
    uint64_t step;       /* of the commit that was verified */
    uint64_t tiles;      /* read */
    uint64_t bytes;      /* likewise */
    uint64_t bad;        /* damaged tiles, and copies of tables and commit records */
    double seconds;      /* of reading and hashing */
    const char *backend; /* "uring", or "threads" where io_uring is not to be had */
    bool direct;         /* O_DIRECT; false: the page cache may have answered for the drive */
} strata_scrub_result;

/*
 * Read every tile of the last commit and compare it with its hash, all drives at once, and
 * go on after a bad one. Nothing is written. Takes 64 MiB of memory per drive.
 *
 * Where the last commit is lost, or its tables are damaged in both copies, the newest commit
 * that is whole is verified. A resume goes on from that only if asked to. The result is damage.
 *
 * STRATA_E_CORRUPT: something was bad; out is filled in. STRATA_E_STATE: also: there is no
 * commit yet. STRATA_E_TIMEOUT: a drive does not answer. The others: as strata_store_list().
 */
STRATA_API STRATA_NODISCARD strata_status strata_store_scrub(strata_scrub_result *out,
                                                             const strata_scrub_desc *desc,
                                                             strata_error *error);

/*
 * Let a retained commit go: it is no longer listed, and the run may write to its slots. A
 * commit record is written and flushed; no tile is touched.
 *
 * STRATA_E_INVALID: also: no such commit; or it is the last one, which the run goes on from.
 * STRATA_E_CORRUPT: also: the last commit is lost, or its tables are damaged; then nothing is
 * changed.
 */
STRATA_API STRATA_NODISCARD strata_status strata_store_drop(const char *const *dirs,
                                                            uint32_t dir_count, uint64_t step,
                                                            strata_error *error);

#ifdef __cplusplus
}
#endif

#endif
