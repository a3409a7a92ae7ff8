"""Chat server, `line` protocol: socketserver.ThreadingTCPServer, one lock for the room.

A handler thread sends directly as long as the socket takes it; what it does not take waits in the client's
buffer, and one flusher thread sends it as the socket becomes writable. So no client waits for a slow reader.

usage: python3 chat.py PORT [IDLE]
"""
import select
import signal
import socket
import socketserver
import struct
import sys
import threading
import time
import unicodedata

PORT = int(sys.argv[1])
IDLE = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
room_lock = threading.RLock()
room = {}            # key -> handler, in login order
everyone = set()
backlog = set()      # handlers with something in their buffer
wake_r, wake_w = socket.socketpair()
wake_w.setblocking(False)


class Handler(socketserver.BaseRequestHandler):
    def setup(self):
        self.name = self.key = None
        self.buffer = bytearray()
        self.dead = False
        self.began = self.last = time.monotonic()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with room_lock:
            everyone.add(self)

    # --- output; with the room lock held ---
    def raw(self, data):
        if self.dead:
            return
        if not self.buffer:
            try:
                n = self.request.send(data, socket.MSG_DONTWAIT)
                data = data[n:]
            except BlockingIOError:
                pass
            except OSError:
                self.dead = True
                return
            if not data:
                return
        self.buffer += data
        backlog.add(self)
        try:
            wake_w.send(b'x')
        except BlockingIOError:
            pass

    def reply(self, text):
        self.raw(text.encode() + b'\n')

    def tell(self, text):
        data = text.encode() + b'\n'
        if len(self.buffer) + len(data) > 1 << 20:
            self.reset()
        else:
            self.raw(data)

    def reset(self):
        if self.dead:
            return
        self.dead = True
        self.buffer.clear()
        backlog.discard(self)
        try:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self.request.shutdown(socket.SHUT_RDWR)     # its thread wakes up and closes
        except OSError:
            pass
        self.leave()

    def leave(self):
        if self.key is not None:
            del room[self.key]
            self.key = None
            tell_others(self, f'INFO {self.name} disconnected')

    # --- input ---
    def handle(self):
        buf = b''
        skip = False
        first = True
        while not self.dead:
            now = time.monotonic()
            deadline = self.last + IDLE
            if self.key is None:
                deadline = min(deadline, self.began + 60)
            if now >= deadline:
                with room_lock:
                    self.reply('INFO idle-timeout')
                return
            if not select.select([self.request], [], [], deadline - now)[0]:
                continue
            try:
                data = self.request.recv(8192)
            except OSError:
                return
            if not data:
                return
            buf += data
            if first and buf.startswith(b'\x16\x03'):
                return
            *lines, buf = buf.split(b'\n')
            for line in lines:
                self.last = time.monotonic()
                if line.endswith(b'\r'):
                    line = line[:-1]
                with room_lock:
                    if skip or len(line) > 4096:
                        self.reply('ERR line-too-long')
                    elif first and b' HTTP/1.' in line:
                        return
                    elif self.line(line):
                        return
                skip = first = False
            if len(buf) > 4097:
                skip = True
                buf = b''
            while len(self.buffer) > 2 << 20 and not self.dead:      # asks for more than it reads
                time.sleep(0.05)

    def finish(self):
        with room_lock:
            self.leave()
            everyone.discard(self)
        # the rest of the output, then the end; do not wait for ever
        end = time.monotonic() + 10
        while self.buffer and not self.dead and time.monotonic() < end:
            time.sleep(0.02)
        if self.dead:
            return
        try:
            self.request.shutdown(socket.SHUT_WR)
            self.request.settimeout(0.5)
            end = time.monotonic() + 1
            while time.monotonic() < end and self.request.recv(8192):
                pass
        except OSError:
            pass

    def line(self, raw):
        """Returns True at the end."""
        raw, mark = untelnet(raw)
        if mark:
            self.raw(b'\xff\xfb\x06')
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            return self.reply('ERR invalid-utf8')
        line = line.strip()
        if not line:
            return
        command, *rest = line.split(None, 1)
        command = command.upper()
        arg = rest[0] if rest else ''
        if command in ('QUIT', 'EXIT'):
            self.reply('Goodbye!')
            return True
        if command == 'LOGIN':
            if self.key is not None:
                return self.reply('ERR already-logged-in')
            name, key = check_name(arg)
            if name is None:
                return self.reply('ERR invalid-username')
            if key in room:
                return self.reply('ERR username-taken')
            self.name, self.key = name, key
            room[key] = self
            return self.reply('OK')
        if self.key is None:
            return self.reply('ERR must-login-first')
        if command == 'MSG':
            text = clean(arg)
            if not text:
                return self.reply('ERR empty-message')
            tell_others(self, f'MSG {self.name} {text}')
        elif command == 'DM':
            to, *rest = arg.split(None, 1) or ['']
            text = clean(rest[0]) if rest else ''
            if not text:
                return self.reply('ERR invalid-dm-format')
            other = room.get(check_name(to)[1])
            if other is None:
                return self.reply('ERR user-not-found')
            other.tell(f'DM {self.name} {text}')
        elif command == 'WHO':
            for other in room.values():
                self.reply('USER ' + other.name)
        elif command == 'PING':
            token = clean(arg)
            self.reply('PONG ' + token if token else 'PONG')
        else:
            self.reply('ERR unknown-command')


def tell_others(me, text):
    for other in list(room.values()):
        if other is not me:
            other.tell(text)


def flusher():
    while True:
        with room_lock:
            waiting = {h.request.fileno(): h for h in backlog if h.request.fileno() >= 0}
        poll = select.poll()
        poll.register(wake_r, select.POLLIN)
        for fd in waiting:
            poll.register(fd, select.POLLOUT)
        ready = poll.poll(500)
        with room_lock:
            for fd, what in ready:
                if fd == wake_r.fileno():
                    wake_r.recv(4096)
                    continue
                h = waiting[fd]
                if h not in backlog:
                    continue
                try:
                    n = h.request.send(h.buffer, socket.MSG_DONTWAIT)
                    del h.buffer[:n]
                except BlockingIOError:
                    continue
                except OSError:
                    h.dead = True
                    h.buffer.clear()
                if not h.buffer:
                    backlog.discard(h)


def untelnet(raw):
    if 255 not in raw:
        return raw, False
    out = bytearray()
    mark = False
    i = 0
    while i < len(raw):
        if raw[i] != 255:
            out.append(raw[i])
            i += 1
        elif raw[i + 1:i + 2] == b'\xff':
            out.append(255)
            i += 2
        elif raw[i + 1:i + 2] == b'\xfa':
            end = raw.find(b'\xff\xf0', i + 2)
            i = end + 2 if end >= 0 else len(raw)
        elif raw[i + 1:i + 2] in (b'\xfb', b'\xfc', b'\xfd', b'\xfe'):
            mark |= raw[i + 1:i + 3] == b'\xfd\x06'
            i += 3
        else:
            i += 2
    return bytes(out), mark


INVISIBLE = set('\u200b\ufeff\u00ad\u2060\u2061\u2062\u2063\u2064\u115f\u1160\u3164\uffa0\u034f\u180e')
MARKS = ('Mn', 'Mc', 'Me')


def check_name(s):
    s = s.strip()
    if len(s) > 80:
        return None, None
    s = ''.join(unicodedata.normalize('NFKC', c) if '\uff01' <= c <= '\uffee' else c for c in s)
    s = unicodedata.normalize('NFC', s)
    if not 1 <= len(s) <= 20:
        return None, None
    marks = 0
    right = left = False
    for i, c in enumerate(s):
        cat = unicodedata.category(c)
        if cat in MARKS:
            marks += 1
            if i == 0 or marks > 4 or '\ufe00' <= c <= '\ufe0f' or c in INVISIBLE or c >= '\U000e0100':
                return None, None
            continue
        marks = 0
        if not (cat[0] == 'L' or cat == 'Nd' or c in '_-.') or c in INVISIBLE:
            return None, None
        if unicodedata.bidirectional(c) in ('R', 'AL', 'AN'):
            right = True
        if unicodedata.bidirectional(c) == 'L':
            left = True
    if right and (left or unicodedata.bidirectional(s[0]) not in ('R', 'AL')):
        return None, None
    return s, unicodedata.normalize('NFC', s.casefold())


def clean(s):
    out = []
    marks = 0
    s = s.strip()
    rtl = any(unicodedata.bidirectional(c) in ('R', 'AL') for c in s)
    flag = False
    for c in s:
        cat = unicodedata.category(c)
        if c == '\t':
            c = ' '
        elif cat in ('Cc', 'Zl', 'Zp') or '\u202a' <= c <= '\u202e' or '\u2066' <= c <= '\u2069':
            c = '\ufffd'
        elif c in INVISIBLE or (c in '\u200e\u200f\u061c' and not rtl):
            continue
        if '\U000e0000' <= c <= '\U000e007f':
            if not flag:
                continue
        else:
            flag = c == '\U0001f3f4'
        marks = marks + 1 if cat in MARKS else 0
        if marks < 5:
            out.append(c)
    s = ''.join(out).strip()
    if all(c.isspace() or unicodedata.category(c) == 'Cf' or c == '\u2800' or '\ufe00' <= c <= '\ufe0f' for c in s):
        return ''
    return s


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


with Server(('127.0.0.1', PORT), Handler) as server:
    threading.Thread(target=flusher, daemon=True).start()

    def stop(*_):
        threading.Thread(target=server.shutdown).start()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print('ready', server.server_address[1], flush=True)
    server.serve_forever(0.1)
    with room_lock:
        room.clear()
        for h in list(everyone):
            h.key = None
            h.reply('INFO server-shutdown')
    time.sleep(0.2)
    for h in list(everyone):
        try:
            h.request.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    time.sleep(0.2)
