#ifndef STRATA_TRAIN_DATA_H
#define STRATA_TRAIN_DATA_H

/*
 * The tokens to train on, from one file, in an order that depends on nothing but the step.
 *
 * The file is a token shard in the format of llm.c (a header of 256 32-bit words that starts
 * with a magic number and a version, then tokens of 16 or 32 bits, little-endian), or any
 * other regular file, whose bytes are the tokens. Token i of the stream is token i mod n of
 * the file. Sequence b of step s (from 0) has inputs i .. i + seq - 1 and targets i + 1 .. i +
 * seq with i = (s x batch + b) x seq. So a step's sequences follow one another, and the
 * targets are the inputs shifted by one token: one range of batch x seq + 1 tokens holds both.
 *
 * Thread: one per object.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/progress.h"
#include "strata/status.h"

struct data;

struct data_desc {
    const char *path;    /* required; borrowed until close                             */
    uint32_t seq;        /* required                                                   */
    uint32_t batch;      /* required; batch x seq below 2^31                           */
    uint64_t vocab_size; /* required; a token of that value or above is refused        */
    struct progress_call progress; /* for reading the whole file, in open and identify */
};

/* Host bytes that open allocates, for reserved_host_bytes. */
uint64_t strata_data_host_bytes(const struct data_desc *desc);

/*
 * Open the file and read it once from end to end: a token outside the vocabulary is found now
 * and not after hours. *out is owned until strata_data_close(). On failure *out is NULL.
 *
 * STRATA_E_IO:      native ENOENT, ...
 * STRATA_E_INVALID: no regular file, empty, shorter than seq + 1 tokens, a damaged shard.
 * STRATA_E_CORRUPT: a token beyond the vocabulary; the message has its position.
 */
strata_status strata_data_open(struct data **out, const struct data_desc *desc,
                               strata_error *error);
void strata_data_close(struct data *data);

/*
 * The identity of the file, to compare it with the file that a run began with: its size and
 * 64-bit FNV-1a over its little-endian 64-bit words, the last one padded with zeros. Reads the
 * whole file.
 *
 * STRATA_E_IO: a read failed or the file became shorter.
 */
struct data_identity {
    uint64_t bytes;
    uint64_t hash;
};
strata_status strata_data_identify(struct data *data, struct data_identity *out,
                                   strata_error *error);

/* Tokens of the file. */
uint64_t strata_data_token_count(const struct data *data);
/* "bytes", "16-bit tokens" or "32-bit tokens". Static storage. */
const char *strata_data_kind(const struct data *data);

/*
 * The tokens of a step, which counts from 0. *out_inputs and *out_targets are batch x seq
 * tokens each, lent until the next call. Allocates nothing.
 *
 * STRATA_E_IO:      a read failed or the file became shorter.
 * STRATA_E_CORRUPT: the file changed, and a token is now beyond the vocabulary.
 */
strata_status strata_data_batch(struct data *data, uint64_t step, const uint32_t **out_inputs,
                                const uint32_t **out_targets, strata_error *error);

#endif
