"""Chat server, `line` protocol (and `json` on a second port). asyncio streams; each client has a queue and a task that writes it.

usage: python3 chat.py PORT [IDLE] [JSON_PORT]
"""
import asyncio
import json
import os
import re
import signal
import socket
import struct
import sys
import time
import unicodedata

MAX_LINE = 4096
MAX_WAITING = 1 << 20
LOGIN_TIMEOUT = 60
IDLE = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0

users = {}  # key -> client, in login order
clients = set()

REPLACED = re.compile('[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]')
DROPPED = re.compile('[\u200b\ufeff\xad\u2060-\u2064\u206a-\u206f\u115f\u1160\u3164\uffa0\u034f\u180e\u17b4\u17b5]')
TAGS = re.compile('(\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f)|[\U000e0000-\U000e007f]')
NOTHING = set('\u200c\u200d\u200e\u200f\u061c\u2800') | {chr(c) for c in range(0xFE00, 0xFE10)} | {chr(c) for c in range(0xE0100, 0xE01F0)}


def clean_text(text):
    text = REPLACED.sub('\ufffd', text.strip().replace('\t', ' '))
    text = TAGS.sub(lambda m: m[1] or '', DROPPED.sub('', text))
    if not any(unicodedata.bidirectional(c) in ('R', 'AL') and unicodedata.category(c)[0] == 'L' for c in text):
        text = re.sub('[\u200e\u200f\u061c]', '', text)
    out, marks = [], 0
    for c in text:
        marks = marks + 1 if unicodedata.category(c)[0] == 'M' else 0
        if marks <= 4:
            out.append(c)
    text = ''.join(out).strip()
    return '' if all(c in NOTHING or c.isspace() for c in text) else text


def clean_name(name):
    """(name, key), or None."""
    if len(name) > 80:
        return None
    name = ''.join(unicodedata.normalize('NFKC', c) if unicodedata.east_asian_width(c) in 'FH' else c for c in name)
    name = unicodedata.normalize('NFC', name)
    if not 1 <= len(name) <= 20:
        return None
    marks = 0
    for i, c in enumerate(name):
        cat = unicodedata.category(c)
        marks = marks + 1 if cat[0] == 'M' else 0
        if marks > 4 or (marks and i == 0) or c in NOTHING or DROPPED.match(c):
            return None
        if not (cat[0] in 'LM' or cat == 'Nd' or c in '_-.'):
            return None
    bidi = [unicodedata.bidirectional(c) for c in name]
    if any(b in ('R', 'AL', 'AN') for b in bidi):  # the bidi rule of RFC 5893
        if bidi[0] not in ('R', 'AL') or 'L' in bidi or ('EN' in bidi and 'AN' in bidi):
            return None
        while bidi[-1] == 'NSM':
            bidi.pop()
        if bidi[-1] not in ('R', 'AL', 'EN', 'AN'):
            return None
    return name, unicodedata.normalize('NFC', name.lower())


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.queue = asyncio.Queue()
        self.waiting = 0
        self.name = self.key = None
        self.leaving = False
        self.ended = asyncio.Event()
        self.last = self.since = time.monotonic()
        clients.add(self)

    # output
    def put(self, data):
        if not self.leaving:
            self.queue.put_nowait(data)
            self.waiting += len(data)

    def event(self, data):
        if data is None or self.leaving:
            return
        if self.waiting + self.writer.transport.get_write_buffer_size() + len(data) > MAX_WAITING:
            self.kill()
        else:
            self.put(data)

    def kill(self):
        self.leaving = True
        asyncio.get_running_loop().call_soon(self.leave)
        self.writer.get_extra_info('socket').setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.writer.transport.abort()
        self.queue.put_nowait(None)

    def end(self):
        """What is queued is still sent."""
        self.leave()
        if not self.leaving:
            self.leaving = True
            self.queue.put_nowait(None)
            self.ended.set()

    async def write(self):
        try:
            while (data := await self.queue.get()) is not None:
                self.writer.write(data)
                await self.writer.drain()
                self.waiting -= len(data)
            if self.writer.can_write_eof():
                self.writer.write_eof()
        except (ConnectionError, OSError, RuntimeError):
            self.leaving = True

    # room
    def others(self, method, *args):
        for user in list(users.values()):
            if user is not self:
                user.event(getattr(user, method)(*args))

    def login(self, name, key):
        self.name, self.key = name, key
        users[key] = self
        self.others('joined', name)

    def leave(self):
        if self.key is not None:
            key, self.key = self.key, None
            del users[key]
            self.others('left', self.name)

    # input
    async def run(self):
        writing = asyncio.create_task(self.write())
        watching = asyncio.create_task(self.watch())
        reading = asyncio.create_task(self.read())
        ended = asyncio.create_task(self.ended.wait())
        try:
            await asyncio.wait([reading, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.end()
            for task in (reading, ended, watching):
                task.cancel()
            await asyncio.wait([reading, ended, watching])
            if not reading.cancelled():
                reading.exception()
            try:
                await asyncio.wait_for(writing, 30)
                # swallow what the client still sends, so that closing does not reset what it has not read
                await asyncio.wait_for(self.swallow(), 1)
            except (asyncio.TimeoutError, ConnectionError, OSError):
                pass
            clients.discard(self)
            self.writer.close()

    async def swallow(self):
        while await self.reader.read(65536):
            pass

    async def read(self):
        buf, skip, first = b'', False, True
        while not self.leaving:
            data = await self.reader.read(65536)
            if not data:
                return
            buf += data
            if first and buf[:2] == b'\x16\x03':
                self.writer.transport.abort()
                return
            while not self.leaving and b'\n' in buf:
                line, buf = buf.split(b'\n', 1)
                self.last = time.monotonic()
                if line.endswith(b'\r'):
                    line = line[:-1]
                if skip or len(line) > MAX_LINE:
                    self.error('too-long')
                elif first and re.match(rb'[A-Z]+ \S+ HTTP/\d', line):
                    self.writer.transport.abort()
                    return
                else:
                    self.line(line)
                skip = first = False
            if len(buf) > MAX_LINE + 1:
                buf, skip = b'', True
            # who asks for more than it reads is read more slowly
            while self.waiting > MAX_WAITING and not self.leaving:
                await asyncio.sleep(0.02)

    async def watch(self):
        while not self.leaving:
            await asyncio.sleep(0.1)
            now = time.monotonic()
            if (self.idle and now - self.last >= self.idle) or (self.key is None and now - self.since >= LOGIN_TIMEOUT):
                self.error('idle')
                self.end()


class Line(Client):
    idle = IDLE
    errors = {'too-long': 'ERR line-too-long', 'utf8': 'ERR invalid-utf8', 'idle': 'INFO idle-timeout', 'stop': 'INFO server-shutdown'}

    def say(self, text):
        self.put(text.encode() + b'\n')

    def error(self, kind):
        self.say(self.errors[kind])

    def joined(self, name):
        return None

    def left(self, name):
        return f'INFO {name} disconnected\n'.encode()

    def said(self, name, text):
        return f'MSG {name} {text}\n'.encode()

    def dm(self, name, to, text):
        return f'DM {name} {text}\n'.encode()

    def untelnet(self, raw):
        if b'\xff\xfd\x06' in raw:
            self.put(b'\xff\xfb\x06')
        return re.sub(rb'\xff(?:(\xff)|\xfa.*?(?:\xff\xf0|$)|[\xfb-\xfe].?|.?)', lambda m: m[1] or b'', raw, flags=re.S)

    def line(self, raw):
        try:
            text = self.untelnet(raw).decode()
        except UnicodeDecodeError:
            return self.say('ERR invalid-utf8')
        words = text.split(None, 1)
        if not words:
            return
        command, arg = words[0].upper(), (words[1].strip() if len(words) > 1 else '')
        if command in ('QUIT', 'EXIT'):
            self.say('Goodbye!')
            self.end()
        elif command == 'LOGIN':
            if self.key is not None:
                self.say('ERR already-logged-in')
            elif (name := clean_name(arg)) is None:
                self.say('ERR invalid-username')
            elif name[1] in users:
                self.say('ERR username-taken')
            else:
                self.login(*name)
                self.say('OK')
        elif self.key is None:
            self.say('ERR must-login-first')
        elif command == 'MSG':
            if text := clean_text(arg):
                self.others('said', self.name, text)
            else:
                self.say('ERR empty-message')
        elif command == 'DM':
            to, _, text = arg.partition(' ')
            text = clean_text(text)
            if not to or not text:
                return self.say('ERR invalid-dm-format')
            name = clean_name(to)
            user = name and users.get(name[1])
            if user:
                user.event(user.dm(self.name, user.name, text))
            else:
                self.say('ERR user-not-found')
        elif command == 'WHO':
            for user in users.values():
                self.say('USER ' + user.name)
        elif command == 'PING':
            self.say(('PONG ' + clean_text(arg)).strip())
        else:
            self.say('ERR unknown-command')


class Bad(Exception):
    pass


def unique(pairs):
    d = dict(pairs)
    if len(d) != len(pairs):
        raise Bad
    return d


def no_constant(_):
    raise Bad


class Json(Client):
    idle = 0
    errors = {'too-long': 'Line too long', 'utf8': 'Invalid UTF-8', 'idle': 'Idle timeout', 'stop': 'Server shutting down'}

    def pack(self, **obj):
        return json.dumps(obj).encode() + b'\n'

    def say(self, **obj):
        self.put(self.pack(**obj))

    def err(self, message):
        self.say(type='error', message=message)

    def error(self, kind):
        self.err(self.errors[kind])

    def joined(self, name):
        return self.pack(type='user_joined', username=name, message=f'{name} joined the chat', timestamp=int(time.time()))

    def left(self, name):
        return self.pack(type='user_left', username=name, message=f'{name} left the chat', timestamp=int(time.time()))

    def said(self, name, text):
        return self.pack(type='chat', username=name, message=text, timestamp=int(time.time()))

    def dm(self, name, to, text):
        return self.pack(type='dm', username=name, to=to, message=text, timestamp=int(time.time()))

    def line(self, raw):
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return self.err('Invalid UTF-8')
        if not text.strip():
            return
        try:
            obj = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
            if not isinstance(obj, dict) or not isinstance(obj.get('type'), str):
                raise Bad

            def field(name):
                value = obj.get(name, '')
                if not isinstance(value, str):
                    raise Bad
                return value
            json.dumps(obj, ensure_ascii=False).encode()  # half a surrogate pair
            if len(re.findall(r'[,\[{]', text)) > 400 or re.search(r'\d{101}', re.sub(r'"(\\.|[^"\\])*"', '', text)):
                raise Bad
            self.object(obj['type'], field)
        except (ValueError, Bad, RecursionError):
            self.err('Invalid JSON')

    def object(self, kind, field):
        names = [u.name for u in users.values()]
        if kind == 'quit':
            self.say(type='goodbye')
            self.end()
        elif kind == 'join':
            username = field('username')
            if self.key is not None:
                return self.err('Already joined')
            name = clean_name(username.strip())
            if name is None:
                return self.err('Invalid username')
            if name[1] in users:
                return self.err('Username already taken')
            self.login(*name)
            self.say(type='welcome', message=f'Welcome to the chat, {self.name}!', users=names + [self.name], timestamp=int(time.time()))
        elif self.key is None:
            self.err('Join first')
        elif kind == 'chat':
            text = clean_text(field('message'))
            if not text:
                return self.err('Empty message')
            self.put(self.said(self.name, text))
            self.others('said', self.name, text)
        elif kind == 'dm':
            to, text = field('to'), clean_text(field('message'))
            if not text:
                return self.err('Empty message')
            name = clean_name(to.strip())
            user = name and users.get(name[1])
            if not user:
                return self.err('User not found')
            if user is not self:
                self.put(self.dm(self.name, user.name, text))
            user.event(user.dm(self.name, user.name, text))
        elif kind == 'users':
            self.say(type='users', users=names)
        elif kind == 'ping':
            token = field('token')
            self.say(type='pong', **({'token': token} if token else {}))
        else:
            self.err('Unknown message type')


async def main():
    async def serve(cls, port):
        async def connected(reader, writer):
            await cls(reader, writer).run()
        return await asyncio.start_server(connected, '127.0.0.1', port, backlog=512)
    if len(sys.argv) > 3:
        await serve(Json, int(sys.argv[3]))
    server = await serve(Line, int(sys.argv[1]))
    print('ready', server.sockets[0].getsockname()[1], flush=True)
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stop.set)
    await stop.wait()
    users.clear()
    for client in list(clients):
        client.key = None
        client.error('stop')
        client.end()
    await asyncio.sleep(0.3)
    os._exit(0)   # not through the tasks that still wait for clients to close

asyncio.run(main())
