"""Winners: who goes to the final, and who wins it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from pytest_shark_tune.measurement.timing import NOISE_FLOOR
from pytest_shark_tune.records.types import Finalist, Record, State
from pytest_shark_tune.search_space.candidate import DEFAULT_ID

__all__ = [
    "FINALISTS",
    "WINNER_VERSION",
    "Verdict",
    "bar_to_final",
    "choose_finalists",
    "declare_winner",
    "provisional_winner",
    "simplicity",
]

WINNER_VERSION: Final = 1
"""Which finalist wins. Raise it where the same figures may give another winner: finals are then held anew."""

FINALISTS = 4
"""How many of the fastest are measured again: the first few swap places between measurements, the rest do not."""

Verdict = tuple[str | None, str]
"""A winner's id, or ``None``, and the reason for there being none."""


def choose_finalists(
    records: Iterable[Record], count: int = FINALISTS, incumbent: str = "", starter: str = ""
) -> tuple[str, ...]:
    """The ids of the ``count`` fastest measured candidates, fastest first, among those not surely slower.

    ``incumbent``, the winner so far, and ``starter``, which has the starter spec's config, come last where they are
    none of these and not surely slower either.
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


def bar_to_final(lows: Sequence[float], count: int = FINALISTS) -> float:
    """The ratio that a candidate has to reach to get into the final: what ``count`` others surely have.

    ``lows`` are the lower bounds of those measured so far. Whose upper bound lies below their ``count``-th largest
    has as many before it whose whole intervals are above its own; more measurements only raise the bar. Never below
    1, where nobody wins.
    """
    return max(1.0, sorted(lows)[-count]) if len(lows) >= count else 1.0


def declare_winner(finalists: Iterable[Finalist], simplicity: Callable[[str], tuple[int, ...]]) -> Verdict:
    """The winner of a final: significantly faster than the default, and by more than the noise floor.

    Finalists whose ratio lies within the noise floor of the best are equals; among equals the simplest config
    wins (the smallest value of ``simplicity``, then the id), so that equal runs name equal winners.
    """
    measured = [each for each in finalists if each.state is State.MEASURED and each.ratio is not None]
    if not measured:
        return None, "no candidate that might be faster than the default was measured"
    fastest = max(measured, key=lambda each: each.ratio or 0)
    sure = [each for each in measured if (each.ratio_low or 0) > 1 + NOISE_FLOOR]
    if not sure:
        return None, (
            f"none is faster than the default by more than {NOISE_FLOOR:.0%} for sure: the best, {fastest.id}, came to "
            f"{fastest.ratio:.3f} times the default's speed ({fastest.ratio_low:.3f} to {fastest.ratio_high:.3f})"
        )
    best = max(each.ratio or 0 for each in sure)
    equals = [each for each in sure if (each.ratio or 0) >= best * (1 - NOISE_FLOOR)]
    return min(equals, key=lambda each: (simplicity(each.id), each.id)).id, ""


def simplicity(knobs: Mapping[str, int]) -> tuple[int, ...]:
    """What orders configs by how simple they are: fewer knobs in use first, then smaller tiles."""
    return sum(value != 0 for value in knobs.values()), sum(knobs.values())


def provisional_winner(records: Iterable[Record]) -> Record | None:
    """The best guess for a dispatch whose final was never run: the fastest whose interval clears the noise floor.

    It is what a run that was interrupted can still give; it was not measured again, and whoever shows it says so.
    """
    sure = [record for record in records if record.id != DEFAULT_ID and (record.ratio_low or 0) > 1 + NOISE_FLOOR]
    return max(sure, key=lambda record: (record.ratio or 0, record.id), default=None)
