/* A bureau that answers in three digits, as FTP does: C, a loop around epoll, PORT. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1024, SIZE = 4096 };

static struct { int open; size_t used; char name[64], unread[SIZE]; } people[MOST]; /* by descriptor */

static void say(int to, const char *format, ...) {
    char line[2 * SIZE];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line - 2, format, arguments);
    va_end(arguments);
    memcpy(line + size, "\r\n", 2);
    send(to, line, size + 2, MSG_NOSIGNAL);
}

static int find(const char *name) {
    for (int one = 0; one < MOST; one++)
        if (people[one].name[0] && !strcmp(people[one].name, name)) return one;
    return -1;
}

static void leave(int who) {
    char name[64];
    strcpy(name, people[who].name);
    people[who].name[0] = people[who].open = 0;
    close(who);
    for (int one = 0; name[0] && one < MOST; one++)
        if (people[one].name[0]) say(one, "421 %s has left", name);
}

static void obey(int who, char *line) {
    char *name = people[who].name, *rest = strchr(line, ' ');
    if (rest) *rest++ = 0; else rest = "";
    if (!strcmp(line, "NOOP")) say(who, "200 %s", *rest ? rest : "nothing done");
    else if (!strcmp(line, "BYE")) say(who, "221 goodbye"), leave(who);
    else if (!strcmp(line, "USER") && *name) say(who, "503 you are %s", name);
    else if (!strcmp(line, "USER") && find(rest) >= 0) say(who, "530 %s is in use", rest);
    else if (!strcmp(line, "USER")) snprintf(name, 64, "%s", rest), say(who, "230 welcome, %s", name);
    else if (!*name) say(who, "332 USER first");
    else if (!strcmp(line, "ALL")) {
        for (int one = 0; one < MOST; one++)
            if (one != who && people[one].name[0]) say(one, "125 %s %s", name, rest);
        say(who, "250 sent to all");
    } else if (!strcmp(line, "ONE")) {
        char *text = strchr(rest, ' ');
        if (text) *text++ = 0; else text = "";
        int to = find(rest);
        if (to < 0) say(who, "550 nobody is called %s", rest);
        else say(to, "126 %s %s", name, text), say(who, "250 sent to %s", rest);
    } else if (!strcmp(line, "LIST")) {
        for (int one = 0; one < MOST; one++)
            if (people[one].name[0]) say(who, "211-%s", people[one].name);
        say(who, "211 end of the list");
    } else say(who, "500 %s is not known", line);
}

static void read_from(int who) {
    char *unread = people[who].unread, *end, line[SIZE];
    ssize_t size = recv(who, unread + people[who].used, SIZE - 1 - people[who].used, 0);
    if (size <= 0) { leave(who); return; }
    people[who].used += size;
    while (people[who].open && (end = memchr(unread, '\n', people[who].used))) {
        size = end - unread;
        memcpy(line, unread, size);
        line[size] = 0;
        line[strcspn(line, "\r")] = 0;
        memmove(unread, end + 1, people[who].used -= size + 1);
        obey(who, line);
    }
}

int main(int count, char **words) {
    if (count < 2) return 2;
    int listener = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 100)) return 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[64];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int number = epoll_wait(poller, ready, 64, -1);
        for (int one = 0; one < number; one++) {
            int who = ready[one].data.fd;
            if (who != listener) { read_from(who); continue; }
            who = accept(listener, NULL, NULL);
            if (who < 0 || who >= MOST) { close(who); continue; }
            people[who].open = 1, people[who].used = 0;
            event.data.fd = who;
            epoll_ctl(poller, EPOLL_CTL_ADD, who, &event);
            say(who, "220 the bureau is open");
        }
    }
}
