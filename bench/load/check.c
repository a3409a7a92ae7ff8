/* Every line that every listener hears is compared, byte for byte, with the one that is due from its speaker. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { CHUNK = 256 * 1024, HEAD = 64 * 1024 };

uint64_t deliveries;
bool fencing, opening;
int fenced_count;

static const char *name_of(const Client *client) {
    static char name[16];
    snprintf(name, sizeof name, "c%05d", (int)(client - clients));
    return name;
}

/* Nothing matched: find out what it is, so that the report helps. */
_Noreturn static void diagnose(const Client *client, const char *p, size_t rest) {
    const Dialect *d = client->dialect;
    int shown = rest < 100 ? (int)rest : 100;
    if (rest >= d->hear_len && memcmp(p, d->hear_before, d->hear_prefix) == 0) {
        const char *text = p + d->text_at;
        int who = text[0] - 'a';
        char digits[NUMBER + 1] = {0}, expected[TEXT];
        memcpy(digits, text + NUMBER_AT, NUMBER);
        char *end;
        unsigned long number = strtoul(digits, &end, 10);
        if (who >= 0 && who < order.speakers && *end == 0) {
            uint32_t due = client->next[who];
            text_of(expected, who, (uint32_t)number);
            if (memcmp(expected, text, TEXT) == 0) {
                if (number > due)
                    fault("gap", "%s heard %c/%lu where %c/%u was due: lost, or out of order", name_of(client),
                          text[0], number, text[0], due);
                if (number < due)
                    fault("again", "%s heard %c/%lu a second time; %c/%u was due", name_of(client), text[0], number,
                          text[0], due);
                if (number >= speakers[who].said)
                    fault("garbled", "%s heard %c/%lu, which nobody has said", name_of(client), text[0], number);
            }
        }
    }
    fault(fencing ? "surplus" : "garbled", "%s heard what nobody said: %.*s", name_of(client), shown, p);
}

static bool begins(const char *p, size_t rest, const char *with, size_t len) {
    return memcmp(p, with, rest < len ? rest : len) == 0;
}

/* Bytes of one notice (someone came or went), 0 if it is none, -1 if its end has not come. */
static ssize_t notice(const Client *client, const char *p, size_t rest) {
    for (int i = 0; i < 3 && client->dialect->notices[i]; i++) {
        const char *beginning = client->dialect->notices[i];
        size_t len = strlen(beginning);
        if (!begins(p, rest, beginning, len)) continue;
        const char *end = memchr(p, '\n', rest);
        return end ? end + 1 - p : -1;
    }
    return 0;
}

static void heard_message(int who, Message *message, uint64_t at_ns) {
    deliveries++;
    if (--message->left > 0) return;
    Speaker *speaker = &speakers[who];
    speaker->done++; /* each listener hears in order, so messages are done in order */
    messages++;
    latency_add(at_ns > message->said_ns ? at_ns - message->said_ns : 0);
}

/* Returns how many bytes at the end are the beginning of something that is still to come. */
static size_t check(Client *client, const char *p, const char *end, uint64_t at_ns) {
    const Dialect *d = client->dialect;
    const int form = (int)(d - dialects);
    const size_t len = d->hear_len, fence_len = strlen(d->fence_answer);
    const uint32_t mask = ring_size - 1;
    while (p < end) {
        size_t rest = (size_t)(end - p);
        if (rest >= len) {
            int who = p[d->text_at] - 'a';
            if (who >= 0 && who < order.speakers && client->next[who] < speakers[who].said) {
                Message *message = &speakers[who].ring[client->next[who] & mask];
                if (same_line(d, p, message->line[form])) {
                    client->next[who]++;
                    heard_message(who, message, at_ns);
                    p += len;
                    continue;
                }
            }
        }
        if (fencing && !client->fenced && begins(p, rest, d->fence_answer, fence_len)) {
            if (rest < fence_len) return rest;
            client->fenced = true;
            fenced_count++;
            p += fence_len;
            continue;
        }
        if (opening || order.stalled > 0) {
            ssize_t skipped = notice(client, p, rest);
            if (skipped < 0) return rest;
            if (skipped > 0) {
                p += skipped;
                continue;
            }
        }
        /* At a fence all that was said has been heard, so no line of a message can be on its way. */
        if (fencing || rest >= len || !begins(p, rest, d->hear_before, d->hear_prefix)) diagnose(client, p, rest);
        return rest;
    }
    return 0;
}

/* One that only publishes hears an answer to each: an integer, or PONG to its fence. */
static void acknowledge(Client *client, const char *p, const char *end) {
    for (; p < end; p++) {
        if (client->answer_at == 0 && *p == '-') fault("refused", "%s: %.*s", name_of(client), (int)(end - p), p);
        client->answer_at++;
        if (*p == '\n') {
            client->acknowledged++;
            client->answer_at = 0;
        }
    }
}

void hear(Client *client, char *from, size_t len, uint64_t at_ns) {
    if (!client->hears) {
        acknowledge(client, from, from + len);
        return;
    }
    char *begin = from - client->carry_len; /* room for it is kept in front of the chunk */
    if (client->carry_len) memcpy(begin, client->carry, client->carry_len);
    size_t kept = check(client, begin, from + len, at_ns);
    if (kept > HEAD) trouble("a line is longer than any that this load knows");
    if (kept > client->carry_cap) {
        client->carry_cap = kept < MAX_LINE ? MAX_LINE : kept;
        client->carry = realloc(client->carry, client->carry_cap);
        if (!client->carry) trouble("out of memory");
    }
    if (kept) memcpy(client->carry, from + len - kept, kept);
    client->carry_len = kept;
}

void read_client(Client *client) {
    static char area[HEAD + CHUNK];
    ssize_t got = recv(client->fd, area + HEAD, CHUNK, MSG_DONTWAIT);
    if (got > 0) hear(client, area + HEAD, (size_t)got, now_ns());
    else if (got == 0) fault("closed", "the server closed the connection of %s", name_of(client));
    else if (errno != EAGAIN && errno != EINTR)
        fault("closed", "the connection of %s failed: %s", name_of(client), strerror(errno));
}
