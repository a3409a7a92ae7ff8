"""geventchat passes the conformance suite of its protocol, as a server that follows all three documents.

The documents differ in what an idle client is sent, and so do the scripts named after that: geventchat is configured for
each of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from geventchat import IdleNotice, Server
from harness import InProcess, ServerSpec, load, play
from harness.conformance import suite_folder
from harness.report.styled_text import plain
from harness.report.text import report
from tests.app import serve

SCRIPTS = sorted(
    path for path in suite_folder(Path("suite:chat-line")).glob("*.chat") if path.stem != "people"
)


def configured_for(path: Path) -> InProcess:
    wanted = path.stem.removeprefix("idle-")
    notice = wanted if wanted in {notice.value for notice in IdleNotice} else "info"

    def factory(spec: ServerSpec) -> Server:
        return serve(replace(spec, options={**spec.options, "idle-notice": notice}))

    return InProcess(factory, features={"000", "001", "002", f"idle-{notice}"})


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_geventchat_keeps_the_script(path: Path) -> None:
    verdict = play(load(path), configured_for(path))
    assert verdict.passed, plain(report(verdict))
