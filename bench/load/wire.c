/* What each dialect says, as templates. Must know no sockets. */
#include "load.h"

#include <stdio.h>
#include <string.h>

Dialect dialects[DIALECTS] = {
    {.name = "line", .login = "LOGIN %s\n", .welcome = "OK\n", .fence = "PING fence\n",
     .fence_answer = "PONG fence\n", .say_before = "MSG ", .say_after = "\n", .hear_before = "MSG %s ",
     .hear_after = "\n", .notices = {"INFO "}},
    {.name = "json", .login = "{\"type\": \"join\", \"username\": \"%s\"}\n", .welcome = "}\n",
     .fence = "{\"type\": \"ping\", \"token\": \"fence\"}\n",
     .fence_answer = "{\"type\": \"pong\", \"token\": \"fence\"}\n",
     .say_before = "{\"type\": \"chat\", \"message\": \"", .say_after = "\"}\n",
     .hear_before = "{\"type\": \"chat\", \"username\": \"%s\", \"message\": \"",
     .hear_after = "\", \"timestamp\": ##########}\n", .notices = {"{\"type\": \"user_"}, .echoes = true},
    {.name = "slash", .login = "%s\n", .welcome = "commands\n\n", .fence = "/ping\n", .fence_answer = "pong\n",
     .say_before = "", .say_after = "\n", .hear_before = "%s: ", .hear_after = "\n",
     .notices = {"[join] ", "[leave] "}},
    {.name = "redis", .login = "*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nroom\r\n",
     .welcome = "*3\r\n$9\r\nsubscribe\r\n$4\r\nroom\r\n:1\r\n", .fence = "PING\r\n",
     .fence_answer = "*2\r\n$4\r\npong\r\n$0\r\n\r\n",
     .say_before = "*3\r\n$7\r\nPUBLISH\r\n$4\r\nroom\r\n$50\r\n", .say_after = "\r\n",
     .hear_before = "*3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$50\r\n", .hear_after = "\r\n",
     .speakers_apart = true},
};

Dialect *dialect_named(const char *name) {
    for (int i = 0; i < DIALECTS; i++) {
        Dialect *d = &dialects[i];
        if (strcmp(d->name, name) != 0) continue;
        const char *hole = strstr(d->hear_before, "%s");
        d->hear_prefix = hole ? (size_t)(hole - d->hear_before) : strlen(d->hear_before);
        d->text_at = strlen(d->hear_before) + (hole ? NAME - 2 : 0);
        d->hear_len = d->text_at + TEXT + strlen(d->hear_after);
        d->stamped = strchr(d->hear_after, '#') != NULL;
        return d;
    }
    return NULL;
}

void text_of(char text[TEXT], int speaker, uint32_t number) {
    char digits[16];
    snprintf(digits, sizeof digits, "%08u", number);
    memcpy(text, "_ ________ the quick brown fox jumps over ________", TEXT);
    text[0] = (char)('a' + speaker);
    memcpy(text + NUMBER_AT, digits, NUMBER);
    memcpy(text + TEXT - NUMBER, digits, NUMBER);
}

size_t said_line(const Dialect *d, char *line, const char text[TEXT]) {
    size_t before = strlen(d->say_before), after = strlen(d->say_after);
    memcpy(line, d->say_before, before);
    memcpy(line + before, text, TEXT);
    memcpy(line + before + TEXT, d->say_after, after);
    return before + TEXT + after;
}

size_t heard_line(const Dialect *d, char *line, const char *speaker, const char text[TEXT]) {
    char before[MAX_LINE];
    const char *hole = strstr(d->hear_before, "%s");
    if (hole)
        snprintf(before, sizeof before, "%.*s%s%s", (int)(hole - d->hear_before), d->hear_before, speaker, hole + 2);
    else
        snprintf(before, sizeof before, "%s", d->hear_before);
    memcpy(line, before, d->text_at);
    memcpy(line + d->text_at, text, TEXT);
    memcpy(line + d->text_at + TEXT, d->hear_after, strlen(d->hear_after));
    return d->hear_len;
}

/* A time stamp is the one thing that may differ from what is expected: ten digits, whichever they are. */
bool same_line(const Dialect *d, const char *heard, const char *expected) {
    if (!d->stamped) return memcmp(heard, expected, d->hear_len) == 0;
    size_t sure = d->text_at + TEXT;
    if (memcmp(heard, expected, sure) != 0) return false;
    for (size_t i = sure; i < d->hear_len; i++)
        if (expected[i] == '#' ? heard[i] < '0' || heard[i] > '9' : heard[i] != expected[i]) return false;
    return true;
}
