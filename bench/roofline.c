/*
 * The roofline of a decoder's operators; see roofline.h.
 *
 * Where the constants come from: tiles' efficiency from cuBLAS's rates for products of one wave
 * of each; attention from cuDNN's and FlashAttention-3's published rates (H100, head of 128,
 * causal: 540 TFLOP/s forward and 435 backward at 4,096 tokens; a deterministic backward
 * reaches 0.7 of that) and from measurements on an RTX 4090; the gap between kernels from
 * traces. GPUs that were not measured have the tables of their kind, in proportion to their
 * products.
 *
 * Thread: any.
 */

#include "bench/roofline.h"

#include "base/error.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define GAP_S           1.6e-6 /* between two kernels that depend on each other */
#define TILE_S          0.6e-6 /* a tile's beginning and end */
#define STREAM_BEGIN_S  0.8e-6 /* of an operator that is bound by memory */
#define DETERMINISTIC   0.7    /* of the rate of attention's gradient */
#define SHORT_HEAD      0.68   /* of attention's rate with heads below 128 elements */
#define SHORT_HEAD_GRAD 0.8
#define HEAD_CHUNK      2048u /* tokens whose logits are there at once */

/* A tile's rate over the best one's. */
struct tile {
    uint32_t rows;
    uint32_t cols;
    double rate;
};

static const struct tile wide_tiles[] = {
    {128, 256, 1.0}, {256, 128, 1.0}, {128, 192, 0.97}, {192, 128, 0.97}, {128, 128, 0.86},
    {64, 256, 0.80}, {256, 64, 0.80}, {64, 128, 0.66},  {128, 64, 0.66},
};
static const struct tile narrow_tiles[] = {
    {128, 256, 1.0}, {256, 128, 1.0}, {128, 128, 0.96}, {64, 256, 0.93},
    {256, 64, 0.93}, {128, 64, 0.88}, {64, 128, 0.88},  {64, 64, 0.78},
};

/* Causal attention by length, heads of 128 elements, in TFLOP/s. */
#define LENGTHS 7
static const double lengths[LENGTHS] = {512, 1024, 2048, 4096, 8192, 16384, 32768};

struct attention {
    double product_tflops; /* of the GPU that it was taken on */
    double forward[LENGTHS];
    double backward[LENGTHS];
};

static const struct attention wide_attention = {
    734.4, {300, 400, 485, 540, 566, 575, 580}, {200, 300, 380, 435, 470, 480, 485}};
static const struct attention narrow_attention = {
    167.9, {90, 115, 132, 145, 150, 153, 154}, {65, 83, 100, 112, 118, 120, 120}};

static double at_length(const double table[LENGTHS], double seq)
{
    if (seq <= lengths[0])
        return table[0] * seq / lengths[0];
    for (int i = 1; i < LENGTHS; i++)
        if (seq <= lengths[i])
            return table[i - 1] + (table[i] - table[i - 1]) * (seq - lengths[i - 1]) /
                                      (lengths[i] - lengths[i - 1]);
    return table[LENGTHS - 1];
}

/* Operators, as they are listed. */

struct list {
    struct roofline_op *ops;
    uint32_t count;
    const struct gpu *gpu;
    const struct decoder_config *config;
};

static void add(struct list *list, const char *name, double flops, double bytes, double time_s)
{
    const struct gpu *gpu = list->gpu;
    list->ops[list->count++] = (struct roofline_op){
        .name = name,
        .flops = flops,
        .bytes = bytes,
        .bound_s = fmax(flops / gpu->flops_per_s, bytes / gpu->memory_bytes_per_s),
        .time_s = time_s};
}

static double stream_s(const struct gpu *gpu, double bytes)
{
    return bytes / gpu->stream_bytes_per_s + GAP_S + STREAM_BEGIN_S;
}

static void add_stream(struct list *list, const char *name, double bytes)
{
    add(list, name, 0, bytes, stream_s(list->gpu, bytes));
}

/* rows x cols, sums over depth; D of so many bytes an element, and as many read where it is
 * added to. */
struct product {
    double rows;
    double cols;
    double depth;
    double out_bytes;
    bool adds;
};

static double result_bytes(const struct product *p)
{
    return p->rows * p->cols * p->out_bytes * (p->adds ? 2 : 1);
}

static double product_bytes(const struct product *p)
{
    return 2 * p->depth * (p->rows + p->cols) + result_bytes(p);
}

/* With tiles of one size, each sum cut in `split` parts: waves of work, or the time of the
 * bytes. A wave of tiles that lie side by side shares their rows and columns in the
 * second-level cache. */
static double tiled_s(const struct gpu *gpu, const struct product *p, const struct tile *tile,
                      uint32_t split)
{
    double rows = ceil(p->rows / tile->rows);
    double tiles = rows * ceil(p->cols / tile->cols);
    double sms = gpu->multiprocessors;
    double waves = ceil(tiles * split / sms);
    double each = 2.0 * tile->rows * tile->cols * p->depth / split;
    double rate = gpu->product_flops_per_s / sms * tile->rate;
    double abreast = fmin(tiles, sms);
    double down = fmin(rows, fmax(1, rint(sqrt(abreast * tile->cols / tile->rows))));
    double across = ceil(abreast / down);
    double read = fmin(waves * (down * tile->rows + across * tile->cols) * p->depth * 2 / split,
                       tiles * (tile->rows + tile->cols) * p->depth * 2);
    read = fmax(read, 2 * p->depth * (p->rows + p->cols));
    double parts = split > 1 ? p->rows * p->cols * 8 * (split - 1) : 0;
    double written = result_bytes(p) + parts;
    double work_s = waves * (each / rate + TILE_S);
    /* Half of what a wave writes hides behind the next one's sums. */
    double tail =
        waves > 1 ? 0.5 * fmin(written, 2 * p->rows * p->cols * p->out_bytes) : written;
    return fmax(work_s + tail / gpu->stream_bytes_per_s,
                (read + written) / gpu->stream_bytes_per_s);
}

static double product_s(const struct gpu *gpu, const struct product *p)
{
    const struct tile *tiles = gpu->wide_tiles ? wide_tiles : narrow_tiles;
    size_t count = gpu->wide_tiles ? sizeof wide_tiles / sizeof *wide_tiles
                                   : sizeof narrow_tiles / sizeof *narrow_tiles;
    double best = INFINITY;
    for (size_t i = 0; i < count; i++)
        for (uint32_t split = 1; split <= 4; split *= 2) {
            double all = ceil(p->rows / tiles[i].rows) * ceil(p->cols / tiles[i].cols) * split;
            /* Parts are worth it where a wave would not be full, and while they are long. */
            if (split > 1 && (all > 2 * gpu->multiprocessors || floor(p->depth / split) < 1024))
                continue;
            best = fmin(best, tiled_s(gpu, p, &tiles[i], split));
        }
    return best + GAP_S;
}

static void add_product(struct list *list, const char *name, struct product p)
{
    add(list, name, 2 * p.rows * p.cols * p.depth, product_bytes(&p), product_s(list->gpu, &p));
}

/* The widths of a layer, and what it has besides. */
struct widths {
    double h;
    double q;
    double kv;
    double f;
    double heads;
    double head_dim;
    bool qkv_bias;
    bool qk_norm;
};

static struct widths widths_of(const struct decoder_config *c)
{
    return (struct widths){.h = (double)c->hidden_size,
                           .q = (double)(c->head_count * c->head_dim),
                           .kv = (double)(c->kv_head_count * c->head_dim),
                           .f = (double)c->ffn_size,
                           .heads = (double)c->head_count,
                           .head_dim = (double)c->head_dim,
                           .qkv_bias = c->qkv_bias,
                           .qk_norm = c->qk_norm};
}

/* Tokens that a row sees, over all rows and layers: half of the sequence, less in a window. */
static double seen(const struct decoder_config *c, double seq)
{
    double window = c->window > 0 ? fmin((double)c->window, seq) : seq;
    /* A model may have fewer layers than it says have no window. */
    bool some = c->window > 0 && c->full_layers < c->layer_count;
    double windowed = some ? (double)(c->layer_count - c->full_layers) : 0;
    double share = windowed / (double)c->layer_count;
    return (1 - share) * seq / 2 + share * (window - window * window / (2 * seq));
}

/* Two products of a row with what it sees. */
static double attention_flops(const struct list *list, const struct widths *w,
                              struct roofline_shape shape)
{
    return 4.0 * (double)shape.tokens * seen(list->config, (double)shape.seq) * w->q;
}

static void add_attention(struct list *list, const struct widths *w,
                          struct roofline_shape shape)
{
    const struct gpu *gpu = list->gpu;
    const struct attention *of = gpu->wide_tiles ? &wide_attention : &narrow_attention;
    double scale = gpu->product_flops_per_s / of->product_tflops; /* of a TFLOP/s */
    double rate = at_length(of->forward, (double)shape.seq) * scale;
    double blocks = (double)shape.tokens / 128 * w->heads;
    double fill = fmin(1, blocks / gpu->multiprocessors / 2);
    double flops = attention_flops(list, w, shape);
    double bytes = 2.0 * (double)shape.tokens * (2 * w->q + 2 * w->kv);
    rate *= (w->head_dim >= 128 ? 1 : SHORT_HEAD) * fmax(fill, 0.2);
    add(list, "attention", flops, bytes, flops / rate + GAP_S + 2e-6);
}

static void add_attention_grad(struct list *list, const struct widths *w,
                               struct roofline_shape shape)
{
    const struct gpu *gpu = list->gpu;
    const struct attention *of = gpu->wide_tiles ? &wide_attention : &narrow_attention;
    double scale = gpu->product_flops_per_s / of->product_tflops; /* of a TFLOP/s */
    double rate = at_length(of->backward, (double)shape.seq) * scale * DETERMINISTIC;
    double flops = 2.5 * attention_flops(list, w, shape);
    double bytes = 2.0 * (double)shape.tokens * (4 * w->q + 4 * w->kv);
    rate *= w->head_dim >= 128 ? 1 : SHORT_HEAD_GRAD;
    add(list, "attention grad", flops, bytes, flops / rate + 3 * GAP_S + 6e-6);
}

/* A layer from its input to the products that the activation needs. */
static void list_before_activation(struct list *list, const struct widths *w,
                                   struct roofline_shape shape)
{
    double t = (double)shape.tokens;
    add_stream(list, "norm 1", t * 4 * w->h);
    add_product(list, "qkv", (struct product){t, w->q + 2 * w->kv, w->h, 2, false});
    if (w->qkv_bias)
        add_stream(list, "qkv bias", t * 4 * (w->q + 2 * w->kv));
    if (w->qk_norm)
        add_stream(list, "qk norm", t * 4 * (w->q + w->kv));
    add_stream(list, "rope", t * 4 * (w->q + w->kv));
    add_attention(list, w, shape);
    add_product(list, "o", (struct product){t, w->h, w->q, 2, true});
    add_stream(list, "norm 2", t * 4 * w->h);
    add_product(list, "gate-up", (struct product){t, 2 * w->f, w->h, 2, false});
}

static void list_forward(struct list *list, const struct widths *w, struct roofline_shape shape)
{
    double t = (double)shape.tokens;
    list_before_activation(list, w, shape);
    add_stream(list, "swiglu", t * 6 * w->f);
    add_product(list, "down", (struct product){t, w->h, w->f, 2, true});
}

/* All but the last product; the activation is made by the gradient of swiglu. */
static void list_again(struct list *list, const struct widths *w, struct roofline_shape shape)
{
    list_before_activation(list, w, shape);
    add_stream(list, "act", (double)shape.tokens * 2 * w->f);
}

static void list_backward(struct list *list, const struct widths *w,
                          struct roofline_shape shape)
{
    double t = (double)shape.tokens;
    double qkv = w->q + 2 * w->kv;
    add_product(list, "down dw", (struct product){w->h, w->f, t, 4, true});
    add_product(list, "down dx", (struct product){t, w->f, w->h, 2, false});
    add_stream(list, "swiglu grad", t * 10 * w->f);
    add_product(list, "gate-up dw", (struct product){2 * w->f, w->h, t, 4, true});
    add_product(list, "gate-up dx", (struct product){t, w->h, 2 * w->f, 2, false});
    add_stream(list, "norm 2 grad", t * 8 * w->h);
    add_product(list, "o dw", (struct product){w->h, w->q, t, 4, true});
    add_product(list, "o dx", (struct product){t, w->q, w->h, 2, false});
    add_attention_grad(list, w, shape);
    add_stream(list, "rope grad", t * 4 * (w->q + w->kv));
    if (w->qk_norm)
        add_stream(list, "qk norm grad", t * 6 * (w->q + w->kv));
    if (w->qkv_bias)
        add_stream(list, "qkv dbias", t * 2 * qkv);
    add_product(list, "qkv dw", (struct product){qkv, w->h, t, 4, true});
    add_product(list, "qkv dx", (struct product){t, w->h, qkv, 2, false});
    add_stream(list, "norm 1 grad", t * 8 * w->h);
}

uint32_t strata_roofline_layer(struct roofline_op out[ROOFLINE_MAX_OPS], const struct gpu *gpu,
                               const struct decoder_config *config, struct roofline_shape shape,
                               enum roofline_pass pass)
{
    struct widths w = widths_of(config);
    struct list list = {.ops = out, .gpu = gpu, .config = config};
    switch (pass) {
    case ROOFLINE_FORWARD:
        list_forward(&list, &w, shape);
        break;
    case ROOFLINE_AGAIN:
        list_again(&list, &w, shape);
        break;
    case ROOFLINE_BACKWARD:
        list_backward(&list, &w, shape);
        break;
    case ROOFLINE_PASS_COUNT:
        break;
    }
    return list.count;
}

uint32_t strata_roofline_ends(struct roofline_op out[ROOFLINE_MAX_OPS], const struct gpu *gpu,
                              const struct decoder_config *config, struct roofline_shape shape)
{
    struct list list = {.ops = out, .gpu = gpu, .config = config};
    double t = (double)shape.tokens;
    double h = (double)config->hidden_size;
    double v = (double)config->vocab_size;
    double chunks = ceil(t / HEAD_CHUNK);
    double rows = t / chunks;
    const struct {
        const char *name;
        struct product product;
    } products[] = {{"logits", {rows, v, h, 2, false}},
                    {"head dw", {v, h, rows, 4, true}},
                    {"head dx", {rows, h, v, 2, false}}};
    add_stream(&list, "look-up", t * 4 * h);
    add_stream(&list, "norm", t * 4 * h);
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        const struct product *p = &products[i].product;
        add(&list, products[i].name, chunks * 2 * p->rows * p->cols * p->depth,
            chunks * product_bytes(p), chunks * product_s(gpu, p));
    }
    add(&list, "loss", 0, t * 5 * v, chunks * stream_s(gpu, rows * 5 * v));
    add_stream(&list, "norm grad", t * 8 * h);
    add_stream(&list, "look-up grad", t * 10 * h);
    return list.count;
}

/* Of the uses of a step. */

struct uses {
    double *compute_s;
    double layer_s[ROOFLINE_PASS_COUNT];
    struct roofline_op ends[ROOFLINE_MAX_OPS];
    uint32_t end_count;
};

static double end_s(const struct uses *uses, const char *name)
{
    uint32_t i = 0;
    while (i + 1 < uses->end_count && strcmp(uses->ends[i].name, name) != 0)
        i++;
    return uses->ends[i].time_s;
}

static double work_s(const struct uses *uses, enum decoder_work work)
{
    switch (work) {
    case DECODER_EMBED:
        return end_s(uses, "look-up");
    case DECODER_LAYER:
        return uses->layer_s[ROOFLINE_FORWARD];
    case DECODER_NORM:
        return end_s(uses, "norm");
    case DECODER_HEAD:
        return end_s(uses, "logits") + end_s(uses, "loss") + end_s(uses, "head dw") +
               end_s(uses, "head dx");
    case DECODER_HEAD_SCAN:
        return end_s(uses, "logits") + end_s(uses, "loss");
    case DECODER_HEAD_GRAD:
        return end_s(uses, "logits") + end_s(uses, "head dw") + end_s(uses, "head dx");
    case DECODER_LOSS:
        return 0;
    case DECODER_NORM_GRAD:
        return end_s(uses, "norm grad");
    case DECODER_LAYER_GRAD:
        return uses->layer_s[ROOFLINE_AGAIN] + uses->layer_s[ROOFLINE_BACKWARD];
    case DECODER_EMBED_GRAD:
        return end_s(uses, "look-up grad");
    }
    return 0;
}

static void add_work(void *user, const struct decoder_work_item *item)
{
    struct uses *uses = user;
    uses->compute_s[item->use] += item->vocab_share * work_s(uses, item->work);
}

strata_status strata_roofline_uses(double **out, const struct gpu *gpu,
                                   const struct decoder_config *config,
                                   const struct decoder *decoder, struct roofline_shape shape,
                                   strata_error *error)
{
    struct uses uses = {.compute_s = NULL};
    uint32_t count = strata_decoder_model(decoder)->use_count;
    for (int pass = 0; pass < ROOFLINE_PASS_COUNT; pass++) {
        struct roofline_op ops[ROOFLINE_MAX_OPS];
        uint32_t listed =
            strata_roofline_layer(ops, gpu, config, shape, (enum roofline_pass)pass);
        for (uint32_t i = 0; i < listed; i++)
            uses.layer_s[pass] += ops[i].time_s;
    }
    uses.end_count = strata_roofline_ends(uses.ends, gpu, config, shape);
    *out = uses.compute_s = calloc(count, sizeof *uses.compute_s);
    if (uses.compute_s == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the times of %u uses",
                           count);
    strata_decoder_each_work(decoder, add_work, &uses);
    return STRATA_OK;
}

double strata_roofline_model_flops(const struct decoder_config *config, uint64_t seq)
{
    struct widths w = widths_of(config);
    double layer = w.h * (2 * w.q + 2 * w.kv) + 3 * w.h * w.f + 2 * w.h;
    double layers = (double)config->layer_count;
    return 6 * (layers * layer + (double)config->vocab_size * w.h) +
           12 * layers * w.q * seen(config, (double)seq);
}
