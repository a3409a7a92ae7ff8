"""Mistakes in the models of users. Knows nothing of what a model says: `generate` and `laws` each have their own kind."""

from __future__ import annotations

from harness.targets.choice import UsageError, described, is_a_mistake


class ModelError(UsageError):
    """A model is wrong, which says nothing about the server."""


class _ModelCode:
    """A context in which code of a model runs: an exception there is a `ModelError`."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and is_a_mistake(error) and not isinstance(error, UsageError):
            raise ModelError(f"the model raised {described(error)}") from error


model_code = _ModelCode()
