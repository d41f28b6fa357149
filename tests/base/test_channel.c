#define _GNU_SOURCE

/* The channel: order, bounds, time-outs, many senders. */

#include "base/channel.h"

#include "base/clock.h"
#include "base/error.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

struct note {
    uint32_t sender;
    uint32_t number;
    char text[20];
};

static struct channel *make(uint32_t capacity)
{
    struct channel *channel;
    strata_error error = {0};
    cr_assert_eq(strata_channel_create(&channel, capacity, sizeof(struct note), &error),
                 STRATA_OK, "%s", error.message);
    return channel;
}

/* A lost wake-up hangs: then the test fails instead. */
Test(channel, messages_come_out_in_order_and_whole)
{
    struct channel *channel = make(3);
    uint32_t sent = 0;
    uint32_t received = 0;
    /* Fill levels 1, 2, 3, 1, ... so that head and tail wrap at every distance. */
    for (uint32_t round = 0; round < 100; round++) {
        for (uint32_t i = 0; i <= round % 3; i++) {
            struct note note = {.number = sent++, .text = "nineteen characters"};
            strata_channel_send(channel, &note);
        }
        while (received < sent) {
            struct note note;
            cr_assert(strata_channel_receive(channel, &note, UINT64_MAX));
            cr_assert_eq(note.number, received++);
            cr_assert_str_eq(note.text, "nineteen characters");
        }
    }
    strata_channel_destroy(channel);
}

Test(channel, empty_receive_without_time_returns_at_once)
{
    struct channel *channel = make(1);
    struct note note;
    cr_assert_not(strata_channel_receive(channel, &note, 0));
    strata_channel_send(channel, &(struct note){.number = 5});
    cr_assert(strata_channel_receive(channel, &note, 0));
    cr_assert_eq(note.number, 5);
    strata_channel_destroy(channel);
}

Test(channel, receive_gives_up_after_its_time_and_not_before)
{
    struct channel *channel = make(1);
    struct note note;
    uint64_t begin_ns = strata_now_ns();
    cr_assert_not(strata_channel_receive(channel, &note, 30000000));
    uint64_t waited_ns = strata_now_ns() - begin_ns;
    cr_assert_geq(waited_ns, 30000000);
    strata_channel_destroy(channel);
}

struct sender {
    struct channel *channel;
    uint32_t index;
    uint32_t count;
    uint32_t delay_us;
    _Atomic uint32_t sent; /* written by the sender after each send, read by the test */
};

static void *send_many(void *arg)
{
    struct sender *sender = arg;
    for (uint32_t i = 0; i < sender->count; i++) {
        if (sender->delay_us)
            usleep(sender->delay_us);
        struct note note = {.sender = sender->index, .number = i};
        strata_channel_send(sender->channel, &note);
        sender->sent++;
    }
    return NULL;
}

Test(channel, a_waiting_receiver_is_woken)
{
    static const uint64_t timeouts[] = {UINT64_MAX, UINT64_MAX - 1, 3600000000000};
    for (size_t i = 0; i < 3; i++) {
        struct channel *channel = make(1);
        struct sender sender = {.channel = channel, .count = 1, .delay_us = 20000};
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, send_many, &sender), 0);
        struct note note;
        cr_assert(strata_channel_receive(channel, &note, timeouts[i]));
        pthread_join(thread, NULL);
        strata_channel_destroy(channel);
    }
}

Test(channel, a_full_channel_holds_its_sender_back)
{
    struct channel *channel = make(4);
    struct sender sender = {.channel = channel, .count = 10};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, send_many, &sender), 0);
    while (sender.sent < 4)
        usleep(100);
    usleep(20000); /* a fifth would have time */
    cr_assert_eq(sender.sent, 4);
    struct note note;
    for (uint32_t i = 0; i < 10; i++) {
        cr_assert(strata_channel_receive(channel, &note, UINT64_MAX));
        cr_assert_eq(note.number, i);
    }
    pthread_join(thread, NULL);
    cr_assert_not(strata_channel_receive(channel, &note, 0));
    strata_channel_destroy(channel);
}

Test(channel, many_senders_lose_nothing_and_keep_their_own_order)
{
    enum { SENDERS = 6, EACH = 20000 };
    struct channel *channel = make(7);
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];
    uint32_t next[SENDERS] = {0};
    for (uint32_t i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.channel = channel, .index = i, .count = EACH};
        cr_assert_eq(pthread_create(&threads[i], NULL, send_many, &senders[i]), 0);
    }
    for (uint32_t i = 0; i < SENDERS * EACH; i++) {
        struct note note;
        cr_assert(strata_channel_receive(channel, &note, 60000000000));
        cr_assert_lt(note.sender, SENDERS);
        cr_assert_eq(note.number, next[note.sender]++);
    }
    for (uint32_t i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    strata_channel_destroy(channel);
}

Test(channel, bytes_cover_every_message)
{
    size_t one = strata_channel_bytes(1, 24);
    cr_assert_eq(strata_channel_bytes(101, 24), one + 100 * 24);
}

Test(channel, destroy_accepts_null)
{
    strata_channel_destroy(NULL);
}
