"""Generate conversations from a model of the protocol, play them, and shorten the first in which the server differs.

- A model is pure Python: it offers the next moves of a client, and says what every client then receives. It never sees the
  server.
- A conversation is the list of choices that the model made with its seed. Replayed in another state of the model, a choice
  that is no longer offered becomes the first option. Every part of a conversation is therefore a conversation, and
  shortening only removes moves and replaces choices by first options.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Protocol, TypeVar

from harness.language.forms import header_line
from harness.language.parser import parse
from harness.language.renderer import render
from harness.language.steps import Script, Step, Title
from harness.model import ModelError, model_code
from harness.playing.pipeline import PlayOptions, play
from harness.playing.verdict import Outcome, Verdict
from harness.report.styled_text import plain
from harness.report.text import headline, report
from harness.stage.target import Target
from harness.targets.choice import UsageError

MOVES = 30
"""The number of moves in a conversation."""
TRIES = 400
"""The number of shorter conversations that are tried at most."""

_TITLE = "the server does what its model says"

Option = TypeVar("Option")


# --- models -------------------------------------------------------------------------------------------------


class Pick(Protocol):
    """Chooses one of the options; the first should be the simplest, because shortening prefers it."""

    def __call__(self, options: Sequence[Option], /) -> Option: ...


class Model(Protocol):
    """One conversation; a new model is made for each."""

    @property
    def header(self) -> Mapping[str, str]:
        """The header of the script, such as `{"server": "line idle=60"}`."""
        ...

    def move(self, pick: Pick, /) -> Iterable[Step]:
        """The next actions of one client, followed by everything received because of them; empty at the end."""
        ...


MakeModel = Callable[[], Model]

_Choices = tuple[Any, ...]
"""The choices of one move, in order."""
_FIRST: Any = object()
"""Stands for the first option, whatever it is."""


class _DrawnPick:
    """Picks at random and records the choices."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.choices: list[Any] = []

    def __call__(self, options: Sequence[Option], /) -> Option:
        picked = self._random.choice(options)
        self.choices.append(picked)
        return picked


class _RecordedPick:
    """Repeats recorded choices."""

    def __init__(self, choices: _Choices) -> None:
        self._left = list(reversed(choices))

    def __call__(self, options: Sequence[Option], /) -> Option:
        choice = self._left.pop() if self._left else _FIRST
        return choice if choice is not _FIRST and choice in options else options[0]


def _draw(make_model: MakeModel, seed: int, moves: int) -> list[_Choices]:
    with model_code:
        model = make_model()
    random, out = Random(seed), list[_Choices]()
    for _ in range(moves):
        pick = _DrawnPick(random)
        with model_code:
            steps = list(model.move(pick))
        if not steps and not pick.choices:
            break
        out.append(tuple(pick.choices))
    return out


def _replay(make_model: MakeModel, moves: Sequence[_Choices], file: str) -> Script:
    with model_code:
        model = make_model()
        steps = [step for choices in moves for step in model.move(_RecordedPick(choices))]
    return _script_of(model, steps, _TITLE, file)


def _script_of(model: Model, steps: Sequence[Step], title: str, file: str) -> Script:
    """The steps as a script, parsed so that they have lines for a report."""
    with model_code:
        settings = [f"{key}: {value}" for key, value in model.header.items()]
    for step in steps:
        if not isinstance(step, Step):
            raise ModelError(f"`move` of the model yielded {step!r}, which is not a step")
    header = (Title(title), *(header_line(setting, 0) for setting in settings))
    return parse(render(Script(header, tuple(steps))), file)


# --- generating ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Generation:
    """The result of many conversations."""

    conversations: int
    seed: int = 0
    """The seed of the conversation in which server and model differ."""
    difference: Verdict | None = None
    """How the shortest conversation that still differs fails."""
    again: Outcome = Outcome.FAILED
    """The outcome of the shortest conversation when it was played once more. If it does not differ again, its own moves are not
    all that decides, such as with a server whose state survives plays, and `difference` is that of the whole conversation."""

    @property
    def outcome(self) -> Outcome:
        return Outcome.PASSED if self.difference is None else self.difference.outcome


def conversation(
    make_model: MakeModel, seed: int, moves: int = MOVES, file: str = "conversation.chat"
) -> Script:
    """The conversation of this seed."""
    return _replay(make_model, _draw(make_model, seed, moves), file)


def generate(
    make_model: MakeModel,
    target: Target,
    seeds: Iterable[int],
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
    *,
    moves: int = MOVES,
    file: str = "conversation.chat",
) -> Generation:
    """Play the conversation of each seed, until server and model differ."""
    played = 0
    for played, seed in enumerate(seeds, 1):
        verdict = play_seed(
            seed, target, make_model=make_model, play_options=play_options, moves=moves, file=file
        )
        if verdict.outcome is Outcome.FAILED:
            verdict, again = shortened(
                make_model, target, seed, verdict, play_options, moves=moves, file=file
            )
            return Generation(played, seed, verdict, again)
        if not verdict.passed:
            return Generation(played, seed, verdict)
    return Generation(played)


def play_seed(
    seed: int, target: Target, *, make_model: MakeModel, play_options: PlayOptions, moves: int, file: str
) -> Verdict:
    """The verdict on the conversation of this seed."""
    return play(conversation(make_model, seed, moves, file), target, play_options)


def shortened(
    make_model: MakeModel,
    target: Target,
    seed: int,
    verdict: Verdict,
    play_options: PlayOptions,
    *,
    moves: int,
    file: str,
) -> tuple[Verdict, Outcome]:
    """The verdict on the shortest conversation that still differs, found from a longer one, and its outcome when it is played
    once more. If it does not differ again, the verdict is that on the longer one."""
    drawn = _draw(make_model, seed, moves)
    shortening = _Shortening(make_model, target, play_options, file, drawn, verdict)
    shortening.run()
    again = play(shortening.verdict.script, target, play_options).outcome
    return shortening.verdict if again is Outcome.FAILED else verdict, again


class _Shortening:
    """Removes moves, then simplifies choices, as long as server and model differ."""

    def __init__(
        self,
        make_model: MakeModel,
        target: Target,
        play_options: PlayOptions,
        file: str,
        moves: list[_Choices],
        verdict: Verdict,
    ) -> None:
        self._make_model = make_model
        self._target = target
        self._play_options = play_options
        self._file = file
        self._moves = moves
        self._left = TRIES
        self.verdict = verdict

    def run(self) -> None:
        """Shorten until nothing more can be removed."""
        self._cut_the_end()
        while True:
            before = self._moves
            self._remove_moves()
            self._simplify_choices()
            if self._moves == before:
                return

    def _try(self, moves: list[_Choices]) -> bool:
        if not moves or moves == self._moves or self._left <= 0:
            return False
        self._left -= 1
        verdict = play(_replay(self._make_model, moves, self._file), self._target, self._play_options)
        if verdict.outcome is not Outcome.FAILED:
            return False
        self._moves, self.verdict = moves, verdict
        return True

    def _cut_the_end(self) -> None:
        """Find the shortest beginning by bisection: nothing after the difference is needed."""
        low, high = 0, len(self._moves)
        while high - low > 1:
            middle = (low + high) // 2
            if self._try(self._moves[:middle]):
                high = middle
            else:
                low = middle

    def _remove_moves(self) -> None:
        size = max(1, len(self._moves) // 2)
        while True:
            end = len(self._moves)
            while end > 0:
                self._try(self._moves[: max(0, end - size)] + self._moves[end:])
                end = min(end - size, len(self._moves))
            if size == 1:
                return
            size //= 2

    def _simplify_choices(self) -> None:
        for at in reversed(range(len(self._moves))):
            for number in range(len(self._moves[at])):
                choices = self._moves[at]
                if choices[number] is not _FIRST:
                    simpler = (*choices[:number], _FIRST, *choices[number + 1 :])
                    self._try([*self._moves[:at], simpler, *self._moves[at + 1 :]])


# --- as a file ----------------------------------------------------------------------------------------------


def difference_script(difference: Verdict) -> str:
    """The conversation, which expects what the model says, as the text of a file; its title tells what the server did."""
    text = f"unlike its model, {headline(difference.failures[0])}"
    title = "".join(char if char.isprintable() else "\ufffd" for char in text).strip()
    script = difference.script
    header = tuple(replace(item, text=title) if isinstance(item, Title) else item for item in script.header)
    return render(replace(script, header=header))


def free_path(folder: Path, stem: str) -> Path:
    """A path in this folder that does not exist yet."""
    return next(path for path in _paths(folder, stem) if not os.path.lexists(path))


def write_new(folder: Path, stem: str, text: str) -> Path:
    """Write a file that does not exist yet, and return its path. Another run can have taken `free_path` meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = _paths(folder, stem)
    while True:
        path = next(paths)
        with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
            file.write(text)
            return path


def _paths(folder: Path, stem: str) -> Iterator[Path]:
    yield folder / f"{stem}.chat"
    yield from (folder / f"{stem}-{number}.chat" for number in itertools.count(2))


# --- for hypothesis -----------------------------------------------------------------------------------------


class ServerDiffers(AssertionError):
    """The server does not do what the model says."""


def state_machine(
    make_model: MakeModel,
    target: Target,
    play_options: PlayOptions = PlayOptions(),  # noqa: B008  # frozen
) -> Any:
    """The model as a hypothesis state machine, for test suites that use its database, settings and statistics."""
    try:
        from hypothesis import stateful, strategies
    except ImportError as missing:
        raise UsageError("a state machine needs hypothesis: pip install hypothesis") from missing

    class Conversation(stateful.RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.model = make_model()
            self.steps: list[Step] = []

        @stateful.rule(data=strategies.data())
        def move(self, data: strategies.DataObject) -> None:
            def pick(options: Sequence[Option], /) -> Option:
                return data.draw(strategies.sampled_from(options))

            self.steps.extend(self.model.move(pick))

        def teardown(self) -> None:
            # hypothesis can stop a conversation in the middle of a move, by an exception.
            if sys.exc_info()[0] is None and self.steps:
                script = _script_of(self.model, self.steps, _TITLE, "conversation.chat")
                verdict = play(script, target, play_options)
                if not verdict.passed:
                    raise ServerDiffers("\n" + plain(report(verdict)))

    return Conversation
