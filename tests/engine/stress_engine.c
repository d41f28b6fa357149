#define _GNU_SOURCE
/*
 * The whole engine under ThreadSanitizer: the toy model through all tiers, the caller running
 * ahead, several workers. A plain main, because Criterion does not start under that sanitizer.
 * Says nothing and returns 0 when every run ended in the same state.
 */

#include <stdio.h>
#include <string.h>

#include "tests/support/temp_dir.h"
#include "tests/support/toy.h"

static const struct toy_run runs[] = {
    {.params = STRATA_DEVICE, .grads = STRATA_DEVICE, .states = STRATA_DEVICE, .clip = 1},
    {.params = STRATA_HOST,
     .grads = STRATA_HOST,
     .states = STRATA_HOST,
     .stash = STRATA_HOST,
     .clip = 1},
    {.params = STRATA_NVME,
     .grads = STRATA_NVME,
     .states = STRATA_NVME,
     .stash = STRATA_HOST,
     .clip = 1,
     .device_bytes = 1u << 20,
     .host_bytes = 12u << 20},
    {.params = STRATA_NVME,
     .grads = STRATA_HOST,
     .states = STRATA_NVME,
     .stash = STRATA_HOST,
     .clip = 1,
     .io = STRATA_IO_THREADS},
    {.params = STRATA_DEVICE,
     .grads = STRATA_NVME,
     .states = STRATA_HOST,
     .clip = 1,
     .no_overlap = true},
};

int main(void)
{
    struct temp_dir dir;
    uint8_t first[16];
    int failed = 0;
    strata_temp_dir_make(&dir);
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        struct toy_run run = runs[i];
        run.dir = dir.path;
        run.threads = 2;
        run.evaluate = i % 2 == 0;
        run.rewrite = i >= 2;
        struct toy_result result = strata_toy_run(&run);
        if (i == 0)
            memcpy(first, result.hash, sizeof first);
        if (result.status == STRATA_OK && memcmp(first, result.hash, sizeof first) == 0)
            continue;
        fprintf(stderr, "run %zu: %s %s\n", i, strata_status_name(result.status),
                result.error.message);
        failed = 1;
    }
    strata_temp_dir_remove(&dir);
    return failed;
}
