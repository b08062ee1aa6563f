"""What guarding found, in words: for the terminal, for Markdown, for GitHub."""

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
    """What a test of guard mode found out, on its way to whoever controls the run.

    ``spec`` is the path of the spec; ``file`` and ``line`` are where the test stands (counted from 1), ``line`` is 0
    for a model. ``where`` tells target, device and versions.
    """

    verdict: Verdict
    spec: str
    file: str
    line: int
    where: str


class GuardFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A failure that is no verdict, as of an input that cannot be read or a file that cannot be collected.

    ``test`` is the node id, ``reason`` the first line of what is said; ``file`` and ``line`` are as a finding's.
    """

    test: str
    file: str
    line: int
    reason: str


def said_first(text: str) -> str:
    """The first line of what a report says went wrong, without the way there."""
    lines = text.splitlines() or ["it failed"]
    return next((line[1:].strip() for line in lines if line.startswith("E   ")), lines[0])


def status_words(verdict: Verdict) -> str:
    """What to show beside a test that passed: how fast an entry is, and whether that is undecided; else nothing."""
    ratio = verdict.figures.get("ratio")
    words = [] if ratio is None else [f"{ratio:.2f}x"]
    return " ".join([*words, *([verdict.outcome] if verdict.outcome is Outcome.UNDECIDED else [])])


def terminal_lines(findings: Iterable[GuardFinding], failures: Sequence[GuardFailure] = ()) -> Iterator[str]:
    """The end of a run as plain text: counts, then whatever is worth a line, then what was looked at, and on what."""
    found = _sorted(findings)
    verdicts = [finding.verdict for finding in found]
    yield _counts(found, failures)
    for heading, told in (
        (_UNTOLD, [f"{each.test}: {each.reason}" for each in failures]),
        ("worth a look", [_shown(each) for each in verdicts if each.note]),
        ("undecided", [_shown(each) for each in verdicts if each.outcome is Outcome.UNDECIDED]),
    ):
        if told:
            yield f"{heading}:"
            yield from (f"  {each}" for each in told)
    reasons = Counter(_first_line(each.reason) for each in verdicts if each.outcome is Outcome.SKIPPED)
    yield from (f"skipped {number}: {reason}" for reason, number in reasons.most_common())
    yield from dict.fromkeys(finding.where for finding in found)
    yield from (f"spec: {spec}" for spec in dict.fromkeys(finding.spec for finding in found))


def github_lines(
    findings: Iterable[GuardFinding], folder: Path, failures: Iterable[GuardFailure] = ()
) -> Iterator[str]:
    """GitHub's workflow commands that show on the suite's file what is wrong; paths are relative to ``folder``."""
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
    """What changed, as Markdown; where nothing did, one line.

    ``ended_early`` says why the run did not look at everything.
    """
    found = _sorted(findings)
    if not found and not failures:
        return f"**shark-tune guard**: {_NOTHING}{f'; {_plain(ended_early)}' if ended_early else ''}.\n"
    where = "; ".join(dict.fromkeys(_plain(finding.where) for finding in found))
    parts = [f"**shark-tune guard**: {_counts(found, failures)}{f' ({where})' if where else ''}"]
    if ended_early:
        parts.append(f"The run ended early, so this is not all: {_plain(ended_early)}")
    if failures:
        parts.append("\n".join(f"- **failed** {_code(each.test)}: {_plain(each.reason)}" for each in failures))
    for spec in dict.fromkeys(finding.spec for finding in found):
        changes = [*_changes(finding.verdict for finding in found if finding.spec == spec)]
        parts += ["\n".join([_code(spec), "", *changes])] if changes else []
    return "\n\n".join(parts) + "\n"


def _changes(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """A list item for each verdict that says something new."""
    for verdict in verdicts:
        name = _code(_name(verdict))
        if verdict.outcome in (Outcome.BROKEN, Outcome.UNDECIDED):
            yield f"- **{verdict.outcome}** {name}: {_indented(verdict.reason)}"
        elif verdict.note:
            yield f"- {name}: {_indented(verdict.note)}"
        elif moved := _moved(verdict):
            yield f"- {name}: {moved}"


def _moved(verdict: Verdict) -> str:
    """How the ratio lies outside of the interval that was recorded; empty where it does not."""
    figures = verdict.figures
    names = ("ratio", "recorded_ratio", "recorded_ratio_low", "recorded_ratio_high")
    if not all(name in figures for name in names):
        return ""
    ratio, recorded, low, high = (figures[name] for name in names)
    if low <= ratio <= high:
        return ""
    return f"{ratio:.2f} times the default's speed, recorded {recorded:.2f} ({low:.2f} to {high:.2f})"


def _sorted(findings: Iterable[GuardFinding]) -> list[GuardFinding]:
    """Workers look at promises in any order; this is that of the specs' paths, the entries' names and the promises."""
    order = list(Promise)
    return sorted(findings, key=lambda each: (each.spec, each.verdict.entry, order.index(each.verdict.promise)))


def _counts(findings: Sequence[GuardFinding], failures: Sequence[GuardFailure]) -> str:
    """How many promises of how many entries came to what, and how many failures are no verdict."""
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
    """A text of several lines inside a list item: the first as prose, the rest as it stands."""
    first, _, rest = text.partition("\n")
    if not rest:
        return _plain(first)
    return "\n".join([_plain(first), "", "  ```text", *(f"  {line}" for line in _fenced(rest)), "  ```", ""])


def _fenced(text: str) -> list[str]:
    """The lines of ``text``, none of which ends the block of code that they stand in."""
    return [line.replace("```", "'''") for line in escaped(text).splitlines()]


def _plain(text: str) -> str:
    """``text`` as Markdown that looks like it."""
    return "".join(f"\\{each}" if each in "\\`*_<>|[]#" else each for each in escaped(text))


def _code(text: str) -> str:
    """``text`` as code inside a line of Markdown, which knows no escape for its own sign."""
    shown = escaped_line(text).replace("`", "'")
    return f"`{shown}`"


def _escaped(text: str, more: str = "") -> str:
    """``text`` as GitHub reads it in a workflow command; in a property ``more`` characters have a meaning, too."""
    encoded = "".join(f"%{ord(each):02X}" if each in f"%\r\n{more}" else each for each in text)
    return escaped(encoded)
