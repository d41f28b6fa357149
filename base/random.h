#ifndef STRATA_BASE_RANDOM_H
#define STRATA_BASE_RANDOM_H

/*
 * Random numbers that depend only on their purpose: Philox 4x32-10 (Salmon, Moraes, Dror,
 * Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC'11), with seed and stream (a tensor)
 * as key and the element as counter. Any thread can make the number of any element in any
 * order, so where a tile rests changes no bit.
 *
 * Thread: any.
 */

#include "strata/types.h"

/* One block of Philox 4x32-10: four words from a counter of four words and a key of two. */
void strata_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/*
 * Normally distributed values of mean 0 for elements first .. first + count - 1 of a stream.
 * Arithmetic of IEEE operations only (no libm), so every machine makes the same bits.
 */
void strata_random_normal(uint64_t seed, uint32_t stream, uint64_t first, uint64_t count,
                          float stddev, float *out);

/* For tests: the same by plain code, or by AVX2, which the CPU must have. */
void strata_random_normal_by(bool avx2, uint64_t seed, uint32_t stream, uint64_t first,
                             uint64_t count, float stddev, float *out);

#endif
