#define _GNU_SOURCE
/*
 * The tokens to train on. See data.h.
 *
 * All reads go through one small buffer with pread: the scan at open, and a step's tokens,
 * which are widened to 32 bits on the way. A step reads some kilobytes, which are in the page
 * cache. Mapping the file would raise SIGBUS if another process cuts it short.
 *
 * Every token is checked against the vocabulary again when it is used: it indexes a table, and
 * the file may have changed since the scan.
 *
 * Thread: one per object.
 */

#include "train/data.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

/* The scan reads the whole file; calls of more than 256 KiB are no faster. */
#define BUFFER_BYTES 262144u

#define HEADER_WORDS 256
#define HEADER_BYTES (HEADER_WORDS * 4u)

/* The two kinds of shard that llm.c writes: GPT-2 tokens and Llama 3 tokens. */
static const struct shard_kind {
    uint32_t magic;
    uint32_t version;
    uint32_t token_bytes;
} shard_kinds[] = {{20240520, 1, 2}, {20240801, 7, 4}};

struct data {
    struct data_desc desc;
    int file;
    uint64_t file_bytes;
    uint64_t first_byte; /* of the first token */
    uint32_t token_bytes;
    uint64_t token_count;
    uint32_t *tokens; /* tokens of a step, batch x seq + 1 */
    uint8_t *buffer;
};

static uint64_t step_tokens(const struct data_desc *desc)
{
    return (uint64_t)desc->batch * desc->seq;
}

uint64_t strata_data_host_bytes(const struct data_desc *desc)
{
    return sizeof(struct data) + (step_tokens(desc) + 1) * sizeof(uint32_t) + BUFFER_BYTES;
}

/* The file is little-endian on every machine. */
static uint32_t token_at(const uint8_t *at, uint32_t token_bytes)
{
    switch (token_bytes) {
    case 1:
        return at[0];
    case 2:
        return (uint32_t)at[0] | (uint32_t)at[1] << 8;
    default:
        return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
               (uint32_t)at[3] << 24;
    }
}

static strata_status read_bytes(const struct data *data, uint64_t offset, size_t bytes,
                                strata_error *error)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t got =
            pread(data->file, data->buffer + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return strata_fail(error, STRATA_E_IO, errno,
                               "read of %zu bytes at %llu of %.100s: %s", bytes - done,
                               (unsigned long long)(offset + done), data->desc.path,
                               strerror(errno));
        if (got == 0)
            return strata_fail(
                error, STRATA_E_IO, 0,
                "read of %zu bytes at %llu of %.100s: the file ends there: it was cut short "
                "while in use",
                bytes - done, (unsigned long long)(offset + done), data->desc.path);
        done += (size_t)got;
    }
    return STRATA_OK;
}

/*
 * Read count tokens from token `first` of the file on, through the buffer, into out unless it
 * is NULL. All lie within the file.
 */
static strata_status read_tokens(struct data *data, uint64_t first, uint64_t count,
                                 uint32_t *out, strata_error *error)
{
    const uint32_t width = data->token_bytes;
    const uint64_t limit = data->desc.vocab_size;
    const uint64_t end = first + count;
    struct progress progress;
    strata_progress_begin(&progress, &data->desc.progress, "checking the data", width * end,
                          strata_now_ns());
    while (count > 0) {
        uint64_t piece = count < BUFFER_BYTES / width ? count : BUFFER_BYTES / width;
        STRATA_TRY(
            read_bytes(data, data->first_byte + first * width, (size_t)(piece * width), error));
        for (uint64_t i = 0; i < piece; i++) {
            uint32_t token = token_at(data->buffer + i * width, width);
            if (token >= limit)
                return strata_fail(
                    error, STRATA_E_CORRUPT, 0,
                    "token %llu of %.100s is %u: beyond the model's vocabulary of %llu: use "
                    "another model or other data",
                    (unsigned long long)(first + i), data->desc.path, token,
                    (unsigned long long)limit);
            if (out != NULL)
                *out++ = token;
        }
        first += piece;
        count -= piece;
        if (out == NULL)
            strata_progress_at(&progress, width * first, strata_now_ns());
    }
    return STRATA_OK;
}

static strata_status refuse_shard(const struct data *data, strata_error *error, const char *why)
{
    return strata_fail(error, STRATA_E_INVALID, 0, "token shard %.100s: %s: make it again",
                       data->desc.path, why);
}

/* If the file is a shard, use width and count from its header and compare them with the file's
 * size. */
static strata_status read_header(struct data *data, strata_error *error)
{
    data->token_bytes = 1;
    data->token_count = data->file_bytes;
    if (data->file_bytes < 4)
        return STRATA_OK;
    STRATA_TRY(read_bytes(data, 0, 4, error));
    const struct shard_kind *kind = NULL;
    for (size_t i = 0; i < sizeof shard_kinds / sizeof shard_kinds[0]; i++) {
        if (token_at(data->buffer, 4) == shard_kinds[i].magic)
            kind = &shard_kinds[i];
    }
    if (kind == NULL)
        return STRATA_OK;
    if (data->file_bytes < HEADER_BYTES)
        return refuse_shard(data, error, "shorter than its header of 1024 bytes");
    STRATA_TRY(read_bytes(data, 0, HEADER_BYTES, error));
    uint32_t version = token_at(data->buffer + 4, 4);
    if (version != kind->version)
        return strata_fail(
            error, STRATA_E_INVALID, 0,
            "token shard %.100s has version %u: this program reads version %u: make it again",
            data->desc.path, version, kind->version);
    data->first_byte = HEADER_BYTES;
    data->token_bytes = kind->token_bytes;
    data->token_count = token_at(data->buffer + 8, 4);
    if (data->file_bytes - HEADER_BYTES != data->token_count * kind->token_bytes) {
        char why[120];
        snprintf(why, sizeof why,
                 "its header names %llu tokens, its size of %llu bytes holds %llu",
                 (unsigned long long)data->token_count, (unsigned long long)data->file_bytes,
                 (unsigned long long)((data->file_bytes - HEADER_BYTES) / kind->token_bytes));
        return refuse_shard(data, error, why);
    }
    return STRATA_OK;
}

static strata_status open_file(struct data *data, strata_error *error)
{
    const char *path = data->desc.path;
    /* O_NONBLOCK: opening a pipe without a writer must not block. It changes nothing for a
     * file. */
    data->file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (data->file < 0)
        return strata_fail(error, STRATA_E_IO, errno,
                           "open of data %.150s: %s: give a file that can be read", path,
                           strerror(errno));
    struct stat facts;
    if (fstat(data->file, &facts) != 0)
        return strata_fail(error, STRATA_E_IO, errno, "stat of data %.150s: %s", path,
                           strerror(errno));
    if (!S_ISREG(facts.st_mode))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "data %.150s is not a regular file: give a text or a token shard",
                           path);
    if (facts.st_size == 0)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "data %.150s is empty: give a text or a token shard", path);
    data->file_bytes = (uint64_t)facts.st_size;
    return STRATA_OK;
}

static strata_status check_all_tokens(struct data *data, strata_error *error)
{
    STRATA_TRY(read_header(data, error));
    if (data->token_count < (uint64_t)data->desc.seq + 1)
        return strata_fail(
            error, STRATA_E_INVALID, 0,
            "data %.100s has %llu tokens: a sequence of %u needs %llu: give a longer text or a "
            "smaller --seq",
            data->desc.path, (unsigned long long)data->token_count, data->desc.seq,
            (unsigned long long)data->desc.seq + 1);
    /* Every byte is within a vocabulary of 256, so the scan is not needed. */
    if (data->token_bytes == 1 && data->desc.vocab_size >= 256)
        return STRATA_OK;
    return read_tokens(data, 0, data->token_count, NULL, error);
}

strata_status strata_data_open(struct data **out, const struct data_desc *desc,
                               strata_error *error)
{
    *out = NULL;
    struct data *data = calloc(1, sizeof *data);
    if (data == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "memory for the data reader: none left");
    data->desc = *desc;
    data->file = -1;
    data->buffer = malloc(BUFFER_BYTES);
    data->tokens = malloc((step_tokens(desc) + 1) * sizeof(uint32_t));
    strata_status status = STRATA_OK;
    if (data->buffer == NULL || data->tokens == NULL)
        status = strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                             "memory for %llu tokens a step: none left",
                             (unsigned long long)step_tokens(desc));
    if (status == STRATA_OK)
        status = open_file(data, error);
    if (status == STRATA_OK)
        status = check_all_tokens(data, error);
    if (status != STRATA_OK) {
        strata_data_close(data);
        return status;
    }
    *out = data;
    return STRATA_OK;
}

void strata_data_close(struct data *data)
{
    if (data == NULL)
        return;
    if (data->file >= 0)
        close(data->file);
    free(data->tokens);
    free(data->buffer);
    free(data);
}

strata_status strata_data_identify(struct data *data, struct data_identity *out,
                                   strata_error *error)
{
    /* By words, which is eight times as fast as by bytes, so the drive limits the speed. Each
     * step maps hashes one to one, so a change in one place always changes the hash. */
    uint64_t hash = 0xcbf29ce484222325u;
    struct progress progress;
    strata_progress_begin(&progress, &data->desc.progress, "hashing the data", data->file_bytes,
                          strata_now_ns());
    for (uint64_t at = 0; at < data->file_bytes; at += BUFFER_BYTES) {
        uint64_t left = data->file_bytes - at;
        size_t piece = left < BUFFER_BYTES ? (size_t)left : BUFFER_BYTES;
        STRATA_TRY(read_bytes(data, at, piece, error));
        while (piece % 8 != 0)
            data->buffer[piece++] = 0;
        for (size_t i = 0; i < piece; i += 8) {
            uint64_t low = token_at(data->buffer + i, 4);
            uint64_t high = token_at(data->buffer + i + 4, 4);
            hash = (hash ^ (low | high << 32)) * 0x100000001b3u;
        }
        strata_progress_at(&progress, at + (left < BUFFER_BYTES ? left : BUFFER_BYTES),
                           strata_now_ns());
    }
    *out = (struct data_identity){.bytes = data->file_bytes, .hash = hash};
    return STRATA_OK;
}

uint64_t strata_data_token_count(const struct data *data)
{
    return data->token_count;
}

const char *strata_data_kind(const struct data *data)
{
    return data->token_bytes == 1   ? "bytes"
           : data->token_bytes == 2 ? "16-bit tokens"
                                    : "32-bit tokens";
}

strata_status strata_data_batch(struct data *data, uint64_t step, const uint32_t **out_inputs,
                                const uint32_t **out_targets, strata_error *error)
{
    uint64_t count = step_tokens(&data->desc) + 1;
    /* No overflow: the options keep steps and batch x seq below 2^31 each. */
    uint64_t at = step * step_tokens(&data->desc) % data->token_count;
    uint32_t *out = data->tokens;
    while (count > 0) {
        uint64_t piece = data->token_count - at;
        piece = count < piece ? count : piece;
        STRATA_TRY(read_tokens(data, at, piece, out, error));
        out += piece;
        count -= piece;
        at = 0;
    }
    *out_inputs = data->tokens;
    *out_targets = data->tokens + 1;
    return STRATA_OK;
}
