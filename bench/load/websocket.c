/* WebSocket as RFC 6455 defines it, as far as a client needs it whose messages are single lines of text. */
#include "load.h"

#include <string.h>

enum { TEXT_FRAME = 0x81, MASKED = 0x80, SHORT = 125, TWO_BYTES = 126 };

/* Replaces a line with the frame that carries it without its newline, and returns the length of the frame. There has to
 * be room for eight more bytes. */
size_t frame_line(char *line, size_t len, bool masked) {
    static const char key[4] = {0x1d, 0x2c, 0x3b, 0x4a};
    const size_t payload = len - 1, head = (payload > SHORT ? 4 : 2), start = head + (masked ? sizeof key : 0);
    memmove(line + start, line, payload);
    line[0] = (char)TEXT_FRAME;
    line[1] = (char)((payload > SHORT ? TWO_BYTES : payload) | (masked ? MASKED : 0));
    if (payload > SHORT) {
        line[2] = (char)(payload >> 8);
        line[3] = (char)payload;
    }
    if (masked) {
        memcpy(line + head, key, sizeof key);
        for (size_t i = 0; i < payload; i++) line[start + i] ^= key[i % sizeof key];
    }
    return start + payload;
}

/* Where the payload of a frame from the server begins and ends; false if its end has not arrived. */
bool find_payload(const char *p, size_t rest, size_t *begin, size_t *end) {
    if (rest < 2) return false;
    const unsigned char *head = (const unsigned char *)p;
    *begin = head[1] == TWO_BYTES ? 4 : 2;
    if (rest < *begin) return false;
    *end = *begin + (head[1] == TWO_BYTES ? (size_t)(head[2] << 8 | head[3]) : head[1]);
    return rest >= *end;
}

void upgrade(Client *c) {
    static const char request[] = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    char answer[2048];
    size_t len = 0;
    if (send_bytes(c, request, sizeof request - 1, 0) != (ssize_t)sizeof request - 1)
        fail("closed", "a client could not ask for a WebSocket");
    do { /* the server says nothing more before the client does */
        ssize_t got = receive_bytes(c, answer + len, sizeof answer - 1 - len, 0);
        if (got <= 0) fail("closed", "the server closed the connection in place of opening a WebSocket");
        len += (size_t)got;
        answer[len] = 0;
    } while (!strstr(answer, "\r\n\r\n") && len < sizeof answer - 1);
    if (strncmp(answer, "HTTP/1.1 101 ", 13) != 0 || !strstr(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
        fail("refused", "the server does not open a WebSocket: %.100s", answer);
}
