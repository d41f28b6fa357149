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
#include "base/output.h"

static strata_status write_to_stdout(const char *text, strata_error *error)
{
    if (printf("%s\n", text) > 0 && fflush(stdout) == 0)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_IO, errno, "write of the JSON document to stdout: %s",
                       strerror(errno));
}

static strata_status write_to_file(const char *text, const char *path, strata_error *error)
{
    struct output out;
    STRATA_TRY(strata_output_open(&out, path, OUTPUT_DOCUMENT, error));
    fprintf(out.stream, "%s\n", text); // close reports a failure
    return strata_output_close(&out, error);
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
    strata_status status = to_stdout ? write_to_stdout(text, error) : STRATA_OK;
    if (file != NULL) {
        strata_status other = write_to_file(text, file, error);
        status = status == STRATA_OK ? other : status;
    }
    free(text);
    return status;
}
