/*
 * See fail.h. A message is one line whatever it quotes, a config's text or a file's name:
 * control bytes become spaces, as the library's own messages have it.
 *
 * Thread: any; an error belongs to whoever declared it.
 */

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
    for (char *at = error->message; *at != '\0'; at++) {
        unsigned char byte = (unsigned char)*at;
        if (byte < ' ' || byte == 0x7f)
            *at = ' ';
    }
    return status;
}
