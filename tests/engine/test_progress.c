#define _GNU_SOURCE
/*
 * A caller's progress function is called in everything that may take seconds, and told the
 * truth.
 *
 * Nothing here takes seconds: strata_progress_at is wrapped (--wrap), and each call of it seems
 * to come when the next call of the caller's function is due.
 */

#include "base/progress.h"
#include "strata/store.h"
#include "tests/support/kernel.h"
#include "tests/support/suite_dir.h"
#include "tests/support/toy.h"

#include <pthread.h>
#include <string.h>

#define MAX_WORKS 16u

/* One piece of work, as the caller's function saw it. */
struct work {
    const char *what;
    uint64_t calls;
    uint64_t done;
    uint64_t total;
};

static pthread_t caller;
static struct work works[MAX_WORKS];
static uint32_t work_count;

extern void __real_strata_progress_at(struct progress *progress, uint64_t done,
                                      uint64_t now_ns);
void __wrap_strata_progress_at(struct progress *progress, uint64_t done, uint64_t now_ns);

void __wrap_strata_progress_at(struct progress *progress, uint64_t done, uint64_t now_ns)
{
    uint64_t due_ns = now_ns < progress->next_ns ? progress->next_ns : now_ns;
    __real_strata_progress_at(progress, done, due_ns);
}

static void take(void *user, const char *what, uint64_t done, uint64_t total)
{
    cr_expect_eq(user, &dir);
    cr_expect(pthread_equal(pthread_self(), caller));
    struct work *work = work_count > 0 ? &works[work_count - 1] : NULL;
    if (work == NULL || strcmp(work->what, what) != 0) {
        cr_assert_lt(work_count, MAX_WORKS);
        work = &works[work_count++];
        *work = (struct work){.what = what, .total = total};
    }
    cr_expect_geq(done, work->done);
    cr_expect_leq(done, total);
    cr_expect_gt(total, 0);
    cr_expect_eq(total, work->total);
    work->done = done;
    work->calls++;
}

static void setup(void)
{
    make_dir();
    caller = pthread_self();
}

TestSuite(progress, .init = setup, .fini = remove_dir);

static struct toy_run durable_run(void)
{
    struct toy_run run = strata_toy_durable(STRATA_HOST, STRATA_HOST, STRATA_NVME, dir.path);
    run.steps = 1;
    run.progress = take;
    run.progress_user = &dir;
    return run;
}

static const struct work *find(const char *what)
{
    for (uint32_t i = 0; i < work_count; i++)
        if (strcmp(works[i].what, what) == 0)
            return &works[i];
    return NULL;
}

/* There were calls, and the last said that all is done. */
static void expect_done(const char *what)
{
    const struct work *work = find(what);
    cr_assert_not_null(work, "no call for %s", what);
    cr_expect_gt(work->calls, 0);
    cr_expect_eq(work->done, work->total, "%s ended at %llu of %llu", what,
                 (unsigned long long)work->done, (unsigned long long)work->total);
}

static void run(const struct toy_run *wanted)
{
    work_count = 0;
    struct toy_result result = strata_toy_run(wanted);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
}

Test(progress, a_new_run_tells_of_its_store_and_weights)
{
    struct toy_run wanted = durable_run();
    run(&wanted);
    expect_done("writing the store");
    expect_done("initial weights");
    cr_expect_null(find("resuming"));
    expect_done("hashing");
}

Test(progress, a_resumed_run_tells_of_what_it_reads)
{
    struct toy_run wanted = durable_run();
    run(&wanted);
    wanted.resume = true;
    run(&wanted);
    expect_done("resuming");
    cr_expect_null(find("initial weights"));
}

Test(progress, a_scrub_tells_of_what_it_reads)
{
    struct toy_run wanted = durable_run();
    run(&wanted);
    const char *dirs[] = {dir.path};
    strata_scrub_desc desc = {
        .dirs = dirs, .dir_count = 1, .progress = take, .progress_user = &dir};
    strata_scrub_result result;
    strata_error error = {.status = STRATA_OK};
    work_count = 0;
    cr_assert_eq(strata_store_scrub(&result, &desc, &error), STRATA_OK, "%s", error.message);
    expect_done("scrubbing");
    cr_expect_eq(find("scrubbing")->total, result.bytes);
}
