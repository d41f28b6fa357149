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
 * Panels, in GFLOP/s of one core against panels of 256 x 256: 512 gains up to 19 % on large
 * products, 128 loses 13 %, 64 loses 30 %. So panels are as large as leaves 16 of them, and
 * below 256 only as small as leaves 4: small products come in numbers, and two cores want two
 * panels each.
 */
#define PANEL_EDGE_MAX  512u
#define PANEL_EDGE      256u
#define PANEL_EDGE_MIN  64u
#define PANELS_OF_LARGE 16u
#define PANELS_OF_SMALL 4u

void strata_host_product_setup(void)
{
    openblas_set_num_threads(1);
}

void strata_host_product_threaded(const struct product *p, uint32_t threads)
{
    /* For OpenBLAS on OpenMP the thread count belongs to the calling thread, and a thread that
     * never set it gets a team of its own. */
    openblas_set_num_threads((int)threads);
    cblas_sgemm(CblasRowMajor, p->a_transposed ? CblasTrans : CblasNoTrans,
                p->b_transposed ? CblasTrans : CblasNoTrans, (blasint)p->rows, (blasint)p->cols,
                (blasint)p->depth, p->scale, p->a, (blasint)p->a_stride, p->b,
                (blasint)p->b_stride, p->beta, p->c, (blasint)p->c_stride);
}

void strata_host_product(const struct product *p)
{
    strata_host_product_threaded(p, 1);
}

struct panels {
    const struct product *product;
    uint64_t rows; /* of a panel */
    uint64_t cols;
    uint32_t across;
};

/* Half an edge, in whole 32s: the kernels' own blocks are 16 and 32 wide. */
static uint64_t halved(uint64_t edge)
{
    return (edge / 2 + 31) / 32 * 32;
}

static bool too_few(const struct panels *p)
{
    uint64_t edge = p->rows > p->cols ? p->rows : p->cols;
    uint32_t count = strata_host_items(p->product->rows, p->rows) * p->across;
    return edge > PANEL_EDGE ? count < PANELS_OF_LARGE
                             : edge > PANEL_EDGE_MIN && count < PANELS_OF_SMALL;
}

static struct panels cut_panels(const struct product *product)
{
    struct panels p = {
        .product = product,
        .rows = strata_host_min(product->rows, PANEL_EDGE_MAX),
        .cols = strata_host_min(product->cols, PANEL_EDGE_MAX),
    };
    p.across = strata_host_items(product->cols, p.cols);
    while (too_few(&p)) {
        if (p.rows > p.cols)
            p.rows = halved(p.rows);
        else
            p.cols = halved(p.cols);
        p.across = strata_host_items(product->cols, p.cols);
    }
    return p;
}

static void panel(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct panels *p = user;
    struct product part = *p->product;
    uint64_t row = index / p->across * p->rows;
    uint64_t col = index % p->across * p->cols;
    part.a += part.a_transposed ? row : row * part.a_stride;
    part.b += part.b_transposed ? col * part.b_stride : col;
    part.c += row * part.c_stride + col;
    part.rows = strata_host_min(p->rows, part.rows - row);
    part.cols = strata_host_min(p->cols, part.cols - col);
    strata_host_product(&part);
}

void strata_host_panels(strata_workers *workers, const struct product *product)
{
    struct panels p = cut_panels(product);
    strata_workers_run(workers, STRATA_JOB_PANEL, panel, &p,
                       strata_host_items(product->rows, p.rows) * p.across);
}
