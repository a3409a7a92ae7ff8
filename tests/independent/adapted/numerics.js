// A chat that answers in numbers with prefixes, as IRC does, PORT.
const net = require("net");
const people = new Map();

net.createServer((socket) => {
  let nick = null, rest = "";
  const send = (line) => socket.writable && socket.write(line + "\r\n");
  const leave = (why) => {
    if (nick === null) return;
    people.delete(nick);
    for (const hear of people.values()) hear(`:${nick}!u@h QUIT :${why}`);
    nick = null;
  };
  const obey = (line) => {
    const [command, ...words] = line.split(" ");
    const text = line.includes(" :") ? line.slice(line.indexOf(" :") + 2) : words.join(" ");
    const to = words[0];
    switch (command) {
      case "NICK":
        if (nick !== null) send(`:srv 462 ${nick} :You may not reregister`);
        else if (people.has(to)) send(`:srv 433 * ${to} :Nickname is already in use`);
        else { nick = to; people.set(nick, send); send(`:srv 001 ${nick} :Welcome`); }
        break;
      case "PING":
        send(`:srv PONG srv :${text}`);
        break;
      case "PRIVMSG":
        if (nick === null) send(":srv 451 * :You have not registered");
        else if (to === "#all") {
          for (const [name, hear] of people) if (name !== nick) hear(`:${nick}!u@h PRIVMSG #all :${text}`);
        } else if (people.has(to)) people.get(to)(`:${nick}!u@h PRIVMSG ${to} :${text}`);
        else send(`:srv 401 ${nick} ${to} :No such nick`);
        break;
      case "NAMES":
        for (const name of people.keys()) send(`:srv 353 ${nick} = #all :${name}`);
        send(`:srv 366 ${nick} #all :End`);
        break;
      case "QUIT":
        leave("Client Quit");
        send("ERROR :Closing Link");
        socket.end();
        break;
      default:
        send(`:srv 421 ${nick ?? "*"} ${command} :Unknown command`);
    }
  };
  send(":srv NOTICE * :*** Looking up your hostname");
  send(":srv NOTICE * :*** Found it");
  socket.on("data", (data) => {
    const lines = (rest + data).split("\n");
    rest = lines.pop();
    for (const line of lines) obey(line.replace(/\r$/, ""));
  });
  socket.on("close", () => leave("Connection closed"));
  socket.on("error", () => {});
}).listen(Number(process.argv[2]), "127.0.0.1");
