/* Sends messages: each sender as fast as its window allows, or all senders together at a fixed rate. */
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

/* An epoll instance with every client that reads. */
int watch_clients(void) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) fail_load("cannot create an epoll instance");
    for (int i = 0; i < client_count; i++) {
        if (clients[i].stalled) continue;
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &event) != 0) fail_load("cannot watch a socket");
    }
    return epoll;
}

static void queue_message(int index, uint64_t at_ns) {
    Sender *sender = &senders[index];
    const Client *client = &clients[sender->client];
    Message *message = &sender->ring[sender->sent & (ring_size - 1)];
    char text[TEXT], name[16];
    make_text(text, letter_of(index), sender->sent);
    snprintf(name, sizeof name, "c%05d", sender->client);
    for (int m = 0; m < options.mixes; m++) {
        const Dialect *d = find_dialect(options.mix[m]);
        make_received_line(d, message->line[d - dialects], name, text);
    }
    message->sent_ns = at_ns;
    message->pending = sender->receivers;
    sender->sent++;
    if (sender->out_len + MAX_LINE > sender->out_cap) {
        sender->out_cap = sender->out_cap ? sender->out_cap * 2 : 1 << 16;
        sender->out = realloc(sender->out, sender->out_cap);
        if (!sender->out) fail_load("out of memory");
    }
    sender->out_len += make_sent_line(client->dialect, sender->out + sender->out_len, text);
}

/* Bytes that the kernel does not accept are offered again in the next iteration. */
static bool flush(Sender *sender) {
    if (sender->out_len == 0) return true;
    ssize_t sent = send_bytes(&clients[sender->client], sender->out, sender->out_len, MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) fail("closed", "a sender could not send: %s", strerror(errno));
    if (sent > 0) {
        sender->out_len -= (size_t)sent;
        memmove(sender->out, sender->out + sent, sender->out_len);
    }
    return sender->out_len == 0;
}

static bool flush_all(void) {
    bool flushed = true;
    for (int s = 0; s < options.senders; s++) flushed &= flush(&senders[s]);
    return flushed;
}

/* Messages that some client has not received, or that a connection without messages has not seen acknowledged. */
static uint64_t undelivered(void) {
    uint64_t sum = 0;
    for (int s = 0; s < options.senders; s++) {
        const Client *c = &clients[senders[s].client];
        sum += senders[s].sent - senders[s].done;
        if (!c->receives) sum += senders[s].sent - c->acknowledged;
    }
    return sum;
}

static void fill_windows(void) {
    for (int s = 0; s < options.senders; s++)
        if (senders[s].sent - senders[s].done < (uint32_t)options.window) {
            uint64_t at_ns = now_ns();
            while (senders[s].sent - senders[s].done < (uint32_t)options.window) queue_message(s, at_ns);
        }
}

static _Noreturn void fail_missing(void) {
    for (int s = 0; s < options.senders; s++)
        if (senders[s].done < senders[s].sent)
            fail("missing", "nothing arrived for %g s: %u of %u clients have not received %c/%u", options.timeout_s,
                  senders[s].ring[senders[s].done & (ring_size - 1)].pending, senders[s].receivers, letter_of(s),
                  senders[s].done);
    fail("missing", "nothing arrived for %g s: messages were not acknowledged", options.timeout_s);
}

/* Stalled clients are only watched for the end of their connection. */
static void watch_stalled(int epoll) {
    for (int i = 0; i < client_count; i++) {
        struct epoll_event event = {.events = EPOLLRDHUP, .data.u32 = (uint32_t)i};
        if (clients[i].stalled && epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &event) != 0)
            fail_load("cannot watch a socket");
    }
}

Traffic run_traffic(void) {
    Traffic result = {.dropped_s = -1};
    int epoll = watch_clients(), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event events[256], event = {.events = EPOLLIN, .data.u32 = TIMER};
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    uint64_t start = now_ns(), begin = start + (uint64_t)(options.warm_s * 1e9);
    watch_stalled(epoll);
    int stalled = options.stalled;
    uint64_t end = begin + (uint64_t)(options.seconds * 1e9), last_progress = start, before = 0, next_rss = start;
    uint64_t interval = options.rate > 0 ? (uint64_t)(1e9 / options.rate) : 0, due = start + interval;
    int next_sender = 0;
    enum { WARM, MEASURED, DRAINING } phase = WARM;
    result.peak_rss_kb = server_rss_kb();
    for (;;) {
        uint64_t now = now_ns();
        if (phase == WARM && now >= begin) {
            phase = MEASURED;
            result.begin = sample();
            latency_begin();
        }
        if (phase != DRAINING && now >= next_rss) { /* ten samples a second show growth at little cost */
            long rss = server_rss_kb();
            if (rss > result.peak_rss_kb) result.peak_rss_kb = rss;
            next_rss = now + 100000000u;
        }
        if (phase == MEASURED && now >= end) {
            phase = DRAINING;
            latency_end();
            result.end = sample();
        }
        if (phase == DRAINING && undelivered() == 0) break;
        if (phase != DRAINING && options.window) fill_windows();
        while (phase != DRAINING && interval && now >= due) {
            if (senders[next_sender].sent - senders[next_sender].done >= ring_size) {
                result.overloaded = true; /* the server does not keep up, and the window is full */
                end = now;
                break;
            }
            /* Latency counts from when the message was due, so a late sender cannot hide a slow server. */
            queue_message(next_sender, due);
            next_sender = (next_sender + 1) % options.senders;
            due += interval;
        }
        bool flushed = flush_all();
        uint64_t wake = phase == WARM ? begin : phase == MEASURED ? end : now + 100000000u;
        if (interval && phase != DRAINING && due < wake) wake = due;
        if (!flushed && now + 200000u < wake) wake = now + 200000u;
        struct itimerspec at = {.it_value = {(time_t)(wake / 1000000000u), (long)(wake % 1000000000u)}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        int n = epoll_wait(epoll, events, 256, 1000);
        for (int i = 0; i < n; i++) {
            uint64_t ticks;
            uint32_t index = events[i].data.u32;
            if (index == TIMER) {
                if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) fail_load("cannot read the timer");
            } else if (clients[index].stalled) {
                epoll_ctl(epoll, EPOLL_CTL_DEL, clients[index].fd, NULL);
                if (--stalled > 0) continue;
                now = now_ns();
                result.dropped_s = (double)(now - start) / 1e9;
                if (phase != WARM) continue;
                begin = now; /* what is measured is the chat after that */
                end = begin + (uint64_t)(options.seconds * 1e9);
            } else read_client(&clients[index]);
        }
        now = now_ns();
        if (deliveries != before || undelivered() == 0) {
            before = deliveries;
            last_progress = now;
        } else if (now - last_progress > (uint64_t)(options.timeout_s * 1e9)) fail_missing();
    }
    close(timer);
    close(epoll);
    return result;
}
