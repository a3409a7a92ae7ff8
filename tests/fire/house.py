"""A model of the chat: who is in, and what each must have heard, to the byte. Pure; imports nothing of the server."""

from __future__ import annotations

from tests.fire.wording import WORDINGS, Wording


class Person:
    """One connection, as the model sees it."""

    def __init__(self, dialect: str, now_us: int) -> None:
        self.dialect = dialect
        self.wording: Wording = WORDINGS[dialect]
        self.name = ""
        self.owed = bytearray()
        """What it must have heard and nobody has compared yet."""
        self.last_line_us = now_us

    def hears(self, words: str) -> None:
        """This is owed to it."""
        self.owed += words.encode()


class House:
    """The chat as it should be. `at` is always whole seconds since 1970."""

    def __init__(self) -> None:
        self.present: dict[str, Person] = {}

    @property
    def users(self) -> list[str]:
        """The names, in the order in which they came."""
        return [person.name for person in self.present.values()]

    def enter(self, person: Person, name: str, at: int) -> None:
        """Someone asks to come in."""
        if name.casefold() in self.present:
            person.hears(person.wording.taken())
            return
        self._tell(lambda wording: wording.joined(name, at))
        person.name = name
        self.present[name.casefold()] = person
        person.hears(person.wording.welcome(name, self.users, at))

    def say(self, person: Person, text: str, at: int) -> None:
        """Someone speaks to all."""
        name = person.name
        self._tell(
            lambda wording: wording.said(name, text, at), but=None if person.wording.echoes else person
        )

    def tell(self, person: Person, typed: str, text: str, at: int) -> None:
        """Someone speaks to one."""
        other = self.present.get(typed.casefold())
        if other is None:
            person.hears(person.wording.nobody(typed))
            return
        person.hears(person.wording.relayed(person.name, other.name, typed, text, at))
        other.hears(other.wording.told(person.name, other.name, text, at))

    def leave(self, person: Person, at: int) -> None:
        """Someone is gone, however it went."""
        if person.name:
            name, person.name = person.name, ""
            del self.present[name.casefold()]
            self._tell(lambda wording: wording.left(name, at))

    def _tell(self, words: object, but: Person | None = None) -> None:
        assert callable(words)
        by_dialect = {dialect: words(wording) for dialect, wording in WORDINGS.items()}
        for person in self.present.values():
            if person is not but:
                person.hears(by_dialect[person.dialect])
