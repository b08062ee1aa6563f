"""Keeps the history of guard runs: appends the speeds of this run, and tells what changed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.guard.history import (
    Change,
    HistoryPoint,
    append_points,
    changes_in,
    read_history,
    shown,
)
from pytest_shark_tune.plugin.guard.options import GuardOptions
from pytest_shark_tune.records.baseline import BaselineRecord
from pytest_shark_tune.system import journal, process

__all__ = ["HistoryKeeper", "keep_baseline"]

_COMMITS = ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT", "BUILD_SOURCEVERSION")
"""The variables in which services of CI give the commit."""
_GIT_TIMEOUT_S = 10


class HistoryKeeper:
    """Keeps the history of the process that controls a run.

    Args:
        options: the options of the run.
        directory: the root of the tests, whose commit is noted.
    """

    def __init__(self, options: GuardOptions, directory: Path) -> None:
        self._path = options.history
        self._fails = options.fails_on_history
        self._directory = directory
        self.points: list[HistoryPoint] = []
        """The whole history, with this run."""
        self.changes: list[Change] = []
        """Its steps and drifts, as far as this run measured their series."""
        self.problem = ""
        """Why the run fails; empty if it does not."""

    def keep(self, measured: Iterable[HistoryPoint]) -> None:
        """Append the points of this run, and look for changes in their series."""
        if self._path is None:
            return
        run, now, commit = (
            uuid.uuid4().hex[:8],
            datetime.now(UTC).isoformat(timespec="seconds"),
            _commit(self._directory),
        )
        points = [msgspec.structs.replace(point, run=run, time=now, commit=commit) for point in measured]
        try:
            append_points(self._path, points)
            self.points = read_history(self._path)
        except (InputError, OSError) as error:
            self.problem = f"--tune-history: {error}"
            return
        ours = {point.series for point in points}
        self.changes = [change for change in changes_in(self.points) if change.last.series in ours]
        news = [change for change in self.changes if change.is_worse and change.is_recent]
        if self._fails and news:
            self.problem = f"--tune-history-fail: {shown(news[0])}{f' and {len(news) - 1} more' if news[1:] else ''}"

    def lines(self) -> Iterable[str]:
        """Yield the changes for the end of the run."""
        if self.changes:
            yield "changes in the history:"
            yield from (f"  {shown(change)}" for change in self.changes)


def keep_baseline(path: Path, recorded: Iterable[BaselineRecord]) -> str:
    """Append what a run recorded to a baseline; return why that failed, empty if it did not."""
    try:
        for record in recorded:
            journal.append(path, record)
    except OSError as error:
        return f"--tune-baseline: {path}: {error.strerror}"
    return ""


def _commit(directory: Path) -> str:
    """The commit of a directory's working tree; empty if there is none."""
    if named := next(filter(None, map(os.environ.get, _COMMITS)), ""):
        return named
    try:
        done = process.run(["git", "-C", os.fspath(directory), "rev-parse", "HEAD"], timeout_s=_GIT_TIMEOUT_S)
    except (CommandFailed, OSError):
        return ""
    return done.stdout.strip()
