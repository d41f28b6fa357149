#define _GNU_SOURCE
/*
 * offload-bench copy: the speed of copies to and from the device, one way and both ways, alone
 * and while the machine is busy, as the pager makes them and as one bare copy.
 *
 * The same bytes are moved between host memory and the device in two ways. Bare: one copy of
 * all bytes, from memory that the device's runtime has pinned, and a wait. Ours: like the
 * pager, a copy of each tile from huge pages that we pin, with a notify after each. Both use
 * the device's streams, one per direction.
 *
 * Within a repetition every case is measured both ways, one right after the other, and the
 * ways take turns in going first. Shares are medians of the ratios within a repetition. The
 * bytes that come back are compared with those that were sent.
 *
 * On the host device a copy is a memcpy by the stream's thread: the figures show the speed of
 * DRAM and cores, and the cost of queueing.
 *
 * Timed: from the first queued copy to the end of the last. Not timed: taking and pinning
 * memory.
 *
 * Thread: one, and those of the streams and the loads.
 */

#include "bench/commands.h"

#include "bench/rig/copy_load.h"
#include "bench/device.h"
#include "bench/options.h"
#include "offload/device/device.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_BYTES       ((uint64_t)256 << 20)
#define TILE_BYTES          ((uint64_t)8 << 20) /* the largest tile's weights in bf16 */
#define DEFAULT_REPETITIONS 5u

enum direction { H2D = 1, D2H = 2, BOTH = 3, DIRECTIONS = 3 };
enum way { BARE, OURS, WAYS };
enum load { ALONE, WITH_ADAM, WITH_IO, WITH_BOTH, LOADS };

static const char *const direction_names[] = {"", "h2d", "d2h", "both"};
static const char *const load_names[] = {"alone", "adam", "io", "adam+io"};

struct copy_options {
    enum device_kind device;
    const char *dir;
    uint64_t bytes;
    uint32_t repetitions;
    double least; /* least share of the bare rate that passes */
    struct bench_output output;
};

/* Host memory of one way: the bytes that go to the device, and the place for those that come
 * back. */
struct ends {
    uint8_t *out;
    uint8_t *back;
};

struct copy_rig {
    strata_device *device;
    strata_stream *h2d;
    strata_stream *d2h;
    uint8_t *memory; /* device memory: so many bytes for each direction */
    struct arena arena;
    bool pinned;
    void *shared;
    struct ends ends[WAYS];
    uint64_t bytes;
    struct copy_load load;
    _Atomic uint64_t notified;
};

struct copy_results {
    double seconds[LOADS][DIRECTIONS][WAYS][BENCH_MAX_SAMPLES];
};

static void count_notify(void *user, uint64_t value, uint64_t now_ns)
{
    (void)value;
    (void)now_ns;
    atomic_fetch_add((_Atomic uint64_t *)user, 1);
}

static void queue_one_way(struct copy_rig *rig, enum way way, bool out)
{
    strata_stream *stream = out ? rig->h2d : rig->d2h;
    uint8_t *memory = out ? rig->memory : rig->memory + rig->bytes;
    uint8_t *host = out ? rig->ends[way].out : rig->ends[way].back;
    uint64_t step = way == BARE ? rig->bytes : TILE_BYTES;
    for (uint64_t at = 0; at < rig->bytes; at += step) {
        uint64_t piece = rig->bytes - at < step ? rig->bytes - at : step;
        strata_stream_copy(stream, out ? memory + at : host + at, out ? host + at : memory + at,
                           piece);
        if (way == OURS)
            rig->device->ops->stream_notify(stream, count_notify, &rig->notified, at);
    }
}

static double run_copies(struct copy_rig *rig, enum way way, enum direction direction)
{
    double start = strata_bench_now_s();
    if (direction & H2D)
        queue_one_way(rig, way, true);
    if (direction & D2H)
        queue_one_way(rig, way, false);
    strata_stream_sync(rig->h2d);
    strata_stream_sync(rig->d2h);
    return strata_bench_now_s() - start;
}

static strata_status copy_device_status(struct copy_rig *rig, strata_error *error)
{
    const strata_error *failure = strata_device_error(rig->device);
    if (failure != NULL)
        *error = *failure;
    return failure != NULL ? failure->status : STRATA_OK;
}

/* The bytes that came back equal those that were sent. */
static strata_status verify_copied_bytes(struct copy_rig *rig, strata_error *error)
{
    for (enum way way = BARE; way < WAYS; way++) {
        for (uint64_t i = 0; i < rig->bytes; i++)
            rig->ends[way].out[i] = (uint8_t)(i * 7 + i / 4096 + way);
        memset(rig->ends[way].back, 0, rig->bytes);
        strata_stream_copy(rig->h2d, rig->memory + rig->bytes, rig->ends[way].out, rig->bytes);
        strata_stream_sync(rig->h2d);
        run_copies(rig, way, D2H);
        STRATA_TRY(copy_device_status(rig, error));
        if (memcmp(rig->ends[way].out, rig->ends[way].back, rig->bytes) == 0)
            continue;
        snprintf(error->message, sizeof error->message,
                 "copy of %" PRIu64 " bytes: other bytes came back", rig->bytes);
        return error->status = STRATA_E_CORRUPT;
    }
    return STRATA_OK;
}

static strata_status measure_copies(struct copy_rig *rig, uint32_t repetitions,
                                    struct copy_results *out, strata_error *error)
{
    for (uint32_t i = 0; i < repetitions; i++)
        for (int load = 0; load < LOADS; load++) {
            STRATA_TRY(
                strata_bench_load_start(&rig->load, load & WITH_ADAM, load & WITH_IO, error));
            for (int k = 0; k < DIRECTIONS * WAYS; k++) {
                int direction = k / WAYS;
                enum way way = (enum way)((i + (uint32_t)k) % WAYS);
                out->seconds[load][direction][way][i] =
                    run_copies(rig, way, (enum direction)(direction + 1));
            }
            STRATA_TRY(strata_bench_load_stop(&rig->load, error));
        }
    return copy_device_status(rig, error);
}

static strata_status open_memory(struct copy_rig *rig, strata_error *error)
{
    void *memory;
    uint64_t piece_bytes;
    const struct strata_device_ops *ops = rig->device->ops;
    STRATA_TRY(strata_device_take(rig->device, 2 * rig->bytes, &memory, error));
    rig->memory = memory;
    STRATA_TRY(strata_arena_create(&rig->arena, 2 * rig->bytes, "the copies", error));
    STRATA_TRY(ops->pin(rig->device, rig->arena.base, rig->arena.bytes, &piece_bytes, error));
    rig->pinned = true;
    STRATA_TRY(ops->shared_create(rig->device, 2 * rig->bytes, &rig->shared, error));
    uint8_t *shared = rig->shared;
    rig->ends[BARE] = (struct ends){shared, shared + rig->bytes};
    rig->ends[OURS] = (struct ends){rig->arena.base, rig->arena.base + rig->bytes};
    return STRATA_OK;
}

static strata_status copy_rig_open(struct copy_rig *rig, const struct copy_options *options,
                                   strata_error *error)
{
    rig->bytes = options->bytes;
    STRATA_TRY(strata_bench_device_open(&rig->device, options->device, error));
    STRATA_TRY(strata_stream_create(&rig->h2d, rig->device, "copy-h2d", error));
    STRATA_TRY(strata_stream_create(&rig->d2h, rig->device, "copy-d2h", error));
    STRATA_TRY(open_memory(rig, error));
    STRATA_TRY(strata_bench_load_open(&rig->load, options->dir, error));
    return verify_copied_bytes(rig, error);
}

static void copy_rig_close(struct copy_rig *rig)
{
    strata_bench_load_close(&rig->load);
    strata_stream_destroy(rig->d2h);
    strata_stream_destroy(rig->h2d);
    if (rig->device == NULL)
        return;
    rig->device->ops->shared_destroy(rig->device, rig->shared);
    if (rig->pinned)
        rig->device->ops->unpin(rig->device, rig->arena.base);
    strata_arena_destroy(&rig->arena);
    strata_device_give(rig->device, rig->memory, 2 * rig->bytes);
    strata_device_close(rig->device);
}

struct case_result {
    struct bench_spread bare; /* GB/s */
    struct bench_spread ours;
    struct bench_spread share;
};

static struct case_result evaluate_copy_case(const struct copy_rig *rig,
                                             const struct copy_results *set, int load,
                                             int direction, uint32_t count)
{
    double bytes = (double)rig->bytes * (direction + 1 == BOTH ? 2 : 1);
    double values[3][BENCH_MAX_SAMPLES];
    for (uint32_t i = 0; i < count; i++) {
        double bare = set->seconds[load][direction][BARE][i];
        double ours = set->seconds[load][direction][OURS][i];
        values[0][i] = bytes / bare * 1e-9;
        values[1][i] = bytes / ours * 1e-9;
        values[2][i] = bare / ours;
    }
    return (struct case_result){strata_bench_spread(values[0], count),
                                strata_bench_spread(values[1], count),
                                strata_bench_spread(values[2], count)};
}

static strata_json *json_copy_case(const struct case_result *result)
{
    strata_json *object = strata_json_object();
    strata_bench_set_spread(object, "bare_gb_per_s", &result->bare);
    strata_bench_set_spread(object, "ours_gb_per_s", &result->ours);
    strata_bench_set_spread(object, "share_of_bare", &result->share);
    return object;
}

static strata_json *json_copy_setting(const struct copy_rig *rig,
                                      const struct copy_options *options,
                                      const strata_device_facts *facts)
{
    strata_json *object = strata_json_object();
    strata_json_set_string(object, "device", strata_device_name(rig->device));
    strata_json_set_string(object, "model", facts->model);
    strata_json_set_uint(object, "bytes", rig->bytes);
    strata_json_set_uint(object, "tile_bytes", TILE_BYTES);
    strata_json_set_bool(object, "huge_pages", rig->arena.huge);
    strata_json_set_uint(object, "workers", strata_workers_count(rig->load.workers));
    strata_json_set_uint(object, "repetitions", options->repetitions);
    return object;
}

static void print_copy_case(FILE *out, int load, int direction, const struct case_result *r)
{
    fprintf(out, "%-8s %-5s %7.2f (%6.2f..%6.2f) %7.2f (%6.2f..%6.2f)  %5.3f (%5.3f..%5.3f)\n",
            load_names[load], direction_names[direction + 1], r->bare.median, r->bare.least,
            r->bare.most, r->ours.median, r->ours.least, r->ours.most, r->share.median,
            r->share.least, r->share.most);
}

static enum bench_exit report_copies(struct copy_rig *rig, const struct copy_options *options,
                                     const struct copy_results *set)
{
    FILE *out = options->output.json ? stderr : stdout;
    enum bench_exit verdict = BENCH_DONE;
    strata_device_facts facts;
    strata_device_facts_of(rig->device, &facts);
    strata_json *document = strata_bench_document("copy");
    strata_json_set(document, "setting", json_copy_setting(rig, options, &facts));
    fprintf(out, "%s device %s, %s, %u repetitions, median (least..most)\n\n",
            strata_device_name(rig->device), facts.model,
            rig->arena.huge ? "huge pages" : "no huge pages", options->repetitions);
    fputs("GB/s           one bare copy             tiles, notified           share\n", out);
    for (int load = 0; load < LOADS; load++) {
        strata_json *one = strata_json_object();
        for (int direction = 0; direction < DIRECTIONS; direction++) {
            struct case_result result =
                evaluate_copy_case(rig, set, load, direction, options->repetitions);
            print_copy_case(out, load, direction, &result);
            if (load == ALONE && direction + 1 != BOTH && result.share.median < options->least)
                verdict = BENCH_BELOW;
            strata_json_set(one, direction_names[direction + 1], json_copy_case(&result));
        }
        strata_json_set(document, load_names[load], one);
    }
    enum bench_exit written = strata_bench_finish(&options->output, document);
    if (verdict == BENCH_BELOW)
        fprintf(stderr, "offload-bench copy: less than %g of a bare copy\n", options->least);
    return written == BENCH_DONE ? verdict : written;
}

static enum bench_exit run_copy_bench(const struct copy_options *options)
{
    strata_error error = {.status = STRATA_OK};
    struct copy_rig *rig = calloc(1, sizeof *rig);
    struct copy_results *set = calloc(1, sizeof *set);
    enum bench_exit result = BENCH_FAILED;
    if (rig == NULL || set == NULL) {
        fputs("offload-bench copy: memory for the samples: none left\n", stderr);
        goto done;
    }
    strata_status status = copy_rig_open(rig, options, &error);
    if (status == STRATA_OK)
        status = measure_copies(rig, options->repetitions, set, &error);
    result = status == STRATA_OK ? report_copies(rig, options, set)
                                 : strata_bench_fail("copy", &error);
    copy_rig_close(rig);
done:
    free(set);
    free(rig);
    return result;
}

#define FIELD(member) offsetof(struct copy_options, member)

static const struct option_row rows[] = {
    DEVICE_ROW,
    VALUE("store", OPTION_TEXT, "DIR", dir, "where the I/O load's scratch file lies (.)"),
    VALUE("size", OPTION_SIZE, "SIZE", bytes, "bytes of a copy, each way (256M)"),
    REPETITIONS_ROW("of 24 copies each (5)"),
    RANGE("least", OPTION_NUMBER, "X", least, 0, 1000,
          "exit 4 if ours, alone, is less than that share of bare (0)"),
    OUTPUT_ROWS,
};

static const struct command_line line = COMMAND_LINE("copy", NULL);

enum bench_exit strata_bench_copy(int argc, char **argv)
{
    struct copy_options options = {
        .dir = ".", .bytes = DEFAULT_BYTES, .repetitions = DEFAULT_REPETITIONS};
    enum bench_exit result;
    return strata_bench_options(&result, &line, &options, argc, argv) ? run_copy_bench(&options)
                                                                      : result;
}
