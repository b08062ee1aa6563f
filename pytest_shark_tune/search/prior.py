"""Priors: results of other shapes on devices of the same class, as data that a search can begin from.

A prior holds knobs and times, not a trained model: the trees are grown when it is used, so that no code is read from a
file, and features may change without the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search.facts import ProblemFacts
from pytest_shark_tune.search.features import Column
from pytest_shark_tune.search.table import ConfigTable
from pytest_shark_tune.search.transfer import transferred
from pytest_shark_tune.system.files import decode_json

__all__ = ["LeftOut", "Prior", "PriorConfigs", "PriorShape", "read_prior"]

PRIOR_SCHEMA: Final = 1
_MOST_ROWS = 4000
"""The most results that trees learn from; more are picked at even distances."""
_ATTENTION_INPUTS = 3
_NUMBER = re.compile(r"\d+")
_LABEL_END = re.compile(r"[ /]\d+$")

Nearness = Annotated[float, msgspec.Meta(ge=0, le=1)]


class PriorConfigs(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one pipeline."""

    pipeline: str
    knobs: tuple[str, ...]
    values: tuple[tuple[int | None, ...], ...]
    """The values of ``knobs``, a row for each config; ``None`` for a knob that a config lacks."""
    nearness: tuple[Nearness | None, ...]
    """The best time of the shape divided by the time of each config; ``None`` for one that failed."""


class PriorShape(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one dispatch."""

    dispatch: str
    facts: ProblemFacts
    configs: tuple[PriorConfigs, ...]

    def table(self) -> ConfigTable:
        """Return the configs in their order.

        Raises:
            InputError: a config is given twice, or there is none.
        """
        return ConfigTable.of(
            (part.pipeline, {name: value for name, value in zip(part.knobs, row, strict=True) if value is not None})
            for part in self.configs
            for row in part.values
        )

    def targets(self) -> Column:
        """Return the ratio to the best of each config, 0 for one that failed."""
        return np.array([value or 0.0 for part in self.configs for value in part.nearness])


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """The test of a prior on one shape, for which it was trained on all the others."""

    dispatch: str
    configs: int
    """The number of configs that the shape's landscape holds."""
    evals_to_5pct_median: float | None
    """The evaluations to within 5% of the best recorded, the median over seeds; ``None`` if most seeds ended before."""
    without: float | None
    """The same without a prior."""


class Prior(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Results of several shapes on devices of one class, by one release of IREE."""

    schema: int = PRIOR_SCHEMA
    device_class: str
    iree: str
    knobs: dict[str, tuple[str, ...]]
    """The kinds of knobs of each pipeline, with ``i`` for the number of a loop: the schema of the spaces."""
    test: tuple[LeftOut, ...] = ()
    """The figures of its own leave-one-shape-out test."""
    shapes: tuple[PriorShape, ...]

    @classmethod
    def of(cls, device_class: str, iree: str, shapes: Iterable[PriorShape], test: Iterable[LeftOut] = ()) -> Prior:
        """Make a prior of the results of ``shapes``."""
        found = tuple(shapes)
        kinds: dict[str, set[str]] = {}
        for shape in found:
            for part in shape.configs:
                name = _family_of(part.pipeline, shape.facts)
                kinds[name] = kinds.get(name, set(part_kinds := _kinds(part.knobs))) & part_kinds
        knobs = {name: tuple(sorted(part)) for name, part in sorted(kinds.items())}
        return cls(device_class=device_class, iree=iree, knobs=knobs, test=tuple(test), shapes=found)

    def misfit(self, device_class: str, iree: str) -> str:
        """Return why the prior says nothing about a device with a release of IREE; empty if it does."""
        if device_class != self.device_class:
            return f"it is for {self.device_class}, and this device is {device_class or 'of no known class'}"
        if _release(iree) != _release(self.iree):
            return f"it was trained with IREE {self.iree}, and this is {iree}"
        return ""

    def fitting_rows(self, table: ConfigTable, facts: ProblemFacts) -> npt.NDArray[np.bool_]:
        """Return which rows of a table have a pipeline, with all its knobs, that the prior has results of.

        Attention and other ops share pipelines, and nothing else.
        """
        fits = []
        for code, label in enumerate(table.pipeline_names):
            used = ~np.isnan(table.values[table.pipelines == code]).all(axis=0)
            there = _kinds(name for name, is_used in zip(table.names, used, strict=True) if is_used)
            known = self.knobs.get(_family_of(label, facts))
            fits.append(known is not None and set(known) <= there)
        return np.array(fits, dtype=np.bool_)[table.pipelines]

    def examples(self, facts: ProblemFacts) -> tuple[npt.NDArray[np.float64], Column]:
        """Return the features and the ratios to the best that tell about a problem: those of its kind of op."""
        return self._examples[_is_attention(facts)]

    @cached_property
    def _examples(self) -> Mapping[bool, tuple[npt.NDArray[np.float64], Column]]:
        found = {}
        for kind in (False, True):
            shapes = [shape for shape in self.shapes if _is_attention(shape.facts) == kind]
            if not shapes:
                continue
            rows = np.vstack([transferred(shape.table(), shape.facts) for shape in shapes])
            targets = np.concatenate([shape.targets() for shape in shapes])
            chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).astype(np.intp))
            found[kind] = rows[chosen], targets[chosen]
        return found

    def checked(self) -> Prior:
        """Return the prior itself.

        Raises:
            InputError: it is of another schema, or inconsistent.
        """
        if self.schema != PRIOR_SCHEMA:
            raise InputError(f"its schema is {self.schema}, and this version reads {PRIOR_SCHEMA}")
        if not self.shapes:
            raise InputError("it has no shape")
        for shape in self.shapes:
            places = {*shape.facts.reductions, *shape.facts.dims.values()}
            places |= {loop for loops, _ in shape.facts.operands for loop in loops}
            if (
                any(not 0 <= place < len(shape.facts.loops) for place in places)
                or min(shape.facts.loops, default=1) < 1
            ):
                raise InputError(f"{shape.dispatch}: the facts contradict each other")
            if any(size <= 0 for _, size in shape.facts.operands) or shape.facts.processors < 0:
                raise InputError(f"{shape.dispatch}: sizes must be positive")
            for part in shape.configs:
                if len(part.values) != len(part.nearness) or {len(row) for row in part.values} - {len(part.knobs)}:
                    raise InputError(f"{shape.dispatch}: the tables of {part.pipeline} have different lengths")
            shape.table()
        return self


def read_prior(content: bytes) -> Prior:
    """Read the content of a prior's file.

    Raises:
        InputError: it is no prior.
    """
    return decode_json(content, Prior).checked()


def _family_of(label: str, facts: ProblemFacts) -> str:
    """Return the name of a pipeline without the number of its space, and whether attention has it."""
    return _LABEL_END.sub("", label) + (" of attention" if _is_attention(facts) else "")


def _is_attention(facts: ProblemFacts) -> bool:
    return len(facts.operands) >= _ATTENTION_INPUTS


def _kinds(names: Iterable[str]) -> set[str]:
    return {_NUMBER.sub("i", name) for name in names}


def _release(version: str) -> str:
    return ".".join(version.split(".")[:2])
