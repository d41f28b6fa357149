#define _GNU_SOURCE
/*
 * A step takes nothing: no object of ours calls an allocator in it (the linker wraps them),
 * resident memory stays what it was after the second step, and so do open files, over a
 * thousand steps.
 */

#include "tests/support/temp_dir.h"
#include "tests/support/decoder_rig.h"
#include "tests/support/toy.h"

#include <criterion/criterion.h>

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Written by the caller's thread between steps, read by every thread that allocates. */
static atomic_bool counting;
static atomic_uint allocations;
static atomic_uint seen; /* outside steps too: shows that the linker's wrap is at work */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t align, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);

static void count(void)
{
    atomic_fetch_add(&seen, 1);
    if (atomic_load(&counting))
        atomic_fetch_add(&allocations, 1);
}

void *__wrap_malloc(size_t bytes)
{
    count();
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    count();
    return __real_calloc(n, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    count();
    return __real_realloc(old, bytes);
}

void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
    count();
    return __real_aligned_alloc(align, bytes);
}

static long resident_pages(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%*d %ld", &pages), 1);
    fclose(file);
    return pages;
}

static int open_files(void)
{
    int files = 0;
    DIR *entries = opendir("/proc/self/fd");
    cr_assert_not_null(entries);
    while (readdir(entries) != NULL)
        files++;
    closedir(entries);
    return files;
}

struct watch {
    long pages;
    int files;
    bool memory; /* sanitizers keep shadow memory of their own */
};

static void look(void *user, uint64_t step)
{
    struct watch *watch = user;
    atomic_store(&counting, false);
    if (step == 2) {
        watch->pages = resident_pages();
        watch->files = open_files();
    }
    if (step == 1000 && watch->memory)
        cr_expect_leq(resident_pages(), watch->pages + 16, "resident pages: %ld, then %ld",
                      watch->pages, resident_pages());
    if (step == 1000)
        cr_expect_eq(open_files(), watch->files);
    atomic_store(&counting, true);
}

static bool sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}

Test(steady, a_thousand_steps_take_nothing)
{
    struct temp_dir dir;
    struct watch watch = {.memory = !sanitized()};
    strata_temp_dir_make(&dir);
    struct toy_run run = {.params = STRATA_NVME,
                          .grads = STRATA_NVME,
                          .states = STRATA_NVME,
                          .clip = 1,
                          .dir = dir.path,
                          .steps = 1000,
                          .after_step = look,
                          .after_user = &watch,
                          .host_bytes = 24u << 20,
                          .device_bytes = 4u << 20};
    struct toy_result result = strata_toy_run(&run);
    atomic_store(&counting, false);
    strata_temp_dir_remove(&dir);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
    cr_expect_eq(atomic_load(&allocations), 0, "%u allocations", atomic_load(&allocations));
    cr_expect_gt(atomic_load(&seen), 10, "the allocators are not wrapped");
}

/* The trainer's own arithmetic too. The first step does not count: BLAS takes its buffers. */
Test(steady, a_llama_step_takes_nothing)
{
    static struct decoder_rig rig;
    static uint32_t tokens[4 * 33];
    strata_error error = {0};
    double loss = 0;
    struct decoder_rig_desc desc = {
        .config = {.vocab_size = 256,
                   .hidden_size = 64,
                   .layer_count = 3,
                   .head_count = 4,
                   .kv_head_count = 2,
                   .head_dim = 16,
                   .ffn_size = 128,
                   .rms_eps = 1e-5,
                   .rope.theta = 10000,
                   .initializer_range = 0.02},
        .shape = {.seq = 32,
                  .batch = 4,
                  .micro_batch = 2,
                  .vocab_slices = 2,
                  .compute_dtype = STRATA_BF16},
        .adam = strata_adam_defaults(),
        .clip = 1,
        .stash = STRATA_HOST,
    };
    for (uint32_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
        tokens[i] = i * 37 % 256;
    cr_assert_eq(strata_test_decoder_open(&rig, &desc, &error), STRATA_OK, "%s", error.message);
    for (int step = 1; step <= 20; step++) {
        atomic_store(&counting, step > 1);
        strata_status status = strata_test_decoder_step(&rig, 1e-3, tokens, &loss, NULL);
        atomic_store(&counting, false);
        cr_assert_eq(status, STRATA_OK, "%s", strata_engine_error(rig.engine)->message);
    }
    strata_test_decoder_close(&rig);
    cr_expect_eq(atomic_load(&allocations), 0, "%u allocations", atomic_load(&allocations));
    cr_expect_gt(atomic_load(&seen), 10, "the allocators are not wrapped");
}
