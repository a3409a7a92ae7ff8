"""Transcripts under pytest: collected if the ini asks for it, reported as verdicts, and no change for other tests."""

from __future__ import annotations

import argparse
import asyncio
import functools
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

# pytester forgets what its runs in this process import, unless it was imported before.
import harness.targets.choice
import harness.update  # noqa: F401
import tests.harness.servers.talk
from harness import Address, AsyncStage, Command, End, Grade, Stage, TargetError, Unexpected
from harness.options import OPTIONS, add_options, from_pytest

GOOD = "title: a login is answered\n\nalice> LOGIN alice\nalice< OK\n"
BAD = "alice> LOGIN alice\nalice< NO\n"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with the talk server as its target."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Other plugins take ten times as long as these runs, so they are loaded only where a test needs them.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini(
        "[pytest]\nharness_files = chats/*.chat\nfilterwarnings = error\naddopts = --strict-markers\n"
    )
    pytester.makeconftest(
        "import pytest\nfrom harness import InProcess\nfrom tests.harness.servers.talk import serve\n"
        "@pytest.fixture\ndef harness_target():\n    return InProcess(serve)\n"
    )
    pytester.mkdir("chats")
    return pytester


def write(project: pytest.Pytester, **files: str) -> None:
    for name, text in files.items():
        (project.path / "chats" / f"{name}.chat").write_text(text)


def run(project: pytest.Pytester, *args: str, apart: bool = False) -> pytest.RunResult:
    """Run pytest in this process, which is fast, or apart if it has workers or is interrupted."""
    how = project.runpytest_subprocess if apart else project.runpytest_inprocess
    return how("-p", "no:cacheprovider", "-p", "harness.pytest_plugin", "-rfEs", *args)


def test_each_file_is_one_item_and_fails_with_its_report_and_no_traceback(project):
    write(project, good=GOOD, bad=BAD)
    result = run(project)
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    assert "FAILED chats/bad.chat:2   alice received something else" in text
    assert "received  OK" in text
    assert "Traceback" not in text
    assert ".py:" not in text
    assert "FAILED chats/bad.chat::bad - chats/bad.chat:2 alice received something" in text


def test_a_target_that_is_not_installed_skips_its_transcripts(project):
    project.makeconftest(
        "import pytest\n@pytest.fixture\ndef harness_target():\n    pytest.skip('the server is not installed')\n"
    )
    write(project, good=GOOD)
    result = run(project)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED [[]1[]] chats/good.chat:1: the server is not installed"])


def test_a_test_module_may_be_skipped_as_a_whole(project):
    project.makepyfile(test_other="import pytest\npytest.importorskip('no_such_package')\n")
    write(project, good=GOOD)
    run(project).assert_outcomes(passed=1, skipped=1)


def test_without_the_ini_nothing_is_collected_or_imported(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makefile(".chat", good=GOOD)
    pytester.makepyfile(
        "import sys\ndef test_quiet(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.hasplugin('harness.pytest_plugin')\n"
        "    assert 'gevent' not in sys.modules\n"
        "    assert 'harness.stage' not in sys.modules\n"
    )
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "harness.pytest_plugin", "-W", "error"
    )
    result.assert_outcomes(passed=1)


TARGETED = f"target: app tests.harness.servers.talk:serve_correctly\n\n{GOOD.partition(chr(10) * 2)[2]}"


@pytest.fixture
def bare(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder without a conftest and with an ini that names nothing."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\n")
    return pytester


def test_a_transcript_named_on_the_command_line_needs_no_configuration(bare):
    (bare.path / "hello.chat").write_text(TARGETED)
    (bare.path / "other.chat").write_text(TARGETED)
    run(bare, "hello.chat").assert_outcomes(passed=1)
    run(bare, "hello.chat", "other.chat").assert_outcomes(passed=2)
    assert run(bare).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_transcript_that_names_no_server_is_one_clear_error(bare):
    (bare.path / "hello.chat").write_text(TARGETED)
    (bare.path / "none.chat").write_text(GOOD)
    result = run(bare, "hello.chat", "none.chat")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    assert "none.chat::none has no server; name the server: --harness-server" in text
    assert "`target:` in the header" in text
    assert ".py:" not in text


def test_a_stage_without_a_server_is_one_clear_error(bare):
    bare.makepyfile("def test_it(stage):\n    pass\n")
    result = run(bare)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "has no server; name the server" in result.stderr.str()


def test_transcripts_whose_headers_name_one_command_share_its_server(bare):
    command = f"{sys.executable} -m tests.harness.servers.talk {{port}} none"
    text = f"target: server echo started >> starts; exec {command}\n\n{GOOD.partition(chr(10) * 2)[2]}"
    (bare.path / "one.chat").write_text(text)
    (bare.path / "two.chat").write_text(text)
    starts = bare.path / "starts"
    run(bare, "one.chat", "two.chat", "--harness-shared", apart=True).assert_outcomes(passed=2)
    assert starts.read_text().split() == ["started"]
    starts.unlink()
    run(bare, "one.chat", "two.chat", apart=True).assert_outcomes(passed=2)
    assert starts.read_text().split() == ["started", "started"]


def test_a_target_of_a_header_that_cannot_be_made_is_a_sentence(bare):
    (bare.path / "hello.chat").write_text(TARGETED.replace("serve_correctly", "nowhere"))
    result = run(bare, "hello.chat")
    result.assert_outcomes(failed=1)
    assert (
        "tests.harness.servers.talk:nowhere: module 'tests.harness.servers.talk' has no"
        in result.stdout.str()
    )
    assert ".py:" not in result.stdout.str()


def test_an_option_replaces_the_target_of_a_header(bare):
    (bare.path / "hello.chat").write_text(TARGETED.replace("serve_correctly", "nowhere"))
    run(bare, "hello.chat").assert_outcomes(failed=1)
    run(bare, "hello.chat", "--harness-app=tests.harness.servers.talk:serve_correctly").assert_outcomes(
        passed=1
    )


def test_a_script_error_needs_no_target(bare):
    (bare.path / "slip.chat").write_text("alice> tab\there\n")
    result = run(bare, "slip.chat")
    result.assert_outcomes(failed=1)
    assert "slip.chat:1:11: a tab in a literal" in result.stdout.str()


def test_every_option_of_play_is_an_option_of_pytest_and_a_key_of_the_ini(bare):
    playing = [row for row in OPTIONS if "play" in row.commands.split()]
    ours = [row for row in playing if not row.pytest_has]
    assert len(ours) >= 11
    helps = run(bare, "--help").stdout.str()
    for row in ours:
        assert row.pytest_flag in helps
        assert re.search(rf"^  {row.ini_key} \(", helps, re.MULTILINE)
    assert {row.pytest_has for row in playing} - {""} == {
        "-k",
        "-x",
        "-v",
        "-n of pytest-xdist",
        "--junitxml",
    }


INI = {
    "--server": "python x {port}",
    "--connect": "h:1",
    "--app": "a:b",
    "--shared": "true",
    "--tls-insecure": "true",
    "--html": "page.html",
    "--only": "reads",
}


def test_every_key_of_the_ini_is_what_the_option_is(bare):
    """Each key of the ini, and then each option, has the value that the command would have."""
    rows = [row for row in OPTIONS if row.pytest_flag and row.flag]
    ini = {row.flag: INI.get(row.flag, "3") for row in rows}
    ini["--ends"] = "true"
    bare.makeini("[pytest]\n" + "".join(f"{row.ini_key} = {ini[row.flag]}\n" for row in rows))
    found = vars(from_pytest(bare.parseconfig("-p", "harness.pytest_plugin")))
    for row in rows:
        wanted = True if row.action == "store_true" else row.type(ini[row.flag])
        wanted = [wanted] if row.action == "append" else wanted
        assert found[row.name] == wanted
    playing = {row.name for row in rows if row.of_playing}
    assert playing <= vars(parsed_play("--server", "x")).keys()

    bare.makeini("[pytest]\n")
    words = []
    for row in rows:
        words += [row.pytest_flag] if row.action == "store_true" else [f"{row.pytest_flag}={ini[row.flag]}"]
    assert vars(from_pytest(bare.parseconfig("-p", "harness.pytest_plugin", *words))) == found

    # Also where the command line asks for the default.
    bare.makeini("[pytest]\nharness_explore_seed = 3\nharness_features = one\n")
    words = ["-p", "harness.pytest_plugin", "--harness-explore-seed=1", "--harness-features="]
    found = vars(from_pytest(bare.parseconfig(*words)))
    assert (found["explore_seed"], found["features"]) == (1, "")


def parsed_play(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser, "play")
    return parser.parse_args(words)


def test_a_target_on_the_command_line_replaces_that_of_the_ini(bare):
    bare.makeini("[pytest]\nharness_connect = 127.0.0.1:1\n")
    (bare.path / "hello.chat").write_text(GOOD)
    run(bare, "hello.chat", "--harness-app=tests.harness.servers.talk:serve_correctly").assert_outcomes(
        passed=1
    )


def test_a_target_of_another_kind_also_replaces_what_the_ini_says_of_its_server_command(bare):
    bare.makeini("[pytest]\nharness_server = ./serve {port}\nharness_shared = true\nharness_ready = up\n")
    parse = functools.partial(bare.parseconfig, "-p", "harness.pytest_plugin")
    found = from_pytest(parse("--harness-connect=h:1"))
    assert (found.connect, found.server, found.shared, found.ready) == ("h:1", None, False, None)
    found = from_pytest(parse("--harness-server=./other {port}"))
    assert (found.server, found.shared, found.ready) == ("./other {port}", True, ["up"])


def test_the_page_of_a_run_has_every_transcript(project):
    pytest.importorskip("xdist", reason="workers need pytest-xdist")
    write(project, good=GOOD, bad=BAD, needy="needs: quantum\n\na> LOGIN a\na< OK\n")
    for how in ([], ["-p", "xdist", "-n", "2"]):
        page = project.path / "page.html"
        run(project, "--harness-html", str(page), *how, apart=bool(how)).assert_outcomes(
            passed=1, failed=1, skipped=1
        )
        text = page.read_text()
        assert re.findall(r"<strong>chats/(\w+).chat", text) == ["bad", "needy", "good"]
        page.unlink()


def test_a_page_that_cannot_be_written_is_an_error(project):
    write(project, good=GOOD)
    for how in (["--harness-html", "nowhere/page.html"], ["-o", "harness_html=nowhere/page.html"]):
        result = run(project, *how)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "cannot write nowhere/page.html: nowhere is not a folder" in result.stderr.str()
    result = run(project, "--harness-html=/dev/full")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "harness: cannot write /dev/full: No space left on device" in result.stderr.str()


def test_a_run_without_a_transcript_leaves_the_page_of_another_run(project):
    write(project, good=GOOD)
    project.makepyfile(test_unit="def test_unit():\n    pass\n")
    page = project.path / "page.html"
    ini = ["-o", "harness_html=page.html"]
    run(project, *ini, "test_unit.py").assert_outcomes(passed=1)
    assert not page.exists()
    run(project, *ini).assert_outcomes(passed=2)
    written = page.read_text()
    assert "good.chat" in written
    for words in (["--collect-only"], ["test_unit.py"], ["--harness-update"], ["--harness-audit"]):
        run(project, *ini, *words)
        assert page.read_text() == written


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--harness-audit-most=1"], "--harness-audit-most needs --harness-audit"),
        (["--harness-explore-seed=1"], "--harness-explore-seed needs --harness-explore"),
        (["--harness-update-ends"], "--harness-update-ends needs --harness-update"),
        (["--harness-compare-baseline=x"], "--harness-compare-baseline needs --harness-compare"),
        (["--harness-compare-write-baseline=x"], "--harness-compare-write-baseline needs --harness-compare"),
        (["--harness-update", "--harness-html=x"], "--harness-html cannot be used with --harness-update"),
        (["--harness-audit", "--harness-html=x"], "--harness-html cannot be used with --harness-audit"),
        (["--harness-explore=1", "--harness-html=x"], "--harness-html cannot be used with --harness-explore"),
        (["--harness-audit", "--harness-repeat=2"], "--harness-repeat cannot be used with --harness-audit"),
        *(
            (["--harness-compare=a=./serve {port}", f"--harness-{name}"], f"--harness-{only} cannot be used with --ha")
            for name, only in (
                ("server=./serve {port}", "server"),
                ("features=x", "features"),
                ("adapter=x", "adapter"),
                ("shared", "shared"),
                ("repeat=2", "repeat"),
            )
        ),
    ],
)  # fmt: skip
def test_an_option_that_a_mode_does_not_have_is_an_error(project, words, problem):
    write(project, good=GOOD)
    result = run(project, *words)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert problem in result.stderr.str()


def test_a_key_of_the_ini_is_for_the_modes_that_have_it(bare):
    talk = "tests.harness.servers.talk"
    bare.makeini(
        f"[pytest]\nharness_app = {talk}:serve_correctly\nharness_repeat = 2\nharness_features = x\n"
        "harness_audit_most = 1\nharness_explore_seed = 3\nharness_update_ends = true\n"
    )
    (bare.path / "hello.chat").write_text(GOOD)
    for words in (
        [],
        ["--harness-update"],
        ["--harness-explore=1"],
        [f"--harness-compare-app=a={talk}:serve"],
    ):
        run(bare, "hello.chat", *words).assert_outcomes(passed=1)


@pytest.mark.parametrize("scope", ["function", "session"])
def test_a_comparison_replaces_the_parameters_of_the_target(project, scope):
    project.makeconftest(
        "import pytest\nfrom harness import InProcess\nfrom tests.harness.servers.talk import serve\n"
        f"@pytest.fixture(scope={scope!r}, params=['one', 'two'])\ndef harness_target(request):\n"
        "    return InProcess(serve)\n"
    )
    write(project, good=GOOD)
    project.makepyfile("def test_it(stage):\n    pass\n")
    servers = [f"--harness-compare-app={name}=tests.harness.servers.talk:serve" for name in ("a", "b")]
    result = run(project, *servers, "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*good.chat::good[[]a[]] PASSED*", "*good.chat::good[[]b[]] PASSED*"])


def test_a_comparison_counts_the_last_of_several_plays_of_one_test(project, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "TRIES", [])
    write(project, good=GOOD)
    project.makepyfile(again=RUN_TWICE)
    project.syspathinsert()
    server = "--harness-compare-app=a=tests.harness.test_pytest_plugin:right_the_second_time"
    result = run(project, "-p", "again", server)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*servers compared*", "good.chat *ok"])
    result.stdout.no_fnmatch_line("*a differs*")


TRIES: list[int] = []


def right_the_second_time(spec):
    TRIES.append(1)
    return tests.harness.servers.talk.FAULTS["crlf" if len(TRIES) == 1 else "none"]()


def test_without_the_plugin_of_the_terminal_failures_are_reported_and_files_written(project):
    write(project, bad=BAD)
    words = ["-p", "no:cacheprovider", "-p", "harness.pytest_plugin", "-p", "no:terminal", "--junitxml=j.xml"]
    assert project.runpytest_inprocess(*words).ret == pytest.ExitCode.TESTS_FAILED
    assert "bad.chat:2 alice received something" in (project.path / "j.xml").read_text()
    words += [
        "--harness-compare-app=a=tests.harness.servers.talk:serve",
        "--harness-compare-write-baseline=known.txt",
    ]
    assert project.runpytest_inprocess(*words).ret == pytest.ExitCode.TESTS_FAILED
    assert "a\tbad.chat\t" in (project.path / "known.txt").read_text()


def test_only_files_that_match_the_ini_are_collected(project):
    write(project, good=GOOD)
    (project.path / "other.chat").write_text(BAD)
    run(project).assert_outcomes(passed=1)


def test_a_file_of_definitions_is_not_a_test(project):
    write(
        project,
        common="define X logs in:\n    X>~ LOGIN ${X}\n    X< OK\n",
        good="include common.chat\n\nalice logs in\n",
    )
    run(project).assert_outcomes(passed=1)


def test_k_selects_by_file_and_x_stops(project):
    write(project, one=GOOD, two=BAD, zwei=BAD)
    run(project, "-k", "one").assert_outcomes(passed=1, deselected=2)
    run(project, "-x").assert_outcomes(passed=1, failed=1)


def test_one_line_for_each_failure_is_a_sentence(project):
    write(project, good=GOOD, bad=BAD)
    result = run(project, "--tb=line", "-q")
    result.stdout.fnmatch_lines(["*bad.chat:* alice *"])
    assert len(result.stdout.lines) == 6
    assert "object at 0x" not in result.stdout.str()


def test_the_ini_and_the_options_say_how_to_play(project):
    write(project, good=GOOD)
    run(
        project, "--harness-settle", "20ms", "-o", "harness_within=2s", "-o", "harness_fence=none"
    ).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--harness-settle", "soon"], "'soon' is not a duration"),
        (["-o", "harness_start=0s"], "no time at all"),
        (["--harness-tls-ca", "none.pem"], "--tls-ca none.pem: no certificates can be read"),
        (["-o", "harness_adapter=none.adapter"], "none.adapter"),
        (["--harness-server=./serve", "--harness-node=a=./serve"], "use only one of --server and --node"),
        (["-o", "harness_connect=h:1", "-o", "harness_app=a:b"], "use only one of --connect and --app"),
        (["--harness-app=a:b", "--harness-ready=x"], "--ready is for --server, not for --app"),
        (
            ["-o", "harness_connect=h:1", "-o", "harness_shared=true"],
            "--shared is for --server, not for --conn",
        ),
    ],
)
def test_an_invalid_option_is_one_error_for_all_transcripts_and_stages(project, words, problem):
    write(project, good=GOOD, bad=BAD)
    project.makepyfile("def test_it(stage):\n    pass\n")
    result = run(project, *words)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().count(problem) == 1
    assert ".py:" not in result.stdout.str() + result.stderr.str()


def test_with_workers_an_invalid_option_fails_each_transcript_in_a_sentence(project):
    pytest.importorskip("xdist", reason="workers need pytest-xdist")
    write(project, good=GOOD)
    project.makepyfile("def test_it(stage):\n    pass\n")
    result = run(project, "--harness-settle", "soon", "-p", "xdist", "-n", "1", apart=True)
    result.assert_outcomes(failed=1, errors=1)
    assert "'soon' is not a duration" in result.stdout.str()
    assert "harness/pytest_plugin.py" not in result.stdout.str()


def test_what_cannot_be_explored_fails_in_a_sentence(bare):
    (bare.path / "hello.chat").write_text("target: connect 127.0.0.1:1\n" + GOOD)
    result = run(bare, "hello.chat", "--harness-explore", "1")
    result.assert_outcomes(failed=1)
    assert "only a server in this process can be scheduled" in result.stdout.str()
    assert ".py:" not in result.stdout.str()


def test_lf_plays_the_last_failures(project):
    write(project, one=GOOD, two=BAD)
    plugin = ("-p", "harness.pytest_plugin")
    project.runpytest_inprocess(*plugin).assert_outcomes(passed=1, failed=1)
    project.runpytest_inprocess(*plugin, "--lf").assert_outcomes(failed=1)


def test_each_parameter_of_the_target_has_its_own_item(project):
    project.makeconftest(
        "import pytest\nfrom harness import InProcess\nfrom tests.harness.servers.talk import FAULTS\n"
        "@pytest.fixture(params=['none', 'shouts'])\ndef harness_target(request):\n"
        "    return InProcess(lambda ask: FAULTS[request.param]())\n"
    )
    write(project, hi="a> LOGIN a\na< OK\nb> LOGIN b\nb< OK\na> MSG hi\nb< MSG a hi\n")
    result = run(project, "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*hi.chat::hi[[]none[]] PASSED*", "*hi.chat::hi[[]shouts[]] FAILED*"])


def test_xdist_workers_share_the_files(project):
    pytest.importorskip("xdist", reason="workers need pytest-xdist")
    write(project, **{f"good{n}": GOOD for n in range(4)}, bad=BAD)
    result = run(project, "-p", "xdist", "-n", "2", apart=True)
    result.assert_outcomes(passed=4, failed=1)
    assert "received  OK" in result.stdout.str()


def test_a_script_error_is_reported_as_such(project):
    write(
        project,
        slip="alice> LOGIN alice\nalcie< OK\n",
        broken="alice> tab\there\n",
        asks="server: falt=drops\n\na> x\n",
    )
    result = run(project)
    result.assert_outcomes(failed=3)
    text = result.stdout.str()
    assert "SCRIPT ERROR chats/slip.chat" in text
    assert "chats/slip.chat:2:1: alcie has not connected yet" in text
    assert "chats/broken.chat:1:11: a tab in a literal" in text
    assert "chats/asks.chat:1:9: no option 'falt'; known: fault" in text


def test_a_missing_feature_is_a_skip_with_its_reason(project):
    write(project, needy="needs: quantum\n\na> LOGIN a\na< OK\n")
    result = run(project)
    result.assert_outcomes(skipped=1)
    assert "needs quantum, which tests.harness.servers.talk:serve lacks" in result.stdout.str()


def test_a_script_can_be_skipped_or_expected_to_fail(project):
    write(
        project,
        later=f"skip: not now\n{GOOD}",
        known=f"xfail: ticket 7\n\n{BAD}",
        fixed=f"xfail: ticket 8\n{GOOD}",
    )
    result = run(project, "-rfEsx")
    result.assert_outcomes(skipped=1, xfailed=1, failed=1)
    text = result.stdout.str()
    assert "not now" in text
    assert "XFAIL chats/known.chat::known - ticket 7" in text
    assert "PASSED UNEXPECTEDLY chats/fixed.chat   remove `xfail: ticket 8`" in text
    for mode in ("--harness-audit", "--harness-explore=1", "--harness-update"):
        run(project, mode).assert_outcomes(skipped=1, xfailed=1, failed=1)
    assert "xfail: ticket 7" in (project.path / "chats" / "known.chat").read_text()


def test_transcripts_are_selected_by_their_tags(project):
    project.makepyfile(test_other="def test_other():\n    pass\n")
    write(project, a=f"tags: smoke slow\n{GOOD}", b=f"tags: slow\n{GOOD}", c=GOOD)
    run(project, "--harness-tag", "smoke").assert_outcomes(passed=2, deselected=2)
    run(project, "--harness-tag", "smoke slow").assert_outcomes(passed=3, deselected=1)
    run(project).assert_outcomes(passed=4)


@pytest.mark.parametrize("where", ["option", "ini"])
def test_the_target_is_named_by_an_option_or_the_ini(project, where):
    project.makeconftest("")
    app = "tests.harness.servers.talk:serve_correctly"
    write(project, good=GOOD)
    if where == "ini":
        project.makeini(f"[pytest]\nharness_files = chats/*.chat\nharness_app = {app}\n")
    run(project, *([f"--harness-app={app}"] if where == "option" else [])).assert_outcomes(passed=1)


def test_the_target_can_be_a_command(project):
    project.makeconftest("")
    write(project, good=GOOD)
    command = f"{sys.executable} -m tests.harness.servers.talk {{port}} none"
    run(project, "--harness-server", command).assert_outcomes(passed=1)


def test_without_a_target_one_error_says_how_to_name_one(project):
    project.makeconftest("")
    write(project, good=GOOD, bad=BAD)
    result = run(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().count("--harness-server") == 1
    assert ".py:" not in result.stdout.str() + result.stderr.str()
    run(project, "--collect-only").stdout.fnmatch_lines(["*2 tests collected*"])


def test_a_target_that_cannot_be_imported_is_reported_without_source_code(project):
    project.makeconftest("")
    write(project, good=GOOD)
    result = run(project, "--harness-app=no.such:thing")
    result.assert_outcomes(errors=1)
    assert "no.such:thing: No module named 'no'" in result.stdout.str()
    assert ".py:" not in result.stdout.str()


def test_a_failing_stage_shows_the_line_of_the_test_and_not_the_harness(project):
    project.makepyfile(
        "def test_wrong(stage):\n    alice = stage.client('alice')\n    alice.send('LOGIN alice')\n    alice.expect('NO')\n"
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert ">       alice.expect('NO')" in text or ">   \talice.expect" in text
    assert "stage/stage.py" not in text
    assert "harness.Unexpected: alice received `< OK` instead of `< NO`" in text
    assert (
        "   alice\nE          connects\nE          > LOGIN alice\nE          - < NO\nE          ! < OK\n"
        in text
    )


CAPTURED = """
import pytest
from harness import Unexpected

def test_lines(stage):
    alice, bob = stage.clients("alice", "bob")
    for one in (alice, bob):
        one.send_pattern("LOGIN " + one.name)
        assert one.receive_line() == "OK"
    alice.send("MSG one")
    assert bob.expect_match(r"MSG (?P<who>[a-z]+) one")["who"] == "alice"
    alice.send("MSG two")
    assert bob.expect_pattern("MSG ${who} ${_}") == {"who": "alice"} == stage.captures
    bob.send_pattern("MSG to ${who}")
    assert alice.receive_line() == "MSG bob to alice"
    bob.send("MSG three")
    with pytest.raises(Unexpected, match="instead of `<~ MSG .{who} three`"):
        alice.expect_pattern("MSG ${who} three")  # bob is not alice
    with pytest.raises(Unexpected, match="instead of `< /MSG alice/`"):
        alice.expect_match("MSG alice")
    assert alice.receive_line() == "MSG bob three"  # what does not match is not taken
    with pytest.raises(Unexpected, match="received nothing instead of `< a line`, and is still connected"):
        alice.receive_line()
    with pytest.raises(LookupError, match="unset} is not bound"):
        alice.send_pattern("MSG ${unset}")
"""


def test_a_stage_expects_patterns_and_regular_expressions(project):
    project.makepyfile(CAPTURED)
    run(project).assert_outcomes(passed=1)


AWAITED = """
import asyncio

async def test_right(async_stage):
    alice, bob = async_stage.clients("alice", "bob")
    for one in (alice, bob):
        await one.send("LOGIN " + one.name)
        await one.expect("OK")
    together = await asyncio.gather(alice.send("MSG hi"), bob.receive_line())
    assert together[1] == "MSG alice hi"
    assert async_stage.client("alice") is alice

async def test_wrong(async_stage):
    alice = async_stage.client("alice")
    await alice.send("LOGIN alice")
    await alice.expect("NO")

async def test_left_over(async_stage):
    await async_stage.client("alice").send("LOGIN alice")

def test_not_a_coroutine(async_stage):
    pass
"""


def test_coroutines_await_a_stage(project):
    project.makepyfile(AWAITED)
    result = run(project)
    result.assert_outcomes(passed=1, failed=2, errors=1)
    text = result.stdout.str()
    assert '>       await alice.expect("NO")' in text
    assert "awaited.py" not in text
    assert "at the end of the test: alice received `< OK`, which was not expected" in text
    assert "async_stage is for coroutines: `async def`; other tests use `stage`" in text


def test_a_coroutine_that_is_not_awaited_fails(project):
    """--trace calls the test from a plain function, which would lose the coroutine."""
    project.makepyfile(
        "async def test_wrong(async_stage):\n    await async_stage.client('alice').expect('never')\n"
    )
    result = run(project, "--trace", "-W", "ignore::RuntimeWarning")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "the test is a coroutine that was not awaited" in text
    assert "hidden" not in text


RUN_TWICE = """
import pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    # As plugins do that run a failed test again.
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    runtestprotocol(item, nextitem=nextitem, log=False)
    item._initrequest()
    runtestprotocol(item, nextitem=nextitem, log=True)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""

FLAKY = """
import unittest
import pytest

ATTEMPTS = []

async def test_second_time(async_stage):
    ATTEMPTS.append(1)
    alice = async_stage.client("alice")
    await alice.send("LOGIN alice")
    await alice.expect("OK" if len(ATTEMPTS) == 2 else "NO")

async def test_left_over(async_stage):
    await async_stage.client("bob").send("LOGIN bob")

@pytest.fixture
def leaves(stage):
    yield
    stage.client("carol").send("LOGIN carol")

def test_wrong_the_second_time(leaves, tries=[]):
    tries.append(1)
    assert len(tries) == 1, "a mistake of the test"

class TestAwaited(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def _stage(self, async_stage):
        self.stage = async_stage

    async def test_right(self):
        dave = self.stage.client("dave")
        await dave.send("LOGIN dave"); await dave.expect("OK")
"""


def test_a_test_with_a_stage_can_be_run_again(project):
    project.makepyfile(FLAKY, again=RUN_TWICE)
    project.syspathinsert()
    result = run(project, "-p", "again")
    result.assert_outcomes(passed=2, failed=2)
    text = result.stdout.str()
    assert "at the end of the test: bob received `< OK`, which was not expected" in text
    assert "a mistake of the test" in text
    assert "carol received" not in text


def test_an_awaited_stage_needs_a_loop_of_asyncio():
    with AsyncStage(Stage(Command(f"{sys.executable} -m tests.harness.servers.talk {{port}} none"))) as stage:
        sending = stage.client("alice").send("LOGIN alice")
        with pytest.raises(RuntimeError, match="needs a running event loop of asyncio; with trio"):
            sending.send(None)


def test_a_server_on_the_loop_of_the_test_is_played_from_its_own_thread():
    async def conversation():
        async def shout(reader, writer):
            try:
                while line := await reader.readline():
                    writer.write(line.upper())
            finally:
                writer.close()

        async with await asyncio.start_server(shout, "127.0.0.1", 0) as server:
            target = Address("127.0.0.1", server.sockets[0].getsockname()[1])
            async with AsyncStage(Stage(target, settle=0.02)) as stage:
                alice = stage.client("alice")
                await alice.send("hello")
                assert await alice.receive_line() == "HELLO"
                await alice.post(b"again\n")
                with pytest.raises(Unexpected, match="alice received `< AGAIN`, which was not expected"):
                    await stage.settle()
                assert (stage.grade, alice.end) == (Grade.SETTLED, End.OPEN)

    asyncio.run(conversation())


def test_a_stage_whose_server_does_not_start_leaves_no_thread():
    async def conversation():
        async with AsyncStage(Stage(Command("false {port}"))):
            pass

    with pytest.raises(TargetError, match="exited with status 1"):
        asyncio.run(conversation())
    with pytest.raises(TargetError, match="exited with status 1"), AsyncStage(Stage(Command("false {port}"))):
        pass
    for thread in threading.enumerate():
        if thread.name.startswith("stage"):
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize("kind", ["stage", "async_stage"])
def test_a_debugger_begins_at_the_line_of_the_test(project, kind):
    plain, awaited = ("", "") if kind == "stage" else ("async ", "await ")
    project.makepyfile(
        f"{plain}def test_wrong({kind}):\n    alice = {kind}.client('alice')\n"
        f"    {awaited}alice.send('LOGIN alice')\n    {awaited}alice.expect('NO')\n"
    )
    result = project.runpytest_subprocess("-p", "no:cacheprovider", "-p", "harness.pytest_plugin", "--pdb")
    result.stdout.fnmatch_lines(["> *test_a_debugger*.py(4)test_wrong()", f"-> {awaited}alice.expect('NO')"])


def test_a_mistake_of_the_harness_keeps_its_traceback(project, monkeypatch):
    monkeypatch.setattr("harness.stage.stage.Client.expect_closed", lambda client: {}["lost"])
    project.makepyfile("def test_wrong(stage):\n    stage.client('alice').expect_closed()\n")
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*KeyError: 'lost'"])


def test_a_conversation_of_many_clients_shows_those_that_matter(project, monkeypatch):
    project.makepyfile(
        "def test_wrong(stage):\n    many = stage.clients(*(f'c{n}' for n in range(30)))\n"
        "    for one in many:\n        one.send('LOGIN ' + one.name)\n        one.expect('OK')\n"
        "    many[0].send('MSG ' + 200 * 'x')\n    many[29].expect('MSG c0 y')\n"
    )
    monkeypatch.setenv("COLUMNS", "120")
    text = run(project).stdout.str()
    table = [line for line in text.splitlines() if line.startswith("E          ")]
    assert max(map(len, table)) <= 122
    assert "c29" in table[0]
    assert any("more clients are not shown" in line for line in table)
    assert any("\N{HORIZONTAL ELLIPSIS}" in line for line in table)


STAGED = """
import pytest

def test_right(stage):
    alice, bob = stage.clients("alice", "bob")
    alice.send("LOGIN alice"); alice.expect("OK")
    bob.send("LOGIN bob"); bob.expect("OK")
    alice.send("MSG hi"); bob.expect("MSG alice hi")

def test_left_over(stage):
    stage.client("alice").send("LOGIN alice")

@pytest.mark.harness(server="fault=crlf", eol="crlf")
def test_asked(stage):
    alice = stage.client("alice")
    alice.send("LOGIN alice"); alice.expect("OK")
"""


def test_the_stage_is_settled_inside_the_test_and_configured_by_a_marker(project):
    project.makepyfile(STAGED)
    result = run(project)
    result.assert_outcomes(passed=2, failed=1)
    text = result.stdout.str()
    assert "at the end of the test: alice received `< OK`, which was not expected" in text
    assert "test_left_over" in text
    assert "stage.py" not in text
    assert "another exception" not in text
    assert "hidden" not in text


UNITTEST = """
import unittest
import pytest

class TestPlain(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _stage(self, stage):
        self.stage = stage

    def test_right(self):
        alice = self.stage.client("alice")
        alice.send("LOGIN alice"); alice.expect("OK")

    def test_left_over(self):
        self.stage.client("alice").send("LOGIN alice")

    def test_wrong(self):
        self.stage.client("alice").send("LOGIN alice")
        self.fail("a mistake of the test")

class TestAwaited(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def _stage(self, async_stage):
        self.stage = async_stage

    async def test_right(self):
        alice = self.stage.client("alice")
        await alice.send("LOGIN alice"); await alice.expect("OK")

    async def test_left_over_too(self):
        await self.stage.client("bob").send("LOGIN bob")

class TestTearDown(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def _stage(self, async_stage):
        self.stage = async_stage

    async def asyncTearDown(self):
        await self.stage.client("carol").send("LOGIN carol")

    async def test_left_over_in_the_end(self):
        pass
"""


def test_a_stage_is_settled_in_a_test_case_of_unittest(project):
    project.makepyfile(UNITTEST)
    result = run(project)
    result.assert_outcomes(passed=2, failed=4)
    text = result.stdout.str()
    for name in ("alice", "bob", "carol"):
        assert text.count(f"at the end of the test: {name} received `< OK`, which was not expected") == 2
    assert "AssertionError: a mistake of the test" in text


TORN_DOWN = """
import pytest

@pytest.fixture
def leaves(stage):
    yield
    stage.client("alice").send("LOGIN alice")

@pytest.fixture
def leaves_awaited(async_stage):
    import asyncio
    yield
    asyncio.run(async_stage.client("bob").send("LOGIN bob"))

def test_plain(leaves):
    pass

async def test_awaited(async_stage, leaves_awaited):
    pass

def test_wrong(leaves):
    raise ValueError("of the test")
"""


def test_what_a_fixture_does_after_the_test_is_settled(project):
    project.makepyfile(TORN_DOWN)
    result = run(project)
    result.assert_outcomes(passed=2, errors=2, failed=1)
    text = result.stdout.str()
    for name in ("alice", "bob"):
        assert f"at the end of the fixtures: {name} received `< OK`, which was not expected" in text


NESTED = """
import pytest

pytestmark = pytest.mark.harness(server="fault=crlf", eol="lf")

@pytest.mark.harness(ignore="OK")
class TestGroup:
    @pytest.mark.harness(eol="crlf")
    def test_of_all(self, stage):
        alice, bob = stage.clients("alice", "bob")
        alice.send("LOGIN alice"); bob.send("LOGIN bob")
        alice.send("MSG hi"); bob.expect("MSG alice hi")
"""


def test_the_markers_of_a_test_its_class_and_its_module_add_up(project):
    project.makepyfile(NESTED)
    run(project).assert_outcomes(passed=1)


MARKED = """
import pytest

@pytest.mark.harness("fault=crlf")
def test_without_key(stage): pass

@pytest.mark.harness(fense="PING -> PONG")
def test_misspelt(stage): pass

@pytest.mark.harness(skip="not now")
def test_of_scripts(stage): pass

@pytest.mark.harness(server="salt=1")
def test_unknown(stage): pass

@pytest.mark.harness(server="salt=1")
async def test_awaited(async_stage): pass
"""


def test_a_stage_that_cannot_be_made_is_an_error_without_a_traceback(project):
    project.makepyfile(MARKED)
    result = run(project)
    result.assert_outcomes(errors=5)
    text = result.stdout.str()
    assert "@pytest.mark.harness: 'fault=crlf' has no key; expected a key for each value, such as" in text
    assert "@pytest.mark.harness: unknown header 'fense'; expected: perhaps fence:" in text
    assert "@pytest.mark.harness: `skip:` is for scripts only; expected: server:, fence:" in text
    assert text.count("\nno option 'salt'; known: fault\n") == 2
    assert "Traceback" not in text
    assert "stage.py" not in text


def test_update_rewrites_the_file_shows_the_difference_and_passes(project):
    write(project, good=GOOD, bad=BAD)
    result = run(project, "--harness-update")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*1 transcript rewritten*", "-alice< NO", "+alice< OK"])
    assert (project.path / "chats" / "bad.chat").read_text() == "alice> LOGIN alice\nalice< OK\n"
    assert (project.path / "chats" / "good.chat").read_text() == GOOD


def test_with_xdist_an_update_has_one_writer_for_each_file(project):
    pytest.importorskip("xdist", reason="workers need pytest-xdist")
    project.makeconftest(
        "import pytest\nfrom harness import InProcess\nfrom tests.harness.servers.talk import FAULTS\n"
        "@pytest.fixture(params=['none', 'shouts', 'doubles'])\ndef harness_target(request):\n"
        "    return InProcess(lambda ask: FAULTS[request.param]())\n"
    )
    text = "a> LOGIN a\na< OK\nbob> LOGIN bob\nbob< OK\na> MSG hi\nbob< ?\n"
    write(project, **{f"chat{n}": text for n in range(4)})
    result = run(project, "--harness-update", "-p", "xdist", "-n", "2", apart=True)
    result.assert_outcomes(passed=4, failed=8)
    assert "has already rewritten this file in this run" in result.stdout.str()
    for n in range(4):
        after = (project.path / "chats" / f"chat{n}.chat").read_text()
        received = after.removeprefix(text.removesuffix("bob< ?\n"))
        assert received in ("bob< MSG a hi\n", "bob< MSG A HI\n", "bob< MSG a hi\nbob< MSG a hi\n")


def test_pytest_timeout_ends_a_server_in_an_endless_loop(project):
    project.makeconftest(
        "import pytest\nfrom gevent.server import StreamServer\nfrom harness import InProcess\n"
        "def spin(sock, address):\n    while True: pass\n"
        "@pytest.fixture\ndef harness_target():\n"
        "    return InProcess(lambda ask: StreamServer(('127.0.0.1', 0), spin))\n"
    )
    write(project, good=GOOD)
    result = run(project, "-p", "pytest_timeout", "--timeout=1", "--timeout-method=signal", apart=True)
    result.assert_outcomes(failed=1)
    assert "Timeout" in result.stdout.str()


def test_the_entry_point_and_a_conftest_can_both_name_the_plugin(project, monkeypatch):
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    project.makeconftest(
        "pytest_plugins = ['harness.pytest_plugin']\nimport pytest\nfrom harness import InProcess\n"
        "from tests.harness.servers.talk import serve\n@pytest.fixture\ndef harness_target():\n    return InProcess(serve)\n"
    )
    write(project, good=GOOD)
    project.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_importing_the_plugin_does_not_import_gevent():
    code = "import sys, harness.pytest_plugin; sys.exit('gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
