"""The project's checks, each in a separate environment: `nox -l` lists them, `nox` runs lint, types and tests."""

from __future__ import annotations

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
PROJECT = nox.project.load_toml("pyproject.toml")["project"]
EXTRAS = PROJECT["optional-dependencies"]

# The tests of the server use the harness in this repository.
HARNESS = ("-e", "./harness")

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_venv = "yes"
# The tests run on every Python that is installed. CI decides in its matrix which ones must be.
nox.options.error_on_missing_interpreters = False


def requirement(package: str) -> str:
    """The package with the versions that pyproject.toml allows."""
    return next(wanted for extra in EXTRAS.values() for wanted in extra if wanted.startswith(package))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(requirement("ruff"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    # Only what the two packages import, which are themselves found in this folder: all of the extra `dev` would take
    # longer to install than the check itself.
    packages = ("mypy", "types-gevent", "types-greenlet", "tomli", "pytest", "hypothesis")
    session.install(*PROJECT["dependencies"], *EXTRAS["web"], *EXTRAS["metrics"], *map(requirement, packages))
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests. Arguments after -- go to pytest."""
    session.install(*HARNESS, "-e", ".[test]")
    session.run("python", "-m", "pytest", "-q", "-n", "auto", *session.posargs)


@nox.session
def busy(session: nox.Session) -> None:
    """Run the tests ten times while busy loops compete for the processors. Arguments after -- go to tests.busy."""
    session.install(*HARNESS, "-e", ".[test]")
    session.run("python", "-m", "tests.busy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages as a site in site/. A link or an anchor that leads nowhere is an error."""
    session.install(*EXTRAS["docs"])
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the short benchmark. Arguments after -- replace --quick."""
    session.install("-e", ".[bench]")
    session.run("python", "-m", "bench", *(session.posargs or ["--quick"]))
