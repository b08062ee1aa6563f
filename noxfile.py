"""The checks of this project, each in an environment of its own: ``nox -s lint types unit integration slow``."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "unit", "integration"]
nox.options.reuse_existing_virtualenvs = True


def _install(session: nox.Session) -> None:
    session.install("-e", ".[dev]")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install("ruff>=0.11")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    _install(session)
    session.run("mypy")


@nox.session
def unit(session: nox.Session) -> None:
    """Run the tests that start no pytest of their own."""
    _install(session)
    session.run("python", "-m", "pytest", "tests/unit", *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Run the tests that tune and guard suites as a user would."""
    _install(session)
    session.run("python", "-m", "pytest", "tests/integration", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes."""
    _install(session)
    session.run("python", "-m", "pytest", "-m", "slow", *session.posargs)
