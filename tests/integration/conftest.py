"""Suites that are tuned by a pytest of their own, as a user would: real compiler, real runtime, real devices."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from iree.compiler import ir

from pytest_shark_tune.plugin.option_table import Mode, destinations, flag_of
from tests.integration.forks import Forks

# Over a hundred processes of these tests import the plugin: only the first has to compile it, whatever the shell says.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# What these tests tune and guard is no result of the workflow that they may be a step of.
os.environ.pop("GITHUB_STEP_SUMMARY", None)

TIMEOUT_S = 300
PLUGINS = Path(__file__).with_name("plugins")
_MARK = "SHARK_TUNE_TEST_RUN"


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest came to; ``out`` is where its results are, ``text`` all that it printed."""

    status: int
    text: str
    out: Path

    @property
    def lines(self) -> pytest.LineMatcher:
        return pytest.LineMatcher(self.text.splitlines())

    @property
    def summary(self) -> dict[str, Any]:
        loaded = json.loads((self.out / "summary.json").read_text(encoding="utf-8"))
        assert isinstance(loaded, dict)
        return loaded

    @property
    def records(self) -> list[dict[str, Any]]:
        lines = (self.out / "records.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def unfinished(self) -> int:
        """How many of its tests the run says that it did not run to their end."""
        (said,) = re.findall(
            r"^the run ended early: .*; (\d+) of its tests were not run to their end$", self.text, re.M
        )
        return int(said)

    def dispatch(self, name: str) -> dict[str, Any]:
        (row,) = [each for each in self.summary["dispatches"] if each["name"] == name]
        assert isinstance(row, dict)
        return row

    @property
    def verdicts(self) -> dict[str, str]:
        """What ``-v`` said of each test, in the order in which they ran."""
        told = {}
        lines = [line for line in self.text.splitlines() if "::" in line and not line.startswith(("ERROR", "FAILED"))]
        # The path, which may have blanks, comes after the verdict of a worker's test.
        by_workers = [re.match(r"\[gw\d+\] \[ *\d+%\] (.*?) ?(\S*::.*)\] *$", line) for line in lines]
        if any(by_workers):
            return {found[2]: found[1] for found in by_workers if found}
        for line in lines:
            place, bracket, rest = line.rpartition("] ")
            if bracket:
                told[place] = rest
        return told


class Running:
    """A pytest that is under way."""

    def __init__(self, command: list[str], directory: Path, out: Path) -> None:
        self.out = out
        self._mark = uuid.uuid4().hex
        self.temporary = temporary_of(directory)
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**clean_environment(), _MARK: self._mark, "TMPDIR": os.fspath(self.temporary)},
        )

    def wait_for_records(self, count: int) -> None:
        """Wait until ``count`` candidates are on record; the run must not end before."""
        end = time.monotonic() + TIMEOUT_S
        path = self.out / "records.jsonl"
        while not path.exists() or len(path.read_bytes().splitlines()) < count:
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                pytest.fail(f"there were never {count} records:\n{self.process.communicate()[0]}")
            time.sleep(0.02)

    def interrupt(self, *, everyone: bool) -> Outcome:
        """Press Ctrl-C: a terminal tells ``everyone`` in the foreground, a CI system often the leader alone."""
        if everyone:
            os.killpg(self.process.pid, signal.SIGINT)
        else:
            self.process.send_signal(signal.SIGINT)
        return self.finish()

    def survivors(self, *, within_s: float = 5.0) -> list[str]:
        """The commands that this run started and that still live; those that are ending get ``within_s`` seconds."""
        end = time.monotonic() + within_s
        mark = f"{_MARK}={self._mark}".encode()
        while True:
            left = [command for command, environment in _processes() if mark in environment]
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.1)

    def litter(self, *, within_s: float = 12.0) -> list[str]:
        """What the run left in the temporary directory, apart from locks and from pytest's own directories.

        A reaper tries for 10 s to remove what killed processes may still write into.
        """
        end = time.monotonic() + within_s
        while True:
            left = [path.name for path in self.temporary.iterdir() if not path.name.startswith("pytest-")]
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.1)

    def finish(self) -> Outcome:
        try:
            text, _ = self.process.communicate(timeout=TIMEOUT_S)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        return Outcome(self.process.returncode, text, self.out)


class Suite:
    """A directory with tests, and a pytest to run them with; runs share what they compile, not what they measure."""

    def __init__(self, directory: Path, cache: Path, forks: Forks) -> None:
        self.directory = directory
        self._forks = forks
        self.habits: tuple[str, ...] = ("--tune-fresh", "--tune-strategy=exhaustive", "--tune-coverage=1")
        self.plugins: tuple[str, ...] = ("-p", "quick_rounds")
        """Without any, runs are started from nothing and as they are, not by a fork."""
        self.cache = cache
        # The forms of a model have tests of their own: compiling them all takes longer than most tests.
        self.write("pytest.ini", "[pytest]\ntune_form = none\n")

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def start(self, *arguments: str, out: str = ".tune") -> Running:
        # An interrupt may come between the opening of a file and the with statement that closes it.
        ignored = ["-W", "ignore:unclosed file:ResourceWarning"]
        command = [sys.executable, "-m", "pytest", *self._arguments(arguments, out), *ignored]
        return Running(command, self.directory, self.directory / out)

    def run(self, *arguments: str, out: str = ".tune") -> Outcome:
        """Run pytest with ``arguments`` in the directory; ``out`` is where results go."""
        if not self.plugins:
            return self.start(*arguments, out=out).finish()
        environment = {**clean_environment(), "TMPDIR": os.fspath(temporary_of(self.directory))}
        done = self._forks.run(self._arguments(arguments, out), self.directory, environment, TIMEOUT_S)
        return Outcome(*done, self.directory / out)

    def _arguments(self, arguments: Sequence[str], out: str) -> list[str]:
        # Hypothesis, which no suite here uses, would be imported at the start of every run.
        options = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-W", "error", *self.plugins]
        # With a space instead of the sign pytest takes the directory for a test path when it looks for its ini file.
        given = [f"--tune-cache={self.cache}", f"--tune-out={out}", *self.habits]
        ini = self.directory / "pytest.ini"
        tunes = "--tune" in arguments or (ini.exists() and "\ntune = true" in ini.read_text(encoding="utf-8"))
        return [*options, *(given if tunes else filter(_is_for_guarding, given)), *arguments]

    def tune(self, *arguments: str, out: str = ".tune") -> Outcome:
        return self.run("--tune", *arguments, out=out)

    def collect(self, *arguments: str) -> list[str]:
        """The ids of the tests that ``--tune`` finds."""
        found = self.tune("--collect-only", "-q", *arguments)
        assert found.status == 0, found.text
        return [line for line in found.text.splitlines() if "::" in line]


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("compiler")


class MakeSuite(Protocol):
    def __call__(self, files: dict[str, str] | None = None) -> Suite: ...


@pytest.fixture(scope="session")
def tune_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with closing(Forks(clean_environment())) as forks:
        yield forks


@pytest.fixture(scope="session")
def make_suite(tmp_path_factory: pytest.TempPathFactory, tune_cache: Path, forks: Forks) -> MakeSuite:
    """Makes a suite in a directory of its own, with ``files`` by name."""

    def make(files: dict[str, str] | None = None) -> Suite:
        suite = Suite(tmp_path_factory.mktemp("suite"), tune_cache, forks)
        for name, content in (files or {}).items():
            suite.write(name, content)
        return suite

    return make


def _is_for_guarding(argument: str) -> bool:
    """Whether a run that does not tune takes an argument."""
    return argument.partition("=")[0] not in {flag_of(name) for name in destinations(Mode.TUNE)}


def _processes() -> Iterator[tuple[str, list[bytes]]]:
    """The command and the environment of every process that may be looked at."""
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (directory / "environ").read_bytes().split(b"\0")
            yield (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"), environment


def temporary_of(directory: Path) -> Path:
    """The ``TMPDIR`` of runs in a directory. `plugins/quick_rounds.py` has locks there: no other run is waited for."""
    temporary = directory.with_name(f"{directory.name}-tmp")
    temporary.mkdir(exist_ok=True)
    return temporary


def clean_environment() -> dict[str, str]:
    """This process's environment without what would reach into a pytest that it starts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    path = os.pathsep.join(filter(None, [os.fspath(PLUGINS), os.environ.get("PYTHONPATH")]))
    return {**kept, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONPATH": path}


@pytest.fixture(scope="session")
def starting_at_one() -> Callable[[str], str]:
    """Makes a module whose f32 constants are all 1: a matmul's sums start there, so its results are wrong by 1."""

    def changed(text: str) -> str:
        with ir.Context(), ir.Location.unknown():
            module = ir.Module.parse(text)

            def visit(op: ir.Operation) -> ir.WalkResult:
                if op.name == "arith.constant" and op.results[0].type == ir.F32Type.get():
                    op.attributes["value"] = ir.FloatAttr.get(ir.F32Type.get(), 1.0)
                return ir.WalkResult.ADVANCE

            module.operation.walk(visit)
            return str(module)

    return changed
