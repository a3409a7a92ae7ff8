"""The heard fence: a client sends a line that the server delivers to other clients, as it delivers messages.

- Each acting client sends a fence line, and every other client has to hear it. Then another client sends one, and each acting
  client has to hear that. So every message that the acting clients caused before has been delivered to every client.
- The fence learns which clients hear each other, and waits accordingly. If one has heard the other before, in either direction,
  it waits as long as an operation can take. If nothing is known, it waits until nothing has come for a while. If the last line
  was not heard, it does not wait. If a line is heard after the fence gave up, the line is sent again, because now the two
  clients are known to hear each other.
- If a client has not heard a line, the fence waits for quiet, and its grade is that of a quiet fence.
- A single client cannot be heard. If its line is always answered, it is asked as by an answer fence; otherwise the fence waits
  for quiet. This does not affect the grade.
- Heard lines are removed from the input whenever they arrive.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Sequence

from harness.language.fences import Fence, Heard, Place
from harness.stage.connection import Connection, End
from harness.stage.event_loop import EventLoop
from harness.stage.fence import AnswerFence, Asked, Connections, FenceLineSent, Grade
from harness.stage.limits import Limit
from harness.stage.rules import FindHeard


class DeliveryTracker:
    """Tracks which client has heard which fence line, and so which clients hear each other."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        # Random, so that lines of an earlier run in the server's history do not match.
        self._stem = f"f{secrets.token_hex(3)}x"
        self._line = fence.heard_line(re.escape(self._stem).encode() + b"[0-9]+")
        self._sent: dict[str, FenceLineSent] = {}
        self._reaches: dict[tuple[str, str], bool] = {}
        self._starts: dict[str, int] = {}
        """For each sender, at how many places its last line could begin, from its beginning on."""
        self.refused: set[str] = set()
        """The clients whose last fence line was refused."""
        self.count = 0
        """How often a fence line was heard; duplicates do not count."""

    def new_token(self) -> str:
        return f"{self._stem}{len(self._sent) + 1}"

    def track(self, sent: FenceLineSent) -> None:
        """Track a line that is about to be sent."""
        sent.heard_by = []
        self._sent[sent.token] = sent

    def finder_for(self, client: str) -> FindHeard:
        """A function that finds fence lines in the input of this client, and records that it has heard them."""
        return lambda line: self._find(client, line)

    def _find(self, client: str, line: bytes) -> int | None:
        found = self._line.find(line) if self._stem.encode() in line else None
        sent = self._sent.get(found.token) if found is not None else None
        if found is None or sent is None or sent.heard_by is None:
            return None
        start = self._start(sent.client, found)
        if client == sent.client:
            # For the sender, the same line can be the answer, which `_await` looks for.
            awaited = self._fence.find_own_answer(line, 0, sent.token) is not None
            return None if awaited else start
        if client not in sent.heard_by:
            sent.heard_by.append(client)
            self.count += 1
            self.refused.discard(sent.client)
        self.learn(sent.client, client, True)
        return start

    def _start(self, sender: str, found: Heard) -> int:
        """Where this line of the sender begins: bytes without a line end that precede it are not a part of it, even if they
        look like one. The lines of a sender have the same form each time."""
        known = self._starts.get(sender)
        start = found.likely if known is None else found.starts[max(0, len(found.starts) - known)]
        self._starts[sender] = len(found.starts) - found.starts.index(start)
        return start

    def reaches(self, sender: str, client: str) -> bool | None:
        """True if lines of `sender` reach `client`; None if that is unknown. Clients that reach each other in one direction
        are assumed to do so in both, until a line is not heard."""
        known = self._reaches.get((sender, client))
        return known if known is not None else self._reaches.get((client, sender)) or None

    def learn(self, sender: str, client: str, reaches: bool) -> None:
        self._reaches[sender, client] = reaches

    def forget(self, client: str) -> None:
        """Forget what is known about a client, because it opens a new connection."""
        self._reaches = {pair: reaches for pair, reaches in self._reaches.items() if client not in pair}
        self._starts.pop(client, None)
        self.refused.discard(client)


Pair = tuple[Asked, Connection]
"""A client that sent a fence line, and another that has to hear it."""


class HeardFence(AnswerFence):
    """Works for servers that handle each client's lines in order, and that deliver the effects of lines to each client in that
    order."""

    def __init__(
        self,
        fence: Fence,
        unfenced: frozenset[str],
        eol: bytes,
        loop: EventLoop,
        connections: Connections,
        within_s: float,
        settle_s: float,
        deliveries: DeliveryTracker,
    ) -> None:
        super().__init__(fence, unfenced, eol, loop, connections, within_s, settle_s)
        self._deliveries = deliveries
        self._several = False
        """True once several clients were connected at the same time."""
        self._given_up: list[Asked] = []
        """Clients whose lines were neither heard nor refused."""
        self.grade = Grade.ANSWERED if fence.answers else Grade.SETTLED

    def _sending(self, connection: Connection) -> FenceLineSent:
        sent = super()._sending(connection)
        self._deliveries.track(sent)
        return sent

    def _new_token(self) -> str:
        return self._deliveries.new_token()

    def one(self, connection: Connection) -> bool:
        if self._is_alone((connection,)):
            return bool(self._fence.answers) and super().one(connection)
        asked = self._put(connection)
        if asked is None:
            return False
        self._until_heard([asked], [(asked, other) for other in self._others(connection)])
        return bool(asked.sent.heard_by) and self._trusted

    def _everything(self, actors: Iterable[Connection]) -> None:
        actors, quiet = tuple(actors), False
        if self._is_alone(actors):
            proven = bool(self._fence.answers) and self._ask(actors, [])
        else:
            if not self._several:
                self._several = True
                self.grade = Grade.HEARD if self._trusted else Grade.SETTLED
            proven = self._hear(actors)
            if not proven:
                # A line that was given up can just be late. Then the clients are now known to hear each other.
                quiet = self._wait_for_quiet()
                proven = not quiet and self._hear(actors)
        self.answers_alone = proven and self._trusted
        if not self.answers_alone:
            self.grade = Grade.SETTLED
            if not quiet:
                self._wait_for_quiet()

    def _wait_for_quiet(self) -> bool:
        """Wait for quiet; True if no fence line was heard meanwhile."""
        count = self._deliveries.count
        self._quiet.everything(())
        for one in self._given_up:
            self._look_for_refusal(one, self._answer)
            self._look_for_refusal(one, self._last_lookalike)
        self._given_up.clear()
        return self._deliveries.count == count

    def _is_alone(self, actors: Sequence[Connection]) -> bool:
        """True if no other client is connected that could hear these, and all of these are connected."""
        present = [one for one in self._connections() if one.end is End.OPEN]
        return len(present) < 2 and all(one in present for one in actors)

    def _others(self, connection: Connection) -> list[Connection]:
        """The clients that could hear this one."""
        return [
            one for one in self._connections() if one is not connection and one.end is End.OPEN and one.reads
        ]

    def _hear(self, actors: Sequence[Connection]) -> bool:
        """Send the fence lines; True if all others heard each actor, and then each actor heard another client."""
        senders = actors or self._able()[:1]
        asked = [one for one in map(self._put, senders) if one is not None]
        heard = self._until_heard(
            asked, [(one, other) for one in asked for other in self._others(one.connection)]
        )
        if not heard or not asked or len(asked) < len(senders):
            return False
        others = [one for one in self._able() if one not in senders]
        # One sender is enough. If only actors can send, two of them do: each hears the other.
        back = [one for one in map(self._put, others[:1] or self._able()[:2]) if one is not None]
        pairs = [(one, other) for one in back[:1] for other in senders if other is not one.connection] + [
            (one, back[0].connection) for one in back[1:]
        ]
        return self._until_heard(back, pairs) and {other for _, other in pairs}.issuperset(senders)

    def _able(self) -> list[Connection]:
        return [one for one in self._connections() if self._can_be_asked(one)]

    def _until_heard(self, asked: Iterable[Asked], pairs: Sequence[Pair]) -> bool:
        """Wait until all pairs have heard, and until the senders are answered if their line always is; False if a pair was
        given up."""
        asked, limits = tuple(asked), self._loop.limits
        limit, quiet = limits.limit(self._within_s), limits.limit(self._settle_s)
        before = self._activity()
        while True:
            for one in asked:
                self._look_for_refusal(one, self._answer)
            missing = self._missing(pairs)
            awaited = self._awaited(asked, missing, limit, quiet)
            if awaited is None or awaited.over:
                break
            self._loop.pause(awaited.pause_s)
            if (now := self._activity()) != before:
                before, quiet = now, limits.limit(self._settle_s)
        for one in asked:
            self._look_for_refusal(one, self._last_lookalike)
            one.sent.unheard_by = tuple(other.name for sender, other in missing if sender is one)
            if not one.sent.heard_by and one.sent.answer is None:
                self._given_up.append(one)
        for one, other in missing:
            self._deliveries.learn(one.sent.client, other.name, False)
        for one in asked if self._fence.answers else ():
            self._answered(one)
        return not missing

    def _missing(self, pairs: Iterable[Pair]) -> list[Pair]:
        return [
            (one, other)
            for one, other in pairs
            if other.end is End.OPEN and other.reads and other.name not in (one.sent.heard_by or ())
        ]

    def _awaited(
        self, asked: Iterable[Asked], missing: Iterable[Pair], limit: Limit, quiet: Limit
    ) -> Limit | None:
        """The limit of the wait for the missing pairs; None to stop. It is `limit` if a sender is known to reach the client,
        and `quiet` if that is unknown. If lines can be refused, a line that no client has heard counts in the same way:
        known if its sender's last line was refused."""
        known = {
            self._deliveries.reaches(one.sent.client, other.name) for one, other in missing if _is_open(one)
        }
        if self._fence.refusals:
            unheard = [one for one in asked if _is_open(one) and not one.sent.heard_by]
            known |= {one.sent.client in self._deliveries.refused or None for one in unheard}
        return limit if True in known else quiet if None in known else None

    def _look_for_refusal(self, asked: Asked, where: Callable[[Asked], Place | None]) -> None:
        if self._fence.refusals and asked.sent.answer is None:
            found = where(asked)
            if found is not None:
                asked.sent.answer = self._removed(asked, found)
                self._deliveries.refused.add(asked.sent.client)

    def _activity(self) -> object:
        return self._quiet.state(), self._deliveries.count


def _is_open(asked: Asked) -> bool:
    """True if this line can still be heard: it was not refused, and its sender is connected."""
    return asked.sent.answer is None and asked.connection.end is End.OPEN
