/* Runs the load, prints one JSON object, and then waits for the end of its input, so that the caller can stop the
 * server before the clients disconnect.
 *
 * With --on-request it instead answers each line of its input with one JSON object:
 *   login N   connect and log in N more clients; the first answer to `traffic` needs all --clients
 *   traffic   send messages for --warm, or until the server has dropped every stalled client, and for --seconds, until all of
 *             them have arrived
 *   fence     prove that the clients received exactly the expected lines
 *   memory    the resident memory of the server */
#define _GNU_SOURCE
#include "load.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

Options options = {.host = "127.0.0.1", .rooms = 1, .warm_s = 0.3, .seconds = 1, .timeout_s = 5};

static const struct option flags[] = {
    {"mix", 1, 0, 'm'},     {"server-pid", 1, 0, 'P'}, {"clients", 1, 0, 'c'},  {"senders", 1, 0, 's'},
    {"window", 1, 0, 'w'},  {"rate", 1, 0, 'r'},       {"warm", 1, 0, 'W'},     {"seconds", 1, 0, 't'},
    {"idle", 1, 0, 'i'},    {"stalled", 1, 0, 'S'},    {"timeout", 1, 0, 'p'},  {"on-request", 0, 0, 'R'},
    {"rooms", 1, 0, 'o'},
    {0, 0, 0, 0},
};

/* line:4000,json:4001,line+tls:4002 */
static void parse_mix(char *text) {
    for (char *part = strtok(text, ","); part; part = strtok(NULL, ",")) {
        char *colon = strchr(part, ':');
        if (!colon || options.mixes == 3) fail_load("--mix takes up to three dialect:port, separated by commas");
        *colon = 0;
        char *tls = strstr(part, "+tls");
        options.tls[options.mixes] = tls != NULL;
        if (tls) *tls = 0;
        if (!find_dialect(part)) fail_load("--mix: unknown dialect");
        options.mix[options.mixes] = part;
        options.ports[options.mixes++] = atoi(colon + 1);
    }
}

static void parse(int argc, char **argv) {
    for (int c; (c = getopt_long(argc, argv, "", flags, NULL)) != -1;) switch (c) {
        case 'm': parse_mix(optarg); break;
        case 'P': options.server = atoi(optarg); break;
        case 'c': options.clients = atoi(optarg); break;
        case 's': options.senders = atoi(optarg); break;
        case 'w': options.window = atoi(optarg); break;
        case 'r': options.rate = atof(optarg); break;
        case 'W': options.warm_s = atof(optarg); break;
        case 't': options.seconds = atof(optarg); break;
        case 'i': options.idle_s = atof(optarg); break;
        case 'S': options.stalled = atoi(optarg); break;
        case 'o': options.rooms = atoi(optarg); break;
        case 'R': options.on_request = true; break;
        case 'p': options.timeout_s = atof(optarg); break;
        default: fail_load("unknown option");
        }
    if (!options.mixes || !options.server || options.clients < 1) fail_load("--mix, --server-pid and --clients are required");
    if (options.rooms < 1) fail_load("--rooms is at least 1");
    if (options.rooms > 1 && (options.stalled || options.mixes > 1 || !find_dialect(options.mix[0])->enter))
        fail_load("several rooms need a single dialect that has rooms, and clients that read");
    if (options.senders > MAX_SENDERS || options.senders > SENDERS_IN_ROOM * options.rooms ||
        options.senders > options.clients - options.stalled)
        fail_load("too many senders");
    if (options.senders && (options.window > 0) == (options.rate > 0)) fail_load("senders need either --window or --rate");
}

static void print_traffic(const Traffic *t) {
    const Sample *a = &t->begin, *b = &t->end;
    printf("\"deliveries\": %llu, \"messages\": %llu, \"wall_s\": %.9f, \"server_cpu_s\": %.9f, \"load_cpu_s\": %.9f",
           (unsigned long long)(b->deliveries - a->deliveries), (unsigned long long)(b->messages - a->messages),
           (double)(b->wall_ns - a->wall_ns) / 1e9, (double)(b->server_ns - a->server_ns) / 1e9,
           (double)(b->load_ns - a->load_ns) / 1e9);
    printf(", \"verified\": %llu, \"overloaded\": %s, \"peak_rss_kb\": %ld, \"latency\": ",
           (unsigned long long)deliveries, t->overloaded ? "true" : "false", t->peak_rss_kb);
    print_latency();
    if (options.stalled && t->dropped_s < 0) printf(", \"stalled_dropped_s\": null");
    else if (options.stalled) printf(", \"stalled_dropped_s\": %.6f", t->dropped_s);
    print_disturbance(a, b);
}

static void measure_idle(void) {
    struct timespec settle = {0, 300000000}, span = {(time_t)options.idle_s, (long)((options.idle_s - (time_t)options.idle_s) * 1e9)};
    nanosleep(&settle, NULL); /* work that the last login left behind is not idle time */
    uint64_t cpu = server_ns(), wall = now_ns();
    nanosleep(&span, NULL);
    printf(", \"idle\": {\"seconds\": %.6f, \"server_cpu_s\": %.9f, \"rss_kb\": %ld}", (double)(now_ns() - wall) / 1e9,
           (double)(server_ns() - cpu) / 1e9, server_rss_kb());
}

static void log_in(int count) {
    Sample before = sample();
    connect_clients(count);
    Sample after = sample();
    printf("{\"logins\": %d, \"server_cpu_s\": %.9f", count, (double)(after.server_ns - before.server_ns) / 1e9);
    print_disturbance(&before, &after);
    printf("}\n");
}

static void answer_requests(void) {
    char line[64];
    bool ready = false;
    prepare_clients();
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "login ", 6)) log_in(atoi(line + 6));
        else if (!strcmp(line, "memory\n")) printf("{\"rss_kb\": %ld}\n", server_rss_kb());
        else if (!strcmp(line, "fence\n")) {
            fence_all(!ready);
            printf("{}\n");
        } else if (!strcmp(line, "traffic\n")) {
            if (client_count < options.clients) fail_load("traffic needs all clients");
            if (!ready) {
                connect_senders();
                fence_all(true);
            }
            ready = true;
            Traffic traffic = run_traffic();
            printf("{");
            print_traffic(&traffic);
            printf("}\n");
        } else fail_load("unknown request");
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    parse(argc, argv);
    if (options.on_request) {
        answer_requests();
        return 0;
    }
    long rss_before = server_rss_kb();
    Sample before = sample();
    prepare_clients();
    connect_clients(options.clients);
    connect_senders();
    printf("{\"clients\": %d, \"rss_before_kb\": %ld, \"rss_joined_kb\": %ld", options.clients, rss_before,
           server_rss_kb());
    if (options.idle_s > 0) {
        print_logins();
        measure_idle();
        Sample after = sample();
        if (!options.senders) print_disturbance(&before, &after);
    }
    if (options.senders) {
        fence_all(true);
        Traffic traffic = run_traffic();
        printf(", ");
        print_traffic(&traffic);
    }
    fence_all(options.senders == 0);
    printf("}\n");
    fflush(stdout);
    char sink[64];
    while (read(STDIN_FILENO, sink, sizeof sink) > 0) continue;
    return 0;
}
