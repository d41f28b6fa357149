#define _GNU_SOURCE
/*
 * Matrix products on a CUDA device, by cuBLASLt.
 *
 * The library is opened when the first product may be needed and not linked: it is half a
 * gigabyte that every program would map at its start, with a GPU or without.
 *
 * A shape's algorithm is chosen once, by the library's heuristic within one workspace size, and
 * kept: the same product is then the same bits in every step. What splits a sum over blocks and
 * adds the parts in the order of their coming is left out. A shape that the library refuses is
 * kept too, and refused again without asking.
 *
 * cuBLASLt thinks in columns. A row-major matrix is, column by column, its transpose, so the
 * product is asked for as c' = b' a': the arguments change places, and what was transposed is
 * so again.
 *
 * Thread: the caller's, like all operators.
 */

#include "train/ops_cuda.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define TEXT_OF(number) #number
#define TEXT(number)    TEXT_OF(number)
#define LIBRARY         "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)

/* Attention has some 200, attention_cuda.c sees to it; a model and its slices, some ten
 * more. */
#define SHAPES_MAX 1024u

/* The most that a matrix is promised to be aligned by: vectors of 16 bytes are the widest
 * loads. More would make the algorithm, and so the bits, follow from where an array happens
 * to lie. */
#define ALIGNMENT_MAX 16u

/* The functions used, by the types that the header gives them. */
struct library {
    void *handle;
    __typeof__(&cublasLtCreate) create;
    __typeof__(&cublasLtDestroy) destroy;
    __typeof__(&cublasLtMatmul) matmul;
    __typeof__(&cublasLtMatmulDescCreate) desc_create;
    __typeof__(&cublasLtMatmulDescDestroy) desc_destroy;
    __typeof__(&cublasLtMatmulDescSetAttribute) desc_set;
    __typeof__(&cublasLtMatrixLayoutCreate) layout_create;
    __typeof__(&cublasLtMatrixLayoutDestroy) layout_destroy;
    __typeof__(&cublasLtMatrixLayoutSetAttribute) layout_set;
    __typeof__(&cublasLtMatmulPreferenceCreate) preference_create;
    __typeof__(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    __typeof__(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    __typeof__(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    __typeof__(&cublasLtGetStatusName) status_name;
};

/* In bytes, of all rows of all matrices of a batch. */
struct alignment {
    uint32_t a;
    uint32_t b;
    uint32_t addend;
    uint32_t d;
};

struct shape {
    struct cuda_product key; /* without addresses and scale */
    struct alignment alignment;
    cublasStatus_t refusal; /* CUBLAS_STATUS_SUCCESS: there is an algorithm */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t left; /* of b: cuBLASLt's A */
    cublasLtMatrixLayout_t right;
    cublasLtMatrixLayout_t result; /* of addend and d: cuBLASLt's C and D */
    cublasLtMatmulAlgo_t algorithm;
};

struct cuda_products {
    struct library lt;
    cublasLtHandle_t handle;
    uint32_t shape_count;
    struct shape shapes[SHAPES_MAX];
};

static strata_status find(struct library *lt, strata_error *error)
{
    const struct {
        const char *name;
        void *to;
    } functions[] = {
        {"cublasLtCreate", &lt->create},
        {"cublasLtDestroy", &lt->destroy},
        {"cublasLtMatmul", &lt->matmul},
        {"cublasLtMatmulDescCreate", &lt->desc_create},
        {"cublasLtMatmulDescDestroy", &lt->desc_destroy},
        {"cublasLtMatmulDescSetAttribute", &lt->desc_set},
        {"cublasLtMatrixLayoutCreate", &lt->layout_create},
        {"cublasLtMatrixLayoutDestroy", &lt->layout_destroy},
        {"cublasLtMatrixLayoutSetAttribute", &lt->layout_set},
        {"cublasLtMatmulPreferenceCreate", &lt->preference_create},
        {"cublasLtMatmulPreferenceDestroy", &lt->preference_destroy},
        {"cublasLtMatmulPreferenceSetAttribute", &lt->preference_set},
        {"cublasLtMatmulAlgoGetHeuristic", &lt->heuristic},
        {"cublasLtGetStatusName", &lt->status_name},
    };
    /* It stays mapped: it has threads and exit handlers of its own. */
    lt->handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (lt->handle == NULL)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "cuda device: products need " LIBRARY ": %s: install the CUDA "
                           "toolkit's cuBLAS, or set LD_LIBRARY_PATH",
                           dlerror());
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *found = dlsym(lt->handle, functions[i].name);
        if (found == NULL)
            return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                               "cuda device: " LIBRARY " has no %s: another version is "
                               "installed",
                               functions[i].name);
        memcpy(functions[i].to, &found, sizeof found);
    }
    return STRATA_OK;
}

strata_status strata_cuda_products_create(struct cuda_products **out, strata_error *error)
{
    *out = NULL;
    struct cuda_products *products = calloc(1, sizeof *products);
    if (products == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for products");
    strata_status status = find(&products->lt, error);
    if (status == STRATA_OK) {
        cublasStatus_t cause = products->lt.create(&products->handle);
        if (cause != CUBLAS_STATUS_SUCCESS)
            status =
                strata_fail(error, STRATA_E_DEVICE, cause, "cuda device: opening cuBLASLt: %s",
                            products->lt.status_name(cause));
    }
    if (status != STRATA_OK) {
        strata_cuda_products_destroy(products);
        return status;
    }
    *out = products;
    return STRATA_OK;
}

static void forget(const struct library *lt, struct shape *shape)
{
    if (shape->result != NULL)
        (void)lt->layout_destroy(shape->result);
    if (shape->right != NULL)
        (void)lt->layout_destroy(shape->right);
    if (shape->left != NULL)
        (void)lt->layout_destroy(shape->left);
    if (shape->desc != NULL)
        (void)lt->desc_destroy(shape->desc);
    shape->desc = NULL;
    shape->left = shape->right = shape->result = NULL;
}

void strata_cuda_products_destroy(struct cuda_products *products)
{
    if (products == NULL)
        return;
    for (uint32_t i = 0; i < products->shape_count; i++)
        forget(&products->lt, &products->shapes[i]);
    if (products->handle != NULL)
        (void)products->lt.destroy(products->handle);
    if (products->lt.handle != NULL)
        dlclose(products->lt.handle);
    free(products);
}

/* The largest power of two, ALIGNMENT_MAX at most, that divides a matrix's address and what
 * lies between its rows and from one of the batch to the next. */
static uint32_t alignment_of(const void *address, strata_dtype dtype, uint64_t stride,
                             uint64_t batch_stride)
{
    uint64_t bytes = strata_dtype_bytes(dtype);
    uint64_t bits = (uintptr_t)address | stride * bytes | batch_stride * bytes | ALIGNMENT_MAX;
    return (uint32_t)(bits & (~bits + 1));
}

static struct alignment alignments_of(const struct cuda_product *p, const void *addend)
{
    const struct product_shape *s = &p->shape;
    bool batched = p->batch > 1;
    uint64_t d_batch = batched ? p->d_batch : 0;
    return (struct alignment){
        .a = alignment_of(p->a, p->dtype, s->a_stride, batched ? p->a_batch : 0),
        .b = alignment_of(p->b, p->dtype, s->b_stride, batched ? p->b_batch : 0),
        .addend = alignment_of(addend, p->d_dtype, s->c_stride, d_batch),
        .d = alignment_of(p->d, p->d_dtype, s->c_stride, d_batch),
    };
}

static bool same_alignment(const struct alignment *a, const struct alignment *b)
{
    return a->a == b->a && a->b == b->b && a->addend == b->addend && a->d == b->d;
}

static bool same_shape(const struct product_shape *a, const struct product_shape *b)
{
    return a->rows == b->rows && a->cols == b->cols && a->depth == b->depth &&
           a->a_stride == b->a_stride && a->b_stride == b->b_stride &&
           a->c_stride == b->c_stride && a->a_transposed == b->a_transposed &&
           a->b_transposed == b->b_transposed;
}

static bool same_kind(const struct cuda_product *a, const struct cuda_product *b)
{
    return a->dtype == b->dtype && a->d_dtype == b->d_dtype &&
           same_shape(&a->shape, &b->shape) && a->batch == b->batch &&
           a->a_batch == b->a_batch && a->b_batch == b->b_batch && a->d_batch == b->d_batch;
}

static cudaDataType_t type_of(strata_dtype dtype)
{
    return dtype == STRATA_BF16 ? CUDA_R_16BF : dtype == STRATA_FP16 ? CUDA_R_16F : CUDA_R_32F;
}

/* One matrix as it lies in memory: `rows` rows of `cols`, each a column to cuBLASLt. */
struct lying {
    cudaDataType_t type;
    uint64_t rows;
    uint64_t cols;
    uint64_t stride;
    uint32_t batch;
    uint64_t batch_stride;
};

static cublasStatus_t make_layout(const struct library *lt, cublasLtMatrixLayout_t *out,
                                  const struct lying *m)
{
    int32_t batch = (int32_t)m->batch;
    int64_t batch_stride = (int64_t)m->batch_stride;
    cublasStatus_t cause =
        lt->layout_create(out, m->type, m->cols, m->rows, (int64_t)m->stride);
    if (cause == CUBLAS_STATUS_SUCCESS)
        cause = lt->layout_set(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch);
    if (cause == CUBLAS_STATUS_SUCCESS)
        cause = lt->layout_set(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride,
                               sizeof batch_stride);
    return cause;
}

static cublasStatus_t make_layouts(const struct library *lt, struct shape *shape)
{
    const struct cuda_product *p = &shape->key;
    const struct product_shape *s = &p->shape;
    struct lying b = {type_of(p->dtype),
                      s->b_transposed ? s->cols : s->depth,
                      s->b_transposed ? s->depth : s->cols,
                      s->b_stride,
                      p->batch,
                      p->b_batch};
    struct lying a = {type_of(p->dtype),
                      s->a_transposed ? s->depth : s->rows,
                      s->a_transposed ? s->rows : s->depth,
                      s->a_stride,
                      p->batch,
                      p->a_batch};
    struct lying d = {type_of(p->d_dtype), s->rows, s->cols, s->c_stride, p->batch, p->d_batch};
    cublasStatus_t cause = make_layout(lt, &shape->left, &b);
    if (cause == CUBLAS_STATUS_SUCCESS)
        cause = make_layout(lt, &shape->right, &a);
    if (cause == CUBLAS_STATUS_SUCCESS)
        cause = make_layout(lt, &shape->result, &d);
    return cause;
}

static cublasStatus_t make_desc(const struct library *lt, struct shape *shape)
{
    cublasOperation_t left = shape->key.shape.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t right = shape->key.shape.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasStatus_t cause = lt->desc_create(&shape->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (cause == CUBLAS_STATUS_SUCCESS)
        cause = lt->desc_set(shape->desc, CUBLASLT_MATMUL_DESC_TRANSA, &left, sizeof left);
    if (cause == CUBLAS_STATUS_SUCCESS)
        cause = lt->desc_set(shape->desc, CUBLASLT_MATMUL_DESC_TRANSB, &right, sizeof right);
    return cause;
}

static cublasStatus_t set_preference(const struct library *lt, const struct shape *shape,
                                     cublasLtMatmulPreference_t preference)
{
    const struct alignment *is = &shape->alignment;
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        uint32_t bytes;
    } aligned[] = {
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, is->b}, /* as above: they change places */
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, is->a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, is->addend},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, is->d},
    };
    uint64_t workspace = CUDA_WORKSPACE_BYTES;
    /* Parts of a sum go through the workspace and are added there, in one order. */
    uint32_t reductions =
        CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    cublasStatus_t cause = lt->preference_set(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    if (cause == CUBLAS_STATUS_SUCCESS)
        cause = lt->preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                   &reductions, sizeof reductions);
    for (size_t i = 0; i < 4 && cause == CUBLAS_STATUS_SUCCESS; i++)
        cause = lt->preference_set(preference, aligned[i].attribute, &aligned[i].bytes,
                                   sizeof aligned[i].bytes);
    return cause;
}

static cublasStatus_t choose_algorithm(struct cuda_products *products, struct shape *shape)
{
    const struct library *lt = &products->lt;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    int found_count = 0;
    cublasStatus_t cause = lt->preference_create(&preference);
    if (cause != CUBLAS_STATUS_SUCCESS)
        return cause;
    cause = set_preference(lt, shape, preference);
    if (cause == CUBLAS_STATUS_SUCCESS)
        cause =
            lt->heuristic(products->handle, shape->desc, shape->left, shape->right,
                          shape->result, shape->result, preference, 1, &found, &found_count);
    (void)lt->preference_destroy(preference);
    if (cause == CUBLAS_STATUS_SUCCESS && found_count == 0)
        cause = CUBLAS_STATUS_NOT_SUPPORTED;
    if (cause == CUBLAS_STATUS_SUCCESS)
        cause = found.state;
    if (cause == CUBLAS_STATUS_SUCCESS)
        shape->algorithm = found.algo;
    return cause;
}

static cublasStatus_t make_shape(struct cuda_products *products, struct shape *shape)
{
    cublasStatus_t cause = make_desc(&products->lt, shape);
    if (cause == CUBLAS_STATUS_SUCCESS)
        cause = make_layouts(&products->lt, shape);
    if (cause == CUBLAS_STATUS_SUCCESS)
        cause = choose_algorithm(products, shape);
    if (cause != CUBLAS_STATUS_SUCCESS)
        forget(&products->lt, shape);
    return cause;
}

/* The product's shape, made when it is seen for the first time. NULL: there is no room. */
static const struct shape *shape_of(struct cuda_products *products,
                                    const struct cuda_product *p,
                                    const struct alignment *alignment)
{
    for (uint32_t i = 0; i < products->shape_count; i++) {
        struct shape *shape = &products->shapes[i];
        if (same_alignment(&shape->alignment, alignment) && same_kind(&shape->key, p))
            return shape;
    }
    if (products->shape_count == SHAPES_MAX)
        return NULL;
    struct shape *shape = &products->shapes[products->shape_count++];
    *shape = (struct shape){.key = *p, .alignment = *alignment};
    shape->refusal = make_shape(products, shape);
    return shape;
}

/* Without an addend cuBLASLt wants a C all the same, which it does not read. */
static cublasStatus_t multiply(struct cuda_products *products, void *stream, void *workspace,
                               const struct cuda_product *p)
{
    const void *addend = p->addend != NULL ? p->addend : p->d;
    float beta = p->addend != NULL ? 1.0f : 0.0f;
    struct alignment alignment = alignments_of(p, addend);
    const struct shape *shape = shape_of(products, p, &alignment);
    if (shape == NULL)
        return CUBLAS_STATUS_ALLOC_FAILED;
    if (shape->refusal != CUBLAS_STATUS_SUCCESS)
        return shape->refusal;
    return products->lt.matmul(products->handle, shape->desc, &p->scale, p->b, shape->left,
                               p->a, shape->right, &beta, addend, shape->result, p->d,
                               shape->result, &shape->algorithm, workspace,
                               CUDA_WORKSPACE_BYTES, (cudaStream_t)stream);
}

struct cuda_refusal strata_cuda_product(struct cuda_products *products, void *stream,
                                        void *workspace, const struct cuda_product *product)
{
    cublasStatus_t cause = multiply(products, stream, workspace, product);
    return (struct cuda_refusal){
        cause, cause == CUBLAS_STATUS_SUCCESS ? NULL : products->lt.status_name(cause)};
}
