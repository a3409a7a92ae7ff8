"""Chat server, `line` protocol, gevent: a reading and a writing greenlet per client.

usage: .venv/bin/python py_gevent/chat.py PORT [IDLE]
"""
import sys
import unicodedata

import gevent
from gevent import signal_handler, socket
from gevent.queue import Queue
from gevent.server import StreamServer
from gevent.timeout import Timeout
import signal
import struct
import time

IDLE = float(sys.argv[2]) if len(sys.argv) > 2 else 60
users = {}
sessions = set()


class Idle(Exception):
    pass


class Stop(Exception):
    pass


class Session:
    def __init__(self, sock):
        self.sock = sock
        self.name = self.key = None
        self.queue = Queue()
        self.size = 0
        self.open = True
        self.moved = 0.0            # when the socket last took something
        self.reader = gevent.getcurrent()
        self.writer = gevent.spawn(self.write)
        sessions.add(self)

    def write(self):
        while True:
            data = self.queue.get()
            if data is None:
                return
            try:
                self.sock.sendall(data)
            except OSError:
                self.open = False
                self.reader.kill(block=False)
                return
            self.size -= len(data)
            self.moved = time.monotonic()

    def put(self, data):
        if self.open:
            if not self.size:
                self.moved = time.monotonic()
            self.queue.put(data)
            self.size += len(data)

    def say(self, text):
        self.put(text.encode() + b'\n')

    def hear(self, text):
        data = text.encode() + b'\n'
        if self.size + len(data) > 1024 * 1024:
            self.slow()
        else:
            self.put(data)

    def slow(self):
        if not self.open:
            return
        self.open = False
        self.leave()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.writer.kill(block=False)
        self.reader.kill(block=False)

    def leave(self):
        if self.key is not None and users.get(self.key) is self:
            del users[self.key]
            self.key = None
            for u in list(users.values()):
                u.hear(f'INFO {self.name} disconnected')

    def lines(self):
        """Complete lines; None for one that is too long."""
        buf, skip, first = b'', False, True
        while True:
            nl = buf.find(b'\n')
            if nl < 0:
                if len(buf) > 4097:
                    buf, skip = b'', True
                data = self.sock.recv(16384)
                if not data:
                    return
                buf += data
                if first and buf.startswith(b'\x16\x03'):
                    return
                continue
            line, buf = buf[:nl], buf[nl + 1:]
            if line.endswith(b'\r'):
                line = line[:-1]
            if first and (line.endswith((b' HTTP/1.0', b' HTTP/1.1'))):
                return
            first = False
            yield None if skip or len(line) > 4096 else line
            skip = False

    def run(self):
        login = gevent.spawn_later(60, self.login_timeout)
        lines = self.lines()
        try:
            while True:
                with Timeout(IDLE, Idle):
                    line = next(lines, b'')
                    # a generator that has ended yields nothing more
                    if line == b'' and lines.gi_frame is None:
                        break
                if line is None:
                    self.say('ERR line-too-long')
                elif self.line(line) == 'end':
                    break
                gevent.sleep(0)     # recv does not switch while there is something to read
                while self.size > 2 * 1024 * 1024:
                    gevent.sleep(0.05)
        except Idle:
            self.say('INFO idle-timeout')
        except Stop:
            pass
        except OSError:
            self.open = False
        finally:
            login.kill(block=False)
            self.leave()
            sessions.discard(self)
            self.close()

    def login_timeout(self):
        if self.key is None:
            self.reader.kill(Idle, block=False)

    def close(self):
        if self.open:
            self.queue.put(None)
            self.open = False
            with Timeout(10, False):
                self.writer.join()
            try:
                self.sock.shutdown(socket.SHUT_WR)
                with Timeout(1, False):
                    while self.sock.recv(65536):
                        pass
            except OSError:
                pass
        self.writer.kill(block=False)
        self.sock.close()

    def line(self, raw):
        raw = self.untelnet(raw)
        try:
            text = raw.decode('utf8')
        except UnicodeDecodeError:
            return self.say('ERR invalid-utf8')
        text = text.strip()
        if not text:
            return
        cmd, _, arg = text.partition(' ')
        arg = arg.strip()
        cmd = cmd.upper()
        if cmd == 'QUIT' or cmd == 'EXIT':
            self.say('Goodbye!')
            return 'end'
        if cmd == 'LOGIN':
            if self.key:
                return self.say('ERR already-logged-in')
            name = username(arg)
            if not name:
                return self.say('ERR invalid-username')
            if name.casefold() in users:
                return self.say('ERR username-taken')
            self.name, self.key = name, name.casefold()
            users[self.key] = self
            return self.say('OK')
        if not self.key:
            return self.say('ERR must-login-first')
        if cmd == 'MSG':
            text = clean(arg)
            if not text:
                return self.say('ERR empty-message')
            for u in list(users.values()):
                if u is not self:
                    u.hear(f'MSG {self.name} {text}')
            # somebody reads, but more slowly than we talk: talk more slowly, but not below 64 KiB/s
            until = time.monotonic() + len(text) / 65536
            while (now := time.monotonic()) < until and any(u.size > 1 << 19 and now - u.moved < 0.3 for u in users.values()):
                gevent.sleep(0.002)
        elif cmd == 'DM':
            to, _, text = arg.partition(' ')
            text = clean(text)
            if not text:
                return self.say('ERR invalid-dm-format')
            name = username(to)
            user = name and users.get(name.casefold())
            if not user:
                return self.say('ERR user-not-found')
            user.hear(f'DM {self.name} {text}')
        elif cmd == 'WHO':
            self.say('\n'.join('USER ' + u.name for u in users.values()))
        elif cmd == 'PING':
            arg = clean(arg)
            self.say('PONG ' + arg if arg else 'PONG')
        else:
            self.say('ERR unknown-command')

    def untelnet(self, raw):
        out = b''
        while (i := raw.find(b'\xff')) >= 0:
            out, raw = out + raw[:i], raw[i:]
            verb = raw[1:2]
            if verb == b'\xfa':
                end = raw.find(b'\xff\xf0')
                raw = raw[end + 2:] if end > 0 else b''
            elif verb in (b'\xfb', b'\xfc', b'\xfd', b'\xfe'):
                if raw[1:3] == b'\xfd\x06':
                    self.put(b'\xff\xfb\x06')
                raw = raw[3:]
            else:
                raw = raw[2:]
        return out + raw


def hidden(c):
    return c in '\xad\u034f\u115f\u1160\u180e\u200b\u2060\u2061\u2062\u2063\u2064\u3164\ufeff\uffa0'


def username(s):
    if len(s) > 80:
        return None
    s = unicodedata.normalize('NFC', ''.join(unicodedata.normalize('NFKC', c) if unicodedata.east_asian_width(c) in ('F', 'H') else c for c in s))
    kinds = [unicodedata.category(c) for c in s]
    if not 1 <= len(s) <= 20 or kinds[0][0] == 'M' or 'M' * 5 in ''.join(k[0] for k in kinds):
        return None
    for c, k in zip(s, kinds):
        if hidden(c) or '\ufe00' <= c <= '\ufe0f' or not (k[0] in 'LM' or k == 'Nd' or c in '_-.'):
            return None
    dirs = {unicodedata.bidirectional(c) for c in s}
    if dirs & {'R', 'AL', 'AN'} and ('L' in dirs or unicodedata.bidirectional(s[0]) not in ('R', 'AL')):
        return None
    return s


def clean(s):
    s = s.strip()
    rtl = any(unicodedata.bidirectional(c) in ('R', 'AL') for c in s)
    out = ''
    marks = 0
    tags = False
    for c in s:
        o = ord(c)
        if c == '\t':
            c = ' '
        elif o < 32 or 0x7F <= o < 0xA0 or 0x202A <= o <= 0x202E or 0x2066 <= o <= 0x2069 or o in (0x2028, 0x2029):
            c = '\ufffd'
        elif hidden(c) or (o in (0x200E, 0x200F, 0x61C) and not rtl):
            continue
        if 0xE0000 <= o <= 0xE007F:
            if not tags:
                continue
        else:
            tags = o == 0x1F3F4
        marks = marks + 1 if unicodedata.category(c)[0] == 'M' else 0
        if marks <= 4:
            out += c
    s = out.strip()
    if all(c.isspace() or c in '\u200c\u200d\u200e\u200f\u2800' or '\ufe00' <= c <= '\ufe0f' for c in s):
        return ''
    return s


def connected(sock, address):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Session(sock).run()


def stop():
    users.clear()
    for s in list(sessions):
        s.key = None
        s.say('INFO server-shutdown')
    gevent.sleep(0.2)
    for s in list(sessions):
        s.reader.kill(Stop, block=False)    # its own greenlet sends the rest and closes
    gevent.sleep(0.3)
    server.stop()


server = StreamServer(('127.0.0.1', int(sys.argv[1])), connected, backlog=256)
server.start()
signal_handler(signal.SIGTERM, lambda: gevent.spawn(stop))
signal_handler(signal.SIGINT, lambda: gevent.spawn(stop))
print('ready', server.server_port, flush=True)
server._stop_event.wait()
