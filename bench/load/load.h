/* A load generator for chat servers: many clients that send messages and verify every line they receive.
 *
 * One thread, one epoll instance. It knows the wire format of each dialect (dialects.c), connects and logs in the
 * clients (clients.c), sends messages (traffic.c), with or without TLS (tls.c) and WebSocket (websocket.c), verifies
 * what arrives (verify.c), and measures the server's process (measure.c). It does not know which server it talks to. */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    TEXT = 50,          /* bytes of a message's text: sender, number, filler, number again */
    NUMBER_AT = 2,      /* offset of the number in the text */
    NUMBER = 8,         /* its digits */
    SENDERS_IN_ROOM = 16,
    MAX_SENDERS = 1 << 14,
    MAX_LINE = 192,     /* longer than any line that carries a message, in every dialect */
    NAME = 6,           /* bytes of a client's name: c00042 */
    STAMP = 10,         /* digits of a time stamp */
    DIALECTS = 5,
};

/* The wire format of one dialect. Every line that carries a message has the same length in one dialect. */
typedef struct {
    const char *name;
    const char *login, *welcome;         /* first line of a client (%s: its name); how the answer to it ends */
    const char *enter, *entered;         /* a request to enter a room (%d: its number), or none; how its answer ends */
    const char *fence, *fence_answer;    /* a request whose answer proves that everything before it has arrived */
    const char *send_before, *send_after; /* around the text, as the sender writes it */
    const char *recv_before, *recv_after; /* around the text, as others receive it; %s in the first: the sender's name,
                                             '#' in the second: any digit of a time stamp */
    const char *notices[3];              /* prefixes of lines about clients that join and leave */
    bool echoes;                         /* senders receive their own messages */
    bool separate_senders;               /* senders need connections that receive no messages */
    bool framed;                         /* each line is a WebSocket message */
    size_t recv_len, text_at, recv_prefix; /* computed: length of a line; offset of the text; offset of the first name */
    char begins[MAX_LINE], fenced[MAX_LINE]; /* computed: what a line that carries a message begins with, up to the name;
                                                the answer to a fence; both as they are on the wire */
    size_t fenced_len;
    size_t stamp_at;                     /* computed: offset of the time stamp, or 0 */
} Dialect;

extern Dialect dialects[DIALECTS];
Dialect *find_dialect(const char *name);
void make_text(char text[TEXT], char sender, uint32_t number);
size_t make_sent_line(const Dialect *d, char *line, const char text[TEXT]);
size_t make_received_line(const Dialect *d, char *line, const char *sender, const char text[TEXT]);
bool same_line(const Dialect *d, const char *received, const char *expected);

typedef struct {
    char line[DIALECTS][MAX_LINE]; /* as the clients of each dialect must receive it */
    uint64_t sent_ns;
    uint32_t pending;              /* clients that have not received it yet */
} Message;

typedef struct {
    Message *ring;        /* the last `ring_size` messages */
    uint32_t sent, done;  /* numbers start at 0; all clients have received every message below `done` */
    int client;
    uint32_t receivers;   /* how many clients receive each of its messages */
    char *out;            /* bytes that the kernel has not accepted yet */
    size_t out_len, out_cap;
} Sender;

typedef struct {
    int fd;
    void *tls;            /* of OpenSSL, or none */
    const Dialect *dialect;
    int sender;           /* index among the senders, or -1 */
    bool receives;        /* every message is verified on this client */
    bool stalled;         /* never reads */
    bool fenced;          /* has received the answer to its fence */
    uint32_t next[SENDERS_IN_ROOM]; /* number of the message expected next from each sender of its room */
    char *carry;          /* start of a line whose end has not arrived */
    size_t carry_len, carry_cap;
    uint64_t acknowledged; /* answers to its messages, on a connection that receives only those */
    int answer_at;        /* offset in such an answer at the end of the last read */
} Client;

typedef struct {
    const char *host;
    int ports[3];
    const char *mix[3];   /* dialects; clients use them in turn */
    bool tls[3];          /* which of them are encrypted */
    int mixes;
    pid_t server;
    int clients, senders, window, stalled, rooms;
    bool on_request;
    double rate, warm_s, seconds, idle_s, timeout_s;
} Options;

typedef struct { /* all counters at one moment */
    uint64_t wall_ns, server_ns, load_ns, deliveries, messages;
    uint64_t server_core_ns, load_core_ns;     /* how long each of the two cores was busy, with any process */
    uint64_t server_wait_ns, load_wait_ns;     /* how long each process was ready to run and waited for its core */
    uint64_t server_stolen_ns, load_stolen_ns; /* how long the hypervisor kept each core from running anything */
} Sample;

extern Options options;
extern Client *clients;
extern int client_count;
extern Sender senders[MAX_SENDERS];
extern uint32_t ring_size;
extern uint64_t deliveries, messages;
extern bool fencing, joining;
extern int fenced_count;

/* Clients and senders are spread over the rooms in turn. In its room a sender is known by a letter. */
static inline int sender_of(int client, char letter) { return (letter - 'a') * options.rooms + client % options.rooms; }
static inline char letter_of(int sender) { return (char)('a' + sender / options.rooms); }

/* measure.c */
uint64_t now_ns(void);
uint64_t server_ns(void);
Sample sample(void);
void print_disturbance(const Sample *begin, const Sample *end);
long server_rss_kb(void);
void latency_begin(void);
void latency_end(void);
void latency_add(uint64_t ns);
void print_latency(void);
_Noreturn void fail(const char *kind, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void fail_load(const char *detail);

/* clients.c */
void prepare_clients(void);
void connect_clients(int count);
void connect_senders(void);
void fence_all(bool first);
void print_logins(void);

/* websocket.c */
size_t frame_line(char *line, size_t len, bool masked);
bool find_payload(const char *p, size_t rest, size_t *begin, size_t *end);
void upgrade(Client *client);

/* tls.c */
void shake_hands(Client *client);
void stop_waiting(Client *client);
ssize_t send_bytes(Client *client, const char *data, size_t len, int flags);
ssize_t receive_bytes(Client *client, char *data, size_t len, int flags);

/* verify.c */
void receive(Client *client, char *from, size_t len, uint64_t at_ns);
void read_client(Client *client);

/* traffic.c */
/* `dropped_s`: when the server dropped the last stalled client, counted from the first message; negative if it did not. */
typedef struct { Sample begin, end; long peak_rss_kb; bool overloaded; double dropped_s; } Traffic;
Traffic run_traffic(void);
int watch_clients(void);
#endif
