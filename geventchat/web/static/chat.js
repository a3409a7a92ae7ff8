"use strict";

/* The chat page. It speaks version 2 of `json` over a WebSocket: one object in each message, in both directions.
 *
 * From the top: tools; texts; what the browser keeps; the connection; conversations, which are rooms and direct messages;
 * events; what is sent; what is shown; dialogs; the start. Everything that comes from others is set as text.
 *
 * - What was typed is kept until the server has said that it has it: a draft until it is sent, then as unsent. Each message has
 *   its own key, so it can be sent again without appearing twice.
 * - The items of a conversation have no gap: what is missing before the first or behind the last is asked for.
 * - Of a long conversation only a part is in the document. */

// --- Tools -----------------------------------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);
const keyOf = (name) => name.normalize("NFC").toLowerCase();
// FNV-1a, of which the upper bits are the best mixed.
const hueOf = (name) => ([...keyOf(name)].reduce((sum, c) => Math.imul(sum ^ c.codePointAt(0), 16777619), 2166136261) >>> 8) % 360;
const initials = (name) => [...name].slice(0, 2).join("").toUpperCase();
const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;
const bytesOf = (text) => new TextEncoder().encode(text).length;
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/* Each name has a colour. */
function colour(element, name) {
  element.style.setProperty("--hue", hueOf(name));
}

function button(text, action) {
  const element = make("button", "", text);
  element.type = "button";
  element.addEventListener("click", action);
  return element;
}

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function later(action, milliseconds) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}

// --- Texts -----------------------------------------------------------------------------------------------------------

const LINK = /\bhttps?:\/\/[^\s<>"`]+/giu;
const CODE = /(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)/gu;
const CODE_LINE = /^(`+)(?!`)(.*?)(?<!`)\1$/u;
const PERSON = /(?<![\p{L}\p{N}_.@-])@[\p{L}\p{N}_.-]*[\p{L}\p{N}_]/gu;
// Names and words do not begin or end within one of these.
const WORD = "\\p{L}\\p{N}\\p{M}_";

/* The code of a message that is nothing else. */
function codeOf(text) {
  const match = CODE_LINE.exec(text);
  if (!match) return null;
  return match[1].length > 1 ? match[2].replace(/^ (.*) $/u, "$1") : match[2];
}

function showText(into, text) {
  let at = 0;
  for (const match of text.matchAll(CODE)) {
    showLinks(into, text.slice(at, match.index));
    into.append(make("code", "", match[1].length > 1 ? match[2].trim() : match[2]));
    at = match.index + match[0].length;
  }
  showLinks(into, text.slice(at));
}

function showLinks(into, text) {
  let at = 0;
  for (const match of text.matchAll(LINK)) {
    const address = withoutEnd(match[0]);
    if (!URL.canParse(address)) continue;
    showPeople(into, text.slice(at, match.index));
    const link = make("a", "", address);
    link.href = address;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    into.append(link);
    at = match.index + address.length;
  }
  showPeople(into, text.slice(at));
}

/* A link without the punctuation of the sentence around it. */
function withoutEnd(address) {
  // Counted once: somebody can send thousands of brackets.
  let unopened = address.split(")").length - address.split("(").length;
  let end = address.length;
  for (; end > 0; end -= 1) {
    const last = address[end - 1];
    if (last === ")" && unopened > 0) unopened -= 1;
    else if (!".,;:!?'*]}".includes(last)) break;
  }
  return address.slice(0, end);
}

function showPeople(into, text) {
  const found = [...text.matchAll(PERSON)];
  if (me.pattern) found.push(...text.matchAll(me.pattern));
  found.sort((one, other) => one.index - other.index);
  let at = 0;
  for (const match of found) {
    if (match.index < at) continue;
    const own = me.pattern !== null && match[0].replace("@", "").length === me.name.length && mentionsMe(match[0]);
    into.append(text.slice(at, match.index), make("span", own ? "mention mine" : "mention", match[0]));
    at = match.index + match[0].length;
  }
  into.append(text.slice(at));
}

const mentionsMe = (text) => me.pattern !== null && text.search(me.pattern) >= 0;

/* What is left of a text when everything is removed that a server could change in it. */
const bare = (text) => text.normalize("NFC").replace(/[\s\p{C}\p{M}\ufffd]/gu, "");

// --- What the browser keeps ------------------------------------------------------------------------------------------

class Kept {
  constructor(open) {
    this.values = new Map();
    try {
      this.storage = open();
    } catch {
      this.storage = null; // Forbidden: then it is kept as long as the page.
    }
  }

  read(name, otherwise) {
    if (this.values.has(name)) return this.values.get(name);
    try {
      return JSON.parse(this.storage.getItem(name)) ?? otherwise;
    } catch {
      return otherwise;
    }
  }

  write(name, value) {
    this.values.set(name, value);
    try {
      this.storage.setItem(name, JSON.stringify(value));
    } catch {
      // Full or forbidden.
    }
  }

  remove(name) {
    this.values.delete(name);
    try {
      this.storage.removeItem(name);
    } catch {
      // Forbidden.
    }
  }
}

const kept = new Kept(() => localStorage);
const keptInTab = new Kept(() => sessionStorage);
const ofMe = (name) => `${name}:${keyOf(me.name)}`;

// Who uses the page.
const me = { name: "", password: "", token: "", remember: false, hasAccount: false, pattern: null, ignored: new Set() };

function setName(name) {
  me.name = name;
  const escaped = name.replace(/[.*+?^${}()|[\]\\]/gu, "\\$&");
  me.pattern = name ? new RegExp(`(?<![${WORD}.@-])@?${escaped}(?![${WORD}-])`, "giu") : null;
}

// --- The connection --------------------------------------------------------------------------------------------------

// The server counts only what it receives as activity.
const QUIET_MS = 20000;
const LOST_MS = 20000;
const FIRST_PAUSE_MS = 500;
const LAST_PAUSE_MS = 30000;
// A connection that was lost can hold the name until the server notices.
const NAME_HELD_MS = 150000;
const REPLACED = 4001;
const KICKED = 4003;
const BANNED = 4004;
const TOO_BIG = 1009;

const connection = {
  socket: null,
  // The page should be connected.
  wanted: false,
  // The welcome has arrived; and so has everything that was missed.
  online: false,
  replayed: false,
  // The first welcome of this page has arrived.
  welcomed: false,
  epoch: "",
  sentAt: 0,
  // Since when an answer of the server is pending; 0 if none is.
  waitingSince: 0,
  pause: FIRST_PAUSE_MS,
  retry: 0,
  lostAt: 0,
  // The rooms are too many for one line of this server.
  oneByOne: false,
};
// By their refs: the requests without an answer.
const waiting = new Map();

function connect() {
  clearTimeout(connection.retry);
  if (connection.socket || !connection.wanted) return;
  const address = new URL("ws", document.baseURI);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  address.search = address.hash = "";
  const socket = new WebSocket(address);
  connection.socket = socket;
  connection.waitingSince = Date.now();
  showState();
  socket.addEventListener("open", () => {
    connection.waitingSince = Date.now();
    join();
  });
  socket.addEventListener("message", (message) => {
    if (connection.socket !== socket) return;
    connection.waitingSince = 0;
    receive(message.data);
  });
  socket.addEventListener("close", (close) => {
    if (connection.socket === socket) lost(close.code);
  });
}

function transmit(fields) {
  if (connection.socket?.readyState !== WebSocket.OPEN) return;
  connection.socket.send(JSON.stringify(fields));
  connection.sentAt = Date.now();
  connection.waitingSince ||= connection.sentAt;
}

/* Send a request. The promise gets its answer, or the error. */
function request(fields, ref = randomKey()) {
  return new Promise((resolve, reject) => {
    if (connection.socket?.readyState !== WebSocket.OPEN) {
      reject({ code: "offline", message: "You are offline" });
      return;
    }
    waiting.set(ref, { resolve, reject, bytes: lineBytes({ ...fields, ref }) });
    transmit({ ...fields, ref });
  });
}

function receive(text) {
  let object;
  try {
    object = JSON.parse(text);
  } catch {
    return;
  }
  const asked = waiting.get(object.ref);
  if (asked) {
    waiting.delete(object.ref);
    if (object.type === "error") asked.reject(object);
    else asked.resolve(object);
  } else {
    EVENTS[object.type]?.(object);
  }
}

function lost(code) {
  connection.socket = null;
  connection.online = connection.replayed = false;
  if (!connection.lostAt) connection.lostAt = Date.now();
  // If a request was too long, the longest of those without an answer was.
  const longest = code === TOO_BIG ? Math.max(...[...waiting.values()].map((one) => one.bytes)) : Infinity;
  for (const { reject, bytes } of waiting.values()) {
    reject(bytes < longest ? { code: "offline", message: "The connection was lost" } : { code: "line-too-long", message: "Too long for this server" });
  }
  waiting.clear();
  if ([REPLACED, KICKED, BANNED].includes(code)) {
    connection.wanted = false;
    const reasons = { [REPLACED]: "You have logged in elsewhere.", [KICKED]: "You were removed from the chat.", [BANNED]: "You are banned." };
    showBanner(reasons[code], code === BANNED ? "" : code === REPLACED ? "Use it here" : "Come back", start);
    showState();
    return;
  }
  if (!connection.wanted) return;
  const pause = connection.pause * (0.75 + Math.random() / 2);
  connection.pause = Math.min(2 * connection.pause, LAST_PAUSE_MS);
  connection.retry = setTimeout(connect, pause);
  showState();
  explain();
}

/* If the server can be asked, but not over a WebSocket, it says why. */
async function explain() {
  if (connection.welcomed) return;
  try {
    const answer = await fetch("ws");
    if (answer.status === 403 || answer.status === 503) tellLogin((await answer.text()).trim());
    else tellLogin("The server cannot be reached. Trying again …");
  } catch {
    tellLogin("The server cannot be reached. Trying again …");
  }
}

function start() {
  connection.wanted = true;
  connection.pause = FIRST_PAUSE_MS;
  hideBanner();
  connect();
}

function watchConnection() {
  const { socket, waitingSince, sentAt } = connection;
  if (!socket) return;
  // In a hidden tab this runs once in a minute: that nothing was heard for so long means nothing if nothing was asked.
  if (waitingSince && Date.now() - waitingSince > LOST_MS) {
    // A socket without a network takes minutes to close.
    lost(0);
    socket.close();
  } else if (Date.now() - sentAt > QUIET_MS) {
    transmit({ type: "ping" });
  }
}

async function join() {
  const wanted = [...conversations.values()].filter((one) => one.isRoom && one.wanted);
  // A room can have the name `__proto__`.
  const rooms = Object.create(null);
  if (!connection.oneByOne) for (const room of wanted) rooms[room.name] = room.seen();
  const fields = { type: "join", v: 2, username: me.name, epoch: connection.epoch, rooms };
  if (me.token) fields.token = me.token;
  else if (me.password) fields.password = me.password;
  try {
    welcome(await request(fields));
  } catch (error) {
    if (error.code === "line-too-long") connection.oneByOne = true;
    else if (error.code !== "offline") refuseLogin(error);
    return;
  }
  // A new connection hears everybody.
  for (const name of me.ignored) request({ type: "ignore", username: name }).catch(() => null);
  if (connection.oneByOne) for (const room of wanted) transmit({ type: "enter", room: room.name, ...room.seen() });
  try {
    // Its answer comes behind everything that was missed.
    await request({ type: "ping" });
  } catch {
    return;
  }
  connection.replayed = true;
  for (const entry of [...unsent]) send(entry);
  if (me.registering) registerAfterLogin();
  if (me.remember && me.password && !me.token) rememberLogin();
}

function welcome(object) {
  connection.online = true;
  connection.pause = FIRST_PAUSE_MS;
  connection.lostAt = 0;
  connection.epoch = object.epoch;
  setName(object.username);
  me.hasAccount = Boolean(me.token || me.password) && !me.registering;
  for (const conversation of conversations.values()) conversation.present = !conversation.isRoom;
  for (const [name, state] of Object.entries(object.rooms)) roomNamed(name).enter(name, state);
  if (!connection.welcomed) {
    connection.welcomed = true;
    if (object.greeting) tell(object.greeting);
  }
  showApp();
  keepRooms();
}

/* The server has refused the login. */
function refuseLogin(error) {
  // By this page's own last connection.
  const held = error.code === "username-taken" && Date.now() - connection.lostAt < NAME_HELD_MS;
  if (connection.welcomed && (held || error.code === "too-many-attempts")) {
    connection.socket.close();
    lost(0);
    return;
  }
  connection.wanted = connection.welcomed = false;
  connection.socket.close();
  connection.socket = null;
  const revoked = Boolean(me.token) && error.code === "wrong-password";
  // Somebody who guesses at the password can delay a login: the token is still good then.
  if (me.token && error.code !== "too-many-attempts") kept.remove("login");
  me.token = "";
  keptInTab.remove("name");
  showLogin();
  if (revoked) tellLogin("You are no longer logged in here: your password, please.");
  else tellLogin(error.code === "password-required" ? "This name is registered: its password, please." : error.message);
  byId(error.code === "username-taken" || error.code === "invalid-username" ? "login-name" : "login-password").focus();
}

// --- Conversations ---------------------------------------------------------------------------------------------------

const HISTORY_PAGE = 200;
const MOST_ITEMS = 20000;
const MOST_KEPT_DIRECT = 200;
// In larger rooms arrivals and departures are not shown.
const MOST_SHOWN_ARRIVING = 50;
const TYPING_MS = 5000;

const conversations = new Map();

class Conversation {
  constructor(isRoom, name) {
    this.isRoom = isRoom;
    this.name = name;
    this.key = (isRoom ? "#" : "@") + keyOf(name);
    // A room that the user wants to be in; and one that the user is in.
    this.wanted = isRoom;
    this.present = !isRoom;
    this.roomKey = "";
    this.topic = "";
    this.people = new Map();
    this.peopleCount = 0;
    this.typing = new Map();
    this.unread = 0;
    this.mentions = 0;
    // Everything up to this id has been read; null if nothing is known.
    this.readId = null;
    // The first item that was unread when the user came back.
    this.fresh = null;
    this.forget();
    this.lastId = null;
    // Of these ids.
    this.epoch = connection.epoch;
  }

  /* Drop the items; they can be asked for again. */
  forget() {
    this.items = [];
    // Messages from the first to the last of these ids are here.
    this.firstId = 0;
    this.lastId = 0;
    this.more = this.isRoom;
    this.loading = false;
    this.fresh = null;
    if (view.conversation === this) view.conversation = null;
  }

  /* What the server needs to know for entering the room again. */
  seen() {
    return { after: this.epoch === connection.epoch ? this.lastId : this.lastId && 0, key: this.roomKey };
  }

  enter(name, state) {
    if (this.epoch !== connection.epoch) {
      this.forget();
      this.readId = null;
      this.epoch = connection.epoch;
    }
    this.name = name;
    this.wanted = this.present = true;
    this.topic = state.topic;
    this.people = new Map(state.users.map((one) => [keyOf(one), one]));
    this.peopleCount = state.user_count;
    if (!this.items.length || state.replay_from > this.lastId + 1) {
      this.forget();
      this.firstId = state.replay_from;
      this.lastId = state.replay_from - 1;
      this.more = this.firstId > 1;
    }
    for (const part of ["room", "people", "log"]) changed(part, this);
  }

  push(item) {
    this.items.push(item);
    if (this.items.length > MOST_ITEMS) this.dropOldest(MOST_ITEMS / 4);
    changed("log", this);
  }

  dropOldest(count) {
    const dropped = this.items.splice(0, count);
    this.firstId = this.items.find((item) => item.id)?.id ?? this.lastId + 1;
    this.more = this.isRoom;
    if (view.conversation === this) view.shift(-dropped.length);
  }

  /* Something has happened that is not a message. Several arrivals and departures in a row are one item. */
  note(text) {
    const last = this.items.at(-1);
    if (last?.event && last.event.length < 6 && Date.now() - last.time < 600000) {
      last.event.push(text);
      view.refresh(this, last);
    } else {
      this.push({ event: [text], time: Date.now() });
    }
  }

  async loadEarlier() {
    if (!this.more || this.loading || !this.present || !connection.online) return;
    this.loading = true;
    try {
      const page = await request({ type: "history", room: this.name, before: this.firstId, limit: HISTORY_PAGE });
      const earlier = page.messages.filter((message) => message.id < this.firstId).map(itemOf);
      this.more = page.more && earlier.length > 0;
      if (earlier.length) this.firstId = earlier[0].id;
      this.items.unshift(...earlier);
      if (view.conversation === this) view.shift(earlier.length);
    } catch {
      // It is tried again when the user scrolls.
    } finally {
      this.loading = false;
    }
    changed("log", this);
  }
}

const itemOf = (chat) => ({ id: chat.id, name: chat.username, text: chat.message ?? "", deleted: chat.deleted === true, time: chat.timestamp_ms });

function conversationOf(isRoom, name) {
  const key = (isRoom ? "#" : "@") + keyOf(name);
  let found = conversations.get(key);
  if (!found) {
    found = new Conversation(isRoom, name);
    conversations.set(key, found);
    changed("lists");
  }
  return found;
}

const roomNamed = (name) => conversationOf(true, name);
const directWith = (name) => conversationOf(false, name);
const knownRoom = (name) => conversations.get(`#${keyOf(name ?? "")}`);

function keepRooms() {
  const rooms = [...conversations.values()].filter((one) => one.isRoom && one.wanted);
  kept.write(ofMe("rooms"), rooms.map((one) => one.name));
  keptInTab.write(ofMe("room-keys"), Object.fromEntries(rooms.filter((one) => one.roomKey).map((one) => [one.name, one.roomKey])));
  changed("lists");
}

function recallConversations() {
  conversations.clear();
  view.conversation = null;
  const read = kept.read(ofMe("read"), { epoch: "", ids: {} });
  connection.epoch = read.epoch;
  const keys = keptInTab.read(ofMe("room-keys"), {});
  for (const name of kept.read(ofMe("rooms"), ["lobby"])) {
    const room = roomNamed(name);
    room.lastId = read.ids[room.key] ?? null;
    room.roomKey = Object.hasOwn(keys, name) ? keys[name] : "";
  }
  for (const [name, items] of Object.entries(keptInTab.read(ofMe("directs"), {}))) {
    const direct = directWith(name);
    direct.items = items;
    direct.fresh = items.find((item) => item.unread) ?? null;
    direct.unread = direct.mentions = direct.fresh?.unread ?? 0;
  }
  unsent = kept.read(ofMe("unsent"), []);
  drafts = kept.read(ofMe("drafts"), {});
  for (const entry of unsent) conversationOf(entry.isRoom, entry.to);
  const opened = keptInTab.read(ofMe("opened"), "#lobby");
  current = conversations.get(opened) ?? conversations.values().next().value ?? roomNamed("lobby");
}

const keepRead = later(keepReadNow, 300);

function keepReadNow() {
  if (!me.name || !connection.epoch) return;
  const before = kept.read(ofMe("read"), { epoch: "", ids: {} });
  // Another epoch has other messages with the same ids.
  const ids = before.epoch === connection.epoch ? before.ids : {};
  for (const one of conversations.values()) {
    if (one.isRoom && one.wanted && one.readId !== null) ids[one.key] = one.readId;
  }
  kept.write(ofMe("read"), { epoch: connection.epoch, ids });
}

function keepDirects() {
  const directs = [...conversations.values()].filter((one) => !one.isRoom && (one.items.length || drafts[one.key]));
  const entries = directs.map((one) => {
    const items = one.items.slice(-MOST_KEPT_DIRECT);
    const fresh = Math.max(0, items.indexOf(one.fresh));
    // How many are unread is kept with the first of them.
    return [one.name, items.map(({ row, ...item }, index) => ({ ...item, unread: index === fresh ? one.unread : 0 }))];
  });
  keptInTab.write(ofMe("directs"), Object.fromEntries(entries));
}

const keepDirectsSoon = later(keepDirects, 300);

/* The user has read everything in a conversation. */
function markRead(conversation) {
  if (conversation.isRoom) conversation.readId = conversation.lastId;
  if (conversation.unread) {
    conversation.unread = conversation.mentions = 0;
    changed("lists");
    keepDirectsSoon();
  }
  keepRead();
}

/* Show "New" before this item, and before no other. */
function markFresh(conversation, item) {
  const before = conversation.fresh;
  conversation.fresh = item;
  view.refresh(conversation, before);
}

// --- Events ----------------------------------------------------------------------------------------------------------

const EVENTS = {
  chat(object) {
    const room = knownRoom(object.room);
    if (!room || object.id <= room.lastId) return;
    room.lastId = object.id;
    // Someone who was away when this connection began.
    if (me.ignored.has(keyOf(object.username))) return;
    const item = itemOf(object);
    if (isMe(item.name)) settle(room, item);
    room.push(item);
    arrived(room, item);
  },

  dm(object) {
    if (me.ignored.has(keyOf(object.username))) return;
    const sent = isMe(object.username);
    const direct = directWith(sent ? object.to : object.username);
    const item = { name: object.username, text: object.message, time: object.timestamp_ms, kept: object.kept === true };
    if (sent) settle(direct, item);
    direct.push(item);
    arrived(direct, item);
    keepDirectsSoon();
  },

  user_joined(object) {
    const room = knownRoom(object.room);
    if (!room) return;
    room.people.set(keyOf(object.username), object.username);
    room.peopleCount += 1;
    if (room.peopleCount <= MOST_SHOWN_ARRIVING && !isMe(object.username)) room.note(`${object.username} joined`);
    changed("people", room);
  },

  user_left(object) {
    const room = knownRoom(object.room);
    if (!room) return;
    room.people.delete(keyOf(object.username));
    room.peopleCount = Math.max(room.people.size, room.peopleCount - 1);
    room.typing.delete(keyOf(object.username));
    if (room.peopleCount < MOST_SHOWN_ARRIVING) room.note(`${object.username} left`);
    changed("people", room);
  },

  topic(object) {
    const room = knownRoom(object.room);
    if (!room) return;
    room.topic = object.topic;
    if (object.username) room.note(object.topic ? `${object.username} set the topic: ${object.topic}` : `${object.username} removed the topic`);
    changed("room", room);
  },

  typing(object) {
    const room = knownRoom(object.room);
    if (!room || me.ignored.has(keyOf(object.username))) return;
    room.typing.set(keyOf(object.username), { name: object.username, until: Date.now() + TYPING_MS });
    changed("typing", room);
  },

  deleted(object) {
    const room = knownRoom(object.room);
    const at = room ? room.items.findIndex((one) => one.id === object.id) : -1;
    if (at < 0) return;
    Object.assign(room.items[at], { deleted: true, text: "" });
    // A block of code ends before it now, and another begins behind it.
    for (const item of room.items.slice(Math.max(0, at - 1), at + 2)) view.refresh(room, item);
  },

  kicked(object) {
    const room = knownRoom(object.room);
    if (!room) return;
    room.present = room.wanted = false;
    room.note(`You were removed from the room${object.reason ? `: ${object.reason}` : ""}`);
    changed("room", room);
    keepRooms();
  },

  invited(object) {
    if (me.ignored.has(keyOf(object.username))) return;
    tell(`${object.username} invites you to ${object.room}`, "Join", () => enterOrTell(object.room));
  },

  announcement(object) {
    current.push({ event: [`Announcement: ${object.message}`], time: object.timestamp_ms });
    tell(`Announcement: ${object.message}`, "Close", () => null);
  },

  entered(object) {
    roomNamed(object.room).enter(object.room, object);
    keepRooms();
  },

  error(object) {
    const room = object.room && knownRoom(object.room);
    if (room && !room.present) {
      // It is no longer open to the user.
      room.wanted = false;
      changed("room", room);
      keepRooms();
      tell(`${object.room}: ${object.message}`);
    } else if (!["idle-timeout", "server-shutdown", "replaced", "kicked", "banned"].includes(object.code)) {
      tell(object.message);
    } else if (object.code === "kicked" && object.message !== "Kicked") {
      tell(object.message);
    }
  },
};

const isMe = (name) => keyOf(name) === keyOf(me.name);

/* A message has been added to a conversation. */
function arrived(conversation, item) {
  conversation.typing.delete(keyOf(item.name));
  changed("typing", conversation);
  if (isMe(item.name)) {
    if (conversation === current && view.isAtEnd) markRead(conversation);
    return;
  }
  const mentioned = !conversation.isRoom || mentionsMe(item.text);
  if (conversation === current && view.isAtEnd && document.hasFocus()) {
    markRead(conversation);
    if (connection.replayed) byId("spoken").textContent = `${item.name}: ${item.text}`;
    return;
  }
  if (!conversation.unread || !conversation.fresh) markFresh(conversation, item);
  conversation.unread += 1;
  if (mentioned) conversation.mentions += 1;
  changed("lists");
  if (mentioned && connection.replayed) notify(conversation, item);
}

function notify(conversation, item) {
  if (!kept.read("notify", false) || !("Notification" in window) || Notification.permission !== "granted" || document.hasFocus()) return;
  const title = conversation.isRoom ? `${item.name} in ${conversation.name}` : item.name;
  const notification = newNotification(title, { body: item.text, tag: conversation.key });
  notification?.addEventListener("click", () => {
    window.focus();
    open(conversation);
    notification.close();
  });
}

/* Show a notification. Without one, notifications are off: some browsers, as on Android, allow them and have none for pages. */
function newNotification(title, options) {
  try {
    return new Notification(title, { ...options, icon: "icon.png" });
  } catch {
    kept.write("notify", false);
    return null;
  }
}

// --- What is sent ----------------------------------------------------------------------------------------------------

// Longer lines end the connection.
const MOST_LINE_BYTES = 4096;
const TYPING_EVERY_MS = 3000;
const MOST_LINES = 100;
let typingSentAt = 0;

// Messages that the server has not confirmed, in the order in which they were written.
let unsent = [];
// By the keys of their conversations, also of those that are not in the lists: what was typed and not sent.
let drafts = {};

function keepUnsent() {
  kept.write(ofMe("unsent"), unsent.filter((entry) => !entry.failure).map(({ sent, ...entry }) => entry));
  changed("pending");
}

/* Say texts in a conversation, all of them or none; returns what is wrong with them. */
function say(conversation, texts) {
  if (texts.length > MOST_LINES) return `${texts.length} lines are too many at once: ${MOST_LINES} at most.`;
  const { isRoom, name, lastId } = conversation;
  const entries = texts.map((text) => ({ key: randomKey(), isRoom, to: name, text, after: lastId, time: Date.now() }));
  const bytes = Math.max(...entries.map((entry) => lineBytes({ ...messageOf(entry), ref: entry.key })));
  if (bytes > MOST_LINE_BYTES) return `Too long by ${bytes - MOST_LINE_BYTES} bytes.`;
  unsent.push(...entries);
  keepUnsent();
  if (connection.replayed) entries.forEach(send);
  return "";
}

const lineBytes = (fields) => bytesOf(JSON.stringify(fields));

const messageOf = (entry) =>
  entry.isRoom ? { type: "chat", room: entry.to, message: entry.text, key: entry.key } : { type: "dm", to: entry.to, message: entry.text, key: entry.key };

async function send(entry) {
  if (entry.failure || !unsent.includes(entry)) return;
  try {
    await request(messageOf(entry), entry.key);
    confirm(entry);
  } catch (error) {
    // Without a connection it is sent again with the next one.
    if (error.code !== "offline") refuse(entry, error.message);
  }
}

function confirm(entry) {
  unsent = unsent.filter((other) => other !== entry);
  keepUnsent();
}

function refuse(entry, reason) {
  entry.failure = reason;
  keepUnsent();
}

/* An own message has come back: it is the first one of those that are unsent, unless it came from elsewhere.
 *
 * Only this finds a message whose confirmation was lost with a server that has started again: it has forgotten the keys. */
function settle(conversation, item) {
  const entry = unsent.find((one) => one.isRoom === conversation.isRoom && keyOf(one.to) === keyOf(conversation.name) && !one.failure);
  if (entry && bare(entry.text) === bare(item.text) && (!item.id || item.id > (entry.after ?? 0))) confirm(entry);
}

async function attempt(fields, done = "") {
  try {
    const answer = await request(fields);
    if (done) tell(done);
    return answer;
  } catch (error) {
    tell(error.message);
    return null;
  }
}

async function enter(name, roomKey = "") {
  const known = knownRoom(name);
  if (known?.present) {
    open(known);
    return null;
  }
  try {
    const answer = await request({ type: "enter", room: name, key: roomKey, after: known?.seen().after ?? null });
    const room = roomNamed(answer.room);
    room.roomKey = roomKey;
    room.enter(answer.room, answer);
    keepRooms();
    open(room);
    return null;
  } catch (error) {
    return error;
  }
}

async function enterOrTell(name, roomKey = "") {
  const error = await enter(name, roomKey);
  if (error) tell(`${name}: ${error.message}`);
}

async function leave(conversation) {
  if (conversation.isRoom && conversation.present && !(await attempt({ type: "leave", room: conversation.name }))) return;
  conversations.delete(conversation.key);
  if (conversation === current) open(conversations.values().next().value ?? roomNamed("lobby"));
  keepRooms();
  keepDirects();
}

// Name, what follows it (an ellipsis: the rest of the line), and what it does.
const COMMANDS = [
  ["join", "ROOM [KEY]", (room, name, roomKey) => enterOrTell(name, roomKey)],
  ["leave", "", (room) => leave(room)],
  ["topic", "TEXT…", (room, topic) => changeTopic(room, topic)],
  ["msg", "NAME TEXT…", (room, name, text) => {
    const direct = directWith(name);
    const wrong = text ? say(direct, [text]) : "";
    if (!wrong) open(direct);
    return wrong;
  }],
  ["ignore", "NAME", (room, name) => ignore(name, true)],
  ["unignore", "NAME", (room, name) => ignore(name, false)],
  ["invite", "NAME", (room, username) => attempt({ type: "invite", room: room.name, username }, `Invited ${username}`)],
  ["kick", "NAME REASON…", (room, username, reason) => attempt({ type: "kick", room: room.name, username, reason })],
  ["ban", "NAME [TIME] REASON…", (room, username, time, reason) => impose("ban", room, username, time, reason)],
  ["unban", "NAME", (room, username) => attempt({ type: "unban", room: room.name, username }, `${username} can enter again`)],
  ["mute", "NAME [TIME] REASON…", (room, username, time, reason) => impose("mute", room, username, time, reason)],
  ["unmute", "NAME", (room, username) => attempt({ type: "unmute", room: room.name, username }, `${username} can speak again`)],
  ["voice", "NAME", (room, username) => attempt({ type: "voice", room: room.name, username }, `${username} can speak here`)],
  ["unvoice", "NAME", (room, username) => attempt({ type: "unvoice", room: room.name, username }, `${username} has no voice`)],
  ["mod", "NAME", (room, username) => attempt({ type: "mod", room: room.name, username }, `${username} moderates this room`)],
  ["unmod", "NAME", (room, username) => attempt({ type: "unmod", room: room.name, username }, `${username} no longer moderates this room`)],
  ["owner", "NAME", (room, username) => attempt({ type: "owner", room: room.name, username }, `${username} owns this room`)],
  ["private", "on|off", (room, on) => attempt({ type: "private", room: room.name, on: on !== "off" }, `Private: ${on || "on"}`)],
  ["moderated", "on|off", (room, on) => attempt({ type: "moderated", room: room.name, on: on !== "off" }, `Moderated: ${on || "on"}`)],
  ["key", "TEXT", (room, roomKey) => attempt({ type: "key", room: room.name, key: roomKey }, roomKey ? "The room has a key" : "The room has no key")],
  ["help", "", (room) => COMMANDS.forEach(([name, usage]) => room.push({ event: [`/${name} ${usage}`], time: Date.now() }))],
];

async function changeTopic(room, topic) {
  if (await attempt({ type: "topic", room: room.name, topic })) {
    room.topic = topic;
    changed("room", room);
  }
}

function impose(type, room, username, time, reason) {
  const match = /^(\d+)([smhd])$/u.exec(time);
  const seconds = match ? Number(match[1]) * { s: 1, m: 60, h: 3600, d: 86400 }[match[2]] : null;
  const why = match ? reason : `${time} ${reason}`.trim();
  return attempt({ type, room: room.name, username, seconds, reason: why }, `${username}: ${type} ${match ? time : "until you lift it"}`);
}

async function ignore(name, on) {
  if (!(await attempt({ type: on ? "ignore" : "unignore", username: name }, on ? `You hear nothing of ${name} any more` : `You hear ${name} again`))) return;
  if (on) me.ignored.add(keyOf(name));
  else me.ignored.delete(keyOf(name));
}

/* Run a command of the composer; returns what is wrong with it. */
function run(line) {
  const [, word, rest] = /^\/(\S*)\s*(.*)$/u.exec(line);
  const command = COMMANDS.find(([name]) => name === word.toLowerCase());
  if (!command) return `Unknown command /${word}. /help lists them; begin with // to say it.`;
  const [name, usage, action] = command;
  const wanted = usage ? usage.split(" ") : [];
  const needed = wanted.filter((one) => !one.startsWith("[") && !one.endsWith("…")).length;
  const words = rest ? rest.split(/\s+/u) : [];
  if (words.length < needed && name !== "key") return `/${name} ${usage}`;
  if (!current.isRoom && !["join", "leave", "msg", "ignore", "unignore", "help"].includes(name)) return "That is for rooms.";
  const values = wanted.map((one, index) => (one.endsWith("…") ? words.slice(index).join(" ") : words[index] ?? ""));
  const wrong = action(current, ...values);
  return typeof wrong === "string" ? wrong : "";
}

/* The messages that a text is: one for each line. Lines of code keep their white space between backticks. */
function messagesOf(text) {
  const messages = [];
  let inCode = false;
  for (const line of text.split(/\r?\n/u)) {
    if (/^\s*```/u.test(line) && !/^\s*```.*```/u.test(line)) inCode = !inCode;
    else if (inCode) messages.push(asCode(line.replaceAll("\t", "    ")));
    else if (line.trim()) messages.push(line.trim());
  }
  return messages;
}

function asCode(line) {
  const ticks = "`".repeat(1 + Math.max(0, ...(line.match(/`+/gu) ?? []).map((run) => run.length)));
  return ticks.length > 1 ? `${ticks} ${line} ${ticks}` : `\`${line || " "}\``;
}

function submit() {
  const text = byId("message").value;
  if (!text.trim()) return;
  const from = current;
  const isCommand = /^\/(?!\/)/u.test(text.trim()) && !text.includes("\n");
  const wrong = isCommand ? run(text.trim()) : say(current, messagesOf(text.replace(/^(\s*)\/\//u, "$1/")));
  showHint(wrong);
  if (wrong) return;
  if (!isCommand) {
    markFresh(current, null);
    view.toEnd();
  }
  typingSentAt = 0;
  // A command can have opened another conversation, or left this one.
  keepDraft(from, "");
  showDraft();
}

function showField() {
  const field = byId("message");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
  byId("composer").classList.toggle("empty", !field.value.trim());
}

function showDraft() {
  byId("message").value = drafts[current.key] ?? "";
  showField();
}

function keepDraft(conversation, text) {
  if (text) drafts[conversation.key] = text;
  else delete drafts[conversation.key];
  keepDraftsSoon();
}

function edited() {
  showField();
  const field = byId("message");
  keepDraft(current, field.value);
  if (current.isRoom && connection.online && field.value.trim() && !field.value.startsWith("/") && Date.now() - typingSentAt > TYPING_EVERY_MS) {
    typingSentAt = Date.now();
    // A person who cannot speak learns that from the answer.
    request({ type: "typing", room: current.name }).catch(() => null);
  }
}

function keepDrafts() {
  if (me.name) kept.write(ofMe("drafts"), drafts);
}

const keepDraftsSoon = later(keepDrafts, 250);

/* Complete the name before the cursor, and the next one that fits if it was completed already. */
function completeName(field) {
  const before = field.value.slice(0, field.selectionStart);
  const match = /(?:^|\s)(@?)([\p{L}\p{N}_.-]+)$/u.exec(before) ?? /(?:^|\s)(@)$/u.exec(before);
  const names = [...current.people.values()].filter((name) => !isMe(name)).sort((one, other) => one.localeCompare(other));
  let found = completion.names;
  if (completion.after !== before) {
    if (!match || (!match[1] && !match[2])) return false;
    const begun = keyOf(match[2] ?? "");
    found = names.filter((name) => keyOf(name).startsWith(begun));
    if (!found.length) return false;
    completion.names = found;
    completion.index = -1;
    completion.start = before.length - (match[2] ?? "").length;
  }
  completion.index = (completion.index + 1) % found.length;
  field.setRangeText(`${found[completion.index]} `, completion.start, field.selectionStart, "end");
  completion.after = field.value.slice(0, field.selectionStart);
  edited();
  return true;
}

const completion = { names: [], index: -1, start: 0, after: null };

// --- What is shown ---------------------------------------------------------------------------------------------------

// Rows that are made at once, and that are in the document at most.
const SOME_ROWS = 150;
const MOST_ROWS = 400;
const NEAR_PX = 800;
const GROUP_MS = 300000;

let current = null;
// The conversation that the lists have shown as the open one.
let listed = null;
const stale = new Set();

/* Show a part again with the next frame. A conversation that is not open has only its place in the lists. */
function changed(part, conversation = current) {
  if (conversation !== current) return;
  if (!stale.size) requestAnimationFrame(showChanges);
  stale.add(part);
  // A hidden tab has no frames, and only its title is seen.
  if (part === "lists") showTitle();
}

function showChanges() {
  const parts = new Set(stale);
  stale.clear();
  if (!current || byId("app").hidden) return;
  if (parts.has("lists")) showLists();
  if (parts.has("room")) showRoom();
  if (parts.has("people")) showPeopleList();
  if (parts.has("pending")) showPending();
  if (parts.has("log") || parts.has("pending")) view.show();
  if (parts.has("typing")) showTyping();
}

/* The part of the current conversation that is in the document: the items from one index up to another. */
const view = {
  conversation: null,
  from: 0,
  to: 0,
  isAtEnd: true,
  // The heights of the log and of what is in it.
  heights: "",

  get log() {
    return byId("log");
  },

  show() {
    if (!current) return;
    if (this.conversation !== current) this.begin();
    const items = current.items;
    if (this.isAtEnd) {
      if (items.length - this.to > MOST_ROWS) this.begin();
      this.append(items.length);
      this.trimTop();
      this.scrollToEnd();
    } else if (this.to - this.from < MOST_ROWS) {
      this.append(Math.min(items.length, this.from + MOST_ROWS));
    }
    this.showBeginning();
    this.showJump();
    if (this.isAtEnd && document.hasFocus()) markRead(current);
    this.fill();
  },

  /* Begin with the end of the conversation, or with what is unread in it. */
  begin() {
    this.conversation = current;
    byId("rows").replaceChildren();
    const fresh = current.unread ? current.items.indexOf(current.fresh) : -1;
    const behind = fresh >= 0 && current.items.length - fresh > 20;
    this.isAtEnd = !behind;
    this.from = this.to = behind ? Math.max(0, fresh - 10) : Math.max(0, current.items.length - SOME_ROWS);
    this.append(behind ? Math.min(current.items.length, this.from + SOME_ROWS) : current.items.length);
    if (behind) current.fresh.row?.scrollIntoView({ block: "start" });
  },

  append(end) {
    const { items } = this.conversation;
    if (end <= this.to) return;
    const rows = document.createDocumentFragment();
    // The last one can be the middle of a block of code now.
    if (this.to > this.from) this.refresh(this.conversation, items[this.to - 1]);
    for (; this.to < end; this.to += 1) rows.append(rowOf(this.conversation, this.to));
    byId("rows").append(rows);
  },

  prepend() {
    const { items } = this.conversation;
    // What is below the first row stays where it is; the row itself can lose its day or its name.
    const before = items[this.from]?.row?.getBoundingClientRect().bottom;
    const rows = document.createDocumentFragment();
    const from = Math.max(0, this.from - SOME_ROWS);
    for (let index = from; index < this.from; index += 1) rows.append(rowOf(this.conversation, index));
    const begun = this.from;
    this.from = from;
    byId("rows").prepend(rows);
    if (items[begun]) this.refresh(this.conversation, items[begun]);
    while (this.to - this.from > MOST_ROWS) {
      this.to -= 1;
      items[this.to].row?.remove();
      items[this.to].row = null;
    }
    const now = items[begun]?.row;
    if (now && before !== undefined) this.log.scrollTop += now.getBoundingClientRect().bottom - before;
  },

  trimTop() {
    const { items } = this.conversation;
    for (; this.to - this.from > MOST_ROWS; this.from += 1) {
      items[this.from].row?.remove();
      items[this.from].row = null;
    }
  },

  /* Items have been added or removed before the first. */
  shift(count) {
    if (count < 0) {
      // They are those that nobody looks at.
      this.conversation = null;
      return;
    }
    this.from += count;
    this.to += count;
  },

  refresh(conversation, item) {
    if (conversation !== this.conversation || !item?.row?.isConnected) return;
    const old = item.row;
    old.replaceWith(rowOf(conversation, conversation.items.indexOf(item)));
  },

  showBeginning() {
    const beginning = byId("beginning");
    beginning.hidden = this.from > 0 || (current.more && current.present);
    if (!current.isRoom) beginning.textContent = `Messages between you and ${current.name}. They are kept until you close this tab.`;
    else if (!current.items.length) beginning.textContent = `Nothing has been said in ${current.name} yet.`;
    else beginning.textContent = `This is the beginning of ${current.name}, as far as it is kept.`;
  },

  showJump() {
    const jump = byId("jump");
    jump.hidden = this.isAtEnd;
    jump.classList.toggle("fresh-messages", current.unread > 0);
    jump.lastElementChild.textContent = current.unread ? plural(current.unread, "new message") : "To the latest";
  },

  scrollToEnd() {
    this.log.scrollTop = this.log.scrollHeight;
    this.heights = this.heightsNow();
  },

  heightsNow() {
    return `${this.log.clientHeight} ${this.log.scrollHeight}`;
  },

  toEnd() {
    this.isAtEnd = true;
    if (this.conversation && this.to < this.conversation.items.length) this.conversation = null;
    markRead(current);
    changed("log");
  },

  /* Make and ask for what the user is about to see. */
  fill() {
    const { log } = this;
    if (this.conversation !== current || !log.clientHeight) return;
    if (log.scrollTop < NEAR_PX) {
      if (this.from > 0) {
        this.prepend();
        requestAnimationFrame(() => this.fill());
      } else {
        current.loadEarlier();
      }
    }
    const below = log.scrollHeight - log.scrollTop - log.clientHeight;
    if (below < NEAR_PX && this.to < current.items.length) {
      const before = this.to;
      this.append(Math.min(current.items.length, this.to + SOME_ROWS));
      const top = log.scrollTop;
      const height = log.scrollHeight;
      this.trimTop();
      log.scrollTop = top - (height - log.scrollHeight);
      if (this.to > before) requestAnimationFrame(() => this.fill());
    }
  },

  scrolled() {
    const { log } = this;
    if (this.isAtEnd && this.heights !== this.heightsNow()) {
      // The window has another size now: nobody has scrolled.
      this.scrollToEnd();
      return;
    }
    const below = log.scrollHeight - log.scrollTop - log.clientHeight;
    // What has arrived since the last frame comes with the next one.
    const isWhole = this.isAtEnd || this.to >= current.items.length;
    const isAtEnd = below < 40 && this.conversation === current && isWhole;
    if (isAtEnd !== this.isAtEnd) {
      this.isAtEnd = isAtEnd;
      if (isAtEnd && document.hasFocus()) markRead(current);
      this.showJump();
    }
    this.fill();
    this.showBeginning();
  },
};

const isSameDay = (one, other) => new Date(one).toDateString() === new Date(other).toDateString();
const isCode = (item) => Boolean(item && !item.event && !item.deleted && codeOf(item.text) !== null);

function isFirst(item, previous) {
  if (Boolean(previous?.kept) !== Boolean(item.kept)) return true;
  return !previous || previous.event || keyOf(previous.name) !== keyOf(item.name) || item.time - previous.time > GROUP_MS || !isSameDay(item.time, previous.time);
}

function rowOf(conversation, index) {
  const item = conversation.items[index];
  const previous = conversation.items[index - 1];
  const row = item.event ? eventRow(item) : messageRow(item, previous, conversation.items[index + 1]);
  if (!previous || !isSameDay(item.time, previous.time)) row.prepend(make("div", "day", calendar.format(item.time)));
  if (item === conversation.fresh) row.prepend(make("div", "fresh", "New"));
  item.row = row;
  return row;
}

function eventRow(item) {
  return make("li", "row event", item.event.join(" · "));
}

function messageRow(item, previous, next) {
  const row = byId("row-template").content.firstElementChild.cloneNode(true);
  const first = isFirst(item, previous);
  row.classList.toggle("first", first);
  row.classList.toggle("mentions", !isMe(item.name) && mentionsMe(item.text));
  const avatar = row.querySelector(".avatar");
  colour(row, item.name);
  avatar.textContent = first ? initials(item.name) : "";
  const author = row.querySelector(".author");
  author.textContent = item.name;
  author.addEventListener("click", () => showPerson(item.name));
  const time = row.querySelector("time");
  time.dateTime = new Date(item.time).toISOString();
  time.title = exact.format(item.time);
  time.textContent = clock.format(item.time) + (item.kept && first ? " · will be delivered" : "");
  const text = row.querySelector(".text");
  const code = item.deleted ? null : codeOf(item.text);
  if (item.deleted) {
    text.classList.add("deleted");
    text.textContent = "This message was deleted.";
  } else if (code !== null) {
    row.classList.add("code");
    text.dir = "ltr";
    row.classList.toggle("code-begins", isFirst(item, previous) || !isCode(previous));
    row.classList.toggle("code-ends", !isCode(next) || isFirst(next, item));
    text.append(make("code", "", code || " "));
  } else {
    showText(text, item.text);
  }
  return row;
}

function showPending() {
  const rows = byId("pending");
  const here = unsent.filter((entry) => entry.isRoom === current.isRoom && keyOf(entry.to) === keyOf(current.name));
  rows.replaceChildren(
    ...here.map((entry, index) => {
      const row = messageRow({ name: me.name, text: entry.text, time: entry.time }, index ? { name: me.name, time: entry.time } : null, null);
      if (entry.failure) {
        row.classList.add("failed");
        const failure = make("div", "failure", entry.failure);
        failure.append(button("Try again", () => retry(entry)), button("Discard", () => confirm(entry)));
        row.querySelector(".content").append(failure);
      } else if (index === 0) {
        row.querySelector(".head").append(make("span", "sending", connection.online ? "sending" : "will be sent"));
      }
      return row;
    }),
  );
}

function retry(entry) {
  delete entry.failure;
  // The server knows a key only of what it has said.
  keepUnsent();
  if (connection.replayed) send(entry);
}

function showLists() {
  const all = [...conversations.values()];
  const rooms = all.filter((one) => one.isRoom).sort((one, other) => (other.key === "#lobby") - (one.key === "#lobby") || one.name.localeCompare(other.name));
  const directs = all.filter((one) => !one.isRoom).sort((one, other) => (other.items.at(-1)?.time ?? Infinity) - (one.items.at(-1)?.time ?? Infinity));
  showItems(byId("rooms"), rooms.map(listItem));
  showItems(byId("directs"), directs.map(listItem));
  if (listed !== current) current.element.scrollIntoView({ block: "nearest" });
  listed = current;
  byId("directs-head").hidden = !directs.length;
  byId("elsewhere").hidden = !all.some((one) => one !== current && one.unread);
}

function showTitle() {
  if (!current) return;
  const all = [...conversations.values()];
  const mentions = all.reduce((sum, one) => sum + one.mentions, 0);
  const unread = all.some((one) => one.unread);
  document.title = `${mentions ? `(${mentions}) ` : unread ? "• " : ""}${current.name} – geventchat`;
}

/* What stays in its place is not touched: somebody can be about to click on it, or have come to it with the keyboard. */
function showItems(list, elements) {
  elements.forEach((element, index) => {
    if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
  });
  while (list.children.length > elements.length) list.lastElementChild.remove();
}

function listItem(conversation) {
  conversation.element ??= newListItem(conversation);
  const { element } = conversation;
  const item = element.querySelector(".item");
  item.querySelector(".name").textContent = conversation.name;
  if (conversation === current) item.setAttribute("aria-current", "page");
  else item.removeAttribute("aria-current");
  item.classList.toggle("unread", conversation.unread > 0);
  item.classList.toggle("mentioned", conversation.mentions > 0);
  item.classList.toggle("left", conversation.isRoom && !conversation.wanted);
  const { unread } = conversation;
  const badge = item.querySelector(".badge");
  badge.textContent = unread > 99 ? "99+" : unread || "";
  badge.setAttribute("aria-label", `${unread} unread`);
  return element;
}

function newListItem(conversation) {
  const element = byId("item-template").content.firstElementChild.cloneNode(true);
  const item = element.querySelector(".item");
  item.querySelector(".mark").textContent = conversation.isRoom ? "#" : "@";
  item.addEventListener("click", () => {
    open(conversation);
    showSidebar(false);
  });
  return element;
}

function showRoom() {
  byId("room-name").textContent = (current.isRoom ? "# " : "@ ") + current.name;
  byId("topic").textContent = current.isRoom ? current.topic : "";
  byId("topic").title = current.topic;
  byId("show-people").hidden = !current.isRoom;
  const left = current.isRoom && !current.wanted;
  byId("message").placeholder = left ? "You are not in this room" : `Message ${current.isRoom ? "#" : ""}${current.name}`;
  byId("message").disabled = left;
  if (!current.isRoom) showPeoplePanel(false);
}

function showPeopleList() {
  byId("people-count").textContent = current.isRoom ? current.peopleCount : "";
  if (byId("people").hidden) return;
  const names = [...current.people.values()].sort((one, other) => one.localeCompare(other));
  const list = byId("people-list");
  const before = new Map([...list.children].map((element) => [element.dataset.shown, element]));
  showItems(list, names.map((name) => before.get(shownPerson(name)) ?? personItem(name)));
  const hidden = current.peopleCount - names.length;
  byId("more-people").textContent = hidden > 0 ? `and ${plural(hidden, "more person").replace("persons", "people")}` : "";
}

const shownPerson = (name) => (isMe(name) ? `${name} (you)` : name);

function personItem(name) {
  const element = byId("item-template").content.firstElementChild.cloneNode(true);
  element.dataset.shown = shownPerson(name);
  const item = element.querySelector(".item");
  item.querySelector(".mark").className = "avatar";
  colour(item, name);
  item.querySelector(".avatar").textContent = initials(name);
  item.querySelector(".name").textContent = shownPerson(name);
  item.addEventListener("click", () => showPerson(name));
  return element;
}

function showTyping() {
  const now = Date.now();
  for (const [key, one] of current.typing) if (one.until < now) current.typing.delete(key);
  // Without a connection, what the page knows of typing is out of date.
  const names = connection.online ? [...current.typing.values()].map((one) => one.name) : [];
  const who = names.length > 3 ? "Several people" : names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0];
  byId("typing").textContent = names.length ? `${who} ${names.length > 1 ? "are" : "is"} typing …` : "";
}

function showHint(wrong) {
  const hint = byId("hint");
  hint.textContent = wrong || "Enter sends, Shift Enter begins a line, Tab completes a name, /help lists the commands.";
  hint.classList.toggle("error", Boolean(wrong));
}

function showState() {
  const state = byId("state");
  state.classList.toggle("online", connection.online);
  state.title = connection.online ? "Connected" : "Not connected";
  changed("typing");
  if (connection.online || !connection.welcomed || !connection.wanted) return;
  showBanner(navigator.onLine ? "The connection is lost. What you write is kept and sent when it is back." : "You are offline. What you write is kept and sent when you are back.", "Try now", () => {
    connection.pause = FIRST_PAUSE_MS;
    connect();
  });
}

function showBanner(text, label = "", action = null) {
  const banner = byId("banner");
  const parts = [make("span", "", text)];
  if (label) parts.push(button(label, action));
  if (banner.firstChild?.textContent !== text) banner.replaceChildren(...parts);
  banner.hidden = false;
}

function hideBanner() {
  byId("banner").hidden = true;
  byId("banner").replaceChildren();
}

function tell(text, label = "", action = null) {
  const toast = make("div", "toast");
  toast.append(make("span", "", text));
  const close = () => toast.remove();
  if (label) {
    toast.append(button(label, () => {
      close();
      action();
    }));
  }
  const toasts = byId("toasts");
  toasts.append(toast);
  while (toasts.children.length > 4) toasts.firstElementChild.remove();
  setTimeout(close, label ? 20000 : 6000);
}

function open(conversation) {
  if (conversation === current && view.conversation === current) {
    view.toEnd();
    return;
  }
  if (current) current.fresh = null;
  current = conversation;
  view.conversation = null;
  keptInTab.write(ofMe("opened"), conversation.key);
  for (const part of ["lists", "room", "people", "pending", "log", "typing"]) changed(part);
  showDraft();
  showHint("");
  if (matchMedia("(pointer: fine)").matches) byId("message").focus();
}

function showApp() {
  const first = byId("app").hidden;
  byId("login").hidden = true;
  byId("app").hidden = false;
  hideBanner();
  showState();
  byId("me").querySelector(".name").textContent = me.name;
  const avatar = byId("me").querySelector(".avatar");
  avatar.textContent = initials(me.name);
  colour(avatar, me.name);
  keptInTab.write("name", me.name);
  if (first) {
    const opened = current;
    current = null;
    open(opened);
    showPeoplePanel(current.isRoom && matchMedia("(min-width: 75rem)").matches);
  } else {
    for (const part of ["lists", "room", "people", "pending", "log", "typing"]) changed(part);
  }
}

function showSidebar(on) {
  byId("sidebar").classList.toggle("open", on);
  showShade();
  if (on) byId("sidebar").querySelector("[aria-current]")?.focus();
}

function showPeoplePanel(on) {
  byId("people").hidden = !on;
  byId("show-people").setAttribute("aria-expanded", String(on));
  showShade();
  changed("people");
}

function closeDrawers() {
  showSidebar(false);
  showPeoplePanel(false);
}

function showShade() {
  byId("shade").hidden = !byId("sidebar").classList.contains("open") && byId("people").hidden;
}

function step(by) {
  const items = [...document.querySelectorAll("#rooms .item, #directs .item")];
  const at = items.findIndex((item) => item.hasAttribute("aria-current"));
  items[(at + by + items.length) % items.length]?.click();
}

// --- Dialogs ---------------------------------------------------------------------------------------------------------

function showLogin() {
  byId("app").hidden = true;
  byId("login").hidden = false;
  byId("login-name").value = me.name || kept.read("last-name", "");
  byId(byId("login-name").value ? "login-join" : "login-name").focus();
}

function tellLogin(text) {
  byId("login-error").textContent = text;
  byId("login-join").disabled = false;
}

function logIn(registering) {
  const name = byId("login-name").value.trim();
  const password = byId("login-password").value;
  if (!name) return;
  if (registering && !password) {
    tellLogin("Choose a password of 8 to 128 characters for this name.");
    byId("login-password").focus();
    return;
  }
  tellLogin("");
  setName(name);
  me.registering = registering ? password : "";
  me.password = registering ? "" : password;
  me.token = "";
  me.remember = byId("login-remember").checked;
  kept.write("last-name", name);
  recallConversations();
  byId("login-join").disabled = true;
  start();
}

async function registerAfterLogin() {
  const password = me.registering;
  me.registering = "";
  if (await attempt({ type: "register", password }, `The name ${me.name} is yours now`)) {
    me.password = password;
    me.hasAccount = true;
    if (me.remember) rememberLogin();
  }
}

/* A token in place of the password, for the next time. */
async function rememberLogin() {
  try {
    const { token } = await request({ type: "token" });
    me.token = token;
    me.password = "";
    kept.write("login", { name: me.name, token });
  } catch (error) {
    if (error.code !== "offline") tell(`You cannot be kept logged in: ${error.message}`);
  }
}

async function logOut() {
  if (me.token && kept.read("login", null)?.token === me.token) {
    // It is of no use to anyone any more.
    await request({ type: "token", revoke: true, token: me.token }).catch(() => null);
    kept.remove("login");
  }
  keepDrafts();
  keepReadNow();
  connection.wanted = false;
  transmit({ type: "quit" });
  const socket = connection.socket;
  connection.socket = null;
  connection.online = connection.replayed = connection.welcomed = false;
  waiting.clear();
  setTimeout(() => socket?.close(), 500);
  keptInTab.remove("name");
  keptInTab.remove(ofMe("directs"));
  Object.assign(me, { password: "", token: "", remember: false, hasAccount: false, ignored: new Set() });
  byId("login-password").value = "";
  byId("settings").close();
  current = null;
  conversations.clear();
  unsent = [];
  showLogin();
  tellLogin("");
}

function showSettings() {
  byId("settings-title").textContent = me.name;
  byId("account-guest").hidden = me.hasAccount;
  byId("account-own").hidden = !me.hasAccount;
  byId("notify").checked = kept.read("notify", false) && "Notification" in window && Notification.permission === "granted";
  byId("theme").value = kept.read("theme", "");
  byId("token").hidden = true;
  note("");
  for (const id of ["register-password", "old-password", "new-password"]) byId(id).value = "";
  byId("settings").showModal();
}

function note(text, isError = false) {
  byId("settings-note").textContent = text;
  byId("settings-note").classList.toggle("error", isError);
}

async function ask(fields, done) {
  try {
    const answer = await request(fields);
    note(done);
    return answer;
  } catch (error) {
    note(error.message, true);
    return null;
  }
}

async function register() {
  const password = byId("register-password").value;
  if (await ask({ type: "register", password }, `The name ${me.name} is yours now. It needs this password from the next login on.`)) {
    me.hasAccount = true;
    me.password = password;
    byId("account-guest").hidden = true;
    byId("account-own").hidden = false;
  }
}

async function changePassword() {
  const password = byId("new-password").value;
  if (await ask({ type: "password", password: byId("old-password").value, new: password }, "The password is changed.")) {
    if (me.password) me.password = password;
    byId("old-password").value = byId("new-password").value = "";
  }
}

async function makeToken() {
  const answer = await ask({ type: "token" }, "Whoever has this token can use your name. It is shown once.");
  if (!answer) return;
  byId("token").textContent = answer.token;
  byId("token").hidden = false;
}

async function setNotify() {
  const box = byId("notify");
  if (box.checked) {
    if (!("Notification" in window)) {
      note("This browser shows no notifications here. They need https, or localhost.", true);
      box.checked = false;
    } else if ((await Notification.requestPermission()) !== "granted") {
      note("The browser does not allow notifications of this page.", true);
      box.checked = false;
    } else if (!newNotification("geventchat", { body: "Mentions and direct messages are shown like this." })) {
      note("This browser shows no notifications of pages.", true);
      box.checked = false;
    }
  }
  kept.write("notify", box.checked);
}

// Of what a phone shows around the page.
const BARS = { light: "#f4f2ee", dark: "#131418" };

function setTheme(theme) {
  kept.write("theme", theme);
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  for (const [scheme, own] of Object.entries(BARS)) byId(`bars-${scheme}`).content = BARS[theme] ?? own;
}

const finder = { found: [], index: 0, listed: [] };

async function showFinder() {
  byId("finder-name").value = "";
  byId("finder-key").hidden = true;
  byId("finder-key").value = "";
  byId("finder-error").textContent = "";
  finder.listed = [];
  find();
  byId("finder").showModal();
  try {
    finder.listed = (await request({ type: "rooms" })).rooms;
    find();
  } catch {
    // The rooms that are known are listed.
  }
}

/* List what fits what was typed: own rooms and messages first, then other rooms, then people, then a new room. */
function find() {
  const typed = byId("finder-name").value.trim();
  const wanted = keyOf(typed.replace(/^[#@]/u, ""));
  const fits = (name) => keyOf(name).includes(wanted);
  const found = new Map();
  for (const one of conversations.values()) {
    const choice = one.wanted || !one.isRoom ? { go: () => open(one) } : { room: one.name };
    if (fits(one.name)) found.set(one.key, { mark: one.key[0], name: one.name, about: one.isRoom ? one.topic : "", ...choice });
  }
  for (const { room, users, topic } of finder.listed) {
    const key = `#${keyOf(room)}`;
    const about = [plural(users, "person").replace("persons", "people"), topic].filter(Boolean).join(" · ");
    if (!fits(room)) continue;
    if (found.has(key)) found.get(key).about = about;
    else found.set(key, { mark: "#", name: room, about, room });
  }
  for (const name of current.people.values()) {
    const key = `@${keyOf(name)}`;
    if (wanted && fits(name) && !isMe(name) && !found.has(key)) found.set(key, { mark: "@", name, about: "write a direct message", go: () => open(directWith(name)) });
  }
  if (wanted && !found.has(`#${wanted}`) && !typed.startsWith("@")) {
    found.set(`#${wanted}`, { mark: "+", name: typed.replace(/^#/u, ""), about: "enter or create this room", room: typed });
  }
  if (typed.startsWith("@") && wanted && !found.has(`@${wanted}`)) {
    found.set(`@${wanted}`, { mark: "@", name: typed.slice(1), about: "write a direct message", go: () => open(directWith(typed.slice(1))) });
  }
  // A new room only if nothing else fits, or if it is chosen.
  const exactly = (one) => one.mark !== "+" && keyOf(one.name) === wanted;
  finder.found = [...found.values()].filter((one) => !typed.startsWith("@") || one.mark === "@").slice(0, 50);
  finder.index = Math.max(0, finder.found.findIndex(exactly));
  showFound();
}

function showFound() {
  byId("finder-list").replaceChildren(
    ...finder.found.map((one, index) => {
      const item = make("li", "item");
      item.id = `found-${index}`;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", String(index === finder.index));
      item.append(make("span", "mark", one.mark), make("span", "name", one.name), make("span", "about", one.about));
      item.addEventListener("click", () => choose(one));
      return item;
    }),
  );
  byId("finder-name").setAttribute("aria-activedescendant", finder.found.length ? `found-${finder.index}` : "");
  byId(`found-${finder.index}`)?.scrollIntoView({ block: "nearest" });
}

async function choose(one) {
  if (!one) return;
  if (!one.room) {
    byId("finder").close();
    one.go();
    return;
  }
  const error = await enter(one.room, byId("finder-key").value);
  if (!error) {
    byId("finder").close();
    return;
  }
  byId("finder-error").textContent = error.message;
  if (["wrong-key", "invitation-required"].includes(error.code)) {
    byId("finder-name").value = one.name;
    byId("finder-key").hidden = false;
    byId("finder-key").focus();
    find();
  }
}

function showPerson(name) {
  const dialog = byId("person");
  byId("person-name").textContent = name;
  const own = isMe(name);
  byId("person-write").hidden = byId("person-ignore").hidden = own;
  byId("person-mention").hidden = own || !current.isRoom;
  const ignored = me.ignored.has(keyOf(name));
  byId("person-ignore").textContent = ignored ? "Hear again" : "Ignore";
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue === "write") open(directWith(name));
    else if (dialog.returnValue === "ignore") ignore(name, !ignored);
    else if (dialog.returnValue === "mention") {
      const field = byId("message");
      field.setRangeText(`@${name} `, field.selectionStart, field.selectionEnd, "end");
      field.focus();
      edited();
    }
  };
  dialog.showModal();
}

// --- The start -------------------------------------------------------------------------------------------------------

function listen() {
  const on = (id, type, action) => byId(id).addEventListener(type, action);
  on("login-form", "submit", (event) => {
    event.preventDefault();
    logIn(false);
  });
  on("login-register", "click", () => logIn(true));
  on("me", "click", showSettings);
  on("find", "click", showFinder);
  on("open-sidebar", "click", () => showSidebar(true));
  on("close-sidebar", "click", () => showSidebar(false));
  on("show-people", "click", () => showPeoplePanel(byId("people").hidden));
  on("close-people", "click", () => showPeoplePanel(false));
  on("shade", "click", closeDrawers);
  on("log", "scroll", () => view.scrolled());
  on("jump", "click", () => view.toEnd());
  on("composer", "submit", (event) => {
    event.preventDefault();
    submit();
  });
  on("message", "input", () => {
    showHint("");
    edited();
  });
  on("message", "keydown", (event) => {
    if (event.isComposing) return;
    const mayComplete = event.key === "Tab" && !event.shiftKey && !event.ctrlKey && !event.altKey;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (mayComplete && completeName(event.target)) {
      event.preventDefault();
    }
  });
  on("register", "click", register);
  on("change-password", "click", changePassword);
  on("make-token", "click", makeToken);
  on("notify", "change", setNotify);
  on("theme", "change", (event) => setTheme(event.target.value));
  on("log-out", "click", logOut);
  on("finder-name", "input", find);
  on("finder-form", "submit", (event) => event.preventDefault());
  on("finder-form", "keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing) {
      event.preventDefault();
      choose(finder.found[finder.index]);
    }
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by || !finder.found.length) return;
    event.preventDefault();
    finder.index = (finder.index + by + finder.found.length) % finder.found.length;
    showFound();
  });
  document.addEventListener("keydown", (event) => {
    if (byId("app").hidden || document.querySelector("dialog[open]")) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      showFinder();
    } else if (event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      step(event.key === "ArrowUp" ? -1 : 1);
    } else if (event.key === "Escape" && byId("shade").checkVisibility()) {
      closeDrawers();
    } else if (event.key === "Escape") {
      view.toEnd();
    }
  });
  window.addEventListener("focus", () => {
    if (current && view.isAtEnd && !byId("app").hidden) markRead(current);
    changed("lists");
  });
  window.addEventListener("online", () => {
    connection.pause = FIRST_PAUSE_MS;
    connect();
  });
  window.addEventListener("offline", showState);
  // The window, the field and the banner take space from it.
  new ResizeObserver(() => view.isAtEnd && view.scrollToEnd()).observe(byId("log"));
  // Where the people would lie over the room, nobody has asked for them.
  matchMedia("(max-width: 60rem)").addEventListener("change", (narrow) => narrow.matches && showPeoplePanel(false));
  // Where the rooms are beside the room, they are no drawer that has to be closed.
  matchMedia("(max-width: 43rem)").addEventListener("change", (narrow) => narrow.matches || showSidebar(false));
  window.addEventListener("pagehide", () => {
    keepDirects();
    keepDrafts();
    keepReadNow();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) watchConnection();
  });
  setInterval(watchConnection, 5000);
  setInterval(() => changed("typing"), 1000);
}

function begin() {
  setTheme(kept.read("theme", ""));
  listen();
  const login = kept.read("login", null);
  const name = keptInTab.read("name", "");
  if (login && (!name || keyOf(name) === keyOf(login.name))) {
    setName(login.name);
    me.token = login.token;
    me.remember = true;
  } else {
    setName(name);
  }
  if (!me.name) {
    showLogin();
    return;
  }
  recallConversations();
  start();
}

begin();
