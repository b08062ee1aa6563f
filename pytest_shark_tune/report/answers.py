"""What a run came to, in sentences: how much faster what became, and what makes that less than certain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.types import SourceCheck
from pytest_shark_tune.results.summary import Summary, says_nothing
from pytest_shark_tune.system.units import format_us

__all__ = ["answers", "warnings"]

_NAMED = 3
"""The most dispatches that are named in a sentence."""


def answers(summary: Summary) -> Iterator[str]:
    """Yield sentences that say how much faster what became."""
    in_use = {row.name for row in summary.in_use}
    unproven = {name: check for name, check in summary.unproven.items() if name in in_use}
    won = [row for row in summary.improved if row.name in in_use and row.name not in unproven]
    count = len(in_use)
    are = "is" if 1 in (len(won), count) else "are"
    answer = f"{len(won)} of {count} {'dispatch' if count == 1 else 'dispatches'} {are} faster"
    fastest = max(won, key=lambda row: row.speedup or 0.0, default=None)
    if fastest is not None and fastest.speedup:
        answer += f", {fastest.name} by the most: {fastest.speedup:.2f}x"
    yield f"{answer}."
    if unproven:
        models = ", ".join(dict.fromkeys(check.source for check in unproven.values()))
        are = "is" if len(unproven) == 1 else "are"
        yield _listed(f"{len(unproven)} more {are} faster alone and unproven in {models}", list(unproven))
    for form in summary.forms:
        if form.ratio is not None:
            yield _whole(f"{form.model} in the form {form.form.name}", form)
    formed = {form.source for form in summary.forms if form.ratio is not None}
    for check in summary.sources:
        if check.ratio is not None and check.source not in formed:
            yield _whole(check.source, check)


def _listed(sentence: str, names: Sequence[str]) -> str:
    """The sentence with the first of some names, if there are any."""
    more = ", …" if len(names) > _NAMED else "."
    return f"{sentence}: {', '.join(names[:_NAMED])}{more}" if names else f"{sentence}."


def _whole(name: str, measured: FormRecord | SourceCheck) -> str:
    times = ""
    if measured.default_us and measured.tuned_us:
        times = f", {format_us(measured.default_us)} to {format_us(measured.tuned_us)}"
    bounds, proof = "", ": unproven"
    if measured.ratio_low is not None and measured.ratio_high is not None:
        bounds = f" ({measured.ratio_low:.2f} to {measured.ratio_high:.2f})"
        proof = "" if measured.ratio_low > 1 else ": unproven, since the interval holds 1"
        proof = ": slower" if measured.ratio_high < 1 else proof
        if says_nothing(measured.ratio_low, measured.ratio_high):
            bounds, proof = "", ": unproven, since its few rounds differ too much"
    return f"{name} as a whole: {measured.ratio:.2f}x{bounds}{times}{proof}."


def warnings(summary: Summary) -> Iterator[str]:
    """Yield sentences on what makes the figures less than certain."""
    if not summary.run.complete:
        yield "The run ended early: what it came to is provisional."
    provisional = sum("provisional" in row.reason for row in summary.dispatches)
    if provisional and summary.run.complete:
        are = "final is" if provisional == 1 else "finals are"
        yield f"{provisional} {are} provisional: the time was spent (--tune-time)."
    if summary.run.unsteady:
        yield (
            f"The machine changed its speed while {summary.run.unsteady} candidates or finals were measured: other "
            "work on it, or a clock that varies, makes intervals wide."
        )
    for reason, names in _by_reason(summary.dropped).items():
        yield _with_reason(names, "not in the spec", reason)
    for name, reason in summary.unprofiled.items():
        yield f"{name} has no profile: {reason}."


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names by their reasons."""
    found: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        found.setdefault(reason, []).append(name)
    return found


def _with_reason(names: Sequence[str], what: str, reason: str) -> str:
    """Return a sentence about all names with one reason."""
    if len(names) == 1:
        return f"{names[0]} is {what}: {reason}."
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} dispatches are {what}: {reason} ({', '.join(names[:_NAMED])}{more})."
