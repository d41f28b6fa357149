#define _GNU_SOURCE
/*
 * offload-bench adam: the optimizer's update beside the bound that memory sets, and beside the
 * same work in separate passes. rig/adam_rig.h lists the ways that are compared.
 *
 * Timed: passes over all parameters, from handing the first chunk to the workers to the end of
 * the last one. Not timed: taking memory, filling gradients, and a pass before each sample.
 * The speed of memory and cores changes within minutes, so figures of different times are not
 * compared: a repetition runs every way once, one right after the other, and shares are
 * medians of the ratios within a repetition. A sample of a small model has as many passes as
 * take about 20 ms.
 *
 * A GB/s is 10^9 bytes per second of what the fused pass has to move. Every way is counted by
 * these bytes, even if it moves more, so the figures of one line are comparable. The bound is
 * a kernel that moves just these bytes and computes nothing.
 *
 * Scalar code is bound by the core. It gets at most 4 Mi parameters and as many repetitions as
 * the others: its time per parameter is the same for more.
 *
 * Thread: one, and the workers.
 */

#include "bench/commands.h"

#include "bench/rig/adam_rig.h"
#include "bench/options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_REPETITIONS 7u
#define MAX_SIZES           4u
#define MAX_PARAMS          1e10
#define SAMPLE_ELEMS        40e6 /* least elements of a sample, over all its passes */
#define SCALAR_ELEMS        (UINT64_C(4) << 20)

struct adam_options {
    uint64_t sizes[MAX_SIZES];
    uint32_t size_count;
    uint32_t repetitions;
    struct bench_output output;
};

/* One measurement: a kind, a way, and the factor of the gradients. */
struct subject {
    struct adam_kind kind;
    enum adam_way way;
    float scale;
};

static const char *const way_names[ADAM_WAY_COUNT] = {
    "bound", "fused", "cast, step, cast", "scale, fused", "hashes in the pass", "hashes apart"};
static const char *const isa_names[] = {"best", "scalar", "avx2", "avx512"};

/* Every dtype and type of states with every instruction set; then the other ways, for the
 * usual kinds with the best instructions. */
enum { DTYPES = 3, STATES = 2, ISAS = 3, OTHERS = 6 };
enum { KINDS = DTYPES * STATES * (ISAS + 1), SUBJECTS = KINDS + OTHERS };

struct table {
    struct subject subjects[SUBJECTS];
    uint32_t count;
    uint64_t elems;
    uint32_t threads;
    double ns[SUBJECTS][BENCH_MAX_SAMPLES]; /* per parameter */
};

static strata_isa best_isa(void)
{
    if (strata_isa_usable(STRATA_ISA_AVX512))
        return STRATA_ISA_AVX512;
    return strata_isa_usable(STRATA_ISA_AVX2) ? STRATA_ISA_AVX2 : STRATA_ISA_SCALAR;
}

static void add_subject(struct table *table, strata_dtype dtype, strata_dtype states,
                        strata_isa isa, enum adam_way way, float factor)
{
    if (strata_isa_usable(isa))
        table->subjects[table->count++] =
            (struct subject){.kind = {dtype, states, isa}, .way = way, .scale = factor};
}

static void list_subjects(struct table *table)
{
    static const strata_dtype dtypes[DTYPES] = {STRATA_BF16, STRATA_FP16, STRATA_FP32};
    static const strata_dtype states[STATES] = {STRATA_FP32, STRATA_BF16};
    const strata_isa best = best_isa();
    for (int d = 0; d < DTYPES; d++)
        for (int s = 0; s < STATES; s++) {
            add_subject(table, dtypes[d], states[s], best, ADAM_BARE, 1);
            add_subject(table, dtypes[d], states[s], STRATA_ISA_AVX512, ADAM_FUSED, 1);
            add_subject(table, dtypes[d], states[s], STRATA_ISA_AVX2, ADAM_FUSED, 1);
            add_subject(table, dtypes[d], states[s], STRATA_ISA_SCALAR, ADAM_FUSED, 1);
        }
    add_subject(table, STRATA_BF16, STRATA_FP32, best, ADAM_CAST, 1);
    add_subject(table, STRATA_BF16, STRATA_FP32, best, ADAM_FUSED, 0.7f);
    add_subject(table, STRATA_BF16, STRATA_FP32, best, ADAM_SCALE, 1);
    add_subject(table, STRATA_BF16, STRATA_FP32, best, ADAM_INSIDE, 1);
    add_subject(table, STRATA_BF16, STRATA_FP32, best, ADAM_APART, 1);
}

static uint64_t elems_of(const struct table *table, const struct subject *subject)
{
    bool few = subject->kind.isa == STRATA_ISA_SCALAR && table->elems > SCALAR_ELEMS;
    return few ? SCALAR_ELEMS : table->elems;
}

/* One sample, in ns per parameter. */
static double sample_subject(struct adam_rig *rig, strata_workers *workers,
                             const struct table *table, const struct subject *subject)
{
    uint64_t elems = elems_of(table, subject);
    bool scalar = subject->kind.isa == STRATA_ISA_SCALAR;
    uint32_t passes = scalar ? 1 : 1 + (uint32_t)(SAMPLE_ELEMS / (double)elems);
    strata_bench_adam_pass(rig, workers, &subject->kind, subject->way, elems, subject->scale);
    double start = strata_bench_now_s();
    for (uint32_t i = 0; i < passes; i++)
        strata_bench_adam_pass(rig, workers, &subject->kind, subject->way, elems,
                               subject->scale);
    double blocks = (double)((elems < rig->elems ? elems : rig->elems) / STRATA_BLOCK_ELEMS);
    return (strata_bench_now_s() - start) * 1e9 / passes / (blocks * STRATA_BLOCK_ELEMS);
}

static bool same_memory(const struct adam_kind *a, const struct adam_kind *b)
{
    return a->dtype == b->dtype && a->states == b->states;
}

static void measure_adam(struct adam_rig *rig, strata_workers *workers, struct table *table,
                         uint32_t repetitions)
{
    for (uint32_t r = 0; r < repetitions; r++)
        for (uint32_t i = 0; i < table->count; i++) {
            const struct subject *subject = &table->subjects[i];
            if (i == 0 || !same_memory(&subject->kind, &table->subjects[i - 1].kind))
                strata_bench_adam_reset(rig, &subject->kind);
            table->ns[i][r] = sample_subject(rig, workers, table, subject);
        }
}

/* The subject that is the bound of this subject's kind. */
static uint32_t bound_of(const struct table *table, uint32_t subject)
{
    for (uint32_t i = 0; i < table->count; i++)
        if (table->subjects[i].way == ADAM_BARE &&
            same_memory(&table->subjects[i].kind, &table->subjects[subject].kind))
            return i;
    return 0;
}

static uint32_t find_subject(const struct table *table, strata_dtype states, enum adam_way way,
                             float factor)
{
    for (uint32_t i = 0; i < table->count; i++) {
        const struct subject *s = &table->subjects[i];
        if (s->kind.dtype == STRATA_BF16 && s->kind.states == states && s->way == way &&
            s->kind.isa == best_isa() && s->scale == factor)
            return i;
    }
    return 0;
}

/* The ratio a / b within each repetition. */
static struct bench_spread ratio_of_subjects(const struct table *table, uint32_t a, uint32_t b,
                                             uint32_t repetitions)
{
    double values[BENCH_MAX_SAMPLES];
    for (uint32_t r = 0; r < repetitions; r++)
        values[r] = table->ns[a][r] / table->ns[b][r];
    return strata_bench_spread(values, repetitions);
}

static strata_json *json_subject(const struct table *table, uint32_t index,
                                 uint32_t repetitions)
{
    const struct subject *subject = &table->subjects[index];
    strata_json *one = strata_json_object();
    struct bench_spread ns = strata_bench_spread(table->ns[index], repetitions);
    struct bench_spread share =
        ratio_of_subjects(table, bound_of(table, index), index, repetitions);
    strata_json_set_uint(one, "params", table->elems);
    strata_json_set_uint(one, "threads", table->threads);
    strata_json_set_string(one, "dtype", strata_dtype_name(subject->kind.dtype));
    strata_json_set_string(one, "states", strata_dtype_name(subject->kind.states));
    strata_json_set_string(one, "isa", isa_names[subject->kind.isa]);
    strata_json_set_string(one, "way", way_names[subject->way]);
    strata_json_set_number(one, "grad_scale", (double)subject->scale);
    strata_bench_set_spread(one, "ns_per_param", &ns);
    strata_json_set_number(one, "gb_per_s",
                           strata_bench_adam_bytes(&subject->kind) / ns.median);
    strata_bench_set_spread(one, "share_of_bound", &share);
    return one;
}

static void print_subject(FILE *out, const struct table *table, uint32_t index,
                          uint32_t repetitions)
{
    const struct subject *subject = &table->subjects[index];
    struct bench_spread ns = strata_bench_spread(table->ns[index], repetitions);
    struct bench_spread share =
        ratio_of_subjects(table, bound_of(table, index), index, repetitions);
    fprintf(out, "%-5s %-6s %-7s %-18s %6.3f (%6.3f..%6.3f) %6.1f %7.1f %%\n",
            strata_dtype_name(subject->kind.dtype), strata_dtype_name(subject->kind.states),
            subject->way == ADAM_BARE ? "-" : isa_names[subject->kind.isa],
            subject->scale == 1 ? way_names[subject->way] : "fused, scale 0.7", ns.median,
            ns.least, ns.most, strata_bench_adam_bytes(&subject->kind) / ns.median,
            100 * share.median);
}

/* The main comparisons, in words and as ratios: a takes this many times as long as b. */
static void print_comparisons(FILE *out, strata_json *list, const struct table *table,
                              uint32_t repetitions)
{
    uint32_t fused = find_subject(table, STRATA_FP32, ADAM_FUSED, 1);
    const struct {
        const char *key;
        const char *text;
        uint32_t a, b;
    } rows[] = {
        {"fused_share_of_bound", "fused, of the bound",
         find_subject(table, STRATA_FP32, ADAM_BARE, 1), fused},
        {"cast_over_fused", "cast, step, cast over fused",
         find_subject(table, STRATA_FP32, ADAM_CAST, 1), fused},
        {"scaled_over_fused", "fused with a scale over without",
         find_subject(table, STRATA_FP32, ADAM_FUSED, 0.7f), fused},
        {"scale_apart_over_fused", "scale as a pass of its own over fused",
         find_subject(table, STRATA_FP32, ADAM_SCALE, 1), fused},
        {"fp32_states_over_bf16_states", "fp32 states over bf16 states", fused,
         find_subject(table, STRATA_BF16, ADAM_FUSED, 1)},
        {"hashes_apart_over_inside", "hashes apart over hashes in the pass",
         find_subject(table, STRATA_FP32, ADAM_APART, 1),
         find_subject(table, STRATA_FP32, ADAM_INSIDE, 1)},
    };
    strata_json *one = strata_json_object();
    strata_json_set_uint(one, "params", table->elems);
    strata_json_set_uint(one, "threads", table->threads);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bench_spread spread =
            ratio_of_subjects(table, rows[i].a, rows[i].b, repetitions);
        fprintf(out, "%-40s %6.3f (%.3f..%.3f)\n", rows[i].text, spread.median, spread.least,
                spread.most);
        strata_bench_set_spread(one, rows[i].key, &spread);
    }
    fputc('\n', out);
    strata_json_append(list, one);
}

/* One size and count of threads. */
static strata_status run_table(const struct adam_options *options, struct adam_rig *rig,
                               struct table *table, uint32_t threads, strata_json *document[2],
                               strata_error *error)
{
    FILE *out = options->output.json ? stderr : stdout;
    strata_workers *workers;
    strata_workers_desc desc = {.thread_count = threads};
    uint64_t elems = table->elems;
    strata_status status = strata_workers_create(&workers, &desc, error);
    if (status != STRATA_OK)
        return status;
    *table = (struct table){.elems = elems, .threads = strata_workers_count(workers)};
    list_subjects(table);
    measure_adam(rig, workers, table, options->repetitions);
    strata_workers_destroy(workers);
    fprintf(out,
            "%llu parameters, %u thread%s\n"
            "dtype states isa     way                ns per parameter        GB/s   of bound\n",
            (unsigned long long)elems, table->threads, table->threads > 1 ? "s" : "");
    for (uint32_t i = 0; i < table->count; i++) {
        print_subject(out, table, i, options->repetitions);
        strata_json_append(document[0], json_subject(table, i, options->repetitions));
    }
    fputc('\n', out);
    print_comparisons(out, document[1], table, options->repetitions);
    return STRATA_OK;
}

static strata_status run_size(const struct adam_options *options, uint64_t elems,
                              struct table *table, strata_json *document[2],
                              strata_error *error)
{
    struct adam_rig rig;
    strata_status status = strata_bench_adam_open(&rig, elems, error);
    if (status == STRATA_OK && !rig.memory.huge)
        fputs("huge pages were not to be had\n", stderr);
    for (uint32_t threads = 1; threads <= 2 && status == STRATA_OK; threads++) {
        table->elems = elems;
        /* One thread, then 0, which means one per core. */
        uint32_t count = threads == 1 ? 1 : 0;
        status = run_table(options, &rig, table, count, document, error);
    }
    strata_bench_adam_close(&rig);
    return status;
}

static enum bench_exit run_all(const struct adam_options *options)
{
    strata_error error = {.status = STRATA_OK};
    struct table *table = calloc(1, sizeof *table);
    strata_status status = STRATA_OK;
    if (table == NULL)
        status =
            strata_fail(&error, STRATA_E_NOMEM, ENOMEM, "memory for the samples: none left");
    strata_json *document = strata_bench_document("adam");
    strata_json *lists[2] = {strata_json_array(), strata_json_array()};
    for (uint32_t i = 0; i < options->size_count && status == STRATA_OK; i++)
        status = run_size(options, options->sizes[i], table, lists, &error);
    strata_json_set_uint(document, "repetitions", options->repetitions);
    strata_json_set(document, "variants", lists[0]);
    strata_json_set(document, "ratios", lists[1]);
    free(table);
    if (status == STRATA_OK)
        return strata_bench_finish(&options->output, document);
    strata_json_free(document);
    return strata_bench_fail("adam", &error);
}

/* May be given several times. Parsed as a double, so that "1e8" works. */
static strata_status take_params(void *target, const struct option_row *row, const char *text,
                                 strata_error *error)
{
    struct adam_options *options = target;
    double value;
    if (!strata_real_number(text, &value) || value < 1 || value > MAX_PARAMS ||
        options->size_count == MAX_SIZES)
        return strata_option_refuse(row, text,
                                    "give numbers from 1 to 1e10, four times at most", error);
    options->sizes[options->size_count++] = (uint64_t)value;
    return STRATA_OK;
}

#define FIELD(member) offsetof(struct adam_options, member)

static const struct option_row rows[] = {
    OWN("params", "N", take_params,
        "up to four sizes (1e8, which is in memory, and 1e6, in cache)"),
    REPETITIONS_ROW("of all ways, in turn (7)"),
    OUTPUT_ROWS,
};

static const struct command_line line = COMMAND_LINE("adam", NULL);

enum bench_exit strata_bench_adam(int argc, char **argv)
{
    struct adam_options options = {.repetitions = DEFAULT_REPETITIONS};
    enum bench_exit result;
    if (!strata_bench_options(&result, &line, &options, argc, argv))
        return result;
    if (options.size_count == 0) {
        options.sizes[options.size_count++] = 100000000;
        options.sizes[options.size_count++] = 1000000;
    }
    return run_all(&options);
}
