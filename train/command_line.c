#define _GNU_SOURCE
/*
 * A command line as a table. See command_line.h.
 *
 * getopt_long accepts every unambiguous abbreviation of a name. We refuse abbreviations: the
 * word on the command line is compared with the full name.
 *
 * Thread: one at a time.
 */

#include "train/command_line.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "base/error.h"

/* getopt's value for the first row: above every character, since short options return
 * theirs. */
#define FIRST_OPTION 256

/* The most rows of a table; offload-train has some 60. */
#define MAX_ROWS 96

/* The widest left column of the help text. A longer one pushes its help to the right; lines
 * stay below 100 columns. */
#define MAX_LEFT 36

static bool is_letter(const struct option_row *row)
{
    return row->name[0] != '\0' && row->name[1] == '\0';
}

static const char *option_dashes(const struct option_row *row)
{
    return is_letter(row) ? "-" : "--";
}

strata_status strata_option_refuse(const struct option_row *row, const char *text,
                                   const char *why, strata_error *error)
{
    return strata_fail(error, STRATA_E_INVALID, 0, "%s%s %.80s: %s", option_dashes(row),
                       row->name, text, why);
}

const struct choice *strata_choice_find(const struct choice *choices, const char *text,
                                        size_t length)
{
    for (; choices->name != NULL; choices++) {
        if (strlen(choices->name) == length && memcmp(choices->name, text, length) == 0)
            return choices;
    }
    return NULL;
}

/* Write the range of a row in words into buffer. */
static const char *range_text(const struct option_row *row, char *buffer, size_t bytes)
{
    bool real = row->kind == OPTION_NUMBER;
    char what[40];
    snprintf(what, sizeof what, "%s%s%s", row->word != NULL ? row->word : "",
             row->word != NULL ? " or " : "", real ? "a number" : "a whole number");
    if (isinf(row->below))
        snprintf(buffer, bytes, "give %s of at least %.10g", what, row->least);
    else if (real)
        snprintf(buffer, bytes, "give %s from %.10g to below %.10g", what, row->least,
                 row->below);
    else
        snprintf(buffer, bytes, "give %s from %.10g to %.10g", what, row->least,
                 row->below - 1);
    return buffer;
}

/* Digits only: strtoull alone accepts a sign, and reads "-1" as 2^64 - 1. */
static bool whole_number(const char *text, uint64_t *out)
{
    if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
        return false;
    errno = 0;
    *out = strtoull(text, NULL, 10);
    return errno == 0;
}

bool strata_real_number(const char *text, double *out)
{
    if (*text == '\0' || isspace((unsigned char)*text))
        return false;
    char *end;
    *out = strtod(text, &end);
    return *end == '\0' && isfinite(*out);
}

static bool is_word(const struct option_row *row, const char *text)
{
    return row->word != NULL && strcmp(text, row->word) == 0;
}

static strata_status set_whole(void *field, const struct option_row *row, const char *text,
                               strata_error *error)
{
    uint64_t value = 0;
    char range[128];
    bool fits =
        is_word(row, text) || (whole_number(text, &value) && (double)value >= row->least &&
                               (double)value < row->below);
    if (!fits)
        return strata_option_refuse(row, text, range_text(row, range, sizeof range), error);
    if (row->kind == OPTION_COUNT)
        *(uint32_t *)field = (uint32_t)value;
    else
        *(uint64_t *)field = value;
    return STRATA_OK;
}

static strata_status set_number(double *field, const struct option_row *row, const char *text,
                                strata_error *error)
{
    double value = 0;
    char range[128];
    bool fits = is_word(row, text) ||
                (strata_real_number(text, &value) && value >= row->least && value < row->below);
    if (!fits)
        return strata_option_refuse(row, text, range_text(row, range, sizeof range), error);
    *field = value;
    return STRATA_OK;
}

static strata_status set_size(uint64_t *field, const struct option_row *row, const char *text,
                              strata_error *error)
{
    strata_error inner = {0};
    if (strata_parse_size(text, field, &inner) != STRATA_OK)
        return strata_fail(error, STRATA_E_INVALID, 0, "%s%s: %.180s", option_dashes(row),
                           row->name, inner.message);
    if (*field == 0)
        return strata_option_refuse(row, text, "a size of nothing: give one such as 512M",
                                    error);
    return STRATA_OK;
}

static strata_status set_choice_field(void *field, const struct option_row *row,
                                      const char *text, strata_error *error)
{
    const struct choice *choice = strata_choice_find(row->choices, text, strlen(text));
    if (choice == NULL) {
        char why[96];
        snprintf(why, sizeof why, "not a choice of this version: give one of %s",
                 row->argument);
        return strata_option_refuse(row, text, why, error);
    }
    memcpy(field, &choice->value, sizeof choice->value);
    return STRATA_OK;
}

static strata_status set_row(void *target, const struct option_row *row, const char *text,
                             strata_error *error)
{
    void *field = (char *)target + row->field;
    switch (row->kind) {
    case OPTION_SECTION:
        return STRATA_OK;
    case OPTION_FLAG:
    case OPTION_LEAVE:
        *(bool *)field = true;
        return STRATA_OK;
    case OPTION_TEXT:
        if (*text == '\0')
            return strata_option_refuse(row, "\"\"", "an empty name: give a file", error);
        *(const char **)field = text;
        return STRATA_OK;
    case OPTION_SIZE:
        return set_size(field, row, text, error);
    case OPTION_COUNT:
    case OPTION_LONG:
        return set_whole(field, row, text, error);
    case OPTION_NUMBER:
        return set_number(field, row, text, error);
    case OPTION_CHOICE:
        return set_choice_field(field, row, text, error);
    case OPTION_OWN:
        return row->take(target, row, text, error);
    }
    return STRATA_OK;
}

/* The rows in getopt's form: long options in a table, letters in a string. */
struct getopt_rows {
    struct option names[MAX_ROWS + 1];
    char letters[2 * MAX_ROWS + 3];
};

static void fill_getopt(struct getopt_rows *out, const struct command_line *line)
{
    struct option *name = out->names;
    char *letter = out->letters;
    /* '+': stop at the first word that is not an option. ':': report a missing value
     * differently from an unknown name. */
    *letter++ = '+';
    *letter++ = ':';
    for (uint32_t i = 0; i < line->row_count; i++) {
        const struct option_row *row = &line->rows[i];
        if (row->kind == OPTION_SECTION)
            continue;
        if (is_letter(row)) {
            *letter++ = row->name[0];
            if (row->argument != NULL)
                *letter++ = ':';
            continue;
        }
        *name++ =
            (struct option){.name = row->name,
                            .has_arg = row->argument != NULL ? required_argument : no_argument,
                            .val = FIRST_OPTION + (int)i};
    }
    *letter = '\0';
    *name = (struct option){0};
}

/* The row of the option that getopt found; NULL: it found none. */
static const struct option_row *found_row(const struct command_line *line, int found)
{
    if (found >= FIRST_OPTION)
        return &line->rows[found - FIRST_OPTION];
    for (uint32_t i = 0; i < line->row_count; i++) {
        if (is_letter(&line->rows[i]) && line->rows[i].name[0] == found)
            return &line->rows[i];
    }
    return NULL;
}

/* True when the option was written with its full name, "--name" or "--name=...". */
static bool written_in_full(const char *word, const struct option_row *row)
{
    size_t length = strlen(row->name);
    return is_letter(row) ||
           (strncmp(word, "--", 2) == 0 && strncmp(word + 2, row->name, length) == 0 &&
            (word[2 + length] == '\0' || word[2 + length] == '='));
}

/* Edit distance: letters changed, left out, added, or two neighbours swapped. */
static size_t count_slips(const char *word, size_t length, const char *name)
{
    enum { NAME_BYTES = 32 };
    uint8_t rows[NAME_BYTES + 1][NAME_BYTES + 1];
    size_t name_length = strlen(name);
    if (length > NAME_BYTES || name_length > NAME_BYTES)
        return SIZE_MAX;
    for (size_t i = 0; i <= length; i++)
        for (size_t j = 0; j <= name_length; j++) {
            if (i == 0 || j == 0) {
                rows[i][j] = (uint8_t)(i + j);
                continue;
            }
            uint8_t least = rows[i - 1][j - 1] + (word[i - 1] != name[j - 1]);
            if (rows[i - 1][j] + 1 < least)
                least = rows[i - 1][j] + 1;
            if (rows[i][j - 1] + 1 < least)
                least = rows[i][j - 1] + 1;
            if (i > 1 && j > 1 && word[i - 1] == name[j - 2] && word[i - 2] == name[j - 1] &&
                rows[i - 2][j - 2] + 1 < least)
                least = rows[i - 2][j - 2] + 1;
            rows[i][j] = least;
        }
    return rows[length][name_length];
}

/* The most similar name, with at most one wrong letter in three; NULL: no name is similar. */
static const char *near_name(const struct command_line *line, const char *word)
{
    const char *found = NULL;
    if (strncmp(word, "--", 2) != 0)
        return NULL;
    size_t length = strcspn(word + 2, "=");
    size_t fewest = length / 3 + 1;
    for (uint32_t i = 0; i < line->row_count; i++) {
        const struct option_row *row = &line->rows[i];
        if (row->kind == OPTION_SECTION || is_letter(row))
            continue;
        size_t count = count_slips(word + 2, length, row->name);
        if (count < fewest) {
            fewest = count;
            found = row->name;
        }
    }
    return found;
}

static strata_status refuse_unknown(const struct command_line *line, const char *word,
                                    strata_error *error)
{
    const char *name = near_name(line, word);
    if (name == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "unknown option %.80s: see --help",
                           word);
    return strata_fail(error, STRATA_E_INVALID, 0, "unknown option %.80s: did you mean --%s?",
                       word, name);
}

static strata_status refuse_word(const struct command_line *line, const char *word, int found,
                                 strata_error *error)
{
    if (found == ':')
        return strata_fail(error, STRATA_E_INVALID, 0, "%.80s: wants a value: see --help",
                           word);
    /* For a flag that was given a value, getopt sets optopt to the flag's own number. */
    if (optopt >= FIRST_OPTION)
        return strata_fail(error, STRATA_E_INVALID, 0, "%.80s: takes no value: leave it out",
                           word);
    return refuse_unknown(line, word, error);
}

strata_status strata_command_line_parse(const struct command_line *line, void *target, int argc,
                                        char **argv, strata_error *error)
{
    struct getopt_rows table;
    fill_getopt(&table, line);
    opterr = 0;
    optind = 0; /* start from the beginning, also after an earlier parse */
    for (;;) {
        const char *word = argv[optind > 0 ? optind : 1];
        int found = getopt_long(argc, argv, table.letters, table.names, NULL);
        if (found == -1)
            break;
        const struct option_row *row = found_row(line, found);
        if (row == NULL)
            return refuse_word(line, word, found, error);
        if (!written_in_full(word, row))
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "unknown option %.80s: did you mean --%s?", word, row->name);
        STRATA_TRY(set_row(target, row, optarg, error));
        if (row->kind == OPTION_LEAVE)
            return STRATA_OK;
    }
    if (optind < argc)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "unknown argument %.80s: everything is given by options, see --help",
                           argv[optind]);
    return STRATA_OK;
}

/* Write "--name ARGUMENT" into buffer; returns its length. */
static int left_column(const struct option_row *row, char *buffer, size_t bytes)
{
    const char *argument = row->argument != NULL ? row->argument : "";
    return snprintf(buffer, bytes, "%s%s%s%s", option_dashes(row), row->name,
                    row->argument != NULL ? " " : "", argument);
}

void strata_command_line_help(const struct command_line *line, FILE *out)
{
    char left[64];
    int width = 0;
    fputs(line->head, out);
    for (uint32_t i = 0; i < line->row_count; i++) {
        int length = left_column(&line->rows[i], left, sizeof left);
        if (line->rows[i].kind != OPTION_SECTION && length > width && length <= MAX_LEFT)
            width = length;
    }
    for (uint32_t i = 0; i < line->row_count; i++) {
        const struct option_row *row = &line->rows[i];
        if (row->kind == OPTION_SECTION) {
            fprintf(out, "\n%s\n", row->name);
            continue;
        }
        left_column(row, left, sizeof left);
        fprintf(out, "  %-*s  %s\n", width, left, row->help);
    }
    if (line->tail != NULL)
        fputs(line->tail, out);
}
