"""Chat server, `line` protocol: one thread, a selectors loop, an output buffer per connection.

usage: python3 chat.py PORT [IDLE]
"""
import collections
import selectors
import signal
import socket
import struct
import sys
import time
import unicodedata

PORT = int(sys.argv[1])
IDLE = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
LOGIN = 60.0
MAX_LINE, MAX_OUT = 4096, 1024 * 1024

sel = selectors.DefaultSelector()
conns = set()
online = collections.OrderedDict()   # folded name -> Conn
dropped = []                         # slow readers to be reset after the present event
running = True


class Conn:
    def __init__(self, sock):
        self.sock = sock
        self.inp = bytearray()
        self.out = bytearray()
        self.discard = False      # the rest of a line that is too long
        self.first = True
        self.name = self.key = None
        self.closing = None       # since when
        self.finished = False     # our side is shut
        self.eof = False
        self.start = self.last = time.monotonic()
        self.events = selectors.EVENT_READ
        conns.add(self)
        sel.register(sock, self.events, self)

    def interest(self):
        ev = (0 if self.eof or (len(self.out) > 2 * MAX_OUT and not self.closing) else selectors.EVENT_READ) | (selectors.EVENT_WRITE if self.out else 0)
        if ev != self.events:
            if not self.events:
                sel.register(self.sock, ev, self)
            elif not ev:
                sel.unregister(self.sock)
            else:
                sel.modify(self.sock, ev, self)
            self.events = ev

    def answer(self, s):
        if self.closing is None:
            self.out += s.encode() + b'\n'
            self.interest()

    def hear(self, s):
        if self.closing is not None:
            return
        if len(self.out) + len(s) + 1 > MAX_OUT:
            self.write()
            if len(self.out) + len(s) + 1 > MAX_OUT:
                dropped.append(self)
                return
        self.answer(s)

    def write(self):
        try:
            n = self.sock.send(self.out)
            del self.out[:n]
        except BlockingIOError:
            pass
        except OSError:
            self.out.clear()
            self.destroy()
            return
        self.maybe_shut()
        if self in conns:
            self.interest()

    def maybe_shut(self):
        if self.closing is not None and not self.out and not self.finished:
            self.finished = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            if self.eof:
                self.destroy()

    def leave(self):
        if self.key is not None:
            del online[self.key]
            self.key = None
            tell_others(self, f'INFO {self.name} disconnected')

    def close(self):
        """Sends what is waiting, then ends."""
        if self.closing is None:
            self.leave()
            self.closing = time.monotonic()
            self.maybe_shut()

    def destroy(self, reset=False):
        if self not in conns:
            return
        conns.discard(self)
        self.leave()
        if self.closing is None:
            self.closing = 0
        if self.events:
            sel.unregister(self.sock)
            self.events = 0
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.sock.close()

    def read(self):
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            return self.destroy()
        if not data:
            self.eof = True
            self.close()
            if self.finished:
                self.destroy()
            elif self in conns:
                self.interest()
            return
        if self.closing is not None:
            return
        self.inp += data
        if self.first and self.inp[:1] == b'\x16':
            return self.destroy()
        pos = 0
        while self.closing is None:
            end = self.inp.find(b'\n', pos)
            if end < 0:
                break
            line = bytes(self.inp[pos:end])
            pos = end + 1
            self.last = time.monotonic()
            if line[-1:] == b'\r':
                line = line[:-1]
            if self.discard or len(line) > MAX_LINE:
                self.discard = False
                self.answer('ERR line-too-long')
            elif self.first and b' HTTP/' in line and line[:1].isupper():
                return self.destroy()
            else:
                command(self, line)
            self.first = False
        del self.inp[:pos]
        if len(self.inp) > MAX_LINE + 1:
            self.discard = True
            self.inp.clear()


def tell_others(me, s):
    for c in online.values():
        if c is not me:
            c.hear(s)


# ---- text ----
def cat(c):
    return unicodedata.category(c)


def drop(c):
    return c in '\xad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060\u2061\u2062\u2063\u2064\u206a\u206b\u206c\u206d\u206e\u206f\u3164\ufeff\uffa0'


def empty_looking(c):
    return c.isspace() or cat(c) == 'Cf' or '\ufe00' <= c <= '\ufe0f' or '\U000e0100' <= c <= '\U000e01ef' or c == '\u2800'


def clean(s):
    s = s.strip()
    rtl = any(unicodedata.bidirectional(c) in ('R', 'AL') for c in s if cat(c)[0] == 'L')
    out = []
    marks = 0
    i = 0
    while i < len(s):
        c = s[i]
        i += 1
        if c == '\U0001f3f4':        # a flag with tags
            j = i
            while j < len(s) and '\U000e0020' <= s[j] <= '\U000e007e':
                j += 1
            if i < j < len(s) and s[j] == '\U000e007f':
                out.append(s[i - 1:j + 1])
                i = j + 1
                marks = 0
                continue
        if c == '\t':
            c = ' '
        elif cat(c) in ('Cc', 'Zl', 'Zp') or c in '\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069':
            c = '\ufffd'
        elif drop(c) or '\U000e0000' <= c <= '\U000e007f' or (c in '\u200e\u200f\u061c' and not rtl):
            continue
        if cat(c)[0] == 'M':
            marks += 1
            if marks > 4:
                continue
        else:
            marks = 0
        out.append(c)
    s = ''.join(out).strip()
    return '' if all(map(empty_looking, s)) else s


def username(s):
    if len(s) > 80:
        return None
    s = unicodedata.normalize('NFC', ''.join(unicodedata.normalize('NFKC', c) if unicodedata.decomposition(c)[:5] in ('<wide', '<narr') else c for c in s))
    if not s or len(s) > 20 or cat(s[0])[0] == 'M':
        return None
    marks = 0
    for c in s:
        marks = marks + 1 if cat(c)[0] == 'M' else 0
        if marks > 4 or drop(c) or not (c in '_-.' or cat(c)[0] in 'LM' or cat(c) == 'Nd') or (empty_looking(c)):
            return None
    b = [unicodedata.bidirectional(c) for c in s]
    if set(b) & {'R', 'AL', 'AN'}:
        b = [x for x in b if x != 'NSM']
        if b[0] not in ('R', 'AL') or 'L' in b or b[-1] not in ('R', 'AL', 'EN', 'AN') or ('EN' in b and 'AN' in b):
            return None
    return s


def fold(s):
    return unicodedata.normalize('NFC', s.lower())


def untelnet(b):
    out = bytearray()
    mark = False
    it = iter(b)
    for x in it:
        if x != 255:
            out.append(x)
            continue
        v = next(it, None)
        if v == 255:
            out.append(255)
        elif v in (251, 252, 253, 254):
            if next(it, None) == 6 and v == 253:
                mark = True
        elif v == 250:
            prev = None
            for y in it:
                if prev == 255 and y == 240:
                    break
                prev = y
    return bytes(out), mark


# ---- commands ----
def command(c, raw):
    if b'\xff' in raw:
        raw, mark = untelnet(raw)
        if mark:
            c.out += b'\xff\xfb\x06'
            c.interest()
    try:
        line = raw.decode('utf-8')
    except UnicodeDecodeError:
        return c.answer('ERR invalid-utf8')
    line = line.strip(' \t')
    if not line:
        return
    word, _, arg = line.replace('\t', ' ', 1).partition(' ') if '\t' in line.split(' ')[0] else line.partition(' ')
    arg = arg.strip()
    word = word.upper()
    if word in ('QUIT', 'EXIT'):
        c.answer('Goodbye!')
        c.close()
    elif word == 'LOGIN':
        if c.key is not None:
            return c.answer('ERR already-logged-in')
        name = username(arg)
        if name is None:
            return c.answer('ERR invalid-username')
        if fold(name) in online:
            return c.answer('ERR username-taken')
        c.name, c.key = name, fold(name)
        online[c.key] = c
        c.answer('OK')
    elif c.key is None:
        c.answer('ERR must-login-first')
    elif word == 'MSG':
        text = clean(arg)
        if not text:
            return c.answer('ERR empty-message')
        tell_others(c, f'MSG {c.name} {text}')
    elif word == 'DM':
        to, _, text = arg.partition(' ')
        text = clean(text)
        if not to or not text:
            return c.answer('ERR invalid-dm-format')
        name = username(to)
        other = online.get(fold(name)) if name else None
        if other is None:
            return c.answer('ERR user-not-found')
        other.hear(f'DM {c.name} {text}')
    elif word == 'WHO':
        for o in online.values():
            c.answer('USER ' + o.name)
    elif word == 'PING':
        token = clean(arg)
        c.answer('PONG ' + token if token else 'PONG')
    else:
        c.answer('ERR unknown-command')


def stop(*_):
    global running
    running = False


def main():
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    lst = socket.socket()
    lst.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    lst.bind(('127.0.0.1', PORT))
    lst.listen(512)
    lst.setblocking(False)
    sel.register(lst, selectors.EVENT_READ, None)
    print('ready', lst.getsockname()[1], flush=True)
    checked = 0
    while running:
        for key, mask in sel.select(0.1):
            c = key.data
            if c is None:
                try:
                    while True:
                        s, _ = lst.accept()
                        s.setblocking(False)
                        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        Conn(s)
                except OSError:
                    pass
                continue
            if mask & selectors.EVENT_READ and c in conns:
                c.read()
            if mask & selectors.EVENT_WRITE and c in conns:
                c.write()
            while dropped:
                dropped.pop().destroy(reset=True)
        now = time.monotonic()
        if now - checked > 0.1:
            checked = now
            for c in list(conns):
                if c.closing is not None:
                    if now - c.closing > (1 if c.finished else 10):
                        c.destroy()
                elif now - c.last >= IDLE or (c.key is None and now - c.start >= LOGIN):
                    c.answer('INFO idle-timeout')
                    c.close()
    online.clear()
    for c in list(conns):
        c.key = None
        c.answer('INFO server-shutdown')
        c.close()
    end = time.monotonic() + 1
    while conns and any(c.out for c in conns) and time.monotonic() < end:
        for c in list(conns):
            if c.out:
                c.write()
        time.sleep(0.01)


main()
