/* chat server, `line` protocol. One thread, level-triggered epoll. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <wctype.h>

#define MAXLINE 4096
#define MAXOUT (1 << 20)
#define LOGIN_TIMEOUT 60.0
#define TEXTCP (MAXLINE + 16)

typedef struct client {
    int fd;
    unsigned char in[MAXLINE + 2];   /* line + CR + LF */
    size_t inlen;
    int skipping;                    /* inside a line that is too long */
    int first;                       /* nothing parsed yet */
    char *out;
    size_t outlen, outcap, outoff;
    int wantwrite, eof, closing, doomed;
    int logged;
    char name[128], key[128];
    double connected, last, closeat;
    struct client *prev, *next;      /* all clients */
    struct client *lprev, *lnext;    /* users in login order */
} client;

static client *all, *users, *users_tail;
static int ep;
static double idle_time = 60.0;
static volatile sig_atomic_t stopping;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* ---------- unicode ---------- */
/* returns number of code points, or -1 */
static int decode(const unsigned char *s, size_t n, uint32_t *o) {
    size_t i = 0;
    int k = 0;
    while (i < n) {
        uint32_t c = s[i];
        int m;
        if (c < 0x80) m = 0;
        else if (c >= 0xC2 && c <= 0xDF) { m = 1; c &= 0x1F; }
        else if (c >= 0xE0 && c <= 0xEF) { m = 2; c &= 0x0F; }
        else if (c >= 0xF0 && c <= 0xF4) { m = 3; c &= 0x07; }
        else return -1;
        if (i + m >= n) return -1;
        for (int j = 1; j <= m; j++) {
            if ((s[i + j] & 0xC0) != 0x80) return -1;
            c = c << 6 | (s[i + j] & 0x3F);
        }
        if ((m == 2 && c < 0x800) || (m == 3 && c < 0x10000) || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return -1;
        o[k++] = c;
        i += m + 1;
    }
    return k;
}

static size_t put(char *o, uint32_t c) {
    if (c < 0x80) { o[0] = c; return 1; }
    if (c < 0x800) { o[0] = 0xC0 | c >> 6; o[1] = 0x80 | (c & 63); return 2; }
    if (c < 0x10000) { o[0] = 0xE0 | c >> 12; o[1] = 0x80 | (c >> 6 & 63); o[2] = 0x80 | (c & 63); return 3; }
    o[0] = 0xF0 | c >> 18; o[1] = 0x80 | (c >> 12 & 63); o[2] = 0x80 | (c >> 6 & 63); o[3] = 0x80 | (c & 63);
    return 4;
}

static int in(uint32_t c, uint32_t a, uint32_t b) { return c >= a && c <= b; }
static int is_space(uint32_t c) {
    return c == ' ' || in(c, 9, 13) || c == 0x85 || c == 0xA0 || c == 0x1680 || in(c, 0x2000, 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}
static int is_mark(uint32_t c) {
    return in(c, 0x300, 0x36F) || in(c, 0x483, 0x489) || in(c, 0x591, 0x5BD) || in(c, 0x610, 0x61A) || in(c, 0x64B, 0x65F) || c == 0x670 ||
           in(c, 0x6D6, 0x6DC) || in(c, 0x900, 0x903) || in(c, 0x93A, 0x93C) || in(c, 0x93E, 0x94F) || c == 0xE31 || in(c, 0xE34, 0xE3A) ||
           in(c, 0xE47, 0xE4E) || in(c, 0x1AB0, 0x1AFF) || in(c, 0x1DC0, 0x1DFF) || in(c, 0x20D0, 0x20FF) || in(c, 0x302A, 0x302F) ||
           in(c, 0x3099, 0x309A) || in(c, 0xFE20, 0xFE2F);
}
static int is_rtl(uint32_t c) {
    return in(c, 0x5D0, 0x5F4) || (in(c, 0x620, 0x8FF) && !is_mark(c) && !in(c, 0x660, 0x669)) || in(c, 0xFB1D, 0xFDFF) || in(c, 0xFE70, 0xFEFC) ||
           in(c, 0x10800, 0x10FFF) || in(c, 0x1E800, 0x1EFFF);
}
static int is_invisible(uint32_t c) {
    return c == 0x200B || c == 0xFEFF || c == 0xAD || in(c, 0x2060, 0x2064) || c == 0x115F || c == 0x1160 || c == 0x3164 || c == 0xFFA0 ||
           c == 0x180E || c == 0x34F || in(c, 0x206A, 0x206F);
}
static int shows_nothing(uint32_t c) {
    return is_space(c) || c == 0x200C || c == 0x200D || is_invisible(c) || in(c, 0xFE00, 0xFE0F) || in(c, 0xE0100, 0xE01EF) || c == 0x2800 ||
           c == 0x200E || c == 0x200F || c == 0x61C || in(c, 0xE0000, 0xE007F);
}

/* cleans a text into o (NUL-terminated; big enough); returns 0 if it is empty */
static int clean_text(const uint32_t *s, int n, char *o) {
    int rtl = 0, marks = 0, flag = 0, visible = 0;
    size_t k = 0;
    while (n && is_space(s[0])) s++, n--;
    while (n && is_space(s[n - 1])) n--;
    for (int i = 0; i < n; i++) if (is_rtl(s[i])) rtl = 1;
    for (int i = 0; i < n; i++) {
        uint32_t c = s[i];
        if (c == '\t') c = ' ';
        if (c < 32 || in(c, 0x7F, 0x9F) || in(c, 0x202A, 0x202E) || in(c, 0x2066, 0x2069) || c == 0x2028 || c == 0x2029) c = 0xFFFD;
        if (is_invisible(c)) continue;
        if (in(c, 0xE0000, 0xE007F)) { if (!flag) continue; if (c == 0xE007F) flag = 0; }
        else flag = c == 0x1F3F4;
        if ((c == 0x200E || c == 0x200F || c == 0x61C) && !rtl) continue;
        if (is_mark(c)) { if (++marks > 4) continue; } else marks = 0;
        if (!shows_nothing(c)) visible = 1;
        k += put(o + k, c);
    }
    o[k] = 0;
    while (k && o[k - 1] == ' ') o[--k] = 0;
    return visible;
}

/* name -> normalised name and key. No NFC in libc, so composed and decomposed forms stay different. */
static int clean_name(const uint32_t *s, int n, char *name, char *key) {
    size_t a = 0, b = 0;
    int marks = 0, rtl = 0, ltr = 0;
    if (n < 1 || n > 20) return 0;
    for (int i = 0; i < n; i++) {
        uint32_t c = s[i];
        if (in(c, 0xFF01, 0xFF5E)) c -= 0xFEE0;
        if (is_mark(c)) {
            if (i == 0 || ++marks > 4) return 0;
        } else {
            marks = 0;
            if (c < 128) {
                if (!(in(c, 'a', 'z') || in(c, 'A', 'Z') || in(c, '0', '9') || c == '_' || c == '-' || c == '.')) return 0;
            } else if (!iswalnum(c) || is_invisible(c)) return 0;
            if (is_rtl(c)) rtl = 1;
            else if (iswalpha(c)) ltr = 1;
        }
        a += put(name + a, c);
        b += put(key + b, towlower(c));
    }
    name[a] = key[b] = 0;
    if (rtl && (ltr || !is_rtl(s[0]))) return 0;
    return 1;
}

/* ---------- output ---------- */
static void arm(client *c) {
    struct epoll_event e = {0};
    e.data.ptr = c;
    if (!c->eof && !c->closing) e.events |= EPOLLIN;
    else if (c->closing == 2) e.events |= EPOLLIN;
    if (c->outlen > c->outoff) e.events |= EPOLLOUT;
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

static void flush(client *c) {
    while (c->outoff < c->outlen) {
        ssize_t r = send(c->fd, c->out + c->outoff, c->outlen - c->outoff, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) c->doomed = 1;
            break;
        }
        c->outoff += r;
    }
    if (c->outoff == c->outlen) c->outoff = c->outlen = 0;
}

static void sendn(client *c, const char *s, size_t n) {
    if (c->doomed || c->closing == 2) return;
    if (c->outlen + n > c->outcap) {
        if (c->outoff) {
            memmove(c->out, c->out + c->outoff, c->outlen - c->outoff);
            c->outlen -= c->outoff;
            c->outoff = 0;
        }
        while (c->outlen + n > c->outcap) c->outcap = c->outcap ? c->outcap * 2 : 1024;
        c->out = realloc(c->out, c->outcap);
    }
    memcpy(c->out + c->outlen, s, n);
    c->outlen += n;
}
static void say(client *c, const char *s) { sendn(c, s, strlen(s)); sendn(c, "\n", 1); }

/* what others say: counts for the limit */
static void tell(client *c, const char *s, size_t n) {
    if (c->outlen - c->outoff + n > MAXOUT) {
        flush(c);
        if (c->outlen - c->outoff + n > MAXOUT) { c->doomed = 2; return; }
    }
    sendn(c, s, n);
}
static void others(client *me, const char *s) {
    size_t n = strlen(s);
    for (client *u = users; u; u = u->lnext) if (u != me) tell(u, s, n);
}

/* ---------- state ---------- */
static client *find(const char *key) {
    for (client *u = users; u; u = u->lnext) if (!strcmp(u->key, key)) return u;
    return NULL;
}
static void leave(client *c) {
    char b[256];
    if (!c->logged) return;
    c->logged = 0;
    if (c->lprev) c->lprev->lnext = c->lnext; else users = c->lnext;
    if (c->lnext) c->lnext->lprev = c->lprev; else users_tail = c->lprev;
    snprintf(b, sizeof b, "INFO %s disconnected\n", c->name);
    others(c, b);
}
/* answer is queued, send it, then close */
static void finish(client *c) {
    leave(c);
    if (!c->closing) { c->closing = 1; c->closeat = now() + 5; }
}

static void destroy(client *c) {
    leave(c);
    if (c->doomed) {
        struct linger l = {1, 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    }
    close(c->fd);
    if (c->prev) c->prev->next = c->next; else all = c->next;
    if (c->next) c->next->prev = c->prev;
    free(c->out);
    free(c);
}

/* removes telnet commands in place, returns new length */
static size_t telnet(unsigned char *s, size_t n, int *mark) {
    size_t k = 0, i = 0;
    while (i < n) {
        if (s[i] != 255) { s[k++] = s[i++]; continue; }
        if (i + 1 >= n) break;
        unsigned char v = s[i + 1];
        if (v == 255) { s[k++] = 255; i += 2; }
        else if (v >= 251 && v <= 254) {
            if (v == 253 && i + 2 < n && s[i + 2] == 6) *mark = 1;
            i += 3;
        } else if (v == 250) {
            i += 2;
            while (i < n && !(s[i] == 255 && i + 1 < n && s[i + 1] == 240)) i++;
            i += 2;
        } else i += 2;
    }
    return k;
}

static int word(const uint32_t *s, int n) { int i = 0; while (i < n && s[i] != ' ' && s[i] != '\t') i++; return i; }
static int gap(const uint32_t *s, int n) { int i = 0; while (i < n && (s[i] == ' ' || s[i] == '\t')) i++; return i; }
static int cmd(const uint32_t *s, int n, const char *w) {
    if ((int)strlen(w) != n) return 0;
    for (int i = 0; i < n; i++) if (s[i] > 127 || (s[i] & ~32u) != (uint32_t)w[i]) return 0;
    return 1;
}

static void line(client *c, unsigned char *raw, size_t len) {
    static uint32_t cp[TEXTCP];
    static char text[TEXTCP * 4], buf[TEXTCP * 4 + 256], nm[128], ky[128];
    int mark = 0;
    len = telnet(raw, len, &mark);
    if (mark) sendn(c, "\xff\xfb\x06", 3);
    int n = decode(raw, len, cp);
    if (n < 0) { say(c, "ERR invalid-utf8"); return; }
    uint32_t *s = cp;
    int g = gap(s, n);
    s += g; n -= g;
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t')) n--;
    if (!n) return;
    int w = word(s, n);
    uint32_t *a = s + w;
    int an = n - w;
    g = gap(a, an); a += g; an -= g;

    if (cmd(s, w, "QUIT") || cmd(s, w, "EXIT")) { say(c, "Goodbye!"); finish(c); return; }
    if (cmd(s, w, "LOGIN")) {
        if (c->logged) { say(c, "ERR already-logged-in"); return; }
        if (!clean_name(a, an, nm, ky)) { say(c, "ERR invalid-username"); return; }
        if (find(ky)) { say(c, "ERR username-taken"); return; }
        strcpy(c->name, nm); strcpy(c->key, ky);
        c->logged = 1;
        c->lnext = NULL; c->lprev = users_tail;
        if (users_tail) users_tail->lnext = c; else users = c;
        users_tail = c;
        say(c, "OK");
        return;
    }
    if (!c->logged) { say(c, "ERR must-login-first"); return; }
    if (cmd(s, w, "MSG")) {
        if (!clean_text(a, an, text)) { say(c, "ERR empty-message"); return; }
        snprintf(buf, sizeof buf, "MSG %s %s\n", c->name, text);
        others(c, buf);
    } else if (cmd(s, w, "DM")) {
        int tw = word(a, an);
        if (!tw || !clean_text(a + tw, an - tw, text)) { say(c, "ERR invalid-dm-format"); return; }
        client *u = clean_name(a, tw, nm, ky) ? find(ky) : NULL;
        if (!u) { say(c, "ERR user-not-found"); return; }
        snprintf(buf, sizeof buf, "DM %s %s\n", c->name, text);
        tell(u, buf, strlen(buf));
    } else if (cmd(s, w, "WHO")) {
        for (client *u = users; u; u = u->lnext) { snprintf(buf, sizeof buf, "USER %s", u->name); say(c, buf); }
    } else if (cmd(s, w, "PING")) {
        if (an && clean_text(a, an, text)) { snprintf(buf, sizeof buf, "PONG %s", text); say(c, buf); }
        else say(c, "PONG");
    } else say(c, "ERR unknown-command");
}

static int looks_like_web(const unsigned char *s, size_t n) {
    if (n >= 2 && s[0] == 0x16 && s[1] == 3) return 1;
    static const char *m[] = {"GET ", "POST ", "PUT ", "HEAD ", "OPTIONS ", "DELETE ", "CONNECT ", "PATCH ", "TRACE ", "PRI "};
    for (size_t i = 0; i < sizeof m / sizeof *m; i++)
        if (n >= strlen(m[i]) && !memcmp(s, m[i], strlen(m[i]))) return 1;
    return 0;
}

/* takes bytes one chunk at a time */
static void feed(client *c, const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n && !c->closing && !c->doomed; i++) {
        unsigned char b = p[i];
        if (b == '\n') {
            c->last = now();
            if (c->skipping) { c->skipping = 0; c->inlen = 0; say(c, "ERR line-too-long"); continue; }
            size_t len = c->inlen;
            if (len && c->in[len - 1] == '\r') len--;
            c->inlen = 0;
            if (len > MAXLINE) { say(c, "ERR line-too-long"); continue; }
            if (c->first && looks_like_web(c->in, len)) { c->closing = 1; c->closeat = now(); return; }
            c->first = 0;
            line(c, c->in, len);
        } else if (!c->skipping) {
            if (c->inlen == sizeof c->in - 1) { c->skipping = 1; continue; }
            c->in[c->inlen++] = b;
            if (c->first && c->inlen == 2 && looks_like_web(c->in, 2)) { c->closing = 1; c->closeat = now(); return; }
        }
    }
}

static void on_stop(int s) { (void)s; stopping = 1; }

int main(int argc, char **argv) {
    if (argc < 2) { fprintf(stderr, "usage: chat PORT [IDLE]\n"); return 2; }
    setlocale(LC_ALL, "C.UTF-8");
    if (argc > 2) idle_time = atof(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    struct sigaction sa = {.sa_handler = on_stop};
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(l, (void *)&a, sizeof a) || listen(l, 512)) { perror("listen"); return 1; }
    socklen_t al = sizeof a;
    getsockname(l, (void *)&a, &al);
    ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, ev[64];
    epoll_ctl(ep, EPOLL_CTL_ADD, l, &e);
    printf("ready %d\n", ntohs(a.sin_port));
    fflush(stdout);

    while (!stopping) {
        int n = epoll_wait(ep, ev, 64, all ? 100 : 1000);
        for (int i = 0; i < n; i++) {
            client *c = ev[i].data.ptr;
            if (!c) {
                int fd;
                while ((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    c = calloc(1, sizeof *c);
                    c->fd = fd; c->first = 1; c->connected = c->last = now();
                    c->next = all; if (all) all->prev = c; all = c;
                    struct epoll_event x = {.events = EPOLLIN, .data.ptr = c};
                    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &x);
                }
                continue;
            }
            if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                unsigned char buf[16384];
                ssize_t r = recv(c->fd, buf, sizeof buf, 0);
                if (r > 0) feed(c, buf, r);
                else if (r == 0) c->eof = 1;
                else if (errno != EAGAIN && errno != EINTR) c->doomed = 1;
            }
        }
        /* flush, reap, time-outs. Dooming one client tells others, so repeat until nobody changes. */
        double t = now();
        for (client *c = all; c; c = c->next) {
            if (c->eof && !c->closing) finish(c);
            else if (!c->closing && !c->doomed && (t - c->last >= idle_time || (!c->logged && t - c->connected >= LOGIN_TIMEOUT))) {
                say(c, "INFO idle-timeout");
                finish(c);
            }
        }
        int again = 1;
        while (again) {
            again = 0;
            for (client *c = all, *nx; c; c = nx) {
                nx = c->next;
                if (!c->doomed) flush(c);
                if (c->closing == 1 && c->outlen == c->outoff) { shutdown(c->fd, SHUT_WR); c->closing = 2; c->closeat = t + 1; }
                if (c->doomed || (c->closing == 2 && c->eof) || (c->closing && t > c->closeat)) { destroy(c); again = 1; continue; }
                arm(c);
            }
        }
    }
    for (client *c = all; c; c = c->next) {
        if (!c->closing) say(c, "INFO server-shutdown");
        flush(c);
        shutdown(c->fd, SHUT_WR);
    }
    usleep(200000);
    return 0;
}
