/* Compares every line that every client receives, byte for byte, with the line expected next from its sender. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { CHUNK = 256 * 1024, HEAD = 64 * 1024 };

uint64_t deliveries;
bool fencing, joining;
int fenced_count;

static const char *name_of(const Client *client) {
    static char name[16];
    snprintf(name, sizeof name, "c%05d", (int)(client - clients));
    return name;
}

/* The received bytes are not what is expected. Find out what they are, for a useful error message. */
_Noreturn static void diagnose(const Client *client, const char *p, size_t rest) {
    const Dialect *d = client->dialect;
    int shown = rest < 100 ? (int)rest : 100;
    if (rest >= d->recv_len && memcmp(p, d->begins, d->recv_prefix) == 0) {
        const char *text = p + d->text_at;
        int sender = sender_of((int)(client - clients), text[0]);
        char digits[NUMBER + 1] = {0}, expected[TEXT];
        memcpy(digits, text + NUMBER_AT, NUMBER);
        char *end;
        unsigned long number = strtoul(digits, &end, 10);
        if (text[0] >= 'a' && sender < options.senders && *end == 0) {
            uint32_t next = client->next[text[0] - 'a'];
            make_text(expected, text[0], (uint32_t)number);
            if (memcmp(expected, text, TEXT) == 0) {
                if (number > next)
                    fail("gap", "%s received %c/%lu, expected %c/%u: lost or out of order", name_of(client), text[0],
                         number, text[0], next);
                if (number < next)
                    fail("duplicate", "%s received %c/%lu a second time, expected %c/%u", name_of(client), text[0],
                         number, text[0], next);
                if (number >= senders[sender].sent)
                    fail("corrupt", "%s received %c/%lu, which was not sent", name_of(client), text[0], number);
            }
        }
    }
    fail(fencing ? "unexpected" : "corrupt", "%s received a line that was not sent: %.*s", name_of(client), shown, p);
}

static bool starts_with(const char *p, size_t rest, const char *prefix, size_t len) {
    return memcmp(p, prefix, rest < len ? rest : len) == 0;
}

/* Length of a notice (a client joined or left), 0 if this is none, -1 if its end has not arrived. */
static ssize_t notice_len(const Client *client, const char *p, size_t rest) {
    for (int i = 0; i < 3 && client->dialect->notices[i]; i++) {
        const char *prefix = client->dialect->notices[i];
        size_t len = strlen(prefix);
        if (client->dialect->framed) {
            size_t begin, end;
            if (!find_payload(p, rest, &begin, &end)) return -1;
            if (starts_with(p + begin, end - begin, prefix, len)) return (ssize_t)end;
            continue;
        }
        if (!starts_with(p, rest, prefix, len)) continue;
        const char *end = memchr(p, '\n', rest);
        return end ? end + 1 - p : -1;
    }
    return 0;
}

static void count_delivery(int sender_index, Message *message, uint64_t at_ns) {
    deliveries++;
    if (--message->pending > 0) return;
    Sender *sender = &senders[sender_index];
    sender->done++; /* each client receives in order, so messages are completed in order */
    messages++;
    latency_add(at_ns > message->sent_ns ? at_ns - message->sent_ns : 0);
}

/* Returns how many bytes at the end are the start of a line that has not arrived completely. */
static size_t verify(Client *client, const char *p, const char *end, uint64_t at_ns) {
    const Dialect *d = client->dialect;
    const int form = (int)(d - dialects);
    const size_t len = d->recv_len, fence_len = d->fenced_len;
    const uint32_t mask = ring_size - 1;
    while (p < end) {
        size_t rest = (size_t)(end - p);
        if (rest >= len) {
            const int letter = p[d->text_at] - 'a', sender = sender_of((int)(client - clients), p[d->text_at]);
            if (letter >= 0 && sender < options.senders && client->next[letter] < senders[sender].sent) {
                Message *message = &senders[sender].ring[client->next[letter] & mask];
                if (same_line(d, p, message->line[form])) {
                    client->next[letter]++;
                    count_delivery(sender, message, at_ns);
                    p += len;
                    continue;
                }
            }
        }
        if (fencing && !client->fenced && starts_with(p, rest, d->fenced, fence_len)) {
            if (rest < fence_len) return rest;
            client->fenced = true;
            fenced_count++;
            p += fence_len;
            continue;
        }
        if (joining || options.stalled > 0) {
            ssize_t skipped = notice_len(client, p, rest);
            if (skipped < 0) return rest;
            if (skipped > 0) {
                p += skipped;
                continue;
            }
        }
        /* At a fence every message has been received, so an incomplete line cannot be a message. */
        if (fencing || rest >= len || !starts_with(p, rest, d->begins, d->recv_prefix)) diagnose(client, p, rest);
        return rest;
    }
    return 0;
}

/* A connection that only publishes receives one answer per message: an integer, or PONG to its fence. */
static void acknowledge(Client *client, const char *p, const char *end) {
    for (; p < end; p++) {
        if (client->answer_at == 0 && *p == '-') fail("refused", "%s: %.*s", name_of(client), (int)(end - p), p);
        client->answer_at++;
        if (*p == '\n') {
            client->acknowledged++;
            client->answer_at = 0;
        }
    }
}

void receive(Client *client, char *from, size_t len, uint64_t at_ns) {
    if (!client->receives) {
        acknowledge(client, from, from + len);
        return;
    }
    char *begin = from - client->carry_len; /* the caller leaves room for it in front of the chunk */
    if (client->carry_len) memcpy(begin, client->carry, client->carry_len);
    size_t kept = verify(client, begin, from + len, at_ns);
    if (kept > HEAD) fail_load("a line is longer than any known line");
    if (kept > client->carry_cap) {
        client->carry_cap = kept < MAX_LINE ? MAX_LINE : kept;
        client->carry = realloc(client->carry, client->carry_cap);
        if (!client->carry) fail_load("out of memory");
    }
    if (kept) memcpy(client->carry, from + len - kept, kept);
    client->carry_len = kept;
}

void read_client(Client *client) {
    static char area[HEAD + CHUNK];
    ssize_t got = receive_bytes(client, area + HEAD, CHUNK, MSG_DONTWAIT);
    if (got > 0) receive(client, area + HEAD, (size_t)got, now_ns());
    else if (got == 0) fail("closed", "the server closed the connection of %s", name_of(client));
    else if (errno != EAGAIN && errno != EINTR)
        fail("closed", "the connection of %s failed: %s", name_of(client), strerror(errno));
}
