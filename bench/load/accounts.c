/* Clocks, the operating system's accounts of the server's process, latencies, and how a failure is told. */
#define _GNU_SOURCE
#include "load.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* CPU of the whole process, every thread living or ended, user and system, in nanoseconds: finer than /proc's ticks. */
static uint64_t process_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) trouble("the server's CPU clock cannot be read; did the server die?");
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t server_ns(void) {
    clockid_t clock;
    if (clock_getcpuclockid(order.server, &clock) != 0) trouble("the server's process is gone");
    return process_ns(clock);
}

/* How long a core was busy since the machine began, whoever kept it so. */
static uint64_t core_ns(int core) {
    char row[512], name[16];
    unsigned long long user, nice, system, idle, disk, irq, softirq, stolen;
    snprintf(name, sizeof name, "cpu%d ", core);
    FILE *file = fopen("/proc/stat", "r");
    if (!file) trouble("/proc/stat cannot be read");
    while (fgets(row, sizeof row, file)) {
        if (strncmp(row, name, strlen(name)) != 0) continue;
        fclose(file);
        if (sscanf(row + strlen(name), "%llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &disk,
                   &irq, &softirq, &stolen) != 8)
            break;
        return (user + nice + system + irq + softirq + stolen) * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
    }
    trouble("/proc/stat does not tell how busy a core is");
}

static int only_core_of(pid_t process) {
    cpu_set_t set;
    if (sched_getaffinity(process, sizeof set, &set) != 0) trouble("it cannot be told where the server may run");
    if (CPU_COUNT(&set) != 1) return -1;
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &set)) return core;
    return -1;
}

Account account(void) {
    int server = only_core_of(order.server), load = only_core_of(0);
    bool apart = server >= 0 && load >= 0 && server != load;
    return (Account){.server_core_ns = apart ? core_ns(server) : 0, .load_core_ns = apart ? core_ns(load) : 0,
                     .wall_ns = now_ns(), .server_ns = server_ns(), .load_ns = process_ns(CLOCK_PROCESS_CPUTIME_ID),
                     .deliveries = deliveries, .messages = messages};
}

long server_rss_kb(void) {
    char path[64];
    long size = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)order.server);
    FILE *file = fopen(path, "r");
    if (!file) trouble("the server's memory cannot be read; did the server die?");
    if (fscanf(file, "%ld %ld", &size, &resident) != 2) trouble("the server's memory cannot be read");
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static uint32_t *latencies; /* microseconds x 10, one per message that its last listener heard in the measured span */
static size_t latency_count, latency_cap;
static bool latency_on;

void latency_begin(void) { latency_on = true; }
void latency_end(void) { latency_on = false; }

void latency_add(uint64_t ns) {
    if (!latency_on) return;
    if (latency_count == latency_cap) {
        latency_cap = latency_cap ? latency_cap * 2 : 1 << 16;
        latencies = realloc(latencies, latency_cap * sizeof *latencies);
        if (!latencies) trouble("out of memory");
    }
    uint64_t tenths = ns / 100;
    latencies[latency_count++] = tenths > UINT32_MAX ? UINT32_MAX : (uint32_t)tenths;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void print_latency(void) {
    if (latency_count == 0) {
        printf("null");
        return;
    }
    qsort(latencies, latency_count, sizeof *latencies, by_size);
    size_t p50 = (latency_count - 1) * 50 / 100, p99 = (latency_count - 1) * 99 / 100;
    printf("{\"count\": %zu, \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}", latency_count,
           latencies[p50] / 10.0, latencies[p99] / 10.0, latencies[latency_count - 1] / 10.0);
}

/* What was not delivered in full and in order is no result: say what went wrong, as JSON on a line of its own, and end. */
void fault(const char *kind, const char *format, ...) {
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("\n{\"fault\": \"%s\", \"told\": \"", kind);
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\') printf("\\%c", *p);
        else if ((unsigned char)*p < 32 || (unsigned char)*p > 126) printf("\\u%04x", (unsigned char)*p);
        else putchar(*p);
    }
    printf("\"}\n");
    fflush(stdout);
    _exit(3);
}

void trouble(const char *what) { fault("trouble", "%s", what); }
