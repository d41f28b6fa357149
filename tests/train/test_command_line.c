#define _GNU_SOURCE
/*
 * What offload-train's own options (test_options.c) have no case of: letters, words that mean
 * 0, rows that take by themselves, and the help text.
 */

#include "train/command_line.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

struct target {
    const char *file;
    uint32_t count;
    double number;
    uint32_t taken;
    bool flag;
    bool help;
};

static strata_status take_even(void *target, const struct option_row *row, const char *text,
                               strata_error *error)
{
    if ((text[0] - '0') % 2 != 0)
        return strata_option_refuse(row, text, "give an even digit", error);
    ((struct target *)target)->taken += (uint32_t)(text[0] - '0');
    return STRATA_OK;
}

#define FIELD(member) offsetof(struct target, member)

static const struct option_row rows[] = {
    SECTION("all of them"),
    VALUE("o", OPTION_TEXT, "FILE", file, "a file"),
    FLAG("f", flag, "a flag"),
    RANGE_OR("many", "count", OPTION_COUNT, "many|N", count, 2, 10, "a count"),
    RANGE_OR("none", "number", OPTION_NUMBER, "none|X", number, 1, 2, "a number"),
    OWN("even", "DIGIT", take_even, "adds up"),
    LEAVE("help", help, "this text"),
};

static const struct command_line line = {.head = "usage\n",
                                         .tail = "end\n",
                                         .rows = rows,
                                         .row_count = sizeof rows / sizeof rows[0]};

static struct target target;
static strata_error error;

static strata_status parse(const char *words)
{
    static char text[256];
    char *argv[16] = {(char *)"program"};
    int argc = 1;
    strcpy(text, words);
    for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    target = (struct target){.count = 5, .number = 7};
    error = (strata_error){0};
    return strata_command_line_parse(&line, &target, argc, argv, &error);
}

static void refuse(const char *words, const char *message)
{
    cr_expect_eq(parse(words), STRATA_E_INVALID, "%s", words);
    cr_expect_str_eq(error.message, message);
}

Test(command_line, letters_take_their_value_apart_or_attached)
{
    cr_expect_eq(parse("-o here -f"), STRATA_OK, "%s", error.message);
    cr_expect_str_eq(target.file, "here");
    cr_expect(target.flag);
    cr_expect_eq(parse("-fohere"), STRATA_OK, "%s", error.message);
    cr_expect_str_eq(target.file, "here");
    cr_expect(target.flag);
    refuse("-o", "-o: wants a value: see --help");
    refuse("-x", "unknown option -x: see --help");
}

Test(command_line, what_is_not_given_stays)
{
    cr_expect_eq(parse(""), STRATA_OK);
    cr_expect_eq(target.count, 5);
    cr_expect_eq(target.number, 7);
    cr_expect_null(target.file);
}

Test(command_line, a_word_beside_numbers_means_0)
{
    cr_expect_eq(parse("--count many --number=none"), STRATA_OK, "%s", error.message);
    cr_expect_eq(target.count, 0);
    cr_expect_eq(target.number, 0);
    refuse("--count 1", "--count 1: give many or a whole number from 2 to 9");
    refuse("--count none", "--count none: give many or a whole number from 2 to 9");
    refuse("--number 2", "--number 2: give none or a number from 1 to below 2");
}

Test(command_line, a_row_that_takes_by_itself_is_asked_each_time)
{
    cr_expect_eq(parse("--even 4 --even 2"), STRATA_OK, "%s", error.message);
    cr_expect_eq(target.taken, 6);
    refuse("--even 4 --even 3", "--even 3: give an even digit");
}

Test(command_line, nothing_after_help_is_read)
{
    cr_expect_eq(parse("--help --strange -o"), STRATA_OK, "%s", error.message);
    cr_expect(target.help);
    refuse("--strange --help", "unknown option --strange: see --help");
}

Test(command_line, help_has_a_line_for_every_option)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    cr_assert_not_null(out);
    strata_command_line_help(&line, out);
    fclose(out);
    cr_expect_str_eq(text, "usage\n"
                           "\nall of them\n"
                           "  -o FILE          a file\n"
                           "  -f               a flag\n"
                           "  --count many|N   a count\n"
                           "  --number none|X  a number\n"
                           "  --even DIGIT     adds up\n"
                           "  --help           this text\n"
                           "end\n");
    free(text);
}
