/*
 * Filling in an error, and the names of the statuses.
 *
 * The first failure wins. A second one, during the clean-up, is a consequence of the first and
 * would hide the cause. A message may quote a file's name or a user's text, and it must stay
 * one line. So control bytes become spaces here, and no code that prints a message has to
 * check for them.
 *
 * Thread: any; an error belongs to the thread that declared it.
 */

#include "base/error.h"

#include <stdarg.h>

strata_status strata_fail(strata_error *error, strata_status status, int64_t native,
                          const char *format, ...)
{
    if (!error || error->status != STRATA_OK)
        return status;
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    for (char *at = error->message; *at; at++) {
        unsigned char byte = (unsigned char)*at;
        if (byte < ' ' || byte == 0x7f)
            *at = ' ';
    }
    error->status = status;
    error->native = native;
    return status;
}

const char *strata_status_name(strata_status status)
{
    switch (status) {
    case STRATA_OK:
        return "ok";
    case STRATA_E_INVALID:
        return "invalid";
    case STRATA_E_STATE:
        return "state";
    case STRATA_E_NOMEM:
        return "nomem";
    case STRATA_E_IO:
        return "io";
    case STRATA_E_CORRUPT:
        return "corrupt";
    case STRATA_E_DEVICE:
        return "device";
    case STRATA_E_COMM:
        return "comm";
    case STRATA_E_TIMEOUT:
        return "timeout";
    case STRATA_E_UNSUPPORTED:
        return "unsupported";
    case STRATA_E_NUMERIC:
        return "numeric";
    }
    return "unknown";
}

const char *strata_version(void)
{
    return STRATA_VERSION_STRING;
}
