/* load: a crowd of clients for one chat server. Prints one JSON object, then waits for the end of its input, so that
 * whoever called can end the server before the crowd leaves. */
#define _GNU_SOURCE
#include "load.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

Order order = {.host = "127.0.0.1", .warm_s = 0.3, .seconds = 1, .patience_s = 5};

static const struct option options[] = {
    {"mix", 1, 0, 'm'},     {"server-pid", 1, 0, 'P'}, {"clients", 1, 0, 'c'},  {"speakers", 1, 0, 's'},
    {"window", 1, 0, 'w'},  {"rate", 1, 0, 'r'},       {"warm", 1, 0, 'W'},     {"seconds", 1, 0, 't'},
    {"idle", 1, 0, 'i'},    {"stalled", 1, 0, 'S'},    {"patience", 1, 0, 'p'}, {0, 0, 0, 0},
};

/* line:4000,json:4001 */
static void parse_mix(char *text) {
    for (char *part = strtok(text, ","); part; part = strtok(NULL, ",")) {
        char *colon = strchr(part, ':');
        if (!colon || order.mixes == 3) trouble("--mix wants up to three of dialect:port, joined by commas");
        *colon = 0;
        if (!dialect_named(part)) trouble("--mix names a dialect that is not known");
        order.mix[order.mixes] = part;
        order.ports[order.mixes++] = atoi(colon + 1);
    }
}

static void parse(int argc, char **argv) {
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (c) {
        case 'm': parse_mix(optarg); break;
        case 'P': order.server = atoi(optarg); break;
        case 'c': order.clients = atoi(optarg); break;
        case 's': order.speakers = atoi(optarg); break;
        case 'w': order.window = atoi(optarg); break;
        case 'r': order.rate = atof(optarg); break;
        case 'W': order.warm_s = atof(optarg); break;
        case 't': order.seconds = atof(optarg); break;
        case 'i': order.idle_s = atof(optarg); break;
        case 'S': order.stalled = atoi(optarg); break;
        case 'p': order.patience_s = atof(optarg); break;
        default: trouble("an option is not known");
        }
    if (!order.mixes || !order.server || order.clients < 1) trouble("--mix, --server-pid and --clients are needed");
    if (order.speakers > MAX_SPEAKERS || order.speakers > order.clients - order.stalled)
        trouble("more speakers than there can be");
    if (order.speakers && (order.window > 0) == (order.rate > 0)) trouble("speakers need either --window or --rate");
}

static void print_talk(const Talk *t) {
    const Account *a = &t->begin, *b = &t->end;
    printf(", \"deliveries\": %llu, \"messages\": %llu, \"wall_s\": %.9f, \"server_cpu_s\": %.9f, \"load_cpu_s\": %.9f",
           (unsigned long long)(b->deliveries - a->deliveries), (unsigned long long)(b->messages - a->messages),
           (double)(b->wall_ns - a->wall_ns) / 1e9, (double)(b->server_ns - a->server_ns) / 1e9,
           (double)(b->load_ns - a->load_ns) / 1e9);
    printf(", \"checked\": %llu, \"overloaded\": %s, \"peak_rss_kb\": %ld, \"latency\": ",
           (unsigned long long)deliveries, t->overloaded ? "true" : "false", t->peak_rss_kb);
    print_latency();
    print_disturbance(a, b);
}

static void idle(void) {
    struct timespec settle = {0, 300000000}, span = {(time_t)order.idle_s, (long)((order.idle_s - (time_t)order.idle_s) * 1e9)};
    nanosleep(&settle, NULL); /* what the last login left to do is not idling */
    uint64_t cpu = server_ns(), wall = now_ns();
    nanosleep(&span, NULL);
    printf(", \"idle\": {\"seconds\": %.6f, \"server_cpu_s\": %.9f, \"rss_kb\": %ld}", (double)(now_ns() - wall) / 1e9,
           (double)(server_ns() - cpu) / 1e9, server_rss_kb());
}

int main(int argc, char **argv) {
    parse(argc, argv);
    long rss_before = server_rss_kb();
    Account before = account();
    gather();
    printf("{\"clients\": %d, \"rss_before_kb\": %ld, \"rss_joined_kb\": %ld", order.clients, rss_before,
           server_rss_kb());
    if (order.idle_s > 0) {
        print_logins();
        idle();
        Account after = account();
        if (!order.speakers) print_disturbance(&before, &after);
    }
    if (order.speakers) {
        fence_all(true);
        Talk t = talk();
        print_talk(&t);
    }
    fence_all(order.speakers == 0);
    if (order.stalled) printf(", \"stalled_dropped\": %s", stalled_dropped() ? "true" : "false");
    printf("}\n");
    fflush(stdout);
    char sink[64];
    while (read(STDIN_FILENO, sink, sizeof sink) > 0) continue;
    return 0;
}
