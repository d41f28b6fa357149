#ifndef STRATA_STATUS_H
#define STRATA_STATUS_H

/*
 * Status codes and the story of a failure.
 *
 * Every function that can fail returns a strata_status and must not be ignored. The number of
 * codes is the number of different things a caller does about a failure; the cause is in the
 * message and in the native code (errno, cudaError_t, ...). A message is one line, lower case,
 * made by the first function that knew the cause: what was tried, what came back, what to do.
 *
 *     strata_error error = {0};
 *     if (strata_engine_create(&engine, &desc, &error) != STRATA_OK)
 *         fprintf(stderr, "my-program: %s\n", error.message);
 *
 * At creation the error is an out-parameter of the caller's, which may be NULL. It is zeroed
 * before its first use; a story that is there already is kept. Afterwards it lives with the
 * object: the first failure sticks and every later call returns it.
 *
 * Thread: plain data; an error belongs to whoever declared it.
 */

#include <stdint.h>

#define STRATA_VERSION_STRING "0.1.0"

#if defined(__GNUC__)
#    define STRATA_API                 __attribute__((visibility("default")))
#    define STRATA_NODISCARD           __attribute__((warn_unused_result))
#    define STRATA_PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))
#else
#    define STRATA_API
#    define STRATA_NODISCARD
#    define STRATA_PRINTF(text, first)
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum strata_status {
    STRATA_OK = 0,
    STRATA_E_INVALID,     /* a descriptor or an argument cannot be meant that way */
    STRATA_E_STATE,       /* a call in the wrong order, or an object that is in use */
    STRATA_E_NOMEM,       /* a tier is too small; the message names tier, need and have */
    STRATA_E_IO,          /* a file or a drive; native is the errno */
    STRATA_E_CORRUPT,     /* bytes came back that are not the ones written */
    STRATA_E_DEVICE,      /* the device; native is its own error code */
    STRATA_E_COMM,        /* another rank */
    STRATA_E_TIMEOUT,     /* a deadline passed */
    STRATA_E_UNSUPPORTED, /* this machine or this build lacks something that was asked for */
    STRATA_E_NUMERIC      /* a norm that is not finite; the last committed step stands */
} strata_status;

typedef struct strata_error {
    strata_status status;
    int64_t native;    /* errno, cudaError_t, ...; 0 where there is none */
    char message[248]; /* one line, no newline; empty when status is OK */
} strata_error;

/* The name of a status without its prefix, such as "nomem". Static storage. Thread: any. */
STRATA_API const char *strata_status_name(strata_status status);

/* The version the library was built as, "major.minor.patch". Thread: any. */
STRATA_API const char *strata_version(void);

#ifdef __cplusplus
}
#endif

#endif
