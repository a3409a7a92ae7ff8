"""The things that a script does, done on a stage, each fenced as it has to be. Knows nothing of what is expected,
but that a client on whom the server will hang up must not be asked anything."""

from __future__ import annotations

from collections.abc import Iterable

from harness.interception.faults import Faults
from harness.language.forms import render_duration
from harness.language.located_problem import script_error
from harness.language.patterns import fill
from harness.language.plan import LocatedAction, Turn
from harness.language.renderer import render_item
from harness.language.steps import (
    SENDING,
    Acts,
    CallFails,
    CallTakes,
    ClockJumps,
    ConnectionAction,
    Connects,
    Ends,
    Send,
    SendBytes,
    Sending,
    SendPattern,
    Together,
    Wait,
)
from harness.playing.verdict import PerformedAction
from harness.stage.client import Client
from harness.stage.connection import End
from harness.stage.fence import Grade
from harness.stage.stage import Stage
from harness.targets.target import UnsupportedSpec


class Executor:
    def __init__(self, stage: Stage, eol: bytes, faults: Faults | None) -> None:
        self._stage = stage
        self._eol = eol
        self._faults = faults
        self._unfenced: list[Client] = []
        self._expected_closes: frozenset[str] = frozenset()
        self.bindings: dict[str, str] = {}
        """What captures have bound."""
        self.clients: dict[str, Client] = {}
        """Everyone who has ever connected, in that order."""
        self.departed: set[str] = set()
        """Whose end is no news: they went themselves, or it was told in an earlier turn."""
        self.performed: list[PerformedAction] = []
        """What was done in this turn."""
        self.current: LocatedAction | None = None
        """What is being done."""

    def do_all(self, turn: Turn) -> None:
        """Do what this turn does; when it returns, all that this has caused has been received."""
        self.performed = []
        for at, doing in enumerate(turn.actions):
            self.current = doing
            if self._unfenced and _actors([doing]) != [client.name for client in self._unfenced]:
                self._fence()
            self._expected_closes = _expected_closes(turn, at)
            for name in self._expected_closes & self.clients.keys():
                self.clients[name].expects_close = True
            self._do(doing)
        self._fence(turn)

    def _fence(self, turn: Turn | None = None) -> None:
        """What was done without waiting for its effects has them now; at a turn's end, all that the turn did."""
        names = _actors(turn.actions) if turn else ()
        actors = [self.clients[name] for name in names if name in self.clients] if turn else self._unfenced
        self._unfenced = []
        self._stage.fence(actors)

    def _do(self, doing: LocatedAction) -> None:
        match doing.step:
            case Connects(client, endpoint):
                self._note(doing, client, "connects" + (f" to {endpoint}" if endpoint else ""))
                self._connect(doing, client, endpoint)
            case Together(body):
                self._together(doing, [send for send in body if isinstance(send, SENDING)])
            case Wait(microseconds):
                self._note(doing, None, f"wait {render_duration(microseconds)}")
                self._stage.wait(microseconds / 1_000_000)
            case CallFails() | CallTakes() | ClockJumps():
                self._note(doing, None, next(iter(render_item(doing.step))))
                self._inject(doing, doing.step)
            case Acts(client, action):
                self._note(doing, client, action.value)
                self._act(self.clients[client], action)
            case Send() | SendBytes() | SendPattern():
                self._send(doing, doing.step)

    def _note(self, doing: LocatedAction, client: str | None, text: str, line: int = 0) -> None:
        self.performed.append(
            PerformedAction(client, text, doing.script.file, line or doing.line, self._stage.now(), doing.via)
        )

    def _connect(self, doing: LocatedAction, name: str, endpoint: str | None = None) -> None:
        client = self._stage.client(name)
        try:
            client.connect(endpoint)
        except UnsupportedSpec as wrong:
            raise script_error(
                doing.script, doing.line, 0, str(wrong), "an endpoint of this target", doing.step
            ) from None
        self.clients[name] = client
        self.departed.discard(name)
        client.expects_close = name in self._expected_closes
        if self._stage.grade is Grade.EXACT:
            # Elsewhere this would ask a client who has not said who it is.
            self._unfenced.append(client)

    def _present(self, doing: LocatedAction, name: str) -> Client:
        """The client, connected by its first send."""
        if name not in self.clients:
            self._connect(doing, name)
        return self.clients[name]

    def _send(self, doing: LocatedAction, step: Sending) -> None:
        client = self._present(doing, step.client)
        step = self._filled(doing, step)
        self._note(doing, step.client, _text(step))
        if client.end is not End.OPEN:
            return  # it was cut off; the turn's end says so
        client.expects_close = step.client in self._expected_closes
        if isinstance(step, Send):
            client.send(step.text)
        elif isinstance(step, SendBytes):
            client.send_bytes(step.data)
            self._unfenced = [client]

    def _together(self, doing: LocatedAction, sends: list[Sending]) -> None:
        ready = [(self._present(doing, send.client), self._filled(doing, send)) for send in sends]
        if self._unfenced:
            # At once means what is said: who comes only with it has come before anything of it is said.
            self._fence()
        for client, step in ready:
            self._note(doing, step.client, _text(step), step.line)
            client.expects_close = step.client in self._expected_closes
            if client.end is End.OPEN:
                client.post(step.text.encode() + self._eol if isinstance(step, Send) else step.data)
        self._unfenced = list(dict.fromkeys(client for client, _ in ready))

    def _filled(self, doing: LocatedAction, step: Sending) -> Send | SendBytes:
        if not isinstance(step, SendPattern):
            return step
        text = fill(step.pattern, self.bindings)
        try:
            return Send(step.client, text, line=step.line)
        except ValueError:
            # A captured value may hold what no literal can; it is sent as it came.
            wire = text.encode("utf-8", "surrogateescape") + self._eol
            return SendBytes(step.client, wire, line=step.line)

    def _act(self, client: Client, action: ConnectionAction) -> None:
        match action:
            case ConnectionAction.CLOSES:
                client.close()
                self.departed.add(client.name)
            case ConnectionAction.ABORTS:
                client.abort()
                self.departed.add(client.name)
            case ConnectionAction.HALF_CLOSES:
                client.half_close()
            case ConnectionAction.STOPS_READING:
                client.stop_reading()
            case ConnectionAction.READS_AGAIN:
                client.read_again()
            case ConnectionAction.VANISHES:
                assert self._faults is not None  # see the player
                if client.end is End.OPEN:
                    self._faults.vanish(client.connection)
                self.departed.add(client.name)
        self._unfenced = [client]

    def _inject(self, doing: LocatedAction, step: CallFails | CallTakes | ClockJumps) -> None:
        assert self._faults is not None  # see the player
        name = None if isinstance(step, ClockJumps) else step.client
        client = self.clients[name] if name is not None else None
        if client is not None and client.end is not End.OPEN:
            return  # it was cut off; the turn's end says so
        self._faults.do(step, client.connection if client is not None else None)


def _text(step: Send | SendBytes) -> str:
    return next(iter(render_item(step)))[len(step.client) :]


def _actors(actions: Iterable[LocatedAction]) -> list[str]:
    """Who does something, each once."""
    names: dict[str, None] = {}
    for located in actions:
        match located.step:
            case Wait() | CallFails() | CallTakes() | ClockJumps():
                pass
            case Together(body):
                names.update((send.client, None) for send in body if isinstance(send, SENDING))
            case step:
                names[step.client] = None
    return list(names)


def _expected_closes(turn: Turn, at: int) -> frozenset[str]:
    """On whom the server will hang up from this doing on, as the script says: a fence must not ask them any more, for
    that would reset the connection. It is so from the client's last deed of this turn on, or from the turn's last."""
    left = turn.actions[at + 1 :]
    ending = {located.step.client for located in turn.expectations if isinstance(located.step, Ends)}
    doing, still = _actors(turn.actions), _actors(left)
    return frozenset(name for name in ending if (name not in still if name in doing else not left))
