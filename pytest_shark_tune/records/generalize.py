"""Generalizing: which entries of one op differ only in a size, and how few of their configs serve all of the sizes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from pytest_shark_tune.dispatch.types import LoopRange, RootOp
from pytest_shark_tune.records.types import WinnerRecord

__all__ = ["MOST_REGRET", "Family", "Run", "cover", "families", "general_record", "regret", "root_of", "span_of"]

MOST_REGRET: Final = 0.03
"""How much slower than with the best known config an op may be with the config of a general entry."""
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


def regret(ratios: Mapping[str, float], config: str) -> float:
    """Return how much slower an op is with a config than with the best known one.

    Args:
        ratios: The speed of each config relative to the default's. A config that fails is not in it.
        config: The config.
    """
    best = max(1.0, *ratios.values()) if ratios else 1.0
    return best / ratios[config] - 1 if config in ratios else math.inf


def cover(ratios: Sequence[Mapping[str, float]], *, limit: float = MOST_REGRET) -> list[Run]:
    """Cover all sizes with the fewest runs of neighbouring sizes that one config serves with a regret under ``limit``.

    The longest run from the left leaves the fewest for the rest. Of the configs that serve it, the one of the least
    mean regret is taken. A size that no config serves is in no run, so its own entry stays.

    Args:
        ratios: The speed of each config relative to the default's, for each size.
        limit: The most regret.
    """
    runs, first = [], 0
    while first < len(ratios):
        reach = {config: _reach(ratios, first, config, limit) for config in ratios[first]}
        last = max(reach.values(), default=first - 1)
        if last >= first:
            furthest = [config for config, end in reach.items() if end == last]
            runs.append(Run(first, last, min(furthest, key=lambda config: _total(ratios[first : last + 1], config))))
        first = max(first, last) + 1
    return runs


def _reach(ratios: Sequence[Mapping[str, float]], first: int, config: str, limit: float) -> int:
    """Return the last size up to which a config serves all sizes from ``first`` on."""
    last = first - 1
    while last + 1 < len(ratios) and regret(ratios[last + 1], config) < limit:
        last += 1
    return last


def _total(ratios: Sequence[Mapping[str, float]], config: str) -> float:
    return sum(regret(at_size, config) for at_size in ratios)


def span_of(loop: int, sizes: Sequence[int]) -> LoopRange:
    """Return the range of a loop's sizes with the greatest number that divides all of them."""
    return LoopRange(loop=loop, low=min(sizes), high=max(sizes), multiple=math.gcd(*sizes))


def general_record(family: Family, run: Run, ratios: Sequence[Mapping[str, float]]) -> WinnerRecord:
    """Return the record of the entry that takes the place of those of a run's sizes.

    It is that of the entry whose config it has, with the lowest speedup at any of the sizes.
    """
    members = family.records[run.first : run.last + 1]
    own = next((each for each in family.records if each.compilation_info == run.config), members[0])
    lowest = min(at_size[run.config] for at_size in ratios[run.first : run.last + 1])
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
