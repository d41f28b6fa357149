/*
 * Matrix products on the host device, and the only file that knows OpenBLAS.
 *
 * A product is cut into panels by its shape alone; each panel is one single-threaded sgemm and
 * a job of the worker pool. So every worker count gives the same bits, which OpenBLAS's own
 * threads do not, at the same speed (`offload-bench gemm` compares them).
 *
 * Thread: any for a whole product; panels run on workers.
 */

#include "train/product.h"

#include "train/ops_host.h"

#include <cblas.h>

/*
 * How products are cut. A cut costs packing: OpenBLAS copies what a panel reads of a and b into
 * its own order, so panels side by side copy a once more, and panels one below the other copy
 * b. In time of a panel that is about PACK_A / cols and PACK_B / rows (fitted to what one core
 * took for 33 products, each in 15 cuts); more where a copy transposes, and where the part of a
 * is not in the second-level cache.
 *
 * Every product is cut in two, where that costs less, and on while panels have more than
 * WORK_MAX to do and a cut costs at most a sixtieth. So small ones leave the third core idle:
 * four panels instead of two cost the first two 3 %. Tall products are cut along their rows in
 * any case: above ROWS_MAX what is packed of a leaves the second-level cache, and a cut gains
 * more than it costs.
 */
#define PACK_A            10u
#define PACK_A_FAR        20u
#define PACK_A_TRANSPOSED 72u
#define PACK_B            12u
#define PACK_B_TRANSPOSED 27u
#define NEAR_ELEMS        (UINT64_C(1) << 18) /* one MiB */
#define COST_MAX          60u                 /* one part in so many */
#define PANELS_MIN        2u
#define WORK_MAX          (UINT64_C(1) << 28) /* multiplications: five milliseconds */
#define ROWS_MAX          512u
#define EDGE_MIN          32u /* of a panel that is cut no further: it is all packing */
#define EDGE_UNIT         16u /* the kernels' blocks are 16 wide */

/*
 * OpenBLAS on OpenMP runs a product on as many threads as OpenMP gives the calling thread: one
 * per core, unless that thread said otherwise. openblas_set_num_threads() says so up to 0.3.21
 * (Debian 12), but since 0.3.22 (Ubuntu 24.04 has 0.3.26) only makes buffers for that many, and
 * with that alone every product is a team's; several at once take each other's buffers, and
 * within a few steps wait for ever. Declared here because clang has <omp.h> in a package of its
 * own.
 */
extern void omp_set_num_threads(int count);

static void multiply(const struct product *product)
{
    const struct product_shape *s = &product->shape;
    cblas_sgemm(CblasRowMajor, s->a_transposed ? CblasTrans : CblasNoTrans,
                s->b_transposed ? CblasTrans : CblasNoTrans, (blasint)s->rows, (blasint)s->cols,
                (blasint)s->depth, product->scale, product->a, (blasint)s->a_stride, product->b,
                (blasint)s->b_stride, product->beta, product->c, (blasint)s->c_stride);
}

/* For an OpenBLAS with threads of its own, where the number is the process's. */
void strata_host_product_setup(void)
{
    openblas_set_num_threads(1);
}

void strata_host_product(const struct product *product)
{
    omp_set_num_threads(1);
    multiply(product);
}

void strata_host_product_threaded(const struct product *product, uint32_t threads)
{
    omp_set_num_threads((int)threads);
    openblas_set_num_threads((int)threads);
    multiply(product);
    openblas_set_num_threads(1);
}

struct panels {
    const struct product *product;
    uint32_t down;
    uint32_t across;
};

/* In a panel's time, one part in cols, or in rows, for each. */
static uint64_t pack_a(const struct product_shape *shape, uint64_t rows)
{
    if (shape->a_transposed)
        return PACK_A_TRANSPOSED;
    return rows * shape->depth > NEAR_ELEMS ? PACK_A_FAR : PACK_A;
}

static uint64_t pack_b(const struct product_shape *shape)
{
    return shape->b_transposed ? PACK_B_TRANSPOSED : PACK_B;
}

/* Cut all panels in two where that costs less; false: they are enough. */
static bool cut(struct panels *p)
{
    const struct product_shape *shape = &p->product->shape;
    uint64_t rows = shape->rows / p->down;
    uint64_t cols = shape->cols / p->across;
    uint64_t cost_a = pack_a(shape, rows);
    uint64_t cost_b = pack_b(shape);
    bool tall = rows > ROWS_MAX;
    bool along_rows = tall || rows * cost_a > cols * cost_b;
    uint64_t edge = along_rows ? rows : cols;
    bool cheap = edge >= COST_MAX * (along_rows ? cost_b : cost_a);
    bool few = p->down * p->across < PANELS_MIN;
    bool large = rows * cols * shape->depth > WORK_MAX;
    if (!tall && !(few && edge > EDGE_MIN) && !(large && cheap))
        return false;
    if (along_rows)
        p->down *= 2;
    else
        p->across *= 2;
    return true;
}

/* Where part `index` of an edge begins; parts differ by one unit at most. */
static uint64_t begin_of(uint64_t edge, uint32_t parts, uint64_t index)
{
    uint64_t units = strata_units_of(edge, EDGE_UNIT);
    return strata_host_min(units * index / parts * EDGE_UNIT, edge);
}

static void panel(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct panels *p = user;
    struct product part = *p->product;
    struct product_shape *shape = &part.shape;
    uint32_t down = index / p->across;
    uint32_t across = index % p->across;
    uint64_t row = begin_of(shape->rows, p->down, down);
    uint64_t col = begin_of(shape->cols, p->across, across);
    shape->rows = begin_of(shape->rows, p->down, down + 1) - row;
    shape->cols = begin_of(shape->cols, p->across, across + 1) - col;
    part.a += shape->a_transposed ? row : row * shape->a_stride;
    part.b += shape->b_transposed ? col * shape->b_stride : col;
    part.c += row * shape->c_stride + col;
    strata_host_product(&part);
}

void strata_host_panels(strata_workers *workers, const struct product *product)
{
    struct panels p = {.product = product, .down = 1, .across = 1};
    while (cut(&p))
        ;
    strata_workers_run(workers, STRATA_JOB_PANEL, panel, &p, p.down * p.across);
}
