"""One mutation done to what the clients receive, between their inboxes and the judgement. Knows no scripts."""

from __future__ import annotations

from collections.abc import Mapping

from harness.audit.mutations import Kind, Mutation, lines
from harness.stage.stage import Client


class Tampering:
    """A layer for one play."""

    def __init__(self, mutation: Mutation) -> None:
        self._mutation = mutation
        self._held = b""
        self.applied = False
        """Whether the line that was to be tampered with came at all."""
        self.became: bytes | None = None
        """What the client received in the line's place, where that is one line."""

    def __call__(self, turn: int, clients: Mapping[str, Client]) -> None:
        mutation = self._mutation
        client = clients.get(mutation.client)
        if client is None:
            return
        if self._held:
            client.inbox[:0] = self._held
            self._held = b""
        if turn != mutation.turn:
            return
        pieces = lines(bytes(client.inbox))
        if mutation.index >= len(pieces):
            return
        self.applied = True
        self._tamper(pieces, clients)
        client.inbox[:] = b"".join(pieces)

    def _tamper(self, pieces: list[bytes], clients: Mapping[str, Client]) -> None:
        mutation, at = self._mutation, self._mutation.index
        wire = pieces[at]
        match mutation.kind:
            case Kind.DROPPED:
                del pieces[at]
            case Kind.DOUBLED:
                pieces.insert(at, wire)
            case Kind.ALTERED:
                pieces[at] = self.became = mutation.altered(wire)
            case Kind.SWAPPED:
                pieces[at : at + 2] = reversed(pieces[at : at + 2])
            case Kind.DELAYED:
                self._held = pieces.pop(at)
            case Kind.MISSENT:
                clients[mutation.other].inbox += pieces.pop(at)
            case Kind.LEAKED:
                clients[mutation.other].inbox += wire
