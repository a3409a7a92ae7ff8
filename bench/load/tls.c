/* The bytes of a connection, encrypted or not. Without WITH_TLS it needs no library. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#ifdef WITH_TLS
#include <openssl/ssl.h>

static ssize_t result_of(SSL *tls, int done) {
    if (done > 0) return done;
    switch (SSL_get_error(tls, done)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_ZERO_RETURN: return 0;
    default: errno = EPROTO; return -1;
    }
}

void shake_hands(Client *c) {
    static SSL_CTX *context;
    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        if (!context) fail_load("OpenSSL does not work");
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
        /* Without this, each record takes two reads from the socket. */
        SSL_CTX_set_read_ahead(context, 1);
        SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    }
    SSL *tls = SSL_new(context);
    if (!tls || !SSL_set_fd(tls, c->fd)) fail_load("OpenSSL does not work");
    if (SSL_connect(tls) != 1) fail("closed", "a client could not shake hands");
    c->tls = tls;
}

/* From now on nothing waits. */
void stop_waiting(Client *c) {
    if (c->tls) fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
}
#else
void shake_hands(Client *c) {
    (void)c;
    fail_load("this load generator was compiled without TLS");
}

void stop_waiting(Client *c) { (void)c; }
#endif

/* As send, with the flags of a connection without TLS. */
ssize_t send_bytes(Client *c, const char *data, size_t len, int flags) {
#ifdef WITH_TLS
    if (c->tls) return result_of(c->tls, SSL_write(c->tls, data, (int)len));
#endif
    return send(c->fd, data, len, flags | MSG_NOSIGNAL);
}

/* As recv. With TLS everything that has arrived is read: what OpenSSL holds does not make the socket readable again. */
ssize_t receive_bytes(Client *c, char *data, size_t len, int flags) {
#ifdef WITH_TLS
    if (c->tls) {
        size_t total = 0;
        while (total < len) {
            ssize_t got = result_of(c->tls, SSL_read(c->tls, data + total, (int)(len - total)));
            if (got <= 0) return total ? (ssize_t)total : got;
            total += (size_t)got;
            /* One that waits must not wait for more than there is. */
            if (!flags && !SSL_pending(c->tls)) break;
        }
        return (ssize_t)total;
    }
#endif
    return recv(c->fd, data, len, flags);
}
