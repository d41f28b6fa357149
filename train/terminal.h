#ifndef STRATA_TRAIN_TERMINAL_H
#define STRATA_TRAIN_TERMINAL_H

/*
 * Lines on stderr that are redrawn in place. No mode of the terminal is changed, so nothing
 * needs to be restored if the program is killed.
 *
 * Thread: any.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True when stderr is a terminal. */
bool strata_terminal_is_there(void);

/* Its width, read at every call; 80 if unknown. */
uint32_t strata_terminal_columns(void);

/* Write to stderr. Failures are ignored, because a lost terminal is no reason to stop. */
void strata_terminal_write(const char *text, size_t bytes);

#endif
