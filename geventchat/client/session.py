"""A session as one state machine: ask, connect, log in, talk, lose the connection and restore it, leave. Sans-I/O.

Knows no dialect's words, sockets, keys or clock: these are passed in. Every event is handled completely before the next one.
What has to happen later happens at `deadline`, with the event TimerExpired.

States and what ends them:

    ASKING ------> CONNECTING --> LOGGING_IN --> ONLINE --> LEAVING --> ENDED
       ^               ^ ^            |  |         |
       |               | +-BACKING_OFF<--|---------+
       |               +----PARKED <-----|---------+
       +---------------------------------+  (a refused name, a password)

Invariants:
- Events of any connection but `_connection` are ignored.
- Only interactive sessions reach BACKING_OFF and PARKED. A script ends when its connection is lost.
- While there is a question, each line answers it.
- ENDED is final.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import Enum, IntEnum, auto
from typing import NamedTuple, Protocol

from geventchat.chat.commands import ChangePassword, Command, EnterRoom, ParseError, Quit, Register
from geventchat.chat.events import (
    DisconnectNotice,
    Goodbye,
    Greeting,
    Kicked,
    NoticeReason,
    Rejected,
    Rejection,
    Welcome,
)
from geventchat.chat.names import MAX_LENGTH, InvalidName, parse_name
from geventchat.chat.passwords import Secret
from geventchat.client.address import Address, InvalidAddress, Target, parse_port, parse_target
from geventchat.client.connection import (
    Connected,
    ConnectFailed,
    Connection,
    ConnectionEvent,
    DataReceived,
    Disconnected,
    LineReceived,
    SpeaksTls,
    Writable,
)
from geventchat.client.conversation import Conversation, ReadMarks
from geventchat.client.display import Clock
from geventchat.client.editor import Completions
from geventchat.client.input import AskSecret, ChangeName, Message, Parsed, is_secret, parse_input
from geventchat.client.options import Options
from geventchat.client.render import safe
from geventchat.client.sentences import NOTICES, rejection_text
from geventchat.client.terminal import (
    Cancelled,
    InputEnded,
    Interrupted,
    LineEntered,
    LineUnreadable,
    OutputClosed,
    Resumed,
    Terminal,
    TerminalEvent,
)
from geventchat.client.windows import Entry, Kind
from geventchat.dialects import DIALECTS, json2
from geventchat.dialects.codec import ClientCodec, ServerEvent, UnknownError, UnknownLine
from geventchat.dialects.dialect import Dialect
from geventchat.dialects.framing import TOO_LONG, Line

DEFAULT_HOST = "localhost"
# Where to look for a server without a port, the dialect that can do most first.
SEARCHED = ("json", "line")
CONNECT_TIMEOUT_S = 10.0
LOGIN_TIMEOUT_S = 10.0
# For a place where there may be no server.
SEARCH_TIMEOUT_S = 3.0
QUOTED_CHARACTERS = 60
MIN_KEEP_ALIVE_S = 1.0
# A missing answer is shown after this time.
SHOWN_SILENCE_S = 3.0
# How long a second Ctrl-C is waited for.
SECOND_INTERRUPT_S = 3.0

# How long leaving can take. A person wants to leave at once; but what is under way has to be delivered, so this deadline is
# extended while the server sends something.
INTERRUPTED_TIMEOUT_S = 1.0
GOODBYE_TIMEOUT_S = 2.0
DELIVERY_TIMEOUT_S = 30.0

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0

# Someone does not want this client there, so it does not come back by itself. Two that replace each other would never stop.
_FINAL = {NoticeReason.KICKED, NoticeReason.BANNED, NoticeReason.REPLACED}
_NAME_REJECTIONS = {
    Rejection.NAME_LENGTH,
    Rejection.NAME_INVALID,
    Rejection.NAME_TAKEN,
}
_PASSWORD_REJECTIONS = {Rejection.PASSWORD_REQUIRED, Rejection.WRONG_PASSWORD, Rejection.TOO_MANY_ATTEMPTS}


class ExitCode(IntEnum):
    """The exit codes; `docs/client.md` lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130
    TERMINATED = 143


class Plan(NamedTuple):
    """The server and the name. The session asks for missing ones, and finds out a missing dialect."""

    host: str | None = None
    port: int | None = None
    dialect: str | None = None
    name: str | None = None
    # For a name that belongs to an account.
    password: Secret | None = None
    tls: bool = False


class Terminated(NamedTuple):
    """SIGTERM: the system stops the program."""


class TimerExpired(NamedTuple):
    """The deadline has come."""


SessionEvent = ConnectionEvent | TerminalEvent | Terminated | TimerExpired


class Runtime(Protocol):
    """The session's interface to its program. No event arrives before a call has returned."""

    def connect(self, address: Address, timeout_s: float) -> None:
        """Try to connect; the outcome is an event."""

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


_OFFLINE = {State.CONNECTING, State.LOGGING_IN, State.BACKING_OFF, State.PARKED}


class InvalidAnswer(ValueError):
    """An answer is not valid; the message says why."""


class Question(NamedTuple):
    """What is asked, whether the answer is hidden, and what is done with it."""

    text: str
    answer: Callable[[str], None]
    hidden: bool = False


class Session:
    """One session, from the first question to the exit code."""

    def __init__(
        self,
        plan: Plan,
        terminal: Terminal,
        runtime: Runtime,
        clock: Clock,
        options: Options,
        *,
        new_key: Callable[[], str],
        marks: Callable[[str], ReadMarks] = lambda _: ReadMarks(),
    ) -> None:
        self._plan = plan
        self._terminal = terminal
        self._runtime = runtime
        self._clock = clock
        self._state = State.ASKING
        self._question: Question | None = None
        self._timer_at: float | None = None
        # Name and address.
        self._dialect = DIALECTS[plan.dialect or "line"]
        self._dialect_known = plan.dialect is not None
        self._address: Address
        self._places: deque[tuple[int, Dialect]] = deque()
        self._name = ""
        self._name_before: str | None = None
        self._password: Secret | None = None
        self._password_before: Secret | None = None
        # This connection.
        self._connection: Connection | None = None
        self._codec: ClientCodec = self._dialect.client()
        self._notice: NoticeReason | None = None
        self._kicked_just_now = False
        self._first_words = ""
        # Entered behind the login, because a login with all rooms is too long for the server.
        self._short_login = False
        self._later_rooms: Sequence[EnterRoom] = ()
        self._sent_at = 0.0
        # All connections.
        self._was_online = False
        # Halves the interval each time it was too long.
        self._keep_alive_divisor = 1
        self._backoff: Iterator[float] = backoff()
        self._attempts = 0
        self._lost = ""
        self._reason = ""
        self._offline_entry: Entry | None = None
        # Keys.
        self._interrupted_until: float | None = None
        self._warned = False
        # Scripts.
        self._failed = False
        self._wants_line = False
        self._exit_code = ExitCode.OK
        self._quit_sent = False
        self._marks = marks
        self._conversation = Conversation(terminal, self._send, self._show_error, clock, options, new_key)
        self._conversation.carried_out = self._carried_out

    # For the terminal.

    @property
    def conversation(self) -> Conversation:
        """What there is to read."""
        return self._conversation

    @property
    def prompt(self) -> str:
        """The text before the input."""
        if self._question is not None:
            return self._question.text
        return f"{safe(self._name)}{' (offline)' if self._state in _OFFLINE else ''}> "

    @property
    def asking(self) -> bool:
        """True while the next line answers a question."""
        return self._question is not None

    @property
    def hidden(self) -> bool:
        """True while a password is asked for."""
        return self._question is not None and self._question.hidden

    @property
    def is_online(self) -> bool:
        """True while there is something to read besides questions."""
        return self._was_online and self._state is not State.ENDED

    @property
    def paste_lines(self) -> int:
        """A paste with more lines is sent only after a question."""
        return self._conversation.options.paste_lines

    @property
    def place(self) -> str:
        """The server and the name: what was read there is kept under this."""
        return f"{self._address} {self._name}" if self._was_online else ""

    @property
    def status(self) -> Sequence[str]:
        """What is wrong with the connection, in few words; and what else a person should know now."""
        talk = self._conversation
        words = []
        silence = talk.silence()
        if self._interrupted_until is not None:
            words.append("Ctrl-C again leaves")
        if self._state is State.BACKING_OFF:
            words.append(f"offline: attempt {self._attempts + 1} in {self._left_s():.0f} s")
        elif self._state in {State.CONNECTING, State.LOGGING_IN}:
            words.append(f"connecting: attempt {self._attempts}" if self._attempts else "connecting")
        elif self._state is State.PARKED:
            words.append("offline: Enter connects")
        elif self._state is State.LEAVING and talk.waiting:
            words.append("leaving when everything is sent")
        elif silence >= SHOWN_SILENCE_S:
            words.append(f"no answer for {silence:.0f} s")
        if talk.waiting and (silence >= SHOWN_SILENCE_S or talk.unsent or self._state in _OFFLINE):
            words.append(f"{talk.waiting} not confirmed")
        if talk.held:
            words.append(f"{talk.held} perhaps not said: /resend")
        if talk.away is not None:
            words.append("away")
        return words

    def is_secret(self, text: str) -> bool:
        """True for a line with a password in it."""
        return is_secret(text)

    def complete(self, before_cursor: str) -> Completions:
        """The completions of what is before the cursor. An answer has none."""
        return Completions("", ()) if self.asking else self._conversation.complete(before_cursor)

    def accepts(self, text: str) -> bool:
        """True when this input can be handled now; otherwise the reason is shown."""
        if self._state is State.LEAVING and text.strip():
            self._show_error("You are leaving: nothing more is sent.")
            return False
        if self._question is None and self._conversation.is_full and text.strip():
            self._show_error("Too many messages are waiting. Your text stays here until some have been sent.")
            return False
        return True

    @property
    def deadline(self) -> float | None:
        """When TimerExpired is to be passed in, on the monotonic clock."""
        times = [at for at in (self._timer_at, self._interrupted_until) if at is not None]
        now = self._clock.monotonic()
        if self._state is State.ONLINE:
            if self._keep_alive_s:
                times.append(self._sent_at + self._keep_alive_s)
            if self._conversation.is_waiting:
                silence, limit_s = self._conversation.silence(), self._conversation.options.reconnect_after
                # The seconds are counted on the screen.
                times.append(now - silence + max(SHOWN_SILENCE_S, int(silence) + 1.0))
                if limit_s > silence:
                    times.append(now - silence + limit_s)
            times.extend(self._conversation.current.writers(now).values())
        elif self._state is State.BACKING_OFF and self._terminal.interactive:
            times.append(now + 1.0)
        return min(times, default=None)

    @property
    def _keep_alive_s(self) -> float:
        wanted_s = self._conversation.options.keep_alive
        return max(wanted_s / self._keep_alive_divisor, MIN_KEEP_ALIVE_S) if wanted_s else 0.0

    @property
    def _login_timeout_s(self) -> float:
        return SEARCH_TIMEOUT_S if self._places else LOGIN_TIMEOUT_S

    def _left_s(self) -> float:
        return max((self._timer_at or 0.0) - self._clock.monotonic(), 0.0)

    # Events.

    def start(self) -> None:
        """Begin: ask for what is missing, then connect."""
        self._terminal.open(self)
        if self._plan.host is None:
            self._ask(Question(f"Server host (default: {DEFAULT_HOST}): ", self._answer_host))
        else:
            self._set_address(self._plan.host, self._plan.port)
            self._choose_name(self._plan.name)

    def handle(self, event: SessionEvent) -> None:
        """Handle one event; the only way in."""
        if (
            isinstance(event, DataReceived | SpeaksTls | LineReceived | Writable | Disconnected)
            and event.connection is not self._connection
        ):
            return
        if isinstance(event, LineEntered) and self._question is not None:
            self._answered(event.text)
            return
        if isinstance(event, TimerExpired):
            self._tick()
            return
        match self._state, event:
            case State.ENDED, _:
                pass
            case _, Resumed():
                self._conversation.resumed()
            case _, Cancelled():
                self._cancel_question()
            case _, Interrupted() if self._question is not None and self._state is not State.ASKING:
                self._cancel_question()

            case State.ASKING, LineUnreadable(reason):
                self._show_error(reason)
                self._ask_again()
            case State.ASKING, Disconnected():
                # The server did not wait for the answer.
                self._connection = None

            case State.CONNECTING, Connected(connection):
                self._connection = connection
                self._log_in()
            case State.CONNECTING, ConnectFailed(reason, final):
                self._attempt_failed(reason, final=final)
            case State.LOGGING_IN, SpeaksTls():
                self._attempt_failed(f"{self._address} speaks TLS: use chats://{self._address}.", final=True)
            case State.LOGGING_IN, DataReceived():
                # A slow link, and perhaps many people in the room.
                self._set_timer(self._login_timeout_s)
            case State.LOGGING_IN, LineReceived(line=line) if line is not TOO_LONG:
                self._receive_login_answer(line)
            case State.LOGGING_IN, Disconnected(reason=reason):
                self._attempt_failed(f"Login failed: {self._notice_or(reason)}.{self._first_words}")

            case State.ONLINE, DataReceived():
                self._conversation.heard()
            case State.ONLINE, LineReceived(line=line):
                self._receive(line)
                self._request_line()
            case State.ONLINE, Writable():
                self._request_line()
            case State.ONLINE, Disconnected(reason=reason):
                self._lose_connection(reason)
            case State.ONLINE, LineEntered(text, literal):
                self._perform(text, literal=literal)
            case State.ONLINE, LineUnreadable(reason):
                self._show_error(reason)
                self._line_done()
            case State.ONLINE, InputEnded():
                self._leave(ExitCode.OK)
            case State.ONLINE, Interrupted() if self._terminal.interactive:
                self._interrupt()
            case State.ONLINE, Interrupted():
                self._leave(ExitCode.INTERRUPTED)
            case State.ONLINE, Terminated():
                self._leave(ExitCode.TERMINATED)
            case State.ONLINE, OutputClosed():
                self._leave(ExitCode.FAILED)

            case State.LEAVING, DataReceived():
                self._conversation.heard()
                if self._quit_sent and self._waits_for_answers:
                    self._wait_for_goodbye()
            case State.LEAVING, LineReceived(line=line):
                if isinstance(self._receive(line), Goodbye):
                    self._left(None)
                elif not self._quit_sent:
                    self._quit_when_sent()
            case State.LEAVING, Disconnected():
                self._left("The server closed the connection before it had answered everything")
            case State.LEAVING, Interrupted() | Terminated() | InputEnded():
                # Asked a second time: stop waiting.
                self._left("Interrupted before the server had answered everything")
            case State.LEAVING, _:
                pass

            case _, LineEntered(text, literal):
                self._perform_offline(text, literal=literal)
            case _, LineUnreadable(reason):
                self._show_error(reason)
                self._terminal.request_line()
            case _, InputEnded():
                self._leave_offline()
            case _, Interrupted() if self._was_online:
                self._interrupt()
            case _, Interrupted():
                self._end(ExitCode.INTERRUPTED)
            case _, Terminated():
                self._end(ExitCode.TERMINATED)
            case _, OutputClosed():
                self._end(ExitCode.FAILED)
            case _:
                # A connection that is being closed, or an abandoned attempt.
                pass

    def _tick(self) -> None:
        if self._state is State.ENDED:
            return
        now = self._clock.monotonic()
        if self._interrupted_until is not None and now >= self._interrupted_until:
            self._interrupted_until = None
        if self._timer_at is not None and now >= self._timer_at:
            self._timer_at = None
            self._time_is_up()
        elif self._state is State.ONLINE:
            self._watch(now)
        elif self._state is State.BACKING_OFF:
            self._show_attempts()
        self._terminal.refresh()

    def _time_is_up(self) -> None:
        match self._state:
            case State.LOGGING_IN:
                limit_s = self._login_timeout_s
                self._attempt_failed(f"No answer to the login within {limit_s:.0f} s.{self._first_words}")
            case State.LEAVING:
                self._left(f"The server has not answered for {DELIVERY_TIMEOUT_S:.0f} s")
            case State.BACKING_OFF:
                self._connect()

    def _watch(self, now: float) -> None:
        """Is the server still there, and does it know that this client is?"""
        silence, limit_s = self._conversation.silence(), self._conversation.options.reconnect_after
        if limit_s and silence >= limit_s and self._conversation.has_answered:
            if self._connection is not None:
                self._connection.abort()
            self._lose_connection(f"no answer for {silence:.0f} s")
        elif self._keep_alive_s and now >= self._sent_at + self._keep_alive_s:
            self._sent_at = now
            if not self._conversation.is_waiting:
                self._conversation.ping()

    # Questions.

    def _ask(self, question: Question, given: str | None = None) -> None:
        """Ask, unless the answer is given."""
        self._question = question
        if not self._is_connected_or_back():
            self._enter(State.ASKING)
        if given is None:
            self._ask_again()
        else:
            self._answered(given)

    def _is_connected_or_back(self) -> bool:
        return self._was_online and self._state is not State.LOGGING_IN

    def _ask_again(self) -> None:
        if self._terminal.interactive:
            self._terminal.ask()
        else:
            self._end(ExitCode.FAILED)

    def _answered(self, text: str) -> None:
        question = self._question
        assert question is not None
        try:
            question.answer(text)
        except (InvalidAddress, InvalidAnswer) as error:
            self._show_error(str(error))
            self._ask_again()
            return
        if self._question is question:
            self._question = None
            self._request_line()
        self._terminal.refresh()

    def _cancel_question(self) -> None:
        if self._question is None:
            return
        if self._name_before is not None:
            self._return_to_old_name("The name was not changed.")
        elif self._state is State.ASKING and self._was_online:
            self._leave_offline()
        elif self._state is State.ASKING:
            self._end(ExitCode.INTERRUPTED)
        else:
            self._question = None
            self._request_line()
        self._terminal.refresh()

    def _answer_host(self, text: str) -> None:
        target = parse_target(text.strip() or DEFAULT_HOST)
        self._take(target)
        if target.port is None:
            self._ask(Question(f"Server port (default: {self._default_ports()}): ", self._answer_port))
        else:
            self._set_address(target.host, target.port)
            self._choose_name(self._plan.name or target.name)

    def _take(self, target: Target) -> None:
        """What an address says besides the host and the port."""
        if target.dialect is not None and not self._dialect_known:
            self._dialect, self._dialect_known = DIALECTS[target.dialect], True
        if target.room is not None:
            self._conversation.enter_first(target.room)
        self._plan = self._plan._replace(
            host=target.host, name=self._plan.name or target.name, tls=target.tls
        )

    def _default_ports(self) -> str:
        return (
            str(self._dialect.port)
            if self._dialect_known
            else ", then ".join(str(DIALECTS[name].port) for name in SEARCHED)
        )

    def _answer_port(self, text: str) -> None:
        assert self._plan.host is not None
        self._set_address(self._plan.host, parse_port(text) if text.strip() else None)
        self._choose_name(self._plan.name)

    def _set_address(self, host: str, port: int | None) -> None:
        """Where to connect to. Without a port, a server is looked for in the usual places."""
        self._places.clear()
        if port is None and not self._dialect_known:
            self._places.extend((DIALECTS[name].port, DIALECTS[name]) for name in SEARCHED)
            port, self._dialect = self._places.popleft()
        elif port is None:
            port = self._dialect.port
        elif not self._dialect_known:
            self._dialect = dialect_of_port(port)
        self._address = Address(host, port, self._plan.tls)

    def _choose_name(self, given: str | None) -> None:
        self._ask(Question("Enter your username: ", self._answer_name), given)

    def _answer_name(self, text: str) -> None:
        self._name = valid_name(text)
        self._password = None
        self._go_on()

    def _ask_password(self) -> None:
        self._ask(
            Question(
                f"Password for {safe(self._name)} (empty: another name): ", self._answer_password, hidden=True
            )
        )

    def _answer_password(self, text: str) -> None:
        if not text:
            if self._name_before is not None:
                self._return_to_old_name("The name was not changed.")
            else:
                self._choose_name(None)
            return
        self._password = Secret(text)
        self._go_on()

    def _go_on(self) -> None:
        """Log in with what was answered."""
        self._question = None
        if self._connection is not None:
            self._log_in()
        else:
            self._connect()

    # Connecting and logging in.

    def _connect(self) -> None:
        self._drop_connection()
        self._enter(State.CONNECTING)
        self._attempts += self._was_online
        self._runtime.connect(self._address, SEARCH_TIMEOUT_S if self._places else CONNECT_TIMEOUT_S)
        self._terminal.refresh()

    def _log_in(self, *, short: bool = False) -> None:
        # A server that speaks only version 1 answers this like a login of version 1.
        self._codec = json2.DIALECT.client() if self._dialect is DIALECTS["json"] else self._dialect.client()
        self._notice = None
        self._first_words = ""
        self._enter(State.LOGGING_IN, self._login_timeout_s)
        if not self._was_online:
            self._conversation.use_marks(self._marks(f"{self._address} {self._name}"))
        login = replace(self._conversation.login(self._name), password=self._password)
        self._short_login, self._later_rooms = short, ()
        if short and login.rooms:
            self._later_rooms = login.rooms[1:]
            login = replace(login, rooms=login.rooms[:1])
        self._send(self._codec.encode(login))

    def _receive_login_answer(self, line: bytes) -> None:
        event = self._decode_login_answer(line)
        spoken = guess_dialect(line)
        if spoken is not None and spoken is not self._dialect:
            self._correct_dialect(spoken)
            return
        match event:
            case Greeting(text):
                self._greet(text)
            case Welcome():
                self._enter_chat(event)
            case Rejected(reason) if reason in _PASSWORD_REJECTIONS:
                self._refuse_password(reason)
            case Rejected(reason) if reason in _NAME_REJECTIONS:
                self._refuse_name(reason)
            case Rejected(ParseError.TOO_LONG) if not self._short_login:
                self._log_in(short=True)
            case Rejected(reason) if not self._first_words:
                self._first_words = f" {rejection_text(reason, self._name)}"
            case DisconnectNotice(reason=notice):
                self._notice = notice
            case UnknownLine(text) | UnknownError(text) if not self._first_words:
                # Tells a person what kind of server this is.
                self._first_words = f' The server said: "{text[:QUOTED_CHARACTERS]}".'

    def _decode_login_answer(self, line: bytes) -> ServerEvent | None:
        event = self._codec.decode(line)
        if not isinstance(event, UnknownLine) or self._dialect is not DIALECTS["json"]:
            return event
        version_1 = self._dialect.client()
        version_1.encode(self._conversation.login(self._name))
        older = version_1.decode(line)
        if isinstance(older, Welcome):
            self._codec = version_1
        return event if isinstance(older, UnknownLine) else older

    def _greet(self, text: str) -> None:
        if self._terminal.interactive and not self._was_online:
            self._conversation.add(Kind.NOTICE, text)

    def _correct_dialect(self, spoken: Dialect) -> None:
        if self._dialect_known:
            self._attempt_failed(f"The server speaks {spoken.name}: try --dialect {spoken.name}.")
            return
        self._dialect, self._dialect_known = spoken, True
        self._places.clear()
        self._connect()

    def _refuse_password(self, reason: Rejection | ParseError) -> None:
        if (
            reason is Rejection.PASSWORD_REQUIRED
            and self._password is None
            and self._plan.password is not None
        ):
            self._password = self._plan.password
            self._log_in()
            return
        if self._was_online and reason is Rejection.TOO_MANY_ATTEMPTS:
            self._attempt_failed(rejection_text(reason, self._name))
            return
        if reason is not Rejection.PASSWORD_REQUIRED or not self._terminal.interactive:
            self._show_error(rejection_text(reason, self._name))
        self._password = None
        self._ask_password()

    def _refuse_name(self, reason: Rejection | ParseError) -> None:
        if self._name_before is not None:
            self._return_to_old_name(rejection_text(reason, self._name))
            return
        if self._was_online and reason is Rejection.NAME_TAKEN:
            # The server has perhaps not noticed yet that the old connection is dead.
            self._attempt_failed(f"The name {self._name} is still in use on the server.")
            return
        if self._was_online:
            self._end(ExitCode.FAILED, rejection_text(reason, self._name))
            return
        self._show_error(rejection_text(reason, self._name))
        self._choose_name(None)

    def _return_to_old_name(self, why: str) -> None:
        assert self._name_before is not None
        self._show_error(why)
        self._name, self._name_before = self._name_before, None
        self._password = self._password_before
        self._question, self._attempts = None, 0
        self._connect()

    def _enter_chat(self, welcome: Welcome) -> None:
        renamed, self._name_before = self._name_before, None
        self._name = welcome.name
        self._places.clear()
        self._dialect_known = True
        returning, self._was_online = self._was_online, True
        attempts, self._attempts = self._attempts, 0
        if self._offline_entry is not None:
            self._offline_entry.change(self._lost)
            self._offline_entry = None
        self._kicked_just_now = False
        self._enter(State.ONLINE)
        if welcome.greeting and not returning:
            self._greet(welcome.greeting)
        if renamed is not None:
            self._conversation.add(Kind.SUCCESS, f"You are {self._name} now.")
        elif returning:
            tried = f" after {attempts} attempts" if attempts > 1 else ""
            self._conversation.add(Kind.SUCCESS, f"Reconnected as {self._name}{tried}.")
        elif self._terminal.interactive:
            self._conversation.add(Kind.SUCCESS, f"Welcome to the chat, {self._name}!")
            self._conversation.add(Kind.NOTICE, "Type a message and press Enter. /help lists the commands.")
        self._conversation.online(self._codec, welcome, self._later_rooms, returning=returning)
        if not returning or self._wants_line:
            self._wants_line = False
            self._terminal.request_line()

    # Online.

    def _receive(self, line: Line) -> ServerEvent | None:
        if line is TOO_LONG:
            self._show_error("The server sent a line that is too long to show.")
            return None
        event = self._codec.decode(line)
        if event is not None:
            self._kicked_just_now = isinstance(event, Kicked)
        match event:
            case DisconnectNotice(reason=notice):
                self._notice = notice
            case Goodbye():
                self._conversation.goodbye()
            case None:
                pass
            case _:
                self._conversation.receive(event)
        return event

    def _perform(self, text: str, *, literal: bool) -> None:
        self._interrupted_until = None
        parsed = parse_input(text, literal=literal)
        match parsed:
            case Quit():
                self._leave(ExitCode.OK)
                return
            case ChangeName(name):
                self._change_name(name)
            case AskSecret(command) if not self._terminal.interactive:
                self._show_error(f"A script cannot be asked for a password: /{command} PASSWORD")
            case AskSecret(command):
                self._ask_secret(command)
            case Message(texts) if self._asks_before(literal, len(texts)):
                self._ask_to_send(parsed)
            case _ if self._is_echoed_secret(text, parsed):
                self._show_error(
                    "Passwords are not shown here: type the command alone, and it asks for them."
                )
            case _:
                self._conversation.perform(parsed, literal=literal)
        self._line_done()

    def _asks_before(self, literal: bool, lines: int) -> bool:
        """True for a long paste in a terminal without an input line, which has not asked the user to confirm it."""
        return literal and self._terminal.echoes_input and lines > self.paste_lines

    def _ask_to_send(self, message: Message) -> None:
        def answer(text: str) -> None:
            if text.strip().lower() in {"y", "yes"}:
                self._conversation.perform(message, literal=True)
            else:
                self._show_error("The paste was not sent.")

        where = safe(self._conversation.current.title)
        self._ask(Question(f"Send {len(message.texts)} lines to {where}? (y or n) ", answer))

    def _is_echoed_secret(self, text: str, parsed: Parsed) -> bool:
        return (
            self._terminal.echoes_input and isinstance(parsed, Register | ChangePassword) and is_secret(text)
        )

    def _ask_secret(self, command: str) -> None:
        def ask_new(then: Callable[[Secret], None]) -> None:
            def once_more(first: str) -> None:
                if not first:
                    self._show_error("Nothing was changed.")
                    return
                self._ask(Question("Once more: ", lambda second: compare(first, second), hidden=True))

            def compare(first: str, second: str) -> None:
                if first != second:
                    self._show_error("The two are not the same: nothing was changed.")
                    return
                then(Secret(first))

            self._ask(Question("New password: ", once_more, hidden=True))

        if command == "register":
            ask_new(lambda new: self._conversation.perform(Register(new)))
        else:
            self._ask(
                Question(
                    "Password until now: ",
                    lambda old: ask_new(
                        lambda new: self._conversation.perform(ChangePassword(Secret(old), new))
                    ),
                    hidden=True,
                )
            )

    def _carried_out(self, command: Command) -> None:
        """The server has done what was asked for."""
        match command:
            case Register(password) | ChangePassword(new=password):
                self._password = password

    def _change_name(self, typed: str) -> None:
        try:
            name = valid_name(typed)
        except InvalidAnswer as error:
            self._show_error(str(error))
            return
        if not self._terminal.interactive:
            self._show_error("A script keeps its name: use --name.")
            return
        if name == self._name:
            self._show_error(f"You are {name} already.")
            return
        if self._conversation.waiting:
            # Those under way could be said under both names.
            self._show_error("Some of your messages are not confirmed yet: try again when they are.")
            return
        # The old name is left in order, so that everyone sees one departure and one arrival.
        self._send(self._codec.encode(Quit()))
        self._conversation.offline()
        self._name_before, self._name = self._name, name
        self._password_before, self._password = self._password, None
        self._lost = f"Not connected as {safe(name)}."
        self._connect()

    def _line_done(self) -> None:
        self._wants_line = True
        self._request_line()

    def _request_line(self) -> None:
        """Request the next line, as soon as a script's server has caught up."""
        if not self._wants_line or self._connection is None or self._question is not None:
            return
        if not self._terminal.interactive and (self._connection.blocked or not self._conversation.takes_more):
            return
        self._wants_line = False
        self._terminal.request_line()

    def _interrupt(self) -> None:
        """Ctrl-C on an empty line. The second one leaves."""
        now = self._clock.monotonic()
        if self._interrupted_until is not None and now < self._interrupted_until:
            self._interrupted_until = None
            if self._state is State.ONLINE:
                self._leave(ExitCode.OK)
            else:
                self._end(ExitCode.OK)
            return
        self._interrupted_until = now + SECOND_INTERRUPT_S
        if self._terminal.linear:
            self._conversation.add(Kind.NOTICE, "Ctrl-C again leaves.")
        self._terminal.refresh()

    # Offline.

    def _lose_connection(self, reason: str) -> None:
        if self._kicked_just_now and self._notice is None:
            # A client that is in a room cannot tell a kick from the room and one from the server apart before the end.
            self._notice = NoticeReason.KICKED
        lost = f"Lost the connection to {self._address}: {self._notice_or(reason)}."
        self._conversation.offline()
        if not self._terminal.interactive:
            self._end(ExitCode.FAILED, lost)
            return
        self._backoff, self._attempts, self._lost = backoff(), 0, lost
        if self._notice is NoticeReason.IDLE:
            if not self._keep_alive_s:
                # An absent user should not hold a connection.
                self._conversation.add(Kind.OFFLINE, f"{lost} Press Enter to reconnect.")
                self._drop_connection()
                self._enter(State.PARKED)
                return
            # The server's limit is shorter than the interval.
            self._keep_alive_divisor *= 2
        self._back_off(lost)

    def _notice_or(self, reason: str) -> str:
        return reason if self._notice is None else NOTICES[self._notice]

    def _attempt_failed(self, reason: str, *, final: bool = False) -> None:
        if self._was_online:
            self._back_off(reason)
        elif self._places and not final:
            port, self._dialect = self._places.popleft()
            self._address = self._address._replace(port=port)
            self._connect()
        else:
            self._end(ExitCode.FAILED, reason)

    def _back_off(self, reason: str) -> None:
        if self._notice in _FINAL:
            self._end(ExitCode.FAILED, reason)
            return
        self._drop_connection()
        self._reason = "" if reason == self._lost else f" {reason}"
        pause_s = next(self._backoff)
        # Jitter, so that clients of a restarted server do not all return at the same moment.
        self._enter(State.BACKING_OFF, pause_s * random.uniform(0.75, 1))
        self._show_attempts()

    def _show_attempts(self) -> None:
        """One line that counts, however often connecting fails."""
        left_s = self._left_s()
        tried = f" Attempt {self._attempts} failed:{self._reason}" if self._attempts else ""
        text = f"{self._lost}{tried} Next attempt in {max(left_s, 0.5):.{0 if left_s >= 1 else 1}f} s."
        if self._offline_entry is None:
            self._offline_entry = self._conversation.add(Kind.OFFLINE, text)
        else:
            self._offline_entry.change(text)
        self._terminal.refresh()

    def _perform_offline(self, text: str, *, literal: bool) -> None:
        self._interrupted_until = None
        parsed = parse_input(text, literal=literal)
        match parsed:
            case Quit():
                self._leave_offline()
                if self._state is State.ENDED:
                    return
            case ChangeName() | AskSecret():
                self._show_error("Not connected: try again when the connection is back.")
            case _:
                self._conversation.perform(parsed, literal=literal)
                if self._state is State.PARKED:
                    self._connect()
        self._terminal.request_line()

    def _leave_offline(self) -> None:
        lost = self._conversation.waiting + self._conversation.held
        if self._was_online and lost and not self._warned:
            self._warned = True
            self._show_error(f"{lost} of your messages were not said. Leave again to lose them.")
            return
        self._end(ExitCode.OK if self._was_online else ExitCode.FAILED)

    # Leaving.

    @property
    def _waits_for_answers(self) -> bool:
        undecided = not self._terminal.interactive or self._conversation.waiting > 0
        return self._exit_code is ExitCode.OK and undecided

    def _leave(self, code: ExitCode) -> None:
        """Log out, and wait for the answer. A server handles commands in order, so everything sent before is answered first."""
        self._exit_code = code
        self._question = None
        self._enter(State.LEAVING)
        self._quit_when_sent()

    def _quit_when_sent(self) -> None:
        in_order = self._exit_code is ExitCode.OK
        if in_order and self._conversation.unsent:
            self._set_timer(None if self._terminal.interactive else DELIVERY_TIMEOUT_S)
            self._terminal.refresh()
            return
        self._quit_sent = True
        self._send(self._codec.encode(Quit()))
        if in_order:
            self._wait_for_goodbye()
        else:
            self._set_timer(INTERRUPTED_TIMEOUT_S)

    def _wait_for_goodbye(self) -> None:
        self._set_timer(DELIVERY_TIMEOUT_S if self._waits_for_answers else GOODBYE_TIMEOUT_S)

    def _left(self, problem: str | None) -> None:
        error = None
        in_order = self._exit_code is ExitCode.OK
        lost = self._conversation.waiting
        if not self._terminal.interactive and in_order:
            if problem is not None:
                self._failed = True
                error = f"{problem}: the last lines may not have been delivered."
            if self._failed:
                self._exit_code = ExitCode.FAILED
        elif problem is not None and in_order and lost:
            error = f"{lost} of your messages may not have been delivered."
        self._end(self._exit_code, error)

    def _end(self, code: ExitCode, error: str | None = None) -> None:
        self._enter(State.ENDED)
        self._question = None
        self._drop_connection()
        self._terminal.leave_screen()
        if error is not None:
            self._show_error(error)
        if self._was_online and self._terminal.interactive and code is not ExitCode.FAILED:
            self._conversation.add(Kind.GOODBYE, f"Goodbye, {self._name}!")
        self._runtime.end(code)

    # Everywhere.

    def _enter(self, state: State, timer_s: float | None = None) -> None:
        self._state = state
        self._set_timer(timer_s)

    def _set_timer(self, seconds: float | None) -> None:
        self._timer_at = None if seconds is None else self._clock.monotonic() + seconds

    def _send(self, data: bytes) -> None:
        # Servers count only input from the client as activity.
        self._sent_at = self._clock.monotonic()
        if self._connection is not None:
            self._connection.send(data)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _show_error(self, text: str) -> None:
        self._failed = True
        if self._terminal.interactive:
            self._conversation.add(Kind.ERROR, text)
        else:
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
