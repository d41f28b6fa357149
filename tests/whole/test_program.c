#define _GNU_SOURCE
/*
 * The programs as a user meets them: what they print where, what the log holds, how they stop.
 */

#include "tests/support/workshop.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SMALL                                                                                  \
    "--data text --model config.json --seq 32 --batch 2 --device-mem 16M --host-mem 64M "      \
    "--tile 16384 --io threads --allow buffered-io "
#define PAGED                                                                                  \
    "--params nvme --grads host --states nvme --stash host --store store --durability none "

#if defined(__SANITIZE_ADDRESS__)
#    define SANITIZED true
#else
#    define SANITIZED false
#endif

TestSuite(program, .init = make_workshop, .fini = remove_workshop);

Test(program, help_and_version_go_to_stdout)
{
    train("--help", 0);
    cr_assert_not_null(strstr(result.out, "--device-mem SIZE"));
    cr_assert_str_eq(result.err, "");
    train("--version", 0);
    cr_assert_str_eq(result.out, "offload-train " STRATA_VERSION_STRING "\n");
    bench("--help", 0);
    cr_assert_not_null(strstr(result.out, "check"));
    bench("--version", 0);
    cr_assert_str_eq(result.out, "offload-bench " STRATA_VERSION_STRING "\n");
    bench("check --help", 0);
    cr_assert_not_null(strstr(result.out, "--store DIR"));
}

Test(program, the_first_line_says_which_device_and_what_is_durable)
{
    train(SMALL "--steps 1", 0);
    char *end = strchr(result.out, '\n');
    cr_assert_not_null(end);
    *end = '\0';
    cr_assert_not_null(strstr(result.out, "device host"), "%s", result.out);
    cr_assert_not_null(strstr(result.out, "nothing is durable: no --store"), "%s", result.out);
    train(SMALL PAGED "--steps 1", 0);
    cr_assert_not_null(strstr(result.out, "store in store is scratch and is removed"), "%s",
                       result.out);
    const char *const durable[] = {"--commit-every 3", "--durability process"};
    const char *const says[] = {"; commits every 3 steps in store\n",
                                "; commits every 10 steps in store, durable while the machine "
                                "has power\n"};
    for (int i = 0; i < 2; i++) {
        char words[512];
        snprintf(words, sizeof words, SMALL "--store store --dry-run %s", durable[i]);
        train(words, 0);
        cr_assert_not_null(strstr(result.out, says[i]), "%s", result.out);
    }
    train(SMALL "--params nvme --states nvme --store store --dry-run", 0);
    cr_assert_not_null(strstr(result.out, "; commits every 1 step in store\n"), "%s",
                       result.out);
}

/* A folder's weights are not read: nobody is to believe that they were. */
Test(program, the_first_lines_say_where_the_weights_are_from)
{
    char from[sizeof dir.path + 64];
    char to[sizeof dir.path + 64];
    train(SMALL "--dry-run --seed 7", 0);
    cr_expect_not_null(strstr(result.out, "\nweights random, seed 7\n"), "%s", result.out);
    snprintf(to, sizeof to, "%s/folder", dir.path);
    cr_assert_eq(mkdir(to, 0700), 0);
    snprintf(from, sizeof from, "%s/config.json", dir.path);
    snprintf(to, sizeof to, "%s/folder/config.json", dir.path);
    cr_assert_eq(link(from, to), 0);
    train(SMALL "--dry-run --model folder", 0);
    cr_expect_not_null(strstr(result.out, "\nweights random, seed 0\n"), "%s", result.out);
    snprintf(to, sizeof to, "%s/folder/model-00001-of-00002.safetensors", dir.path);
    close(open(to, O_WRONLY | O_CREAT, 0600));
    train(SMALL "--dry-run --model folder", 0);
    cr_expect_not_null(strstr(result.out, "; those in folder are not read by this version\n"),
                       "%s", result.out);
}

Test(program, a_dry_run_prints_the_plan_and_makes_nothing)
{
    train(SMALL PAGED "--dry-run --log new.jsonl", 0);
    cr_assert_not_null(strstr(result.out, "what rests there"));
    cr_assert_not_null(strstr(result.out, "\nnvme "));
    cr_assert_str_eq(result.err, "");
    cr_assert_not(strata_workshop_has(&dir, "new.jsonl"));
    cr_assert_eq(strata_workshop_store_count(&dir), 0);
}

Test(program, a_run_ends_with_tables_of_tiers_and_lanes)
{
    train(SMALL PAGED "--steps 3", 0);
    const char *const parts[] = {"peak used", "\ndevice ",    "\nhost ",       "\nnvme ",
                                 "busy",      "\nnvme_read ", "\nnvme_write ", "\nh2d ",
                                 "\nd2h ",    "\ncpu ",       "\ncompute ",    "at step 1, ",
                                 "at step 3"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        cr_assert_not_null(strstr(result.out, parts[i]), "stdout lacks '%s'", parts[i]);
}

Test(program, away_from_a_terminal_a_line_comes_every_tenth_of_the_run)
{
    train(SMALL "--steps 40", 0);
    int lines = 0;
    for (const char *at = result.err; (at = strstr(at, "step ")) != NULL; at++)
        lines += at == result.err || at[-1] == '\n';
    cr_assert_eq(lines, 11, "%s", result.err);
    cr_assert_null(strchr(result.err, '\r'));
    cr_assert_null(strchr(result.err, '\033'));
}

Test(program, quiet_says_nothing)
{
    train(SMALL "--steps 3 --quiet", 0);
    cr_assert_str_eq(result.out, "");
    cr_assert_str_eq(result.err, "");
}

Test(program, json_is_one_document_on_stdout)
{
    train(SMALL PAGED "--steps 3 --json --hash-state", 0);
    strata_json *document = strata_parse(result.out, strlen(result.out));
    const strata_json *outcome = NULL;
    cr_assert_eq(strata_json_get_object(document, "result", &outcome, NULL), STRATA_OK);
    cr_assert_eq(strata_number(outcome, "steps"), 3);
    cr_assert(strata_json_has(outcome, "state_hash"));
    cr_assert_not_null(strstr(result.err, "peak used"));
    strata_json_free(document);
}

/* Check every line of a log; returns how many there are. hash: only the last one has it. */
static int check_log(const char *name, bool hash)
{
    static char text[1 << 20];
    int lines = 0;
    cr_assert(strata_workshop_read(&dir, name, text, sizeof text));
    for (char *line = text; *line != '\0';) {
        char *end = strchr(line, '\n');
        cr_assert_not_null(end, "the log ends within a line");
        strata_json *document = strata_parse(line, (size_t)(end - line));
        cr_assert_eq(strata_number(document, "step"), ++lines);
        cr_assert_gt(strata_number(document, "loss"), 0);
        cr_assert_gt(strata_number(document, "step_s"), 0);
        cr_assert_leq(strata_number(document, "exposed_s"), strata_number(document, "step_s"));
        cr_assert_leq(strata_number(document, "device_peak_bytes"), 16 << 20);
        cr_assert_leq(strata_number(document, "host_peak_bytes"), 64 << 20);
        cr_assert_eq(strata_json_has(document, "state_hash"), hash && end[1] == '\0');
        strata_json_free(document);
        line = end + 1;
    }
    return lines;
}

Test(program, the_log_has_a_line_for_every_step_and_the_hash_in_the_last)
{
    train(SMALL PAGED "--steps 7 --log new.jsonl --hash-state --quiet", 0);
    cr_assert_eq(check_log("new.jsonl", true), 7);
    train(SMALL PAGED "--steps 5 --log new.jsonl --quiet", 0);
    cr_assert_eq(check_log("new.jsonl", false), 5, "an older log was not replaced");
}

Test(program, warmup_and_schedule_show_in_the_log)
{
    static char text[16384];
    train(SMALL "--steps 4 --lr 1e-3 --warmup 2 --lr-schedule linear --log new.jsonl --quiet",
          0);
    cr_assert(strata_workshop_read(&dir, "new.jsonl", text, sizeof text));
    const double rates[] = {5e-4, 1e-3, 5e-4, 0};
    char *line = text;
    for (int i = 0; i < 4; i++) {
        char *end = strchr(line, '\n');
        strata_json *document = strata_parse(line, (size_t)(end - line));
        cr_assert_float_eq(strata_number(document, "lr"), rates[i], 1e-15);
        strata_json_free(document);
        line = end + 1;
    }
}

static void stop_with(int number_of_signal)
{
    strata_workshop_remove(&dir, "new.jsonl");
    pid_t process = strata_program_start(
        &dir, strata_train_program(),
        SMALL PAGED "--steps 1000000 --log new.jsonl --hash-state --quiet");
    cr_assert_geq(strata_program_wait_lines(&dir, process, "new.jsonl", 1), 1);
    kill(process, number_of_signal);
    cr_assert_eq(strata_program_wait(process), 128 + number_of_signal);
    cr_assert_geq(check_log("new.jsonl", true), 1);
    cr_assert_eq(strata_workshop_store_count(&dir), 0);
}

Test(program, a_signal_ends_the_run_after_the_step_with_a_whole_last_line)
{
    stop_with(SIGINT);
    stop_with(SIGTERM);
}

/* Held in a place where no step has begun: reading a pipe that nobody writes to. */
Test(program, a_signal_before_the_first_step_ends_the_run_at_once)
{
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/box.json", dir.path);
    cr_assert_eq(mkfifo(path, 0600), 0);
    pid_t process = strata_program_start(&dir, strata_train_program(),
                                         SMALL "--box box.json --log old.jsonl");
    int pipe;
    while ((pipe = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC)) < 0) {
        cr_assert_eq(errno, ENXIO); // it has not opened the pipe yet
        usleep(1000);
    }
    kill(process, SIGINT);
    cr_assert_eq(strata_program_wait(process), 128 + SIGINT);
    close(pipe);
    char text[256];
    cr_assert(strata_workshop_read(&dir, "old.jsonl", text, sizeof text));
    cr_assert_str_eq(text, WORKSHOP_OLD_LOG);
}

Test(program, what_a_stopped_run_logged_is_what_a_shorter_run_logs)
{
    stop_with(SIGINT);
    int steps = check_log("new.jsonl", true);
    char words[1024];
    static char first[1 << 20];
    static char second[1 << 20];
    cr_assert(strata_workshop_read(&dir, "new.jsonl", first, sizeof first));
    snprintf(words, sizeof words, SMALL PAGED "--steps %d --log new.jsonl --hash-state --quiet",
             steps);
    train(words, 0);
    cr_assert(strata_workshop_read(&dir, "new.jsonl", second, sizeof second));
    const char *one = strstr(first, "state_hash");
    const char *two = strstr(second, "state_hash");
    cr_assert_not_null(one);
    cr_assert_not_null(two);
    cr_assert_str_eq(one, two);
}

Test(program, check_has_a_line_for_everything_it_looks_at)
{
    strata_program_run(&result, &dir, strata_bench_program(),
                       "check --store store --json -o check.json");
    /* What a machine lacks is not this test's business; that it is said is. */
    cr_assert(result.code == 0 || result.code == 1, "%s", result.err);
    const char *const names[] = {"kernel",     "io_uring", "direct-io", "store", "memlock",
                                 "huge-pages", "memory",   "cores",     "cpu",   "numa",
                                 "openblas",   "gpu",      "cudnn"};
    strata_json *document = strata_parse(result.out, strlen(result.out));
    const strata_json *findings = NULL;
    cr_assert_eq(strata_json_get_array(document, "findings", &findings, NULL), STRATA_OK);
    cr_assert_eq(strata_json_count(findings), sizeof names / sizeof names[0]);
    bool failed = false;
    for (size_t i = 0; i < strata_json_count(findings); i++) {
        const char *name = NULL;
        const char *level = NULL;
        const strata_json *one = strata_json_at(findings, i);
        cr_assert_eq(strata_json_get_string(one, "name", &name, NULL), STRATA_OK);
        cr_assert_eq(strata_json_get_string(one, "level", &level, NULL), STRATA_OK);
        cr_assert_not_null(strstr(result.err, name));
        failed = failed || strcmp(level, "FAIL") == 0;
        /* Whatever is not well comes with what to do about it. */
        cr_assert(strcmp(level, "OK") == 0 || strata_json_has(one, "mend"), "%s has no mend",
                  name);
    }
    cr_assert_eq(result.code, failed ? 1 : 0);
    static char file[65536];
    cr_assert(strata_workshop_read(&dir, "check.json", file, sizeof file));
    cr_assert_str_eq(file, result.out);
    cr_assert_eq(strata_workshop_store_count(&dir), 0);
    strata_json_free(document);
}

Test(program, a_trace_has_a_row_for_every_lane_and_an_update_for_every_gradient)
{
    const strata_json *events;
    strata_json *json = NULL;
    char path[PATH_MAX];
    uint32_t updates = 0;
    uint32_t rows = 0;
    train(SMALL PAGED "--steps 3 --trace trace.json --quiet", 0);
    snprintf(path, sizeof path, "%.4000s/trace.json", dir.path);
    cr_assert_eq(strata_json_read_file(&json, path, NULL), STRATA_OK);
    cr_assert_eq(strata_json_get_array(json, "traceEvents", &events, NULL), STRATA_OK);
    for (size_t i = 0; i < strata_json_count(events); i++) {
        const char *name = "";
        const char *kind = "";
        cr_assert_eq(strata_json_get_string(strata_json_at(events, i), "name", &name, NULL),
                     STRATA_OK);
        cr_assert_eq(strata_json_get_string(strata_json_at(events, i), "ph", &kind, NULL),
                     STRATA_OK);
        rows += strcmp(name, "thread_name") == 0;
        updates += strncmp(name, "update ", 7) == 0 && *kind == 'X';
    }
    cr_expect_eq(rows, 6, "%u: four lanes, and two for one drive", rows);
    cr_expect_gt(updates, 0);
    cr_expect_eq(updates % 3, 0, "%u updates of 3 steps", updates);
    strata_json_free(json);
}

Test(program, a_plan_says_what_fits_and_what_to_buy)
{
    bench("plan --model llama-70b --gpu h100 --gpus 8 --seq 4096 --batch 8 --ram 512G "
          "--nvme 8x7/5 --json",
          0);
    strata_json *json = strata_parse(result.out, strlen(result.out));
    const strata_json *answer;
    const char *text;
    bool fits = false;
    cr_assert_eq(strata_json_get_object(json, "answer", &answer, NULL), STRATA_OK);
    cr_assert_eq(strata_json_get_bool(answer, "fits", &fits, NULL), STRATA_OK);
    cr_expect(fits);
    cr_expect_gt(strata_number(answer, "tokens_per_s"), 1);
    cr_expect_gt(strata_number(answer, "days_to_rated_endurance"), 1);
    cr_expect_eq(strata_json_get_string(json, "next_best_purchase", &text, NULL), STRATA_OK);
    strata_json_free(json);
    bench("plan --model llama-70b --gpu rtx3090 --ram 64G", 1);
    cr_expect_not_null(strstr(result.out, "fits     no: "), "%s", result.out);
    bench("plan --gpu rtx2080", 2);
    bench("ops --dry --gpu h200 --model llama-7b --seq 4096 --tokens 16384 --json", 0);
    bench("ops --dry --gpu rtx2080", 2);
    bench("ops --dry --seq 4096 --tokens 6000", 2);
    bench("ops --gpu h200", 2);
    bench("ops --dry --device host", 2);
    bench("ops --device host --model config.json --seq 8 --tokens 32", 0);
    bench("plan --nvme many", 2);
    bench("plan --model llama-1b --sweep batch --nvme 2x7", 0);
    cr_expect_not_null(strstr(result.out, "commits "), "%s", result.out);
    cr_expect_not_null(strstr(result.out, "batch 128"), "%s", result.out);
}

static void bench_ended_by(const char *words, int number_of_signal)
{
    pid_t process = strata_program_start(&dir, strata_bench_program(), words);
    strata_program_wait_catches(process, number_of_signal);
    while (strata_workshop_store_count(&dir) == 0)
        usleep(1000);
    kill(process, number_of_signal);
    cr_assert_eq(strata_program_wait(process), 128 + number_of_signal, "%s", words);
    cr_assert_eq(strata_workshop_store_count(&dir), 0, "%s", words);
}

Test(program, a_bench_that_a_signal_ends_leaves_nothing_behind)
{
    bench_ended_by("step --store store --groups 8 --repetitions 99", SIGINT);
    bench_ended_by("run --store store --model config.json --steps 99 --seq 512 --batch 8",
                   SIGTERM);
}

Test(program, bench_adam_measures_every_variant_and_way)
{
    bench("adam --params 20000 --repetitions 1 --json", 0);
    strata_json *document = NULL;
    cr_assert_eq(strata_json_read_text(&document, result.out, strlen(result.out), NULL),
                 STRATA_OK);
    strata_json_free(document);
    static const char *const words[] = {
        "\"fp16\"",           "\"scalar\"",          "\"hashes in the pass\"",
        "\"share_of_bound\"", "\"cast_over_fused\"", "\"fp32_states_over_bf16_states\""};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        cr_assert_not_null(strstr(result.out, words[i]), "%s", words[i]);
    cr_assert_not_null(strstr(result.err, "fused, of the bound"));
}

/* All shapes, both ways, and both streams; what was measured is not judged. Its work is that of
 * OpenBLAS, which no sanitizer sees, and takes them a minute of a core. */
Test(program, bench_gemm_has_every_product_and_the_two_streams)
{
    if (SANITIZED)
        cr_skip_test("not under sanitizers");
    strata_program_run(&result, &dir, strata_bench_program(),
                       "gemm --threads 2 --repetitions 1 --json");
    cr_assert_eq(result.code, 0, "%s", result.err);
    strata_json *document = strata_parse(result.out, strlen(result.out));
    const strata_json *products = NULL;
    cr_assert_eq(strata_json_get_array(document, "products", &products, NULL), STRATA_OK);
    cr_assert_geq(strata_json_count(products), 30);
    cr_assert(strata_json_has(document, "together"));
    cr_assert_not_null(strstr(result.err, "over an even share of the work"));
    strata_json_free(document);
}

Test(program, bench_matrix_has_a_rate_for_every_dtype)
{
    bench("matrix --device host --size 64 --repetitions 1 --json", 0);
    strata_json *document = strata_parse(result.out, strlen(result.out));
    static const char *const keys[] = {"bf16_flops_per_s", "fp16_flops_per_s",
                                       "fp32_flops_per_s"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const strata_json *rate;
        cr_assert_eq(strata_json_get_object(document, keys[i], &rate, NULL), STRATA_OK);
        cr_expect_gt(strata_number(rate, "median"), 0);
    }
    strata_json_free(document);
}

/* No copy is 100 times as fast as a bare one, and none is below 0. */
/* Names that begin with what scratch directories begin with. */
static int scratch_count(void)
{
    char pattern[4200];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/offload-bench-*", dir.path);
    int count = glob(pattern, 0, NULL, &found) == 0 ? (int)found.gl_pathc : 0;
    globfree(&found);
    return count;
}

Test(program, a_run_that_is_measured_moves_the_bytes_that_were_forecast_and_leaves_nothing)
{
    bench("run " SMALL "--params host --states host --grads host --stash host --json", 0);
    cr_assert_not_null(strstr(result.err, "compute"), "%s", result.err);
    cr_expect_eq(scratch_count(), 0);
    strata_json *document = strata_parse(result.out, strlen(result.out));
    const strata_json *sides[2];
    strata_error error = {0};
    cr_expect_eq(strata_number(document, "steps_measured"), 6);
    cr_assert_eq(strata_json_get_object(document, "predicted", &sides[0], &error), STRATA_OK);
    cr_assert_eq(strata_json_get_object(document, "measured", &sides[1], &error), STRATA_OK);
    // A copy or two fall on this or that side of a step's end, as the machine's pace has it;
    // of updates, which may be done again, many.
    double bytes[2][2];
    for (int side = 0; side < 2; side++) {
        static const char *const names[] = {"h2d", "d2h"};
        const strata_json *lanes;
        const strata_json *lane;
        cr_expect_gt(strata_number(sides[side], "step_s"), 0);
        cr_assert_eq(strata_json_get_object(sides[side], "lanes", &lanes, &error), STRATA_OK);
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(strata_json_get_object(lanes, names[i], &lane, &error), STRATA_OK);
            bytes[side][i] = strata_number(lane, "bytes");
        }
    }
    for (int i = 0; i < 2; i++) {
        cr_expect_gt(bytes[0][i], 0);
        cr_expect_float_eq(bytes[1][i], bytes[0][i], 0.2 * bytes[0][i], "%d: %g and %g", i,
                           bytes[0][i], bytes[1][i]);
    }
    strata_json_free(document);
    bench("run " SMALL "--resume", 2);
    bench("run " SMALL "--steps 2", 2);
    bench("run --model nothing.json", 3);
    cr_expect_eq(scratch_count(), 0);
}

Test(program, the_document_goes_to_a_file_too)
{
    static char text[8192];
    train(SMALL "--steps 1 --quiet -o out.json", 0);
    cr_assert_str_eq(result.out, "");
    cr_assert(strata_workshop_read(&dir, "out.json", text, sizeof text));
    strata_json *document = strata_parse(text, strlen(text));
    cr_assert(strata_json_has(document, "result"));
    strata_json_free(document);
    train(SMALL "--dry-run --quiet -o nothing/out.json", 3);
    cr_assert_not_null(strstr(result.err, "nothing/out.json"), "%s", result.err);
}

Test(program, bench_copy_says_when_it_is_below_what_was_asked_for)
{
    bench("copy --device host --size 1M --repetitions 1 --least 0", 0);
    bench("copy --device host --size 1M --repetitions 1 --least 100", 4);
    cr_expect_not_null(strstr(result.err, "less than 100 of a bare copy"), "%s", result.err);
}

/* A strange option behind shows that the one before was taken: nothing is measured. */
Test(program, bench_takes_every_limit_at_its_edge_and_refuses_one_past_it)
{
    static const struct {
        const char *option;
        const char *inside[2];
        const char *outside[2];
    } ranges[] = {
        {"adam --params", {"1", "10000000000"}, {"0", "10000000001"}},
        {"adam --repetitions", {"1", "99"}, {"0", "100"}},
        {"copy --size", {"1", "9223372036854775807"}, {"0", "9223372036854775808"}},
        {"copy --repetitions", {"1", "99"}, {"0", "100"}},
        {"copy --least", {"0", "999.9"}, {"-0.1", "1000"}},
        {"gemm --threads", {"1", "4096"}, {"0", "4097"}},
        {"gemm --repetitions", {"1", "99"}, {"0", "100"}},
        {"io --size", {"1", "9223372036854775807"}, {"0", "9223372036854775808"}},
        {"io --repetitions", {"1", "99"}, {"0", "100"}},
        {"matrix --size", {"16", "32768"}, {"15", "32769"}},
        {"matrix --repetitions", {"1", "99"}, {"0", "100"}},
        {"step --groups", {"2", "10000"}, {"1", "10001"}},
        {"step --steps", {"3", "99"}, {"2", "100"}},
        {"step --repetitions", {"1", "99"}, {"0", "100"}},
        {"ops --seq", {"1", "16777216"}, {"0", "16777217"}},
        {"ops --tokens", {"1", "16777216"}, {"0", "16777217"}},
        {"plan --gpus", {"1", "16777216"}, {"0", "16777217"}},
        {"plan --seq", {"1", "16777216"}, {"0", "16777217"}},
        {"plan --batch", {"1", "16777216"}, {"0", "16777217"}},
        {"plan --micro-batch", {"1", "16777216"}, {"0", "16777217"}},
        {"plan --vocab-slices", {"1", "16777216"}, {"0", "16777217"}},
        {"plan --ram", {"1", "9223372036854775807"}, {"0", "9223372036854775808"}},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        for (int side = 0; side < 2; side++) {
            char words[128];
            snprintf(words, sizeof words, "%s %s --strange", ranges[i].option,
                     ranges[i].inside[side]);
            bench(words, 2);
            cr_expect_not_null(strstr(result.err, "unknown option --strange"), "%s: %s", words,
                               result.err);
            snprintf(words, sizeof words, "%s %s --strange", ranges[i].option,
                     ranges[i].outside[side]);
            bench(words, 2);
            cr_expect_null(strstr(result.err, "--strange"), "%s: %s", words, result.err);
            cr_expect_not_null(strstr(result.err, ranges[i].outside[side]), "%s: %s", words,
                               result.err);
            cr_expect_eq(strchr(result.err, '\n'), result.err + strlen(result.err) - 1,
                         "one line: %s", result.err);
        }
    }
}

Test(program, bench_refuses_what_it_does_not_know)
{
    bench("", 2);
    cr_assert_not_null(strstr(result.err, "give one of check"));
    bench("measure", 2);
    cr_assert_not_null(strstr(result.err, "unknown subcommand measure: give one of check"));
    bench("check --fast", 2);
    bench("check --store", 2);
    bench("check more", 2);
    bench("adam --params 0", 2);
    bench("adam --params many", 2);
    bench("adam --repetitions 100", 2);
    bench("adam here", 2);
    bench("check --store nothing", 3);
    cr_assert_not_null(strstr(result.err, "No such file"));
    bench("gemm --threads 0", 2);
    bench("gemm --threads 3x", 2);
    bench("gemm --repetitions 100", 2);
    bench("gemm --threads", 2);
    bench("gemm more", 2);
    cr_assert_str_eq(result.err, "offload-bench gemm: unknown argument more: everything is "
                                 "given by options, see --help\n");
    bench("io --size 0", 2);
    cr_assert_str_eq(result.err, "offload-bench io: --size 0: a size of nothing: give one such "
                                 "as 512M\n");
    bench("copy --device tpu", 2);
    bench("plan --gpus 2 --batch 3", 2);
    cr_assert_str_eq(result.err,
                     "offload-bench plan: --batch: the GPUs do not divide it: see --help\n");
    bench("probe --help --fast", 0);
    /* Not after half a minute of measuring. */
    bench("probe --seq 0", 2);
    bench("probe --model llama-2b", 2);
    bench("plan --model llama-2b", 2);
    cr_assert_not_null(strstr(result.err, "no such name: give a config.json or one of"));
    bench("plan --model llama-2b.json", 3);
    bench("plan --box llama-2b.json", 3);
    bench("io --store nothing", 3);
    bench("step --case usual", 2);
    cr_assert_not_null(strstr(result.err, "give one of all|nvme|balanced|compute"));
}
