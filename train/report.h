#ifndef STRATA_TRAIN_REPORT_H
#define STRATA_TRAIN_REPORT_H

/*
 * What a run says to people: the first lines, the plan as a table, a live line while it trains,
 * the tables at the end; and for programs the same as one JSON document.
 *
 * On a terminal the live line is one line on stderr, drawn over itself after every step and cut
 * to the terminal's width. It changes no mode of the terminal, so there is nothing to restore
 * when the program is killed: ending it is a newline. Elsewhere a plain line comes about ten
 * times in a run.
 *
 * Thread: one per object.
 */

#include <stdio.h>

#include "train/trainer.h"

struct report {
    FILE *out;      /* tables and first lines; NULL: none                 */
    bool live;      /* a live line: stderr is a terminal, and not quiet   */
    bool plain;     /* plain lines instead                                */
    bool blocks;    /* the terminal shows UTF-8, so bars are block signs  */
    bool line_open; /* the cursor stands behind a live line               */
    uint64_t steps;
    uint64_t resumed; /* steps that earlier runs did                          */
    double mean_s;    /* of a step, recent ones weighing more               */
    double first_loss;
    double last_loss;
    double seconds;           /* all steps of this run */
    struct trainer_step last; /* its step: 0: none yet                        */
};

void strata_report_begin(struct report *report, const struct options *options);

/* Device and why, what is durable, model, data. */
void strata_report_first_lines(const struct report *report, const struct trainer *trainer);
void strata_report_plan(const struct report *report, const strata_plan *plan);
/* A tier without a limit is one that the run does not have. */
bool strata_report_has_tier(const strata_plan *plan, int tier);
/* Its table of tiers alone. */
void strata_report_tiers(FILE *out, const strata_plan *plan);
/* How the store is reached, whether pages are huge, where a resumed run goes on. */
void strata_report_started(struct report *report, struct trainer *trainer);

/* A step is done: draw the live line or print a plain one. Allocates nothing. */
void strata_report_step(struct report *report, const struct trainer_step *step);

/* End the live line, if one is open. Also for the way out after an error. */
void strata_report_end_line(struct report *report);

/* The tables at the end. */
void strata_report_tables(const struct report *report, const strata_plan *plan);

/*
 * The one document, on stdout with --json, to a file with -o: the plan, and the outcome of the
 * steps that were run, in this run or in those that it goes on from.
 * state_hash may be NULL. STRATA_E_IO, STRATA_E_NOMEM.
 */
strata_status strata_report_json(const struct report *report, const struct trainer *trainer,
                                 const char *state_hash, strata_error *error);

/*
 * The live line for a terminal of `columns`, without a newline, into buffer; returns its length
 * in bytes. Never wider than columns - 1.
 */
size_t strata_report_live_text(const struct report *report, const struct trainer_step *step,
                               uint32_t columns, char *buffer, size_t buffer_bytes);

#endif
