#define _GNU_SOURCE

/*
 * A bounded queue of small messages: a ring under one mutex.
 *
 * Two facts shape this file.
 *
 * Messages are copied in and out under the lock. They are tens of bytes, and each stands for
 * megabytes of work, so holding the lock for a copy does not matter, and no slot is ever half
 * written.
 *
 * Timed waits use CLOCK_MONOTONIC. The default of a condition is the clock of the date. When
 * the date is set, that clock jumps, and a deadline would be missed or a wait would never end.
 *
 * Everything is allocated at create, in one piece. At destroy no thread may be in a call.
 *
 * Thread: any number of senders, one receiver; docs/threads.md says who is which.
 */

#include "base/channel.h"

#include "base/clock.h"
#include "base/error.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

/* A message is a note, not a payload; anything larger should be a pointer to it. */
#define MESSAGE_BYTES_MAX 4096u

struct channel {
    pthread_mutex_t mutex;
    pthread_cond_t not_empty; /* the receiver waits for it, on CLOCK_MONOTONIC */
    pthread_cond_t not_full;  /* senders wait for it */
    size_t message_bytes;
    uint32_t capacity;
    uint32_t count;
    uint32_t head; /* the oldest message's slot */
    unsigned char slots[];
};

static int init_monotonic_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int result = pthread_condattr_init(&attr);
    if (result != 0)
        return result;
    result = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (result == 0)
        result = pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
    return result;
}

static unsigned char *slot_address(struct channel *channel, uint32_t after_head)
{
    uint64_t index = ((uint64_t)channel->head + after_head) % channel->capacity;
    return channel->slots + index * channel->message_bytes;
}

/* Wait until there is a message. false: the deadline has passed and there is none. */
static bool wait_for_message(struct channel *channel, uint64_t deadline_ns)
{
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                                .tv_nsec = (long)(deadline_ns % 1000000000u)};
    int result = 0;
    while (channel->count == 0 && result == 0) {
        if (deadline_ns == UINT64_MAX)
            result = pthread_cond_wait(&channel->not_empty, &channel->mutex);
        else
            result = pthread_cond_timedwait(&channel->not_empty, &channel->mutex, &deadline);
    }
    return channel->count > 0;
}

strata_status strata_channel_create(struct channel **out, uint32_t capacity,
                                    size_t message_bytes, strata_error *error)
{
    STRATA_CHECK(capacity > 0);
    *out = NULL;
    size_t bytes = strata_channel_bytes(capacity, message_bytes);
    struct channel *channel = calloc(1, bytes);
    if (!channel)
        return strata_fail(error, STRATA_E_NOMEM, 0, "channel of %u messages: no %zu bytes",
                           capacity, bytes);
    channel->capacity = capacity;
    channel->message_bytes = message_bytes;
    int result = pthread_mutex_init(&channel->mutex, NULL);
    if (result != 0)
        goto free_channel;
    result = init_monotonic_cond(&channel->not_empty);
    if (result != 0)
        goto destroy_mutex;
    result = pthread_cond_init(&channel->not_full, NULL);
    if (result != 0)
        goto destroy_not_empty;
    *out = channel;
    return STRATA_OK;

destroy_not_empty:
    pthread_cond_destroy(&channel->not_empty);
destroy_mutex:
    pthread_mutex_destroy(&channel->mutex);
free_channel:
    free(channel);
    return strata_fail(error, STRATA_E_NOMEM, result, "locks of a channel: %s",
                       strerror(result));
}

void strata_channel_destroy(struct channel *channel)
{
    if (!channel)
        return;
    pthread_cond_destroy(&channel->not_full);
    pthread_cond_destroy(&channel->not_empty);
    pthread_mutex_destroy(&channel->mutex);
    free(channel);
}

size_t strata_channel_bytes(uint32_t capacity, size_t message_bytes)
{
    STRATA_CHECK(message_bytes > 0 && message_bytes <= MESSAGE_BYTES_MAX);
    return sizeof(struct channel) + capacity * message_bytes;
}

void strata_channel_send(struct channel *channel, const void *message)
{
    pthread_mutex_lock(&channel->mutex);
    while (channel->count == channel->capacity)
        pthread_cond_wait(&channel->not_full, &channel->mutex);
    memcpy(slot_address(channel, channel->count), message, channel->message_bytes);
    channel->count++;
    pthread_cond_signal(&channel->not_empty);
    pthread_mutex_unlock(&channel->mutex);
}

bool strata_channel_receive(struct channel *channel, void *out_message, uint64_t timeout_ns)
{
    /* A busy receiver polls with timeout 0, so that case does not read the clock. */
    uint64_t now_ns = timeout_ns == 0 ? 0 : strata_now_ns();
    bool endless = timeout_ns > UINT64_MAX - now_ns - 1;
    pthread_mutex_lock(&channel->mutex);
    bool came = channel->count > 0 ||
                (timeout_ns > 0 &&
                 wait_for_message(channel, endless ? UINT64_MAX : now_ns + timeout_ns));
    if (came) {
        memcpy(out_message, slot_address(channel, 0), channel->message_bytes);
        channel->head = (channel->head + 1) % channel->capacity;
        channel->count--;
        pthread_cond_signal(&channel->not_full);
    }
    pthread_mutex_unlock(&channel->mutex);
    return came;
}
