#ifndef STRATA_BASE_CHANNEL_H
#define STRATA_BASE_CHANNEL_H

/*
 * A bounded queue of small messages of one size, by which other threads reach a thread that
 * owns something. One mutex and two conditions are enough, since a message stands for megabytes
 * of work.
 *
 * Thread: any number may send; one receives.
 */

#include "strata/status.h"

#include <stdbool.h>
#include <stddef.h>

struct channel;

/* capacity: in messages. Senders that must not block need room for all their messages. */
strata_status strata_channel_create(struct channel **out, uint32_t capacity,
                                    size_t message_bytes, strata_error *error);
void strata_channel_destroy(struct channel *channel);

/* Bytes of memory that create takes. */
size_t strata_channel_bytes(uint32_t capacity, size_t message_bytes);

/* Copies the message; blocks while the channel is full. */
void strata_channel_send(struct channel *channel, const void *message);

/* Copies the oldest message out; waits at most timeout_ns (UINT64_MAX: without limit). false:
 * no message came. */
bool strata_channel_receive(struct channel *channel, void *out_message, uint64_t timeout_ns);

#endif
