"""geventchat takes part in the suite, in this process, as a server that follows all three documents.

They differ in what an idle client is told, and the scripts named `idle-…` each want one of these ways.
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
    wanted = Path(request.path).stem.removeprefix("idle-")
    notice = wanted if wanted in {notice.value for notice in IdleNotice} else "info"

    def serve_with_notice(spec: ServerSpec) -> Server:
        return serve(replace(spec, options={**spec.options, "idle-notice": notice}))

    return InProcess(serve_with_notice, features=DOCUMENTS | {f"idle-{notice}"})
