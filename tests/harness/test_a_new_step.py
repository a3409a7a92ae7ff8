"""A kind of step that a part of the language does not know is an error there, and never left out without a word."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.language import validation
from harness.language.expansion import Expansion, Located, expand
from harness.language.patterns import Pattern, parse_pattern
from harness.language.steps import ActionStep, Call, Define, ExpectationStep, Script
from harness.language.validation import received_in, validate


@dataclass(frozen=True, slots=True)
class Whistles:
    """A new step, with the attributes in which a parameter can stand."""

    client: str
    endpoint: str
    pattern: Pattern
    line: int = field(default=0, compare=False)


STEP: Any = Whistles("a", "line", Pattern(("tune",)))
EXPANSION = Expansion(Script(), (Located(STEP, Script()),))


def test_a_step_that_is_neither_an_action_nor_an_expectation_is_not_left_out():
    with pytest.raises(AssertionError, match="unhandled case: Whistles"):
        validate(EXPANSION)


@pytest.mark.parametrize(
    ("name", "union"), [("ActionStep", ActionStep), ("ExpectationStep", ExpectationStep)]
)
def test_a_step_that_is_added_to_a_union_alone_is_not_left_unchecked(
    name: str, union: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(validation, name, union | Whistles)
    with pytest.raises(AssertionError, match="unhandled case: Whistles"):
        validate(EXPANSION)


def test_what_a_new_expectation_receives_is_not_taken_for_nothing():
    with pytest.raises(AssertionError, match="unhandled case: Whistles"):
        list(received_in(STEP))


def test_a_new_step_in_a_definition_gets_the_values_of_the_parameters():
    step: Any = Whistles("WHO", "WHERE", parse_pattern("${WHAT} tune"))
    define = Define(("WHO", "whistles", "at", "WHERE", "a", "WHAT"), (step,))
    [located] = expand(Script(body=(define, Call("bob whistles at json a slow")))).steps
    assert located.step == Whistles("bob", "json", Pattern(("slow tune",)))
