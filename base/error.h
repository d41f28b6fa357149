#ifndef STRATA_BASE_ERROR_H
#define STRATA_BASE_ERROR_H

/*
 * Filling in an error once, where the cause is known.
 *
 *     return strata_fail(error, STRATA_E_IO, errno, "open of %s: %s", path, strerror(errno));
 *
 * Callers above pass the status up untouched (STRATA_TRY).
 */

#include "strata/status.h"

#include <stdio.h>
#include <stdlib.h>

/* Fill error, which may be NULL, and return status. An error that is filled already stays: the
 * first failure wins. */
strata_status strata_fail(strata_error *error, strata_status status, int64_t native,
                          const char *format, ...) STRATA_PRINTF(4, 5);

/* Programmer errors only: always on, prints the place and the expression, aborts. */
#define STRATA_CHECK(expression)                                                               \
    do {                                                                                       \
        if (!(expression)) {                                                                   \
            fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #expression);     \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

/* Return early if a call failed. The only macro that hides control flow. */
#define STRATA_TRY(call)                                                                       \
    do {                                                                                       \
        strata_status try_status = (call);                                                     \
        if (try_status != STRATA_OK)                                                           \
            return try_status;                                                                 \
    } while (0)

#endif
