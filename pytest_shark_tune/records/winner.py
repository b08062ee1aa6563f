"""Winners: which candidates reach the final, and which one wins it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from pytest_shark_tune.measurement.timing import NOISE_FLOOR
from pytest_shark_tune.records.types import Finalist, Record, State
from pytest_shark_tune.search_space.candidate import DEFAULT_ID

__all__ = [
    "FINALISTS",
    "NONE_FASTER",
    "WINNER_VERSION",
    "Verdict",
    "choose_finalists",
    "declare_winner",
    "final_threshold",
    "provisional_winner",
    "simplicity",
]

WINNER_VERSION: Final = 1
"""The rule for the winner. Raise it if the same figures may give another winner: finals are then held again."""

FINALISTS = 4
"""How many of the fastest are measured again: the first few swap places between measurements, the others do not."""

NONE_FASTER = "no candidate that might be faster than the default was measured"
"""The reason of a final without a measured finalist."""

Verdict = tuple[str | None, str]
"""A winner's id, or ``None``, and the reason for there being none."""


def choose_finalists(
    records: Iterable[Record], count: int = FINALISTS, incumbent: str = "", starter: str = ""
) -> tuple[str, ...]:
    """Return the ids of the fastest candidates that are not surely slower than the default, fastest first.

    Args:
        records: the records of a dispatch.
        count: the most finalists.
        incumbent: the id of the winner so far. It is a finalist as well unless it is surely slower.
        starter: the id of the candidate with the starter spec's config; likewise.
    """
    hopeful = [
        record
        for record in records
        if record.state is State.MEASURED and record.id != DEFAULT_ID and record.ratio and (record.ratio_high or 0) > 1
    ]
    hopeful.sort(key=lambda record: (-(record.ratio or 0), record.id))
    return tuple(
        record.id for place, record in enumerate(hopeful) if place < count or record.id in (incumbent, starter)
    )


def final_threshold(lows: Sequence[float], count: int = FINALISTS) -> float:
    """Return the ratio that a candidate must reach to get into the final: ``count`` others surely have it.

    If a candidate's upper bound lies below the ``count``-th largest lower bound, the whole intervals of ``count``
    others lie above its own. More measurements only raise the threshold.

    Args:
        lows: the lower bounds of the candidates measured so far.
        count: the most finalists.

    Returns:
        At least 1: a candidate below cannot win.
    """
    return max(1.0, sorted(lows)[-count]) if len(lows) >= count else 1.0


def declare_winner(finalists: Iterable[Finalist], simplicity: Callable[[str], tuple[int, ...]]) -> Verdict:
    """Return the winner of a final: significantly faster than the default, and by more than the noise floor.

    Finalists with a ratio within the noise floor of the best are equals. Among equals the simplest config wins, then
    the smallest id, so that equal runs name equal winners.

    Args:
        finalists: the finalists.
        simplicity: returns a value for an id that is smaller for a simpler config.
    """
    finalists = tuple(finalists)
    measured = [
        finalist
        for finalist in finalists
        if finalist.state is State.MEASURED and None not in (finalist.ratio, finalist.ratio_low, finalist.ratio_high)
    ]
    if not measured:
        failed = next((finalist.reason for finalist in finalists if finalist.state is not State.MEASURED), "")
        return None, f"its finalists failed: {failed.splitlines()[0]}" if failed else NONE_FASTER
    fastest = max(measured, key=lambda finalist: finalist.ratio or 0)
    sure = [finalist for finalist in measured if (finalist.ratio_low or 0) > 1 + NOISE_FLOOR]
    if not sure:
        return None, (
            f"none is faster than the default by more than {NOISE_FLOOR:.0%} for sure: the best, {fastest.id}, came to "
            f"{fastest.ratio:.3f} times the default's speed ({fastest.ratio_low:.3f} to {fastest.ratio_high:.3f})"
        )
    best = max(finalist.ratio or 0 for finalist in sure)
    equals = [finalist for finalist in sure if (finalist.ratio or 0) >= best * (1 - NOISE_FLOOR)]
    return min(equals, key=lambda finalist: (simplicity(finalist.id), finalist.id)).id, ""


def simplicity(knobs: Mapping[str, int]) -> tuple[int, ...]:
    """Return a value that is smaller for a simpler config: fewer knobs in use, then smaller tiles."""
    return sum(value != 0 for value in knobs.values()), sum(knobs.values())


def provisional_winner(records: Iterable[Record]) -> Record | None:
    """Return the best guess for a dispatch without a final: the fastest candidate that clears the noise floor.

    A run that was interrupted can still give it. It was not measured again, and every report of it says so.
    """
    sure = [record for record in records if record.id != DEFAULT_ID and (record.ratio_low or 0) > 1 + NOISE_FLOOR]
    return max(sure, key=lambda record: (record.ratio or 0, record.id), default=None)
