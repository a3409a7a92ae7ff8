"""Mistakes in the models of users. Knows nothing of what a model says: `generate` and `laws` each have their own kind."""

from __future__ import annotations

import traceback
from types import TracebackType

from harness.targets.choice import UsageError

_FRAMES = 3
"""How many of the innermost frames of a traceback are shown."""


class ModelError(UsageError):
    """A model is wrong, which says nothing about the server."""


class _ModelCode:
    """A context in which code of a model runs: an exception there is a `ModelError`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, UsageError):
            raise ModelError(_described(error, trace)) from error


model_code = _ModelCode()


def _described(error: Exception, trace: TracebackType | None) -> str:
    # The outermost frame is the one in which the harness calls the model.
    frames = traceback.format_tb(trace.tb_next if trace is not None else None)[-_FRAMES:]
    said = "".join(traceback.format_exception_only(error)).strip()
    return "\n".join([f"the model raised {said}", *(frame.rstrip() for frame in frames)])
