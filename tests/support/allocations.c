/* See allocations.h. Thread: any. */

#include "tests/support/allocations.h"

#include "base/error.h"

#include <stddef.h>

/* What the address sanitizer offers; without it the address is null. */
extern int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *,
                                                                       size_t),
                                                     void (*on_free)(const volatile void *))
    __attribute__((weak));

static _Atomic uint64_t taken_bytes; /* added to by every thread that allocates */

static void on_malloc(const volatile void *block, size_t bytes)
{
    (void)block;
    taken_bytes += bytes;
}

static void on_free(const volatile void *block)
{
    (void)block;
}

bool strata_allocations_count(void)
{
    static bool counting;
    if (__sanitizer_install_malloc_and_free_hooks == NULL)
        return false;
    STRATA_CHECK(counting || __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0);
    counting = true;
    return true;
}

void strata_allocations_reset(void)
{
    taken_bytes = 0;
}

uint64_t strata_allocations_bytes(void)
{
    return taken_bytes;
}
