#ifndef STRATA_TRAIN_COMMAND_LINE_H
#define STRATA_TRAIN_COMMAND_LINE_H

/*
 * A command line as a table, for offload-train and for each subcommand of offload-bench.
 *
 * A row describes an option once: its name, its argument, the help text, the field of the
 * target that it fills and the range it accepts. getopt_long, --help and the checks all work
 * from the rows, so every option that is parsed is also documented and checked. The caller
 * checks rules about two options at once, after parsing. Names may not be abbreviated: an
 * option of a later version must not change the meaning of an old command line.
 *
 *     struct target { uint32_t steps; bool help; };
 *     #define FIELD(member) offsetof(struct target, member)
 *     static const struct option_row rows[] = {
 *         RANGE("steps", OPTION_COUNT, "N", steps, 1, 1001, "how many (10)"),
 *         LEAVE("help", help, "this text"),
 *     };
 *     static const struct command_line line = {
 *         .head = "usage: program [options]\n", .rows = rows, .row_count = 2};
 *
 * A field keeps its earlier value if its option is not given. Texts are borrowed from argv.
 *
 * Thread: one at a time; getopt keeps its place in globals.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "strata/status.h"

enum option_kind {
    OPTION_SECTION, /* a heading of the help text              */
    OPTION_FLAG,    /* bool                                    */
    OPTION_LEAVE,   /* bool; the words after it are not parsed */
    OPTION_TEXT,    /* const char *, borrowed, not empty       */
    OPTION_SIZE,    /* uint64_t, bytes, not 0                  */
    OPTION_COUNT,   /* uint32_t                                */
    OPTION_LONG,    /* uint64_t                                */
    OPTION_NUMBER,  /* double                                  */
    OPTION_CHOICE,  /* an enum of 32 bits, by name             */
    OPTION_OWN      /* parsed by the function take             */
};

struct choice {
    const char *name; /* NULL ends the list */
    uint32_t value;
};

struct option_row {
    const char *name;     /* one letter: "-o", else "--name"; section: its heading */
    const char *argument; /* the value's name in the help; NULL: no value */
    const char *help;
    const char *word; /* counts and numbers: this word is accepted too, and means 0 */
    const struct choice *choices;
    strata_status (*take)(void *target, const struct option_row *row, const char *text,
                          strata_error *error);
    enum option_kind kind;
    size_t field;
    double least; /* numbers: least <= value < below */
    double below;
};

struct command_line {
    const char *head; /* beginning of the help text, whole lines */
    const char *tail; /* end of the help text; NULL: none */
    const struct option_row *rows;
    uint32_t row_count;
};

/* Macros for rows. The file with the table defines FIELD(member): the member's offset in its
 * target. */
#define SECTION(title)                                                                         \
    {                                                                                          \
        .name = title, .kind = OPTION_SECTION                                                  \
    }
#define FLAG(name_, member, help_)                                                             \
    {                                                                                          \
        .name = name_, .help = help_, .kind = OPTION_FLAG, .field = FIELD(member)              \
    }
#define LEAVE(name_, member, help_)                                                            \
    {                                                                                          \
        .name = name_, .help = help_, .kind = OPTION_LEAVE, .field = FIELD(member)             \
    }
#define VALUE(name_, kind_, argument_, member, help_)                                          \
    {                                                                                          \
        .name = name_, .argument = argument_, .help = help_, .kind = kind_,                    \
        .field = FIELD(member)                                                                 \
    }
#define RANGE(name_, kind_, argument_, member, least_, below_, help_)                          \
    {                                                                                          \
        .name = name_, .argument = argument_, .help = help_, .kind = kind_,                    \
        .field = FIELD(member), .least = least_, .below = below_                               \
    }
#define RANGE_OR(word_, name_, kind_, argument_, member, least_, below_, help_)                \
    {                                                                                          \
        .name = name_, .argument = argument_, .help = help_, .word = word_, .kind = kind_,     \
        .field = FIELD(member), .least = least_, .below = below_                               \
    }
#define CHOICE(name_, argument_, choices_, member, help_)                                      \
    {                                                                                          \
        .name = name_, .argument = argument_, .help = help_, .choices = choices_,              \
        .kind = OPTION_CHOICE, .field = FIELD(member)                                          \
    }
#define OWN(name_, argument_, take_, help_)                                                    \
    {                                                                                          \
        .name = name_, .argument = argument_, .help = help_, .take = take_, .kind = OPTION_OWN \
    }

/*
 * Fill target from the words after argv[0].
 *
 * STRATA_E_INVALID: an unknown option or argument, or a wrong value; the message names it and
 * says what to give.
 */
strata_status strata_command_line_parse(const struct command_line *line, void *target, int argc,
                                        char **argv, strata_error *error);

/* Print head, a line for each option, and tail. */
void strata_command_line_help(const struct command_line *line, FILE *out);

/* For take functions: fills error for this row and text; returns STRATA_E_INVALID. */
strata_status strata_option_refuse(const struct option_row *row, const char *text,
                                   const char *why, strata_error *error);

/* For take functions: the choice whose name equals the first `length` bytes of text; NULL:
 * none. */
const struct choice *strata_choice_find(const struct choice *choices, const char *text,
                                        size_t length);

/* For take functions. False: text is not exactly one finite number. */
bool strata_real_number(const char *text, double *out);

#endif
