#define _GNU_SOURCE
/*
 * What the tests of the store share.
 *
 * Thread: one.
 */

#include "tests/support/store_rig.h"

#include "base/error.h"
#include "tests/support/kernel.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

void strata_store_rig_make(struct store_rig *out, uint32_t drive_count,
                           strata_io_backend backend)
{
    *out = (struct store_rig){.store = NULL};
    strata_temp_dir_make(&out->dir);
    STRATA_CHECK(drive_count <= RIG_DRIVES_MAX);
    for (uint32_t i = 0; i < drive_count; i++) {
        snprintf(out->drives[i], sizeof out->drives[i], "%s/%c", out->dir.path, 'a' + (int)i);
        STRATA_CHECK(mkdir(out->drives[i], 0700) == 0);
        out->dirs[i] = out->drives[i];
    }
    for (uint32_t i = 0; i < RIG_PLACES; i++)
        out->place_bytes[i] = (1 + (i * 7 + 3) % 11 * 7) * STRATA_IO_ALIGN_BYTES;
    out->place_bytes[5] = RIG_LARGEST_BYTES;
    out->buffer = aligned_alloc(STRATA_IO_ALIGN_BYTES, RIG_LARGEST_BYTES);
    STRATA_CHECK(out->buffer != NULL);
    out->desc = (struct store_desc){
        .dirs = out->dirs,
        .dir_count = drive_count,
        .place_bytes = out->place_bytes,
        .place_count = RIG_PLACES,
        .records = &out->records,
        .tile_elems = 16384,
        .backend = strata_backend_here(backend),
        .depth = 4,
        .request_bytes = RIG_REQUEST_BYTES,
        .deadline_ns = 20000000000u,
    };
    out->desc.limit_bytes = strata_store_file_bytes(&out->desc);
}

void strata_store_rig_remove(struct store_rig *rig)
{
    strata_store_close(rig->store);
    rig->store = NULL;
    free(rig->buffer);
    strata_temp_dir_remove(&rig->dir);
}

const char *strata_store_rig_file(const struct store_rig *rig, uint32_t drive_index, char *out)
{
    if (rig->store != NULL)
        snprintf(out, PATH_MAX + 32, "/proc/self/fd/%d",
                 rig->store->drives[drive_index].file.fd);
    else
        snprintf(out, PATH_MAX + 32, "%s/%s", rig->drives[drive_index], STRATA_STORE_FILE_NAME);
    return out;
}

void strata_store_rig_pattern(const struct store_rig *rig, uint32_t place, uint32_t round,
                              uint8_t *out)
{
    uint64_t state = (uint64_t)place << 32 | round;
    for (uint64_t i = 0; i < rig->place_bytes[place]; i += sizeof state) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(out + i, &state, sizeof state);
    }
}

strata_status strata_store_rig_write(struct store_rig *rig, uint32_t place, uint32_t round)
{
    strata_store_rig_pattern(rig, place, round, rig->buffer);
    return strata_store_transfer(rig->store, true, place, 0, rig->buffer);
}

strata_status strata_store_rig_read(struct store_rig *rig, uint32_t place, uint32_t round,
                                    bool *out_same)
{
    size_t bytes = rig->place_bytes[place];
    uint8_t *expected = malloc(bytes);
    STRATA_CHECK(expected != NULL);
    strata_store_rig_pattern(rig, place, round, expected);
    memset(rig->buffer, 0xee, bytes);
    strata_status status = strata_store_transfer(rig->store, false, place, 0, rig->buffer);
    *out_same = memcmp(rig->buffer, expected, bytes) == 0;
    free(expected);
    return status;
}

static void keep_line(void *user, const char *line)
{
    snprintf(user, 512, "%s", line);
}

void strata_store_keep_line(struct store_desc *desc, char *line)
{
    desc->log = keep_line;
    desc->log_user = line;
}

bool strata_rig_aborts(void (*call)(void *rig), void *rig)
{
    int status;
    pid_t child = fork();
    STRATA_CHECK(child >= 0);
    if (child == 0) {
        fclose(stderr);
        call(rig);
        _exit(0);
    }
    STRATA_CHECK(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

int strata_open_descriptors(void)
{
    return strata_temp_dir_count("/proc/self/fd");
}
