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
"""The most configs that a search chooses from; of more, a uniform sample of this many is taken."""


def pipeline_label(pipeline: str, space: int) -> str:
    """What tables call a pipeline: two spaces of one pipeline, by position among a dispatch's, are told apart."""
    return f"{pipeline}/{space}"


_Part = tuple[str, Sequence[str], npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class ConfigTable:
    """Configs of one dispatch, of any number of pipelines, one in each row.

    ``values`` is a float64 array of shape ``(rows, len(names))`` with NaN where a row's pipeline lacks the knob;
    ``pipelines`` are the rows' pipelines, positions in ``pipeline_names``. ``note`` says in words where these are not
    all the configs that there are.
    """

    pipeline_names: tuple[str, ...]
    pipelines: npt.NDArray[np.intp]
    names: tuple[str, ...]
    values: npt.NDArray[np.float64]
    note: str = ""

    def __len__(self) -> int:
        """The number of configs."""
        return len(self.values)

    @classmethod
    def of(cls, configs: Iterable[tuple[str, Mapping[str, int]]]) -> ConfigTable:
        """A table of pipelines with knobs.

        Raises:
            InputError: there is no config, or one is given twice.
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
        table = cls._joined(parts)
        back = np.argsort(order)
        return cls(table.pipeline_names, table.pipelines[back], table.names, table.values[back])

    @classmethod
    def _joined(cls, parts: Sequence[_Part], note: str = "") -> ConfigTable:
        """One table of parts, each a pipeline with its knobs' names and values."""
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
        # NaN is no value of a knob, and np.unique takes two of them for different.
        keyed = np.column_stack([codes, np.nan_to_num(joined, nan=-1.0)])
        if len(np.unique(keyed, axis=0)) < count:
            raise InputError("a config is given twice: a search tells results by their knobs")
        return cls(pipelines, codes, names, joined, note)

    def knobs(self, index: int) -> dict[str, int]:
        """The knobs of a row, as whole numbers."""
        row = self.values[index].tolist()
        return {name: int(value) for name, value in zip(self.names, row, strict=True) if not math.isnan(value)}

    def pipeline(self, index: int) -> str:
        """The pipeline of a row."""
        return self.pipeline_names[int(self.pipelines[index])]


def table_of_spaces(spaces: Sequence[SearchSpace], *, most: int = MOST_CONFIGS, seed: int = 0) -> ConfigTable:
    """Every config of ``spaces``; where there are more than ``most``, a uniform sample of about that many.

    Of a space too large to list it is not known how many there are: it gets an even share of ``most``.
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
    return ConfigTable._joined(parts, note)


def _size(space: SearchSpace) -> int | None:
    try:
        return len(space)
    except SpaceTooLarge:
        return None
