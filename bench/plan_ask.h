#ifndef STRATA_BENCH_PLAN_ASK_H
#define STRATA_BENCH_PLAN_ASK_H

/*
 * A question to the planner and its answer: does a model fit a machine, and how fast is a step?
 *
 * An answer is the plan that offload-train would make on that machine, by the same code
 * (engine/planning.h) and exact to the byte, and a simulation of the schedule that would run.
 *
 * Thread: any.
 */

#include "base/json.h"
#include "bench/catalogue.h"
#include "strata/engine.h"

struct question {
    const char *model;
    uint32_t seq;
    uint32_t batch;       /* sequences of a step, over all GPUs */
    uint32_t micro_batch; /* 0: chosen */
    uint32_t vocab_slices;
    const char *trace; /* NULL: none; the simulated steps as a Chrome trace */
    struct machine machine;
};

struct answer {
    bool fits;
    char why_not[256];
    strata_plan plan;
    strata_forecast forecast;
    double tokens_per_s;
    double share_of_peak; /* model FLOP/s over the datasheet's; 0: unknown GPU */
    double write_bytes;   /* bytes of a step, on all drives */
};

/* An invalid model is an error; a model that does not fit is an answer. */
strata_status strata_plan_ask(struct answer *out, const struct question *question,
                              strata_error *error);

/* The same for a model that is described already; only plan and forecast are filled in.
 * reserved_bytes: what the trainer reserves. compute_s: by use; NULL: from FLOPs, at the rate
 * of products. STRATA_E_NOMEM: the model does not fit. */
strata_status strata_plan_ask_model(struct answer *out, const strata_model_desc *model,
                                    uint64_t reserved_bytes, const double *compute_s,
                                    const struct question *question, strata_error *error);

/* A row of a table: the question with something changed. */
struct row {
    char what[80];
    struct question question;
    struct answer answer;
    strata_status status;
    strata_error error;
};

/* Answer all rows, each independent of the others. Returns the failure of the first row that
 * failed. */
strata_status strata_plan_ask_all(struct row *list, uint32_t count, strata_error *error);

/* The answer as an object of a document. */
strata_json *strata_plan_answer_json(const struct answer *answer);

#endif
