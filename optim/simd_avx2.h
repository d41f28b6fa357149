/*
 * The words of the kernel templates for AVX2 with FMA: eight fp32 at a time.
 *
 * A template is included once per instruction set, after one of these headers, and speaks only
 * in their words; simd_end.h takes the words back, so that the next set can define them.
 *
 *     SUFFIX(name)       name with the set's ending: every function of a template is called so
 *     TARGET             the attribute that lets the compiler use the set in one function
 *     VL                 elements of a vector
 *     vec, vec_load(p), vec_store(p, x), vec_set1(s)
 *     vec_add, vec_sub, vec_mul, vec_div, vec_sqrt, vec_fma(a, b, c) = a x b + c, rounded once
 *     vec_load_bf16(p)   widen VL bf16
 *     vec_store_bf16(p, x)  round VL fp32 to bf16
 *     vec_sums           16 sums in double; {0} is how they begin
 *     vec_sums_add_fp32(&sums, p), vec_sums_add_bf16(&sums, p)
 *                        sums[i] += p[i] squared, in double, for 16 elements
 *     vec_sums_store(out, &sums)  to 16 doubles
 *
 * Addresses need no alignment. A bf16 is rounded with integers: the instruction that does it
 * (vcvtneps2bf16) flushes denormals whatever the MXCSR says.
 */

#include <immintrin.h>

#define SUFFIX(name) name##_avx2
#define TARGET       __attribute__((target("avx2,fma")))
#define VL           8

#define vec                        __m256
#define vec_load(p)                _mm256_loadu_ps(p)
#define vec_store(p, x)            _mm256_storeu_ps(p, x)
#define vec_set1(s)                _mm256_set1_ps(s)
#define vec_add(a, b)              _mm256_add_ps(a, b)
#define vec_sub(a, b)              _mm256_sub_ps(a, b)
#define vec_mul(a, b)              _mm256_mul_ps(a, b)
#define vec_div(a, b)              _mm256_div_ps(a, b)
#define vec_sqrt(a)                _mm256_sqrt_ps(a)
#define vec_fma(a, b, c)           _mm256_fmadd_ps(a, b, c)
#define vec_load_bf16(p)           load_bf16_avx2(p)
#define vec_store_bf16(p, x)       store_bf16_avx2(p, x)
#define vec_sums                   struct sums_avx2
#define vec_sums_add_fp32(sums, p) sums_add_fp32_avx2(sums, p)
#define vec_sums_add_bf16(sums, p) sums_add_bf16_avx2(sums, p)
#define vec_sums_store(out, sums)  sums_store_avx2(out, sums)

#ifndef STRATA_OPTIM_SIMD_AVX2_H
#    define STRATA_OPTIM_SIMD_AVX2_H

TARGET static inline __m256 load_bf16_avx2(const void *src)
{
    __m128i halves = _mm_loadu_si128(src);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

TARGET static inline void store_bf16_avx2(void *dst, __m256 x)
{
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), is_nan);
    _mm_storeu_si128(dst, _mm_packus_epi32(_mm256_castsi256_si128(rounded),
                                           _mm256_extracti128_si256(rounded, 1)));
}

struct sums_avx2 {
    __m256d part[4];
};

TARGET static inline __m256d square_add_avx2(__m256d sum, __m128 x)
{
    __m256d wide = _mm256_cvtps_pd(x);
    return _mm256_add_pd(sum, _mm256_mul_pd(wide, wide));
}

TARGET static inline void sums_add_avx2(struct sums_avx2 *sums, __m256 first, __m256 second)
{
    sums->part[0] = square_add_avx2(sums->part[0], _mm256_castps256_ps128(first));
    sums->part[1] = square_add_avx2(sums->part[1], _mm256_extractf128_ps(first, 1));
    sums->part[2] = square_add_avx2(sums->part[2], _mm256_castps256_ps128(second));
    sums->part[3] = square_add_avx2(sums->part[3], _mm256_extractf128_ps(second, 1));
}

TARGET static inline void sums_add_fp32_avx2(struct sums_avx2 *sums, const float *src)
{
    sums_add_avx2(sums, _mm256_loadu_ps(src), _mm256_loadu_ps(src + 8));
}

TARGET static inline void sums_add_bf16_avx2(struct sums_avx2 *sums, const uint16_t *src)
{
    sums_add_avx2(sums, load_bf16_avx2(src), load_bf16_avx2(src + 8));
}

TARGET static inline void sums_store_avx2(double out[16], const struct sums_avx2 *sums)
{
    for (int i = 0; i < 4; i++)
        _mm256_storeu_pd(out + 4 * i, sums->part[i]);
}

#endif
