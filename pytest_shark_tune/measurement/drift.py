"""The drift detector: repeats blocks in which the machine changed its speed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = []


_MOST_REPEATS = 2


_ENOUGH_KNOWN = 8


_DEVIATIONS = 5.0


_MEDIAN_OF_NORMAL = 0.6745


_LEAST_DRIFT, _UNKNOWN_DRIFT = 0.03, 0.25


_LEAST_SHIFT = 0.05


class _Watch:
    """Tells blocks in which the machine changed its speed, by more than its noise explains.

    The two samples that a block has of each config should agree: where they do not, the speed changed within the
    block, and up to half of that is in its ratio. And the baseline should take as long as in earlier blocks: where it
    does not, the machine is throttled, or was. Noise explains five standard deviations, estimated from the gaps and
    levels before by their median, which a few disturbed blocks do not move, and never less than 3% within a block and
    5% between blocks. Before eight gaps, or levels, are known only gaps of more than 25% count.

    ``earlier`` are the baseline's samples before, in pairs. At most two blocks are refused: where the machine stays
    at its new speed, that is what it measures at.
    """

    def __init__(self, earlier: Sequence[float] = ()) -> None:
        self.repeated = 0
        self._gaps: list[float] = []
        self._levels: list[float] = []
        self._drifts: list[float] = []
        self._shifts: list[float] = []
        for first, second in zip(earlier[::2], earlier[1::2], strict=False):
            self._learn([first, second], ())

    @property
    def note(self) -> str:
        """What was seen, in words; empty for a steady machine."""
        if not self._drifts and not self._shifts:
            return ""
        told = []
        if self._drifts:
            told.append(f"the speed drifted by up to {max(self._drifts):.0%} within {_blocks(self._drifts)}")
        if self._shifts:
            told.append(
                f"the baseline lay up to {max(self._shifts):.0%} off its earlier times in {_blocks(self._shifts)}"
            )
        return f"unsteady machine: {' and '.join(told)} ({self.repeated} repeated)"

    def accepts(self, baseline: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
        """Whether a block counts; ``baseline`` and each of ``others`` are a config's two samples in it."""
        drift = max(map(_gap, (baseline, *others)))
        usual = float(np.median(self._levels)) if self._levels else _level(baseline)
        shift = abs(_level(baseline) - usual)
        is_drift = drift > _allowed(self._gaps, _LEAST_DRIFT, _UNKNOWN_DRIFT)
        is_shift = shift > _allowed([abs(level - usual) for level in self._levels], _LEAST_SHIFT, math.inf)
        if is_drift:
            self._drifts.append(math.expm1(drift))
        elif is_shift:
            self._shifts.append(math.expm1(shift))
        if (is_drift or is_shift) and self.repeated < _MOST_REPEATS:
            self.repeated += 1
            return False
        self._learn(baseline, others)
        return True

    def _learn(self, baseline: Sequence[float], others: Sequence[Sequence[float]]) -> None:
        self._gaps += map(_gap, (baseline, *others))
        self._levels.append(_level(baseline))


def _allowed(deviations: Sequence[float], least: float, unknown: float) -> float:
    """What noise explains: five times the standard deviation of which ``deviations`` are the absolute values."""
    if len(deviations) < _ENOUGH_KNOWN:
        return unknown
    return max(least, _DEVIATIONS * float(np.median(deviations)) / _MEDIAN_OF_NORMAL)


def _gap(pair: Sequence[float]) -> float:
    """How far the two samples of a config lie apart, as the absolute logarithm of their ratio."""
    return abs(math.log(pair[0] / pair[1]))


def _level(pair: Sequence[float]) -> float:
    return math.fsum(map(math.log, pair)) / len(pair)


def _blocks(sizes: Sequence[float]) -> str:
    return f"{len(sizes)} block{'' if len(sizes) == 1 else 's'}"
