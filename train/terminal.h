#ifndef STRATA_TRAIN_TERMINAL_H
#define STRATA_TRAIN_TERMINAL_H

/*
 * Lines on stderr that draw over themselves. No mode of the terminal is changed, so there is
 * nothing to restore when the program is killed.
 *
 * Thread: any.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is stderr a terminal? */
bool strata_terminal_is_there(void);

/* Its width, asked for at every call; 80 where it is not known. */
uint32_t strata_terminal_columns(void);

/* Write to stderr. A terminal that is gone is no reason to stop: failures are ignored. */
void strata_terminal_write(const char *text, size_t bytes);

#endif
