"""The checks of this project, one environment for each: ``nox -s lint types unit integration``.

`.ci/run` and `.ci/nightly` run them in the environment that they made: ``nox --no-venv --no-install``.
"""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "unit", "integration"]
nox.options.reuse_existing_virtualenvs = True

_WITH_RELEASES = {
    "3.12.0": ["tests/unit/search_space", "tests/unit/spec", "tests/integration/guard/test_guard.py"],
    "3.11.0": [],  # Most tests of these have configs as newer releases write them.
}
"""The tests that are run with a release of IREE, besides those that are run with all."""


def _install(session: nox.Session) -> None:
    session.install("-e", ".[dev]")


def _pytest(session: nox.Session, *arguments: str) -> None:
    _install(session)
    session.run("python", "-m", "pytest", *arguments, *session.posargs)


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
    _pytest(session, "-nauto", "tests/unit")


@nox.session
def integration(session: nox.Session) -> None:
    """Run the tests that tune and guard suites as a user would."""
    _pytest(session, "-nauto", "tests/integration")


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes, one at a time."""
    _pytest(session, "-m", "slow", "-n0")


@nox.session
def hostile(session: nox.Session) -> None:
    """Run the tests of docs/faults.md that take minutes: malformed files, faults and other hosts."""
    _pytest(session, "-m", "slow", "-n0", "-rs", "tests/integration/hostile", "tests/integration/tune/test_faults.py")


@nox.session
def smoke(session: nox.Session) -> None:
    """Run the first slow test of each module."""
    _pytest(session, "-m", "smoke")


@nox.session
@nox.parametrize("release", list(_WITH_RELEASES))
def releases(session: nox.Session, release: str) -> None:
    """Run a smaller set of tests with another supported release of IREE, or the tests that follow ``--``."""
    _install(session)
    directory = session.create_tmp()
    packages = [f"{package}=={release}" for package in ("iree-base-compiler", "iree-base-runtime")]
    session.run("python", "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", directory, *packages)
    always = ["tests/unit/compiler", "tests/unit/dispatch", "tests/integration/tune/test_tune.py"]
    tests = session.posargs or [*always, *_WITH_RELEASES[release]]
    # What stands first on the path hides the release that is installed.
    session.run("python", "-m", "pytest", *tests, env={"PYTHONPATH": directory})


@nox.session
def docs(session: nox.Session) -> None:
    """Check that all that the docs link to is there."""
    _pytest(session, "tests/unit/test_docs.py")


@nox.session
def site(session: nox.Session) -> None:
    """Build the documentation as a site, in the directory that follows ``--``, or in a temporary one."""
    session.install("-e", ".[docs]")
    directory = session.posargs[0] if session.posargs else session.create_tmp()
    session.run("mkdocs", "build", "--strict", "-f", ".ci/mkdocs.yml", "-d", str(Path(directory).absolute()))
