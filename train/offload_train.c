#define _GNU_SOURCE
/*
 * offload-train: train a transformer that is larger than the device's memory.
 *
 * A run begins in a fixed order. First comes everything that is cheap and may fail: the
 * command line, the model's config, the data, the plan, the name of the log. Then the plan is
 * printed. Only then is memory taken and are files made. When that has worked, an older log is
 * emptied, or cut back to the step where a resumed run begins. So a run that is refused
 * changes nothing.
 *
 * After SIGINT or SIGTERM the current step is finished and committed; its line is the last. A
 * second signal does what it does to any program, and so does one that comes before the first
 * step.
 *
 * The last line is written after the last commit. If the run is killed between the two, a
 * resumed run has no step left and writes the missing line. So if the last line of a log has
 * the hash, the state of its run is safe.
 *
 * Thread: the main thread.
 */

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "train/log.h"
#include "train/options.h"
#include "train/outputs.h"
#include "train/progress_line.h"
#include "train/report.h"
#include "train/store_command.h"
#include "train/trainer.h"

/*
 * The signal that asked us to stop; 0: none. It is static because a signal handler reaches
 * only statics. The handler writes it, the main thread reads it.
 */
static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
    if (stop_signal != 0) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    stop_signal = number;
}

/*
 * From now on a signal lets the current step finish. Before the first step it ends the program
 * at once: making a store may take hours, and stopping it is safe, because no committed data
 * is touched and an unfinished store is made again.
 */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Print a line of the engine about something that it had to do without. */
static void print_engine_line(void *user, const char *line)
{
    FILE *out = user;
    fprintf(out, "note   %s\n", line);
}

struct run {
    const struct options *options;
    struct trainer *trainer;
    struct report report;
    struct progress_line progress;
    struct log log;
    char state_hash[33]; /* empty: not asked for */
};

static strata_status hash_state(struct run *run, strata_error *error)
{
    uint8_t hash[16];
    if (!run->options->hash_state)
        return STRATA_OK;
    STRATA_TRY(strata_trainer_hash(run->trainer, hash, error));
    for (int i = 0; i < 16; i++)
        snprintf(run->state_hash + 2 * i, 3, "%02x", hash[i]);
    return STRATA_OK;
}

static const char *final_hash_text(const struct run *run)
{
    return run->state_hash[0] != '\0' ? run->state_hash : NULL;
}

/* After a signal the current step is the last: its line is complete, with the hash. */
static strata_status train_steps(struct run *run, strata_error *error)
{
    bool last = stop_signal != 0;
    for (uint64_t step = run->report.resumed + 1; !last; step++) {
        struct trainer_step done;
        last = step == run->options->rate.steps || stop_signal != 0;
        STRATA_TRY(strata_trainer_step(run->trainer, last, &done, error));
        if (stop_signal != 0)
            last = true;
        if (last)
            STRATA_TRY(hash_state(run, error));
        STRATA_TRY(strata_log_step(&run->log, &done, final_hash_text(run), error));
        /* After the step's line, because the commit waits for it. */
        if (last)
            STRATA_TRY(strata_trainer_commit(run->trainer, error));
        strata_report_step(&run->report, &done);
    }
    return STRATA_OK;
}

static strata_status train_what_is_left(struct run *run, strata_error *error)
{
    uint64_t done = run->report.resumed;
    if (done < run->options->rate.steps)
        return train_steps(run, error);
    STRATA_TRY(hash_state(run, error));
    if (run->report.out != NULL)
        fprintf(run->report.out, "no step is left: %llu of %llu are done\n",
                (unsigned long long)done, (unsigned long long)run->options->rate.steps);
    return strata_log_nothing_left(&run->log, done, final_hash_text(run), error);
}

static strata_status start_and_train(struct run *run, strata_error *error)
{
    FILE *out = run->report.out;
    if (run->options->durability == STRATA_DURABLE_POWER && run->log.path != NULL)
        strata_trainer_before_commit(run->trainer, strata_log_flush, &run->log);
    STRATA_TRY(
        strata_trainer_start(run->trainer, out != NULL ? print_engine_line : NULL, out, error));
    catch_signals();
    if (run->options->resume)
        STRATA_TRY(
            strata_log_resume(&run->log, strata_trainer_steps_done(run->trainer), error));
    else
        STRATA_TRY(strata_log_start(&run->log, error));
    strata_report_started(&run->report, run->trainer);
    strata_status status = train_what_is_left(run, error);
    strata_report_end_line(&run->report);
    STRATA_TRY(status);
    STRATA_TRY(strata_trainer_trace(run->trainer, error));
    strata_report_tables(&run->report, strata_trainer_plan(run->trainer));
    if (out != NULL && run->state_hash[0] != '\0')
        fprintf(out, "state  %s\n", run->state_hash);
    return STRATA_OK;
}

static strata_status run_training(struct run *run, strata_error *error)
{
    struct progress_call call = {.fn = strata_progress_line, .user = &run->progress};
    STRATA_TRY(strata_outputs_check_options(run->options, error));
    strata_progress_line_begin(&run->progress, run->options->quiet);
    STRATA_TRY(strata_trainer_create(&run->trainer, run->options, &call, error));
    STRATA_TRY(strata_log_check(&run->log, run->options->log, error));
    strata_report_begin(&run->report, run->options);
    strata_report_first_lines(&run->report, run->trainer);
    strata_report_plan(&run->report, strata_trainer_plan(run->trainer));
    if (!run->options->dry_run)
        STRATA_TRY(start_and_train(run, error));
    return strata_report_json(&run->report, run->trainer, final_hash_text(run), error);
}

/* Print the error as one line, whatever bytes the name of a file has. */
static void print_error_line(strata_error *error)
{
    for (char *at = error->message; *at != '\0'; at++) {
        if (*at == '\n' || *at == '\r' || *at == '\033')
            *at = ' ';
    }
    fprintf(stderr, "offload-train: %s\n", error->message);
}

int main(int argc, char **argv)
{
    struct options options;
    strata_error error = {0};
    strata_status status = strata_options_parse(&options, argc, argv, &error);
    if (status != STRATA_OK) {
        print_error_line(&error);
        return status == STRATA_E_INVALID ? EXIT_USAGE : (int)strata_exit_code(&error);
    }
    if (options.help || options.version) {
        if (options.help)
            strata_options_help(stdout);
        else
            printf("offload-train %s\n", strata_version());
        return fflush(stdout) == 0 ? EXIT_DONE : EXIT_FAILED;
    }
    if (options.command != STORE_NONE) {
        status = strata_store_command(&options, &error);
        if (status != STRATA_OK)
            print_error_line(&error);
        return (int)strata_exit_code(&error);
    }
    /* If the reader of stdout has gone, a write fails and is reported. */
    signal(SIGPIPE, SIG_IGN);
    struct run run = {.options = &options, .log = {.file = -1}};
    status = run_training(&run, &error);
    strata_progress_line_end(&run.progress);
    strata_log_end(&run.log);
    if (status != STRATA_OK)
        print_error_line(&error);
    /* Freeing anything that a drive still uses would wait for that drive, so the process just
     * ends; the kernel frees everything. */
    if (status == STRATA_E_TIMEOUT)
        _exit(EXIT_LATE);
    strata_trainer_destroy(run.trainer);
    strata_log_close(&run.log);
    if (status != STRATA_OK)
        return (int)strata_exit_code(&error);
    return stop_signal != 0 ? 128 + (int)stop_signal : EXIT_DONE;
}
