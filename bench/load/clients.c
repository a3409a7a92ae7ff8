/* Connects and logs in the clients one at a time, so that the cost of a login can be related to the number of clients
 * that are already connected. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PER_SOURCE = 900, STEPS = 8 };

Client *clients;
int client_count;
Sender senders[MAX_SENDERS];
uint32_t ring_size;

static struct { int connected; uint64_t server_ns, wall_ns; long rss_kb; } steps[STEPS + 1];

/* Many source addresses, so that neither the number of ports nor a limit per address interferes. */
static int open_connection(int index, int port, bool small_buffer) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, small = 4096;
    if (fd < 0) fail_load("out of sockets: raise the limit on open files");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (small_buffer) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct timeval timeout = {.tv_sec = (time_t)options.timeout_s + 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)}, from = {.sin_family = AF_INET};
    inet_pton(AF_INET, options.host, &to.sin_addr);
    from.sin_addr.s_addr = htonl(0x7f000002u + (uint32_t)(index / PER_SOURCE));
    if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0) fail_load("cannot bind a loopback address");
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        fail("closed", "client %d cannot connect: %s", index, strerror(errno));
    return fd;
}

static void send_line(Client *c, const char *line) {
    char text[MAX_LINE];
    size_t len = strlen(line);
    memcpy(text, line, len);
    if (c->dialect->framed) len = frame_line(text, len, true);
    if (send_bytes(c, text, len, 0) != (ssize_t)len) fail("closed", "a client could not send: %s", strerror(errno));
}

/* Reads the answer to a login, or to entering a room. Notices about other clients may follow it; the first fence skips
 * them. */
static void await_answer(int index, Client *c, const char *answer_end) {
    static char answer[256 * 1024];
    size_t len = 0;
    while (len < sizeof answer - 1) {
        ssize_t got = receive_bytes(c, answer + len, sizeof answer - 1 - len, 0);
        if (got <= 0)
            fail("refused", "login of client %d failed: %s; received: %.*s", index,
                  got == 0 ? "the server closed the connection" : strerror(errno), len > 200 ? 200 : (int)len, answer);
        for (ssize_t i = 0; i < got; i++) /* the head of a frame has zeros */
            if (!answer[len + (size_t)i]) answer[len + (size_t)i] = ' ';
        len += (size_t)got;
        answer[len] = 0;
        if (!strncmp(answer, "ERR", 3) || !strncmp(answer, "-", 1) || strstr(answer, "error"))
            fail("refused", "login of client %d failed: %.*s", index, len > 200 ? 200 : (int)len, answer);
        if (strstr(answer, answer_end)) return;
    }
    fail_load("the answer to a login does not end");
}

static void record_step(int connected) {
    int size = options.clients / STEPS ? options.clients / STEPS : 1;
    if (connected % size || connected / size > STEPS) return;
    int i = connected / size;
    steps[i].connected = connected;
    steps[i].server_ns = server_ns();
    steps[i].wall_ns = now_ns();
    steps[i].rss_kb = server_rss_kb();
}

static bool separate_senders(void) { return find_dialect(options.mix[0])->separate_senders; }

void prepare_clients(void) {
    int limit = options.clients + (separate_senders() ? options.senders : 0);
    clients = calloc((size_t)limit, sizeof *clients);
    if (!clients) fail_load("out of memory");
    /* At a fixed rate a server that falls this many messages behind is overloaded. The run waits for all of them. */
    uint32_t wanted = options.window ? (uint32_t)options.window : 2048;
    for (ring_size = 1; ring_size < wanted;) ring_size *= 2;
    record_step(0);
}

static void connect_next(void) {
    int i = client_count;
    bool separate = separate_senders();
    Client *c = &clients[i];
    const Dialect *d = c->dialect = find_dialect(options.mix[i % options.mixes]);
    c->stalled = i >= options.clients - options.stalled && i < options.clients;
    c->receives = i < options.clients && !c->stalled;
    c->sender = separate ? (i >= options.clients ? i - options.clients : -1) : (i < options.senders ? i : -1);
    c->fd = open_connection(i, options.ports[i % options.mixes], c->stalled);
    if (options.tls[i % options.mixes]) shake_hands(c);
    if (d->framed) upgrade(c);
    client_count++;
    if (i >= options.clients) return;
    char name[16], login[128];
    snprintf(name, sizeof name, "c%05d", i);
    snprintf(login, sizeof login, d->login, name);
    send_line(c, login);
    await_answer(i, c, d->welcome);
    if (options.rooms > 1) {
        char enter[64];
        snprintf(enter, sizeof enter, d->enter, i % options.rooms);
        send_line(c, enter);
        await_answer(i, c, d->entered);
    }
    stop_waiting(c);
    record_step(client_count);
}

void connect_clients(int count) {
    if (client_count + count > options.clients) fail_load("more logins than --clients");
    while (count-- > 0) connect_next();
}

void connect_senders(void) {
    bool separate = separate_senders();
    for (int s = 0; s < options.senders; s++) {
        Sender *sender = &senders[s];
        if (separate) connect_next();
        sender->client = separate ? options.clients + s : s;
        /* The stalled clients are the last ones; there are none where there are several rooms. */
        int in_room = options.clients / options.rooms + (s % options.rooms < options.clients % options.rooms);
        sender->receivers = (uint32_t)(in_room - options.stalled);
        if (!separate && !clients[sender->client].dialect->echoes) sender->receivers--;
        if (sender->receivers == 0) fail_load("a sender has no receivers");
        sender->ring = calloc(ring_size, sizeof *sender->ring);
        if (!sender->ring) fail_load("out of memory");
    }
}

/* Every client sends a request, and the run continues when every answer has arrived. By then each client has received
 * everything that was sent before. */
void fence_all(bool first) {
    int epoll = watch_clients(), waiting = 0;
    struct epoll_event events[256];
    joining = first;
    fencing = true;
    fenced_count = 0;
    for (int i = 0; i < client_count; i++) {
        clients[i].fenced = false;
        if (!clients[i].receives) continue;
        waiting++;
        send_line(&clients[i], clients[i].dialect->fence);
    }
    uint64_t deadline = now_ns() + (uint64_t)((options.timeout_s + 5) * 1e9);
    while (fenced_count < waiting) {
        int n = epoll_wait(epoll, events, 256, 100);
        for (int i = 0; i < n; i++) read_client(&clients[events[i].data.u32]);
        if (now_ns() > deadline)
            fail("missing", "%d of %d clients received no answer to their PING", waiting - fenced_count, waiting);
    }
    fencing = joining = false;
    close(epoll);
}

void print_logins(void) {
    printf(", \"logins\": [");
    for (int i = 0; i <= STEPS && (i == 0 || steps[i].connected > 0); i++)
        printf("%s{\"connected\": %d, \"server_cpu_s\": %.9f, \"wall_s\": %.9f, \"rss_kb\": %ld}", i ? ", " : "",
               steps[i].connected, (double)(steps[i].server_ns - steps[0].server_ns) / 1e9,
               (double)(steps[i].wall_ns - steps[0].wall_ns) / 1e9, steps[i].rss_kb);
    printf("]");
}
