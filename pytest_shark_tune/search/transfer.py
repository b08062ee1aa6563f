"""Features that carry over from one shape to another: the load that a config puts on the device.

`features` describes the configs of one dispatch, loop by loop. A prior compares dispatches of different shapes and ops.
Its features therefore have no loops in their names, and count sizes relative to the device.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pytest_shark_tune.search.facts import ProblemFacts
from pytest_shark_tune.search.features import Column
from pytest_shark_tune.search.table import ConfigTable

__all__ = ["TRANSFERRED", "transferred"]

_REGISTERS = 65536
"""The registers of 32 bits of a multiprocessor."""
_MOST_REGISTERS = 255.0
"""The most registers of a thread."""
_SHARED_BYTES = 228 * 1024
"""The shared memory of a multiprocessor of compute capability 9.0; others have 64 KiB or more (CUDA's guide)."""
_MOST_THREADS = 2048
"""The most threads of a multiprocessor."""
_MOST_WAVES = 5.0
"""The logarithm to base 2 of the waves beyond which more make no difference."""
_INTRINSIC_BYTES = 32
"""The bytes of an operand along k that a matrix instruction takes: 16 elements of f16, 32 of i8."""

TRANSFERRED = (
    "tile m",
    "tile n",
    "tile volume",
    "aspect",
    "step k",
    "steps",
    "threads",
    "subgroups m",
    "subgroups n",
    "results per thread",
    "work per thread",
    "vector m",
    "vector n",
    "vector k",
    "vector volume",
    "innermost tile",
    "shared bytes",
    "bytes per thread",
    "intensity",
    "traffic",
    "residents by registers",
    "residents by memory",
    "workgroups per processor",
    "waves",
    "last wave",
    "ragged",
    "distributes subgroups",
    "reduction tile in registers",
    "igemm",
    "stages",
    "intrinsic",
    "problem intensity",
    "problem steps",
    "problem workgroups",
)
"""The names of the features, in the order of the columns."""


def transferred(table: ConfigTable, facts: ProblemFacts) -> Column:
    """Derive the features of all configs of a table.

    Args:
        table: The configs.
        facts: The facts of the problem.

    Returns:
        An array of shape ``(rows, len(TRANSFERRED))``, with NaN for what the knobs or the facts do not tell. Sizes are
        logarithms to base 2.
    """
    columns = _Roles(table, facts).columns()
    absent = np.full(len(table), np.nan)
    return np.column_stack([columns.get(name, absent) for name in TRANSFERRED])


class _Roles:
    """The knobs of a table by the role of their loops: m, n, batch or k."""

    def __init__(self, table: ConfigTable, facts: ProblemFacts) -> None:
        self.facts = facts
        self.rows = len(table)
        self.knobs: dict[str, Column] = {name: table.values[:, place] for place, name in enumerate(table.names)}
        self.labels = [table.pipeline_names[code] for code in table.pipelines.tolist()]
        self.role = _roles_of(facts)
        inputs = facts.operands[:2]
        self.bytes = [size for _, size in inputs] if len(inputs) == 2 else [2.0, 2.0]
        self.tiles: dict[int, Column] = {}
        self.steps: dict[int, Column] = {}
        for name, values in self.knobs.items():
            prefix, _, tail = name.rpartition("_")
            loop = self._loop(tail)
            if name.startswith("wg_size_"):
                continue
            if tail == "tile":
                prefix, loop = "wg", self._loop(prefix)
            if prefix in ("wg", "dist") and loop is not None:
                self.tiles[loop] = values
            elif prefix == "red" and loop is not None:
                self.steps[loop] = self._elements(values)
            elif prefix == "vec" and loop in facts.reductions:
                assert loop is not None
                self.steps.setdefault(loop, values)

    def columns(self) -> dict[str, Column]:
        """Return all features that the knobs and the facts tell."""
        found: dict[str, Column] = {"distributes subgroups": self._says("VectorDistribute")}
        found["reduction tile in registers"] = self._says("RegisterTiling")
        for name, knob in {
            "stages": "prefetch_num_stages",
            "intrinsic": "mma_idx",
            "igemm": "use_igemm_idx",
        }.items():
            if knob in self.knobs:
                found[name] = self.knobs[knob]
        threads = self._threads()
        if self.tiles:
            found |= self._of_tiles(threads)
        found |= self._of_vectors()
        return found

    def _of_tiles(self, threads: Column | None) -> dict[str, Column]:
        sizes = self.facts.loops
        m, n, batch = (self._log_product(self.tiles, role) for role in ("m", "n", "batch"))
        k = self._log_product(self.steps, "k")
        volume = m + n + batch
        size_m, size_n = np.log2(self.bytes[0]), np.log2(self.bytes[1])
        step_bytes = np.logaddexp2(m + k + size_m, n + k + size_n) + batch
        found = {
            "tile m": m,
            "tile n": n,
            "tile volume": volume,
            "aspect": m - n,
            "step k": k + size_m,
            "shared bytes": step_bytes,
            "intensity": volume + k - step_bytes,
        }
        if threads is not None:
            kept = volume - threads
            found |= {"threads": threads, "results per thread": kept, "work per thread": kept + k}
            found["bytes per thread"] = step_bytes - threads
            registers = np.minimum(np.exp2(kept) + np.exp2(step_bytes - threads) / 4 + 32, _MOST_REGISTERS)
            by_registers = np.minimum(_REGISTERS / registers, _MOST_THREADS) / np.exp2(threads)
            by_memory = _SHARED_BYTES / np.exp2(step_bytes)
            found["residents by registers"] = np.log2(by_registers)
            found["residents by memory"] = np.log2(by_memory)
            found |= self._of_subgroups(m, n)
        if not sizes:
            return found
        total = {role: self._log_size(role) for role in ("m", "n", "batch", "k")}
        counts = np.zeros(self.rows)
        ragged = np.zeros(self.rows)
        for loop, values in self.tiles.items():
            count = np.ceil(sizes[loop] / np.nan_to_num(values, nan=1.0))
            counts += np.log2(count)
            ragged += np.where(np.isnan(values), 0.0, np.log2(count * np.nan_to_num(values, nan=1.0) / sizes[loop]))
        least = np.logaddexp2(total["m"] + total["k"] + size_m, total["n"] + total["k"] + size_n)
        found["ragged"] = ragged
        found["steps"] = total["k"] - k
        found["traffic"] = counts + (step_bytes - k) + total["k"] - least - total["batch"]
        found["problem intensity"] = np.full(self.rows, total["m"] + total["n"] + total["k"] - least)
        found["problem steps"] = np.full(self.rows, total["k"])
        if self.facts.processors:
            share = counts - np.log2(self.facts.processors)
            found["workgroups per processor"] = share
            found["waves"] = np.minimum(share, _MOST_WAVES)
            found["last wave"] = np.log2(np.ceil(np.exp2(share))) - share
            everything = total["m"] + total["n"] + total["batch"]
            found["problem workgroups"] = np.full(self.rows, everything - np.log2(self.facts.processors))
        return found

    def _of_subgroups(self, m: Column, n: Column) -> dict[str, Column]:
        """Return the number of subgroups along m and n, or the part of a tile that a subgroup computes."""
        found = {}
        for role, tile in (("m", m), ("n", n)):
            counted = self.knobs.get(f"sg_{role}_cnt")
            parts = {loop: self.knobs[f"sg_{loop}"] for loop in self.tiles if f"sg_{loop}" in self.knobs}
            by_parts = tile - self._log_product(parts, role) if parts else np.full(self.rows, np.nan)
            by_counts = np.full(self.rows, np.nan) if counted is None else np.log2(counted)
            found[f"subgroups {role}"] = np.where(np.isnan(by_counts), by_parts - 4, by_counts)
        return found

    def _of_vectors(self) -> dict[str, Column]:
        """Return the sizes of the vectors of a CPU's config; along n in bytes."""
        vectors = {
            loop: values
            for name, values in self.knobs.items()
            if name.startswith("vec_") and (loop := self._loop(name.rpartition("_")[2])) is not None
        }
        if not vectors:
            return {}
        m, n, k = (self._log_product(vectors, role) for role in ("m", "n", "k"))
        found = {"vector m": m, "vector n": n + np.log2(self.bytes[1]), "vector k": k, "vector volume": m + n}
        inner = max((loop for loop in self.tiles if self.role.get(loop) != "k"), default=None)
        if inner is not None:
            found["innermost tile"] = np.log2(self.tiles[inner])
        return found

    def _threads(self) -> Column | None:
        logs = [np.log2(values) for name, values in self.knobs.items() if name.startswith("wg_size_")]
        return np.asarray(np.nansum(logs, axis=0)) if logs else None

    def _elements(self, steps: Column) -> Column:
        """Return the steps of a reduction in elements: TileAndFuse counts them in matrix instructions."""
        if "mma_idx" not in self.knobs:
            return steps
        counted = np.array([label.startswith("TileAndFuse") for label in self.labels])
        return np.where(counted & ~np.isnan(self.knobs["mma_idx"]), steps * _INTRINSIC_BYTES / self.bytes[0], steps)

    def _says(self, word: str) -> Column:
        return np.array([word in label for label in self.labels], dtype=np.float64)

    def _loop(self, tail: str) -> int | None:
        """Return the position of a loop by its number, or by its class if the facts contain it."""
        if tail.isdigit():
            return int(tail) if not self.facts.loops or int(tail) < len(self.facts.loops) else None
        return self.facts.dims.get(tail)

    def _log_product(self, sizes: Mapping[int, Column], role: str) -> Column:
        """Return the logarithm of the product of the sizes along the loops of a role; absent sizes are 1."""
        logs = [np.log2(np.maximum(values, 0.5)) for loop, values in sizes.items() if self._has_role(loop, role)]
        return np.asarray(np.nansum(logs, axis=0)) if logs else np.zeros(self.rows)

    def _has_role(self, loop: int, role: str) -> bool:
        return self.role.get(loop) == role

    def _log_size(self, role: str) -> float:
        return sum(float(np.log2(self.facts.loops[loop])) for loop in self.role if self._has_role(loop, role))


def _roles_of(facts: ProblemFacts) -> dict[int, str]:
    """Return the role of each loop: m is in the first input only, n in the other only, batch in both, k is summed over.

    Of attention, whose second reduction the value shares, n is in the value only.
    """
    if not facts.loops:
        return dict(enumerate(("m", "n", "k")))
    parallel = [loop for loop in range(len(facts.loops)) if loop not in facts.reductions]
    # Without operands, the innermost loop is taken for that of n.
    spans = [set(loops) for loops, _ in facts.operands] or [set(parallel[:-1]), set(parallel[-1:])]
    first, others = spans[0], spans[1:]
    roles = {}
    for loop in range(len(facts.loops)):
        if loop in facts.reductions:
            roles[loop] = "k"
        elif any(loop in span for span in others):
            roles[loop] = "batch" if loop in first else "n"
        else:
            roles[loop] = "m"
    return roles
