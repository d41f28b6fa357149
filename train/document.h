#ifndef STRATA_TRAIN_DOCUMENT_H
#define STRATA_TRAIN_DOCUMENT_H

/*
 * A program's one JSON document: --json writes it to stdout, -o FILE to a file.
 *
 * Thread: any, one at a time for one stream.
 */

#include "base/json.h"
#include "strata/status.h"

/*
 * To stdout, to file (NULL: to none), to both; a line end closes it. NULL for a document is one
 * that there was no memory for. The file is replaced when the document is whole; one that holds
 * something else than a document of the programs is left alone.
 *
 * STRATA_E_NOMEM, STRATA_E_IO, STRATA_E_INVALID: see strata_output_open().
 */
strata_status strata_document_write(const strata_json *document, bool to_stdout,
                                    const char *file, strata_error *error);

#endif
