"""Chat server with asyncio protocols. `line` on PORT; `slash` and `json` on further ports if given.

usage: python3 chat.py PORT [IDLE] [SLASH_PORT [JSON_PORT]]
"""
import asyncio
import json
import signal
import socket
import struct
import sys
import time
import unicodedata as ud

LIMIT = 4096
HIGH = 1 << 20
IDLE = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0


class Room:
    """Everybody, in login order, and what the dialects have to be told."""

    def __init__(self):
        self.members = {}

    def find(self, typed):
        name = normal(typed)
        return self.members.get(fold(name)) if name else None

    def names(self):
        return [m.name for m in self.members.values()]

    def tell_others(self, me, event, *args):
        for m in [*self.members.values()]:
            if m is not me:
                m.hear(event, *args)


room = Room()
connections = set()


def fold(name):
    return ud.normalize('NFC', name.casefold())


def normal(typed):
    """The normalised name, or None if it is not allowed."""
    if len(typed) > 80:
        return None
    name = ''
    for c in typed:
        d = ud.decomposition(c)
        name += ud.normalize('NFKC', c) if d.startswith(('<wide>', '<narrow>')) else c
    name = ud.normalize('NFC', name)
    if not 0 < len(name) <= 20 or ud.category(name[0]).startswith('M'):
        return None
    run = 0
    for c in name:
        cat = ud.category(c)
        if cat in ('Mn', 'Mc', 'Me'):
            run += 1
            if run > 4 or invisible(c):
                return None
            continue
        run = 0
        if not (cat in ('Lu', 'Ll', 'Lt', 'Lm', 'Lo', 'Nd') or c in '_-.') or invisible(c):
            return None
    kinds = {ud.bidirectional(c) for c in name}
    if kinds & {'R', 'AL', 'AN'}:
        if 'L' in kinds or ud.bidirectional(name[0]) not in ('R', 'AL') or name[-1] in '_-.':
            return None
    return name


def invisible(c):
    n = ord(c)
    return (n in (0xAD, 0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x200B, 0x3164, 0xFEFF, 0xFFA0) or 0x2060 <= n <= 0x2064
            or 0x206A <= n <= 0x206F or selector(c))


def selector(c):
    return 0xFE00 <= ord(c) <= 0xFE0F or 0xE0100 <= ord(c) <= 0xE01EF or 0x180B <= ord(c) <= 0x180D


def clean(text):
    text = text.strip()
    rtl = any(ud.bidirectional(c) in ('R', 'AL') and c.isalpha() for c in text)
    out, marks, flag, shown = [], 0, False, False
    for c in text:
        n = ord(c)
        if c == '\t':
            c = ' '
        elif ud.category(c) in ('Cc', 'Zl', 'Zp') or 0x202A <= n <= 0x202E or 0x2066 <= n <= 0x2069:
            c = '\ufffd'
        if 0xE0000 <= n <= 0xE007F:
            if not flag:
                continue
        else:
            flag = n == 0x1F3F4
        if (invisible(c) and not selector(c)) or (n in (0x200E, 0x200F, 0x61C) and not rtl):
            continue
        marks = marks + 1 if ud.category(c)[0] == 'M' else 0
        if marks > 4:
            continue
        shown = shown or not (c.isspace() or n in (0x200C, 0x200D, 0x200E, 0x200F, 0x61C, 0x2800) or selector(c))
        out.append(c)
    return ''.join(out).strip() if shown else ''


def untelnet(raw):
    out, mark, i = bytearray(), False, 0
    while i < len(raw):
        if raw[i] != 255:
            out.append(raw[i])
            i += 1
            continue
        verb = raw[i + 1] if i + 1 < len(raw) else 0
        if verb == 255:
            out.append(255)
            i += 2
        elif verb == 250:
            end = raw.find(b'\xff\xf0', i)
            i = len(raw) if end < 0 else end + 2
        elif verb >= 251:
            mark = mark or raw[i + 1:i + 3] == b'\xfd\x06'
            i += 3
        else:
            i += 2
    return bytes(out), mark


class Chat(asyncio.Protocol):
    idle = 0
    telnet = True
    TOO_LONG = BAD_UTF8 = TIMEOUT = SHUTDOWN = ''

    def connection_made(self, transport):
        self.t = transport
        transport.set_write_buffer_limits(high=HIGH)
        self.loop = asyncio.get_running_loop()
        self.buf, self.skip, self.begun = bytearray(), False, False
        self.name, self.over = None, False
        self.timer = None
        self.login_timer = self.loop.call_later(60, self.login_timeout)
        self.active()
        connections.add(self)

    # --- output ---
    def write(self, text):
        if not self.over:
            self.t.write(text.encode() + b'\n')

    def hear(self, event, *args):
        text = getattr(self, 'on_' + event)(*args)
        if text is None or self.over:
            return
        if self.t.get_write_buffer_size() + len(text) >= HIGH:
            self.over = True
            self.t.get_extra_info('socket').setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self.t.abort()  # connection_lost tells the others
        else:
            self.write(text)

    def pause_writing(self):
        self.t.pause_reading()

    def resume_writing(self):
        if not self.over:
            self.t.resume_reading()

    # --- membership ---
    def join(self, name):
        self.name = name
        self.login_timer.cancel()
        room.members[fold(name)] = self
        room.tell_others(self, 'join', name)

    def leave(self):
        if self.name is not None and room.members.get(fold(self.name)) is self:
            del room.members[fold(self.name)]
            room.tell_others(self, 'leave', self.name)

    def end(self):
        if self.over:
            return
        self.leave()
        self.over = True
        self.login_timer.cancel()
        if self.timer:
            self.timer.cancel()
        try:
            self.t.write_eof()  # after what is buffered; close when the other side has closed, too
        except (OSError, RuntimeError):
            pass
        self.loop.call_later(2, self.t.close)

    def connection_lost(self, exc):
        self.leave()
        self.over = True
        connections.discard(self)
        self.login_timer.cancel()
        if self.timer:
            self.timer.cancel()

    # --- input ---
    def active(self):
        if self.timer:
            self.timer.cancel()
        if self.idle and not self.over:
            self.timer = self.loop.call_later(self.idle, self.timeout)

    def timeout(self):
        self.write(self.TIMEOUT)
        self.end()

    def login_timeout(self):
        if self.name is None:
            self.timeout()

    def eof_received(self):
        self.end()
        return False  # asyncio closes after it has written everything

    def data_received(self, data):
        if self.over:
            return
        self.buf += data
        if not self.begun and self.buf.startswith(b'\x16\x03'):
            return self.t.abort()
        while not self.over and (i := self.buf.find(b'\n')) >= 0:
            line = bytes(self.buf[:i])
            del self.buf[:i + 1]
            self.active()
            if line.endswith(b'\r'):
                line = line[:-1]
            if not self.begun and line.rstrip().endswith((b'HTTP/1.1', b'HTTP/1.0', b'HTTP/2.0')):
                return self.t.abort()
            self.begun = True
            if self.skip or len(line) > LIMIT:
                self.skip = False
                self.write(self.TOO_LONG)
                continue
            if self.telnet:
                line, mark = untelnet(line)
                if mark:
                    self.t.write(b'\xff\xfb\x06')
            try:
                text = line.decode('utf-8')
            except UnicodeDecodeError:
                self.write(self.BAD_UTF8)
            else:
                self.received(text)
        if len(self.buf) > LIMIT + 1:
            self.buf.clear()
            self.skip = True


class Line(Chat):
    idle = IDLE
    TOO_LONG, BAD_UTF8 = 'ERR line-too-long', 'ERR invalid-utf8'
    TIMEOUT, SHUTDOWN = 'INFO idle-timeout', 'INFO server-shutdown'

    def on_join(self, name):
        return None

    def on_leave(self, name):
        return f'INFO {name} disconnected'

    def on_say(self, name, text):
        return f'MSG {name} {text}'

    def on_dm(self, name, to, text):
        return f'DM {name} {text}'

    def received(self, text):
        command, _, arg = text.strip().partition(' ')
        if not command:
            return
        command = command.lower()
        if self.name is None and command not in ('login', 'quit', 'exit'):
            return self.write('ERR must-login-first')
        method = getattr(self, 'do_' + command, None) if command.isascii() else None
        if method:
            method(arg.strip())
        else:
            self.write('ERR unknown-command')

    def do_login(self, arg):
        if self.name is not None:
            return self.write('ERR already-logged-in')
        name = normal(arg)
        if name is None:
            return self.write('ERR invalid-username')
        if fold(name) in room.members:
            return self.write('ERR username-taken')
        self.join(name)
        self.write('OK')

    def do_msg(self, arg):
        text = clean(arg)
        if text:
            room.tell_others(self, 'say', self.name, text)
        else:
            self.write('ERR empty-message')

    def do_dm(self, arg):
        to, _, text = arg.partition(' ')
        text = clean(text)
        if not text:
            return self.write('ERR invalid-dm-format')
        user = room.find(to)
        if user is None:
            return self.write('ERR user-not-found')
        user.hear('dm', self.name, user.name, text)

    def do_who(self, arg):
        for name in room.names():
            self.write('USER ' + name)

    def do_ping(self, arg):
        arg = clean(arg)
        self.write('PONG ' + arg if arg else 'PONG')

    def do_quit(self, arg):
        self.write('Goodbye!')
        self.end()

    do_exit = do_quit


class Slash(Chat):
    TOO_LONG, BAD_UTF8 = '[error] Line too long.', '[error] Invalid UTF-8.'
    TIMEOUT, SHUTDOWN = '[error] Idle timeout.', '[info] Server is shutting down.'
    HELP = '''=== Commands ===
/help - Show this help
/users - List online users
/dm <user> <msg> - Send direct message
/ping - Test the connection
/quit - Disconnect
'''

    def on_join(self, name):
        return f'[join] {name} has joined the chat.'

    def on_leave(self, name):
        return f'[leave] {name} has left the chat.'

    def on_say(self, name, text):
        return f'{name}: {text}'

    def on_dm(self, name, to, text):
        return f'[DM from {name}] {text}'

    def received(self, text):
        text = text.strip()
        if self.name is None:
            return self.register(text)
        if not text.startswith('/'):
            if text := clean(text):
                room.tell_others(self, 'say', self.name, text)
            return
        command, _, arg = text.partition(' ')
        arg = arg.strip()
        match command.lower():
            case '/help':
                self.write(self.HELP)
            case '/users':
                names = room.names()
                self.write('\n'.join([f'=== Online Users ({len(names)}) ===', *names, '']))
            case '/dm':
                to, _, message = arg.partition(' ')
                message = clean(message)
                if not message:
                    return self.write('Usage: /dm <username> <message>')
                shown = clean(to)
                user = room.find(to)
                if user is None:
                    return self.write(f"No user named '{shown}'. Use /users to see online users.")
                self.write(f'[DM to {shown}] {message}')
                user.hear('dm', self.name, user.name, message)
            case '/ping':
                self.write('pong')
            case '/quit':
                self.write('Disconnecting...')
                self.end()
            case _:
                self.write(f"Unknown command '{clean(command)}'. Type /help for commands.")

    def register(self, typed):
        name = normal(typed)
        if not typed or len(name or typed) > 20:
            self.write('[error] Username must be 1-20 characters.')
        elif name is None:
            self.write('[error] Invalid username.')
        elif fold(name) in room.members:
            self.write('[error] Username already taken. Try another.')
        else:
            self.join(name)
            self.write(f'[join] {name} has joined the chat.\nConnected! Type /help for commands\n')


class Json(Chat):
    telnet = False

    @staticmethod
    def pack(**obj):
        return json.dumps(obj)

    def _error(message):
        return json.dumps({'type': 'error', 'message': message})
    TOO_LONG, BAD_UTF8 = _error('Line too long'), _error('Invalid UTF-8')
    TIMEOUT, SHUTDOWN = _error('Idle timeout'), _error('Server shutting down')

    def error(self, message):
        self.write(self.pack(type='error', message=message))

    def on_join(self, name):
        return self.pack(type='user_joined', username=name, message=name + ' joined the chat', timestamp=int(time.time()))

    def on_leave(self, name):
        return self.pack(type='user_left', username=name, message=name + ' left the chat', timestamp=int(time.time()))

    def on_say(self, name, text):
        return self.pack(type='chat', username=name, message=text, timestamp=int(time.time()))

    def on_dm(self, name, to, text):
        return self.pack(type='dm', username=name, to=to, message=text, timestamp=int(time.time()))

    def received(self, text):
        if not text.strip():
            return
        count = 0

        def pairs(items):
            nonlocal count
            count += len(items)
            if len({k for k, _ in items}) < len(items) or count > 200:
                raise ValueError
            return dict(items)

        def number(kind):
            def parse(s):
                if len(s) > 100:
                    raise ValueError
                return kind(s)
            return parse

        def constant(s):
            raise ValueError

        def text_of(key):
            value = obj.get(key, '')
            if type(value) is not str:
                raise ValueError
            return value
        try:
            obj = json.loads(text, object_pairs_hook=pairs, parse_int=number(int), parse_float=number(float), parse_constant=constant)
            if type(obj) is not dict or type(obj.get('type')) is not str:
                raise ValueError
            repr(obj).encode()
            fields = {k: text_of(k) for k in ('username', 'message', 'to', 'token') if k in USED.get(obj['type'], ())}
            ''.join(fields.values()).encode()
        except (ValueError, RecursionError):
            return self.error('Invalid JSON')
        kind = obj['type']
        if kind == 'quit':
            self.write(self.pack(type='goodbye'))
            return self.end()
        if kind == 'join':
            if self.name is not None:
                return self.error('Already joined')
            name = normal(fields.get('username', '').strip())
            if name is None:
                return self.error('Invalid username')
            if fold(name) in room.members:
                return self.error('Username already taken')
            self.join(name)
            self.write(self.pack(type='welcome', message=f'Welcome to the chat, {name}!', users=room.names(), timestamp=int(time.time())))
        elif self.name is None:
            self.error('Join first')
        elif kind in ('chat', 'dm'):
            message = clean(fields.get('message', ''))
            if not message:
                return self.error('Empty message')
            if kind == 'chat':
                self.write(self.on_say(self.name, message))
                return room.tell_others(self, 'say', self.name, message)
            user = room.find(fields.get('to', '').strip())
            if user is None:
                return self.error('User not found')
            if user is not self:
                self.write(self.on_dm(self.name, user.name, message))
            user.hear('dm', self.name, user.name, message)
        elif kind == 'users':
            self.write(self.pack(type='users', users=room.names()))
        elif kind == 'ping':
            self.write(self.pack(type='pong', **({'token': obj['token']} if 'token' in obj else {})))
        else:
            self.error('Unknown message type')


USED = {'join': ('username',), 'chat': ('message',), 'dm': ('to', 'message'), 'ping': ('token',)}


async def main():
    loop = asyncio.get_running_loop()
    ports = [int(p) for p in (sys.argv[1], *sys.argv[3:5])]
    for kind, port in [*zip((Line, Slash, Json), ports)][::-1]:
        server = await loop.create_server(kind, '127.0.0.1', port, backlog=256)
    print('ready', server.sockets[0].getsockname()[1], flush=True)
    stop = loop.create_future()
    for s in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(s, lambda: stop.done() or stop.set_result(None))
    await stop
    room.members.clear()
    for c in [*connections]:
        c.write(c.SHUTDOWN)
        c.end()
    await asyncio.sleep(0.3)


if __name__ == '__main__':
    asyncio.run(main())
