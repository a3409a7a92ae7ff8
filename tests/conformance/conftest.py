"""geventchat takes part in its own suite: in process, as a server that goes by all three documents.

They differ in what a silent client is told, and so do the scripts named after that: for each, geventchat is set to it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from geventchat import IdleNotice, Server
from harness import InProcess, ServerSpec
from tests.app import serve

DOCUMENTS = frozenset({"000", "001", "002"})


@pytest.fixture
def harness_target(request: pytest.FixtureRequest) -> InProcess:
    script = Path(request.path).stem
    told = script.removeprefix("idle-")
    notice = told if told in {notice.value for notice in IdleNotice} else "info"

    def set_to_it(spec: ServerSpec) -> Server:
        return serve(replace(spec, options={**spec.options, "idle-notice": notice}))

    return InProcess(set_to_it, features=DOCUMENTS | {f"idle-{notice}"})
