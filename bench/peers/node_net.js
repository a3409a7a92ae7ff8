// A chat server on Node's net module, one write per receiver: Node's obvious design.
//
// A peer for the benchmark: the `line` dialect and nothing else. It knows neither geventchat nor the benchmark.
'use strict';

const net = require('node:net');

const MAX_QUEUE_BYTES = 1 << 20;
const members = new Map(); // name -> socket, in login order

function broadcast(from, data) {
  const bytes = Buffer.from(data); // encoded once for all
  for (const socket of members.values()) {
    if (socket === from) continue;
    socket.write(bytes);
    if (socket.writableLength > MAX_QUEUE_BYTES) socket.destroy(); // it will not catch up
  }
}

function login(socket, name) {
  if (!name || name.includes(' ')) return 'ERR invalid-username\n';
  if (members.has(name)) return 'ERR username-taken\n';
  socket.chatName = name;
  members.set(name, socket);
  return 'OK\n';
}

function handle(socket, line) {
  const at = line.indexOf(' ');
  const command = (at < 0 ? line : line.slice(0, at)).toUpperCase();
  const rest = at < 0 ? '' : line.slice(at + 1);
  const name = socket.chatName;
  if (name === undefined && command !== 'LOGIN' && command !== 'QUIT' && command !== 'EXIT') {
    socket.write('ERR must-login-first\n');
    return;
  }
  switch (command) {
    case 'MSG': {
      const text = rest.trim();
      if (text) broadcast(socket, `MSG ${name} ${text}\n`);
      else socket.write('ERR empty-message\n');
      break;
    }
    case 'LOGIN':
      socket.write(name === undefined ? login(socket, rest.trim()) : 'ERR already-logged-in\n');
      break;
    case 'PING':
      socket.write(rest ? `PONG ${rest}\n` : 'PONG\n');
      break;
    case 'WHO':
      socket.write([...members.keys()].map((member) => `USER ${member}\n`).join(''));
      break;
    case 'DM': {
      const space = rest.indexOf(' ');
      const to = members.get(rest.slice(0, space));
      if (space < 0) socket.write('ERR invalid-dm-format\n');
      else if (to === undefined) socket.write('ERR user-not-found\n');
      else to.write(`DM ${name} ${rest.slice(space + 1)}\n`);
      break;
    }
    case 'QUIT':
    case 'EXIT':
      socket.end('Goodbye!\n');
      break;
    default:
      socket.write('ERR unknown-command\n');
  }
}

const server = net.createServer({ noDelay: true }, (socket) => {
  let rest = '';
  socket.setEncoding('utf8');
  socket.on('data', (chunk) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      const complete = line.endsWith('\r') ? line.slice(0, -1) : line;
      if (complete) handle(socket, complete);
    }
  });
  socket.on('error', () => {}); // 'close' follows and announces it
  socket.on('close', () => {
    if (socket.chatName === undefined) return;
    members.delete(socket.chatName);
    broadcast(socket, `INFO ${socket.chatName} disconnected\n`);
  });
});

server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 }, () => {
  console.log(`ready ${server.address().port}`);
});
