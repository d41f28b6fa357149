/*
 * offload-train --list, --scrub, --drop. See store_command.h.
 *
 * A scrub prints damage when it finds it, not at the end, because a scrub of terabytes takes
 * long. The document comes at the end even if there was damage, since the program that asked
 * for it wants to read about that too.
 *
 * Thread: one.
 */

#include "train/store_command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "strata/store.h"
#include "base/text.h"
#include "train/document.h"
#include "train/outputs.h"
#include "train/progress_line.h"
#include "base/error.h"

struct command {
    const struct options *options;
    FILE *out; /* NULL: no lines */
    strata_json *document;
    strata_json *damage; /* lines; they become a part of document after the scrub */
    struct progress_line progress;
};

/* Copies the next line of an identity, a name and a value, into line of at least 2 KiB. */
static bool next_line(const char **at, char *line, size_t line_bytes)
{
    size_t length = strcspn(*at, "\n");
    if (**at == '\0')
        return false;
    snprintf(line, line_bytes, "%.*s", (int)length, *at);
    *at += length + ((*at)[length] == '\n');
    return true;
}

static void print_listing(const struct command *command, const strata_store_listing *listing)
{
    char line[STRATA_STORE_IDENTITY_BYTES];
    FILE *out = command->out;
    if (out == NULL)
        return;
    fprintf(out, "%12s  what it is\n", "step");
    for (uint32_t i = 0; i < listing->commit_count; i++)
        fprintf(out, "%12llu  %s\n", (unsigned long long)listing->commits[i].step,
                listing->commits[i].retained ? "retained: --resume --at goes back to it"
                                             : "the last: --resume goes on from it");
    if (listing->commit_count == 0)
        fprintf(out, "%12s  the run was stopped before its first commit\n", "-");
    if (listing->commit_count > 0)
        fprintf(out, "\ncommits every %u step%s", listing->commit_every,
                listing->commit_every > 1 ? "s" : "");
    fprintf(out, "\n%u tiles; up to %u commits are retained; the run:\n", listing->tiles,
            listing->keep);
    for (const char *at = listing->identity; next_line(&at, line, sizeof line);)
        fprintf(out, "  %s\n", line);
}

static strata_json *json_identity(const char *identity)
{
    char line[STRATA_STORE_IDENTITY_BYTES];
    strata_json *object = strata_json_object();
    for (const char *at = identity; next_line(&at, line, sizeof line);) {
        char *sign = strchr(line, '=');
        if (sign != NULL)
            *sign++ = '\0';
        strata_json_set_string(object, line, sign != NULL ? sign : "");
    }
    return object;
}

static strata_status list_commits(struct command *command, strata_error *error)
{
    const struct options *options = command->options;
    strata_store_listing listing;
    STRATA_TRY(
        strata_store_list(&listing, options->store_dirs, options->store_dir_count, error));
    print_listing(command, &listing);
    strata_json *commits = strata_json_array();
    for (uint32_t i = 0; i < listing.commit_count; i++) {
        strata_json *one = strata_json_object();
        strata_json_set_uint(one, "step", listing.commits[i].step);
        strata_json_set_bool(one, "retained", listing.commits[i].retained);
        strata_json_append(commits, one);
    }
    strata_json_set(command->document, "commits", commits);
    strata_json_set_uint(command->document, "commit_every", listing.commit_every);
    strata_json_set_uint(command->document, "keep", listing.keep);
    strata_json_set_uint(command->document, "tiles", listing.tiles);
    strata_json_set(command->document, "identity", json_identity(listing.identity));
    return STRATA_OK;
}

/* Damage is an error, so --quiet prints it too, on stderr. */
static void take_damage(void *user, const char *line)
{
    struct command *command = user;
    FILE *out = command->out != NULL ? command->out : stderr;
    strata_progress_line_end(&command->progress);
    fprintf(out, "damaged  %s\n", line);
    fflush(out);
    strata_json *one = strata_json_object();
    strata_json_set_string(one, "what", line);
    strata_json_append(command->damage, one);
}

static void print_scrub(const struct command *command, const strata_scrub_result *result)
{
    char bytes[16], rate[16];
    double per_s = result->seconds > 0 ? (double)result->bytes / result->seconds : 0;
    if (command->out == NULL)
        return;
    fprintf(command->out, "step %llu: %llu tiles, %s in %.2f s (%s/s), %llu damaged; %s, %s\n",
            (unsigned long long)result->step, (unsigned long long)result->tiles,
            strata_format_size(result->bytes, bytes, sizeof bytes), result->seconds,
            strata_format_size((uint64_t)per_s, rate, sizeof rate),
            (unsigned long long)result->bad, result->backend,
            result->direct ? "O_DIRECT" : "through the page cache");
}

static strata_status scrub_store(struct command *command, strata_error *error)
{
    strata_scrub_result result;
    strata_scrub_desc desc = {
        .dirs = command->options->store_dirs,
        .dir_count = command->options->store_dir_count,
        .on_bad = take_damage,
        .on_bad_user = command,
        .progress = strata_progress_line,
        .progress_user = &command->progress,
        .io_deadline_s = command->options->deadline_s,
    };
    strata_progress_line_begin(&command->progress, command->options->quiet);
    strata_status status = strata_store_scrub(&result, &desc, error);
    strata_progress_line_end(&command->progress);
    strata_json *document = command->document;
    strata_json_set_uint(document, "step", result.step);
    strata_json_set_uint(document, "tiles", result.tiles);
    strata_json_set_uint(document, "bytes", result.bytes);
    strata_json_set_uint(document, "bad", result.bad);
    strata_json_set_number(document, "seconds", result.seconds);
    /* A scrub that failed before it opened a drive has neither. */
    if (result.backend == NULL)
        return status;
    strata_json_set_string(document, "io", result.backend);
    strata_json_set_bool(document, "io_direct", result.direct);
    print_scrub(command, &result);
    return status;
}

static strata_status drop_store(struct command *command, strata_error *error)
{
    const struct options *options = command->options;
    STRATA_TRY(
        strata_store_drop(options->store_dirs, options->store_dir_count, options->at, error));
    strata_json_set_uint(command->document, "step", options->at);
    if (command->out != NULL)
        fprintf(command->out, "step %llu: dropped; the next run may write over it\n",
                (unsigned long long)options->at);
    return STRATA_OK;
}

static strata_status run_store_command(struct command *command, strata_error *error)
{
    switch (command->options->command) {
    case STORE_LIST:
        return list_commits(command, error);
    case STORE_SCRUB:
        return scrub_store(command, error);
    case STORE_DROP:
        return drop_store(command, error);
    case STORE_NONE:
        break;
    }
    return strata_fail(error, STRATA_E_INVALID, 0, "nothing to do with a store");
}

/* The document lists what was found; if nothing could be read, none is written. */
static bool has_document(strata_status status)
{
    return status == STRATA_OK || status == STRATA_E_CORRUPT;
}

strata_status strata_store_command(const struct options *options, strata_error *error)
{
    static const char *const names[] = {[STORE_NONE] = "",
                                        [STORE_LIST] = "list",
                                        [STORE_SCRUB] = "scrub",
                                        [STORE_DROP] = "drop"};
    struct command command = {
        .options = options,
        .out = options->quiet  ? NULL
               : options->json ? stderr
                               : stdout,
        .document = strata_json_object(),
        .damage = strata_json_array(),
    };
    strata_json_set_string(command.document, "program", "offload-train");
    strata_json_set_string(command.document, "version", strata_version());
    strata_json_set_string(command.document, "command", names[options->command]);
    strata_status status = strata_outputs_check_options(options, error);
    if (status == STRATA_OK)
        status = run_store_command(&command, error);
    if (options->command == STORE_SCRUB)
        strata_json_set(command.document, "damage", command.damage);
    else
        strata_json_free(command.damage);
    if (has_document(status)) {
        strata_status written =
            strata_document_write(command.document, options->json, options->document, error);
        status = status == STRATA_OK ? written : status;
    }
    strata_json_free(command.document);
    if (fflush(stdout) != 0 && status == STRATA_OK)
        status = strata_fail(error, STRATA_E_IO, errno, "write to stdout: %s", strerror(errno));
    return status;
}
