"""The funnel as text: how many candidates of each dispatch reached each stage, and why the others did not."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_shark_tune.plan.types import NOT_TRIED
from pytest_shark_tune.records.types import State
from pytest_shark_tune.report.tables import INDENT, named_rows, wrapped
from pytest_shark_tune.results.funnel import OTHERS, Cause, Loss
from pytest_shark_tune.results.summary import Summary

__all__ = ["funnel_table"]

_STATES = {NOT_TRIED: "not tried", State.MEASURED.value: "measured, not in the final"}
"""Names for the states of candidates that did not fail."""
_NO_LOSS = {*_STATES, State.DUPLICATE.value}
"""The states that every search has: such a candidate is no loss."""


def funnel_table(summary: Summary, width: int, *, everything: bool) -> Iterator[str]:
    """Yield a row for each dispatch of which candidates failed, with the causes.

    Args:
        summary: the summary of the run.
        width: the columns of the terminal.
        everything: whether to show all dispatches, and the candidates that did not fail.
    """
    shown = [row for row in summary.dispatches if everything or any(map(_is_failure, row.losses))]
    if not shown:
        return
    headings = ("space", "generated", "tried", "compiled", "applied", "ran", "correct", "finalists")
    rows = [
        (
            _rounded(row.space) if row.space is not None else "many",
            *(f"{count:,}" for count in (row.generated, row.tried, row.compiled, row.applied, row.ran)),
            *(f"{count:,}" for count in (row.correct, row.finalists)),
        )
        for row in shown
    ]
    losses = (
        [line for loss in row.losses if everything or _is_failure(loss) for line in _loss(loss, width)] for row in shown
    )
    yield from named_rows([row.name for row in shown], headings, rows, losses, width)


def _is_failure(loss: Loss) -> bool:
    return loss.state not in _NO_LOSS


def _rounded(count: int) -> str:
    """A count in at most seven characters."""
    for unit, name in ((10**9, "G"), (10**6, "M")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:,}"


def _loss(loss: Loss, width: int) -> Iterator[str]:
    """Yield the number of candidates that ended in a state with the causes, in one line or in one for each cause."""
    head = f"{loss.count} {_STATES.get(loss.state, loss.state)}: "
    single = len(loss.causes) == 1
    causes = [
        f"{'' if single else f'{cause.count}x '}{cause.reason}{_example_text(loss, cause)}" for cause in loss.causes
    ]
    line = head + "; ".join(causes)
    if single or len(line) + INDENT <= width:
        yield from wrapped(line, width, indent=INDENT)
        return
    yield from wrapped(head.rstrip(), width, indent=INDENT)
    for cause in causes:
        yield from wrapped(cause, width, indent=2 * INDENT)


def _example_text(loss: Loss, cause: Cause) -> str:
    """Return the id of a candidate to look up in the records; empty if nothing went wrong."""
    return "" if loss.state in _STATES or cause.reason == OTHERS else f" ({cause.example})"
