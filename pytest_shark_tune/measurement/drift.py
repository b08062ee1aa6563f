"""The drift detector: repeats blocks during which the machine changed its speed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["DriftDetector"]

_MOST_REPEATS = 2
_ENOUGH_KNOWN = 8
_DEVIATIONS = 5.0
_MEDIAN_OF_NORMAL = 0.6745
_LEAST_DRIFT, _UNKNOWN_DRIFT = 0.03, 0.25
_LEAST_SHIFT = 0.05


class DriftDetector:
    """Finds blocks during which the machine's speed changed by more than its noise explains.

    A block has two samples of each config, which should agree. If they do not, the speed changed within the block, and
    up to half of that change is in the block's ratio. The baseline should also take as long as in earlier blocks. If it
    does not, the machine is throttled, or was.

    Noise explains five standard deviations, but at least 3% within a block and 5% between blocks. The deviation is
    estimated from the median of the gaps and levels so far, which a few disturbed blocks do not move. Before eight gaps
    are known, only gaps of more than 25% count; before eight levels are known, no level counts.

    At most two blocks are refused. If the machine stays at its new speed, that speed is measured.

    Args:
        earlier: The baseline's earlier samples, in pairs.
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
        """A message about the blocks that stood out; empty for a steady machine."""
        seen = []
        if self._drifts:
            seen.append(f"the speed drifted by up to {max(self._drifts):.0%} within {_blocks(self._drifts)}")
        if self._shifts:
            seen.append(
                f"the baseline was up to {max(self._shifts):.0%} off its earlier times in {_blocks(self._shifts)}"
            )
        return f"unsteady machine: {' and '.join(seen)} ({self.repeated} repeated)" if seen else ""

    def accepts(self, baseline: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
        """Decide whether a block counts.

        Args:
            baseline: The baseline's two samples in the block.
            others: The two samples of each other config.
        """
        drift = max(map(_gap, (baseline, *others)))
        usual = float(np.median(self._levels)) if self._levels else _log_level(baseline)
        shift = abs(_log_level(baseline) - usual)
        is_drift = drift > _explained_by_noise(self._gaps, _LEAST_DRIFT, _UNKNOWN_DRIFT)
        is_shift = shift > _explained_by_noise([abs(level - usual) for level in self._levels], _LEAST_SHIFT, math.inf)
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
        self._levels.append(_log_level(baseline))


def _explained_by_noise(deviations: Sequence[float], least: float, unknown: float) -> float:
    """The deviation that noise explains: five times the standard deviation, estimated from absolute deviations."""
    if len(deviations) < _ENOUGH_KNOWN:
        return unknown
    return max(least, _DEVIATIONS * float(np.median(deviations)) / _MEDIAN_OF_NORMAL)


def _gap(pair: Sequence[float]) -> float:
    """The distance of a config's two samples: the absolute logarithm of their ratio."""
    return abs(math.log(pair[0] / pair[1]))


def _log_level(pair: Sequence[float]) -> float:
    return math.fsum(map(math.log, pair)) / len(pair)


def _blocks(sizes: Sequence[float]) -> str:
    return f"{len(sizes)} block{'' if len(sizes) == 1 else 's'}"
