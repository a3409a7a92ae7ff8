/* The crowd talks: each speaker as fast as a window allows, or all at a given pace. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

static const uint32_t TIMER = UINT32_MAX;

uint64_t messages;

/* An epoll with everybody in it who reads. */
int watch(void) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) trouble("no epoll");
    for (int i = 0; i < client_count; i++) {
        if (clients[i].stalled) continue;
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &event) != 0) trouble("a socket cannot be watched");
    }
    return epoll;
}

static void say(int index, uint64_t at_ns) {
    Speaker *speaker = &speakers[index];
    const Client *client = &clients[speaker->client];
    Message *message = &speaker->ring[speaker->said & (ring_size - 1)];
    char text[TEXT], name[16];
    text_of(text, index, speaker->said);
    snprintf(name, sizeof name, "c%05d", speaker->client);
    for (int m = 0; m < order.mixes; m++) {
        const Dialect *d = dialect_named(order.mix[m]);
        heard_line(d, message->line[d - dialects], name, text);
    }
    message->said_ns = at_ns;
    message->left = speaker->listeners;
    speaker->said++;
    if (speaker->out_len + MAX_LINE > speaker->out_cap) {
        speaker->out_cap = speaker->out_cap ? speaker->out_cap * 2 : 1 << 16;
        speaker->out = realloc(speaker->out, speaker->out_cap);
        if (!speaker->out) trouble("out of memory");
    }
    speaker->out_len += said_line(client->dialect, speaker->out + speaker->out_len, text);
}

/* What the kernel does not take stays, and is offered again in the next turn of the loop. */
static bool push(Speaker *speaker) {
    if (speaker->out_len == 0) return true;
    ssize_t sent = send(clients[speaker->client].fd, speaker->out, speaker->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) fault("closed", "a speaker could not speak: %s", strerror(errno));
    if (sent > 0) {
        speaker->out_len -= (size_t)sent;
        memmove(speaker->out, speaker->out + sent, speaker->out_len);
    }
    return speaker->out_len == 0;
}

static bool all_pushed(void) {
    bool whole = true;
    for (int s = 0; s < order.speakers; s++) whole &= push(&speakers[s]);
    return whole;
}

/* Said, and not yet heard by all (or not yet acknowledged, where that is all that a speaker hears). */
static uint64_t undelivered(void) {
    uint64_t sum = 0;
    for (int s = 0; s < order.speakers; s++) {
        const Client *c = &clients[speakers[s].client];
        sum += speakers[s].said - speakers[s].done;
        if (!c->hears) sum += speakers[s].said - c->acknowledged;
    }
    return sum;
}

static void fill_windows(void) {
    for (int s = 0; s < order.speakers; s++)
        if (speakers[s].said - speakers[s].done < (uint32_t)order.window) {
            uint64_t at_ns = now_ns();
            while (speakers[s].said - speakers[s].done < (uint32_t)order.window) say(s, at_ns);
        }
}

static _Noreturn void nothing_comes(void) {
    for (int s = 0; s < order.speakers; s++)
        if (speakers[s].done < speakers[s].said)
            fault("missing", "nothing came for %g s: %u of %u listeners have not heard %c/%u", order.patience_s,
                  speakers[s].ring[speakers[s].done & (ring_size - 1)].left, speakers[s].listeners, 'a' + s,
                  speakers[s].done);
    fault("missing", "nothing came for %g s: what was published was not acknowledged", order.patience_s);
}

Talk talk(void) {
    Talk result = {0};
    int epoll = watch(), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event events[256], event = {.events = EPOLLIN, .data.u32 = TIMER};
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    uint64_t start = now_ns(), begin = start + (uint64_t)(order.warm_s * 1e9);
    uint64_t end = begin + (uint64_t)(order.seconds * 1e9), last_progress = start, before = 0, next_rss = begin;
    uint64_t interval = order.rate > 0 ? (uint64_t)(1e9 / order.rate) : 0, due = start + interval;
    int turn = 0;
    enum { WARM, MEASURED, DRAINED } phase = WARM;
    result.peak_rss_kb = server_rss_kb();
    for (;;) {
        uint64_t now = now_ns();
        if (phase == WARM && now >= begin) {
            phase = MEASURED;
            result.begin = account();
            latency_begin();
        }
        if (phase == MEASURED && now >= next_rss) { /* ten looks a second: enough to see memory grow, cheap enough */
            long rss = server_rss_kb();
            if (rss > result.peak_rss_kb) result.peak_rss_kb = rss;
            next_rss = now + 100000000u;
        }
        if (phase == MEASURED && now >= end) {
            phase = DRAINED;
            latency_end();
            result.end = account();
        }
        if (phase == DRAINED && undelivered() == 0) break;
        if (phase != DRAINED && order.window) fill_windows();
        while (phase != DRAINED && interval && now >= due) {
            if (speakers[turn].said - speakers[turn].done >= ring_size) {
                result.overloaded = true; /* it cannot keep this pace: what follows would be said later than due */
                end = now;
                break;
            }
            say(turn, due); /* due, not now: a late speaker does not hide a slow server */
            turn = (turn + 1) % order.speakers;
            due += interval;
        }
        bool whole = all_pushed();
        uint64_t wake = phase == WARM ? begin : phase == MEASURED ? end : now + 100000000u;
        if (interval && phase != DRAINED && due < wake) wake = due;
        if (!whole && now + 200000u < wake) wake = now + 200000u;
        struct itimerspec at = {.it_value = {(time_t)(wake / 1000000000u), (long)(wake % 1000000000u)}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        int n = epoll_wait(epoll, events, 256, 1000);
        for (int i = 0; i < n; i++) {
            uint64_t ticks;
            if (events[i].data.u32 != TIMER) read_client(&clients[events[i].data.u32]);
            else if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) trouble("the timer failed");
        }
        now = now_ns();
        if (deliveries != before || undelivered() == 0) {
            before = deliveries;
            last_progress = now;
        } else if (now - last_progress > (uint64_t)(order.patience_s * 1e9)) nothing_comes();
    }
    close(timer);
    close(epoll);
    return result;
}
