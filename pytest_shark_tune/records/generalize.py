"""Generalizing: which entries of one op differ only in a size, and how few of their configs serve all of the sizes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Final, NamedTuple, TypeAlias

from msgspec.structs import replace

from pytest_shark_tune.dispatch.types import LoopRange, RootOp
from pytest_shark_tune.measurement.intervals import trimmed_interval
from pytest_shark_tune.records.types import WinnerRecord

__all__ = [
    "ENOUGH_ROUNDS",
    "MOST_REGRET",
    "MOST_ROUNDS",
    "Family",
    "Logs",
    "Regret",
    "Run",
    "cover",
    "families",
    "general_record",
    "joint_regret",
    "regret_of",
    "root_of",
    "span_of",
]

MOST_REGRET: Final = 0.03
"""How much slower than with its own entry an op may be with the config of a general entry."""
ENOUGH_ROUNDS: Final = 6
"""The rounds after which a regret under the limit is believed, although its interval reaches over it."""
MOST_ROUNDS: Final = 16
"""The rounds after which a regret that cannot be told from none is left at that."""
_LIMIT = math.log1p(MOST_REGRET)
_ALPHA = 0.02
"""The error of an interval. There are many, and each is looked at several times."""
_MOST_CONFIGS = 8


class Family(NamedTuple):
    """Entries of one contraction that differ in the size of one loop."""

    loop: int
    """The position of the loop."""
    records: tuple[WinnerRecord, ...]
    """Their records, by rising size."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the loop."""
        return tuple(root_of(record).loops[self.loop] for record in self.records)

    @property
    def configs(self) -> tuple[str, ...]:
        """The compilation infos that are tried at every size: all of them, or a few from evenly distributed sizes."""
        found = list(dict.fromkeys(record.compilation_info for record in self.records))
        if len(found) <= _MOST_CONFIGS:
            return tuple(found)
        step = (len(found) - 1) / (_MOST_CONFIGS - 1)
        return tuple(found[round(step * number)] for number in range(_MOST_CONFIGS))

    def __str__(self) -> str:
        """Return one line for people."""
        sizes = ", ".join(map(str, self.sizes))
        return f"{len(self.records)} entries like {self.records[0].dispatch} differ in loop {self.loop}: {sizes}"


class Run(NamedTuple):
    """Neighbouring sizes of a family that one config serves."""

    first: int
    """The position of the first size."""
    last: int
    """The position of the last size."""
    config: str
    """The compilation info."""


def root_of(record: WinnerRecord) -> RootOp:
    """Return the op of a record that has one."""
    assert record.root is not None
    return record.root


def families(records: Iterable[WinnerRecord]) -> list[Family]:
    """Return the families among the entries of these records, each entry in one of them, the largest families first.

    Families are of contractions: the matchers of other ops compare the whole op. Entries for several sizes, and those
    for other targets or devices, have no part in them.
    """
    left = [record for record in records if _may_join(record)]
    found = []
    while left:
        groups: defaultdict[tuple[int, tuple[object, ...]], list[WinnerRecord]] = defaultdict(list)
        for record in left:
            for loop in range(len(root_of(record).loops)):
                groups[loop, _apart_from(record, loop)].append(record)
        (loop, _), members = max(groups.items(), key=lambda group: len(group[1]))
        if len(members) < 2:
            break
        found.append(Family(loop, tuple(sorted(members, key=_size_of(loop)))))
        taken = {id(member) for member in members}
        left = [record for record in left if id(record) not in taken]
    return found


def _size_of(loop: int) -> Callable[[WinnerRecord], int]:
    return lambda record: root_of(record).loops[loop]


def _may_join(record: WinnerRecord) -> bool:
    root = record.root
    return root is not None and root.kind == "contraction" and not root.loops_of_many_sizes


def _apart_from(record: WinnerRecord, loop: int) -> tuple[object, ...]:
    """Return everything that a record's entry asks of an op and its machine, apart from the size of one loop."""
    root = root_of(record)
    loops = tuple(size for position, size in enumerate(root.loops) if position != loop)
    elements = tuple(tensor.element for tensor in (*root.inputs, *root.outputs))
    return (record.target, record.device, root.iterators, root.maps, loops, elements)


class Regret(NamedTuple):
    """How much slower an op is with a config than with its own entry, as the logarithm of the ratio of times."""

    centre: float
    """The estimate."""
    low: float
    """The lower bound of its interval."""
    high: float
    """The upper bound."""
    rounds: int
    """The number of rounds that it was measured in."""

    @classmethod
    def of(cls, differences: Sequence[float]) -> Regret:
        """Return the regret by its differences in several rounds."""
        if not differences:
            return cls(math.inf, math.inf, math.inf, 0)
        return cls(*trimmed_interval(differences, _ALPHA), rounds=len(differences))

    @property
    def is_missed(self) -> bool:
        """Whether the config is slower by more than the limit, beyond the noise."""
        return self.centre >= _LIMIT and self.low > 0

    @property
    def is_open(self) -> bool:
        """Whether more rounds may tell: the interval holds both no regret at all and one over the limit."""
        if self.is_missed or self.high < _LIMIT:
            return False
        return self.rounds < ENOUGH_ROUNDS or (self.centre >= _LIMIT and self.rounds < MOST_ROUNDS)

    @property
    def text(self) -> str:
        """The regret for people."""
        return f"{math.expm1(self.centre):.1%} ({math.expm1(self.low):.1%} to {math.expm1(self.high):.1%})"


Logs: TypeAlias = Mapping[str, Mapping[int, float]]
"""The logarithms of the speeds of configs relative to the default's at one size, by config and round."""


def regret_of(logs: Logs, config: str, own: str) -> Regret:
    """Return the regret of a config at a size, in the rounds that measured both.

    The best of many configs is best by luck, too, so the reference is one that was chosen before: the size's own entry,
    or the default where it is faster than that.

    Args:
        logs: The measurements at the size.
        config: The config.
        own: The config of the size's own entry.
    """
    if config not in logs:
        return Regret.of(())
    reference = logs.get(own, {})
    if not reference or fmean(reference.values()) < 0:
        return Regret.of(tuple(-log for log in logs[config].values()))
    shared = logs[config].keys() & reference.keys()
    return Regret.of(tuple(reference[number] - logs[config][number] for number in sorted(shared)))


def cover(regrets: Sequence[Mapping[str, Regret]]) -> list[Run]:
    """Cover all sizes with the fewest runs of neighbouring sizes that one config serves with a regret under the limit.

    A config serves a run if it misses the limit at no size of it, and keeps it on the average of the sizes: the regret
    at one size is known less well than that of the neighbours together. The longest run from the left leaves the fewest
    for the rest. Of the configs that serve it, the one of the least mean regret is taken. A size that no config serves
    is in no run, so its own entry stays.

    Args:
        regrets: The regret of each config that runs at all, for each size.
    """
    runs, first = [], 0
    while first < len(regrets):
        reach = {config: _reach(regrets, first, config) for config in regrets[first]}
        last = max(reach.values(), default=first - 1)
        if last >= first:
            furthest = [config for config, end in reach.items() if end == last]
            runs.append(Run(first, last, min(furthest, key=lambda config: _mean(regrets[first : last + 1], config))))
        first = max(first, last) + 1
    return runs


def _reach(regrets: Sequence[Mapping[str, Regret]], first: int, config: str) -> int:
    """Return the last size up to which a config serves all sizes from ``first`` on."""
    last = first - 1
    while last + 1 < len(regrets) and config in regrets[last + 1] and not regrets[last + 1][config].is_missed:
        last += 1
    while last >= first and _mean(regrets[first : last + 1], config) >= _LIMIT:
        last -= 1
    return last


def _mean(regrets: Sequence[Mapping[str, Regret]], config: str) -> float:
    return fmean(at_size[config].centre for at_size in regrets)


def joint_regret(regrets: Sequence[Mapping[str, Regret]], run: Run) -> Regret:
    """Return the mean regret over the sizes of a run, and how well the mean is known."""
    found = [at_size[run.config] for at_size in regrets[run.first : run.last + 1]]
    centre = fmean(each.centre for each in found)
    half = math.sqrt(math.fsum((each.high - each.centre) ** 2 for each in found)) / len(found)
    return Regret(centre, centre - half, centre + half, min(each.rounds for each in found))


def span_of(loop: int, sizes: Sequence[int]) -> LoopRange:
    """Return the range of a loop's sizes with the greatest number that divides all of them."""
    return LoopRange(loop=loop, low=min(sizes), high=max(sizes), multiple=math.gcd(*sizes))


def general_record(family: Family, run: Run, measured: Sequence[Logs]) -> WinnerRecord:
    """Return the record of the entry that takes the place of those of a run's sizes.

    It is that of the entry whose config it has, with the lowest speedup at any of the sizes.
    """
    members = family.records[run.first : run.last + 1]
    own = next((each for each in family.records if each.compilation_info == run.config), members[0])
    lowest = math.exp(min(fmean(logs[run.config].values()) for logs in measured[run.first : run.last + 1]))
    span = span_of(family.loop, family.sizes[run.first : run.last + 1])
    return replace(
        own,
        dispatch=f"{members[0].dispatch}_to_{span.high}",
        root=replace(root_of(members[-1]), ranges=(span,)),
        weight=sum(member.weight for member in members),
        ops=tuple(dict.fromkeys(op for member in members for op in member.ops)),
        ratio=lowest,
        ratio_low=min(lowest, own.ratio_low) if own.ratio_low is not None else None,
        content="",
    )
