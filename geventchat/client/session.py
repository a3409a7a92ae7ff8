"""A session as one state machine: ask, connect, log in, talk, lose the connection and restore it, leave.

Knows no dialect's words, sockets, keys or clock: these are passed in. Every event is handled completely before the next
one.

States and what ends them:

    ASKING ------> CONNECTING --> LOGGING_IN --> ONLINE --> LEAVING --> ENDED
       ^               ^ ^            |  |         |
       |               | +-BACKING_OFF<--|---------+
       |               +----PARKED <-----|---------+
       +---------------------------------+  (a refused name)

Invariants:
- Events of any connection but `_connection` are ignored.
- `_conversation` belongs to `_connection`, from the login until the next one.
- At most one timer runs, and entering a state replaces it.
- Only interactive sessions reach BACKING_OFF and PARKED. A script ends when its connection is lost, because it cannot know
  which of its last lines arrived.
- ENDED is final.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Protocol

from geventchat.chat.commands import Command, Help, Login, ParseError, Quit
from geventchat.chat.events import (
    DisconnectNotice,
    Goodbye,
    Greeting,
    NoticeReason,
    Rejected,
    Rejection,
    Welcome,
)
from geventchat.chat.names import MAX_LENGTH, InvalidName, parse_name
from geventchat.client import render
from geventchat.client.address import Address, InvalidAddress, parse_port, split_address
from geventchat.client.connection import (
    Connected,
    ConnectFailed,
    Connection,
    ConnectionEvent,
    Disconnected,
    LineReceived,
    Writable,
)
from geventchat.client.conversation import Clock, Conversation, Shown, rejection_text
from geventchat.client.input import InvalidInput, parse_input
from geventchat.client.terminal import (
    InputEnded,
    Interrupted,
    LineEntered,
    LineUnreadable,
    OutputClosed,
    Terminal,
    TerminalEvent,
)
from geventchat.dialects import DIALECTS
from geventchat.dialects.codec import ClientCodec, ServerEvent, UnknownError, UnknownLine
from geventchat.dialects.dialect import Dialect
from geventchat.dialects.framing import TOO_LONG, Line

DEFAULT_HOST = "localhost"
LOGIN_TIMEOUT_S = 10.0
QUOTED_CHARACTERS = 60
MIN_KEEP_ALIVE_S = 1.0

# How long leaving can take. A person wants to leave at once; a script wants every line delivered, so its deadline is
# extended by each line that the server sends.
INTERRUPTED_TIMEOUT_S = 1.0
GOODBYE_TIMEOUT_S = 2.0
SCRIPT_TIMEOUT_S = 30.0

# A pipe is faster than any server, and a server can read slowly on purpose. A script therefore sends a ping after every few
# lines, and waits while too many pings are unanswered. Few lines are in flight at any time, and each pong proves that the
# lines before it arrived.
LINES_PER_PING = 16
MAX_UNANSWERED_PINGS = 2

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0

_NOTICES = {
    NoticeReason.IDLE: "the server disconnected you for being idle",
    NoticeReason.SERVER_FULL: "the server is full",
    NoticeReason.ADDRESS_FULL: "the server has too many connections from this address",
    NoticeReason.SHUTDOWN: "the server is shutting down",
    NoticeReason.KICKED: "an operator disconnected you",
    NoticeReason.BANNED: "you are banned from the server",
    NoticeReason.REPLACED: "you have logged in elsewhere",
}
# Someone does not want this client there, so it does not come back by itself. Two that replace each other would never stop.
_FINAL = {NoticeReason.KICKED, NoticeReason.BANNED, NoticeReason.REPLACED}
_NAME_REJECTIONS = {
    Rejection.NAME_LENGTH,
    Rejection.NAME_INVALID,
    Rejection.NAME_TAKEN,
    Rejection.PASSWORD_REQUIRED,
}


class ExitCode(IntEnum):
    """The exit codes; `docs/client.md` lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130
    TERMINATED = 143


@dataclass(frozen=True, slots=True)
class Plan:
    """The server and the name. The session asks for missing ones, and guesses a missing dialect."""

    host: str | None
    port: int | None
    dialect: str | None
    name: str | None
    keep_alive_s: float | None


@dataclass(frozen=True, slots=True)
class Terminated:
    """SIGTERM: the system stops the program."""


@dataclass(frozen=True, slots=True)
class TimerExpired:
    """The timer of the current state has expired."""


SessionEvent = ConnectionEvent | TerminalEvent | Terminated | TimerExpired


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Call nothing."""


class Runtime(Protocol):
    """The session's interface to its program. No event arrives before a call has returned."""

    def connect(self, address: Address) -> None:
        """Try to connect; the outcome is an event."""

    def start_timer(self, seconds: float) -> Timer:
        """Arrange for TimerExpired."""

    def end(self, code: ExitCode) -> None:
        """The session has ended."""


class State(Enum):
    """The states of a session."""

    ASKING = auto()
    CONNECTING = auto()
    LOGGING_IN = auto()
    ONLINE = auto()
    # A lost connection: waiting for the next attempt, or for a key press after an idle time-out.
    BACKING_OFF = auto()
    PARKED = auto()
    LEAVING = auto()
    ENDED = auto()


class InvalidAnswer(ValueError):
    """An answer is not valid; the message says why."""


class Session:
    """One session, from the first question to the exit code."""

    def __init__(self, plan: Plan, terminal: Terminal, runtime: Runtime, clock: Clock) -> None:
        self._plan = plan
        self._terminal = terminal
        self._runtime = runtime
        self._clock = clock
        self._state = State.ASKING
        self._timer: Timer | None = None
        self._question = ""
        self._answer: Callable[[str], None] = self._answer_host
        # Name and address.
        self._dialect = DIALECTS[plan.dialect or "line"]
        self._dialect_known = plan.dialect is not None
        self._address: Address
        self._name = ""
        # This connection.
        self._connection: Connection | None = None
        self._codec: ClientCodec = self._dialect.client()
        self._conversation: Conversation
        self._notice: NoticeReason | None = None
        self._first_words = ""
        # All connections.
        self._was_online = False
        self._keep_alive_s = plan.keep_alive_s
        self._backoff: Iterator[float]
        self._last_news: str
        self._unsent: Command | InvalidInput | None = None
        # Scripts.
        self._failed = False
        self._wants_line = False
        self._lines_since_ping = 0
        self._exit_code = ExitCode.OK

    # For the terminal.

    @property
    def prompt(self) -> str:
        """The text before the input."""
        if self._state is State.ASKING:
            return self._question
        online = self._state in {State.ONLINE, State.LEAVING}
        return f"{render.safe(self._name)}{'' if online else ' (offline)'}> "

    @property
    def asking(self) -> bool:
        """True while the next line answers a question."""
        return self._state is State.ASKING

    @property
    def others(self) -> Collection[str]:
        """The people who can be addressed."""
        return self._conversation.others if self._was_online else ()

    def accepts(self, text: str) -> bool:
        """True when this input can be handled now; otherwise the reason is shown."""
        offline = self._state in {State.CONNECTING, State.LOGGING_IN, State.BACKING_OFF}
        if not offline or isinstance(parse_input(text), Quit | Help | None):
            return True
        self._show_error("Not connected. Your line stays here until the connection is back.")
        return False

    # Events.

    def start(self) -> None:
        """Begin: ask for what is missing, then connect."""
        self._terminal.open(self)
        if self._plan.host is None:
            self._ask(f"Server host (default: {DEFAULT_HOST}): ", self._answer_host)
        else:
            self._address = Address(self._plan.host, self._plan.port or self._dialect.port)
            self._choose_name(self._plan.name)

    def handle(self, event: SessionEvent) -> None:
        """Handle one event; the only way in."""
        if (
            isinstance(event, LineReceived | Writable | Disconnected)
            and event.connection is not self._connection
        ):
            return
        match self._state, event:
            case State.ENDED, _:
                pass

            case State.ASKING, LineEntered(text):
                self._answered(text)
            case State.ASKING, LineUnreadable(reason):
                self._show_error(reason)
                self._ask_again()
            case State.ASKING, Disconnected():
                # The server did not wait for the answer.
                self._connection = None

            case State.CONNECTING, Connected(connection):
                self._connection = connection
                self._log_in()
            case State.CONNECTING, ConnectFailed(reason):
                self._attempt_failed(reason)
            case State.LOGGING_IN, LineReceived(line=line) if line is not TOO_LONG:
                self._receive_login_answer(line)
            case State.LOGGING_IN, Disconnected(reason=reason):
                self._attempt_failed(f"Login failed: {self._notice_or(reason)}.{self._first_words}")
            case State.LOGGING_IN, TimerExpired():
                self._attempt_failed(
                    f"No answer to the login within {LOGIN_TIMEOUT_S:.0f} s.{self._first_words}"
                )

            case State.ONLINE, LineReceived(line=line):
                self._receive(line)
                self._request_line()
            case State.ONLINE, Writable():
                self._request_line()
            case State.ONLINE, Disconnected(reason=reason):
                self._lose_connection(reason)
            case State.ONLINE, TimerExpired():
                self._conversation.ping()
            case State.ONLINE, LineEntered(text):
                self._perform(text)
            case State.ONLINE, LineUnreadable(reason):
                self._show_error(reason)
                self._line_done()
            case State.ONLINE, InputEnded():
                self._leave(ExitCode.OK)
            case State.ONLINE, Interrupted():
                self._leave(ExitCode.OK if self._terminal.interactive else ExitCode.INTERRUPTED)
            case State.ONLINE, Terminated():
                self._leave(ExitCode.TERMINATED)
            case State.ONLINE, OutputClosed():
                self._leave(ExitCode.FAILED)

            case State.LEAVING, LineReceived(line=line):
                if isinstance(self._receive(line), Goodbye):
                    self._left(None)
                elif self._waits_for_answers:
                    self._set_timer(SCRIPT_TIMEOUT_S)
            case State.LEAVING, Disconnected():
                self._left("The server closed the connection before it had answered everything")
            case State.LEAVING, TimerExpired():
                self._left(f"The server has not answered for {SCRIPT_TIMEOUT_S:.0f} s")
            case State.LEAVING, Interrupted() | Terminated():
                # Asked a second time: stop waiting.
                self._left("Interrupted before the server had answered everything")
            case State.LEAVING, _:
                pass

            case State.BACKING_OFF, TimerExpired():
                self._connect()
            case _, LineEntered(text):
                self._perform_offline(text)
            case _, LineUnreadable(reason):
                self._show_error(reason)
                self._terminal.request_line()
            case _, InputEnded():
                self._end(ExitCode.OK if self._was_online else ExitCode.FAILED)
            case _, Interrupted():
                self._end(ExitCode.OK if self._was_online else ExitCode.INTERRUPTED)
            case _, Terminated():
                self._end(ExitCode.TERMINATED)
            case _, OutputClosed():
                self._end(ExitCode.FAILED)
            case _:
                # A connection that is being closed, or an abandoned attempt.
                pass

    # Questions.

    def _ask(self, question: str, answer: Callable[[str], None], given: str | None = None) -> None:
        """Ask, unless the answer is given."""
        self._question, self._answer = question, answer
        self._enter(State.ASKING)
        if given is None:
            self._ask_again()
        else:
            self._answered(given)

    def _ask_again(self) -> None:
        if self._terminal.interactive:
            self._terminal.ask()
        else:
            self._end(ExitCode.FAILED)

    def _answered(self, text: str) -> None:
        try:
            self._answer(text)
        except (InvalidAddress, InvalidAnswer) as error:
            self._show_error(str(error))
            self._ask_again()

    def _answer_host(self, text: str) -> None:
        host, port = split_address(text.strip() or DEFAULT_HOST)
        self._address = Address(host, port or self._dialect.port)
        if port is None:
            self._ask(f"Server port (default: {self._dialect.port}): ", self._answer_port)
        else:
            self._choose_name(self._plan.name)

    def _answer_port(self, text: str) -> None:
        if text.strip():
            self._address = Address(self._address.host, parse_port(text))
        self._choose_name(self._plan.name)

    def _choose_name(self, given: str | None) -> None:
        self._ask("Enter your username: ", self._answer_name, given)

    def _answer_name(self, text: str) -> None:
        self._name = valid_name(text)
        if self._connection is not None:
            self._log_in()
        else:
            self._connect()

    # Connecting and logging in.

    def _connect(self) -> None:
        self._drop_connection()
        if not self._dialect_known:
            self._dialect = dialect_of_port(self._address.port)
        self._enter(State.CONNECTING)
        self._runtime.connect(self._address)

    def _log_in(self) -> None:
        self._codec = self._dialect.client()
        self._notice = None
        self._first_words = ""
        self._enter(State.LOGGING_IN, LOGIN_TIMEOUT_S)
        self._send(self._codec.encode(Login(self._name)))

    def _receive_login_answer(self, line: bytes) -> None:
        event = self._codec.decode(line)
        spoken = guess_dialect(line)
        if spoken is not None and spoken is not self._dialect:
            self._correct_dialect(spoken)
            return
        match event:
            case Greeting(text):
                if self._terminal.interactive and not self._was_online:
                    self._terminal.show(render.hint(text))
            case Welcome():
                self._enter_chat(event)
            case Rejected(reason) if reason in _NAME_REJECTIONS:
                self._refuse_name(reason)
            case DisconnectNotice(reason=notice):
                self._notice = notice
            case UnknownLine(text) | UnknownError(text) if not self._first_words:
                # Tells a person what kind of server this is.
                self._first_words = f' The server said: "{text[:QUOTED_CHARACTERS]}".'

    def _correct_dialect(self, spoken: Dialect) -> None:
        if self._dialect_known:
            self._attempt_failed(f"The server speaks {spoken.name}: try --dialect {spoken.name}.")
            return
        self._dialect, self._dialect_known = spoken, True
        self._connect()

    def _refuse_name(self, reason: Rejection | ParseError) -> None:
        if self._was_online and reason is Rejection.NAME_TAKEN:
            # The server has perhaps not noticed yet that the old connection is dead.
            self._attempt_failed(f"The name {self._name} is still in use on the server.")
            return
        self._show_error(rejection_text(reason, self._name))
        if self._was_online:
            self._end(ExitCode.FAILED)
        else:
            self._choose_name(None)

    def _enter_chat(self, welcome: Welcome) -> None:
        self._name = welcome.name
        self._conversation = Conversation(
            self._name, self._codec, self._send, self._terminal, self._show_error, self._clock
        )
        returning, self._was_online = self._was_online, True
        self._enter(State.ONLINE, self._keep_alive_s)
        if returning:
            self._terminal.show(render.success(f"Reconnected as {self._name}."))
            self._conversation.learn_users(welcome, Shown.NOTHING)
            command, self._unsent = self._unsent, None
            if command is not None:
                self._conversation.perform(command)
            return
        if self._terminal.interactive:
            self._terminal.show(render.success(f"Welcome to the chat, {self._name}!"))
            self._terminal.show(render.hint("Type a message and press Enter. /help lists the commands."))
            self._conversation.learn_users(welcome, Shown.SHORT)
        self._terminal.request_line()

    # Online.

    def _receive(self, line: Line) -> ServerEvent | None:
        if line is TOO_LONG:
            self._show_error("The server sent a line that is too long to show.")
            return None
        event = self._codec.decode(line)
        if isinstance(event, DisconnectNotice):
            self._notice = event.reason
        if event is not None:
            self._conversation.receive(event)
        return event

    def _perform(self, text: str) -> None:
        command = parse_input(text)
        if isinstance(command, Quit):
            self._leave(ExitCode.OK)
            return
        if command is not None:
            self._conversation.perform(command)
        self._lines_since_ping += 1
        self._line_done()

    def _line_done(self) -> None:
        self._wants_line = True
        self._request_line()

    def _request_line(self) -> None:
        """Request the next line, as soon as a script's server has caught up."""
        if not self._wants_line or self._connection is None:
            return
        if not self._terminal.interactive:
            if self._lines_since_ping >= LINES_PER_PING:
                self._lines_since_ping = 0
                self._conversation.ping()
            if self._connection.blocked or self._conversation.unanswered_pings >= MAX_UNANSWERED_PINGS:
                return
        self._wants_line = False
        self._terminal.request_line()

    # Offline.

    def _lose_connection(self, reason: str) -> None:
        lost = f"Lost the connection to {self._address}: {self._notice_or(reason)}."
        if not self._terminal.interactive:
            self._show_error(lost)
            self._end(ExitCode.FAILED)
            return
        self._backoff, self._last_news = backoff(), ""
        if self._notice is NoticeReason.IDLE:
            if self._keep_alive_s is None:
                # An absent user should not hold a connection.
                self._terminal.show(render.offline(f"{lost} Press Enter to reconnect."))
                self._enter(State.PARKED)
                return
            # The server's limit is shorter than the interval.
            self._keep_alive_s = max(self._keep_alive_s / 2, MIN_KEEP_ALIVE_S)
        self._back_off(lost)

    def _notice_or(self, reason: str) -> str:
        return reason if self._notice is None else _NOTICES[self._notice]

    def _attempt_failed(self, reason: str) -> None:
        if self._was_online:
            self._back_off(reason)
        else:
            self._show_error(reason)
            self._end(ExitCode.FAILED)

    def _back_off(self, reason: str) -> None:
        if self._notice in _FINAL:
            self._show_error(reason)
            self._end(ExitCode.FAILED)
            return
        self._drop_connection()
        pause_s = next(self._backoff)
        news = f"{reason} Reconnecting in {pause_s:g} s."
        if news != self._last_news:
            self._last_news = news
            self._terminal.show(render.offline(news))
        # Jitter, so that clients of a restarted server do not all return at the same moment.
        self._enter(State.BACKING_OFF, pause_s * random.uniform(0.75, 1))

    def _perform_offline(self, text: str) -> None:
        command = parse_input(text)
        match command:
            case Quit():
                self._end(ExitCode.OK)
                return
            case Help():
                for line in render.help_lines():
                    self._terminal.show(line)
            case _ if self._state is State.PARKED:
                self._unsent = command
                self._connect()
            case None:
                pass
            case _:
                self._show_error("Not connected: the message was not sent.")
        self._terminal.request_line()

    # Leaving.

    @property
    def _waits_for_answers(self) -> bool:
        return self._exit_code is ExitCode.OK and not self._terminal.interactive

    def _leave(self, code: ExitCode) -> None:
        """Log out, and wait for the answer. A server handles commands in order, so everything sent before is answered first."""
        self._exit_code = code
        self._send(self._codec.encode(Quit()))
        if code is not ExitCode.OK:
            self._enter(State.LEAVING, INTERRUPTED_TIMEOUT_S)
        else:
            self._enter(State.LEAVING, GOODBYE_TIMEOUT_S if self._terminal.interactive else SCRIPT_TIMEOUT_S)

    def _left(self, problem: str | None) -> None:
        if self._waits_for_answers:
            if problem is not None:
                self._show_error(f"{problem}: the last lines may not have been delivered.")
            if self._failed:
                self._exit_code = ExitCode.FAILED
        self._end(self._exit_code)

    def _end(self, code: ExitCode) -> None:
        self._enter(State.ENDED)
        self._drop_connection()
        if self._was_online and self._terminal.interactive and code is not ExitCode.FAILED:
            self._terminal.show(render.goodbye(self._name))
        self._runtime.end(code)

    # Everywhere.

    def _enter(self, state: State, timer_s: float | None = None) -> None:
        self._state = state
        self._set_timer(timer_s)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._runtime.start_timer(seconds) if seconds is not None else None

    def _send(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.send(data)
        if self._state is State.ONLINE:
            # Servers count only input from the client as activity.
            self._set_timer(self._keep_alive_s)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _show_error(self, text: str) -> None:
        self._failed = True
        self._terminal.show_error(text)


def backoff() -> Iterator[float]:
    """Seconds between attempts: 0.5, 1, 2, 4, 8, 16 and then 30 each."""
    pause_s = FIRST_BACKOFF_S
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, MAX_BACKOFF_S)


def valid_name(typed: str) -> str:
    """The normalised name. Raises InvalidAnswer."""
    try:
        return parse_name(typed.strip()).shown
    except InvalidName:
        raise InvalidAnswer(
            f"Invalid name {typed!r}: use 1 to {MAX_LENGTH} letters, digits, '_', '-' or '.'."
        ) from None


def dialect_of_port(port: int) -> Dialect:
    """The dialect whose default port this is, otherwise `line`."""
    return next((dialect for dialect in DIALECTS.values() if dialect.port == port), DIALECTS["line"])


def guess_dialect(line: bytes) -> Dialect | None:
    """The dialect in which a server most likely sent this answer."""
    return next((dialect for dialect in DIALECTS.values() if line.startswith(dialect.signatures)), None)
