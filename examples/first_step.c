/*
 * Ten training steps of two groups that rest in host RAM and visit the device in turn: y = w2
 * w1 x with 256 x 256 matrices; the loss is half the squared distance from y to ones. Groups,
 * use list, engine, step: that is all a user of the library writes, besides the arithmetic. On
 * the host device a "kernel" is a C function that is queued on a stream.
 *     cc first_step.c $(pkg-config --cflags --libs strata) -o first_step
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strata/strata.h>

enum { N = 256 };

/* What lies in the device between uses: activations and their gradients, by layer. */
struct scratch {
    float x[3][N], dx[3][N];
};

struct kernel { /* what is queued with a call */
    struct scratch *s;
    strata_view view; /* the group's weights, and its gradient buffer in backward */
    int layer;
};

static void forward(void *args)
{
    const struct kernel *k = args;
    const float *w = k->view.param, *in = k->s->x[k->layer];
    float *out = k->s->x[k->layer + 1];
    memset(out, 0, N * sizeof *out);
    for (int i = 0; i < N * N; i++)
        out[i / N] += w[i] * in[i % N];
}

static void backward(void *args)
{
    const struct kernel *k = args;
    const float *w = k->view.param, *in = k->s->x[k->layer], *dout = k->s->dx[k->layer + 1];
    float *din = k->s->dx[k->layer];
    memset(din, 0, N * sizeof *din);
    for (int i = 0; i < N * N; i++) {
        k->view.grad[i] += dout[i / N] * in[i % N];
        din[i % N] += w[i] * dout[i / N];
    }
}

static void loss(void *args)
{
    struct scratch *s = ((const struct kernel *)args)->s;
    double sum = 0;
    for (int i = 0; i < N; sum += 0.5 * s->dx[2][i] * s->dx[2][i], i++)
        s->dx[2][i] = s->x[2][i] - 1;
    printf("loss %.4f\n", sum / N);
}

static void init(void *user, uint32_t g, uint32_t t, uint64_t first, uint64_t count, float *out)
{
    (void)user, (void)t; /* any numbers that depend on the element alone */
    for (uint64_t i = first + g; count-- > 0; i++, out++)
        *out = 0.125f * ((float)(i * 2654435761u % 1024) / 1024 - 0.5f);
}

static void check(strata_status status, const strata_error *error)
{
    if (status == STRATA_OK)
        return;
    fprintf(stderr, "first_step: %s\n", error->message);
    exit(1);
}

int main(void)
{
    const strata_tensor_desc w[] = {{"w1", {N, N}, 2, false}, {"w2", {N, N}, 2, false}};
    const strata_group_desc groups[] = {{"first", &w[0], 1}, {"second", &w[1], 1}};
    const strata_use uses[] = {
        {STRATA_USE_ACQUIRE, 0, false, 0}, {STRATA_USE_RELEASE, 0, false, 0},  // forward
        {STRATA_USE_ACQUIRE, 1, true, 0},  {STRATA_USE_RELEASE, 1, false, 0},  // both
        {STRATA_USE_ACQUIRE, 0, true, 0},  {STRATA_USE_RELEASE, 0, false, 0}}; // backward
    const strata_model_desc model = {groups, 2, uses, 6, NULL, 0, sizeof(struct scratch), 0};
    const strata_adam_params adam = strata_adam_defaults();
    const strata_call_fn run[3][4] = {{forward}, {forward, loss, backward}, {backward}};
    const int layer[3] = {0, 1, 0};
    strata_engine_desc desc = {.model = &model,
                               .compute_dtype = STRATA_FP32,
                               .adam = &adam,
                               .init = init,
                               .clip = 1,
                               .device_bytes = 2 << 20,
                               .host_bytes = 16 << 20};
    strata_error error = {0};
    strata_stream *stream;
    strata_engine *engine;
    struct kernel k;
    check(strata_device_open_host(&desc.device, &error), &error);
    check(strata_workers_create(&desc.workers, &(strata_workers_desc){0}, &error), &error);
    check(strata_stream_create(&stream, desc.device, "compute", &error), &error);
    check(strata_engine_create(&engine, &desc, &error), &error);
    k.s = strata_scratch(engine);
    for (int i = 0; i < N; i++)
        k.s->x[0][i] = (float)i / N;
    const strata_error *story = strata_engine_error(engine);
    for (int step = 1; step <= 10; step++) {
        check(strata_step_begin(engine, 1e-3), story);
        for (int u = 0; u < 3; u++) {
            k.layer = layer[u];
            check(strata_acquire(engine, k.layer, stream, &k.view), story);
            for (int i = 0; run[u][i] != NULL; i++)
                strata_stream_call(stream, run[u][i], &k, sizeof k);
            check(strata_release(engine, k.layer, stream), story);
        }
        check(strata_step_end(engine), story); /* the update goes on */
    }
    strata_engine_destroy(engine);
    strata_stream_destroy(stream);
    strata_workers_destroy(desc.workers);
    strata_device_close(desc.device);
    return 0;
}
