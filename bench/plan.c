#define _GNU_SOURCE
/*
 * offload-bench plan: how a model would run on a machine that need not exist: whether it fits,
 * how fast a step is, what limits it, how fast the drives wear out, and what to buy next.
 *
 * Every answer is a plan by the code that plans a run, and a simulation of the schedule that
 * would run (bench/plan_ask.h): the answer to the question itself, to each row of a sweep, and
 * to each purchase, which changes one thing. Nothing is measured here, and nothing as large as
 * the model is allocated. offload-train --dry-run with the same budgets reports the same
 * bytes.
 *
 * Thread: the caller's.
 */

#include "bench/commands.h"

#include "base/text.h"
#include "bench/options.h"
#include "bench/plan_buy.h"
#include "offload/simulate/profile.h"
#include "train/decoder.h"
#include "train/report.h"

#include <stddef.h>
#include <stdio.h>

/* Rates in GB/s. */
struct drives {
    uint32_t count;
    double read_rate;
    double write_rate;
};

struct plan_options {
    struct question question; /* with the machine after all changes */
    const char *box;
    enum plan_sweep sweep;
    /* Changes to the machine of the box or of the catalogue; 0 and NULL: not given. */
    const struct gpu *gpu;
    uint32_t gpus;
    uint64_t device_bytes;
    uint64_t ram_bytes;
    struct drives drives;
    struct bench_output output;
};

static void print_machine(FILE *out, const struct machine *machine)
{
    char device[16];
    char ram[16];
    fprintf(out, "machine  %u x %s with %s, %s of RAM", machine->gpus,
            machine->gpu != NULL ? machine->gpu->title : machine->host.name,
            strata_format_size(machine->device_bytes, device, sizeof device),
            strata_format_size(machine->ram_bytes, ram, sizeof ram));
    if (machine->drives > 0)
        fprintf(out, ", %u drive%s of %.3g/%.3g GB/s", machine->drives,
                machine->drives > 1 ? "s" : "", 1e-9 * machine->host.drive_read_bytes_per_s,
                1e-9 * machine->host.drive_write_bytes_per_s);
    fputc('\n', out);
}

static void print_lanes(FILE *out, const struct answer *answer)
{
    const strata_forecast *forecast = &answer->forecast;
    char size[16];
    fprintf(out, "\n%-12s%11s%12s%8s\n", "lane", "bytes", "busy", "share");
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        fprintf(out, "%-12s%11s%10.3f s%6.1f %%\n", strata_lane_name((strata_lane)lane),
                forecast->bytes[lane] > 0
                    ? strata_format_size(forecast->bytes[lane], size, sizeof size)
                    : "-",
                forecast->busy_s[lane], 100 * forecast->busy_s[lane] / forecast->step_s);
    fputs("waits", out);
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        fprintf(out, "%s %s %.3f s", stall > 0 ? "," : "      ",
                strata_stall_name((strata_stall)stall), forecast->stall_s[stall]);
    fputc('\n', out);
}

static void print_answer(FILE *out, const struct question *question,
                         const struct answer *answer)
{
    const strata_forecast *forecast = &answer->forecast;
    char size[16];
    print_machine(out, &question->machine);
    fprintf(out, "step     %u sequences of %u tokens\n", question->batch, question->seq);
    if (!answer->fits) {
        fprintf(out, "fits     no: %s\n", answer->why_not);
        return;
    }
    fputs("fits     yes\n", out);
    fputs(question->machine.gpus > 1 ? "\nof each GPU:\n" : "\n", out);
    strata_report_tiers(out, &answer->plan);
    if (answer->plan.homes != NULL)
        fprintf(
            out,
            "homes    to RAM: %s (fastest in simulation); next best: %s, %.3f times as long\n",
            answer->plan.homes, answer->plan.next_homes, answer->plan.next_factor);
    print_lanes(out, answer);
    fprintf(out,
            "\nstep     %.3f s, %.0f tokens/s; bound by %s, which alone takes %.3f s; the "
            "longest chain takes %.3f s; the device idles %.3f s\n",
            forecast->step_s, answer->tokens_per_s, strata_lane_name(forecast->bottleneck),
            forecast->bound_s, forecast->chain_s, forecast->exposed_s);
    const struct gpu *gpu = question->machine.gpu;
    if (gpu != NULL)
        fprintf(
            out,
            "compute  %.1f %% of the datasheet's %.1f TFLOP/s, counting what the model needs "
            "once; operators as offload-bench ops expects them of a tuned trainer, products at "
            "most "
            "%.0f TFLOP/s%s\n",
            100 * answer->share_of_peak, 1e-12 * gpu->flops_per_s,
            1e-12 * gpu->product_flops_per_s,
            gpu->assumed ? ", assumed from its datasheet" : "");
    if (answer->plan.commit_every > 0)
        fprintf(out, "commits  one in %u step%s\n", answer->plan.commit_every,
                answer->plan.commit_every > 1 ? "s" : "");
    if (forecast->drive_days > 0)
        fprintf(out,
                "wear     %s written a step; the drives' rated endurance lasts %.0f days\n",
                strata_format_size((uint64_t)answer->write_bytes, size, sizeof size),
                forecast->drive_days);
}

static enum bench_exit report_plan(const struct plan_options *options)
{
    FILE *out = options->output.json ? stderr : stdout;
    strata_error error = {0};
    struct answer answer;
    const struct question *question = &options->question;
    if (strata_plan_ask(&answer, question, &error) != STRATA_OK)
        return strata_bench_fail("plan", &error);
    print_answer(out, question, &answer);
    strata_json *document = strata_bench_document("plan");
    strata_profile rank = strata_machine_rank(&question->machine);
    strata_json_set(document, "rank", strata_profile_to_json(&rank));
    strata_json_set(document, "answer", strata_plan_answer_json(&answer));
    strata_status status =
        options->sweep != SWEEP_NONE
            ? strata_plan_sweep(out, document, question, options->sweep, &error)
            : strata_plan_weigh(out, document, question, &answer, &error);
    enum bench_exit result = status != STRATA_OK ? strata_bench_fail("plan", &error)
                             : answer.fits       ? BENCH_DONE
                                                 : BENCH_FAILED;
    if (status == STRATA_OK && !strata_bench_write(&options->output, document))
        result = BENCH_FAILED;
    strata_json_free(document);
    return result;
}

/* "N x R[/W]" */
static strata_status take_drives(void *target, const struct option_row *row, const char *text,
                                 strata_error *error)
{
    struct drives drives = {0};
    int used = 0;
    bool meant = sscanf(text, "%u x %lf/%lf%n", &drives.count, &drives.read_rate,
                        &drives.write_rate, &used) == 3 &&
                 text[used] == '\0';
    if (!meant) {
        used = 0;
        meant = sscanf(text, "%u x %lf%n", &drives.count, &drives.read_rate, &used) == 2 &&
                text[used] == '\0';
        drives.write_rate = drives.read_rate;
    }
    if (!meant || drives.count == 0 || drives.count > 64 || !(drives.read_rate > 0) ||
        !(drives.write_rate > 0))
        return strata_option_refuse(row, text,
                                    "give \"N x R[/W]\" in GB/s, such as \"4 x 7/6\"", error);
    ((struct plan_options *)target)->drives = drives;
    return STRATA_OK;
}

static strata_status take_gpu(void *target, const struct option_row *row, const char *text,
                              strata_error *error)
{
    return strata_bench_take_gpu(&((struct plan_options *)target)->gpu, row, text, error);
}

static const struct choice sweep_choices[] = {
    {"batch", SWEEP_BATCH}, {"ram", SWEEP_RAM}, {"nvme", SWEEP_NVME}, {NULL, 0}};

#define FIELD(member) offsetof(struct plan_options, member)
#define BELOW_COUNT   ((1u << 24) + 1)

static const struct option_row rows[] = {
    VALUE("model", OPTION_TEXT, "NAME|FILE|DIR", question.model,
          "a name, or a Hugging Face config (llama-7b)"),
    RANGE("seq", OPTION_COUNT, "N", question.seq, 1, BELOW_COUNT,
          "tokens of a sequence (2048)"),
    RANGE("batch", OPTION_COUNT, "N", question.batch, 1, BELOW_COUNT,
          "sequences of a step, over all GPUs (16)"),
    RANGE("micro-batch", OPTION_COUNT, "N", question.micro_batch, 1, BELOW_COUNT,
          "sequences at a time (16384 tokens of a GPU)"),
    RANGE("vocab-slices", OPTION_COUNT, "N", question.vocab_slices, 1, BELOW_COUNT,
          "cut embedding and head by rows (by size)"),
    VALUE("box", OPTION_TEXT, "FILE", box, "a measured machine: offload-bench probe"),
    OWN("gpu", "NAME", take_gpu, "the box's device, else one rtx4090"),
    RANGE("gpus", OPTION_COUNT, "N", gpus, 1, BELOW_COUNT, "how many of --gpu (1)"),
    VALUE("device-mem", OPTION_SIZE, "SIZE", device_bytes,
          "of each (nine tenths of the GPU's)"),
    VALUE("ram", OPTION_SIZE, "SIZE", ram_bytes, "of the machine (128G, a server's 512G)"),
    OWN("nvme", "\"N x R[/W]\"", take_drives, "drives and their rates in GB/s (none)"),
    CHOICE("sweep", "batch|ram|nvme", sweep_choices, sweep,
           "the same question for seven values"),
    VALUE("trace", OPTION_TEXT, "FILE", question.trace,
          "the simulated steps as a Chrome trace"),
    OUTPUT_ROWS,
};

static const struct command_line line = COMMAND_LINE("plan", "\nGPUs: " GPU_NAMES "\n");

/* The machine of the box or of the catalogue, with the changes of the command line. */
static enum bench_exit settle_machine(struct plan_options *options)
{
    strata_error error = {0};
    const struct drives *drives = &options->drives;
    struct machine *machine = &options->question.machine;
    *machine =
        strata_machine_with(options->gpu != NULL ? options->gpu : strata_gpu_named("rtx4090"));
    if (options->box != NULL) {
        if (strata_profile_read_file(&machine->host, options->box, &error) != STRATA_OK)
            return strata_bench_fail("plan", &error);
        machine->gpu = options->gpu;
        machine->drives = machine->host.drives;
    }
    if (options->gpus > 0 && machine->gpu == NULL)
        return strata_bench_usage("plan", "--gpus", "of which? give --gpu NAME");
    if (options->gpus > 0)
        machine->gpus = options->gpus;
    if (options->ram_bytes > 0)
        machine->ram_bytes = options->ram_bytes;
    if (options->device_bytes > 0)
        machine->device_bytes = options->device_bytes;
    if (drives->count > 0) {
        machine->drives = drives->count;
        machine->host.drive_read_bytes_per_s = 1e9 * drives->read_rate;
        machine->host.drive_write_bytes_per_s = 1e9 * drives->write_rate;
    }
    if (options->question.batch % machine->gpus != 0)
        return strata_bench_usage("plan", "--batch", "the GPUs do not divide it");
    return BENCH_DONE;
}

enum bench_exit strata_bench_plan(int argc, char **argv)
{
    struct plan_options options = {.question = {.model = "llama-7b", .seq = 2048, .batch = 16}};
    enum bench_exit result;
    if (!strata_bench_options(&result, &line, &options, argc, argv))
        return result;
    strata_error error = {0};
    if (strata_decoder_config_check(options.question.model, &error) != STRATA_OK) {
        strata_bench_fail("plan", &error);
        return BENCH_USAGE;
    }
    result = settle_machine(&options);
    return result == BENCH_DONE ? report_plan(&options) : result;
}
