"""The fence whose lines take the path of messages: one client sends a line, and it is known which others have heard it.

- The acting clients send, and every other client has to hear each of them. Then others send, and each acting client has
  to hear one of those. So whatever the acting clients caused on the path of messages has reached every client.
- The fence learns which clients hear each other. If one has heard the other before, or was heard by it, the fence waits as
  long as an operation can take; if nothing is known, until nothing has come for a while; if it has not heard, not at all.
  A line that was given up and is heard a little later is sent again: now the two are known.
- Where a client has not heard, the fence waits for quiet, and its grade is that of a quiet fence.
- As long as there is only one client, no other can hear it: it is asked like one of an answer fence if its line is always
  answered, and otherwise the fence waits for quiet. This does not count for the grade.
- Heard lines are removed from the input as soon as they arrive, whenever that is.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Sequence

from harness.language.fences import Fence, Place
from harness.stage.connection import Connection, End
from harness.stage.event_loop import EventLoop
from harness.stage.fence import AnswerFence, Asked, Connections, FenceLineSent, Grade
from harness.stage.limits import Limit
from harness.stage.rules import FindHeard


class Hearing:
    """Which client has heard which fence line, and which clients hear each other."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        # What an earlier run has left in the history of a server is not taken for a line of this one.
        self._stem = f"f{secrets.token_hex(3)}x"
        self._pattern = fence.heard_pattern(re.escape(self._stem).encode() + b"[0-9]+")
        self._sent: dict[str, FenceLineSent] = {}
        self._hears: dict[tuple[str, str], bool] = {}
        self.refused: set[str] = set()
        """The clients whose last fence line was refused."""
        self.count = 0
        """How often a fence line was heard, without copies."""

    def new_token(self) -> str:
        return f"{self._stem}{len(self._sent) + 1}"

    def expect(self, sent: FenceLineSent) -> None:
        """This line is sent now, and can be heard from here on."""
        sent.heard_by = []
        self._sent[sent.token] = sent

    def of(self, client: str) -> FindHeard:
        """What finds fence lines in what this client receives, and notes that it has heard them."""
        return lambda line: self._find(client, line)

    def _find(self, client: str, line: bytes) -> int | None:
        found = self._pattern.search(line)
        sent = self._sent.get(found["token"].decode()) if found is not None else None
        if found is None or sent is None or sent.heard_by is None:
            return None
        if client == sent.client:
            # The same line can be what its sender is always answered: then that is awaited.
            awaited = self._fence.find_own_answer(line, 0, sent.token) is not None
            return None if awaited else found.start()
        if client not in sent.heard_by:
            sent.heard_by.append(client)
            self.count += 1
            self.refused.discard(sent.client)
        self.learn(sent.client, client, True)
        return found.start()

    def hears(self, sender: str, client: str) -> bool | None:
        """Whether this client hears that sender; None if nothing is known. Hearing is mutual, as long as there is no
        sign to the contrary."""
        known = self._hears.get((sender, client))
        return known if known is not None else self._hears.get((client, sender)) or None

    def learn(self, sender: str, client: str, hears: bool) -> None:
        self._hears[sender, client] = hears

    def forget(self, client: str) -> None:
        """A new connection of this client has nothing in common with the last."""
        self._hears = {pair: hears for pair, hears in self._hears.items() if client not in pair}
        self.refused.discard(client)


Pair = tuple[Asked, Connection]
"""A client that has sent a fence line, and another that has to hear it."""


class HeardFence(AnswerFence):
    """True of servers that handle each client's lines in order, and deliver everything that they cause to a client in the
    order in which it was caused."""

    def __init__(
        self,
        fence: Fence,
        unfenced: frozenset[str],
        eol: bytes,
        loop: EventLoop,
        connections: Connections,
        within_s: float,
        settle_s: float,
        hearing: Hearing,
    ) -> None:
        super().__init__(fence, unfenced, eol, loop, connections, within_s, settle_s)
        self._hearing = hearing
        self._several = False
        """Whether there have been several clients: before that, no other could hear."""
        self._given_up: list[Asked] = []
        """Those of which it is not known whether their line was refused."""
        self.grade = Grade.ANSWERED if fence.answers else Grade.SETTLED

    def _sending(self, connection: Connection) -> FenceLineSent:
        sent = super()._sending(connection)
        self._hearing.expect(sent)
        return sent

    def _new_token(self) -> str:
        return self._hearing.new_token()

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
            proven = bool(self._fence.answers) and self._ask(actors)
        else:
            if not self._several:
                self._several = True
                self.grade = Grade.HEARD if self._trusted else Grade.SETTLED
            proven = self._hear(actors)
            if not proven:
                # What was given up can be only late: then it is known now who can hear.
                quiet = self._wait_for_quiet()
                proven = not quiet and self._hear(actors)
        self.answers_alone = proven and self._trusted
        if not self.answers_alone:
            self.grade = Grade.SETTLED
            if not quiet:
                self._wait_for_quiet()

    def _wait_for_quiet(self) -> bool:
        """Whether no fence line was heard meanwhile."""
        count = self._hearing.count
        self._quiet.everything(())
        for one in self._given_up:
            self._look_for_refusal(one, self._answer)
            self._look_for_refusal(one, self._last_lookalike)
        self._given_up.clear()
        return self._hearing.count == count

    def _is_alone(self, actors: Sequence[Connection]) -> bool:
        """Whether no other client could hear these, and none of them has gone."""
        present = [one for one in self._connections() if one.end is End.OPEN]
        return len(present) < 2 and all(one in present for one in actors)

    def _others(self, connection: Connection) -> list[Connection]:
        """Those who could hear this client."""
        return [
            one for one in self._connections() if one is not connection and one.end is End.OPEN and one.reads
        ]

    def _hear(self, actors: Sequence[Connection]) -> bool:
        """Whether everyone has heard each of these, and each of these another one afterwards."""
        senders = actors or self._able()[:1]
        asked = [one for one in map(self._put, senders) if one is not None]
        heard = self._until_heard(
            asked, [(one, other) for one in asked for other in self._others(one.connection)]
        )
        if not heard or not asked or len(asked) < len(senders):
            return False
        others = [one for one in self._able() if one not in senders]
        # One is enough, or two where only those who acted can: they hear each other.
        back = [one for one in map(self._put, others[:1] or self._able()[:2]) if one is not None]
        pairs = [(one, other) for one in back[:1] for other in senders if other is not one.connection] + [
            (one, back[0].connection) for one in back[1:]
        ]
        return self._until_heard(back, pairs) and {other for _, other in pairs}.issuperset(senders)

    def _able(self) -> list[Connection]:
        return [one for one in self._connections() if self._can_be_asked(one)]

    def _until_heard(self, asked: Iterable[Asked], pairs: Sequence[Pair]) -> bool:
        """Whether all of these come to have heard what was sent, and those who sent it to be answered where they always
        are."""
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
            self._hearing.learn(one.sent.client, other.name, False)
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
        """How long to wait for these, if at all: for clients that have heard this one before as long as an operation can take,
        and for unknown ones until nothing comes. Where a line can be refused, one that no client has heard
        is waited for in the same way."""
        known = {self._hearing.hears(one.sent.client, other.name) for one, other in missing if _is_open(one)}
        if self._fence.refusals:
            unheard = [one for one in asked if _is_open(one) and not one.sent.heard_by]
            known |= {one.sent.client in self._hearing.refused or None for one in unheard}
        return limit if True in known else quiet if None in known else None

    def _look_for_refusal(self, asked: Asked, where: Callable[[Asked], Place | None]) -> None:
        if self._fence.refusals and asked.sent.answer is None:
            found = where(asked)
            if found is not None:
                asked.sent.answer = self._removed(asked.connection, found)
                self._hearing.refused.add(asked.sent.client)

    def _activity(self) -> object:
        return self._quiet.state(), self._hearing.count


def _is_open(asked: Asked) -> bool:
    """Whether this line can still have an effect: it was not refused, and its sender has not ended."""
    return asked.sent.answer is None and asked.connection.end is End.OPEN
