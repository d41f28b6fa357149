/*
 * The macros and types of the kernel templates for AVX-512 F and BW: sixteen fp32 at a time.
 * simd_avx2.h describes each of them.
 */

#include <immintrin.h>

#define SUFFIX(name) name##_avx512
#define TARGET       __attribute__((target("avx512f,avx512bw,avx2,fma,f16c")))
#define VL           16

#define vec                   __m512
#define vec_load(p)           _mm512_loadu_ps(p)
#define vec_store(p, x)       _mm512_storeu_ps(p, x)
#define vec_stream(p, x)      _mm512_stream_ps(p, x)
#define vec_set1(s)           _mm512_set1_ps(s)
#define vec_sub(a, b)         _mm512_sub_ps(a, b)
#define vec_mul(a, b)         _mm512_mul_ps(a, b)
#define vec_div(a, b)         _mm512_div_ps(a, b)
#define vec_sqrt(a)           _mm512_sqrt_ps(a)
#define vec_fma(a, b, c)      _mm512_fmadd_ps(a, b, c)
#define vec_canon(x)          canon_avx512(x)
#define vec_load_bf16(p)      load_bf16_avx512(p)
#define vec_load_fp16(p)      _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p)))
#define vec_half              __m256i
#define vec_bf16(x)           round_bf16_avx512(x)
#define vec_fp16(x)           _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)
#define vec_bf16_random(x, r) round_random_avx512(x, r)
#define vec_half_store(p, h)  _mm256_storeu_si256((void *)(p), h)
#define vec_half_stream(p, h) _mm256_stream_si256((void *)(p), h)
#define vec_int               __m512i
#define vec_int_set1(s)       _mm512_set1_epi32((int)(s))
#define vec_int_xor3(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0x96)
#define vec_int_low16(a)      _mm512_and_epi32(a, _mm512_set1_epi32(0xffff))
#define vec_int_high16(a)     _mm512_srli_epi32(a, 16)
#define vec_int_swap8(a)      int_swap8_avx512(a)
#define vec_int_evens()       evens_avx512()
#define vec_int_add(a, b)     _mm512_add_epi32(a, b)
#define vec_int_product(a, m) _mm512_mul_epu32(a, m)
#define vec_int_upper(a)      _mm512_srli_epi64(a, 32)
#define vec_int_largest(a, x)                                                                  \
    _mm512_max_epu32(a, _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)))
#define vec_int_store(p, a)        _mm512_storeu_si512(p, a)
#define vec_int_pair(a, b)         _mm512_mask_mov_epi32(a, 0xaaaa, _mm512_slli_epi64(b, 32))
#define vec_sums                   struct sums_avx512
#define vec_sums_add_fp32(sums, p) sums_add_fp32_avx512(sums, p)
#define vec_sums_add_bf16(sums, p) sums_add_bf16_avx512(sums, p)
#define vec_sums_add_fp16(sums, p) sums_add_fp16_avx512(sums, p)
#define vec_sums_store(out, sums)  sums_store_avx512(out, sums)

#ifndef STRATA_OPTIM_SIMD_AVX512_H
#    define STRATA_OPTIM_SIMD_AVX512_H

TARGET static inline __m512 canon_avx512(__m512 x)
{
    __m512 one = _mm512_castsi512_ps(_mm512_set1_epi32(HALF_NAN_BITS));
    return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), one);
}

TARGET static inline __m512 load_bf16_avx512(const void *src)
{
    __m256i halves = _mm256_loadu_si256(src);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

TARGET static inline __m256i round_bf16_avx512(__m512 x)
{
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_add_epi32(bits, half), 16));
}

TARGET static inline __m256i round_random_avx512(__m512 x, __m512i random)
{
    __m512i bits = _mm512_add_epi32(_mm512_castps_si512(x), random);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
}

TARGET static inline __m512i evens_avx512(void)
{
    return _mm512_setr_epi32(0, 0, 2, 0, 4, 0, 6, 0, 8, 0, 10, 0, 12, 0, 14, 0);
}

TARGET static inline __m512i int_swap8_avx512(__m512i a)
{
    return _mm512_or_si512(_mm512_slli_epi16(a, 8), _mm512_srli_epi16(a, 8));
}

struct sums_avx512 {
    __m512d low;
    __m512d high;
};

TARGET static inline void sums_add_avx512(struct sums_avx512 *sums, __m512 x)
{
    __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1));
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
    __m512d high = _mm512_cvtps_pd(upper);
    sums->low = _mm512_add_pd(sums->low, _mm512_mul_pd(low, low));
    sums->high = _mm512_add_pd(sums->high, _mm512_mul_pd(high, high));
}

TARGET static inline void sums_add_fp32_avx512(struct sums_avx512 *sums, const float *src)
{
    sums_add_avx512(sums, _mm512_loadu_ps(src));
}

TARGET static inline void sums_add_bf16_avx512(struct sums_avx512 *sums, const uint16_t *src)
{
    sums_add_avx512(sums, load_bf16_avx512(src));
}

TARGET static inline void sums_add_fp16_avx512(struct sums_avx512 *sums, const uint16_t *src)
{
    sums_add_avx512(sums, vec_load_fp16(src));
}

TARGET static inline void sums_store_avx512(double out[16], const struct sums_avx512 *sums)
{
    _mm512_storeu_pd(out, sums->low);
    _mm512_storeu_pd(out + 8, sums->high);
}

#endif
