#ifndef STRATA_OFFLOAD_PROFILE_H
#define STRATA_OFFLOAD_PROFILE_H

/*
 * A machine's profile as a JSON document: what strata_profile_read_file() reads.
 *
 * Thread: any.
 */

#include "base/json.h"
#include "strata/profile.h"

/* An object whose members are the fields of the profile; owned. */
strata_json *strata_profile_to_json(const strata_profile *profile);

#endif
