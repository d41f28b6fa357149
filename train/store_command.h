#ifndef STRATA_TRAIN_STORE_COMMAND_H
#define STRATA_TRAIN_STORE_COMMAND_H

/*
 * The commands of offload-train that handle a store instead of training: --list, --scrub,
 * --drop.
 *
 * Lines for people go to stdout. With --json the document goes to stdout and the lines to
 * stderr. With --quiet only damage and errors are printed.
 *
 * Thread: one.
 */

#include "train/options.h"

/* options->command must not be STORE_NONE. STRATA_E_CORRUPT: damage was found and printed. */
strata_status strata_store_command(const struct options *options, strata_error *error);

#endif
