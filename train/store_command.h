#ifndef STRATA_TRAIN_STORE_COMMAND_H
#define STRATA_TRAIN_STORE_COMMAND_H

/*
 * What offload-train does with a store instead of training: --list, --scrub, --drop.
 *
 * Lines for people go to stdout; with --json one document does, and the lines to stderr; with
 * --quiet there are none but damage and errors.
 *
 * Thread: one.
 */

#include "train/options.h"

/* options->command is not STORE_NONE. STRATA_E_CORRUPT: damage was found, and was printed. */
strata_status strata_store_command(const struct options *options, strata_error *error);

#endif
