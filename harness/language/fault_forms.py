"""The sentences of the faults, read and written: `sending to bob takes 1 byte`. What else a line may say is in sentences.

Pure. The subject is the server: what fails, or takes only so much, is a call of its own.
"""

from __future__ import annotations

import errno
import re

from harness.language.forms import parse_duration, render_duration
from harness.language.problems import LineError
from harness.language.steps import NAME, CallFails, CallTakes, ClockJumps, SocketCall

Fault = CallFails | CallTakes | ClockJumps

# These words begin nothing else, but they are no words of the language: a client may be called `the`, and a defined
# step may begin with any of them. So only a sentence that goes on as a fault does is taken for one.
_CALLS = "|".join(call.value for call in SocketCall)
_CALL = re.compile(rf"(?P<call>{_CALLS})(?: (?P<client>\S+))? (?P<how>fails with|takes) (?P<rest>.+)")
_FAILS = re.compile(r"(?P<error>E[A-Z0-9]+)(?: (?P<times>[0-9]+) times)?")
_TAKES = re.compile(r"(?P<most>[0-9]+) bytes?|nothing|all again")
_JUMPS = re.compile(r"the clock jumps (?P<back>back )?(?P<how_far>\S+)")


def read(text: str, number: int) -> Fault | None:
    """The fault of this sentence; None where it is about something else; Wrong where it is only nearly one."""
    jumps = _JUMPS.fullmatch(text)
    if jumps is not None:
        microseconds = parse_duration(jumps["how_far"], jumps.start("how_far"))
        return ClockJumps(-microseconds if jumps["back"] else microseconds, line=number)
    call = _CALL.fullmatch(text)
    if call is None:
        return None
    kind, client = SocketCall(call["call"]), call["client"]
    if kind is SocketCall.ACCEPT and client is not None:
        raise LineError(
            call.start("client"), "accepting is for nobody in particular", "accepting fails with EMFILE"
        )
    if kind is not SocketCall.ACCEPT and (client is None or not NAME.fullmatch(client)):
        at = len(kind.value) + 1
        raise LineError(at, f"{client or 'nobody'!r} is no client", f"{kind.value} bob {call['how']} …")
    at = call.start("rest")
    if call["how"] == "takes":
        return _takes(kind, client, call["rest"], at, number)
    return _fails(kind, client, call["rest"], at, number)


def _fails(kind: SocketCall, client: str | None, rest: str, at: int, number: int) -> CallFails:
    found = _FAILS.fullmatch(rest)
    times = int(found["times"] or 1) if found else 0
    if found is None or found["error"] not in errno.errorcode.values():
        raise LineError(at, f"{rest!r} is no error", "its name, and how often: ECONNRESET, EMFILE 2 times")
    if times < 1:
        raise LineError(at, "failing not even once", "a number from 1")
    return CallFails(kind, client, found["error"], times, line=number)


def _takes(kind: SocketCall, client: str | None, rest: str, at: int, number: int) -> CallTakes:
    found = _TAKES.fullmatch(rest)
    if found is None or client is None:
        raise LineError(at, f"{rest!r} is no amount", "1 byte, 20 bytes, nothing, or all again")
    most = None if rest == "all again" else int(found["most"] or 0)
    return CallTakes(kind, client, most, line=number)


def render(fault: Fault) -> str:
    """The sentence."""
    match fault:
        case CallFails(call, client, error, times):
            who = f" {client}" if client is not None else ""
            return f"{call.value}{who} fails with {error}" + (f" {times} times" if times > 1 else "")
        case CallTakes(call, client, most):
            return f"{call.value} {client} takes {_amount(most)}"
        case ClockJumps(microseconds):
            back = "back " if microseconds < 0 else ""
            return f"the clock jumps {back}{render_duration(abs(microseconds))}"


def _amount(most: int | None) -> str:
    if most is None:
        return "all again"
    return "nothing" if most == 0 else f"{most} byte{'' if most == 1 else 's'}"
