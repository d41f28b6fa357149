/*
 * Where a run's outputs may go. See outputs.h.
 *
 * Thread: any.
 */

#include "train/outputs.h"

#include <sys/stat.h>

#include "base/error.h"
#include "base/output.h"

static bool is_folder(const char *path)
{
    struct stat info;
    return path != NULL && stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

strata_status strata_outputs_check(const struct outputs *outputs, strata_error *error)
{
    struct output_guard guard = {.count = 0};
    strata_output_protect(&guard, outputs->data, "this run reads that file");
    strata_output_protect(&guard, outputs->model,
                          is_folder(outputs->model) ? "it lies in the model's folder"
                                                    : "this run reads that file");
    strata_output_protect(&guard, outputs->box, "this run reads that file");
    STRATA_TRY(strata_output_check(&guard, "--log", outputs->log, OUTPUT_LOG, error));
    STRATA_TRY(strata_output_check(&guard, "--trace", outputs->trace, OUTPUT_TRACE, error));
    return strata_output_check(&guard, "-o", outputs->document, OUTPUT_DOCUMENT, error);
}

strata_status strata_outputs_check_options(const struct options *options, strata_error *error)
{
    struct outputs outputs = {.data = options->data,
                              .model = options->model,
                              .box = options->box,
                              .log = options->log,
                              .trace = options->trace,
                              .document = options->document};
    return strata_outputs_check(&outputs, error);
}
