/*
 * Sizes: any text is a size or refused with one line, and a size that is formatted and parsed
 * again is the same.
 *
 * Input: the text.
 *
 * Thread: one.
 */

#include "base/text.h"
#include "tests/fuzz/fuzz.h"

#include "base/error.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    strata_error error = {.status = STRATA_OK};
    uint64_t size = 0, again = 1;
    char digits[32];
    char *text = malloc(bytes + 1); /* of exactly this length, so that a step beyond is seen */
    STRATA_CHECK(text != NULL);
    if (bytes > 0)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    strata_status status = strata_parse_size(text, &size, &error);
    if (status == STRATA_OK) {
        STRATA_CHECK(text[0] >= '0' && text[0] <= '9');
        snprintf(digits, sizeof digits, "%" PRIu64, size);
        STRATA_CHECK(strata_parse_size(digits, &again, &error) == STRATA_OK && again == size);
    } else {
        STRATA_CHECK(status == STRATA_E_INVALID && error.status == status);
        STRATA_CHECK(error.message[0] != '\0' && strchr(error.message, '\n') == NULL);
    }
    free(text);
    return 0;
}

void strata_fuzz_seeds(void)
{
    strata_fuzz_seed_text("bytes", "4096");
    strata_fuzz_seed_text("unit", "64M");
    strata_fuzz_seed_text("long_unit", "3GiB");
    strata_fuzz_seed_text("fraction", "1.5T");
    strata_fuzz_seed_text("largest", "18446744073709551615");
    strata_fuzz_seed_text("too_large", "16777216T");
    strata_fuzz_seed_text("many_digits", "0.00000000000000000000000000000001k");
    strata_fuzz_seed_text("word", "lots");
}
