/* Takes back the words of simd_avx2.h or simd_avx512.h after a template's inclusion. */

#undef SUFFIX
#undef TARGET
#undef VL
#undef vec
#undef vec_load
#undef vec_store
#undef vec_set1
#undef vec_add
#undef vec_sub
#undef vec_mul
#undef vec_div
#undef vec_sqrt
#undef vec_fma
#undef vec_load_bf16
#undef vec_store_bf16
#undef vec_sums
#undef vec_sums_add_fp32
#undef vec_sums_add_bf16
#undef vec_sums_store
