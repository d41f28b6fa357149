#ifndef STRATA_IO_STORE_SURVEY_H
#define STRATA_IO_STORE_SURVEY_H

/*
 * The files of a durable store without its run, for list, scrub and drop: locked, identified,
 * and their commit records read. Nothing is resized, and no thread is started.
 *
 * Thread: the caller.
 */

#include "io/store_internal.h"

struct survey {
    struct store store; /* drives, headers and tables; no queue, no place */
    struct commits commits;
    const struct store_header *header; /* of the first drive */
};

/*
 * strata_survey_end() must be called in any case. read_only: nothing will be written. damage:
 * what is damaged and cost nothing; may be NULL. Without a commit only the first drive has been
 * looked at, since a creation may have been cut short before the others existed.
 */
strata_status strata_survey_begin(struct survey *survey, const char *const *dirs,
                                  uint32_t dir_count, bool read_only, struct damage *damage,
                                  strata_error *error);
void strata_survey_end(struct survey *survey);

/* The newest commit record; NULL: there is no commit. */
const struct commit_record *strata_survey_newest(const struct survey *survey);

/* The failure of a caller that needs a commit where there is none. */
strata_status strata_survey_no_commit(const char *dir, strata_error *error);

/* STRATA_E_CORRUPT if a newer commit than those listed is lost; the message says how to go on.
 */
strata_status strata_survey_check_lost(const struct survey *survey, strata_error *error);

#endif
