#ifndef STRATA_BASE_TEXT_H
#define STRATA_BASE_TEXT_H

/*
 * Sizes and times as people write and read them. "16M" is 16 x 1024^2; K, M, G and T are powers
 * of 1024, in either case, with an optional "iB" or "B"; a fraction is fine ("1.5G"); no sign,
 * no exponent.
 *
 * Thread: any.
 */

#include "strata/status.h"

#include <stddef.h>

/* STRATA_E_INVALID: no number, an unknown unit, more than 2^63 - 1 bytes. The message quotes
 * text. */
STRATA_NODISCARD strata_status strata_parse_size(const char *text, uint64_t *out_bytes,
                                                 strata_error *error);

/* "96.0 MiB", "340.3 MiB", "512 B"; returns buffer, always terminated. 16 bytes are enough. */
char *strata_format_size(uint64_t bytes, char *buffer, size_t buffer_bytes);

/* "0:42", "12:05", "3:12:05". A value that is not a number, or above 1,000,000 hours, is shown
 * as 1,000,000 hours. Returns buffer, always terminated. 16 bytes are enough. */
char *strata_format_clock(double seconds, char *buffer, size_t buffer_bytes);

#endif
