#define _GNU_SOURCE
/*
 * Transfers of a store: what comes back is what was written, or it is not handed out.
 *
 * Damage is done behind the store's back, through another descriptor of the same file. The
 * sweeps make every request of a whole life fail once, creation included.
 */

#include "base/clock.h"
#include "base/error.h"
#include "tests/support/kernel.h"
#include "tests/support/io_fault.h"
#include "tests/support/store_rig.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void open_rig(struct store_rig *rig, uint32_t drive_count, strata_io_backend backend)
{
    strata_error error = {.status = STRATA_OK};
    strata_store_rig_make(rig, drive_count, backend);
    cr_assert(strata_store_open(&rig->store, &rig->desc, &error) == STRATA_OK, "%s",
              error.message);
}

static void write_all(struct store_rig *rig, uint32_t round)
{
    for (uint32_t i = 0; i < RIG_PLACES; i++)
        cr_assert(strata_store_rig_write(rig, i, round) == STRATA_OK);
}

static void expect_all(struct store_rig *rig, uint32_t round)
{
    for (uint32_t i = 0; i < RIG_PLACES; i++) {
        bool same;
        cr_expect(strata_store_rig_read(rig, i, round, &same) == STRATA_OK);
        cr_expect(same, "place %d", (int)i);
    }
}

static const struct place *place_of(const struct store_rig *rig, uint32_t place)
{
    return &rig->store->places[place];
}

/* Read or write the file itself, past the store. */
static void behind_its_back(const struct store_rig *rig, uint32_t place, bool write,
                            void *bytes, size_t length)
{
    char path[PATH_MAX + 32];
    const struct place *at = place_of(rig, place);
    int fd = open(strata_store_rig_file(rig, at->drive_index, path), O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0);
    ssize_t moved = write ? pwrite(fd, bytes, length, (off_t)at->offset)
                          : pread(fd, bytes, length, (off_t)at->offset);
    cr_assert(moved == (ssize_t)length);
    cr_assert(fsync(fd) == 0);
    close(fd);
}

/* The place's read is refused as damaged, and the story names place, file and offset. */
static void expect_damage(struct store_rig *rig, uint32_t place)
{
    bool same;
    char text[PATH_MAX + 64];
    cr_expect(strata_store_rig_read(rig, place, 0, &same) == STRATA_E_CORRUPT);
    const strata_error *error = strata_store_error(rig->store);
    cr_expect(error->status == STRATA_E_CORRUPT);
    snprintf(text, sizeof text, "read of place %u, %u bytes at %u in ", (unsigned)place,
             (unsigned)rig->place_bytes[place], (unsigned)place_of(rig, place)->offset);
    cr_expect(strstr(error->message, text) != NULL, "%s", error->message);
    snprintf(text, sizeof text, "%s/" STRATA_STORE_FILE_NAME,
             rig->drives[place_of(rig, place)->drive_index]);
    cr_expect(strstr(error->message, text) != NULL, "%s", error->message);
}

Test(store, what_is_written_is_read_back)
{
    for (uint32_t drives = 1; drives <= RIG_DRIVES_MAX; drives++) {
        for (int backend = STRATA_IO_URING; backend <= STRATA_IO_THREADS; backend++) {
            struct store_rig rig;
            open_rig(&rig, drives, (strata_io_backend)backend);
            cr_expect(strcmp(strata_store_backend_name(rig.store),
                             rig.desc.backend == STRATA_IO_URING ? "uring" : "threads") == 0);
            write_all(&rig, 0);
            expect_all(&rig, 0);
            write_all(&rig, 1);
            expect_all(&rig, 1);
            cr_expect(strata_store_error(rig.store)->status == STRATA_OK);
            strata_store_rig_remove(&rig);
        }
    }
}

Test(store, a_request_larger_than_every_place_and_a_depth_of_one_work_too)
{
    struct store_rig rig;
    strata_store_rig_make(&rig, 2, STRATA_IO_URING);
    rig.desc.depth = 1;
    rig.desc.request_bytes = 0;
    cr_assert(strata_store_open(&rig.store, &rig.desc, NULL) == STRATA_OK);
    write_all(&rig, 0);
    expect_all(&rig, 0);
    strata_store_rig_remove(&rig);
}

/* A transfer of every place, all queued before the first is awaited. */
struct batch {
    struct store_io ios[RIG_PLACES];
    uint8_t *buffers[RIG_PLACES];
    uint32_t order[RIG_PLACES]; /* of completion; one drive only */
    _Atomic uint32_t done_count;
    sem_t done;
};

static void count_done(void *user, struct store_io *io)
{
    struct batch *batch = user;
    batch->order[atomic_fetch_add(&batch->done_count, 1)] = io->place;
    sem_post(&batch->done);
}

static void make_batch(const struct store_rig *rig, struct batch *batch)
{
    sem_init(&batch->done, 0, 0);
    for (uint32_t i = 0; i < RIG_PLACES; i++) {
        batch->buffers[i] = aligned_alloc(STRATA_IO_ALIGN_BYTES, rig->place_bytes[i]);
        cr_assert(batch->buffers[i] != NULL);
        strata_store_rig_pattern(rig, i, 0, batch->buffers[i]);
        batch->ios[i] = (struct store_io){
            .place = i, .buffer = batch->buffers[i], .done = count_done, .user = batch};
    }
}

static void free_batch(struct batch *batch)
{
    for (uint32_t i = 0; i < RIG_PLACES; i++)
        free(batch->buffers[i]);
    sem_destroy(&batch->done);
}

static void await(sem_t *done)
{
    while (sem_wait(done) != 0)
        STRATA_CHECK(errno == EINTR);
}

static void run_batch(struct store_rig *rig, struct batch *batch, bool write)
{
    atomic_store(&batch->done_count, 0);
    for (uint32_t i = 0; i < RIG_PLACES; i++) {
        batch->ios[i].write = write;
        strata_store_start(rig->store, &batch->ios[i]);
    }
    for (uint32_t i = 0; i < RIG_PLACES; i++)
        await(&batch->done);
}

Test(store, all_places_may_be_under_way_at_once)
{
    for (int backend = STRATA_IO_URING; backend <= STRATA_IO_THREADS; backend++) {
        struct store_rig rig;
        struct batch batch = {.done_count = 0};
        open_rig(&rig, 2, (strata_io_backend)backend);
        make_batch(&rig, &batch);
        run_batch(&rig, &batch, true);
        run_batch(&rig, &batch, false);
        for (uint32_t i = 0; i < RIG_PLACES; i++) {
            const struct store_io *io = &batch.ios[i];
            cr_expect(io->status == STRATA_OK);
            cr_expect(io->queued_ns <= io->start_ns && io->start_ns <= io->end_ns);
        }
        free_batch(&batch);
        expect_all(&rig, 0);
        strata_store_rig_remove(&rig);
    }
}

Test(store, transfers_of_a_drive_are_taken_in_order_of_arrival)
{
    struct store_rig rig;
    struct batch batch = {.done_count = 0};
    strata_store_rig_make(&rig, 1, STRATA_IO_THREADS);
    rig.desc.depth = 1; /* one request in flight: what is begun first ends first */
    cr_assert(strata_store_open(&rig.store, &rig.desc, NULL) == STRATA_OK);
    make_batch(&rig, &batch);
    run_batch(&rig, &batch, true);
    for (uint32_t i = 0; i < RIG_PLACES; i++)
        cr_expect(batch.order[i] == i);
    free_batch(&batch);
    strata_store_rig_remove(&rig);
}

struct relay {
    struct store *store;
    struct store_io io;
    sem_t done;
};

/* Places 0, 1, 2, ... each started by the done function of the one before. */
static void start_next(void *user, struct store_io *io)
{
    struct relay *relay = user;
    if (io->status != STRATA_OK || io->place + 1 == RIG_PLACES) {
        sem_post(&relay->done);
        return;
    }
    relay->io.place++;
    strata_store_start(relay->store, &relay->io);
}

Test(store, a_done_function_may_start_the_next_transfer)
{
    struct store_rig rig;
    open_rig(&rig, 3, STRATA_IO_URING);
    struct relay relay = {.store = rig.store};
    relay.io = (struct store_io){
        .write = true, .buffer = rig.buffer, .done = start_next, .user = &relay};
    memset(rig.buffer, 3, RIG_LARGEST_BYTES);
    sem_init(&relay.done, 0, 0);
    strata_store_start(rig.store, &relay.io);
    await(&relay.done);
    cr_expect(relay.io.status == STRATA_OK && relay.io.place == RIG_PLACES - 1);
    sem_destroy(&relay.done);
    strata_store_rig_remove(&rig);
}

Test(store, counters_are_exact_and_leave_creation_out)
{
    struct store_rig rig;
    uint64_t read_bytes, written_bytes, all = 0;
    open_rig(&rig, 2, STRATA_IO_URING);
    strata_store_counters(rig.store, &read_bytes, &written_bytes);
    cr_expect(read_bytes == 0 && written_bytes == 0);
    write_all(&rig, 0);
    write_all(&rig, 1);
    expect_all(&rig, 1);
    for (uint32_t i = 0; i < RIG_PLACES; i++)
        all += rig.place_bytes[i];
    strata_store_counters(rig.store, &read_bytes, &written_bytes);
    cr_expect(read_bytes == all && written_bytes == 2 * all);
    strata_store_rig_remove(&rig);
}

Test(store, a_flipped_bit_is_found_before_use)
{
    for (int backend = STRATA_IO_URING; backend <= STRATA_IO_THREADS; backend++) {
        struct store_rig rig;
        open_rig(&rig, 2, (strata_io_backend)backend);
        write_all(&rig, 0);
        uint8_t *bytes = malloc(RIG_LARGEST_BYTES);
        cr_assert(bytes != NULL);
        behind_its_back(&rig, 5, false, bytes, RIG_LARGEST_BYTES);
        bytes[RIG_LARGEST_BYTES - 1] ^= 0x10;
        behind_its_back(&rig, 5, true, bytes, RIG_LARGEST_BYTES);
        free(bytes);
        expect_damage(&rig, 5);
        strata_store_rig_remove(&rig);
    }
}

Test(store, a_torn_write_is_found_before_use)
{
    struct store_rig rig;
    uint8_t block[512] = {0};
    open_rig(&rig, 3, STRATA_IO_URING);
    write_all(&rig, 0);
    behind_its_back(&rig, 7, true, block, sizeof block);
    expect_damage(&rig, 7);
    strata_store_rig_remove(&rig);
}

Test(store, a_lost_write_is_found_before_use)
{
    struct store_rig rig;
    open_rig(&rig, 1, STRATA_IO_URING);
    write_all(&rig, 0);
    uint8_t *old = malloc(RIG_LARGEST_BYTES);
    cr_assert(old != NULL);
    behind_its_back(&rig, 5, false, old, RIG_LARGEST_BYTES);
    write_all(&rig, 1);
    behind_its_back(&rig, 5, true, old, RIG_LARGEST_BYTES);
    free(old);
    expect_damage(&rig, 5);
    strata_store_rig_remove(&rig);
}

/* The same bytes three times: only the seed tells one place, and one write, from another. */
Test(store, the_hash_knows_the_place_and_the_count_of_writes)
{
    struct store_rig rig;
    struct hash128 hashes[3];
    strata_store_rig_make(&rig, 1, STRATA_IO_URING);
    rig.place_bytes[2] = rig.place_bytes[1];
    rig.desc.limit_bytes = strata_store_file_bytes(&rig.desc);
    cr_assert(strata_store_open(&rig.store, &rig.desc, NULL) == STRATA_OK);
    memset(rig.buffer, 9, RIG_LARGEST_BYTES);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t place = i < 2 ? 1 + i : 1;
        cr_assert(strata_store_transfer(rig.store, true, place, 0, rig.buffer) == STRATA_OK);
        hashes[i] = place_of(&rig, place)->hash;
    }
    cr_expect(hashes[0].low != hashes[1].low && hashes[0].high != hashes[1].high);
    cr_expect(hashes[0].low != hashes[2].low && hashes[0].high != hashes[2].high);
    strata_store_rig_remove(&rig);
}

/* What the owner of a transfer does that hashes for itself. */
static strata_status own_hash_transfer(struct store_rig *rig, bool write, uint32_t place,
                                       struct hash128 *digests, struct store_io *out)
{
    struct batch batch = {.done_count = 0};
    sem_init(&batch.done, 0, 0);
    if (write)
        strata_hash_pieces(rig->buffer, rig->place_bytes[place], digests);
    *out = (struct store_io){.write = write,
                             .place = place,
                             .buffer = rig->buffer,
                             .own_hash = true,
                             .digests = write ? digests : NULL,
                             .done = count_done,
                             .user = &batch};
    strata_store_start(rig->store, out);
    await(&batch.done);
    sem_destroy(&batch.done);
    if (!write && out->status == STRATA_OK)
        strata_hash_pieces(rig->buffer, rig->place_bytes[place], digests);
    return out->status;
}

Test(store, digests_of_the_owner_and_the_stores_own_are_the_same)
{
    struct store_rig rig;
    struct hash128 digests[RIG_LARGEST_BYTES / STRATA_HASH_PIECE_BYTES];
    struct store_io io;
    bool same;
    open_rig(&rig, 2, STRATA_IO_URING);
    for (uint32_t place = 0; place < RIG_PLACES; place++) {
        strata_store_rig_pattern(&rig, place, 0, rig.buffer);
        cr_expect(own_hash_transfer(&rig, true, place, digests, &io) == STRATA_OK);
    }
    expect_all(&rig, 0);
    write_all(&rig, 1);
    for (uint32_t place = 0; place < RIG_PLACES; place++) {
        cr_expect(own_hash_transfer(&rig, false, place, digests, &io) == STRATA_OK);
        cr_expect(strata_store_verify(rig.store, &io, digests) == STRATA_OK);
    }
    cr_expect(strata_store_rig_read(&rig, 5, 1, &same) == STRATA_OK && same);
    strata_store_rig_remove(&rig);
}

Test(store, damage_that_the_owner_finds_is_told_and_sticks_as_if_the_store_had)
{
    struct store_rig rig;
    struct hash128 digests[RIG_LARGEST_BYTES / STRATA_HASH_PIECE_BYTES];
    struct store_io io;
    uint8_t block[512] = {0};
    bool same;
    char stories[2][sizeof((strata_error *)NULL)->message];
    for (int own = 0; own < 2; own++) {
        open_rig(&rig, 1, STRATA_IO_URING);
        write_all(&rig, 0);
        behind_its_back(&rig, 5, true, block, sizeof block);
        if (own) {
            cr_expect(own_hash_transfer(&rig, false, 5, digests, &io) == STRATA_OK);
            cr_expect(strata_store_verify(rig.store, &io, digests) == STRATA_E_CORRUPT);
            cr_expect(strata_store_rig_read(&rig, 6, 0, &same) == STRATA_E_CORRUPT);
        } else {
            expect_damage(&rig, 5);
        }
        const char *story = strata_store_error(rig.store)->message;
        const char *where = strstr(story, STRATA_STORE_FILE_NAME);
        cr_assert(where != NULL, "%s", story);
        snprintf(stories[own], sizeof stories[own], "%.40s%s", story, where);
        strata_store_rig_remove(&rig);
    }
    cr_expect_str_eq(stories[0], stories[1]);
}

Test(store, after_a_failure_every_later_transfer_is_refused_with_its_status)
{
    struct store_rig rig;
    struct batch batch = {.done_count = 0};
    uint8_t block[512] = {0};
    uint64_t read_bytes, written_bytes, before;
    open_rig(&rig, 2, STRATA_IO_URING);
    make_batch(&rig, &batch);
    write_all(&rig, 0);
    behind_its_back(&rig, 0, true, block, sizeof block);
    expect_damage(&rig, 0);
    strata_error story = *strata_store_error(rig.store);
    strata_store_counters(rig.store, &read_bytes, &before);
    run_batch(&rig, &batch, true);
    for (uint32_t i = 0; i < RIG_PLACES; i++)
        cr_expect(batch.ios[i].status == STRATA_E_CORRUPT);
    strata_store_counters(rig.store, &read_bytes, &written_bytes);
    cr_expect(written_bytes == before);
    cr_expect(strcmp(story.message, strata_store_error(rig.store)->message) == 0);
    free_batch(&batch);
    strata_store_rig_remove(&rig);
}

static void open_failing(struct store_rig *rig, const struct io_fault_plan *plan)
{
    strata_error error = {.status = STRATA_OK};
    strata_store_rig_make(rig, 2, STRATA_IO_URING);
    cr_assert(strata_store_open_on(&rig->store, &rig->desc, &strata_io_fault, plan, &error) ==
                  STRATA_OK,
              "%s", error.message);
}

Test(store, a_drive_that_does_not_answer_is_a_timeout)
{
    struct io_fault_count count = {0};
    struct io_fault_plan plan = {
        .inner = strata_io_ops_here(STRATA_IO_URING),
        .count = &count,
        .fault = IO_FAULT_LOST,
        .op = IO_WRITE,
        .times = 1,
    };
    struct store_rig rig;
    open_failing(&rig, &plan);
    strata_store_close(rig.store);
    plan.nth = count.seen + 3; /* as many writes again, and then some */
    count.seen = 0;
    rig.desc.deadline_ns = 1000000000;
    cr_assert(strata_store_open_on(&rig.store, &rig.desc, &strata_io_fault, &plan, NULL) ==
              STRATA_OK);
    strata_status status = STRATA_OK;
    for (uint32_t i = 0; i < RIG_PLACES && status == STRATA_OK; i++)
        status = strata_store_rig_write(&rig, i, 0);
    cr_expect(status == STRATA_E_TIMEOUT);
    cr_expect(strstr(strata_store_error(rig.store)->message, "in flight") != NULL);
    cr_expect(!strata_store_close(rig.store), "the buffers may still be used");
    rig.store = NULL;
    strata_store_rig_remove(&rig);
}

/* A whole life: open, write all, read all, close. Returns what went wrong first. */
static strata_status live(struct store_rig *rig, const struct io_fault_plan *plan)
{
    bool same;
    strata_error error = {.status = STRATA_OK};
    strata_status status =
        strata_store_open_on(&rig->store, &rig->desc, &strata_io_fault, plan, &error);
    if (status != STRATA_OK) {
        cr_assert(rig->store == NULL && error.status == status && error.message[0] != '\0');
        return status;
    }
    for (uint32_t i = 0; i < RIG_PLACES && status == STRATA_OK; i++)
        status = strata_store_rig_write(rig, i, 0);
    for (uint32_t i = 0; i < RIG_PLACES && status == STRATA_OK; i++) {
        status = strata_store_rig_read(rig, i, 0, &same);
        cr_assert(status != STRATA_OK || same);
    }
    cr_assert(strata_store_error(rig->store)->status == status);
    strata_store_close(rig->store);
    rig->store = NULL;
    return status;
}

/* N = 1, 2, ... until a life is survived: the right status, no file, no descriptor left. */
static void sweep(struct io_fault_plan plan, strata_status expected)
{
    struct store_rig rig;
    strata_store_rig_make(&rig, 2, STRATA_IO_URING);
    int descriptors = strata_open_descriptors();
    bool survived = false;
    for (uint64_t n = 1; !survived; n++) {
        atomic_store(&plan.count->seen, 0);
        atomic_store(&plan.count->fired, 0);
        plan.nth = n;
        strata_status status = live(&rig, &plan);
        survived = plan.count->fired == 0;
        cr_assert(status == (survived ? STRATA_OK : expected), "%d: %d", (int)n, (int)status);
        cr_assert(strata_temp_dir_count(rig.drives[0]) == 0);
        cr_assert(strata_temp_dir_count(rig.drives[1]) == 0);
        cr_assert(n < 1000);
    }
    cr_expect(strata_open_descriptors() == descriptors);
    strata_store_rig_remove(&rig);
}

Test(store, each_request_of_its_life_may_fail_once)
{
    const struct {
        enum io_fault_kind fault;
        int native;
        strata_status expected;
    } cases[] = {
        {IO_FAULT_ERRNO, EIO, STRATA_E_IO},
        {IO_FAULT_ERRNO, ENOSPC, STRATA_E_IO},
        {IO_FAULT_ZERO, 0, STRATA_E_IO},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct io_fault_count count = {0};
        sweep((struct io_fault_plan){.inner = strata_io_ops_here(STRATA_IO_URING),
                                     .count = &count,
                                     .fault = cases[c].fault,
                                     .native = cases[c].native,
                                     .op = c == 2 ? IO_WRITE : 0,
                                     .times = 1},
              cases[c].expected);
    }
}

Test(store, each_request_of_its_life_may_be_short_late_or_answered_twice)
{
    const struct io_fault_plan cases[] = {
        {.fault = IO_FAULT_SHORT},
        {.fault = IO_FAULT_ODD},
        {.fault = IO_FAULT_LATE, .delay_ns = 1000000},
        {.fault = IO_FAULT_TWICE, .delay_ns = 100000},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct io_fault_count count = {0};
        struct io_fault_plan plan = cases[c];
        plan.inner = c % 2 ? &strata_io_threads : strata_io_ops_here(STRATA_IO_URING);
        plan.count = &count;
        plan.times = 1;
        sweep(plan, STRATA_OK);
    }
}

Test(store, each_transfer_of_its_life_may_be_told_to_try_again)
{
    for (enum io_op op = IO_READ; op <= IO_WRITE; op++) {
        struct io_fault_count count = {0};
        sweep((struct io_fault_plan){.inner = strata_io_ops_here(STRATA_IO_URING),
                                     .count = &count,
                                     .fault = IO_FAULT_ERRNO,
                                     .native = op == IO_READ ? EAGAIN : EINTR,
                                     .op = op,
                                     .times = 1},
              STRATA_OK);
    }
}

Test(store, a_bit_flipped_in_any_read_of_its_life_is_found)
{
    struct io_fault_count count = {0};
    sweep((struct io_fault_plan){.inner = &strata_io_threads,
                                 .count = &count,
                                 .fault = IO_FAULT_FLIP,
                                 .op = IO_READ,
                                 .times = 1},
          STRATA_E_CORRUPT);
}

static void ignore_done(void *user, struct store_io *io)
{
    (void)user;
    (void)io;
}

static void read_unwritten(void *user)
{
    struct store_rig *rig = user;
    struct store_io io = {.place = 1, .buffer = rig->buffer, .done = ignore_done};
    strata_store_start(rig->store, &io);
}

static void write_twice_at_once(void *user)
{
    struct store_rig *rig = user;
    struct store_io ios[2];
    for (int i = 0; i < 2; i++) {
        ios[i] = (struct store_io){.write = true, .buffer = rig->buffer, .done = ignore_done};
        strata_store_start(rig->store, &ios[i]);
    }
}

static void write_from_an_odd_address(void *user)
{
    struct store_rig *rig = user;
    struct store_io io = {.write = true, .buffer = rig->buffer + 512, .done = ignore_done};
    strata_store_start(rig->store, &io);
}

Test(store, a_caller_that_breaks_the_rules_is_stopped)
{
    struct store_rig rig;
    open_rig(&rig, 1, STRATA_IO_URING);
    cr_expect(strata_rig_aborts(read_unwritten, &rig));
    cr_expect(strata_rig_aborts(write_twice_at_once, &rig));
    cr_expect(strata_rig_aborts(write_from_an_odd_address, &rig));
    write_all(&rig, 0);
    cr_expect(!strata_rig_aborts(read_unwritten, &rig), "written meanwhile");
    strata_store_rig_remove(&rig);
}
