/*
 * The CUDA kernels give the host's bits: on a GPU where there is one, and on the CPU by the
 * emulator, which needs none and sees wrong indices and wrong orders of sums.
 */

#include "optim/cuda.h"
#include "tests/optim/special.h"
#include "tests/support/cuda_rig.h"

int emulated_cuda_adam(void *stream, const strata_adam_step *step,
                       const struct cuda_update *update);
int emulated_cuda_norm_blocks(void *stream, double *sums, const void *grad, strata_dtype dtype,
                              uint64_t block_count);
int emulated_cuda_convert(void *stream, void *dst, strata_dtype dst_dtype, const void *src,
                          strata_dtype src_dtype, uint64_t count);

int emulated_cuda_rebuild(void *stream, void *param, strata_dtype dtype, const void *state,
                          enum record_type record_type, uint64_t block_count);
unsigned emulated_cuda_launches(void);

/* Where the kernels run. rig NULL: the emulator, whose memory is the host's. */
struct place {
    struct cuda_rig *rig;
    int (*adam)(void *, const strata_adam_step *, const struct cuda_update *);
    int (*norm_blocks)(void *, double *, const void *, strata_dtype, uint64_t);
    int (*convert)(void *, void *, strata_dtype, const void *, strata_dtype, uint64_t);
    int (*rebuild)(void *, void *, strata_dtype, const void *, enum record_type, uint64_t);
};

static const strata_dtype dtypes[] = {STRATA_FP32, STRATA_BF16, STRATA_FP16};
#define DTYPES (sizeof dtypes / sizeof dtypes[0])

static void *stream_of(const struct place *p)
{
    return p->rig != NULL ? strata_stream_native(p->rig->stream) : NULL;
}

static void *bring(const struct place *p, void *host, size_t bytes)
{
    return p->rig != NULL ? cuda_rig_take(p->rig, host, bytes) : host;
}

static void fetch(const struct place *p, void *host, void *there, size_t bytes)
{
    if (p->rig == NULL)
        return;
    cuda_rig_read(p->rig, host, there, bytes);
    strata_device_give(p->rig->device, there, bytes);
}

static void fill(void *array, strata_dtype dtype, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i++) {
        float value = test_any_float(&seed);
        strata_convert(STRATA_ISA_SCALAR, (uint8_t *)array + i * strata_dtype_bytes(dtype),
                       dtype, &value, STRATA_FP32, 1);
    }
}

/* Adam, over a part of a tile that begins and ends in the middle of a norm block. */

#define TILE_ELEMS (3 * STRATA_BLOCK_ELEMS)
#define FIRST      16001u
#define COUNT      20011u

struct adam_case {
    strata_dtype dtype;
    enum record_type record_type;
    bool no_param, l2, no_decay, weights_only;
    bool moved; /* the gradient begins one element later, where nothing is aligned */
};

struct tile_bytes {
    uint8_t grad[(TILE_ELEMS + 4) * 4];
    uint8_t state[TILE_ELEMS * 12];
    uint8_t param[TILE_ELEMS * 4];
};

static struct cuda_update update_of(const struct adam_case *c)
{
    return (struct cuda_update){.dtype = c->dtype,
                                .record_type = c->record_type,
                                .first = FIRST,
                                .count = COUNT,
                                .weights_only = c->weights_only,
                                .no_decay = c->no_decay,
                                .seed = 0x123456789abcdef0,
                                .tensor = 5,
                                .element = 1000003};
}

/* What the host makes of elements first to end - 1, which lie in one block. */
static void update_on_host(struct tile_bytes *tile, const struct adam_case *c,
                           const strata_adam_step *step, uint64_t first, uint64_t end)
{
    struct cuda_update u = update_of(c);
    struct record_place place = strata_record_place(c->record_type, first);
    uint64_t w = strata_dtype_bytes(c->dtype);
    strata_adam_range range = {.grad = tile->grad + (first + c->moved) * w,
                               .master = (float *)(tile->state + place.master),
                               .m = tile->state + place.m,
                               .v = tile->state + place.v,
                               .param = c->no_param ? NULL : tile->param + first * w,
                               .grad_dtype = c->dtype,
                               .param_dtype = c->dtype,
                               .moment_dtype = strata_record_moments(c->record_type),
                               .count = end - first,
                               .no_decay = u.no_decay,
                               .seed = u.seed,
                               .tensor = u.tensor,
                               .element = u.element + first - FIRST};
    strata_adam_update(STRATA_ISA_SCALAR, step, &range);
}

static void fill_tile(struct tile_bytes *tile, const struct adam_case *c)
{
    memset(tile, 0x55, sizeof *tile);
    fill(tile->grad, c->dtype, TILE_ELEMS + 1, 1);
    for (uint64_t at = 0; at < TILE_ELEMS; at += STRATA_BLOCK_ELEMS) {
        struct record_place place = strata_record_place(c->record_type, at);
        strata_dtype moments = strata_record_moments(c->record_type);
        fill(tile->state + place.master, STRATA_FP32, STRATA_BLOCK_ELEMS, 2 + at);
        fill(tile->state + place.m, moments, STRATA_BLOCK_ELEMS, 3 + at);
        fill(tile->state + place.v, moments, STRATA_BLOCK_ELEMS, 4 + at);
    }
}

static void adam_gives_the_hosts_bits(const struct place *p, const struct adam_case *c)
{
    static struct tile_bytes want, got, before;
    fill_tile(&want, c);
    got = before = want;
    strata_adam_params params = strata_adam_defaults();
    params.l2_decay = c->l2;
    strata_adam_step step = strata_adam_prepare(&params, 7, 1e-3, 0.7f);
    struct tile_bytes *there = bring(p, &got, sizeof got);
    struct cuda_update update = update_of(c);
    update.grad = there->grad + c->moved * strata_dtype_bytes(c->dtype);
    update.state = there->state;
    update.param = c->no_param ? NULL : there->param;
    cr_assert_eq(p->adam(stream_of(p), &step, &update), 0);
    fetch(p, &got, there, sizeof got);
    for (uint64_t at = FIRST; at < FIRST + COUNT;) {
        uint64_t stop = (at / STRATA_BLOCK_ELEMS + 1) * STRATA_BLOCK_ELEMS;
        stop = stop < FIRST + COUNT ? stop : FIRST + COUNT;
        update_on_host(&want, c, &step, at, stop);
        at = stop;
    }
    if (c->weights_only)
        memcpy(want.state, before.state, sizeof want.state);
    cr_expect_eq(memcmp(&want, &got, sizeof want), 0,
                 "dtype %d, record %d, no param %d, l2 %d, no decay %d, weights only %d",
                 (int)c->dtype, (int)c->record_type, c->no_param, c->l2, c->no_decay,
                 c->weights_only);
}

static void every_adam_gives_the_hosts_bits(const struct place *p)
{
    for (uint32_t bits = 0; bits < 32; bits++)
        for (size_t g = 0; g < DTYPES; g++) {
            struct adam_case c = {.dtype = dtypes[g],
                                  .record_type = bits & 1 ? RECORD_BF16 : RECORD_FP32,
                                  .l2 = bits & 2,
                                  .no_decay = bits & 4,
                                  .weights_only = bits & 8,
                                  .moved = bits & 16,
                                  .no_param = bits == 0};
            adam_gives_the_hosts_bits(p, &c);
        }
}

/* Norms. */

#define NORM_BLOCKS 5u /* odd: a warp takes two */

static void norms_give_the_hosts_bits(const struct place *p, strata_dtype dtype, bool any)
{
    static float grad[NORM_BLOCKS * STRATA_BLOCK_ELEMS];
    uint64_t seed = 9;
    double sums[NORM_BLOCKS];
    size_t bytes = (size_t)STRATA_BLOCK_ELEMS * strata_dtype_bytes(dtype);
    memset(sums, 0x55, sizeof sums);
    for (size_t i = 0; i < NORM_BLOCKS * STRATA_BLOCK_ELEMS; i++) {
        float value = any ? test_any_float(&seed) : test_usual(&seed);
        strata_convert(STRATA_ISA_SCALAR, (uint8_t *)grad + i * strata_dtype_bytes(dtype),
                       dtype, &value, STRATA_FP32, 1);
    }
    void *there = bring(p, grad, sizeof grad);
    double *sums_there = bring(p, sums, sizeof sums);
    cr_assert_eq(p->norm_blocks(stream_of(p), sums_there, there, dtype, NORM_BLOCKS), 0);
    fetch(p, sums, sums_there, sizeof sums);
    fetch(p, grad, there, sizeof grad);
    for (uint32_t b = 0; b < NORM_BLOCKS; b++) {
        double want = strata_norm_block(STRATA_ISA_SCALAR, (uint8_t *)grad + b * bytes, dtype,
                                        STRATA_BLOCK_ELEMS);
        cr_expect(test_same_double(sums[b], want), "block %u of dtype %d: %a, not %a", b,
                  (int)dtype, sums[b], want);
    }
}

/* Conversions. */

#define CONVERT_ELEMS 70001u

static void conversions_give_the_hosts_bits(const struct place *p, strata_dtype from,
                                            strata_dtype to)
{
    static float src[CONVERT_ELEMS], want[CONVERT_ELEMS], got[CONVERT_ELEMS];
    fill(src, from, CONVERT_ELEMS, 11);
    memset(want, 0x55, sizeof want);
    memset(got, 0x55, sizeof got);
    strata_convert(STRATA_ISA_SCALAR, want, to, src, from, CONVERT_ELEMS);
    void *src_there = bring(p, src, sizeof src);
    void *got_there = bring(p, got, sizeof got);
    cr_assert_eq(p->convert(stream_of(p), got_there, to, src_there, from, CONVERT_ELEMS), 0);
    fetch(p, got, got_there, sizeof got);
    fetch(p, src, src_there, sizeof src);
    size_t wide = strata_dtype_bytes(to);
    for (size_t i = 0; i < CONVERT_ELEMS && wide == 4; i++)
        cr_assert(test_same_float(got[i], want[i]), "element %zu from dtype %d", i, (int)from);
    if (wide == 2)
        cr_expect_eq(memcmp(want, got, sizeof want), 0, "from dtype %d to %d", (int)from,
                     (int)to);
}

/* The master weights of every block, as the host rounds them. */
static void rebuilt_weights_are_the_hosts_bits(const struct place *p, strata_dtype dtype,
                                               enum record_type record_type)
{
    static struct tile_bytes tile, want;
    struct adam_case c = {.dtype = dtype, .record_type = record_type};
    fill_tile(&tile, &c);
    want = tile;
    for (uint64_t at = 0; at < TILE_ELEMS; at += STRATA_BLOCK_ELEMS)
        strata_convert(STRATA_ISA_SCALAR, want.param + at * strata_dtype_bytes(dtype), dtype,
                       want.state + strata_record_place(record_type, at).master, STRATA_FP32,
                       STRATA_BLOCK_ELEMS);
    struct tile_bytes *there = bring(p, &tile, sizeof tile);
    cr_assert_eq(p->rebuild(stream_of(p), there->param, dtype, there->state, record_type,
                            TILE_ELEMS / STRATA_BLOCK_ELEMS),
                 0);
    fetch(p, &tile, there, sizeof tile);
    for (uint64_t i = 0; i < TILE_ELEMS && dtype == STRATA_FP32; i++)
        cr_assert(test_same_float(((float *)tile.param)[i], ((float *)want.param)[i]),
                  "element %llu, record type %d", (unsigned long long)i, (int)record_type);
    cr_expect(dtype == STRATA_FP32 || memcmp(&tile, &want, sizeof want) == 0,
              "dtype %d, record type %d", (int)dtype, (int)record_type);
}

static void all_kernels_give_the_hosts_bits(const struct place *p)
{
    every_adam_gives_the_hosts_bits(p);
    for (size_t i = 0; i < DTYPES; i++) {
        rebuilt_weights_are_the_hosts_bits(p, dtypes[i], RECORD_FP32);
        rebuilt_weights_are_the_hosts_bits(p, dtypes[i], RECORD_BF16);
    }
    for (size_t i = 0; i < DTYPES; i++) {
        norms_give_the_hosts_bits(p, dtypes[i], false);
        norms_give_the_hosts_bits(p, dtypes[i], true);
        if (dtypes[i] == STRATA_FP32)
            continue;
        conversions_give_the_hosts_bits(p, dtypes[i], STRATA_FP32);
        conversions_give_the_hosts_bits(p, STRATA_FP32, dtypes[i]);
    }
}

Test(cuda, emulated_kernels_give_the_hosts_bits)
{
    all_kernels_give_the_hosts_bits(
        &(struct place){NULL, emulated_cuda_adam, emulated_cuda_norm_blocks,
                        emulated_cuda_convert, emulated_cuda_rebuild});
}

Test(cuda, kernels_on_a_gpu_give_the_hosts_bits)
{
    struct cuda_rig rig = cuda_rig_open();
    cr_assert_eq(strata_cuda_optim_load(), 0);
    all_kernels_give_the_hosts_bits(&(struct place){&rig, strata_cuda_adam,
                                                    strata_cuda_norm_blocks,
                                                    strata_cuda_convert, strata_cuda_rebuild});
    cuda_rig_close(&rig);
}

Test(cuda, weights_of_a_tile_are_rebuilt_by_one_launch)
{
    static struct tile_bytes tile;
    unsigned before = emulated_cuda_launches();
    cr_assert_eq(emulated_cuda_rebuild(NULL, tile.param, STRATA_BF16, tile.state, RECORD_FP32,
                                       TILE_ELEMS / STRATA_BLOCK_ELEMS),
                 0);
    cr_expect_eq(emulated_cuda_launches() - before, 1);
}
