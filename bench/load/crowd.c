/* The crowd comes in, one after the other, each connected and logged in before the next: then the cost of a login can
 * be told from the number of those already there. */
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
Speaker speakers[MAX_SPEAKERS];
uint32_t ring_size;

static struct { int present; uint64_t server_ns, wall_ns; long rss_kb; } steps[STEPS + 1];

/* Many source addresses: ports do not run short, and a limit per address is not what is measured. */
static int connected(int index, int port, bool small_buffer) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, small = 4096;
    if (fd < 0) trouble("no more sockets: raise the limit on open files");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (small_buffer) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct timeval patience = {.tv_sec = (time_t)order.patience_s + 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)}, from = {.sin_family = AF_INET};
    inet_pton(AF_INET, order.host, &to.sin_addr);
    from.sin_addr.s_addr = htonl(0x7f000002u + (uint32_t)(index / PER_SOURCE));
    if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0) trouble("a loopback address cannot be bound");
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        fault("closed", "client %d cannot connect: %s", index, strerror(errno));
    return fd;
}

static void say_whole(int fd, const char *text) {
    size_t len = strlen(text);
    if (send(fd, text, len, MSG_NOSIGNAL) != (ssize_t)len) fault("closed", "a client could not speak: %s", strerror(errno));
}

/* Reads up to the end of the answer to a login. Later lines (others who came) may follow it; the fence takes those. */
static void await_welcome(int index, int fd, const Dialect *d) {
    static char answer[256 * 1024];
    size_t len = 0;
    while (len < sizeof answer - 1) {
        ssize_t got = recv(fd, answer + len, sizeof answer - 1 - len, 0);
        if (got <= 0)
            fault("refused", "client %d was not let in: %s; it heard: %.*s", index,
                  got == 0 ? "the server closed" : strerror(errno), len > 200 ? 200 : (int)len, answer);
        len += (size_t)got;
        answer[len] = 0;
        if (!strncmp(answer, "ERR", 3) || !strncmp(answer, "-", 1) || strstr(answer, "error"))
            fault("refused", "client %d was not let in: %.*s", index, len > 200 ? 200 : (int)len, answer);
        if (strstr(answer, d->welcome)) return;
    }
    trouble("the answer to a login has no end");
}

static void step(int present) {
    int size = order.clients / STEPS ? order.clients / STEPS : 1;
    if (present % size || present / size > STEPS) return;
    int i = present / size;
    steps[i].present = present;
    steps[i].server_ns = server_ns();
    steps[i].wall_ns = now_ns();
    steps[i].rss_kb = server_rss_kb();
}

void gather(void) {
    const Dialect *first = dialect_named(order.mix[0]);
    bool apart = first->speakers_apart;
    client_count = order.clients + (apart ? order.speakers : 0);
    clients = calloc((size_t)client_count, sizeof *clients);
    if (!clients) trouble("out of memory");
    /* At a pace: so far a server may fall behind before it is overloaded, and no farther, for all of it is waited for. */
    uint32_t wanted = order.window ? (uint32_t)order.window : 2048;
    for (ring_size = 1; ring_size < wanted;) ring_size *= 2;
    step(0);
    for (int i = 0; i < client_count; i++) {
        Client *c = &clients[i];
        const Dialect *d = c->dialect = dialect_named(order.mix[i % order.mixes]);
        c->stalled = i >= order.clients - order.stalled && i < order.clients;
        c->hears = i < order.clients && !c->stalled;
        c->speaker = apart ? (i >= order.clients ? i - order.clients : -1) : (i < order.speakers ? i : -1);
        c->fd = connected(i, order.ports[i % order.mixes], c->stalled);
        if (i < order.clients) {
            char name[16], login[128];
            snprintf(name, sizeof name, "c%05d", i);
            snprintf(login, sizeof login, d->login, name);
            say_whole(c->fd, login);
            await_welcome(i, c->fd, d);
            step(i + 1);
        }
    }
    for (int s = 0; s < order.speakers; s++) {
        Speaker *speaker = &speakers[s];
        speaker->client = apart ? order.clients + s : s;
        speaker->listeners = (uint32_t)(order.clients - order.stalled);
        if (!apart && !clients[speaker->client].dialect->echoes) speaker->listeners--;
        if (speaker->listeners == 0) trouble("a speaker has nobody who listens");
        speaker->ring = calloc(ring_size, sizeof *speaker->ring);
        if (!speaker->ring) trouble("out of memory");
    }
}

/* Everybody asks, and nobody goes on before all have their answer: by then each has heard all that came before it. */
void fence_all(bool first) {
    int epoll = watch(), hearing = 0;
    struct epoll_event events[256];
    opening = first;
    fencing = true;
    fenced_count = 0;
    for (int i = 0; i < client_count; i++) {
        clients[i].fenced = false;
        if (!clients[i].hears) continue;
        hearing++;
        say_whole(clients[i].fd, clients[i].dialect->fence);
    }
    uint64_t deadline = now_ns() + (uint64_t)((order.patience_s + 5) * 1e9);
    while (fenced_count < hearing) {
        int n = epoll_wait(epoll, events, 256, 100);
        for (int i = 0; i < n; i++) read_client(&clients[events[i].data.u32]);
        if (now_ns() > deadline)
            fault("missing", "%d of %d clients had no answer to their PING", hearing - fenced_count, hearing);
    }
    fencing = opening = false;
    close(epoll);
}

bool stalled_dropped(void) {
    static char sink[1 << 16];
    const Client *c = &clients[order.clients - 1];
    for (int round = 0; round < 4096; round++) {
        ssize_t got = recv(c->fd, sink, sizeof sink, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return true;
        if (got < 0) usleep(1000);
    }
    return false;
}

void print_logins(void) {
    printf(", \"logins\": [");
    for (int i = 0; i <= STEPS && (i == 0 || steps[i].present > 0); i++)
        printf("%s{\"present\": %d, \"server_cpu_s\": %.9f, \"wall_s\": %.9f, \"rss_kb\": %ld}", i ? ", " : "",
               steps[i].present, (double)(steps[i].server_ns - steps[0].server_ns) / 1e9,
               (double)(steps[i].wall_ns - steps[0].wall_ns) / 1e9, steps[i].rss_kb);
    printf("]");
}
