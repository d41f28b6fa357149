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
 * Write the document and a line end to stdout, to file (NULL: none), or to both. A NULL
 * document means that memory ran out. The file is replaced once the new document is whole; a
 * file that holds anything but a document of these programs is not replaced.
 *
 * STRATA_E_NOMEM, STRATA_E_IO, STRATA_E_INVALID: see strata_output_open().
 */
strata_status strata_document_write(const strata_json *document, bool to_stdout,
                                    const char *file, strata_error *error);

#endif
