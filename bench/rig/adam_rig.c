/*
 * The update in several ways. See adam_rig.h.
 *
 * The bare kernel reads and writes the same bytes as the fused one, in the same order, sixteen
 * bytes of gradient at a time, with the same stores past the caches for the parameters. It
 * stores what it loaded. Its mask is zero, but the compiler does not know that and cannot
 * remove the loads.
 *
 * Thread: workers run the functions that take an index.
 */

#include "bench/rig/adam_rig.h"

#include "base/random.h"
#include "base/round.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_BLOCKS 4u
#define BLOCK        STRATA_BLOCK_ELEMS

struct pass {
    struct adam_rig *rig;
    const struct adam_kind *kind;
    enum record_type type;
    uint32_t w;
    uint64_t blocks;
    strata_adam_step step;
    void (*block)(const struct pass *pass, uint64_t index);
};

static uint8_t *record_block(const struct pass *pass, uint64_t index)
{
    return pass->rig->record + index * strata_record_block_bytes(pass->type);
}

static void *grad_block(const struct pass *pass, uint64_t index)
{
    return pass->rig->grad + index * BLOCK * pass->w;
}

static void *param_block(const struct pass *pass, uint64_t index)
{
    return pass->rig->param + index * BLOCK * pass->w;
}

static strata_adam_range range_of(const struct pass *pass, uint64_t index)
{
    struct record_place place = strata_record_place(pass->type, 0);
    uint8_t *record = record_block(pass, index);
    return (strata_adam_range){.grad = grad_block(pass, index),
                               .master = (float *)(record + place.master),
                               .m = record + place.m,
                               .v = record + place.v,
                               .param = param_block(pass, index),
                               .grad_dtype = pass->kind->dtype,
                               .param_dtype = pass->kind->dtype,
                               .moment_dtype = pass->kind->states,
                               .count = BLOCK,
                               .stream_param = true,
                               .element = index * BLOCK};
}

static void fused_block(const struct pass *pass, uint64_t index)
{
    strata_adam_range range = range_of(pass, index);
    strata_adam_update(pass->kind->isa, &pass->step, &range);
}

static void widen_block(const struct pass *pass, uint64_t index)
{
    strata_convert(pass->kind->isa, pass->rig->wide + index * BLOCK, STRATA_FP32,
                   grad_block(pass, index), pass->kind->dtype, BLOCK);
}

static void step_alone(const struct pass *pass, uint64_t index)
{
    strata_adam_range range = range_of(pass, index);
    range.grad = pass->rig->wide + index * BLOCK;
    range.grad_dtype = STRATA_FP32;
    range.param = NULL;
    strata_adam_update(pass->kind->isa, &pass->step, &range);
}

static void narrow_block(const struct pass *pass, uint64_t index)
{
    strata_convert(pass->kind->isa, param_block(pass, index), pass->kind->dtype,
                   record_block(pass, index), STRATA_FP32, BLOCK);
}

/* Clipping as a separate pass: gradients are read from memory and written back. */
static void scale_block(const struct pass *pass, uint64_t index)
{
    float values[256];
    uint8_t *grad = grad_block(pass, index);
    for (uint32_t at = 0; at < BLOCK; at += 256) {
        strata_convert(pass->kind->isa, values, STRATA_FP32, grad + at * pass->w,
                       pass->kind->dtype, 256);
        for (uint32_t i = 0; i < 256; i++)
            values[i] *=
                pass->step
                    .grad_scale; /* 1 here, so that gradients do not shrink with every pass */
        strata_convert(pass->kind->isa, grad + at * pass->w, pass->kind->dtype, values,
                       STRATA_FP32, 256);
    }
}

static void hash_record(const struct pass *pass, uint64_t index, struct hash128 *digests)
{
    uint32_t bytes = strata_record_block_bytes(pass->type);
    strata_hash_pieces(record_block(pass, index), bytes,
                       digests + index * strata_hash_piece_count(bytes));
}

static void hash_read(const struct pass *pass, uint64_t index)
{
    hash_record(pass, index, pass->rig->read_digests);
}

static void hash_written(const struct pass *pass, uint64_t index)
{
    uint32_t bytes = BLOCK * pass->w;
    hash_record(pass, index, pass->rig->record_digests);
    strata_hash_pieces(param_block(pass, index), bytes,
                       pass->rig->param_digests + index * strata_hash_piece_count(bytes));
}

static void inside_block(const struct pass *pass, uint64_t index)
{
    strata_adam_range range = range_of(pass, index);
    range.stream_param = false; /* it is hashed right after */
    hash_read(pass, index);
    strata_adam_update(pass->kind->isa, &pass->step, &range);
    hash_written(pass, index);
}

#if defined(__x86_64__)

#    include <immintrin.h>

/* Writes x back, xor g, which the mask has made zero. */
__attribute__((target("avx2"))) static inline void touch_bytes(uint8_t *x, __m256i g)
{
    _mm256_storeu_si256((void *)x, _mm256_xor_si256(_mm256_loadu_si256((const void *)x), g));
}

/* Reads grad, reads and writes master, m and v at their widths, and writes param. */
__attribute__((target("avx2"))) static void bare_block(const struct pass *pass, uint64_t index)
{
    static const volatile int zero;
    const __m256i mask = _mm256_set1_epi32(zero);
    struct record_place place = strata_record_place(pass->type, 0);
    uint32_t moment_bytes = strata_dtype_bytes(pass->kind->states);
    uint8_t *record = record_block(pass, index);
    const uint8_t *grad = grad_block(pass, index);
    uint8_t *param = param_block(pass, index);
    for (uint32_t i = 0; i < BLOCK; i += 16) {
        __m256i g = _mm256_loadu_si256((const void *)(grad + i * pass->w));
        if (pass->w == 4)
            g = _mm256_or_si256(g, _mm256_loadu_si256((const void *)(grad + 4 * i + 32)));
        g = _mm256_and_si256(g, mask);
        touch_bytes(record + place.master + 4 * i, g);
        touch_bytes(record + place.master + 4 * i + 32, g);
        for (uint32_t at = 0; at < 16 * moment_bytes; at += 32) {
            touch_bytes(record + place.m + moment_bytes * i + at, g);
            touch_bytes(record + place.v + moment_bytes * i + at, g);
        }
        for (uint32_t at = 0; at < 16 * pass->w; at += 32)
            _mm256_stream_si256((void *)(param + i * pass->w + at), g);
    }
    _mm_sfence();
}

#else

static void bare_block(const struct pass *pass, uint64_t index)
{
    memmove(param_block(pass, index), grad_block(pass, index), BLOCK * pass->w);
    for (uint32_t i = 0; i < strata_record_block_bytes(pass->type); i++)
        ((volatile uint8_t *)record_block(pass, index))[i] ^= 0;
}

#endif

static void run_chunk(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct pass *pass = user;
    uint64_t first = (uint64_t)index * CHUNK_BLOCKS;
    for (uint64_t b = first; b < first + CHUNK_BLOCKS && b < pass->blocks; b++)
        pass->block(pass, b);
}

static void run_adam_pass(struct pass *pass, strata_workers *workers,
                          void (*block)(const struct pass *pass, uint64_t index))
{
    pass->block = block;
    strata_workers_run(workers, STRATA_JOB_UPDATE, run_chunk, pass,
                       (uint32_t)strata_units_of(pass->blocks, CHUNK_BLOCKS));
}

void strata_bench_adam_pass(struct adam_rig *rig, strata_workers *workers,
                            const struct adam_kind *kind, enum adam_way way, uint64_t elems,
                            float grad_scale)
{
    strata_adam_params params = strata_adam_defaults();
    struct pass pass = {.rig = rig,
                        .kind = kind,
                        .type = strata_record_type(kind->states),
                        .w = strata_dtype_bytes(kind->dtype),
                        .blocks = (elems < rig->elems ? elems : rig->elems) / BLOCK,
                        .step = strata_adam_prepare(&params, ++rig->t, 1e-4, grad_scale)};
    void (*const single[])(const struct pass *, uint64_t) = {
        [ADAM_BARE] = bare_block, [ADAM_FUSED] = fused_block, [ADAM_INSIDE] = inside_block};
    if (way == ADAM_CAST) {
        run_adam_pass(&pass, workers, widen_block);
        run_adam_pass(&pass, workers, step_alone);
        run_adam_pass(&pass, workers, narrow_block);
    } else if (way == ADAM_SCALE) {
        run_adam_pass(&pass, workers, scale_block);
        run_adam_pass(&pass, workers, fused_block);
    } else if (way == ADAM_APART) {
        run_adam_pass(&pass, workers, hash_read);
        run_adam_pass(&pass, workers, fused_block);
        run_adam_pass(&pass, workers, hash_written);
    } else {
        run_adam_pass(&pass, workers, single[way]);
    }
}

uint32_t strata_bench_adam_bytes(const struct adam_kind *kind)
{
    return 2 * (strata_dtype_bytes(kind->dtype) +
                strata_record_elem_bytes(strata_record_type(kind->states)));
}

void strata_bench_adam_reset(struct adam_rig *rig, const struct adam_kind *kind)
{
    enum record_type type = strata_record_type(kind->states);
    uint32_t w = strata_dtype_bytes(kind->dtype);
    rig->t = 0;
    for (uint64_t b = 0; b < rig->elems / BLOCK; b++) {
        uint8_t *record = rig->record + b * strata_record_block_bytes(type);
        const float *wide = rig->wide + b * BLOCK;
        memset(record, 0, strata_record_block_bytes(type));
        memcpy(record, wide, BLOCK * sizeof *wide);
        strata_convert(STRATA_ISA_BEST, rig->grad + b * BLOCK * w, kind->dtype, wide,
                       STRATA_FP32, BLOCK);
    }
}

strata_status strata_bench_adam_open(struct adam_rig *out, uint64_t elems, strata_error *error)
{
    *out = (struct adam_rig){.elems = strata_round_up(elems, BLOCK)};
    uint64_t record_bytes = 12 * out->elems;
    uint64_t digests = strata_hash_piece_count(record_bytes) * sizeof(struct hash128);
    strata_status status = strata_arena_create(&out->memory, 24 * out->elems + 3 * digests,
                                               "the benchmark's arrays", error);
    if (status != STRATA_OK)
        return status;
    uint8_t *at = out->memory.base;
    out->record = at;
    out->grad = at + record_bytes;
    out->wide = (float *)(at + record_bytes + 4 * out->elems);
    out->param = at + record_bytes + 8 * out->elems;
    out->read_digests = (struct hash128 *)(at + record_bytes + 12 * out->elems);
    out->record_digests = out->read_digests + digests / sizeof(struct hash128);
    out->param_digests = out->record_digests + digests / sizeof(struct hash128);
    /* All blocks get the same values: normal numbers, no two in a vector alike. */
    strata_random_normal(1, 0, 0, BLOCK, 0.01f, out->wide);
    for (uint64_t b = 1; b < out->elems / BLOCK; b++)
        memcpy(out->wide + b * BLOCK, out->wide, BLOCK * sizeof *out->wide);
    return STRATA_OK;
}

void strata_bench_adam_close(struct adam_rig *rig)
{
    strata_arena_destroy(&rig->memory);
}
