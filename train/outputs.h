#ifndef STRATA_TRAIN_OUTPUTS_H
#define STRATA_TRAIN_OUTPUTS_H

/*
 * Where a run's outputs (--log, --trace and -o) may go: not over each other, and not over
 * anything that the run reads.
 *
 * Thread: any.
 */

#include "train/options.h"

/*
 * These are checked before anything else, so that a run that is refused has made nothing.
 * NULL: the path was not given.
 *
 * STRATA_E_INVALID, STRATA_E_IO: see strata_output_check().
 */
struct outputs {
    const char *data;
    const char *model; /* a name, a config.json, or a folder: then everything in it */
    const char *box;
    const char *log;
    const char *trace;
    const char *document;
};
strata_status strata_outputs_check(const struct outputs *outputs, strata_error *error);

/* Check the outputs of offload-train's command line. */
strata_status strata_outputs_check_options(const struct options *options, strata_error *error);

#endif
