#ifndef STRATA_TRAIN_REPORT_H
#define STRATA_TRAIN_REPORT_H

/*
 * The output of a run for people: the first lines, the plan as a table, a live line while it
 * trains, the tables at the end; and the same for programs, as one JSON document.
 *
 * On a terminal the live line is one line on stderr, redrawn after every step and cut to the
 * terminal's width. It changes no mode of the terminal, so nothing needs to be restored if the
 * program is killed: a newline ends it. Elsewhere a plain line comes about ten times in a run.
 *
 * Thread: one per object.
 */

#include <stdio.h>

#include "train/trainer.h"

struct report {
    FILE *out;      /* tables and first lines; NULL: none                */
    bool live;      /* a live line: stderr is a terminal, and not quiet  */
    bool plain;     /* plain lines instead                               */
    bool blocks;    /* the terminal shows UTF-8, so bars are block signs */
    bool line_open; /* a live line is on the screen                      */
    uint64_t steps;
    uint64_t resumed; /* steps that earlier runs did        */
    double mean_s;    /* of a step; recent steps weigh more */
    double first_loss;
    double last_loss;
    double seconds;           /* all steps of this run */
    struct trainer_step last; /* its step is 0: none yet */
};

void strata_report_begin(struct report *report, const struct options *options);

/* Print the device and why it was chosen, the durability, the model and the data. */
void strata_report_first_lines(const struct report *report, const struct trainer *trainer);
void strata_report_plan(const struct report *report, const strata_plan *plan);
/* False for a tier without a limit: the run does not have it. */
bool strata_report_has_tier(const strata_plan *plan, int tier);
/* Print only the plan's table of tiers. */
void strata_report_tiers(FILE *out, const strata_plan *plan);
/* Print how the store is accessed, whether pages are huge, and where a resumed run
 * continues. */
void strata_report_started(struct report *report, struct trainer *trainer);

/* After a step: draw the live line or print a plain one. Allocates nothing. */
void strata_report_step(struct report *report, const struct trainer_step *step);

/* End the live line, if one is open. Also for the way out after an error. */
void strata_report_end_line(struct report *report);

/* Print the tables at the end. */
void strata_report_tables(const struct report *report, const strata_plan *plan);

/*
 * Write the document, to stdout with --json, to a file with -o: the plan, and the results of
 * all steps, those of this run and of the runs that it continues. state_hash may be NULL.
 * STRATA_E_IO, STRATA_E_NOMEM.
 */
strata_status strata_report_json(const struct report *report, const struct trainer *trainer,
                                 const char *state_hash, strata_error *error);

/*
 * Write the live line for a terminal of `columns`, without a newline, into buffer; returns its
 * length in bytes. It is never wider than columns - 1.
 */
size_t strata_report_live_text(const struct report *report, const struct trainer_step *step,
                               uint32_t columns, char *buffer, size_t buffer_bytes);

#endif
