"""The end of a guarding run on a terminal: the verdicts, then the comparisons of compilers, in lines that fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from pytest_shark_tune.report.against_text import against_lines
from pytest_shark_tune.report.guard_text import GuardFailure, GuardResult, terminal_lines
from pytest_shark_tune.report.tables import wrapped

__all__ = ["guard_lines"]


def guard_lines(results: Collection[GuardResult], failures: Sequence[GuardFailure], columns: int) -> Iterator[str]:
    """Yield the lines, none wider than ``columns`` but for paths of specs.

    Args:
        results: the verdicts.
        failures: the failures without a verdict.
        columns: the width of the terminal.
    """
    for line in terminal_lines(results, failures):
        yield from [line] if line.startswith("spec: ") else wrapped(line, columns) or [""]
    yield from against_lines(results, columns)
