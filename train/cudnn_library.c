#define _GNU_SOURCE
/*
 * Opening libcudnn by name, after checking what is installed.
 *
 * libcudnn.so.9 is a small library. It opens other libraries, its parts, when one of their
 * functions is first called, and if a part is missing it ends the process. So the parts that
 * attention needs are opened here before any call, and stay open as long as the library does.
 *
 * The loader silently skips a library for another architecture. If it finds none, we look in
 * the same places and report what is there.
 *
 * Thread: one at a time.
 */

#include "train/cudnn_library.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

#define REMEDY "get cuDNN by tools/get_cudnn.sh"

/* The parts that plan and run a fused graph, in the order of need. */
static const struct {
    const char *name;
    uint32_t since; /* the version that first has it */
} parts[CUDNN_PARTS] = {
    {"libcudnn_graph.so.9", 0},
    {"libcudnn_heuristic.so.9", 0},
    {"libcudnn_engines_precompiled.so.9", 0},
    {"libcudnn_engines_runtime_compiled.so.9", 0},
    {"libcudnn_engines_tensor_ir.so.9", 92400},
};

/* The architecture of this program, from its own ELF header. */
static uint16_t own_machine(void)
{
    ElfW(Ehdr) header;
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ssize_t got = file >= 0 ? read(file, &header, sizeof header) : -1;
    if (file >= 0)
        close(file);
    return got == (ssize_t)sizeof header ? header.e_machine : EM_NONE;
}

static const char *machine_name(uint16_t machine)
{
    switch (machine) {
    case EM_X86_64:
        return "x86-64";
    case EM_AARCH64:
        return "aarch64";
    case EM_PPC64:
        return "ppc64";
    default:
        return "another machine";
    }
}

/* False, with error filled, if the path holds a file that this program cannot load. */
static bool right_machine(const char *path, strata_error *error)
{
    ElfW(Ehdr) header = {0};
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return true;
    ssize_t got = read(file, &header, sizeof header);
    close(file);
    if (got != (ssize_t)sizeof header || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
        (void)strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                          "cudnn: %.120s is no shared library: " REMEDY, path);
        return false;
    }
    uint16_t own = own_machine();
    if (own == EM_NONE || header.e_machine == own)
        return true;
    (void)strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                      "cudnn: %.120s is made for %s, this program for %s: " REMEDY, path,
                      machine_name(header.e_machine), machine_name(own));
    return false;
}

/* Report what is in the folders that the loader searches. */
static strata_status explain_missing(strata_error *error)
{
    Dl_serinfo size;
    void *self = dlopen(NULL, RTLD_LAZY);
    Dl_serinfo *folders = NULL;
    bool right = true;
    if (self != NULL && dlinfo(self, RTLD_DI_SERINFOSIZE, &size) == 0)
        folders = calloc(1, size.dls_size);
    if (folders != NULL && dlinfo(self, RTLD_DI_SERINFOSIZE, folders) == 0 &&
        dlinfo(self, RTLD_DI_SERINFO, folders) == 0) {
        for (unsigned i = 0; i < folders->dls_cnt && right; i++) {
            char path[PATH_MAX];
            int length = snprintf(path, sizeof path, "%s/" CUDNN_LIBRARY,
                                  folders->dls_serpath[i].dls_name);
            right = length >= (int)sizeof path || right_machine(path, error);
        }
    }
    free(folders);
    if (self != NULL)
        dlclose(self);
    if (!right)
        return STRATA_E_UNSUPPORTED;
    return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                       "cudnn: no " CUDNN_LIBRARY " in LD_LIBRARY_PATH or the system's "
                       "folders: " REMEDY);
}

/* Opens the library without its parts. */
static strata_status open_library(struct cudnn_library *out, const char *dir,
                                  strata_error *error)
{
    char path[PATH_MAX] = CUDNN_LIBRARY;
    if (dir != NULL && snprintf(path, sizeof path, "%s/" CUDNN_LIBRARY, dir) >= PATH_MAX)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0, "cudnn: %.60s...: too long a path",
                           dir);
    if (dir != NULL && access(path, F_OK) != 0)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0, "cudnn: no %.150s: " REMEDY, path);
    if (dir != NULL && !right_machine(path, error))
        return STRATA_E_UNSUPPORTED;
    out->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (out->handle == NULL) {
        const char *why = dlerror();
        if (dir == NULL && strstr(why, "No such file") != NULL)
            return explain_missing(error);
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0, "cudnn: %.180s: " REMEDY, why);
    }
    struct link_map *map;
    if (dlinfo(out->handle, RTLD_DI_LINKMAP, &map) == 0)
        snprintf(out->path, sizeof out->path, "%s", map->l_name);
    return STRATA_OK;
}

static strata_status check_version(struct cudnn_library *out, strata_error *error)
{
    size_t (*get_version)(void);
    void *found = dlsym(out->handle, "cudnnGetVersion");
    if (found == NULL)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "cudnn: %.120s has no cudnnGetVersion: " REMEDY, out->path);
    memcpy(&get_version, &found, sizeof get_version);
    out->version = (uint32_t)get_version();
    snprintf(out->version_text, sizeof out->version_text, "%u.%u.%u", out->version / 10000,
             out->version / 100 % 100, out->version % 100);
    if (out->version < CUDNN_OLDEST)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "cudnn: %.100s is %s, %u.%u.%u or newer is needed: " REMEDY,
                           out->path, out->version_text, CUDNN_OLDEST / 10000,
                           CUDNN_OLDEST / 100 % 100, CUDNN_OLDEST % 100);
    return STRATA_OK;
}

/* Opens one of the parts. They must be beside the library: in another folder they belong to
 * another installation. Some link the GPU's driver. Without a driver those cannot be opened,
 * which is no fault of cuDNN's. */
static strata_status open_part(struct cudnn_library *library, size_t index, strata_error *error)
{
    char path[PATH_MAX];
    const char *slash = strrchr(library->path, '/');
    int dir_length = slash != NULL ? (int)(slash - library->path) : 0;
    snprintf(path, sizeof path, "%.*s/%s", dir_length, library->path, parts[index].name);
    if (access(path, F_OK) != 0)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "cudnn: %.100s is half there: no %s beside it: " REMEDY,
                           library->path, parts[index].name);
    if (!right_machine(path, error))
        return STRATA_E_UNSUPPORTED;
    library->parts[index] = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (library->parts[index] != NULL)
        return STRATA_OK;
    const char *why = dlerror();
    if (strstr(why, "libcuda.so.1") != NULL)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_UNSUPPORTED, 0, "cudnn: %.180s: " REMEDY, why);
}

static strata_status open_cudnn_parts(struct cudnn_library *library, strata_error *error)
{
    for (size_t i = 0; i < CUDNN_PARTS; i++)
        if (library->version >= parts[i].since)
            STRATA_TRY(open_part(library, i, error));
    return STRATA_OK;
}

/* The graph part must have the same version as the library. */
static strata_status check_parts(const struct cudnn_library *library, strata_error *error)
{
    int (*check)(void);
    void *found = dlsym(library->handle, "cudnnGraphVersionCheck");
    if (found == NULL)
        return STRATA_OK;
    memcpy(&check, &found, sizeof check);
    int code = check();
    if (code != 0)
        return strata_fail(error, STRATA_E_UNSUPPORTED, code,
                           "cudnn: %.100s and its parts are of different versions: " REMEDY,
                           library->path);
    return STRATA_OK;
}

strata_status strata_cudnn_open(struct cudnn_library *out, const char *dir, strata_error *error)
{
    *out = (struct cudnn_library){0};
    strata_status status = open_library(out, dir, error);
    if (status == STRATA_OK)
        status = check_version(out, error);
    if (status == STRATA_OK)
        status = open_cudnn_parts(out, error);
    if (status == STRATA_OK)
        status = check_parts(out, error);
    if (status != STRATA_OK)
        strata_cudnn_close(out);
    return status;
}

void strata_cudnn_close(struct cudnn_library *library)
{
    for (size_t i = 0; i < CUDNN_PARTS; i++)
        if (library->parts[i] != NULL)
            dlclose(library->parts[i]);
    if (library->handle != NULL)
        dlclose(library->handle);
    *library = (struct cudnn_library){0};
}
