"""The campaign: which dispatch, and which of its candidates, is tried next, and when enough have been; no pytest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pytest_shark_tune.stages.search import Outcome, Search

__all__ = ["Campaign", "Quarry"]

_FIRST = 8
"""How many candidates of each dispatch are tried before gains are compared."""


@dataclass
class Quarry:
    """One dispatch in a campaign.

    ``tests`` are the indices of its candidates' tests by position in the plan, those that are not collected left out;
    ``default`` is the index of its default's test. ``most`` is how many candidates are tried at most, those that are
    known already included.
    """

    name: str
    weight: int
    search: Search
    tests: Mapping[int, int]
    default: int | None
    most: int
    baseline_us: float | None = None
    tried: int = 0
    coming: deque[int] = field(default_factory=deque)
    under_way: set[int] = field(default_factory=set)

    @property
    def worth(self) -> float:
        """Microseconds that the next candidate is expected to save in the whole; without a baseline, no one knows."""
        if self.tried < _FIRST or self.baseline_us is None:
            return float("inf")
        return self.weight * self.baseline_us * self.search.expected_gain


class Campaign:
    """Chooses the candidates' tests of a run, by index into the collection.

    Defaults come first. Then whoever is expected to gain most gets the next ``stretch`` candidates, which are compiled
    together. ``is_spent`` tells that the time is used up. ``announce`` is told, for a dispatch, the positions that
    come next, in order.
    """

    def __init__(
        self,
        quarries: Mapping[str, Quarry],
        *,
        stretch: int,
        is_spent: Callable[[], bool] = lambda: False,
        announce: Callable[[str, tuple[int, ...]], None] = lambda name, coming: None,
    ) -> None:
        self._quarries = quarries
        self._stretch = stretch
        self._is_spent = is_spent
        self._announce = announce
        self._first = deque(each.default for each in quarries.values() if each.default is not None)
        self._returned: deque[int] = deque()
        self._turn: Quarry | None = None
        self._spent = False

    @property
    def is_done(self) -> bool:
        """Whether nothing more is wanted: time, candidates or expected gain are spent."""
        if self._first or self._returned:
            return False
        self._spent = self._spent or self._is_spent()
        return self._spent or self._ready() is None

    def take(self) -> int:
        """The index of the next test."""
        if self._returned:
            return self._returned.popleft()
        if self._first:
            return self._first.popleft()
        quarry = self._ready()
        assert quarry is not None
        position = quarry.coming.popleft()
        quarry.under_way.add(position)
        return quarry.tests[position]

    def give_back(self, index: int) -> None:
        """Take back a test that was not run; it is the next one."""
        self._returned.appendleft(index)

    def tell_default(self, name: str, baseline_us: float | None) -> None:
        """What the default of a dispatch takes; ``None`` where it cannot be measured, so nothing else can."""
        quarry = self._quarries[name]
        quarry.baseline_us = baseline_us
        if baseline_us is None:
            quarry.most = 0
            quarry.coming.clear()

    def tell(self, name: str, position: int, ratio: float | None) -> None:
        """What came of a candidate, measured in this run or known from before."""
        quarry = self._quarries[name]
        quarry.under_way.discard(position)
        quarry.tried += 1
        quarry.search.tell([Outcome(position, ratio)])

    def why_stopped(self, name: str) -> str:
        """Why no more candidates of a dispatch were tried, in words; empty where they all were."""
        quarry = self._quarries[name]
        if self._spent and quarry.tried < min(quarry.most, len(quarry.tests)):
            return "--tune-time was spent"
        if quarry.tried >= len(quarry.tests):
            return ""
        return quarry.search.stop_reason or "--tune-candidates were tried"

    def _ready(self) -> Quarry | None:
        """The dispatch whose turn it is, with something to try next."""
        if self._turn is None or not self._turn.coming:
            self._turn = None
            for quarry in sorted(self._quarries.values(), key=lambda each: (-each.worth, each.tried)):
                if self._fill(quarry):
                    self._turn = quarry
                    break
        return self._turn

    def _fill(self, quarry: Quarry) -> bool:
        if not quarry.coming:
            room = quarry.most - quarry.tried - len(quarry.under_way)
            asked = quarry.search.ask(min(self._stretch, room)) if room > 0 else []
            quarry.coming.extend(asked)
            if asked:
                self._announce(quarry.name, tuple(asked))
        return bool(quarry.coming)
