#define _GNU_SOURCE
/*
 * The cpu lane's thread decides bits (the norm's sum, the powers of beta), so it must not
 * inherit its creator's rounding; and signals are not for it.
 */

#include "base/channel.h"
#include "offload/pager/cpu_lane.h"

#include <criterion/criterion.h>

#include <fenv.h>
#include <pthread.h>
#include <signal.h>

static struct channel *done;

struct seen {
    int rounding;
    bool takes_signals;
};
static struct seen seen;

static strata_status look(void *user, strata_step_result *result, strata_error *error)
{
    (void)user;
    (void)result;
    (void)error;
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    seen = (struct seen){.rounding = fegetround(),
                         .takes_signals = !sigismember(&blocked, SIGTERM)};
    return STRATA_OK;
}

static void on_done(void *user, const struct cpu_result *result)
{
    (void)user;
    strata_channel_send(done, result);
}

Test(cpu_lane, thread_has_modes_of_its_own_and_takes_no_signals)
{
    const struct lane_functions functions = {.total = look};
    struct cpu_lane_desc desc = {.functions = &functions, .done = on_done};
    struct cpu_lane *lane;
    struct cpu_result result;
    strata_error error = {0};
    cr_assert_eq(strata_channel_create(&done, 1, sizeof result, &error), STRATA_OK);
    fesetround(FE_UPWARD);
    strata_status status = strata_cpu_lane_create(&lane, &desc, &error);
    fesetround(FE_TONEAREST);
    cr_assert_eq(status, STRATA_OK, "%s", error.message);
    strata_cpu_lane_start(lane, &(struct cpu_job){.kind = CPU_TOTAL});
    cr_assert(strata_channel_receive(done, &result, UINT64_MAX));
    cr_expect_eq(seen.rounding, FE_TONEAREST);
    cr_expect_not(seen.takes_signals);
    strata_cpu_lane_destroy(lane);
    strata_channel_destroy(done);
}
