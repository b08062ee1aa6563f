"""The configs that a search chooses from, as columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space.space import SearchSpace, SpaceTooLarge

__all__ = ["MOST_CONFIGS", "ConfigTable", "pipeline_label", "table_of_spaces"]

MOST_CONFIGS = 30_000
"""The most configs that a search chooses from; of larger spaces, a uniform sample of this size is taken."""


def pipeline_label(pipeline: str, space: int) -> str:
    """Return the name of a pipeline in tables; ``space`` distinguishes two spaces of a dispatch with one pipeline."""
    return f"{pipeline}/{space}"


_Part = tuple[str, Sequence[str], npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class ConfigTable:
    """Configs of one dispatch, of any number of pipelines, one per row."""

    pipeline_names: tuple[str, ...]
    pipelines: npt.NDArray[np.intp]
    """The pipeline of each row, as a position in ``pipeline_names``."""
    names: tuple[str, ...]
    """The names of the knobs."""
    values: npt.NDArray[np.float64]
    """An array of shape ``(rows, len(names))``, with NaN for knobs that a row's pipeline lacks."""
    note: str = ""
    """A message if these are not all configs."""

    def __len__(self) -> int:
        """Return the number of configs."""
        return len(self.values)

    @classmethod
    def of(cls, configs: Iterable[tuple[str, Mapping[str, int]]]) -> ConfigTable:
        """Make a table of configs, given as pairs of a pipeline and knobs.

        Raises:
            InputError: There is no config, or one is given twice.
        """
        rows = list(configs)
        pipelines = tuple(dict.fromkeys(pipeline for pipeline, _ in rows))
        parts = []
        order = []
        for pipeline in pipelines:
            positions = [position for position, (other, _) in enumerate(rows) if other == pipeline]
            names = tuple(dict.fromkeys(name for position in positions for name in rows[position][1]))
            values = [[rows[position][1].get(name, np.nan) for name in names] for position in positions]
            parts.append((pipeline, names, np.array(values, dtype=np.float64).reshape(len(positions), len(names))))
            order += positions
        table = cls._join(parts)
        back = np.argsort(order)
        return cls(table.pipeline_names, table.pipelines[back], table.names, table.values[back])

    @classmethod
    def _join(cls, parts: Sequence[_Part], note: str = "") -> ConfigTable:
        """Make one table of parts: a pipeline, the names of its knobs and their values."""
        pipelines = tuple(dict.fromkeys(pipeline for pipeline, _, _ in parts))
        names = tuple(dict.fromkeys(name for _, part, _ in parts for name in part))
        count = sum(len(values) for _, _, values in parts)
        if not count:
            raise InputError("there is no config to search among")
        joined = np.full((count, len(names)), np.nan)
        codes = np.empty(count, dtype=np.intp)
        start = 0
        for pipeline, part, values in parts:
            end = start + len(values)
            codes[start:end] = pipelines.index(pipeline)
            joined[start:end, [names.index(name) for name in part]] = values
            start = end
        # np.unique takes two NaN for different values, so another value replaces them.
        keyed = np.column_stack([codes, np.nan_to_num(joined, nan=-1.0)])
        if len(np.unique(keyed, axis=0)) < count:
            raise InputError("a config is given twice: a search tells results by their knobs")
        return cls(pipelines, codes, names, joined, note)

    def knobs(self, index: int) -> dict[str, int]:
        """Return the knobs of a row, as whole numbers."""
        row = self.values[index].tolist()
        return {name: int(value) for name, value in zip(self.names, row, strict=True) if not math.isnan(value)}

    def pipeline(self, index: int) -> str:
        """Return the pipeline of a row."""
        return self.pipeline_names[int(self.pipelines[index])]


def table_of_spaces(spaces: Sequence[SearchSpace], *, most: int = MOST_CONFIGS, seed: int = 0) -> ConfigTable:
    """Make a table of all configs of ``spaces``, or of a uniform sample of about ``most`` configs.

    The size of a space that is too large to list is unknown: such a space gets an even share of ``most``.
    """
    sizes = [_size(space) for space in spaces]
    known = sum(size for size in sizes if size is not None)
    even = most // len(spaces)
    room = most - even * sizes.count(None)
    parts = []
    for space, size in zip(spaces, sizes, strict=True):
        share = even if size is None else size if known <= room else max(1, round(room * size / known))
        listed = space.members() if share == size else [[*row.values()] for row in space.sample(share, seed)]
        parts.append((space.pipeline, space.names, np.asarray(listed, dtype=np.float64)))
    taken = sum(len(values) for _, _, values in parts)
    whole = f"more than {known}" if None in sizes else str(known)
    note = "" if None not in sizes and taken == known else f"a uniform sample of {taken} of {whole} configs"
    return ConfigTable._join(parts, note)


def _size(space: SearchSpace) -> int | None:
    try:
        return len(space)
    except SpaceTooLarge:
        return None
