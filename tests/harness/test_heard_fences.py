"""The fence whose lines other clients hear: who sends, who has to hear, what is taken out, and what its grade promises."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness import (
    Command,
    Fence,
    Grade,
    Outcome,
    PlayOptions,
    ScriptError,
    Stage,
    Verdict,
    check,
    parse,
    play,
)
from harness.compare.compare import cause_of
from harness.language.adapter import Adapter, parse_adapter
from harness.playing.verdict import FailureKind
from harness.repeat import Repetition
from harness.report.styled_text import plain
from harness.report.text import report
from harness.stage.connection import Inbox
from harness.stage.fence import FenceLineSent
from harness.stage.heard_fence import DeliveryTracker
from harness.stage.rules import TakenLine
from harness.stage.translation import Translation
from tests.harness.zoo import ZooServer

ZOO = Path(__file__).parent / "zoo"
HUB = Path(__file__).parent / "servers" / "hub.py"
FENCE = "MSG ${token} heard as MSG ${_} ${token}"
HEADER = f"fence: {FENCE}\nsettle: 300ms\n"


def room(*options: str) -> Command:
    """A server with rooms, `LOGIN NAME@ROOM`. `deliver=MS` delays messages, `echo=MS` sends them to their sender as well."""
    words = [sys.executable, "-S", "-m", "servers.threads", "{port}", *options]
    return Command(words, environment={"PYTHONPATH": str(ZOO)})


def hub(*options: str) -> Command:
    return Command([sys.executable, "-S", str(HUB), "{port}", *options])


def logins(*names: str) -> str:
    return "".join(f"{name}> LOGIN {name}@r\n{name}< OK\n\n" for name in names)


def played(
    steps: str,
    *options: str,
    header: str = HEADER,
    target: Command | None = None,
    adapter: Adapter | None = None,
) -> tuple[Verdict, str]:
    verdict = play(parse(f"{header}\n{steps}"), target or room(*options), PlayOptions(adapter=adapter))
    return verdict, plain(report(verdict))


LOGINS = "ann> LOGIN ann\nann< OK\n\nbob> LOGIN bob\nbob< OK\n\n"


def sent_in(verdict: Verdict, turn: int) -> list[FenceLineSent]:
    return list(verdict.turns[turn - 1].fence_lines)


# --- how it is written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        FENCE,
        f"{FENCE} -> OK | ERR must-login-first",
        f"{FENCE} | ERR must-login-first | ERR no",
        "PRIVMSG #c :${token} heard as :${_} PRIVMSG #c :${token}",
    ],
)
def test_a_line_that_others_hear_reads_back_as_it_was_written(text: str) -> None:
    fence = Fence.parse(text)
    assert str(fence) == text
    assert Fence(fence.question, fence.answers, fence.heard, fence.refusals) == fence


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("MSG heard as MSG ${_}", r"known by its \$\{token\}"),
        ("MSG ${token} heard as MSG ${_}", r"known by its \$\{token\}"),
        ("MSG heard as MSG ${_} ${token}", r"known by its \$\{token\}"),
        ("MSG ${token} heard as ${token}\\r\\n.", "what others hear is one line"),
        (f"{FENCE} -> ", "white space at the end"),
        (f"{FENCE} | a |  b", "a line without its answer"),
        ("MSG ${token} heard as  -> b", "a line without what others hear"),
        (f"{FENCE} | ERR ${{_}}", "would also match this line"),
    ],
)
def test_a_line_that_others_cannot_hear_is_an_error_of_the_script(value: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        check(parse(f"fence: {value}\n\nann> x\nann< ERR x\n"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fence("MSG ${token}", ("OK",), "${token}", ("ERR",)),
        lambda: Fence("MSG ${token}", ("OK",), "", ("ERR",)),
        lambda: Fence("", (), "${token}"),
    ],
)
def test_a_contradictory_fence_is_rejected(make) -> None:
    with pytest.raises(ValueError, match=r"only a line that others hear can be refused|a fence is a line"):
        make()


# --- what it establishes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("deliver", ["", "deliver=30"])
def test_everyone_has_heard_before_a_turn_ends(deliver: str) -> None:
    steps = logins("ann", "bob", "carol") + "ann> MSG one\nbob< MSG ann one\ncarol< MSG ann one\n"
    verdict, text = played(steps, *filter(None, [deliver]))
    assert verdict.passed, text
    assert (verdict.grade, verdict.overtaken) == (Grade.HEARD, None)
    asked, back = sent_in(verdict, 4)
    assert (asked.client, sorted(asked.heard_by or ())) == ("ann", ["bob", "carol"])
    assert back.client == "bob"
    assert "ann" in (back.heard_by or ())


def test_a_message_that_is_late_by_longer_than_quiet_lasts_fails_its_own_turn() -> None:
    steps = logins("ann", "bob") + "ann> MSG one\nbob receives nothing\n\nbob> MSG two\nann< MSG bob two\n"
    verdict, text = played(steps, "deliver=250", header=f"fence: {FENCE}\nsettle: 50ms\n")
    assert verdict.outcome is Outcome.FAILED, text
    failure = verdict.failures[0]
    assert (failure.kind, failure.client, failure.received) == (FailureKind.EXTRA, "bob", b"MSG ann one\n")


def test_a_server_that_is_later_than_quiet_lasts_is_waited_for_once_that_is_known() -> None:
    steps = logins("ann", "bob") + "ann> MSG one\nbob< MSG ann one\n"
    verdict, text = played(steps, "deliver=900", header=f"fence: {FENCE}\nsettle: 600ms\n")
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text
    given_up, again, back = sent_in(verdict, 2)
    assert (given_up.client, given_up.unheard_by, given_up.heard_by) == ("bob", ("ann",), ["ann"])
    assert (again.client, again.unheard_by, back.client) == ("bob", (), "ann")


def test_a_line_a_turn_late_is_noticed_where_an_answered_fence_line_misses_it() -> None:
    small_talk = "ann> HELLO\nann< HI\n\n" * 3
    late = "ann> MSG one\nbob receives nothing\n\nann> HELLO\nwait 300ms\nann< HI\nbob< MSG ann one\n"
    steps = logins("ann", "bob") + small_talk + late
    verdict, text = played(steps, "deliver=100")
    assert verdict.outcome is Outcome.FAILED, text
    assert verdict.failures[0].kind is FailureKind.EXTRA
    verdict, text = played(steps, "deliver=100", header="fence: PING -> PONG\nsettle: 300ms\n")
    assert verdict.passed, text


def test_what_goes_another_way_is_noticed_after_the_fence() -> None:
    steps = logins("ann", "bob") + "ann> MSG one\nbob< MSG ann one\n"
    # Later than a busy machine keeps the clients from hearing the fence line.
    verdict, text = played(steps, "dup=500", header=HEADER.replace("300ms", "1s"))
    assert verdict.outcome is Outcome.FAILED, text
    assert verdict.grade is Grade.SETTLED
    assert "hint  lines came after the other clients had heard the fence line, so not everything goes" in text


def test_in_this_process_no_fence_line_is_sent() -> None:
    target = ZooServer("tasks", in_process=True).target("")
    verdict = play(parse(f"{HEADER}\n{logins('ann', 'bob')}"), target)
    assert (verdict.passed, verdict.grade) == (True, Grade.EXACT)
    assert not any(turn.fence_lines for turn in verdict.turns)


# --- senders and listeners ------------------------------------------------------------------------------------


def test_the_only_client_waits_for_quiet_and_lowers_no_grade() -> None:
    verdict, text = played(logins("ann"))
    assert (verdict.passed, verdict.grade) == (True, Grade.SETTLED), text
    assert sent_in(verdict, 1) == []
    assert "(settled: there was no other client to hear the fence line, so the harness waited" in text
    verdict, text = played(logins("ann", "bob"))
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text


def test_the_only_client_is_asked_where_it_is_always_answered() -> None:
    header = f"fence: {FENCE} -> OK\nsettle: 300ms\n"
    alone = "ann> LOGIN ann\nann< OK\n\n"
    verdict, text = played(alone, header=header, target=hub("echoes"))
    assert (verdict.passed, verdict.grade) == (True, Grade.ANSWERED), text
    both = f"{alone}bob> LOGIN bob\nbob< OK\n\nann> MSG hi\nann< OK\nbob< MSG ann hi\n"
    verdict, text = played(both, header=header, target=hub("echoes"))
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text


def test_a_line_that_is_not_answered_as_declared_fails() -> None:
    # An answer that looks like what is expected could be taken for it.
    header = f"fence: {FENCE} -> SENT\nwithin: 2s\n"
    verdict, text = played("ann> LOGIN ann\nann< OK\n", header=header, target=hub())
    assert verdict.failures[0].kind is FailureKind.UNANSWERED, text
    assert "did not answer the fence line `MSG ${token}` (line 1) with `SENT`" in text


def test_two_clients_that_act_at_once_hear_each_other() -> None:
    steps = (
        logins("ann", "bob")
        + "together:\n    ann> MSG one\n    bob> MSG two\nann< MSG bob two\nbob< MSG ann one\n"
    )
    verdict, text = played(steps, "deliver=20")
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text
    assert [one.client for one in sent_in(verdict, 3)] == ["ann", "bob", "ann", "bob"]


def test_a_turn_without_actions_is_fenced_by_two_clients() -> None:
    verdict, text = played(logins("ann", "bob") + "wait 10ms\nann receives nothing\n")
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text
    assert [one.client for one in sent_in(verdict, 3)] == ["ann", "bob"]


def test_consecutive_sends_of_two_clients_are_handled_in_order() -> None:
    steps = logins("ann", "bob", "carol") + (
        "ann> MSG one\nbob> MSG two\nann< MSG bob two\nbob< MSG ann one\ncarol< MSG ann one\ncarol< MSG bob two\n"
    )
    verdict, text = played(steps, "deliver=20")
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text


def test_a_client_in_another_room_hears_nothing_and_the_harness_waits_for_quiet() -> None:
    steps = logins("ann", "bob") + "dan> LOGIN dan@other\ndan< OK\n\nann> MSG one\nbob< MSG ann one\n"
    verdict, text = played(steps)
    assert (verdict.passed, verdict.grade) == (True, Grade.SETTLED), text
    assert (
        "(settled: ann and bob did not hear the fence line of dan, so the harness waited for quiet)" in text
    )
    assert sent_in(verdict, 4)[0].unheard_by == ("dan",)


def test_a_client_that_has_not_logged_in_is_refused_or_not_asked() -> None:
    steps = logins("ann", "bob") + "carol> JOIN r\ncarol receives nothing\n\nann> MSG one\nbob< MSG ann one\n"
    refused = f"fence: {FENCE} | ERR must-login-first\nsettle: 100ms\n"
    verdict, text = played(steps, header=refused)
    assert (verdict.passed, verdict.grade) == (True, Grade.SETTLED), text
    assert sent_in(verdict, 3)[0].answer == b"ERR must-login-first\n"
    verdict, text = played(steps, header=f"{HEADER}fence-after: LOGIN\n")
    assert (verdict.passed, verdict.grade) == (True, Grade.SETTLED), text
    assert {one.client for turn in verdict.turns for one in turn.fence_lines} == {"ann", "bob"}


def test_a_refusal_that_the_script_expects_as_well_is_counted_in_order() -> None:
    header = f"fence: {FENCE} | ERR must-login-first\nsettle: 100ms\n"
    steps = logins("ann") + "bob> MSG x\nbob< ERR must-login-first\n\nbob> LOGIN bob@r\nbob< OK\n"
    for _ in range(3):
        verdict, text = played(steps, header=header)
        assert verdict.passed, text


def test_each_refusal_is_waited_for() -> None:
    header = f"fence: {FENCE} | ERR must-login-first\nsettle: 100ms\n"
    steps = logins("ann") + "bob> MSG x\nbob< ERR must-login-first\nann receives nothing\n\n" * 3
    verdict, text = played(steps, "batch=30", header=header)
    assert (verdict.passed, verdict.grade) == (True, Grade.SETTLED), text
    # Refused before, so the fence waits for the next refusals as long as an operation can take.
    verdict, text = played(steps, "batch=150", header=header)
    assert (verdict.passed, verdict.grade) == (True, Grade.SETTLED), text


def test_a_client_that_comes_into_the_room_later_is_heard_from_then_on() -> None:
    steps = logins("ann") + "bob> JOIN lobby\nbob receives nothing\n\nbob> LOGIN bob@r\nbob< OK\n\n"
    header = f"fence: {FENCE} | ERR must-login-first\nsettle: 100ms\n"
    verdict, text = played(steps + "ann> MSG one\nbob< MSG ann one\n", "deliver=20", header=header)
    assert (verdict.passed, verdict.grade) == (True, Grade.SETTLED), text
    assert [one.unheard_by for one in sent_in(verdict, 4)] == [(), ()]


def test_a_client_that_is_heard_no_more_is_waited_for_once() -> None:
    steps = logins("ann", "bob") + "bob> JOIN other\nann receives nothing\n\nbob> HELLO\nbob< HI\n"
    verdict, text = played(steps, header=f"{HEADER}within: 400ms\n")
    assert (verdict.passed, verdict.grade) == (True, Grade.SETTLED), text
    assert [one.unheard_by for one in sent_in(verdict, 3)] == [("ann",)]
    waited = verdict.turns[2].now_s - verdict.turns[1].now_s
    assert waited >= 0.4 + 0.3


def test_a_client_that_cannot_send_can_still_hear() -> None:
    steps = logins("ann", "bob", "carol") + "ann> MSG one\nbob< MSG ann one\ncarol< MSG ann one\n"
    verdict, text = played(steps, header=f"{HEADER}unfenced: carol\n")
    assert verdict.passed, text
    assert "carol" in (sent_in(verdict, 4)[0].heard_by or ())
    assert all(one.client != "carol" for turn in verdict.turns for one in turn.fence_lines)


FAREWELL = "".join(f"{name}< MSG ann bye\n{name}< INFO ann left\n" for name in ("bob", "carol"))


@pytest.mark.parametrize(
    "steps",
    [
        "ann half-closes\nann is closed\nbob< INFO ann left\ncarol< INFO ann left\n",
        "ann closes\nbob< INFO ann left\ncarol< INFO ann left\n",
        "ann>> MSG o\nbob receives nothing\n\nann>> ne\\n\nbob< MSG ann one\ncarol< MSG ann one\n",
        "ann stops reading\nbob> MSG one\ncarol< MSG bob one\n\nann reads again\nann< MSG bob one\n",
        f"ann>> MSG bye\\nQUIT\\n\nann< Goodbye!\nann is closed\n{FAREWELL}",
        "ann closes\nann connects\nann> LOGIN ann@r\nann< OK\nbob< INFO ann left\ncarol< INFO ann left\n",
    ],
)
def test_where_a_client_cannot_send_the_harness_waits_for_quiet(steps: str) -> None:
    verdict, text = played(logins("ann", "bob", "carol") + steps, "deliver=20")
    assert (verdict.passed, verdict.grade) == (True, Grade.SETTLED), text


# --- what is taken out ----------------------------------------------------------------------------------------


def test_a_sender_that_hears_itself_hears_no_fence_line() -> None:
    steps = logins("ann", "bob") + "ann> MSG one\nann< MSG ann one\nbob< MSG ann one\n"
    verdict, text = played(steps, "echo=0")
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text
    echoed = f"{HEADER}".replace(FENCE, f"{FENCE} -> MSG ${{_}} ${{token}}")
    verdict, text = played(steps, "echo=20", header=echoed)
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text
    verdict, text = played("ann> LOGIN ann@r\nann< OK\n", "echo=20", header=echoed)
    assert (verdict.passed, verdict.grade) == (True, Grade.ANSWERED), text


def test_copies_of_fence_lines_are_taken_out_whenever_they_come() -> None:
    steps = logins("ann", "bob") + "wait 200ms\nbob receives nothing\n"
    verdict, text = played(steps, "dup=50")
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text


def test_no_rule_takes_a_fence_line_and_no_client_replies_to_one() -> None:
    steps = logins("ann", "bob") + "ann> MSG one\nbob receives nothing\n"
    verdict, text = played(steps, header=f"{HEADER}ignore bob: MSG ${{_}}\nreply ann: MSG ${{_}} -> HELLO\n")
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text
    assert [one.data for turn in verdict.turns for one in turn.taken] == [b"MSG ann one\n"]


def test_bytes_without_a_line_end_before_a_fence_line_are_received_even_if_they_look_like_one() -> None:
    options = f"raw={b'MSG ann secret'.hex()}"
    steps = LOGINS + "bob> WAVE\n"
    verdict, text = played(f"{steps}bob<< MSG ann secret\n", target=hub(options))
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text
    verdict, text = played(f"{steps}bob receives nothing\n", target=hub(options))
    assert [one.received for one in verdict.failures] == [b"MSG ann secret"], text


def test_a_message_that_looks_like_a_fence_line_is_a_message() -> None:
    steps = logins("ann", "bob") + "ann> MSG f1\nbob< MSG ann f1\n"
    verdict, text = played(steps)
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text


@pytest.mark.parametrize("answer", ["PING -> PONG", "PING ${token} -> PONG ${token}"])
def test_an_answer_can_be_a_line_that_an_adapter_spells(answer: str) -> None:
    adapter = parse_adapter(
        f"fence: {answer}\nfence-after: LOGIN\nsends: ping${{x}} => PING${{x}}\nsends: ping => PING\n"
        "receives: PONG ${x} => pong \\n ${x}\nreceives: PONG => pong\n"
    )
    for asked, said in (("ping", "pong"), ("ping me", "pong \\n me")):
        steps = logins("ann", "bob") + f"ann> {asked}\nann< {said}\nbob> ping\nbob< pong\n"
        verdict, text = played(steps, "", adapter=adapter)
        assert (verdict.passed, verdict.grade) == (True, Grade.ANSWERED), text
        assert text.strip() == "passed <script>, 4 lines respelled"
        assert not played(steps.replace(f"< {said}", "< pang"), header="within: 500ms\n", adapter=adapter)[
            0
        ].passed


def test_an_answer_that_no_adapter_spells_stays_as_it_is_written() -> None:
    fence = parse_adapter("fence: PING -> PONG\\x21 | NO\nreceives: NO => \\x21\n").fence
    assert fence is not None
    assert fence.replies == ("PONG\\x21", "\\\\x21")


def test_what_is_sent_in_pieces_is_not_put_in_other_words() -> None:
    adapter = parse_adapter("sends: ping => PING\nreceives: PONG => pong\n")
    steps = "ann> ping\nann< pong\nann>> pi\nann>> ng\\n\nann< pong\n"
    _, text = played(steps, header="within: 500ms\nsettle: 20ms\n", adapter=adapter)
    hint = "hint  what `>>` sends is sent as it is: an adapter puts whole lines in other words"
    assert hint in text
    adapter = parse_adapter("receives: PONG => pong\n")
    _, text = played(
        steps.replace("> ping", "> PING"), header="within: 500ms\nsettle: 20ms\n", adapter=adapter
    )
    assert hint not in text


def test_an_adapter_sees_no_fence_line() -> None:
    adapter = parse_adapter(
        f"fence: {FENCE}\nfence-after: LOGIN\nsends: SAY ${{text}} => MSG ${{text}}\n"
        "receives: MSG ${who} ${text} => <${who}> ${text}\n"
    )
    steps = logins("ann", "bob") + "ann> SAY one\nbob< <ann> one\n"
    verdict, text = played(steps, header="settle: 300ms\n", adapter=adapter)
    assert (verdict.passed, verdict.grade) == (True, Grade.HEARD), text


HEARD_FENCE = Fence.parse(FENCE)
TWO_WORDS = "MSG #r ann"


@pytest.mark.parametrize(
    ("heard", "lines", "left"),
    [
        ("MSG ${_} ${token}", ["MSG joinedMSG ann {}"], b"MSG joined"),
        ("MSG ${_} ${token}", [f"{TWO_WORDS} {{}}", f"MSG xMSG y{TWO_WORDS} {{}}"], b"MSG xMSG y"),
        (":${_} PRIVMSG #c :${token}", [":ann!a@::1 PRIVMSG #c :{}"], b""),
        (":${_} PRIVMSG #c :${token}", [":ann!a@::1 PRIVMSG #c :{}", ":x:ann!a@::1 PRIVMSG #c :{}"], b":x"),
        ("[${_} ${token}", ["[9:59] [r] <ann>: {}", "[10:00] [r] <ann>: {}"], b""),
        ("[${_}] <${_}> ${token}", ["[1] <bob> hi[2] <ann> {}"], b"[1] <bob> hi"),
        ("${_}: ${token}", ["9: ann: {}", "10: ann: {}"], b""),
        ("MSG ${token} by ${_}", ["MSG MSG {} by ann"], b"MSG "),
        ("${token} of ${_} is ${token}", ["x{0} of ann is {0}"], b"x"),
    ],
)
def test_a_fence_line_begins_where_the_lines_of_its_sender_begin(
    heard: str, lines: list[str], left: bytes
) -> None:
    tracker = DeliveryTracker(Fence.parse(f"MSG ${{token}} heard as {heard}"))
    inbox = Inbox(None, tracker.finder_for("bob"))
    for line in lines:
        sent = FenceLineSent("ann", b"", 0.0, token=tracker.new_token())
        tracker.track(sent)
        inbox.receive(line.format(sent.token).encode() + b"\r\n", 0.0)
        assert sent.heard_by == ["bob"]
    assert bytes(inbox) == left


@pytest.fixture
def heard() -> tuple[DeliveryTracker, FenceLineSent]:
    tracker = DeliveryTracker(HEARD_FENCE)
    sent = FenceLineSent("ann", b"", 0.0, token=tracker.new_token())
    tracker.track(sent)
    return tracker, sent


def test_a_fence_line_is_taken_from_an_inbox_as_soon_as_it_is_whole(
    heard: tuple[DeliveryTracker, FenceLineSent],
) -> None:
    tracker, sent = heard
    inbox = Inbox(None, tracker.finder_for("bob"))
    inbox.receive(b"one\nMSG ann " + sent.token.encode(), 1.0)
    assert (sent.heard_by, inbox.count(b"\n")) == ([], 1)
    tracker.refused.add("ann")
    inbox.receive(b"\r\ntwo\n", 2.0)
    assert (tracker.count, tracker.refused) == (1, set())
    assert (sent.heard_by, bytes(inbox)) == (["bob"], b"one\ntwo\n")
    assert (inbox.arrived_at(0), inbox.arrived_at(4)) == (1.0, 2.0)
    inbox.receive(b"> MSG ann " + sent.token.encode() + b"\nx\n", 3.0)
    assert (sent.heard_by, bytes(inbox), tracker.count) == (["bob"], b"one\ntwo\n> x\n", 1)


def test_what_is_known_of_a_client_is_forgotten_when_it_connects_again(
    heard: tuple[DeliveryTracker, FenceLineSent],
) -> None:
    tracker, _ = heard
    tracker.learn("ann", "bob", True)
    tracker.learn("bob", "cat", False)
    assert [tracker.reaches(*pair) for pair in (("ann", "bob"), ("bob", "ann"))] == [True, True]
    assert [tracker.reaches(*pair) for pair in (("bob", "cat"), ("cat", "bob"))] == [False, None]
    tracker.refused |= {"ann", "bob"}
    tracker.forget("ann")
    assert (tracker.reaches("ann", "bob"), tracker.reaches("bob", "cat")) == (None, False)
    assert tracker.refused == {"bob"}


def test_a_place_in_an_inbox_moves_with_what_is_taken_out_before_it(
    heard: tuple[DeliveryTracker, FenceLineSent],
) -> None:
    tracker, sent = heard
    inbox = Inbox(None, tracker.finder_for("bob"))
    inbox.receive(b"one\nMSG ann ", 1.0)
    mark = inbox.mark()
    inbox.receive(sent.token.encode() + b"\nOK\n", 2.0)
    assert (bytes(inbox), mark.at) == (b"one\nOK\n", 4)
    inbox.discard(4, 3)
    assert mark.at == 4


@pytest.mark.parametrize(
    "line", ["MSG ann {}0", "MSG ann x{}", "MSG ann {} ", "INFO {}", "MSG ann {stem}9999"]
)
def test_another_line_is_not_taken(heard: tuple[DeliveryTracker, FenceLineSent], line: str) -> None:
    tracker, sent = heard
    data = line.format(sent.token, stem=sent.token[:-1]).encode() + b"\n"
    inbox = Inbox(None, tracker.finder_for("bob"))
    inbox.receive(data, 1.0)
    assert (bytes(inbox), sent.heard_by) == (data, [])


def test_a_fence_line_is_taken_out_before_it_is_translated(
    heard: tuple[DeliveryTracker, FenceLineSent],
) -> None:
    tracker, sent = heard
    adapter, taken = parse_adapter("receives: ${x} => <${x}>\n"), list[TakenLine]()
    translation = Translation(adapter, b"\n", "bob", taken.append, tracker.finder_for("bob"))
    token = sent.token.encode()
    assert translation.incoming(b"one\nMSG ann " + token[:4], 0.0) == b"<one>\n"
    assert translation.incoming(token[4:] + b"\n*MSG ann " + token + b"\ntwo\n", 0.0) == b"<*two>\n"
    assert sent.heard_by == ["bob"]
    assert [one.data for one in taken] == [b"one\n", b"*two\n"]


def test_delivery_is_assumed_to_be_mutual_until_a_line_is_not_heard(
    heard: tuple[DeliveryTracker, FenceLineSent],
) -> None:
    tracker, sent = heard
    assert tracker.reaches("ann", "bob") is None
    assert tracker.finder_for("bob")(f"MSG ann {sent.token}\n".encode()) == 0
    assert (tracker.reaches("ann", "bob"), tracker.reaches("bob", "ann")) == (True, True)
    tracker.learn("bob", "ann", False)
    assert (tracker.reaches("ann", "bob"), tracker.reaches("bob", "ann")) == (True, False)
    tracker.learn("ann", "bob", False)
    tracker.forget("carol")
    assert tracker.reaches("ann", "bob") is False
    tracker.forget("bob")
    assert tracker.reaches("ann", "bob") is None


def test_tokens_of_two_runs_differ() -> None:
    assert DeliveryTracker(HEARD_FENCE).new_token() != DeliveryTracker(HEARD_FENCE).new_token()


def test_a_fence_line_in_other_words_is_the_same_failure_in_each_play() -> None:
    steps = "ann> LOGIN ann\nann< OK\nbob> LOGIN bob\nbob< OK\n"
    repeated, causes = Repetition("s.chat"), set()
    for _ in range(2):
        verdict, text = played(steps, target=hub("shouts"))
        assert verdict.outcome is Outcome.FAILED, text
        repeated.add(verdict)
        causes.add("".join(cause_of(verdict.failures[0], verdict)))
    assert causes == {"heard `< MSG BOB TOKEN`, and nothing was expected"}
    assert [one.count for one in repeated.by_count()] == [2]


# --- conversations in Python ------------------------------------------------------------------------------------


def test_a_conversation_in_python_waits_until_others_have_heard() -> None:
    with Stage(room("deliver=50"), fence=HEARD_FENCE, settle=0.3) as stage:
        ann, bob = stage.clients("ann", "bob")
        for client in (ann, bob):
            client.send(f"LOGIN {client.name}@r")
            client.expect("OK")
        ann.send("MSG one")
        assert bob.take(100) == b"MSG ann one\n"
        stage.settle()
        assert stage.grade is Grade.HEARD
