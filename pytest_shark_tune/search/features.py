"""Features of configs: what a model learns from, derived from knobs' names and values and from the problem's facts.

Names follow the conventions of `stages.space` and of the compiler's own spaces, where ``i`` is a loop or the name
of a class of loops: ``wg_i``, ``dist_i`` and ``i_tile`` are elements in a workgroup's tile, ``red_i`` those of a
reduction's step, ``vec_i`` and ``thr_i`` those of a vector or a thread, ``sg_i`` a subgroup's, ``sg_i_cnt`` and
``lanes_i`` how many share a tile, ``wg_size_x`` threads. A knob of any other name is a feature like the rest, only
that nothing is derived from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_shark_tune.search.facts import ProblemFacts
from pytest_shark_tune.search.table import ConfigTable

__all__ = ["Column", "Features", "features_of"]

Column: TypeAlias = npt.NDArray[np.float64]
"""One number per config."""

_TILES = ("wg", "dist")
_PARTS = ("vec", "thr", "sg")
_MOST_WAVES = 32.0
"""Beyond this many workgroups for each processor the number of them is no longer felt."""


@dataclass(frozen=True, eq=False)
class Features:
    """Named columns, one row for each config, as an array of shape ``(rows, len(names))``.

    Sizes are logarithms to base 2. NaN stands where a pipeline has no such feature.
    """

    names: tuple[str, ...]
    values: Column


def features_of(
    table: ConfigTable, facts: ProblemFacts | None = None, names: tuple[str, ...] | None = None
) -> Features:
    """The features of every config of ``table``, the pipeline included, without those that are the same for all.

    With ``names``, those of another table, they are exactly these, and NaN where this table has no such feature.
    """
    knobs = _Knobs(table, facts or ProblemFacts())
    columns = {name: knobs.logs[name] for name in table.names}
    columns |= knobs.of_tiles() | knobs.of_threads() | knobs.of_memory() | knobs.of_workgroups()
    for code, pipeline in enumerate(table.pipeline_names):
        columns[f"pipeline {pipeline}"] = (table.pipelines == code).astype(np.float64)
    if names is not None:
        absent = np.full(len(table), np.nan)
        return Features(names, np.column_stack([columns.get(name, absent) for name in names]))
    kept = {name: column for name, column in columns.items() if not _is_constant(column)}
    values = np.column_stack(list(kept.values())) if kept else np.zeros((len(table), 0))
    return Features(tuple(kept), values)


class _Knobs:
    """The columns of a table by what they mean; sums of logarithms are products."""

    def __init__(self, table: ConfigTable, facts: ProblemFacts) -> None:
        self.facts = facts
        self.logs = {name: _log(table.values[:, position]) for position, name in enumerate(table.names)}
        self.rows = len(table)
        self.loops: dict[str, str] = {}
        self.tiles: dict[str, Column] = {}
        self.steps: dict[str, Column] = {}
        threads = []
        for name, log in self.logs.items():
            prefix, _, tail = name.rpartition("_")
            if name.startswith("wg_size_"):
                threads.append(log)
            elif prefix == "red" or (prefix == "vec" and self._reduces(tail)):
                self.steps[self._loop(tail)] = log
            elif prefix in _TILES:
                self.tiles[self._loop(tail)] = log
            elif tail == "tile":
                self.tiles[self._loop(prefix)] = log
        self.threads = np.nansum(threads, axis=0) if threads else None
        self.volume = self._sum(self.tiles.values())
        self.depth = self._sum(self.steps.values())

    def of_tiles(self) -> dict[str, Column]:
        """Of a workgroup's tile: its volume, shape and alignment, and how it is divided along each loop."""
        found: dict[str, Column] = {}
        if not self.tiles:
            return found
        found["tile volume"] = self.volume
        found["step volume"] = self.volume + self.depth
        names = list(self.tiles)
        for first, second in pairwise(names):
            found[f"aspect {first} {second}"] = self.tiles[first] - self.tiles[second]
        parts = []
        for loop in names:
            divided = self._divided(loop)
            if divided is not None:
                quotient, part = divided
                found[f"split {loop}"] = quotient
                parts.append(part)
        if len(parts) > 1:
            # Multiply-adds of a part of the tile, and those for each operand that it loads.
            found["part volume"] = np.sum(parts, axis=0)
            found["part intensity"] = found["part volume"] - _log_sum(parts)
        return found

    def of_threads(self) -> dict[str, Column]:
        """Of one thread: results that it keeps in registers, and multiply-adds of a step."""
        if self.threads is None or not self.tiles:
            vectors = [log for name, log in self.logs.items() if name.startswith(("vec_", "thr_"))]
            return {"vector volume": self._sum(vectors)} if vectors else {}
        kept = self.volume - self.threads
        return {"threads": self.threads, "results per thread": kept, "work per thread": kept + self.depth}

    def of_memory(self) -> dict[str, Column]:
        """Of the operands of a step: their bytes, in shared memory or cache, and the multiply-adds for each byte."""
        if not self.tiles:
            return {}
        sizes = self.tiles | self.steps
        if self.facts.operands:
            loaded = [
                self._sum([sizes[str(loop)] for loop in loops if str(loop) in sizes]) + np.log2(size)
                for loops, size in self.facts.operands
            ]
        else:
            loaded = [tile + self.depth for tile in self.tiles.values()]
        taken = _log_sum(loaded)
        found = {"operand bytes": taken, "intensity": self.volume + self.depth - taken}
        if self.threads is not None:
            found["bytes per thread"] = taken - self.threads
        return found

    def of_workgroups(self) -> dict[str, Column]:
        """How workgroups fill the processors, and what the last wave and ragged tiles waste; needs the loops."""
        sizes = self.facts.loops
        tiled = {int(loop): log for loop, log in self.tiles.items() if loop.isdigit() and int(loop) < len(sizes)}
        if not tiled:
            return {}
        counts = [np.ceil(sizes[loop] / np.exp2(np.nan_to_num(log))) for loop, log in tiled.items()]
        padded = [count * np.exp2(np.nan_to_num(log)) for count, log in zip(counts, tiled.values(), strict=True)]
        ragged = np.sum([np.log2(whole / sizes[loop]) for whole, loop in zip(padded, tiled, strict=True)], axis=0)
        found = {"ragged": ragged}
        for loop, log in self.steps.items():
            if loop.isdigit() and int(loop) < len(sizes):
                found[f"steps {loop}"] = np.log2(np.ceil(sizes[int(loop)] / np.exp2(log)))
        if self.facts.processors:
            waves = np.prod(counts, axis=0) / self.facts.processors
            found["waves"] = np.log2(np.minimum(waves, _MOST_WAVES))
            found["last wave"] = np.log2(np.ceil(waves) / waves)
        return found

    def _divided(self, loop: str) -> tuple[Column, Column] | None:
        """A workgroup's tile along a loop by the knob that divides it, and the size of a part; None without such.

        A knob either counts the parts or gives their size, in elements or in matrix instructions.
        """
        quotient = np.full(self.rows, np.nan)
        part = np.full(self.rows, np.nan)
        letters = self._letters(loop)
        for name, log in self.logs.items():
            prefix, _, tail = name.rpartition("_")
            counts = name in [f"sg_{letter}_cnt" for letter in letters]
            if counts or (prefix in _PARTS and self._loop(tail) == loop):
                quotient = np.where(np.isnan(log), quotient, self.tiles[loop] - log)
                part = np.where(np.isnan(log), part, self.tiles[loop] - log if counts else log)
        return None if np.isnan(quotient).all() else (quotient, part)

    def _letters(self, loop: str) -> list[str]:
        """The classes of dimensions that a loop belongs to; unless the facts tell, the last tiles are m's and n's."""
        if self.facts.dims:
            return [name for name, position in self.facts.dims.items() if str(position) == loop]
        return [letter for letter, other in zip(("n", "m"), reversed(self.tiles), strict=False) if other == loop]

    def _loop(self, tail: str) -> str:
        """A loop by its position, where a knob names it by its class and the facts tell which that is."""
        return str(self.facts.dims.get(tail, tail))

    def _reduces(self, tail: str) -> bool:
        return tail.isdigit() and int(tail) in self.facts.reductions

    def _sum(self, logs: Iterable[Column]) -> Column:
        stacked = list(logs)
        return np.nansum(stacked, axis=0) if stacked else np.zeros(self.rows)


def _log(values: Column) -> Column:
    """Logarithms to base 2, with -1 for 0, which switches and choices may be."""
    return np.asarray(np.log2(np.maximum(values, 0.5)))


def _log_sum(logs: list[Column]) -> Column:
    """The logarithm of a sum, of logarithms."""
    return np.asarray(np.log2(np.sum([np.exp2(np.nan_to_num(log)) for log in logs], axis=0)))


def _is_constant(column: Column) -> bool:
    given = column[~np.isnan(column)]
    return not given.size or bool(np.ptp(given) < 1e-9)
