#ifndef STRATA_TRAIN_FAIL_H
#define STRATA_TRAIN_FAIL_H

/*
 * Making a failure's story in the programs. The library has the same helper, but it is not
 * public, and what stands on the library includes public headers only.
 */

#include "strata/status.h"

/* Fill error (may be NULL; a story already there is kept: first failure wins) and return
 * status. */
strata_status strata_train_fail(strata_error *error, strata_status status, int64_t native,
                                const char *format, ...) STRATA_PRINTF(4, 5);

/* Return early with what went wrong below. The only macro that hides control flow. */
#ifndef STRATA_TRY
#    define STRATA_TRY(call)                                                                   \
        do {                                                                                   \
            strata_status try_status = (call);                                                 \
            if (try_status != STRATA_OK)                                                       \
                return try_status;                                                             \
        } while (0)
#endif

#endif
