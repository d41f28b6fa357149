/*
 * The macros and types of the kernel templates for AVX2 with FMA and F16C: eight fp32 at a
 * time.
 *
 * A template is included once per instruction set, after one of these headers, and uses only
 * these names. simd_end.h undefines them, so that the next set can define them.
 *
 *     SUFFIX(name)       name with the set's ending: every function of a template is called so
 *     TARGET             the attribute that lets the compiler use the set in one function
 *     VL                 elements of a vector
 *     vec, vec_load(p), vec_store(p, x), vec_set1(s)
 *     vec_sub, vec_mul, vec_div, vec_sqrt, vec_fma(a, b, c) = a x b + c, rounded once
 *     vec_canon(x)       half_canon of each: any NaN becomes the one
 *     vec_load_bf16(p), vec_load_fp16(p)          widen VL elements
 *     vec_bf16(x), vec_fp16(x)                    round; x is canonical; gives a vec_half
 *     vec_bf16_random(x, r)                       round by the integers r, below 2^16
 *     vec_half_store(p, h), vec_half_stream(p, h), vec_stream(p, x)
 *                        to memory; stream: past the caches, the address a multiple of the
 *                        vector's bytes
 *     vec_int, vec_int_set1(s)                    VL integers of 32 bits
 *     vec_int_xor3(a, b, c)
 *     vec_int_low16(a), vec_int_high16(a)         halves of each
 *     vec_int_swap8(a)                            each half with its bytes exchanged
 *     vec_int_evens()                             0, 2, 4, ... in the even ones of VL
 *     vec_int_add(a, b)
 *     vec_int_product(a, m)                       of the even ones, 64 bits each
 *     vec_int_upper(a)                            of 64 bits, to the even ones
 *     vec_int_largest(a, x)                       of a's and the bits of x without its sign
 *     vec_int_store(p, a)
 *     vec_int_pair(a, b)                          a's even ones stay, b's go behind them
 *     vec_sums           16 sums in double; {0} is how they begin
 *     vec_sums_add_fp32(&sums, p), vec_sums_add_bf16(&sums, p), vec_sums_add_fp16(&sums, p)
 *                        sums[i] += p[i] squared, in double, for 16 elements
 *     vec_sums_store(out, &sums)  to 16 doubles
 *
 * Addresses need no alignment except where it is stated. A bf16 is rounded with integers,
 * because the instruction for it (vcvtneps2bf16) flushes denormals whatever the MXCSR says.
 * The instruction for fp16 keeps them.
 */

#include <immintrin.h>

#define SUFFIX(name) name##_avx2
#define TARGET       __attribute__((target("avx2,fma,f16c")))
#define VL           8

#define vec                   __m256
#define vec_load(p)           _mm256_loadu_ps(p)
#define vec_store(p, x)       _mm256_storeu_ps(p, x)
#define vec_stream(p, x)      _mm256_stream_ps(p, x)
#define vec_set1(s)           _mm256_set1_ps(s)
#define vec_sub(a, b)         _mm256_sub_ps(a, b)
#define vec_mul(a, b)         _mm256_mul_ps(a, b)
#define vec_div(a, b)         _mm256_div_ps(a, b)
#define vec_sqrt(a)           _mm256_sqrt_ps(a)
#define vec_fma(a, b, c)      _mm256_fmadd_ps(a, b, c)
#define vec_canon(x)          canon_avx2(x)
#define vec_load_bf16(p)      load_bf16_avx2(p)
#define vec_load_fp16(p)      _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p)))
#define vec_half              __m128i
#define vec_bf16(x)           round_bf16_avx2(x)
#define vec_fp16(x)           _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)
#define vec_bf16_random(x, r) round_random_avx2(x, r)
#define vec_half_store(p, h)  _mm_storeu_si128((void *)(p), h)
#define vec_half_stream(p, h) _mm_stream_si128((void *)(p), h)
#define vec_int               __m256i
#define vec_int_set1(s)       _mm256_set1_epi32((int)(s))
#define vec_int_xor3(a, b, c) _mm256_xor_si256(_mm256_xor_si256(a, b), c)
#define vec_int_low16(a)      _mm256_and_si256(a, _mm256_set1_epi32(0xffff))
#define vec_int_high16(a)     _mm256_srli_epi32(a, 16)
#define vec_int_swap8(a)      int_swap8_avx2(a)
#define vec_int_evens()       _mm256_setr_epi32(0, 0, 2, 0, 4, 0, 6, 0)
#define vec_int_add(a, b)     _mm256_add_epi32(a, b)
#define vec_int_product(a, m) _mm256_mul_epu32(a, m)
#define vec_int_upper(a)      _mm256_srli_epi64(a, 32)
#define vec_int_largest(a, x)                                                                  \
    _mm256_max_epu32(a, _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff)))
#define vec_int_store(p, a)        _mm256_storeu_si256((void *)(p), a)
#define vec_int_pair(a, b)         _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xaa)
#define vec_sums                   struct sums_avx2
#define vec_sums_add_fp32(sums, p) sums_add_fp32_avx2(sums, p)
#define vec_sums_add_bf16(sums, p) sums_add_bf16_avx2(sums, p)
#define vec_sums_add_fp16(sums, p) sums_add_fp16_avx2(sums, p)
#define vec_sums_store(out, sums)  sums_store_avx2(out, sums)

#ifndef STRATA_OPTIM_SIMD_AVX2_H
#    define STRATA_OPTIM_SIMD_AVX2_H

TARGET static inline __m256 canon_avx2(__m256 x)
{
    __m256 one = _mm256_castsi256_ps(_mm256_set1_epi32(HALF_NAN_BITS));
    return _mm256_blendv_ps(x, one, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

TARGET static inline __m256 load_bf16_avx2(const void *src)
{
    __m128i halves = _mm_loadu_si128(src);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

TARGET static inline __m128i upper_halves_avx2(__m256i bits)
{
    __m256i halves = _mm256_srli_epi32(bits, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(halves),
                            _mm256_extracti128_si256(halves, 1));
}

TARGET static inline __m128i round_bf16_avx2(__m256 x)
{
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    return upper_halves_avx2(_mm256_add_epi32(bits, half));
}

TARGET static inline __m128i round_random_avx2(__m256 x, __m256i random)
{
    return upper_halves_avx2(_mm256_add_epi32(_mm256_castps_si256(x), random));
}

TARGET static inline __m256i int_swap8_avx2(__m256i a)
{
    return _mm256_or_si256(_mm256_slli_epi16(a, 8), _mm256_srli_epi16(a, 8));
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

TARGET static inline void sums_add_fp16_avx2(struct sums_avx2 *sums, const uint16_t *src)
{
    sums_add_avx2(sums, vec_load_fp16(src), vec_load_fp16(src + 8));
}

TARGET static inline void sums_store_avx2(double out[16], const struct sums_avx2 *sums)
{
    for (int i = 0; i < 4; i++)
        _mm256_storeu_pd(out + 4 * i, sums->part[i]);
}

#endif
