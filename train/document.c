#define _GNU_SOURCE
/*
 * Writing a program's JSON document. See document.h.
 *
 * Thread: any.
 */

#include "train/document.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static strata_status write_text(const char *text, const char *path, strata_error *error)
{
    FILE *out = path != NULL ? fopen(path, "we") : stdout;
    bool good = out != NULL && fprintf(out, "%s\n", text) > 0 && fflush(out) == 0;
    int code = errno;
    if (path != NULL && out != NULL && fclose(out) != 0 && good) {
        code = errno;
        good = false;
    }
    if (good)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_IO, code, "write of %s: %s",
                       path != NULL ? path : "the JSON document to stdout", strerror(code));
}

strata_status strata_document_write(const strata_json *document, bool to_stdout,
                                    const char *file, strata_error *error)
{
    if (!to_stdout && file == NULL)
        return STRATA_OK;
    char *text = document != NULL ? strata_json_write(document) : NULL;
    if (text == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "memory for the JSON document: none left");
    strata_status status = to_stdout ? write_text(text, NULL, error) : STRATA_OK;
    if (file != NULL) {
        strata_status other = write_text(text, file, error);
        status = status == STRATA_OK ? other : status;
    }
    free(text);
    return status;
}
