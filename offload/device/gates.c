/*
 * Gates; see gates.h. One lock and one condition serve all of them: a layer raises a few, and
 * one or two threads wait at a time. On Linux neither can fail to be made with default
 * attributes.
 *
 * Thread: any.
 */

#include "offload/device/gates.h"

#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct gates {
    pthread_mutex_t lock;
    pthread_cond_t raised;
    uint32_t count;
    uint64_t values[];
};

strata_status strata_gates_create(struct gates **out, uint32_t count, strata_error *error)
{
    *out = NULL;
    struct gates *gates = calloc(1, sizeof *gates + count * sizeof gates->values[0]);
    if (gates == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "memory for %" PRIu32 " gates: %s",
                           count, strerror(ENOMEM));
    pthread_mutex_init(&gates->lock, NULL);
    pthread_cond_init(&gates->raised, NULL);
    gates->count = count;
    *out = gates;
    return STRATA_OK;
}

void strata_gates_destroy(struct gates *gates)
{
    if (gates == NULL)
        return;
    pthread_cond_destroy(&gates->raised);
    pthread_mutex_destroy(&gates->lock);
    free(gates);
}

void strata_gate_open(struct gates *gates, uint32_t gate, uint64_t value)
{
    STRATA_CHECK(gate < gates->count);
    pthread_mutex_lock(&gates->lock);
    if (gates->values[gate] < value)
        gates->values[gate] = value;
    pthread_cond_broadcast(&gates->raised);
    pthread_mutex_unlock(&gates->lock);
}

void strata_gate_wait(struct gates *gates, uint32_t gate, uint64_t value)
{
    STRATA_CHECK(gate < gates->count);
    pthread_mutex_lock(&gates->lock);
    while (gates->values[gate] < value)
        pthread_cond_wait(&gates->raised, &gates->lock);
    pthread_mutex_unlock(&gates->lock);
}
