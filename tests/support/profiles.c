/* See profiles.h. Thread: any. */

#include "tests/support/profiles.h"

#include "base/error.h"

#include <stdio.h>

void strata_test_profile(const char *name, strata_profile *out)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/support/profiles/%s.json", STRATA_TESTS_DIR, name);
    STRATA_CHECK(strata_profile_read_file(out, path, NULL) == STRATA_OK);
}
