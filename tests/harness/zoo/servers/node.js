// A chat server on Node: PORT [deliver=MS] [dup=MS] [echo=MS] [part=MS] [early]; what these mean is in room.py.
// With `early` messages are delivered by setImmediate, and answers at once.
"use strict";
const net = require("net");

const options = new Map(process.argv.slice(3).map((option) => option.split("=")));
const members = new Set();

function later(flaw, action) {
  if (Number(options.get(flaw))) setTimeout(action, Number(options.get(flaw)));
  else if (options.has("early")) setImmediate(action);
  else action();
}

function tell(people, text) {
  for (const person of people) if (person.writable) person.write(text + "\n");
}

function others(person) {
  return [...members].filter((one) => one !== person && one.room === person.room);
}

function leave(person) {
  if (!members.delete(person)) return;
  const people = others(person);
  later(options.has("part") ? "part" : "deliver", () => tell(people, `INFO ${person.name} left`));
}

function handle(person, line) {
  const at = line.indexOf(" ");
  const verb = at < 0 ? line : line.slice(0, at);
  const rest = at < 0 ? "" : line.slice(at + 1);
  if (verb === "LOGIN") {
    const [name, room] = rest.split("@");
    if ([...members].some((one) => one.name === name && one.room === room)) {
      tell([person], "ERR username-taken");
    } else {
      Object.assign(person, { name, room });
      members.add(person);
      tell([person], "OK");
    }
  } else if (verb === "PING") tell([person], `PONG ${rest}`.trim());
  else if (verb === "SYNC") later("deliver", () => tell([person], `SYNCED ${rest}`));
  else if (verb === "HELLO") tell([person], "HI");
  else if (verb === "MSG" && person.name) {
    const people = others(person);
    const text = `MSG ${person.name} ${rest}`;
    later("deliver", () => tell(people, text));
    if (options.has("dup")) later("dup", () => tell(people, text));
    if (options.has("echo")) later("echo", () => tell([person], text));
  } else if (verb === "QUIT") {
    tell([person], "Goodbye!");
    leave(person);
    person.end();
  } else if (verb !== "JOIN") tell([person], "ERR must-login-first");
}

net
  .createServer({ noDelay: true }, (person) => {
    let rest = "";
    person.on("error", () => {}); // it was reset; "close" follows
    person.on("data", (data) => {
      const lines = (rest + data).split("\n");
      rest = lines.pop();
      for (const line of lines) handle(person, line);
    });
    person.on("close", () => leave(person));
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
