#ifndef STRATA_TESTS_FUZZ_H
#define STRATA_TESTS_FUZZ_H

/*
 * What the fuzz targets share. A target is one file, tests/fuzz/fuzz_<target>.c; run.sh builds
 * it with clang's libFuzzer and runs it from the seeds in corpus/<target>.
 *
 * A block on disk ends with a hash of itself, and no mutation finds the right one. So a target
 * judges its input twice: as it came, and again with the hash put right, as whoever makes a
 * file on purpose would do. Only the second gets at the code behind the hash.
 *
 * A target says what must hold of whatever was accepted by STRATA_CHECK; to crash is not the
 * only way to be wrong.
 *
 *     fuzz_commit --seeds=corpus/commit        write the seeds anew, e.g. for a new version
 *
 * Thread: one.
 */

#include <stddef.h>
#include <stdint.h>

/* libFuzzer's; a target has the first, fuzz.c the second. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* A target's: write each of its seeds. */
void strata_fuzz_seeds(void);

/* Write one seed; a file in the folder that --seeds named. */
void strata_fuzz_seed(const char *name, const void *bytes, size_t count);
void strata_fuzz_seed_text(const char *name, const char *text);

#endif
