// chat server, `line` protocol (and `slash` on a second port). usage: node chat.js PORT [IDLE] [SLASH_PORT]
'use strict';
const net = require('net');
const MAX_LINE = 4096, MAX_WAITING = 1 << 20, LOGIN_TIMEOUT = 60e3;
const IDLE = { line: 1000 * (process.argv[3] || 60), slash: 0 };
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const users = new Map();       // key -> client, in login order
const clients = new Set();

// --- text and names ---
const REPLACE = /[\p{Cc}\u202a-\u202e\u2066-\u2069\u2028\u2029]/gu;
const DROP = /[\u200b\ufeff\u00ad\u2060-\u2064\u206a-\u206f\u115f\u1160\u3164\uffa0\u034f\u180e\u17b4\u17b5]/gu;
const FLAG_OR_TAG = /\u{1f3f4}[\u{e0020}-\u{e007e}]+\u{e007f}|[\u{e0000}-\u{e007f}]/gu;
const RTL = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Samaritan}\p{Script=Mandaic}\p{Script=Adlam}]/u;
const NOTHING = /^[\s\p{Cf}\p{Variation_Selector}\u2800\u115f\u1160\u3164\uffa0\u034f]*$/u;

function cleanText(s) {
  s = s.trim().replace(/\t/g, ' ').replace(REPLACE, '\ufffd').replace(DROP, '');
  s = s.replace(FLAG_OR_TAG, (m) => (m.startsWith('\u{1f3f4}') ? m : ''));
  if (!(RTL.test(s) && /\p{L}/u.test(s))) s = s.replace(/[\u200e\u200f\u061c]/g, '');
  s = s.replace(/(\p{M}{4})\p{M}+/gu, '$1').trim();
  return NOTHING.test(s) ? '' : s;
}
function cleanName(s) {
  if ([...s].length > 80) return null;
  s = s.replace(/[\uff01-\uffdc\uffe0-\uffee\u3000]/g, (c) => c.normalize('NFKC')).normalize('NFC');
  if (!/^[\p{L}\p{Nd}\p{M}_.-]{1,20}$/u.test(s) || /^\p{M}/u.test(s) || /\p{M}{5}/u.test(s) || /\p{Default_Ignorable_Code_Point}/u.test(s)) return null;
  if (RTL.test(s)) {
    const plain = s.replace(/[\p{M}\p{Nd}_.-]/gu, '');
    if (!RTL.test([...s][0]) || [...plain].some((c) => !RTL.test(c)) || /[_.-]\p{M}*$/u.test(s)) return null;
  }
  return { name: s, key: s.toLowerCase().normalize('NFC') };
}
function unTelnet(b, c) {
  if (!b.includes(255)) return b;
  const out = [];
  for (let i = 0; i < b.length; i++) {
    if (b[i] !== 255) { out.push(b[i]); continue; }
    const v = b[++i];
    if (v === 255) out.push(255);
    else if (v === 250) { const e = b.indexOf(Buffer.from([255, 240]), i); i = e < 0 ? b.length : e + 1; }
    else if (v >= 251 && v <= 254) { if (v === 253 && b[i + 1] === 6) c.put(Buffer.from([255, 251, 6])); i++; }
  }
  return Buffer.from(out);
}

// --- what each dialect says ---
const words = {
  line: {
    join: () => null,
    said: (n, t) => `MSG ${n} ${t}`,
    dm: (n, t) => `DM ${n} ${t}`,
    left: (n) => `INFO ${n} disconnected`,
    tooLong: 'ERR line-too-long', badUtf8: 'ERR invalid-utf8', idle: 'INFO idle-timeout', stop: 'INFO server-shutdown',
  },
  slash: {
    join: (n) => `[join] ${n} has joined the chat.`,
    said: (n, t) => `${n}: ${t}`,
    dm: (n, t) => `[DM from ${n}] ${t}`,
    left: (n) => `[leave] ${n} has left the chat.`,
    tooLong: '[error] Line too long.', badUtf8: '[error] Invalid UTF-8.', idle: '[error] Idle timeout.', stop: '[info] Server is shutting down.',
  },
};
const HELP = `=== Commands ===
/help - Show this help
/users - List online users
/dm <user> <msg> - Send direct message
/ping - Test the connection
/quit - Disconnect
`;

class Client {
  constructor(sock, dialect) {
    this.sock = sock; this.dialect = dialect; this.words = words[dialect];
    this.buf = Buffer.alloc(0); this.skip = false; this.first = true;
    this.user = null; this.closing = false;
    clients.add(this);
    sock.setNoDelay(true);
    sock.on('data', (d) => this.data(d));
    sock.on('end', () => this.end());
    sock.on('error', () => {});
    sock.on('close', () => { this.leave(); this.closing = true; clients.delete(this); clearTimeout(this.idle); clearTimeout(this.loginTimer); });
    this.loginTimer = setTimeout(() => { if (!this.user) this.timeout(); }, LOGIN_TIMEOUT);
    this.active();
  }
  put(x) { if (!this.closing) this.sock.write(x); }
  say(s) { this.put(s + '\n'); }
  tell(s) {
    if (s === null || this.closing) return;
    if (this.sock.writableLength + s.length > MAX_WAITING) { this.closing = true; this.slow = true; setImmediate(() => { this.leave(); this.sock.resetAndDestroy(); }); return; }
    this.say(s);
  }
  active() { clearTimeout(this.idle); if (IDLE[this.dialect]) this.idle = setTimeout(() => this.timeout(), IDLE[this.dialect]); }
  timeout() { this.say(this.words.idle); this.end(); }
  leave() {
    if (!this.user) return;
    const { name, key } = this.user;
    this.user = null;
    users.delete(key);
    for (const u of users.values()) u.tell(u.words.left(name));
  }
  end() {
    if (this.closing) return;
    this.leave();
    this.closing = true;
    clearTimeout(this.idle);
    this.sock.end();
    setTimeout(() => this.sock.destroy(), 5000).unref();
  }
  data(d) {
    if (this.closing) return;
    if (this.first && this.buf.length === 0 && d[0] === 0x16) return this.sock.destroy();
    let at = 0, nl;
    while (!this.closing && (nl = d.indexOf(10, at)) >= 0) {
      let l = Buffer.concat([this.buf, d.subarray(at, nl)]);
      this.buf = Buffer.alloc(0);
      at = nl + 1;
      if (l[l.length - 1] === 13) l = l.subarray(0, -1);
      this.active();
      const tooLong = this.skip || l.length > MAX_LINE, first = this.first;
      this.skip = this.first = false;
      if (tooLong) this.say(this.words.tooLong);
      else if (first && /^[A-Z]+ \S+ HTTP\/\d/.test(l.toString('latin1'))) return this.sock.destroy();
      else this.line(l);
    }
    if (this.closing) return;
    this.buf = Buffer.concat([this.buf, d.subarray(at)]);
    if (this.buf.length > MAX_LINE + 1) { this.skip = true; this.buf = Buffer.alloc(0); }
    // the same holds for a client that asks for more than it reads
    if (this.sock.writableLength > MAX_WAITING) { this.sock.pause(); this.sock.once('drain', () => this.sock.resume()); }
  }
  line(b) {
    b = unTelnet(b, this);
    let s;
    try { s = utf8.decode(b); } catch { return this.say(this.words.badUtf8); }
    if (this.dialect === 'slash') this.slash(s); else this.plain(s);
  }
  login(n) {
    this.user = n;
    users.set(n.key, this);
    for (const u of users.values()) if (u !== this) u.tell(u.words.join(n.name));
  }
  others(s) { for (const u of users.values()) if (u !== this) u.tell(u.words.said(this.user.name, s)); }
  find(n) { n = cleanName(n); return n && users.get(n.key); }

  plain(s) {
    const m = /^\s*(\S+)(?:\s+(.*))?$/su.exec(s);
    if (!m) return;
    const cmd = m[1].toUpperCase(), arg = (m[2] || '').trim();
    if (cmd === 'QUIT' || cmd === 'EXIT') { this.say('Goodbye!'); return this.end(); }
    if (cmd === 'LOGIN') {
      if (this.user) return this.say('ERR already-logged-in');
      const n = cleanName(arg);
      if (!n) return this.say('ERR invalid-username');
      if (users.has(n.key)) return this.say('ERR username-taken');
      this.login(n);
      return this.say('OK');
    }
    if (!this.user) return this.say('ERR must-login-first');
    switch (cmd) {
      case 'MSG': {
        const t = cleanText(arg);
        return t ? this.others(t) : this.say('ERR empty-message');
      }
      case 'DM': {
        const d = /^(\S+)\s+(.*)$/su.exec(arg), t = d && cleanText(d[2]);
        if (!t) return this.say('ERR invalid-dm-format');
        const u = this.find(d[1]);
        return u ? u.tell(u.words.dm(this.user.name, t)) : this.say('ERR user-not-found');
      }
      case 'WHO': for (const u of users.values()) this.say('USER ' + u.user.name); return;
      case 'PING': { const t = cleanText(arg); return this.say(t ? 'PONG ' + t : 'PONG'); }
      default: this.say('ERR unknown-command');
    }
  }
  slash(s) {
    s = s.trim();
    if (!this.user) {
      if (s === '' || [...s].length > 20) return this.say('[error] Username must be 1-20 characters.');
      const n = cleanName(s);
      if (!n) return this.say('[error] Invalid username.');
      if (users.has(n.key)) return this.say('[error] Username already taken. Try another.');
      this.login(n);
      this.say(`[join] ${n.name} has joined the chat.`);
      return this.say('Connected! Type /help for commands\n');
    }
    if (!s) return;
    if (s[0] !== '/') { const t = cleanText(s); if (t) this.others(t); return; }
    const [, cmd, arg] = /^(\S+)\s*(.*)$/su.exec(s);
    switch (cmd.toLowerCase()) {
      case '/help': return this.say(HELP);
      case '/users':
        this.say(`=== Online Users (${users.size}) ===`);
        for (const u of users.values()) this.say(u.user.name);
        return this.say('');
      case '/dm': {
        const d = /^(\S+)\s+(.*)$/su.exec(arg), t = d && cleanText(d[2]);
        if (!t) return this.say('Usage: /dm <username> <message>');
        const u = this.find(d[1]), typed = cleanText(d[1]);
        if (!u) return this.say(`No user named '${typed}'. Use /users to see online users.`);
        this.say(`[DM to ${typed}] ${t}`);
        return u.tell(u.words.dm(this.user.name, t));
      }
      case '/ping': return this.say('pong');
      case '/quit': this.say('Disconnecting...'); return this.end();
      default: this.say(`Unknown command '${cleanText(cmd)}'. Type /help for commands.`);
    }
  }
}

function listen(dialect, port, then) {
  const s = net.createServer({ allowHalfOpen: true }, (sock) => new Client(sock, dialect));
  s.listen({ port, host: '127.0.0.1', backlog: 512 }, () => then(s.address().port));
}
const ready = (p) => console.log('ready ' + p);
if (process.argv[4]) listen('slash', +process.argv[4], () => listen('line', +process.argv[2], ready));
else listen('line', +process.argv[2], ready);
for (const sig of ['SIGTERM', 'SIGINT']) process.on(sig, () => {
  users.clear();
  for (const c of clients) { c.user = null; c.say(c.words.stop); c.end(); }
  setTimeout(() => process.exit(0), 500);
});
