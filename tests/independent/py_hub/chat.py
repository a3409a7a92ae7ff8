"""Chat server, `line` protocol: a reading and a writing thread per client, and one hub thread that owns the room.

usage: python3 chat.py PORT [IDLE]
"""
import queue
import re
import signal
import socket
import struct
import sys
import threading
import time
import unicodedata

IDLE = float(sys.argv[2]) if len(sys.argv) > 2 else 60
MAX = 4096
inbox = queue.Queue(2000)   # what the threads report to the hub: (kind, client, data)


class Client:
    def __init__(self, sock):
        self.sock = sock
        self.name = None
        self.key = None
        self.outbox = queue.Queue()
        self.waiting = 0            # bytes in the outbox, guarded by the lock
        self.lock = threading.Lock()
        self.gone = False
        self.moved = 0.0            # when the socket last took something
        self.began = self.active = time.monotonic()

    def send(self, text, limit=False):
        if self.gone:
            return True
        data = text if isinstance(text, bytes) else text.encode() + b'\n'
        with self.lock:
            if limit and self.waiting + len(data) > 1 << 20:
                return False
            if not self.waiting:
                self.moved = time.monotonic()
            self.waiting += len(data)
        self.outbox.put(data)
        return True

    def reader(self):
        f = self.sock.makefile('rb')
        first = True
        try:
            if f.peek(1)[:1] == b'\x16':      # a TLS hello
                inbox.put(('eof', self, None))
                return
            while True:
                line = f.readline(MAX + 2)
                if not line:
                    break
                if not line.endswith(b'\n'):
                    # too long, or the end of the input
                    while line and not line.endswith(b'\n'):
                        line = f.readline(65536)
                    if not line:
                        break
                    inbox.put(('long', self, None))
                    continue
                line = line[:-1]
                if line.endswith(b'\r'):
                    line = line[:-1]
                if first and (re.match(rb'[A-Z]+ .*HTTP/\d', line)):
                    break
                first = False
                if len(line) > MAX:
                    inbox.put(('long', self, None))
                else:
                    inbox.put(('line', self, line))
        except OSError:
            pass
        inbox.put(('eof', self, None))

    def writer(self):
        try:
            while True:
                data = self.outbox.get()
                if data is None:
                    self.sock.shutdown(socket.SHUT_WR)
                    time.sleep(0.3)   # let the reader take the rest, an early close would be a reset
                    break
                self.sock.sendall(data)
                with self.lock:
                    self.waiting -= len(data)
                self.moved = time.monotonic()
        except OSError:
            pass
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


class Hub:
    def __init__(self):
        self.clients = set()
        self.users = []      # in login order

    def run(self):
        checked = time.monotonic()
        while True:
            try:
                kind, client, data = inbox.get(timeout=0.1)
            except queue.Empty:
                pass
            else:
                if kind == 'stop':
                    return self.stop()
                if kind == 'new':
                    self.clients.add(client)
                elif client in self.clients:
                    if kind == 'eof':
                        self.close(client)
                    else:
                        client.active = time.monotonic()
                        if kind == 'long':
                            client.send('ERR line-too-long')
                        else:
                            try:
                                self.line(client, data)
                            except Exception as e:          # a fault: only this client suffers
                                print('fault', repr(e), file=sys.stderr)
                                self.close(client)
            now = time.monotonic()
            if now - checked > 0.1:
                checked = now
                for c in list(self.clients):
                    if now - c.active >= IDLE or (c.key is None and now - c.began >= 60):
                        c.send('INFO idle-timeout')
                        self.close(c)

    def stop(self):
        for c in self.clients:
            c.send('INFO server-shutdown')
            c.outbox.put(None)

    def tell(self, client, text):
        if not client.send(text, limit=True):
            self.reset(client)

    def others(self, me, text):
        for u in list(self.users):
            if u is not me:
                self.tell(u, text)

    def pace(self, n):
        """Somebody reads, but more slowly than the others talk: slow down, but not below 64 KiB/s."""
        until = time.monotonic() + n / 65536
        while (now := time.monotonic()) < until and any(u.waiting > 1 << 19 and now - u.moved < 0.3 for u in self.users):
            time.sleep(0.002)

    def leave(self, client):
        self.clients.discard(client)
        client.gone = True
        if client in self.users:
            self.users.remove(client)
            self.others(client, f'INFO {client.name} disconnected')

    def close(self, client):
        client.outbox.put(None)
        self.leave(client)

    def reset(self, client):
        if client not in self.clients:
            return
        try:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            client.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.close(client)

    def find(self, key):
        for u in self.users:
            if u.key == key:
                return u

    def line(self, c, raw):
        raw, mark = telnet(raw)
        if mark:
            c.send(b'\xff\xfb\x06')
        try:
            line = raw.decode('utf-8')
        except UnicodeDecodeError:
            return c.send('ERR invalid-utf8')
        parts = line.split(maxsplit=1)
        if not parts:
            return
        cmd = parts[0].upper()
        arg = parts[1].rstrip() if len(parts) == 2 else ''
        if cmd in ('QUIT', 'EXIT'):
            c.send('Goodbye!')
            return self.close(c)
        if cmd == 'LOGIN':
            if c.key:
                return c.send('ERR already-logged-in')
            name, key = username(arg)
            if not name:
                return c.send('ERR invalid-username')
            if self.find(key):
                return c.send('ERR username-taken')
            c.name, c.key = name, key
            self.users.append(c)
            return c.send('OK')
        if not c.key:
            return c.send('ERR must-login-first')
        if cmd == 'MSG':
            text = clean(arg)
            if not text:
                return c.send('ERR empty-message')
            self.others(c, f'MSG {c.name} {text}')
            self.pace(len(text))
        elif cmd == 'DM':
            parts = arg.split(maxsplit=1)
            text = clean(parts[1]) if len(parts) == 2 else ''
            if not text:
                return c.send('ERR invalid-dm-format')
            to = self.find(username(parts[0])[1])
            if not to:
                return c.send('ERR user-not-found')
            self.tell(to, f'DM {c.name} {text}')
        elif cmd == 'WHO':
            c.send('\n'.join('USER ' + u.name for u in self.users))
        elif cmd == 'PING':
            c.send(f'PONG {clean(arg)}' if clean(arg) else 'PONG')
        else:
            c.send('ERR unknown-command')


def telnet(raw):
    if b'\xff' not in raw:
        return raw, False
    mark = b'\xff\xfd\x06' in raw
    raw = re.sub(rb'\xff\xfa.*?(\xff\xf0|\Z)', b'', raw, flags=re.S)
    raw = re.sub(rb'\xff[\xfb-\xfe].?', b'', raw, flags=re.S)
    raw = re.sub(rb'\xff.?', b'', raw, flags=re.S)
    return raw, mark


def username(s):
    """(name, key), or (None, None)"""
    no = None, None
    if len(s) > 80:
        return no
    s = ''.join(unicodedata.normalize('NFKC', c) if '\uff00' <= c <= '\uffef' else c for c in s)
    s = unicodedata.normalize('NFC', s)
    if not s or len(s) > 20:
        return no
    cats = [unicodedata.category(c) for c in s]
    for c, cat in zip(s, cats):
        if not (cat[0] in 'LM' or cat == 'Nd' or c in '_-.') or c in '\u115f\u1160\u3164\uffa0\u034f' or '\ufe00' <= c <= '\ufe0f':
            return no
    if cats[0][0] == 'M' or 'MMMMM' in ''.join(c[0] for c in cats):
        return no
    bidi = [unicodedata.bidirectional(c) for c in s]
    if ('R' in bidi or 'AL' in bidi or 'AN' in bidi) and ('L' in bidi or bidi[0] not in ('R', 'AL')):
        return no
    return s, s.casefold()


GONE = dict.fromkeys([0xAD, 0x34F, 0x115F, 0x1160, 0x180E, 0x200B, 0x3164, 0xFEFF, 0xFFA0, *range(0x2060, 0x2065), *range(0x206A, 0x2070)])
BAD = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029], '\ufffd')
TABLE = {**GONE, **BAD, 9: ' '}


def clean(s):
    s = s.strip().translate(TABLE)
    s = re.sub('(\U0001F3F4[\U000E0020-\U000E007E]+\U000E007F)|[\U000E0000-\U000E007F]', lambda m: m[1] or '', s)
    if not any(unicodedata.bidirectional(c) in ('R', 'AL') and c.isalpha() for c in s):
        s = s.translate({0x200E: None, 0x200F: None, 0x61C: None})
    out = ''
    n = 0
    for c in s:
        n = n + 1 if unicodedata.category(c)[0] == 'M' else 0
        if n < 5:
            out += c
    s = out.strip()
    blank = re.fullmatch('[\\s\u200c-\u200f\u061c\u2800\ufe00-\ufe0f\U000e0100-\U000e01ef]*', s)
    return '' if blank else s


def main():
    server = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=256)
    hub = threading.Thread(target=Hub().run)
    hub.start()
    print('ready', server.getsockname()[1], flush=True)

    def stop(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, stop)
    try:
        while True:
            sock, _ = server.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            c = Client(sock)
            inbox.put(('new', c, None))
            threading.Thread(target=c.reader, daemon=True).start()
            threading.Thread(target=c.writer, daemon=True).start()
    except KeyboardInterrupt:
        inbox.put(('stop', None, None))
        hub.join()
        time.sleep(0.5)


main()
