/*
 * The way into a fuzz target: to write seeds instead of looking for trouble. See fuzz.h.
 *
 * libFuzzer owns main(), and calls LLVMFuzzerInitialize() before it looks at the arguments. The
 * folder is kept for the time of that call only.
 *
 * Thread: one.
 */

#include "tests/fuzz/fuzz.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEEDS "--seeds="

static const char *folder; /* while seeds are written; libFuzzer's calls carry no argument */

void strata_fuzz_seed(const char *name, const void *bytes, size_t count)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    STRATA_CHECK(length > 0 && (size_t)length < sizeof path);
    FILE *file = fopen(path, "wb");
    STRATA_CHECK(file != NULL);
    STRATA_CHECK(fwrite(bytes, 1, count, file) == count);
    STRATA_CHECK(fclose(file) == 0);
}

void strata_fuzz_seed_text(const char *name, const char *text)
{
    strata_fuzz_seed(name, text, strlen(text));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (*argc != 2 || strncmp((*argv)[1], SEEDS, strlen(SEEDS)) != 0)
        return 0;
    folder = (*argv)[1] + strlen(SEEDS);
    strata_fuzz_seeds();
    exit(0);
}
