"""What a model of a protocol is: pure Python that says what may be done next and who hears what over it.

A model knows no sockets and is asked nothing about bytes that a server sent: it says beforehand what will be heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from harness.language.steps import Step

Option = TypeVar("Option")


class Pick(Protocol):
    """Chooses. What stands first among the options is what a shortened conversation ends up with."""

    def __call__(self, options: Sequence[Option], /) -> Option: ...


class Model(Protocol):
    """One conversation as it goes on; made anew for each."""

    @property
    def header(self) -> Mapping[str, str]:
        """What the script asks for, as in the header of a transcript: `{"server": "line idle=60"}`."""
        ...

    def move(self, pick: Pick, /) -> Iterable[Step]:
        """What somebody does next, and then all that anybody hears over it. No steps: nothing can be done any more."""
        ...


MakeModel = Callable[[], Model]
