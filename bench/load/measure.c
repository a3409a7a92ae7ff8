/* Clocks, the operating system's counters of the server's process, latencies, and the report of a failure. */
#define _GNU_SOURCE
#include "load.h"

#include <dirent.h>
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

/* CPU time of a whole process, user and system, with threads that have ended. Finer than the ticks in /proc. */
static uint64_t process_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) fail_load("cannot read the server's CPU clock; did the server die?");
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t server_ns(void) {
    clockid_t clock;
    if (clock_getcpuclockid(options.server, &clock) != 0) fail_load("the server's process has ended");
    return process_ns(clock);
}

/* How long a core has been busy since the machine started, and how long the hypervisor has withheld it. */
static void read_core(int core, uint64_t *busy_ns, uint64_t *stolen_ns) {
    char row[512], name[16];
    unsigned long long user, nice, system, idle, disk, irq, softirq, stolen;
    const uint64_t tick_ns = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
    snprintf(name, sizeof name, "cpu%d ", core);
    FILE *file = fopen("/proc/stat", "r");
    if (!file) fail_load("cannot read /proc/stat");
    while (fgets(row, sizeof row, file)) {
        if (strncmp(row, name, strlen(name)) != 0) continue;
        fclose(file);
        if (sscanf(row + strlen(name), "%llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &disk,
                   &irq, &softirq, &stolen) != 8)
            fail_load("unexpected format of /proc/stat");
        *busy_ns = (user + nice + system + irq + softirq) * tick_ns;
        *stolen_ns = stolen * tick_ns;
        return;
    }
    fail_load("/proc/stat does not list the core");
}

/* How long the threads of a process have been ready to run and waited for a core. A thread that has ended takes its
 * share with it, so the sum is exact only for processes whose threads stay. */
static uint64_t wait_ns(pid_t process) {
    char path[64];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)process);
    DIR *tasks = opendir(path);
    if (!tasks) fail_load("cannot list the server's threads; did the server die?");
    for (struct dirent *task; (task = readdir(tasks));) {
        char stat[sizeof path + sizeof task->d_name + 16];
        unsigned long long ran, waited;
        if (task->d_name[0] == '.') continue;
        snprintf(stat, sizeof stat, "%s/%s/schedstat", path, task->d_name);
        FILE *file = fopen(stat, "r");
        if (!file) continue; /* this thread has just ended */
        if (fscanf(file, "%llu %llu", &ran, &waited) == 2) sum += waited;
        fclose(file);
    }
    closedir(tasks);
    return sum;
}

static int only_core_of(pid_t process) {
    cpu_set_t set;
    if (sched_getaffinity(process, sizeof set, &set) != 0) fail_load("cannot read the CPU affinity of a process");
    if (CPU_COUNT(&set) != 1) return -1;
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &set)) return core;
    return -1;
}

Sample sample(void) {
    int server = only_core_of(options.server), load = only_core_of(0);
    Sample now = {0};
    if (server >= 0 && load >= 0 && server != load) { /* on one core the two disturb each other by design */
        read_core(server, &now.server_core_ns, &now.server_stolen_ns);
        read_core(load, &now.load_core_ns, &now.load_stolen_ns);
        now.server_wait_ns = wait_ns(options.server);
        now.load_wait_ns = wait_ns(getpid());
    }
    now.wall_ns = now_ns();
    now.server_ns = server_ns();
    now.load_ns = process_ns(CLOCK_PROCESS_CPUTIME_ID);
    now.deliveries = deliveries;
    now.messages = messages;
    return now;
}

static uint64_t less(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

/* How long other work kept one process from its core. Two upper bounds are known: how long the process waited for a
 * core, which includes waits for its own threads, and how long the core ran anything else, which includes times when
 * the process had nothing to do. The smaller one is nearer to the truth. */
static uint64_t kept_away(uint64_t waited, uint64_t core_busy, uint64_t process_ran, uint64_t stolen) {
    uint64_t others = less(core_busy, process_ran);
    return (waited < others ? waited : others) + stolen;
}

/* The share of the time in which a process was ready to run that it was kept from its core. Time in which it had nothing to
 * do does not count: at a low rate, a share of the whole time would hide that every tenth message had to wait. */
static double lost_share(uint64_t waited, uint64_t core_busy, uint64_t process_ran, uint64_t stolen) {
    uint64_t lost = kept_away(waited, core_busy, process_ran, stolen);
    return lost ? (double)lost / (double)(process_ran + lost) : 0;
}

/* The share that the more disturbed of the two processes lost to other work. */
void print_disturbance(const Sample *a, const Sample *b) {
    if (!b->server_core_ns) return;
    double server = lost_share(less(b->server_wait_ns, a->server_wait_ns), b->server_core_ns - a->server_core_ns,
                               b->server_ns - a->server_ns, b->server_stolen_ns - a->server_stolen_ns);
    double load = lost_share(less(b->load_wait_ns, a->load_wait_ns), b->load_core_ns - a->load_core_ns,
                             b->load_ns - a->load_ns, b->load_stolen_ns - a->load_stolen_ns);
    printf(", \"disturbance\": %.4f", server > load ? server : load);
}

long server_rss_kb(void) {
    char path[64];
    long size = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)options.server);
    FILE *file = fopen(path, "r");
    if (!file) fail_load("cannot read the server's memory; did the server die?");
    if (fscanf(file, "%ld %ld", &size, &resident) != 2) fail_load("cannot read the server's memory");
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static uint32_t *latencies; /* tenths of a microsecond, one per message that its last client received in the measured span */
static size_t latency_count, latency_cap;
static bool latency_on;

void latency_begin(void) {
    latency_count = 0;
    latency_on = true;
}
void latency_end(void) { latency_on = false; }

void latency_add(uint64_t ns) {
    if (!latency_on) return;
    if (latency_count == latency_cap) {
        latency_cap = latency_cap ? latency_cap * 2 : 1 << 16;
        latencies = realloc(latencies, latency_cap * sizeof *latencies);
        if (!latencies) fail_load("out of memory");
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

/* A run in which messages are lost, changed or reordered has no result. Report the failure as one line of JSON and exit. */
void fail(const char *kind, const char *format, ...) {
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("\n{\"failure\": \"%s\", \"detail\": \"", kind);
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\') printf("\\%c", *p);
        else if ((unsigned char)*p < 32 || (unsigned char)*p > 126) printf("\\u%04x", (unsigned char)*p);
        else putchar(*p);
    }
    printf("\"}\n");
    fflush(stdout);
    _exit(3);
}

void fail_load(const char *detail) { fail("load", "%s", detail); }
