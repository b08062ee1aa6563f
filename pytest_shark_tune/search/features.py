"""Features of configs, from which a model learns. They are derived from knobs and from the facts of the problem.

Names of knobs follow the conventions of `search_space` and of the compiler's own spaces. In these, ``i`` is a loop or
the name of a class of loops:

- ``wg_i``, ``dist_i`` and ``i_tile``: elements in a workgroup's tile;
- ``red_i``: elements in a step of a reduction;
- ``vec_i``, ``thr_i`` and ``sg_i``: elements of a vector, a thread and a subgroup;
- ``sg_i_cnt`` and ``lanes_i``: the number of subgroups or lanes that share a tile;
- ``wg_size_x``: threads.

A knob of any other name is a feature too, but no other features are derived from it.
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

__all__ = ["Column", "Features", "features_of", "for_trees"]

Column: TypeAlias = npt.NDArray[np.float64]
"""One number per config."""

_TILES = ("wg", "dist")
_PARTS = ("vec", "thr", "sg")
_ABSENT = -8.0
"""The value in trees of a feature that a pipeline lacks, less than any possible value."""
_MOST_WAVES = 32.0
"""The number of workgroups per processor beyond which more make no difference."""


@dataclass(frozen=True, eq=False)
class Features:
    """Named columns with one row per config. Sizes are logarithms to base 2."""

    names: tuple[str, ...]
    values: Column
    """An array of shape ``(rows, len(names))``, with NaN for features that a pipeline lacks."""


def features_of(
    table: ConfigTable, facts: ProblemFacts | None = None, names: tuple[str, ...] | None = None
) -> Features:
    """Derive the features of all configs of a table, the pipeline included.

    Args:
        table: The configs.
        facts: The facts of the problem.
        names: The features to return, from another table; NaN replaces features that this table lacks. By default, all
            features that differ between configs are returned.
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


def for_trees(values: Column) -> npt.NDArray[np.float32]:
    """Return the values of features in the form for trees."""
    return np.nan_to_num(values, nan=_ABSENT).astype(np.float32)


class _Knobs:
    """The columns of a table by their meaning, as logarithms; sums of logarithms are products."""

    def __init__(self, table: ConfigTable, facts: ProblemFacts) -> None:
        self.facts = facts
        # Some switches and choices are 0: their logarithm is -1.
        logs = np.log2(np.maximum(table.values, 0.5))
        self.logs: dict[str, Column] = {name: logs[:, position] for position, name in enumerate(table.names)}
        self.rows = len(table)
        self.loops: dict[str, str] = {}
        self.tiles: dict[str, Column] = {}
        self.steps: dict[str, Column] = {}
        threads = []
        for name, log in self.logs.items():
            prefix, _, tail = name.rpartition("_")
            if name.startswith("wg_size_"):
                threads.append(log)
            elif prefix == "red" or (prefix == "vec" and tail in map(str, facts.reductions)):
                self.steps[self._loop(tail)] = log
            elif prefix in _TILES:
                self.tiles[self._loop(tail)] = log
            elif tail == "tile":
                self.tiles[self._loop(prefix)] = log
        self.threads = np.nansum(threads, axis=0) if threads else None
        self.volume = self._sum(self.tiles.values())
        self.depth = self._sum(self.steps.values())

    def of_tiles(self) -> dict[str, Column]:
        """Return features of a workgroup's tile: its volume and shape, and its division along loops."""
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
            divided = self._divide(loop)
            if divided is not None:
                quotient, part = divided
                found[f"split {loop}"] = quotient
                parts.append(part)
        if len(parts) > 1:
            # The multiply-adds of a part of the tile, in total and per operand that it loads.
            found["part volume"] = np.sum(parts, axis=0)
            found["part intensity"] = found["part volume"] - _log_sum(parts)
        return found

    def of_threads(self) -> dict[str, Column]:
        """Return features of one thread: the results that it keeps in registers, and the multiply-adds of a step."""
        if self.threads is None or not self.tiles:
            vectors = [log for name, log in self.logs.items() if name.startswith(("vec_", "thr_"))]
            return {"vector volume": self._sum(vectors)} if vectors else {}
        kept = self.volume - self.threads
        return {"threads": self.threads, "results per thread": kept, "work per thread": kept + self.depth}

    def of_memory(self) -> dict[str, Column]:
        """Return features of the operands of a step: their bytes in shared memory or cache, and the intensity."""
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
        """Return how workgroups fill the processors, and the waste of the last wave and of ragged tiles."""
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

    def _divide(self, loop: str) -> tuple[Column, Column] | None:
        """Divide a workgroup's tile along a loop by the knob that divides it.

        Returns:
            The quotient and the size of a part, or ``None`` if there is no such knob. A knob either counts the parts or
            is their size, in elements or in matrix instructions.
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
        """Return the classes of dimensions of a loop. Without facts, the last tiles are taken for those of m and n."""
        if self.facts.dims:
            return [name for name, position in self.facts.dims.items() if str(position) == loop]
        return [letter for letter, other in zip(("n", "m"), reversed(self.tiles), strict=False) if other == loop]

    def _loop(self, tail: str) -> str:
        """Return the position of a loop that a knob names by its class, if the facts contain it."""
        return str(self.facts.dims.get(tail, tail))

    def _sum(self, logs: Iterable[Column]) -> Column:
        stacked = list(logs)
        return np.nansum(stacked, axis=0) if stacked else np.zeros(self.rows)


def _log_sum(logs: list[Column]) -> Column:
    """Return the logarithm of the sum of numbers that are given by their logarithms."""
    return np.asarray(np.log2(np.sum([np.exp2(np.nan_to_num(log)) for log in logs], axis=0)))


def _is_constant(column: Column) -> bool:
    given = column[~np.isnan(column)]
    return not given.size or bool(np.ptp(given) < 1e-9)
