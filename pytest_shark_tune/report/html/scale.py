"""Scales: the places of values on an axis, and the values that are written beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scale", "ratio_scale", "usable"]

_STEPS = (1, 2, 2.5, 5, 10)
_WIDE = 4.0
_FAR = 2.0
"""A bound is off the scale if it is so many times as far as all ratios."""


def usable(values: Iterable[float | None]) -> list[float]:
    """Return the values that have a place on a scale of times or ratios: those that are positive and finite."""
    return [value for value in values if value is not None and 0 < value < math.inf]


@dataclass(frozen=True)
class Scale:
    """A scale from ``low`` to ``high``, drawn from ``start`` to ``end``. Values beyond it are drawn at its ends."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        if not self.low < self.high:
            return (self.start + self.end) / 2
        value = min(max(value, self.low), self.high)
        if self.is_log:
            # Not the logarithms of quotients: those of very large and very small numbers are infinite.
            part = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Return about ``most`` round values on the scale."""
        if not self.low < self.high:
            return [self.low]
        if self.is_log and self.high / self.low > _WIDE:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                found = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) <= most:
                    return found
            return found[:: math.ceil(len(found) / most)]
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(digit * power for digit in _STEPS if digit * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def ratio_scale(ratios: Iterable[float | None], bounds: Iterable[float | None], start: float, end: float) -> Scale:
    """Return a logarithmic scale for ratios, with 1 on it.

    Args:
        ratios: The ratios, all of which are on the scale.
        bounds: The bounds of their intervals. A bound that is far from all ratios does not widen the scale much.
        start: The place of the smallest value.
        end: The place of the largest value.
    """
    centres = [*usable(ratios), 1.0]
    low = max(min([*centres, *usable(bounds), 0.98]), min(centres) / _FAR)
    high = min(max([*centres, *usable(bounds), 1.02]), max(centres) * _FAR)
    return Scale(low / 1.03, high * 1.03, start, end, is_log=True)
