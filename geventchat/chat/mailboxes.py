"""Direct messages to people who are away: kept for accounts, from accounts. Pure; reads and writes are jobs.

A message is taken out of its mailbox, and that is kept, before it is delivered: no client receives
it twice, even if the server is killed. A client that leaves in between gets it at the next login.

Invariants of Mailboxes:
- A message that was taken has been delivered, or is in the `mail` of the session that receives it, or has been put back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from geventchat.chat.accounts import Account
from geventchat.chat.events import DirectMessage
from geventchat.chat.names import Name
from geventchat.chat.records import KeptMessage
from geventchat.chat.results import DONE, More, Pending, Result
from geventchat.chat.rooms import GateFactory
from geventchat.chat.sessions import Session
from geventchat.chat.storage import Storage, StorageUnavailable

T = TypeVar("T")

# How many messages are read and delivered before the client has to read them and other greenlets run.
_DELIVERED_AT_ONCE = 10


class InThread(Protocol):
    """Runs something that blocks in a thread, while only the calling greenlet waits."""

    def __call__(self, read: Callable[[], T], /) -> T: ...


class Mailboxes:
    """The mailboxes of all accounts."""

    def __init__(
        self, storage: Storage, in_thread: InThread, people: Mapping[str, Session], new_gate: GateFactory
    ) -> None:
        """`people` holds all people who are logged in, by the key of the name."""
        self._storage = storage
        self._in_thread = in_thread
        self._people = people
        # How many messages are being kept. Each will have been, whatever becomes of this process.
        self.keeping = 0
        # Closed while no further message can be kept, because another process is about to take over.
        self.gate = new_gate(lambda: math.inf if self._held else 0.0)
        self._held = False

    def hold(self, held: bool) -> None:
        """Close the gate for messages to be kept, or open it again."""
        self._held = held
        self.gate.pump()

    def keep(self, to: Account, sender: Account, message: DirectMessage) -> KeptMessage | None:
        """A job: keep a message for an account; None if that is not possible."""
        self.keeping += 1
        try:
            return self._in_thread(partial(self._storage.keep, to.key, sender.key, message))
        except StorageUnavailable:
            return None
        finally:
            self.keeping -= 1

    def forward(self, kept: KeptMessage, sender: Name) -> bool:
        """Deliver what has just been kept, if its recipient has logged in meanwhile and did not find it."""
        recipient = self._people.get(kept.account)
        if recipient is None or recipient.account is None or not self._storage.take([kept]):
            return False
        if not recipient.ignores(sender.shown):
            recipient.subscriber.deliver_direct(kept.message, recipient.is_stranger(sender))
        return True

    def collect(
        self, session: Session, account: Account, go_on: Callable[[], Result[object]], after: int = 0
    ) -> Result[object]:
        """Deliver what waits for this account, which has logged in, a few messages at a time; then go on."""
        if not self._storage.has_mail(account.key):
            return go_on()
        return Pending(partial(self._read, account, after), partial(self._take, session, account, go_on))

    def go_on(self, session: Session, go_on: Callable[[], Result[object]]) -> Result[object]:
        """Deliver what another process has taken for this client, or would have; then go on."""
        account = session.account
        if account is None:
            return go_on()
        if not session.mail:
            return self.collect(session, account, go_on)
        following = partial(self.collect, session, account, go_on, session.mail[-1].number)
        return Pending(self._settle, lambda _: self._deliver(session, following))

    def put_back(self, session: Session) -> None:
        """This client leaves: what it has not received waits for its next login."""
        if session.mail:
            self._storage.put_back(session.mail)
            session.mail = ()

    def _read(self, account: Account, after: int) -> list[KeptMessage]:
        try:
            return self._in_thread(partial(self._storage.mailbox, account.key, after, _DELIVERED_AT_ONCE))
        except StorageUnavailable:
            return []

    def _take(
        self,
        session: Session,
        account: Account,
        go_on: Callable[[], Result[object]],
        messages: list[KeptMessage],
    ) -> Result[object]:
        if session.name is None:
            return DONE
        if not messages:
            return go_on()
        session.mail = self._storage.take(messages)
        following = partial(self.collect, session, account, go_on, messages[-1].number)
        if not session.mail:
            return following()
        return Pending(self._settle, lambda _: self._deliver(session, following))

    def _settle(self) -> None:
        # A storage that cannot write now notes what was taken as soon as it can.
        with suppress(StorageUnavailable):
            self._in_thread(self._storage.settle)

    def _deliver(self, session: Session, following: Callable[[], Result[object]]) -> Result[object]:
        for kept in session.mail:
            # Messages of ignored people are kept, so that their senders notice nothing, and dropped here.
            if session.ignores(kept.message.sender):
                continue
            session.subscriber.deliver(kept.message)
        session.mail = ()
        return More(following)
