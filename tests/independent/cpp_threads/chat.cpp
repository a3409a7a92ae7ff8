// chat server, `line` protocol: one thread per client, one mutex around the room.
// Each thread polls its own socket and an eventfd; whoever wants to say something to a client appends to its
// buffer under the mutex and pokes its eventfd, so nobody ever writes to another one's socket.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace std;
using Clock = chrono::steady_clock;
using u32s = u32string;

static const size_t kMaxLine = 4096, kMaxOut = 1 << 20;
static double idleSeconds = 60;
static atomic<bool> stopping{false};

// ---- UTF-8 ----
static optional<u32s> decode(const string& s) {
    u32s o;
    for (size_t i = 0; i < s.size();) {
        unsigned char b = s[i];
        int n = b < 0x80 ? 0 : b >= 0xC2 && b < 0xE0 ? 1 : b >= 0xE0 && b < 0xF0 ? 2 : b >= 0xF0 && b < 0xF5 ? 3 : -1;
        if (n < 0 || i + n >= s.size()) return nullopt;
        char32_t c = n == 0 ? b : b & (0x3F >> n);
        for (int j = 1; j <= n; j++) {
            unsigned char x = s[i + j];
            if ((x & 0xC0) != 0x80) return nullopt;
            c = (c << 6) | (x & 0x3F);
        }
        if ((n == 2 && c < 0x800) || (n == 3 && c < 0x10000) || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return nullopt;
        o += c;
        i += n + 1;
    }
    return o;
}
static string encode(const u32s& s) {
    string o;
    for (char32_t c : s) {
        if (c < 0x80) o += char(c);
        else if (c < 0x800) { o += char(0xC0 | c >> 6); o += char(0x80 | (c & 63)); }
        else if (c < 0x10000) { o += char(0xE0 | c >> 12); o += char(0x80 | (c >> 6 & 63)); o += char(0x80 | (c & 63)); }
        else { o += char(0xF0 | c >> 18); o += char(0x80 | (c >> 12 & 63)); o += char(0x80 | (c >> 6 & 63)); o += char(0x80 | (c & 63)); }
    }
    return o;
}
struct Range { char32_t a, b; };
template <size_t N> static bool any(char32_t c, const Range (&r)[N]) {
    for (auto& x : r) if (c >= x.a && c <= x.b) return true;
    return false;
}
static const Range spaces[] = {{9, 13}, {32, 32}, {0x85, 0x85}, {0xA0, 0xA0}, {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};
static const Range marks[] = {{0x300, 0x36F}, {0x483, 0x489}, {0x591, 0x5BD}, {0x5BF, 0x5BF}, {0x5C1, 0x5C2}, {0x5C4, 0x5C5}, {0x610, 0x61A}, {0x64B, 0x65F}, {0x6D6, 0x6DC}, {0x6DF, 0x6E4},
    {0x900, 0x903}, {0x93A, 0x93C}, {0x93E, 0x94F}, {0x981, 0x983}, {0xE31, 0xE31}, {0xE34, 0xE3A}, {0xE47, 0xE4E}, {0x1AB0, 0x1ACE}, {0x1DC0, 0x1DFF}, {0x20D0, 0x20F0}, {0x3099, 0x309A}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}};
static const Range evil[] = {{0, 31}, {0x7F, 0x9F}, {0x202A, 0x202E}, {0x2066, 0x2069}, {0x2028, 0x2029}};
static const Range invisible[] = {{0xAD, 0xAD}, {0x34F, 0x34F}, {0x115F, 0x1160}, {0x17B4, 0x17B5}, {0x180E, 0x180E}, {0x200B, 0x200B}, {0x2060, 0x2065}, {0x206A, 0x206F}, {0x3164, 0x3164}, {0xFEFF, 0xFEFF}, {0xFFA0, 0xFFA0}, {0xFFF9, 0xFFFB}};
static const Range direction[] = {{0x200E, 0x200F}, {0x61C, 0x61C}};
static const Range rtl[] = {{0x5D0, 0x5F2}, {0x620, 0x64A}, {0x66E, 0x6D5}, {0x6FA, 0x8C9}, {0xFB1D, 0xFDFF}, {0xFE70, 0xFEFC}, {0x10800, 0x10FFF}, {0x1E800, 0x1EEFF}};
static const Range blank[] = {{0x200C, 0x200D}, {0xFE00, 0xFE0F}, {0xE0100, 0xE01EF}, {0x2800, 0x2800}, {0x200E, 0x200F}, {0x61C, 0x61C}};
// no Unicode tables at hand: what is surely not a letter or digit above ASCII
static const Range notletter[] = {{0x80, 0xA9}, {0xAB, 0xB4}, {0xB6, 0xB9}, {0xBB, 0xBF}, {0xD7, 0xD7}, {0xF7, 0xF7}, {0x2B0, 0x2FF}, {0x2000, 0x2070}, {0x2072, 0x207E}, {0x2080, 0x208F}, {0x20A0, 0x20CF}, {0x2100, 0x2BFF}, {0x2E00, 0x3004}, {0x3007, 0x3030}, {0x3036, 0x3040},
    {0x3200, 0x33FF}, {0xD800, 0xFAFF - 0x200}, {0xFE10, 0xFE1F}, {0xFE30, 0xFE6F}, {0xFF00, 0xFF65}, {0xFFE0, 0xFFFF}, {0x1D000, 0x1D3FF}, {0x1F000, 0x1FAFF}, {0xE0000, 0x10FFFF}};

static char32_t lower(char32_t c) {
    if (c < 128) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    if ((c >= 0xC0 && c <= 0xDE && c != 0xD7) || (c >= 0x391 && c <= 0x3A9) || (c >= 0x410 && c <= 0x42F)) return c + 32;
    if (c >= 0x400 && c <= 0x40F) return c + 80;
    if ((c >= 0x100 && c <= 0x137) || (c >= 0x14A && c <= 0x177) || (c >= 0x460 && c <= 0x52F) || (c >= 0x1E00 && c <= 0x1EFF)) return c | 1;
    return c;
}
static u32s strip(u32s s) {
    while (!s.empty() && any(s.back(), spaces)) s.pop_back();
    size_t i = 0;
    while (i < s.size() && any(s[i], spaces)) i++;
    return s.substr(i);
}
// cleaned text; empty if it shows nothing
static string cleanText(const u32s& raw) {
    u32s o;
    bool hasRtl = false, flag = false, seen = false;
    int m = 0;
    for (auto c : raw) hasRtl |= any(c, rtl);
    for (auto c : strip(raw)) {
        if (c == '\t') c = ' ';
        if (any(c, evil)) c = 0xFFFD;
        if (any(c, invisible) || (any(c, direction) && !hasRtl)) continue;
        if (c >= 0xE0000 && c < 0xE0080) {
            if (!flag) continue;
        } else flag = c == 0x1F3F4;
        m = any(c, marks) ? m + 1 : 0;
        if (m > 4) continue;
        if (!any(c, spaces) && !any(c, blank)) seen = true;
        o += c;
    }
    return seen ? encode(strip(o)) : "";
}
static bool cleanName(const u32s& raw, string& name, string& key) {
    if (raw.empty() || raw.size() > 20) return false;
    u32s n, k;
    int m = 0;
    bool r = false, l = false;
    for (auto c : raw) {
        if (c >= 0xFF01 && c <= 0xFF5E) c -= 0xFEE0;
        bool mk = any(c, marks) && !(c >= 0xFE00 && c <= 0xFE0F);
        m = mk ? m + 1 : 0;
        if (m > 4 || (mk && n.empty())) return false;
        if (c < 128 ? !(isalnum(int(c)) || c == '_' || c == '-' || c == '.') : !mk && (any(c, notletter) || any(c, invisible) || any(c, spaces))) return false;
        if (any(c, rtl)) r = true; else if (!mk && (c >= 128 || isalpha(int(c)))) l = true;
        n += c;
        k += lower(c);
    }
    if (r && (l || !any(n[0], rtl))) return false;
    name = encode(n);
    key = encode(k);
    return true;
}

// ---- room ----
struct Client {
    int fd, wake;
    string name, key;
    bool in = false, drop = false;
    string out;  // guarded by the mutex
};
using P = shared_ptr<Client>;
static mutex mu;
static list<P> room;     // in login order
static set<P> everyone;

static void poke(Client& c) { uint64_t one = 1; (void)!write(c.wake, &one, 8); }
static void tell(Client& c, const string& s) {
    if (c.drop) return;
    if (c.out.size() + s.size() > kMaxOut) c.drop = true; else c.out += s;
    poke(c);
}
static void others(Client* me, const string& s) { for (auto& c : room) if (c.get() != me) tell(*c, s); }
static void leave(Client& c) {
    if (!c.in) return;
    c.in = false;
    room.remove_if([&](P& p) { return p.get() == &c; });
    others(&c, "INFO " + c.name + " disconnected\n");
}
static P* find(const string& key) { for (auto& c : room) if (c->key == key) return &c; return nullptr; }

static string untelnet(const string& s, bool& mark) {
    string o;
    for (size_t i = 0; i < s.size(); i++) {
        unsigned char b = s[i];
        if (b != 255) { o += s[i]; continue; }
        unsigned char v = i + 1 < s.size() ? s[i + 1] : 0;
        if (v == 255) { o += s[i]; i++; }
        else if (v == 250) { size_t e = s.find("\xff\xf0", i); i = e == string::npos ? s.size() : e + 1; }
        else if (v >= 251) { if (v == 253 && i + 2 < s.size() && s[i + 2] == 6) mark = true; i += 2; }
        else i++;
    }
    return o;
}

// returns false when the client is to be disconnected. Called with the mutex held.
static bool handle(const P& c, const string& raw) {
    bool mark = false;
    string s = untelnet(raw, mark);
    if (mark) c->out += "\xff\xfb\x06";
    auto u = decode(s);
    if (!u) { c->out += "ERR invalid-utf8\n"; return true; }
    u32s l = strip(*u);
    if (l.empty()) return true;
    size_t e = 0;
    while (e < l.size() && !any(l[e], spaces)) e++;
    string cmd = encode(l.substr(0, e));
    for (auto& ch : cmd) ch = toupper(ch);
    u32s arg = strip(l.substr(e));
    if (cmd == "QUIT" || cmd == "EXIT") { c->out += "Goodbye!\n"; leave(*c); return false; }
    if (cmd == "LOGIN") {
        string n, k;
        if (c->in) c->out += "ERR already-logged-in\n";
        else if (!cleanName(arg, n, k)) c->out += "ERR invalid-username\n";
        else if (find(k)) c->out += "ERR username-taken\n";
        else { c->name = n; c->key = k; c->in = true; room.push_back(c); c->out += "OK\n"; }
        return true;
    }
    if (!c->in) { c->out += "ERR must-login-first\n"; return true; }
    if (cmd == "MSG") {
        string t = cleanText(arg);
        if (t.empty()) c->out += "ERR empty-message\n"; else others(c.get(), "MSG " + c->name + " " + t + "\n");
    } else if (cmd == "DM") {
        size_t sp = 0;
        while (sp < arg.size() && !any(arg[sp], spaces)) sp++;
        string t = cleanText(arg.substr(sp)), n, k;
        P* to;
        if (t.empty()) c->out += "ERR invalid-dm-format\n";
        else if (!cleanName(arg.substr(0, sp), n, k) || !(to = find(k))) c->out += "ERR user-not-found\n";
        else tell(**to, "DM " + c->name + " " + t + "\n");
    } else if (cmd == "WHO") {
        for (auto& p : room) c->out += "USER " + p->name + "\n";
    } else if (cmd == "PING") {
        string t = cleanText(arg);
        c->out += t.empty() ? "PONG\n" : "PONG " + t + "\n";
    } else c->out += "ERR unknown-command\n";
    return true;
}
static bool web(const string& l) {
    if (l.size() > 1 && l[0] == 0x16 && l[1] == 3) return true;
    size_t p = l.rfind(" HTTP/");
    return p != string::npos && p > 0 && isupper(l[0]);
}

static void serve(P c) {
    auto start = Clock::now(), last = start;
    auto since = [](Clock::time_point t) { return chrono::duration<double>(Clock::now() - t).count(); };
    string in, sending;
    bool skip = false, first = true, eof = false, dead = false, bye = false;
    while (!dead) {
        { lock_guard<mutex> g(mu);
          if (c->drop) { dead = true; break; }
          if (stopping && !bye) { c->out += "INFO server-shutdown\n"; leave(*c); bye = true; }
          if (!bye && (since(last) >= idleSeconds || (!c->in && since(start) >= 60))) { c->out += "INFO idle-timeout\n"; leave(*c); bye = true; }
          // the limit counts what is waiting here; keep only one chunk outside
          if (sending.empty() && !c->out.empty()) { sending = c->out.substr(0, 65536); c->out.erase(0, 65536); } }
        if ((bye || eof) && sending.empty()) break;
        pollfd p[2] = {{c->fd, short((eof || bye ? 0 : POLLIN) | (sending.empty() ? 0 : POLLOUT)), 0}, {c->wake, POLLIN, 0}};
        if (bye && since(last) > idleSeconds + 5) break;
        poll(p, 2, 100);
        if (p[1].revents) { uint64_t x; (void)!read(c->wake, &x, 8); }
        if (p[0].revents & (POLLIN | POLLHUP | POLLERR)) {
            char b[8192];
            ssize_t r = recv(c->fd, b, sizeof b, MSG_DONTWAIT);
            if (r < 0 && errno != EAGAIN && errno != EINTR) { dead = true; break; }
            if (r == 0) { eof = true; lock_guard<mutex> g(mu); leave(*c); }
            for (ssize_t i = 0; i < r && !bye; i++) {
                if (b[i] != '\n') {
                    if (in.size() <= kMaxLine + 1) in += b[i]; else skip = true;
                    if (first && in.size() == 2 && in[0] == 0x16 && in[1] == 3) { bye = true; }
                    continue;
                }
                last = Clock::now();
                if (!in.empty() && in.back() == '\r' && !skip) in.pop_back();
                lock_guard<mutex> g(mu);
                if (skip || in.size() > kMaxLine) c->out += "ERR line-too-long\n";
                else if (first && web(in)) bye = true;
                else if (!handle(c, in)) bye = true;
                first = skip = false;
                in.clear();
            }
        }
        if (!sending.empty()) {
            ssize_t r = send(c->fd, sending.data(), sending.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (r > 0) sending.erase(0, r);
            else if (r < 0 && errno != EAGAIN && errno != EINTR) dead = true;
        }
    }
    { lock_guard<mutex> g(mu); leave(*c); everyone.erase(c); }
    if (dead) { linger l{1, 0}; setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l); }
    else { // orderly: do not let unread input turn the end into a reset
        shutdown(c->fd, SHUT_WR);
        timeval tv{1, 0};
        setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
        char b[8192];
        auto t = Clock::now();
        while (!eof && since(t) < 1 && recv(c->fd, b, sizeof b, 0) > 0) {}
    }
    close(c->fd);
    close(c->wake);
}

int main(int argc, char** argv) {
    if (argc < 2) return fprintf(stderr, "usage: chat PORT [IDLE]\n"), 2;
    if (argc > 2) idleSeconds = atof(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    struct sigaction sa{};
    sa.sa_handler = [](int) { stopping = true; };
    sigaction(SIGTERM, &sa, nullptr);
    sigaction(SIGINT, &sa, nullptr);
    int l = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(atoi(argv[1]));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(l, (sockaddr*)&a, sizeof a) || listen(l, 256)) return perror("listen"), 1;
    socklen_t n = sizeof a;
    getsockname(l, (sockaddr*)&a, &n);
    printf("ready %d\n", ntohs(a.sin_port));
    fflush(stdout);
    while (!stopping) {
        pollfd p{l, POLLIN, 0};
        if (poll(&p, 1, 200) <= 0) continue;
        int fd = accept(l, nullptr, nullptr);
        if (fd < 0) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        auto c = make_shared<Client>();
        c->fd = fd;
        c->wake = eventfd(0, EFD_NONBLOCK);
        { lock_guard<mutex> g(mu); everyone.insert(c); }
        thread(serve, c).detach();
    }
    for (int i = 0; i < 20; i++) {
        this_thread::sleep_for(chrono::milliseconds(50));
        lock_guard<mutex> g(mu);
        if (everyone.empty()) break;
    }
    _exit(0);
}
