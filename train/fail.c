/* See fail.h. Thread: any; an error belongs to whoever declared it. */

#include "train/fail.h"

#include <stdarg.h>
#include <stdio.h>

strata_status strata_train_fail(strata_error *error, strata_status status, int64_t native,
                                const char *format, ...)
{
    if (error == NULL || error->status != STRATA_OK)
        return status;
    error->status = status;
    error->native = native;
    va_list list;
    va_start(list, format);
    vsnprintf(error->message, sizeof error->message, format, list);
    va_end(list);
    return status;
}
