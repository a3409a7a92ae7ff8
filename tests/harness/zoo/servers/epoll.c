/* A chat server in C on one epoll loop: PORT [deliver=MS] [dup=MS] [echo=MS]; what these mean is in room.py. */

#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS = 1024, LINE = 512 };

struct client {
  long id; /* 0: free */
  char name[64], room[64], in[LINE];
  size_t len;
};

struct timed {
  double due;
  long id;
  int fd;
  char text[LINE + 80];
  struct timed *next;
};

static struct client clients[CLIENTS];
static struct timed *timers;
static long ids;
static double deliver_ms = 0, dup_ms = -1, echo_ms = -1;

static double now_ms(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1e3 + at.tv_nsec / 1e6;
}

static void say(int fd, const char *text) {
  if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0) return; /* it has left; reading tells */
}

static void later(int fd, double delay_ms, const char *text) {
  if (delay_ms <= 0) {
    say(fd, text);
    return;
  }
  struct timed *one = malloc(sizeof *one), **at = &timers;
  if (!one) abort();
  one->due = now_ms() + delay_ms;
  one->id = clients[fd].id;
  one->fd = fd;
  snprintf(one->text, sizeof one->text, "%s", text);
  while (*at && (*at)->due <= one->due) at = &(*at)->next;
  one->next = *at;
  *at = one;
}

static void others(int fd, double delay_ms, const char *text) {
  for (int other = 0; other < CLIENTS; other++)
    if (other != fd && clients[other].id && clients[other].name[0] && !strcmp(clients[other].room, clients[fd].room))
      later(other, delay_ms, text);
}

static void leave(int fd) {
  char text[LINE];
  if (!clients[fd].id) return;
  if (clients[fd].name[0]) {
    snprintf(text, sizeof text, "INFO %s left\n", clients[fd].name);
    others(fd, deliver_ms, text);
  }
  clients[fd].id = 0;
  clients[fd].name[0] = 0;
}

static int taken(const char *name, const char *room) {
  for (int fd = 0; fd < CLIENTS; fd++)
    if (clients[fd].id && !strcmp(clients[fd].name, name) && !strcmp(clients[fd].room, room)) return 1;
  return 0;
}

static void handle(int fd, char *line) {
  char text[LINE + 80], name[64] = "", room[64] = "";
  struct client *self = &clients[fd];
  char *rest = strchr(line, ' ');
  if (rest) *rest++ = 0;
  else rest = line + strlen(line);
  if (!strcmp(line, "LOGIN")) {
    sscanf(rest, "%63[^@]@%63s", name, room);
    if (taken(name, room)) {
      say(fd, "ERR username-taken\n");
      return;
    }
    strcpy(self->name, name);
    strcpy(self->room, room);
    say(fd, "OK\n");
  } else if (!strcmp(line, "PING")) {
    snprintf(text, sizeof text, "PONG%s%.500s\n", *rest ? " " : "", rest);
    say(fd, text);
  } else if (!strcmp(line, "SYNC")) {
    snprintf(text, sizeof text, "SYNCED %.500s\n", rest);
    later(fd, deliver_ms, text);
  } else if (!strcmp(line, "HELLO")) {
    say(fd, "HI\n");
  } else if (!strcmp(line, "MSG") && self->name[0]) {
    snprintf(text, sizeof text, "MSG %s %.400s\n", self->name, rest);
    others(fd, deliver_ms, text);
    if (dup_ms >= 0) others(fd, dup_ms, text);
    if (echo_ms >= 0) later(fd, echo_ms, text);
  } else if (!strcmp(line, "QUIT")) {
    say(fd, "Goodbye!\n");
    leave(fd);
    shutdown(fd, SHUT_RDWR);
  } else if (strcmp(line, "JOIN")) {
    say(fd, "ERR must-login-first\n");
  }
}

static void hear(int fd) {
  struct client *self = &clients[fd];
  ssize_t got = recv(fd, self->in + self->len, LINE - 1 - self->len, 0);
  if (got <= 0) {
    leave(fd);
    close(fd);
    return;
  }
  self->len += got;
  self->in[self->len] = 0;
  char *line = self->in, *end;
  while ((end = strchr(line, '\n'))) {
    *end = 0;
    handle(fd, line);
    line = end + 1;
  }
  self->len = strlen(line);
  memmove(self->in, line, self->len);
}

int main(int count, char **words) {
  for (int at = 2; at < count; at++) {
    sscanf(words[at], "deliver=%lf", &deliver_ms);
    sscanf(words[at], "dup=%lf", &dup_ms);
    sscanf(words[at], "echo=%lf", &echo_ms);
  }
  int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1, loop = epoll_create1(0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
    perror("listen");
    return 1;
  }
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[64];
  epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    double left = timers ? timers->due - now_ms() : -1;
    int ready = epoll_wait(loop, events, 64, !timers ? -1 : left > 0 ? (int)left + 1 : 0);
    for (int at = 0; at < ready; at++) {
      if (events[at].data.fd != listener) {
        hear(events[at].data.fd);
        continue;
      }
      int fd = accept(listener, NULL, NULL);
      if (fd < 0 || fd >= CLIENTS) abort();
      memset(&clients[fd], 0, sizeof clients[fd]);
      clients[fd].id = ++ids;
      event.data.fd = fd;
      epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
    }
    while (timers && timers->due <= now_ms()) {
      struct timed *one = timers;
      timers = one->next;
      if (clients[one->fd].id == one->id) say(one->fd, one->text);
      free(one);
    }
  }
}
