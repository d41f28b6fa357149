/*
 * The gain from one more of a thing, and from other sizes of it; see plan_buy.h.
 *
 * Thread: the caller's.
 */

#include "bench/plan_buy.h"

#include "base/error.h"
#include "base/text.h"

#define SWEEP_ROWS 7

static void append_answer(strata_json *array, const struct row *row)
{
    strata_json *one = strata_plan_answer_json(&row->answer);
    strata_json_set_string(one, "what", row->what);
    strata_json_append(array, one);
}

/* Purchases: one thing more or better, all else unchanged. */

#define MAX_PURCHASES 4u

static struct row *add_purchase(struct row *list, uint32_t *count,
                                const struct question *question)
{
    struct row *row = &list[(*count)++];
    *row = (struct row){.question = *question};
    row->question.trace = NULL;
    return row;
}

static uint32_t list_purchases(struct row *list, const struct question *question)
{
    const struct machine *now = &question->machine;
    uint32_t count = 0;
    char size[16];
    struct row *row;
    if (now->host.drive_read_bytes_per_s > 0) { // a box without drives has no rates for them
        row = add_purchase(list, &count, question);
        row->question.machine.drives = now->drives > 0 ? 2 * now->drives : 1;
        snprintf(row->what, sizeof row->what, "%u drive%s instead of %u",
                 row->question.machine.drives, row->question.machine.drives > 1 ? "s" : "",
                 now->drives);
    }
    row = add_purchase(list, &count, question);
    row->question.machine.ram_bytes *= 2;
    snprintf(row->what, sizeof row->what, "%s of RAM",
             strata_format_size(row->question.machine.ram_bytes, size, sizeof size));
    if (now->gpu == NULL)
        return count;
    if (question->batch % (2 * now->gpus) == 0) {
        row = add_purchase(list, &count, question);
        row->question.machine.gpus *= 2;
        snprintf(row->what, sizeof row->what, "%u GPUs instead of %u",
                 row->question.machine.gpus, now->gpus);
    }
    const struct gpu *better = strata_gpu_after(now->gpu);
    if (better != NULL) {
        row = add_purchase(list, &count, question);
        row->question.machine.gpu = better;
        row->question.machine.device_bytes = (uint64_t)(0.9 * better->memory_bytes);
        snprintf(row->what, sizeof row->what, "%s instead of %s", better->title,
                 now->gpu->title);
    }
    return count;
}

strata_status strata_plan_weigh(FILE *out, strata_json *document,
                                const struct question *question, const struct answer *now,
                                strata_error *error)
{
    struct row list[MAX_PURCHASES];
    uint32_t count = list_purchases(list, question);
    const struct row *best = NULL;
    STRATA_TRY(strata_plan_ask_all(list, count, error));
    strata_json *array = strata_json_array();
    fprintf(out, "\n%-40s%14s%10s\n", "one thing more", "tokens/s", "factor");
    for (uint32_t i = 0; i < count; i++) {
        const struct answer *then = &list[i].answer;
        double factor = now->fits && then->fits ? then->tokens_per_s / now->tokens_per_s : 0;
        if (then->fits && (best == NULL || then->tokens_per_s > best->answer.tokens_per_s))
            best = &list[i];
        if (then->fits)
            fprintf(out, "%-40s%14.0f%10.2f\n", list[i].what, then->tokens_per_s, factor);
        else
            fprintf(out, "%-40s%14s\n", list[i].what, "does not fit");
        append_answer(array, &list[i]);
    }
    strata_json_set(document, "purchases", array);
    if (best != NULL && best->answer.tokens_per_s > 1.02 * now->tokens_per_s) {
        fprintf(out, "next best purchase: %s\n", best->what);
        strata_json_set_string(document, "next_best_purchase", best->what);
    } else {
        fputs("next best purchase: none of these; a larger batch, or nothing\n", out);
    }
    return STRATA_OK;
}

/* Seven values, from an eighth to eight times the one asked for, which is the middle row;
 * drives start at 1. */
static struct row sweep_row(const struct question *question, enum plan_sweep sweep, int index)
{
    struct row row = {.question = *question};
    struct machine *machine = &row.question.machine;
    row.question.trace = NULL;
    double factor = 1;
    for (int i = index; i < SWEEP_ROWS / 2; i++)
        factor /= 2;
    for (int i = SWEEP_ROWS / 2; i < index; i++)
        factor *= 2;
    char size[16];
    if (sweep == SWEEP_BATCH) {
        uint32_t each = (uint32_t)(factor * question->batch / machine->gpus + 0.5);
        row.question.batch = (each > 0 ? each : 1) * machine->gpus;
        snprintf(row.what, sizeof row.what, "batch %u", row.question.batch);
    } else if (sweep == SWEEP_RAM) {
        machine->ram_bytes = (uint64_t)(factor * (double)machine->ram_bytes);
        snprintf(row.what, sizeof row.what, "RAM %s",
                 strata_format_size(machine->ram_bytes, size, sizeof size));
    } else {
        machine->drives = (uint32_t)(index + 1);
        snprintf(row.what, sizeof row.what, "%u drives", machine->drives);
    }
    return row;
}

strata_status strata_plan_sweep(FILE *out, strata_json *document,
                                const struct question *question, enum plan_sweep sweep,
                                strata_error *error)
{
    struct row list[SWEEP_ROWS];
    for (int i = 0; i < SWEEP_ROWS; i++)
        list[i] = sweep_row(question, sweep, i);
    STRATA_TRY(strata_plan_ask_all(list, SWEEP_ROWS, error));
    strata_json *array = strata_json_array();
    fprintf(out, "\n%-20s%12s%14s   %s\n", "sweep", "step", "tokens/s", "bound by");
    for (int i = 0; i < SWEEP_ROWS; i++) {
        const struct answer *answer = &list[i].answer;
        if (answer->fits)
            fprintf(out, "%-20s%10.3f s%14.0f   %s\n", list[i].what, answer->forecast.step_s,
                    answer->tokens_per_s, strata_lane_name(answer->forecast.bottleneck));
        else
            fprintf(out, "%-20s%12s%14s   %.60s\n", list[i].what, "-", "-", answer->why_not);
        append_answer(array, &list[i]);
    }
    strata_json_set(document, "sweep", array);
    return STRATA_OK;
}
