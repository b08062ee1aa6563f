"""Two runs side by side, base and head: the rows that changed, and how surely their speed did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from pytest_shark_tune.system.units import format_us

__all__ = ["Comparison", "Ratio", "Row", "Verdict", "speed_verdict", "timed"]


class Verdict(Enum):
    """The verdict on a row, those that need attention first."""

    BROKEN = "broken"
    LOST = "lost its entry"
    LESS = "gains less"
    UNDECIDED = "undecided"
    UNCHECKED = "checked less"
    GONE = "gone"
    MENDED = "mended"
    ENTRY = "new entry"
    MORE = "gains more"
    CHECKED = "checked more"
    ADDED = "new"


@dataclass(frozen=True)
class Ratio:
    """A ratio and its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float | None, low: float | None, high: float | None) -> Ratio | None:
        """Return the ratio if all three are positive and finite, else ``None``."""
        if value is None or low is None or high is None:
            return None
        return cls(value, low, high) if all(0 < number < math.inf for number in (value, low, high)) else None

    def over(self, other: Ratio) -> Ratio:
        """Return the quotient of two ratios of independent runs: the widths of their logarithms add up in squares."""
        down = math.hypot(math.log(self.value / self.low), math.log(other.high / other.value))
        up = math.hypot(math.log(self.high / self.value), math.log(other.value / other.low))
        quotient = self.value / other.value
        return Ratio(quotient, quotient * math.exp(-down), quotient * math.exp(up))

    def __str__(self) -> str:
        """Return the text of the ratio, as in ``1.27x (1.20 to 1.35)``."""
        return f"{self.value:.2f}x ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Row:
    """One thing that changed: a dispatch, a model or an entry."""

    name: str
    base: str
    head: str
    change: Ratio | None
    """The speedup in head divided by that in base, if both were measured."""
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two runs."""

    base: str
    """The name of the base run."""
    head: str
    what: tuple[str, str]
    """The name of the things that were compared, in singular and plural."""
    count: int
    """The number of things in either run."""
    rows: Sequence[Row]
    where: str = ""
    """The circumstances, in words, with both values of those that differ."""
    note: str = ""
    """A sentence about less than a change, such as another config of the same speed."""

    @property
    def counted(self) -> str:
        """The number of things, in words."""
        return f"{self.count} {self.what[self.count != 1]}"

    @property
    def sorted_rows(self) -> list[Row]:
        """The rows that need attention first; among those of one verdict, the largest change first."""
        order = list(Verdict)
        return sorted(self.rows, key=lambda row: (order.index(row.verdict), -_size(row.change), row.name))


def speed_verdict(base: Ratio | None, head: Ratio | None) -> tuple[Ratio | None, Verdict | None]:
    """Return the quotient of two speedups, and a verdict if its interval excludes 1."""
    if base is None or head is None:
        return None, None
    change = head.over(base)
    if change.high < 1:
        return change, Verdict.LESS
    return change, Verdict.MORE if change.low > 1 else None


def timed(ratio: Ratio | None, time_us: float | None) -> str:
    """Return a speedup with its time, as in ``5.3 ms, 2.35x (1.27 to 4.34)``."""
    parts = [format_us(time_us)] if time_us is not None else []
    return ", ".join([*parts, *([str(ratio)] if ratio is not None else [])])


def _size(change: Ratio | None) -> float:
    return abs(math.log(change.value)) if change is not None else 0.0
