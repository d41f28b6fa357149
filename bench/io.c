#define _GNU_SOURCE
/*
 * offload-bench io: the cost of the store. Sequential reads, writes and both at once run in
 * turn through the store and by a bare loop with the same requests (rig/io_rig.h).
 *
 * Timed: passes over all places, each from its first request to its last completion. Not
 * timed: creating the file, writing every place once, and the first bare read, which is cold.
 * Drives and the layers above them change within minutes, so figures of different times are
 * not compared: a repetition measures every kind in all ways, one right after the other, and
 * repetitions take turns in which goes first. Shares are medians of the ratios within a
 * repetition. The store verifies everything that it reads here, as always.
 *
 * The bare loop is the io_uring backend without the layers above it (io_rig.h). A second loop
 * written for this purpose would be another program, and only one file uses liburing.
 *
 * Two numbers need an explanation. The mix factor is the rate of reads and writes at once over
 * the rate of the same one after the other: 1 means that they share the drive, 2 that neither
 * slows the other. The regime compares the first read with the later ones: if these are much
 * faster, something above the drive caches the file, and no rate here is the drive's. The file
 * has just been written, so a cache that keeps written data makes the first read fast too, and
 * the test does not notice. Only a size beyond that cache shows it.
 *
 * Thread: one, and the store's.
 */

#include "bench/commands.h"

#include "bench/rig/io_rig.h"
#include "bench/options.h"
#include "base/text.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/utsname.h>

#define DEFAULT_BYTES       ((uint64_t)1 << 30)
#define DEFAULT_REPETITIONS 5u
#define GIB                 1073741824.0

/* If later reads are so many times as fast as the first, the file is cached. Without a cache,
 * rates of one kind differed by up to 1.3. */
#define CACHED_RATIO 1.4

/* Hashing alone is measured on a piece that stays in the second-level cache. */
#define CACHE_BYTES ((size_t)256 << 10)
/* How often each piece is hashed; it is in the cache from the second time on. */
#define CACHE_TIMES 16u

struct io_options {
    const char *dir;
    uint64_t bytes;
    uint32_t repetitions;
    struct bench_output output;
};

/* One kind over all repetitions; rates in GB/s (10^9), CPU in ms per GiB. */
struct kind_result {
    struct bench_spread bare;
    struct bench_spread store;
    struct bench_spread share;       /* store over bare */
    struct bench_spread plain_share; /* the same without checksums */
    struct bench_spread bare_cpu;
    struct bench_spread store_cpu;
    struct bench_spread plain_cpu;  /* of the store without checksums */
    struct bench_spread plain_more; /* the same over the CPU of the bare loop */
    struct bench_spread hash_cpu;   /* CPU of the checksums: with them less without */
};

struct io_result_set {
    struct io_sample samples[IO_KIND_COUNT][IO_WAY_COUNT][BENCH_MAX_SAMPLES];
    double cache_ms[BENCH_MAX_SAMPLES];  /* hash alone, per GiB */
    double memory_ms[BENCH_MAX_SAMPLES]; /* likewise, for bytes that are not in a cache */
    double first_s;                      /* the first read */
    struct kind_result kinds[IO_KIND_COUNT];
    struct bench_spread cache;
    struct bench_spread memory;
    struct bench_spread mix;
    double cached_ratio; /* later reads over the first */
};

static const char *const kind_names[] = {"read", "write", "mixed"};

/* Hash all bytes of the buffers, piece by piece, each piece `times` times. ms per GiB. */
static double hash_alone(const struct io_rig *rig, size_t piece, uint32_t times)
{
    uint64_t bytes = rig->buffers.bytes / times;
    volatile uint64_t sink = 0;
    double cpu_s = strata_bench_thread_cpu_s();
    for (uint64_t at = 0; at + piece <= bytes; at += piece)
        for (uint32_t i = 0; i < times; i++)
            sink += strata_hash(rig->buffers.base + at, piece, i).low;
    return (strata_bench_thread_cpu_s() - cpu_s) * 1e3 * GIB / (double)rig->buffers.bytes;
}

/* Measure all kinds in all ways; the ways take turns in going first. */
static strata_status run_io_repetition(struct io_rig *rig, uint32_t index,
                                       struct io_result_set *out, strata_error *error)
{
    strata_status status = STRATA_OK;
    for (uint32_t i = 0; i < IO_KIND_COUNT * IO_WAY_COUNT && status == STRATA_OK; i++) {
        uint32_t kind = i / IO_WAY_COUNT;
        uint32_t way = (index + i) % IO_WAY_COUNT;
        status = strata_bench_rig_pass(rig, (enum io_kind)kind, (enum io_way)way,
                                       &out->samples[kind][way][index], error);
    }
    out->cache_ms[index] = hash_alone(rig, CACHE_BYTES, CACHE_TIMES);
    out->memory_ms[index] = hash_alone(rig, RIG_PLACE_BYTES, 1);
    return status;
}

static strata_status measure_io(struct io_rig *rig, const struct io_options *options,
                                struct io_result_set *out, strata_error *error)
{
    struct io_sample first;
    strata_status status = strata_bench_rig_pass(rig, KIND_READ, WAY_BARE, &first, error);
    out->first_s = first.seconds;
    for (uint32_t i = 0; i < options->repetitions && status == STRATA_OK; i++)
        status = run_io_repetition(rig, i, out, error);
    return status;
}

static void evaluate_kind(struct io_result_set *set, int kind, double bytes, uint32_t count)
{
    double values[9][BENCH_MAX_SAMPLES];
    const double per_gib = 1e3 * GIB / bytes;
    for (uint32_t i = 0; i < count; i++) {
        const struct io_sample *bare = &set->samples[kind][WAY_BARE][i];
        const struct io_sample *plain = &set->samples[kind][WAY_PLAIN][i];
        const struct io_sample *store = &set->samples[kind][WAY_STORE][i];
        values[0][i] = bytes / bare->seconds * 1e-9;
        values[1][i] = bytes / store->seconds * 1e-9;
        values[2][i] = bare->seconds / store->seconds;
        values[3][i] = bare->cpu_s * per_gib;
        values[4][i] = store->cpu_s * per_gib;
        values[5][i] = plain->cpu_s * per_gib;
        values[6][i] = plain->cpu_s / bare->cpu_s;
        values[7][i] = (store->cpu_s - plain->cpu_s) * per_gib;
        values[8][i] = bare->seconds / plain->seconds;
    }
    set->kinds[kind] = (struct kind_result){
        .bare = strata_bench_spread(values[0], count),
        .store = strata_bench_spread(values[1], count),
        .share = strata_bench_spread(values[2], count),
        .bare_cpu = strata_bench_spread(values[3], count),
        .store_cpu = strata_bench_spread(values[4], count),
        .plain_cpu = strata_bench_spread(values[5], count),
        .plain_more = strata_bench_spread(values[6], count),
        .hash_cpu = strata_bench_spread(values[7], count),
        .plain_share = strata_bench_spread(values[8], count),
    };
}

static void evaluate_io_kinds(struct io_result_set *set, double bytes, uint32_t count)
{
    double mix[BENCH_MAX_SAMPLES], later[BENCH_MAX_SAMPLES];
    for (int kind = 0; kind < IO_KIND_COUNT; kind++)
        evaluate_kind(set, kind, bytes, count);
    for (uint32_t i = 0; i < count; i++) {
        double read_s = set->samples[KIND_READ][WAY_BARE][i].seconds;
        double write_s = set->samples[KIND_WRITE][WAY_BARE][i].seconds;
        mix[i] = (read_s + write_s) / 2 / set->samples[KIND_MIXED][WAY_BARE][i].seconds;
        later[i] = set->first_s / read_s;
    }
    set->mix = strata_bench_spread(mix, count);
    set->cached_ratio = strata_bench_spread(later, count).median;
    set->cache = strata_bench_spread(set->cache_ms, count);
    set->memory = strata_bench_spread(set->memory_ms, count);
}

static bool is_cached(const struct io_result_set *set)
{
    return set->cached_ratio >= CACHED_RATIO;
}

static const char *regime_text(const struct io_result_set *set)
{
    if (is_cached(set))
        return "cached above the drive: these are not the drive's rates; give a --size beyond "
               "that memory";
    return "no cache seen: the drive's own rates, or the writes before had filled a cache";
}

static void print_kind(FILE *out, const char *name, const struct kind_result *kind)
{
    fprintf(out,
            "%-6s %6.2f (%5.2f..%5.2f) %6.2f (%5.2f..%5.2f)  %5.3f (%5.3f..%5.3f)  %5.3f "
            "(%5.3f..%5.3f)\n",
            name, kind->bare.median, kind->bare.least, kind->bare.most, kind->store.median,
            kind->store.least, kind->store.most, kind->share.median, kind->share.least,
            kind->share.most, kind->plain_share.median, kind->plain_share.least,
            kind->plain_share.most);
}

static void print_cpu(FILE *out, const char *name, const struct kind_result *kind)
{
    fprintf(
        out,
        "%-6s %6.1f (%5.1f..%5.1f) %6.1f (%5.1f..%5.1f) %7.1f %12.1f  %5.2f (%4.2f..%4.2f)\n",
        name, kind->bare_cpu.median, kind->bare_cpu.least, kind->bare_cpu.most,
        kind->store_cpu.median, kind->store_cpu.least, kind->store_cpu.most,
        kind->hash_cpu.median, kind->plain_cpu.median, kind->plain_more.median,
        kind->plain_more.least, kind->plain_more.most);
}

static void print_tables(FILE *out, const struct io_result_set *set)
{
    fputs("GB/s   bare loop              store                   store / bare          without "
          "checksums\n",
          out);
    for (int i = 0; i < IO_KIND_COUNT; i++)
        print_kind(out, kind_names[i], &set->kinds[i]);
    fputs("\nCPU, ms per GiB\n"
          "       bare loop              store                checksums  without them  without "
          "/ bare\n",
          out);
    for (int i = 0; i < IO_KIND_COUNT; i++)
        print_cpu(out, kind_names[i], &set->kinds[i]);
    fprintf(
        out,
        "\nchecksum   %.1f ms per GiB in cache (%.1f..%.1f), %.1f from memory (%.1f..%.1f)\n",
        set->cache.median, set->cache.least, set->cache.most, set->memory.median,
        set->memory.least, set->memory.most);
    fprintf(out, "mix factor %.2f (%.2f..%.2f): 1: reads and writes share the drive, 2: not\n",
            set->mix.median, set->mix.least, set->mix.most);
    fprintf(out, "regime     later reads %.2f x the first: %s\n", set->cached_ratio,
            regime_text(set));
}

/* The name of a file system by its number, for those on which stores were seen. */
static const char *file_system_name(const char *dir)
{
    static const struct {
        long type;
        const char *name;
    } known[] = {{0xef53, "ext4"},      {0x58465342, "xfs"},     {0x9123683e, "btrfs"},
                 {0x01021994, "tmpfs"}, {0x794c7630, "overlay"}, {0x6969, "nfs"}};
    struct statfs facts;
    if (statfs(dir, &facts) != 0)
        return "unknown";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].type == (long)facts.f_type)
            return known[i].name;
    return "other";
}

static void print_setting(FILE *out, const struct io_options *options, const struct io_rig *rig)
{
    char size[16];
    strata_format_size(rig->place_count * RIG_PLACE_BYTES, size, sizeof size);
    fprintf(out,
            "%s: %s, %s, %s; %s in places of 16 MiB, requests of 4 MiB, %u in flight, %s, "
            "%s\n"
            "%u repetitions, median (least..most)\n\n",
            options->dir, file_system_name(options->dir), strata_store_backend_name(rig->store),
            strata_store_is_direct(rig->store) ? "O_DIRECT" : "page cache", size, RIG_DEPTH,
            rig->buffers.huge ? "huge pages" : "no huge pages",
            strata_store_is_registered(rig->store) ? "registered" : "not registered",
            options->repetitions);
}

static strata_json *json_kind(const struct kind_result *kind)
{
    strata_json *object = strata_json_object();
    strata_bench_set_spread(object, "bare_gb_per_s", &kind->bare);
    strata_bench_set_spread(object, "store_gb_per_s", &kind->store);
    strata_bench_set_spread(object, "share_of_bare", &kind->share);
    strata_bench_set_spread(object, "share_of_bare_without_checksums", &kind->plain_share);
    strata_bench_set_spread(object, "bare_cpu_ms_per_gib", &kind->bare_cpu);
    strata_bench_set_spread(object, "store_cpu_ms_per_gib", &kind->store_cpu);
    strata_bench_set_spread(object, "checksum_cpu_ms_per_gib", &kind->hash_cpu);
    strata_bench_set_spread(object, "store_cpu_without_checksums_ms_per_gib", &kind->plain_cpu);
    strata_bench_set_spread(object, "cpu_without_checksums_over_bare", &kind->plain_more);
    return object;
}

static strata_json *json_io_setting(const struct io_options *options, const struct io_rig *rig)
{
    struct utsname name = {.release = "unknown"};
    strata_json *object = strata_json_object();
    (void)uname(&name); /* on failure the name stays empty */
    strata_json_set_string(object, "kernel", name.release);
    strata_json_set_string(object, "directory", options->dir);
    strata_json_set_string(object, "file_system", file_system_name(options->dir));
    strata_json_set_string(object, "io", strata_store_backend_name(rig->store));
    strata_json_set_bool(object, "direct", strata_store_is_direct(rig->store));
    strata_json_set_bool(object, "huge_pages", rig->buffers.huge);
    strata_json_set_bool(object, "registered", strata_store_is_registered(rig->store));
    strata_json_set_uint(object, "bytes", rig->place_count * RIG_PLACE_BYTES);
    strata_json_set_uint(object, "place_bytes", RIG_PLACE_BYTES);
    strata_json_set_uint(object, "request_bytes", RIG_REQUEST_BYTES);
    strata_json_set_uint(object, "depth", RIG_DEPTH);
    strata_json_set_uint(object, "repetitions", options->repetitions);
    return object;
}

static strata_json *make_io_document(const struct io_options *options, const struct io_rig *rig,
                                     const struct io_result_set *set)
{
    strata_json *document = strata_bench_document("io");
    strata_json_set(document, "setting", json_io_setting(options, rig));
    for (int i = 0; i < IO_KIND_COUNT; i++)
        strata_json_set(document, kind_names[i], json_kind(&set->kinds[i]));
    strata_bench_set_spread(document, "checksum_in_cache_ms_per_gib", &set->cache);
    strata_bench_set_spread(document, "checksum_from_memory_ms_per_gib", &set->memory);
    strata_bench_set_spread(document, "mix_factor", &set->mix);
    strata_json_set_number(document, "later_reads_over_first", set->cached_ratio);
    strata_json_set_string(document, "regime", is_cached(set) ? "cached" : "no cache seen");
    return document;
}

static enum bench_exit report_io(const struct io_options *options, const struct io_rig *rig,
                                 struct io_result_set *set)
{
    FILE *out = options->output.json ? stderr : stdout;
    evaluate_io_kinds(set, (double)rig->place_count * (double)RIG_PLACE_BYTES,
                      options->repetitions);
    print_setting(out, options, rig);
    print_tables(out, set);
    strata_json *document = make_io_document(options, rig, set);
    return strata_bench_finish(&options->output, document);
}

#define FIELD(member) offsetof(struct io_options, member)

static const struct option_row rows[] = {
    VALUE("store", OPTION_TEXT, "DIR", dir,
          "where; its file has no name and is gone at the end (.)"),
    VALUE("size", OPTION_SIZE, "SIZE", bytes, "bytes moved in each pass (1G)"),
    REPETITIONS_ROW("of 9 passes each (5)"),
    OUTPUT_ROWS,
};

static const struct command_line line = COMMAND_LINE("io", NULL);

enum bench_exit strata_bench_io(int argc, char **argv)
{
    struct io_options options = {
        .dir = ".", .bytes = DEFAULT_BYTES, .repetitions = DEFAULT_REPETITIONS};
    enum bench_exit result;
    if (!strata_bench_options(&result, &line, &options, argc, argv))
        return result;
    strata_error error = {.status = STRATA_OK};
    struct io_rig rig;
    struct io_result_set *set = calloc(1, sizeof *set);
    if (set == NULL) {
        fputs("offload-bench io: memory for the samples: none left\n", stderr);
        return BENCH_FAILED;
    }
    strata_status status = strata_bench_rig_open(&rig, options.dir, options.bytes, &error);
    if (status == STRATA_OK)
        status = measure_io(&rig, &options, set, &error);
    result =
        status == STRATA_OK ? report_io(&options, &rig, set) : strata_bench_fail("io", &error);
    strata_bench_rig_close(&rig);
    free(set);
    return result;
}
