/* The wire format of each dialect, as templates. Knows no sockets. */
#include "load.h"

#include <stdio.h>
#include <string.h>

Dialect dialects[DIALECTS] = {
    {.name = "line", .login = "LOGIN %s\n", .welcome = "OK\n", .enter = "JOIN room%d\n", .entered = "OK\n", .fence = "PING fence\n",
     .fence_answer = "PONG fence\n", .send_before = "MSG ", .send_after = "\n", .recv_before = "MSG %s ",
     .recv_after = "\n", .notices = {"INFO "}},
    {.name = "json", .login = "{\"type\": \"join\", \"username\": \"%s\"}\n", .welcome = "}\n",
     .fence = "{\"type\": \"ping\", \"token\": \"fence\"}\n",
     .fence_answer = "{\"type\": \"pong\", \"token\": \"fence\"}\n",
     .send_before = "{\"type\": \"chat\", \"message\": \"", .send_after = "\"}\n",
     .recv_before = "{\"type\": \"chat\", \"username\": \"%s\", \"message\": \"",
     .recv_after = "\", \"timestamp\": ##########}\n", .notices = {"{\"type\": \"user_"}, .echoes = true},
    {.name = "web", .login = "{\"type\": \"join\", \"username\": \"%s\"}\n", .welcome = "}",
     .fence = "{\"type\": \"ping\", \"token\": \"fence\"}\n",
     .fence_answer = "{\"type\": \"pong\", \"token\": \"fence\"}\n",
     .send_before = "{\"type\": \"chat\", \"message\": \"", .send_after = "\"}\n",
     .recv_before = "{\"type\": \"chat\", \"username\": \"%s\", \"message\": \"",
     .recv_after = "\", \"timestamp\": ##########}\n", .notices = {"{\"type\": \"user_"}, .echoes = true, .framed = true},
    {.name = "slash", .login = "%s\n", .welcome = "commands\n\n", .fence = "/ping\n", .fence_answer = "pong\n",
     .send_before = "", .send_after = "\n", .recv_before = "%s: ", .recv_after = "\n",
     .notices = {"[join] ", "[leave] "}},
    {.name = "redis", .login = "*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nroom\r\n",
     .welcome = "*3\r\n$9\r\nsubscribe\r\n$4\r\nroom\r\n:1\r\n", .fence = "PING\r\n",
     .fence_answer = "*2\r\n$4\r\npong\r\n$0\r\n\r\n",
     .send_before = "*3\r\n$7\r\nPUBLISH\r\n$4\r\nroom\r\n$50\r\n", .send_after = "\r\n",
     .recv_before = "*3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$50\r\n", .recv_after = "\r\n",
     .separate_senders = true},
};

Dialect *find_dialect(const char *name) {
    for (int i = 0; i < DIALECTS; i++) {
        Dialect *d = &dialects[i];
        if (strcmp(d->name, name) != 0) continue;
        const char *hole = strstr(d->recv_before, "%s");
        char line[MAX_LINE];
        d->recv_prefix = hole ? (size_t)(hole - d->recv_before) : strlen(d->recv_before);
        d->text_at = strlen(d->recv_before) + (hole ? NAME - 2 : 0);
        d->recv_len = d->text_at + TEXT + strlen(d->recv_after);
        strcpy(d->fenced, d->fence_answer);
        d->fenced_len = strlen(d->fence_answer);
        memcpy(d->begins, d->recv_before, d->recv_prefix);
        if (d->framed) {
            const size_t unframed = d->recv_len;
            memset(line, 'x', unframed - 1);
            line[unframed - 1] = '\n';
            d->recv_len = frame_line(line, unframed, false);
            const size_t head = d->recv_len - (unframed - 1);
            memmove(d->begins + head, d->begins, d->recv_prefix);
            memcpy(d->begins, line, head);
            d->recv_prefix += head;
            d->text_at += head;
            d->fenced_len = frame_line(d->fenced, d->fenced_len, false);
        }
        const char *stamp = strchr(d->recv_after, '#');
        d->stamp_at = stamp ? d->text_at + TEXT + (size_t)(stamp - d->recv_after) : 0;
        return d;
    }
    return NULL;
}

void make_text(char text[TEXT], char sender, uint32_t number) {
    char digits[16];
    snprintf(digits, sizeof digits, "%08u", number);
    memcpy(text, "_ ________ the quick brown fox jumps over ________", TEXT);
    text[0] = sender;
    memcpy(text + NUMBER_AT, digits, NUMBER);
    memcpy(text + TEXT - NUMBER, digits, NUMBER);
}

size_t make_sent_line(const Dialect *d, char *line, const char text[TEXT]) {
    size_t before = strlen(d->send_before), after = strlen(d->send_after);
    memcpy(line, d->send_before, before);
    memcpy(line + before, text, TEXT);
    memcpy(line + before + TEXT, d->send_after, after);
    return d->framed ? frame_line(line, before + TEXT + after, true) : before + TEXT + after;
}

size_t make_received_line(const Dialect *d, char *line, const char *sender, const char text[TEXT]) {
    char before[MAX_LINE];
    const char *hole = strstr(d->recv_before, "%s");
    if (hole)
        snprintf(before, sizeof before, "%.*s%s%s", (int)(hole - d->recv_before), d->recv_before, sender, hole + 2);
    else
        snprintf(before, sizeof before, "%s", d->recv_before);
    const size_t text_at = strlen(before), after = strlen(d->recv_after);
    memcpy(line, before, text_at);
    memcpy(line + text_at, text, TEXT);
    memcpy(line + text_at + TEXT, d->recv_after, after);
    if (d->framed) frame_line(line, text_at + TEXT + after, false);
    return d->recv_len;
}

/* Only a time stamp may differ from the expected line: any digits are accepted. */
bool same_line(const Dialect *d, const char *received, const char *expected) {
    if (!d->stamp_at) return memcmp(received, expected, d->recv_len) == 0;
    const size_t behind = d->stamp_at + STAMP;
    if (memcmp(received, expected, d->stamp_at) != 0) return false;
    if (memcmp(received + behind, expected + behind, d->recv_len - behind) != 0) return false;
    for (size_t i = d->stamp_at; i < behind; i++)
        if (received[i] < '0' || received[i] > '9') return false;
    return true;
}
