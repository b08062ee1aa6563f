"""Two runs that guarded, as their JUnit files have them: the entries whose checks or speed changed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.guard.verdict import CheckOutcome
from pytest_shark_tune.report.compare.comparison import Comparison, Ratio, Row, Verdict, speed_verdict
from pytest_shark_tune.system.files import read_plain

__all__ = ["GuardedRun", "compare_guarded", "read_guarded"]

_NO_VERDICT = "failed"
"""The outcome of a test that failed without a verdict."""


@dataclass
class _Entry:
    """One entry of a spec, or a test that failed without a verdict."""

    name: str
    outcomes: dict[str, str] = field(default_factory=dict)
    """The outcome of each check."""
    ratio: Ratio | None = None

    def having(self, *outcomes: str) -> list[str]:
        """Return the checks with one of these outcomes."""
        return [check for check, outcome in self.outcomes.items() if outcome in outcomes]


@dataclass(frozen=True)
class GuardedRun:
    """The results of a run that guarded."""

    name: str
    """The path of the file."""
    entries: Mapping[tuple[str, str], _Entry]
    """The entries by the class and the parameter of their tests."""


def read_guarded(path: Path) -> GuardedRun:
    """Read the file of ``--junitxml`` of a run that guarded.

    Raises:
        InputError: it cannot be read, is no JUnit file, or has no test that guards.
    """
    try:
        root = ET.fromstring(read_plain(path))  # noqa: S314 (expat itself bounds how far entities expand)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ET.ParseError as error:
        raise InputError(f"{path} is no file of --junitxml: {error}") from error
    entries: dict[tuple[str, str], _Entry] = {}
    for case in root.iter("testcase"):
        given = {known.get("name", ""): known.get("value", "") for known in case.iter("property")}
        suite, test = case.get("classname", ""), case.get("name", "")
        if given.get("entry") and given.get("promise") and given.get("outcome"):
            check = given["promise"]
            name = test.partition("[")[2].removesuffix("]").removesuffix(f"-{check}") or given["entry"]
            entry = entries.setdefault((suite, name), _Entry(name))
            entry.outcomes[check] = given["outcome"]
            entry.ratio = _ratio(given) or entry.ratio
        elif case.find("failure") is not None or case.find("error") is not None:
            entries.setdefault((suite, test), _Entry(test or suite, {"": _NO_VERDICT}))
    if not entries and root.find(".//testsuite") is None and root.tag != "testsuite":
        raise InputError(f"{path} is no file of --junitxml: it has no test suite")
    return GuardedRun(str(path), entries)


def compare_guarded(base: GuardedRun, head: GuardedRun) -> Comparison:
    """Compare the checks and the speeds of two runs that guarded."""
    keys = list(dict.fromkeys([*head.entries, *base.entries]))
    rows = [_row(base.entries.get(key), head.entries.get(key)) for key in keys]
    return Comparison(
        base=base.name,
        head=head.name,
        what=("entry", "entries"),
        count=len(keys),
        rows=[row for row in rows if row is not None],
    )


def _row(base: _Entry | None, head: _Entry | None) -> Row | None:
    """Return the row of an entry; ``None`` if it did not change."""
    change, of_speed = speed_verdict(base.ratio if base else None, head.ratio if head else None)
    verdict = _verdict(base, head) or of_speed
    known = head or base
    if verdict is None or known is None:
        return None
    return Row(known.name, _words(base), _words(head), change, verdict)


def _verdict(base: _Entry | None, head: _Entry | None) -> Verdict | None:
    bad = (CheckOutcome.FAILED, _NO_VERDICT)
    if head is None:
        return Verdict.GONE
    if set(head.having(*bad)) - set(base.having(*bad) if base else ()):
        return Verdict.BROKEN
    if base is None:
        return Verdict.ADDED
    if base.having(*bad) and not head.having(*bad):
        return Verdict.MENDED
    if set(head.having(CheckOutcome.UNDECIDED)) - set(base.having(CheckOutcome.UNDECIDED)):
        return Verdict.UNDECIDED
    checked = [len(entry.outcomes) - len(entry.having(CheckOutcome.SKIPPED)) for entry in (base, head)]
    if checked[0] != checked[1]:
        return Verdict.UNCHECKED if checked[1] < checked[0] else Verdict.CHECKED
    return None


def _words(entry: _Entry | None) -> str:
    """Return the outcomes that stand out, else the common one, and the speed."""
    if entry is None:
        return "-"
    parts = [
        f"{', '.join(filter(None, checks))} {outcome}".strip()
        for outcome in (_NO_VERDICT, CheckOutcome.FAILED, CheckOutcome.UNDECIDED, CheckOutcome.SKIPPED)
        if (checks := entry.having(outcome))
    ]
    parts = parts or [str(CheckOutcome.PASSED)]
    return ", ".join([*parts, *([str(entry.ratio)] if entry.ratio else [])])


def _ratio(given: Mapping[str, str]) -> Ratio | None:
    try:
        return Ratio.of(*(float(given[name]) for name in ("ratio", "ratio_low", "ratio_high")))
    except (KeyError, ValueError):
        return None
