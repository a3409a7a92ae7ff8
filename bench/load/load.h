/* The crowd that loads a chat server and checks every line it hears.
 *
 * One thread, one epoll. Knows the wire of each dialect (wire.c), how to gather a crowd (crowd.c), how to check what
 * it hears (check.c), how to make it talk (talk.c) and how to read the accounts of the server's process (accounts.c).
 * It must not know which server it talks to. */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    TEXT = 50,          /* bytes of a message's text: who said it, its number, filler, its number again */
    NUMBER_AT = 2,      /* where the number stands in the text */
    NUMBER = 8,         /* its digits */
    MAX_SPEAKERS = 16,
    MAX_LINE = 192,     /* the longest delivered or spoken line of any dialect, with room to spare */
    NAME = 6,           /* bytes of every client's name: c00042 */
    DIALECTS = 4,
};

/* How one dialect says things. Every line that carries a message has the same length in one dialect. */
typedef struct {
    const char *name;
    const char *login, *welcome;        /* what a client says first (%s: its name); how the answer to it ends */
    const char *fence, *fence_answer;   /* a question whose answer proves that all before it has been heard */
    const char *say_before, *say_after; /* around the text, as the speaker says it */
    const char *hear_before, *hear_after; /* around the text, as others hear it; %s in the first: the speaker's name,
                                             '#' in the second: any digit (a time stamp) */
    const char *notices[3];             /* beginnings of lines about people who come and go */
    bool echoes;                        /* does a speaker hear its own words? */
    bool speakers_apart;                /* must speakers use connections that hear nothing? */
    size_t hear_len, text_at, hear_prefix; /* computed: the whole line; before the text; before the first name */
    bool stamped;                       /* computed: is there a time stamp in what is heard? */
} Dialect;

extern Dialect dialects[DIALECTS];
Dialect *dialect_named(const char *name);
void text_of(char text[TEXT], int speaker, uint32_t number);
size_t said_line(const Dialect *d, char *line, const char text[TEXT]);
size_t heard_line(const Dialect *d, char *line, const char *speaker, const char text[TEXT]);
bool same_line(const Dialect *d, const char *heard, const char *expected);

typedef struct {
    char line[DIALECTS][MAX_LINE]; /* as the listeners of each dialect must hear it */
    uint64_t said_ns;
    uint32_t left;                 /* listeners that have not heard it yet */
} Message;

typedef struct {
    Message *ring;      /* the last `ring_size` messages */
    uint32_t said, done; /* numbers begin at 0; everyone has heard all below `done` */
    int client;
    uint32_t listeners; /* how many must hear each of its messages */
    char *out;          /* said, and not yet taken by the kernel */
    size_t out_len, out_cap;
} Speaker;

typedef struct {
    int fd;
    const Dialect *dialect;
    int speaker;        /* its index among the speakers, or -1 */
    bool hears;         /* is every message checked here? */
    bool stalled;       /* never reads */
    bool fenced;        /* the answer to its fence has come */
    uint32_t next[MAX_SPEAKERS]; /* the number due from each speaker */
    char *carry;        /* the beginning of a line whose end has not come */
    size_t carry_len, carry_cap;
    uint64_t acknowledged; /* answers to what it published, where it hears nothing else */
    int answer_at;      /* where in such an answer the last chunk was cut */
} Client;

typedef struct { /* what was asked for */
    const char *host;
    int ports[3];
    const char *mix[3];
    int mixes;
    pid_t server;
    int clients, speakers, window, stalled;
    double rate, warm_s, seconds, idle_s, patience_s;
} Order;

typedef struct { /* one look at the clocks */
    uint64_t wall_ns, server_ns, load_ns, deliveries, messages;
    uint64_t server_core_ns, load_core_ns;     /* how long each of the two cores was busy, with any process */
    uint64_t server_wait_ns, load_wait_ns;     /* how long each process was ready to run and waited for its core */
    uint64_t server_stolen_ns, load_stolen_ns; /* how long the hypervisor kept each core from running anything */
} Account;

extern Order order;
extern Client *clients;
extern int client_count;
extern Speaker speakers[MAX_SPEAKERS];
extern uint32_t ring_size;
extern uint64_t deliveries, messages;
extern bool fencing, opening;
extern int fenced_count;

/* accounts.c */
uint64_t now_ns(void);
uint64_t server_ns(void);
Account account(void);
void print_disturbance(const Account *begin, const Account *end);
long server_rss_kb(void);
void latency_begin(void);
void latency_end(void);
void latency_add(uint64_t ns);
void print_latency(void);
_Noreturn void fault(const char *kind, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void trouble(const char *what);

/* crowd.c */
void gather(void);
void fence_all(bool first);
void print_logins(void);
bool stalled_dropped(void);

/* check.c */
void hear(Client *client, char *from, size_t len, uint64_t at_ns);
void read_client(Client *client);

/* talk.c */
typedef struct { Account begin, end; long peak_rss_kb; bool overloaded; } Talk;
Talk talk(void);
int watch(void);
#endif
