"""Reports of a guarding run: for the terminal, as Markdown, and as annotations for GitHub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.guard.verdict import Outcome, Promise, Verdict
from pytest_shark_tune.system.terminal import escaped, escaped_line

__all__ = [
    "GuardFailure",
    "GuardFinding",
    "github_lines",
    "markdown",
    "said_first",
    "status_words",
    "terminal_lines",
]

_NOTHING = "nothing was guarded"
_UNTOLD = "failed without a verdict"


class GuardFinding(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict of one test, as it travels to the process that controls the run."""

    verdict: Verdict
    spec: str
    """The path of the spec."""
    file: str
    """The file of the test."""
    line: int
    """The line of the test, counted from 1; 0 for a model."""
    where: str
    """Target, device and versions, in words."""


class GuardFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A failure without a verdict, such as an input that cannot be read or a file that cannot be collected."""

    test: str
    """The node id."""
    file: str
    """The file of the test."""
    line: int
    """The line of the test, counted from 1; 0 for a model."""
    reason: str
    """The first line of the error."""


def said_first(text: str) -> str:
    """Return the first line of the error in a report, without the traceback."""
    lines = text.splitlines() or ["it failed"]
    return next((line[1:].strip() for line in lines if line.startswith("E   ")), lines[0])


def status_words(verdict: Verdict) -> str:
    """Return the words beside a test that passed: the ratio of an entry, and whether that is undecided."""
    ratio = verdict.figures.get("ratio")
    words = [] if ratio is None else [f"{ratio:.2f}x"]
    return " ".join([*words, *([verdict.outcome] if verdict.outcome is Outcome.UNDECIDED else [])])


def terminal_lines(findings: Iterable[GuardFinding], failures: Sequence[GuardFailure] = ()) -> Iterator[str]:
    """Yield the end of a run as plain text: counts, verdicts that need attention, then devices and specs.

    Args:
        findings: the verdicts.
        failures: the failures without a verdict.
    """
    found = _sorted(findings)
    verdicts = [finding.verdict for finding in found]
    yield _counts(found, failures)
    for heading, told in (
        (_UNTOLD, [f"{failure.test}: {failure.reason}" for failure in failures]),
        ("worth a look", [_shown(verdict) for verdict in verdicts if verdict.note]),
        ("undecided", [_shown(verdict) for verdict in verdicts if verdict.outcome is Outcome.UNDECIDED]),
    ):
        if told:
            yield f"{heading}:"
            yield from (f"  {line}" for line in told)
    skipped = (verdict.reason for verdict in verdicts if verdict.outcome is Outcome.SKIPPED)
    reasons = Counter(map(_first_line, skipped))
    yield from (f"skipped {number}: {reason}" for reason, number in reasons.most_common())
    yield from dict.fromkeys(finding.where for finding in found)
    yield from (f"spec: {spec}" for spec in dict.fromkeys(finding.spec for finding in found))


def github_lines(
    findings: Iterable[GuardFinding], folder: Path, failures: Iterable[GuardFailure] = ()
) -> Iterator[str]:
    """Yield GitHub's workflow commands that annotate the suite's file with failures.

    Args:
        findings: the verdicts.
        folder: the directory that paths are relative to.
        failures: the failures without a verdict.
    """
    levels = {Outcome.BROKEN: "error", Outcome.UNDECIDED: "warning"}
    for failure in failures:
        yield _annotation("error", failure, folder, f"{failure.test} failed", failure.reason)
    for finding in findings:
        verdict = finding.verdict
        level = levels.get(verdict.outcome, "notice" if verdict.note else "")
        if level:
            title = f"{_name(verdict)} is {verdict.outcome}"
            yield _annotation(level, finding, folder, title, verdict.reason or verdict.note)


def _annotation(level: str, at: GuardFinding | GuardFailure, folder: Path, title: str, message: str) -> str:
    path = Path(at.file)
    file = path.relative_to(folder) if path.is_relative_to(folder) else path
    properties = {"file": str(file), **({"line": str(at.line)} if at.line else {}), "title": f"shark-tune: {title}"}
    given = ",".join(f"{name}={_escaped(value, ',:')}" for name, value in properties.items())
    return f"::{level} {given}::{_escaped(message)}"


def markdown(findings: Iterable[GuardFinding], ended_early: str = "", failures: Sequence[GuardFailure] = ()) -> str:
    """Return the changes as Markdown, or one line if nothing changed.

    Args:
        findings: the verdicts.
        ended_early: the reason why the run did not check everything; empty if it did.
        failures: the failures without a verdict.
    """
    found = _sorted(findings)
    if not found and not failures:
        return f"**shark-tune guard**: {_NOTHING}{f'; {_plain(ended_early)}' if ended_early else ''}.\n"
    where = "; ".join(dict.fromkeys(_plain(finding.where) for finding in found))
    parts = [f"**shark-tune guard**: {_counts(found, failures)}{f' ({where})' if where else ''}"]
    if ended_early:
        parts.append(f"The run ended early, so this is not all: {_plain(ended_early)}")
    if failures:
        parts.append("\n".join(f"- **failed** {_code(failure.test)}: {_plain(failure.reason)}" for failure in failures))
    for spec in dict.fromkeys(finding.spec for finding in found):
        changes = [*_changes(finding.verdict for finding in found if finding.spec == spec)]
        parts += ["\n".join([_code(spec), "", *changes])] if changes else []
    return "\n\n".join(parts) + "\n"


def _changes(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yield a list item for each verdict with news."""
    for verdict in verdicts:
        name = _code(_name(verdict))
        if verdict.outcome in (Outcome.BROKEN, Outcome.UNDECIDED):
            yield f"- **{verdict.outcome}** {name}: {_indented(verdict.reason)}"
        elif verdict.note:
            yield f"- {name}: {_indented(verdict.note)}"
        elif moved := _moved(verdict):
            yield f"- {name}: {moved}"


def _moved(verdict: Verdict) -> str:
    """Return the ratio and the recorded one if the ratio lies outside of the recorded interval; else nothing."""
    figures = verdict.figures
    names = ("ratio", "recorded_ratio", "recorded_ratio_low", "recorded_ratio_high")
    if not all(name in figures for name in names):
        return ""
    ratio, recorded, low, high = (figures[name] for name in names)
    if low <= ratio <= high:
        return ""
    return f"{ratio:.2f} times the default's speed, recorded {recorded:.2f} ({low:.2f} to {high:.2f})"


def _sorted(findings: Iterable[GuardFinding]) -> list[GuardFinding]:
    """Sort findings, which workers report in any order, by spec, by entry and in the order of the checks."""
    order = list(Promise)
    return sorted(
        findings, key=lambda finding: (finding.spec, finding.verdict.entry, order.index(finding.verdict.promise))
    )


def _counts(findings: Sequence[GuardFinding], failures: Sequence[GuardFailure]) -> str:
    """Return the number of entries, of the outcomes of their checks, and of failures without a verdict."""
    entries = len({(finding.spec, finding.verdict.entry) for finding in findings})
    counts = Counter(finding.verdict.outcome for finding in findings)
    outcomes = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    told = [f"{entries} {'entry' if entries == 1 else 'entries'}, promises: {outcomes}" if findings else _NOTHING]
    return "; ".join([*told, *([f"{len(failures)} {_UNTOLD}"] if failures else [])])


def _shown(verdict: Verdict) -> str:
    return f"{_name(verdict)}: {_first_line(verdict.note or verdict.reason)}"


def _name(verdict: Verdict) -> str:
    return f"{verdict.entry}-{verdict.promise}"


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _indented(text: str) -> str:
    """Return a text for a list item: its first line as prose, the others as a block of code."""
    first, _, rest = text.partition("\n")
    if not rest:
        return _plain(first)
    return "\n".join([_plain(first), "", "  ```text", *(f"  {line}" for line in _fenced(rest)), "  ```", ""])


def _fenced(text: str) -> list[str]:
    """Return the lines of a text for a block of code, without a line that would end the block."""
    return [line.replace("```", "'''") for line in escaped(text).splitlines()]


def _plain(text: str) -> str:
    """Return Markdown that reads as ``text``."""
    return "".join(f"\\{sign}" if sign in "\\`*_<>|[]#" else sign for sign in escaped(text))


def _code(text: str) -> str:
    """Return ``text`` as code inside a line of Markdown, in which a backquote has no escape."""
    shown = escaped_line(text).replace("`", "'")
    return f"`{shown}`"


def _escaped(text: str, more: str = "") -> str:
    """Return ``text`` as GitHub reads it in a workflow command; in a property ``more`` signs have a meaning."""
    encoded = "".join(f"%{ord(sign):02X}" if sign in f"%\r\n{more}" else sign for sign in text)
    return escaped(encoded)
