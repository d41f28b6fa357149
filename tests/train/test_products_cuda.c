#define _GNU_SOURCE
/*
 * What cuBLASLt is asked by products_cuda.c, with functions of the test in its place: nothing
 * is multiplied, so no GPU is needed.
 */

#include <criterion/criterion.h>

#include <cublasLt.h>
#include <dlfcn.h>
#include <string.h>

/* What was asked. */
static struct {
    int open_flags;
    uint32_t heuristics;
    uint32_t products;
    uint32_t alignment[4]; /* of A, B, C, D */
    cudaDataType_t types[16];
    uint32_t type_count;
    cublasStatus_t answer; /* of the heuristic */
    const void *c;
    const void *d;
    float beta;
} asked;

static cublasStatus_t fake_create(cublasLtHandle_t *handle)
{
    *handle = (cublasLtHandle_t)&asked;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t fake_destroy(void *any)
{
    (void)any;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t fake_desc_create(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                       cudaDataType_t scale)
{
    cr_expect_eq(compute, CUBLAS_COMPUTE_32F);
    cr_expect_eq(scale, CUDA_R_32F);
    *out = (cublasLtMatmulDesc_t)&asked;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t fake_set(void *to, int attribute, const void *value, size_t bytes)
{
    (void)to, (void)attribute, (void)value, (void)bytes;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t fake_layout_create(cublasLtMatrixLayout_t *out, cudaDataType_t type,
                                         uint64_t rows, uint64_t cols, int64_t stride)
{
    (void)rows, (void)cols, (void)stride;
    asked.types[asked.type_count++ % 16] = type;
    *out = (cublasLtMatrixLayout_t)&asked;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t fake_preference_create(cublasLtMatmulPreference_t *out)
{
    *out = (cublasLtMatmulPreference_t)&asked;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t fake_preference_set(cublasLtMatmulPreference_t to,
                                          cublasLtMatmulPreferenceAttributes_t attribute,
                                          const void *value, size_t bytes)
{
    static const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    (void)to;
    for (int i = 0; i < 4; i++)
        if (attribute == aligned[i])
            memcpy(&asked.alignment[i], value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t fake_heuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                     cublasLtMatmulPreference_t preference, int most,
                                     cublasLtMatmulHeuristicResult_t *found, int *count)
{
    (void)handle, (void)desc, (void)a, (void)b, (void)c, (void)d, (void)preference, (void)most;
    asked.heuristics++;
    memset(found, 0, sizeof *found);
    *count = 1;
    return asked.answer;
}

static cublasStatus_t fake_matmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                  const void *alpha, const void *a, cublasLtMatrixLayout_t a_at,
                                  const void *b, cublasLtMatrixLayout_t b_at, const void *beta,
                                  const void *c, cublasLtMatrixLayout_t c_at, void *d,
                                  cublasLtMatrixLayout_t d_at,
                                  const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                                  size_t bytes, cudaStream_t stream)
{
    (void)handle, (void)desc, (void)alpha, (void)a, (void)a_at, (void)b, (void)b_at, (void)c_at;
    (void)d_at, (void)algorithm, (void)workspace, (void)bytes, (void)stream;
    asked.products++;
    asked.c = c;
    asked.d = d;
    asked.beta = *(const float *)beta;
    return CUBLAS_STATUS_SUCCESS;
}

static const char *fake_name(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : "another";
}

/* A function as an object's address, which is what dlsym() has too. */
#define ADDRESS(function) ((void *)(uintptr_t)(function))

static void *fake_dlsym(void *handle, const char *name)
{
    const struct {
        const char *name;
        void *function;
    } fakes[] = {
        {"cublasLtCreate", ADDRESS(fake_create)},
        {"cublasLtMatmul", ADDRESS(fake_matmul)},
        {"cublasLtMatmulDescCreate", ADDRESS(fake_desc_create)},
        {"cublasLtMatrixLayoutCreate", ADDRESS(fake_layout_create)},
        {"cublasLtMatmulPreferenceCreate", ADDRESS(fake_preference_create)},
        {"cublasLtMatmulPreferenceSetAttribute", ADDRESS(fake_preference_set)},
        {"cublasLtMatmulAlgoGetHeuristic", ADDRESS(fake_heuristic)},
        {"cublasLtGetStatusName", ADDRESS(fake_name)},
    };
    (void)handle;
    for (size_t i = 0; i < sizeof fakes / sizeof fakes[0]; i++)
        if (strcmp(name, fakes[i].name) == 0)
            return fakes[i].function;
    return strstr(name, "Destroy") != NULL ? ADDRESS(fake_destroy) : ADDRESS(fake_set);
}

static void *fake_dlopen(const char *name, int flags)
{
    cr_expect(strncmp(name, "libcublasLt.so.", 15) == 0);
    asked.open_flags = flags;
    return &asked;
}

static int fake_dlclose(void *handle)
{
    (void)handle;
    return 0;
}

/* The build's own lie beside these. */
#define dlopen                       fake_dlopen
#define dlsym                        fake_dlsym
#define dlclose                      fake_dlclose
#define strata_cuda_products_create  asking_products_create
#define strata_cuda_products_destroy asking_products_destroy
#define strata_cuda_product          asking_product

#include "train/products_cuda.c"

static struct cuda_products *open_products(void)
{
    struct cuda_products *products;
    strata_error error = {0};
    cr_assert_eq(strata_cuda_products_create(&products, &error), STRATA_OK, "%s",
                 error.message);
    return products;
}

/* Addresses that are only looked at. */
static void *at(uintptr_t address)
{
    return (void *)address;
}

static struct cuda_product example(void)
{
    return (struct cuda_product){.a = at(0x1000),
                                 .b = at(0x2000),
                                 .d = at(0x3000),
                                 .dtype = STRATA_BF16,
                                 .d_dtype = STRATA_BF16,
                                 .shape = strata_product_linear(64, 32, 16),
                                 .batch = 1,
                                 .scale = 1.0f};
}

static int ask(struct cuda_products *products, const struct cuda_product *p)
{
    return strata_cuda_product(products, NULL, NULL, p).status;
}

Test(products_cuda, library_stays_mapped)
{
    strata_cuda_products_destroy(open_products());
    cr_expect(asked.open_flags & RTLD_NODELETE);
}

Test(products_cuda, shape_is_asked_for_once)
{
    struct cuda_products *products = open_products();
    struct cuda_product p = example();
    cr_expect_eq(ask(products, &p), 0);
    p.a = at(0x5000);
    p.scale = 2.0f;
    cr_expect_eq(ask(products, &p), 0);
    cr_expect_eq(asked.heuristics, 1);
    p.d_dtype = STRATA_FP32;
    cr_expect_eq(ask(products, &p), 0);
    cr_expect_eq(asked.heuristics, 2);
    cr_expect_eq(asked.products, 3);
    strata_cuda_products_destroy(products);
}

Test(products_cuda, refused_shape_is_refused_again_without_asking)
{
    struct cuda_products *products = open_products();
    struct cuda_product p = example();
    asked.answer = CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < 3; i++) {
        struct cuda_refusal refusal = strata_cuda_product(products, NULL, NULL, &p);
        cr_expect_eq(refusal.status, CUBLAS_STATUS_NOT_SUPPORTED);
        cr_expect_str_eq(refusal.name, "not supported");
    }
    cr_expect_eq(asked.heuristics, 1);
    cr_expect_eq(asked.products, 0);
    asked.answer = CUBLAS_STATUS_SUCCESS;
    p.shape.rows = 65;
    cr_expect_eq(ask(products, &p), 0, "another shape is asked for");
    strata_cuda_products_destroy(products);
}

Test(products_cuda, result_and_addend_may_lie_apart)
{
    struct cuda_products *products = open_products();
    struct cuda_product p = example();
    cr_expect_eq(ask(products, &p), 0);
    cr_expect(asked.c == at(0x3000) && asked.d == at(0x3000) && asked.beta == 0.0f);
    p.addend = at(0x4000);
    cr_expect_eq(ask(products, &p), 0);
    cr_expect(asked.c == at(0x4000) && asked.d == at(0x3000) && asked.beta == 1.0f);
    strata_cuda_products_destroy(products);
}

Test(products_cuda, types_of_arguments_and_result_are_told)
{
    struct cuda_products *products = open_products();
    struct cuda_product p = example();
    p.d_dtype = STRATA_FP32;
    cr_expect_eq(ask(products, &p), 0);
    cr_expect(asked.types[0] == CUDA_R_16BF && asked.types[1] == CUDA_R_16BF);
    cr_expect_eq(asked.types[2], CUDA_R_32F);
    strata_cuda_products_destroy(products);
}

static void expect_alignment(const char *what, const struct cuda_product *p, uint32_t a,
                             uint32_t b, uint32_t d)
{
    struct cuda_products *products = open_products();
    cr_expect_eq(ask(products, p), 0);
    /* cuBLASLt's A is b. */
    cr_expect(asked.alignment[0] == b && asked.alignment[1] == a && asked.alignment[3] == d,
              "%s: %u, %u, %u", what, asked.alignment[1], asked.alignment[0],
              asked.alignment[3]);
    strata_cuda_products_destroy(products);
}

Test(products_cuda, alignment_follows_from_addresses_strides_and_batches)
{
    struct cuda_product p = example();
    expect_alignment("whole", &p, 16, 16, 16);
    p.a = at(0x1008);
    expect_alignment("an address", &p, 8, 16, 16);
    p = example();
    p.shape.b_stride = 34;
    expect_alignment("a stride", &p, 16, 4, 16);
    p = example();
    p.d_batch = 3;
    expect_alignment("one of a batch", &p, 16, 16, 16);
    p.batch = 2;
    expect_alignment("a batch", &p, 16, 16, 2);
    p = example();
    p.d_dtype = STRATA_FP32;
    p.shape.c_stride = 17;
    expect_alignment("fp32", &p, 16, 16, 4);
}

Test(products_cuda, addends_alignment_is_its_own)
{
    struct cuda_products *products = open_products();
    struct cuda_product p = example();
    p.addend = at(0x4002);
    cr_expect_eq(ask(products, &p), 0);
    cr_expect(asked.alignment[2] == 2 && asked.alignment[3] == 16);
    p.addend = at(0x4010);
    cr_expect_eq(ask(products, &p), 0);
    cr_expect_eq(asked.alignment[2], 16);
    cr_expect_eq(asked.heuristics, 2);
    strata_cuda_products_destroy(products);
}
