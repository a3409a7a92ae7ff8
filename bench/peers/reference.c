/* A chat server in C on epoll, one thread: what the design costs without an interpreter.
 *
 * A peer for the benchmark that speaks only the `line` dialect. It knows neither geventchat nor the benchmark.
 *
 * What one iteration of the loop broadcasts is written once, into `batch`, and goes to each member in one send.
 *
 * - A member has received, or has pending in `out`, everything in `batch` before its `cursor`, except its own messages.
 * - Bytes for one client alone are appended to `out`, after the part of `batch` that precedes them.
 * - At the end of an iteration, `out` and then the rest of `batch` are sent, every cursor is 0 again, and `batch` is empty. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 1024, BUCKETS = 1 << 14, MAX_LINE = 1 << 16, MAX_BACKLOG = 1 << 20 };

typedef struct {
    char *bytes;
    size_t len, cap;
} Buffer;

typedef struct Client {
    int fd;
    char *name; /* NULL before login */
    size_t name_len;
    Buffer in, out;
    size_t cursor;
    size_t index;              /* among the members */
    bool dirty, leaving, closed; /* has pending bytes; closes when they are sent; is closed */
    bool wants_write;
    struct Client *next; /* in its bucket */
} Client;

typedef struct {
    Client **items;
    size_t len, cap;
} Clients;

static int epoll_fd;
static Buffer batch;
static Clients members, dirty, closed;
static Client *buckets[BUCKETS];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void append(Buffer *b, const char *bytes, size_t len) {
    if (len == 0) return;
    if (b->len + len > b->cap) {
        while (b->cap < b->len + len) b->cap = b->cap ? b->cap * 2 : 256;
        if (!(b->bytes = realloc(b->bytes, b->cap))) die("realloc");
    }
    memcpy(b->bytes + b->len, bytes, len);
    b->len += len;
}

static void add(Clients *clients, Client *c) {
    if (clients->len == clients->cap) {
        clients->cap = clients->cap ? clients->cap * 2 : 64;
        if (!(clients->items = realloc(clients->items, clients->cap * sizeof *clients->items))) die("realloc");
    }
    clients->items[clients->len++] = c;
}

static Client **slot(const char *name, size_t len) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < len; i++) hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    Client **at = &buckets[hash % BUCKETS];
    while (*at && !((*at)->name_len == len && memcmp((*at)->name, name, len) == 0)) at = &(*at)->next;
    return at;
}

/* Moves the part of the batch that this member has not received into its own buffer. */
static void catch_up(Client *c) {
    if (!c->name || c->leaving) return;
    append(&c->out, batch.bytes + c->cursor, batch.len - c->cursor);
    c->cursor = batch.len;
}

static void reply_bytes(Client *c, const char *bytes, size_t len) {
    if (batch.len > c->cursor) catch_up(c);
    append(&c->out, bytes, len);
    if (!c->dirty) {
        c->dirty = true;
        add(&dirty, c);
    }
}

static void reply(Client *c, const char *text) { reply_bytes(c, text, strlen(text)); }

/* Appends a line to the batch, for every member except the one that it comes from. */
static void broadcast(Client *from, const char *before, const char *text, size_t text_len) {
    bool receives = !from->leaving && !from->closed;
    if (receives && batch.len > from->cursor) {
        catch_up(from);
        if (!from->dirty) {
            from->dirty = true;
            add(&dirty, from);
        }
    }
    append(&batch, before, strlen(before));
    append(&batch, from->name, from->name_len);
    append(&batch, " ", 1);
    append(&batch, text, text_len);
    append(&batch, "\n", 1);
    if (receives) from->cursor = batch.len;
}

/* Ends the membership of a client and announces it. */
static void leave(Client *c) {
    if (!c->name || c->leaving || c->closed) return;
    *slot(c->name, c->name_len) = c->next;
    members.items[c->index] = members.items[--members.len];
    members.items[c->index]->index = c->index;
}

static void hang_up(Client *c) {
    if (c->closed) return;
    bool announced = c->name && !c->leaving;
    leave(c);
    c->closed = true;
    close(c->fd);
    add(&closed, c);
    if (announced) broadcast(c, "INFO ", "disconnected", 12);
}

static void quit(Client *c) {
    reply(c, "Goodbye!\n");
    leave(c);
    c->leaving = true;
    if (c->name) broadcast(c, "INFO ", "disconnected", 12);
}

static void login(Client *c, const char *name, size_t len) {
    if (c->name) {
        reply(c, "ERR already-logged-in\n");
    } else if (len == 0 || memchr(name, ' ', len)) {
        reply(c, "ERR invalid-username\n");
    } else {
        Client **at = slot(name, len);
        if (*at) {
            reply(c, "ERR username-taken\n");
            return;
        }
        reply(c, "OK\n");
        if (!(c->name = malloc(len))) die("malloc");
        memcpy(c->name, name, len);
        c->name_len = len;
        c->next = NULL;
        *at = c;
        c->index = members.len;
        add(&members, c);
        c->cursor = batch.len;
    }
}

static void direct_message(Client *c, const char *rest, size_t len) {
    const char *space = memchr(rest, ' ', len);
    if (!space || space + 1 == rest + len) {
        reply(c, "ERR invalid-dm-format\n");
        return;
    }
    Client *to = *slot(rest, (size_t)(space - rest));
    if (!to) {
        reply(c, "ERR user-not-found\n");
        return;
    }
    reply(to, "DM ");
    reply_bytes(to, c->name, c->name_len);
    reply_bytes(to, space, (size_t)(rest + len - space));
    reply(to, "\n");
}

static void handle(Client *c, char *line, size_t len) {
    if (len && line[len - 1] == '\r') len--;
    if (!len || c->leaving) return;
    const char *space = memchr(line, ' ', len);
    size_t word_len = space ? (size_t)(space - line) : len;
    char word[8] = {0};
    if (word_len < sizeof word)
        for (size_t i = 0; i < word_len; i++) word[i] = (char)toupper((unsigned char)line[i]);
    const char *rest = space ? space + 1 : line + len, *end = line + len;
    const char *text = rest, *text_end = end; /* rest without the white space around it */
    while (text < text_end && isspace((unsigned char)*text)) text++;
    while (text_end > text && isspace((unsigned char)text_end[-1])) text_end--;
    size_t rest_len = (size_t)(end - rest), text_len = (size_t)(text_end - text);
    if (!strcmp(word, "QUIT") || !strcmp(word, "EXIT")) quit(c);
    else if (!strcmp(word, "LOGIN")) login(c, text, text_len);
    else if (!c->name) reply(c, "ERR must-login-first\n");
    else if (!strcmp(word, "MSG") && text_len) broadcast(c, "MSG ", text, text_len);
    else if (!strcmp(word, "MSG")) reply(c, "ERR empty-message\n");
    else if (!strcmp(word, "DM")) direct_message(c, rest, rest_len);
    else if (!strcmp(word, "PING")) {
        reply(c, rest_len ? "PONG " : "PONG");
        reply_bytes(c, rest, rest_len);
        reply(c, "\n");
    } else if (!strcmp(word, "WHO")) {
        for (size_t i = 0; i < members.len; i++) {
            reply(c, "USER ");
            reply_bytes(c, members.items[i]->name, members.items[i]->name_len);
            reply(c, "\n");
        }
    } else reply(c, "ERR unknown-command\n");
}

static void read_lines(Client *c) {
    static char chunk[MAX_LINE];
    ssize_t got = recv(c->fd, chunk, sizeof chunk, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        hang_up(c);
        return;
    }
    char *from = chunk;
    size_t len = (size_t)got;
    if (c->in.len) {
        append(&c->in, chunk, len);
        from = c->in.bytes;
        len = c->in.len;
    }
    for (char *end; len && (end = memchr(from, '\n', len));) {
        handle(c, from, (size_t)(end - from));
        len -= (size_t)(end + 1 - from);
        from = end + 1;
    }
    if (len > MAX_LINE) {
        hang_up(c);
        return;
    }
    if (!c->in.len) append(&c->in, from, len);
    else memmove(c->in.bytes, from, c->in.len = len);
}

static void want_write(Client *c, bool wanted) {
    if (c->wants_write == wanted) return;
    c->wants_write = wanted;
    struct epoll_event event = {.events = EPOLLIN | (wanted ? (uint32_t)EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

/* Sends what the kernel accepts and keeps the rest in `out`. */
static void send_pending(Client *c, const char *tail, size_t tail_len) {
    if (c->closed) return;
    if (c->out.len) { /* one send for both */
        append(&c->out, tail, tail_len);
        tail = c->out.bytes;
        tail_len = c->out.len;
    }
    ssize_t sent = tail_len ? send(c->fd, tail, tail_len, MSG_NOSIGNAL) : 0;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        hang_up(c);
        return;
    }
    size_t left = tail_len - (sent > 0 ? (size_t)sent : 0);
    if (c->out.len) memmove(c->out.bytes, c->out.bytes + (c->out.len - left), left);
    else append(&c->out, tail + (tail_len - left), left);
    c->out.len = left;
    if (left > MAX_BACKLOG || (left == 0 && c->leaving)) hang_up(c);
    else want_write(c, left > 0);
}

/* Sends this batch to every client. A client that is dropped meanwhile is announced in the next round. */
static void end_turn(void) {
    while (batch.len || dirty.len) {
        Buffer sent = batch;
        batch = (Buffer){0};
        Clients replied = dirty;
        dirty = (Clients){0};
        for (size_t i = 0; i < replied.len; i++) replied.items[i]->dirty = false;
        if (sent.len)
            for (size_t i = members.len; i-- > 0;) { /* downwards: a dropped member is replaced by the last one */
                Client *c = members.items[i];
                size_t cursor = c->cursor;
                c->cursor = 0;
                send_pending(c, sent.bytes + cursor, sent.len - cursor);
            }
        for (size_t i = 0; i < replied.len; i++)
            if (replied.items[i]->out.len && !replied.items[i]->wants_write) send_pending(replied.items[i], "", 0);
        free(replied.items);
        if (batch.len == 0) { /* reuse the memory */
            free(batch.bytes);
            sent.len = 0;
            batch = sent;
        } else free(sent.bytes);
    }
    while (closed.len) {
        Client *c = closed.items[--closed.len];
        free(c->name);
        free(c->in.bytes);
        free(c->out.bytes);
        free(c);
    }
}

static void accept_all(int listener) {
    for (int fd, on = 1; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Client *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t address_len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address.sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0));
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
    if (listen(listener, 4096) != 0) die("listen");
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) != 0) die("epoll_ctl");
    getsockname(listener, (struct sockaddr *)&address, &address_len);
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            Client *c = events[i].data.ptr;
            if (!c) accept_all(listener);
            else if (!c->closed) {
                if (events[i].events & EPOLLOUT) send_pending(c, "", 0);
                if (!c->closed && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_lines(c);
            }
        }
        end_turn();
    }
}
