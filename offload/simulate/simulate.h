#ifndef STRATA_OFFLOAD_SIMULATE_H
#define STRATA_OFFLOAD_SIMULATE_H

/*
 * The schedule on a virtual clock: what a step of this plan will cost on that machine.
 *
 * Another driver of offload/schedule/schedule.h beside the pager, so what is predicted is the
 * order that will run. An op takes its lane's time for its bytes; ops that run at once share
 * what they share (strata/profile.h) as fluids do: whenever one starts or ends, the rates of
 * the others change. The caller asks along the use list and computes what the list's FLOPs
 * take.
 *
 * Steps are taken until lanes and caches of work are in their stride, then measured.
 *
 * Thread: one per object.
 */

#include "offload/schedule/op_trace.h"
#include "strata/profile.h"

/* When the caller begins a step, given the one before. Training programs wait for the norm: it
 * is what they print. Waiting for updates is what others do; it is here to be compared with. */
enum step_begin { STEP_AT_ONCE, STEP_AFTER_NORM, STEP_AFTER_UPDATES };

struct simulate_desc {
    const struct offload_plan *plan; /* borrowed */
    struct schedule *schedule;       /* of that plan, before start; borrowed, and used up */
    const strata_profile *profile;   /* borrowed */
    const double *compute_s;         /* NULL: from FLOPs; by use, before the next; borrowed */
    enum step_begin begins;
    uint32_t commit_every; /* durable plans; 0: never */
    uint32_t warm_steps;   /* not measured; at least 1 */
    uint32_t steps;        /* measured; at least 1 */
    double jitter;         /* ops take 1 +- jitter of their time; below 1 */
    uint64_t seed;
    struct trace *trace;  /* NULL: none; borrowed */
    enum verdict verdict; /* of every step; NONE: within */
    /* NULL: not called. Called with every op as it is started */
    void (*note)(void *user, const struct op *op);
    void *note_user;
};

/* Days, as in strata_forecast: its step and its bytes on the profile's drives. */
double strata_drive_days(const strata_profile *profile, const strata_forecast *forecast);

struct simulation;

/* Takes its arrays from tables, whose owner frees them; nothing is taken afterwards. */
strata_status strata_simulation_create(struct simulation **out, struct tables *tables,
                                       const struct simulate_desc *desc, strata_error *error);

/* Once. STRATA_E_STATE: the schedule came to a halt; it must not. */
strata_status strata_simulation_run(struct simulation *simulation, strata_forecast *out,
                                    strata_error *error);

#endif
