"""Where an expectation comes from: `# [000 002] what the document says` above it. Pure; knows no targets.

Such a comment holds for every line below it, up to the next one in the same file; `# []` ends it. To the language it is
a comment like any other, so a suite with tags can be played by whoever knows nothing of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from harness.language.plan import plan
from harness.language.steps import Comment, Include, Script

_TAGS = re.compile(r" ?\[(?P<tags>[\w.-]*(?: [\w.-]+)*)\](?: |$)")


class Tags:
    """The tags of one script and of all that it includes."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._marks = {file: sorted(marks) for file, marks in _by_file(script)}

    def at(self, file: str, line: int) -> tuple[str, ...]:
        """The tags that hold on this line."""
        above = [tags for marked, tags in self._marks.get(file, []) if marked <= line]
        return above[-1] if above else ()

    def all(self) -> tuple[str, ...]:
        """The tags of all that this file itself expects, sorted. What included steps expect on the way, such as the
        answer to a login, does not make a script one about logins."""
        found: set[str] = set()
        for turn in plan(self._script).turns:
            for located in turn.expectations:
                if located.script.file == self._script.file:
                    found.update(self.at(located.script.file, located.line))
        return tuple(sorted(found))


Marks = list[tuple[int, tuple[str, ...]]]


def _by_file(script: Script) -> Iterator[tuple[str, Marks]]:
    yield script.file, list(_marks((*script.header, *script.body)))
    for item in script.body:
        if isinstance(item, Include) and item.script is not None:
            yield from _by_file(item.script)


def _marks(items: tuple[Any, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    for item in items:
        if isinstance(item, Comment):
            found = _TAGS.match(item.text)
            if found:
                yield item.line, tuple(found["tags"].split())
        else:
            yield from _marks(getattr(item, "body", ()))
