"""Reports of a guarding run: for the terminal, as Markdown, and as annotations for GitHub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.guard.history import HistoryPoint
from pytest_shark_tune.guard.verdict import CheckOutcome, EntryCheck, Verdict
from pytest_shark_tune.report.markdown import markdown_code, markdown_text
from pytest_shark_tune.system.terminal import escaped

__all__ = ["GuardFailure", "GuardResult", "github_lines", "markdown", "said_first", "terminal_lines", "verdict_status"]

_NOTHING = "nothing was guarded"
_NO_VERDICT = "failed without a verdict"


class GuardResult(msgspec.Struct, frozen=True, kw_only=True):
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
    point: HistoryPoint | None = None
    """The measured speed for the history, still without run and commit; ``None`` if nothing was measured."""


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


def verdict_status(verdict: Verdict) -> str:
    """Return the words beside a test that passed: the ratio of an entry, and whether that is undecided."""
    if verdict.by_identity:
        return "same code"
    ratio = verdict.metrics.get("ratio")
    words = [] if ratio is None else [f"{ratio:.2f}x"]
    return " ".join([*words, *([verdict.outcome] if verdict.outcome is CheckOutcome.UNDECIDED else [])])


def terminal_lines(results: Iterable[GuardResult], failures: Sequence[GuardFailure] = ()) -> Iterator[str]:
    """Yield the end of a run as plain text: counts, verdicts that need attention, then devices and specs.

    Args:
        results: the verdicts.
        failures: the failures without a verdict.
    """
    found = _sorted(results)
    verdicts = [result.verdict for result in found]
    yield _counts(found, failures)
    for heading, lines in (
        (_NO_VERDICT, [f"{failure.test}: {failure.reason}" for failure in failures]),
        ("worth a look", [_verdict_line(verdict) for verdict in verdicts if verdict.note]),
        ("undecided", [_verdict_line(verdict) for verdict in verdicts if verdict.outcome is CheckOutcome.UNDECIDED]),
    ):
        if lines:
            yield f"{heading}:"
            yield from (f"  {line}" for line in lines)
    skipped = (verdict.reason for verdict in verdicts if verdict.outcome is CheckOutcome.SKIPPED)
    reasons = Counter(map(_first_line, skipped))
    yield from (f"skipped {number}: {reason}" for reason, number in reasons.most_common())
    yield from dict.fromkeys(result.where for result in found)
    yield from (
        f"spec: {spec}"
        for spec in dict.fromkeys(result.spec for result in found if not result.verdict.check.needs_no_spec)
    )


def github_lines(
    results: Iterable[GuardResult], directory: Path, failures: Iterable[GuardFailure] = ()
) -> Iterator[str]:
    """Yield GitHub's workflow commands that annotate the suite's file with failures.

    Args:
        results: the verdicts.
        directory: the directory that paths are relative to.
        failures: the failures without a verdict.
    """
    levels = {CheckOutcome.FAILED: "error", CheckOutcome.UNDECIDED: "warning"}
    for failure in failures:
        yield _annotation("error", failure, directory, f"{failure.test} failed", failure.reason)
    for result in results:
        verdict = result.verdict
        level = levels.get(verdict.outcome, "notice" if verdict.note else "")
        if level:
            title = f"{_check_name(verdict)} is {verdict.outcome}"
            yield _annotation(level, result, directory, title, verdict.reason or verdict.note)


def _annotation(level: str, at: GuardResult | GuardFailure, directory: Path, title: str, message: str) -> str:
    path = Path(at.file)
    file = path.relative_to(directory) if path.is_relative_to(directory) else path
    properties = {"file": str(file), **({"line": str(at.line)} if at.line else {}), "title": f"shark-tune: {title}"}
    given = ",".join(f"{name}={_escaped(value, ',:')}" for name, value in properties.items())
    return f"::{level} {given}::{_escaped(message)}"


def markdown(results: Iterable[GuardResult], failures: Sequence[GuardFailure] = (), ended_early: str = "") -> str:
    """Return the changes as Markdown, or one line if nothing changed.

    Args:
        results: the verdicts.
        failures: the failures without a verdict.
        ended_early: the reason why the run did not check everything; empty if it did.
    """
    found = _sorted(results)
    if not found and not failures:
        return f"**shark-tune guard**: {_NOTHING}{f'; {markdown_text(ended_early)}' if ended_early else ''}.\n"
    where = "; ".join(dict.fromkeys(markdown_text(result.where) for result in found))
    parts = [f"**shark-tune guard**: {_counts(found, failures)}{f' ({where})' if where else ''}"]
    if ended_early:
        parts.append(f"The run ended early, so this is not all: {markdown_text(ended_early)}")
    if failures:
        parts.append(
            "\n".join(
                f"- **failed** {markdown_code(failure.test)}: {markdown_text(failure.reason)}" for failure in failures
            )
        )
    for spec in dict.fromkeys(result.spec for result in found):
        changes = [*_change_items(result.verdict for result in found if result.spec == spec)]
        parts += ["\n".join([markdown_code(spec), "", *changes])] if changes else []
    return "\n\n".join(parts) + "\n"


def _change_items(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yield a list item for each verdict with news."""
    for verdict in verdicts:
        name = markdown_code(_check_name(verdict))
        if verdict.outcome in (CheckOutcome.FAILED, CheckOutcome.UNDECIDED):
            yield f"- **{verdict.outcome}** {name}: {_indented(verdict.reason)}"
        elif verdict.note:
            yield f"- {name}: {_indented(verdict.note)}"
        elif moved := _moved(verdict):
            yield f"- {name}: {moved}"


def _moved(verdict: Verdict) -> str:
    """Return the ratio and the recorded one if the ratio lies outside of the recorded interval; else nothing."""
    metrics = verdict.metrics
    names = ("ratio", "recorded_ratio", "recorded_ratio_low", "recorded_ratio_high")
    if not all(name in metrics for name in names):
        return ""
    ratio, recorded, low, high = (metrics[name] for name in names)
    if low <= ratio <= high:
        return ""
    return f"{ratio:.2f} times the default's speed, recorded {recorded:.2f} ({low:.2f} to {high:.2f})"


def _sorted(results: Iterable[GuardResult]) -> list[GuardResult]:
    """Sort findings, which workers report in any order, by spec, by entry and in the order of the checks."""
    order = list(EntryCheck)
    return sorted(results, key=lambda result: (result.spec, result.verdict.entry, order.index(result.verdict.check)))


def _counts(results: Sequence[GuardResult], failures: Sequence[GuardFailure]) -> str:
    """Return the number of entries, of the outcomes of their checks, and of failures without a verdict."""
    entries = len({(result.spec, result.verdict.entry) for result in results})
    counts = Counter(result.verdict.outcome for result in results)
    outcomes = ", ".join(f"{counts[outcome]} {outcome}" for outcome in CheckOutcome if counts[outcome])
    identical = sum(result.verdict.by_identity for result in results)
    outcomes += f" ({identical} by identical machine code)" if identical else ""
    counted = [f"{entries} {'entry' if entries == 1 else 'entries'}, checks: {outcomes}" if results else _NOTHING]
    return "; ".join([*counted, *([f"{len(failures)} {_NO_VERDICT}"] if failures else [])])


def _verdict_line(verdict: Verdict) -> str:
    return f"{_check_name(verdict)}: {_first_line(verdict.note or verdict.reason)}"


def _check_name(verdict: Verdict) -> str:
    return f"{verdict.entry}-{verdict.check}"


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _indented(text: str) -> str:
    """Return a text for a list item: its first line as prose, the others as a block of code."""
    first, _, rest = text.partition("\n")
    if not rest:
        return markdown_text(first)
    fenced = escaped(rest).replace("```", "'''").splitlines()  # No line of the text may end the block.
    return "\n".join([markdown_text(first), "", "  ```text", *(f"  {line}" for line in fenced), "  ```", ""])


def _escaped(text: str, more: str = "") -> str:
    """Return ``text`` as GitHub reads it in a workflow command; in a property ``more`` signs have a meaning."""
    encoded = "".join(f"%{ord(sign):02X}" if sign in f"%\r\n{more}" else sign for sign in text)
    return escaped(encoded)
