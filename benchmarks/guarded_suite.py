"""A small suite that is tuned once and guarded many times, each time by a pytest of its own: for `guard_*.py`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from pytest_shark_tune.guard.verdict import EntryCheck, Verdict
from pytest_shark_tune.plugin.guard.reporter import PROPERTY
from pytest_shark_tune.report.guard_text import GuardResult
from pytest_shark_tune.system import journal

__all__ = ["GuardedSuite", "show"]

_SUITE = """
import pytest
from pytest_shark_tune import ops

@pytest.mark.tune({ops})
def test_dispatch(candidate, artifact, measurement):
    pass
"""
_CONFTEST = f"""
def pytest_runtest_logreport(report):
    with open("findings.jsonl", "a") as file:
        file.writelines(value + "\\n" for name, value in report.user_properties if name == {PROPERTY!r})
"""


class GuardedSuite(NamedTuple):
    """Matmuls in a ``directory`` of their own, tuned and guarded for ``target`` on ``device``."""

    directory: Path
    target: str
    device: str

    @property
    def spec(self) -> Path:
        """The spec that tuning wrote, its records beside it."""
        return self.directory / "out" / "spec.mlir"

    @property
    def records(self) -> Path:
        """What became of each candidate that was tried."""
        return self.directory / "out" / "records.jsonl"

    def tune(self, sizes: Sequence[tuple[int, int, int]], candidates: int, lhs: str = "f32") -> None:
        """Write the suite and tune it; at least one of its dispatches has to have a winner."""
        calls = (f"ops.matmul(m={m}, n={n}, k={k}, lhs={lhs!r})" for m, n, k in sizes)
        (self.directory / "test_matmul.py").write_text(_SUITE.format(ops=", ".join(calls)), encoding="utf-8")
        (self.directory / "conftest.py").write_text(_CONFTEST, encoding="utf-8")
        status, output = self._pytest("--tune", f"--tune-trials={candidates}", "--tune-out=out")
        if status or not self.spec.exists():
            raise click.ClickException(f"there is nothing to guard:\n{output}")

    def guard(self, spec: Path) -> list[Verdict]:
        """The outcome of each check of ``spec``, by a pytest of its own."""
        results = self.directory / "findings.jsonl"
        results.unlink(missing_ok=True)
        status, output = self._pytest(f"--tune-guard={spec}")
        verdicts = [each.verdict for each in journal.read(results, GuardResult)]
        if status not in (0, 1) or not any(each.check is EntryCheck.FAST for each in verdicts):
            raise click.ClickException(f"guarding ended with status {status}:\n{output}")
        return verdicts

    def _pytest(self, *options: str) -> tuple[int, str]:
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", "test_matmul.py", *options),
            *(f"--tune-target={self.target}", f"--tune-device={self.device}", "--tune-cache=cache"),
        ]
        done = subprocess.run(
            command, cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        return done.returncode, done.stdout


def show(verdict: Verdict) -> str:
    """One verdict on an entry's speed, in half a line."""
    metrics = verdict.metrics
    if "ratio" not in metrics:
        return f"{verdict.entry} {verdict.outcome}: {verdict.reason}"
    return (
        f"{verdict.entry} {verdict.outcome} at {metrics['ratio']:.3f} ({metrics['ratio_low']:.3f} to "
        f"{metrics['ratio_high']:.3f}) of {metrics['ratio_wanted']:.3f}, {metrics['rounds']:.0f} rounds"
    )
