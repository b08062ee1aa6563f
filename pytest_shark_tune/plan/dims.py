"""Sizes that a user gives for open dimensions of a model's inputs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pytest_shark_tune.dispatch.types import SizePoint
from pytest_shark_tune.errors import InputError

__all__ = ["DIM", "parse_dims", "points_of"]

DIM = "--tune-dim"
"""The option that gives such sizes."""

_SIZES = re.compile(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", re.ASCII)
_DIMENSION = re.compile(r"[0-9]{1,2}", re.ASCII)


def parse_dims(lines: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Read lines such as ``x.0=1,16,128``.

    Returns:
        The sizes by input and dimension, such as ``x.0``. All of them have the same number of sizes: those at one
        position belong together. A single size belongs to all.

    Raises:
        InputError: a line has another form, or gives a dimension again, or another number of sizes than the others. The
            message names the option.
    """
    found: dict[str, tuple[int, ...]] = {}
    for line in lines:
        key, _, text = line.rpartition("=")
        name, _, dimension = key.rpartition(".")
        if not name or not _DIMENSION.fullmatch(dimension) or not _SIZES.fullmatch(text):
            raise InputError(f"{DIM}: {line!r} is not INPUT.DIMENSION=SIZES with whole numbers, as in x.0=1,16,128,512")
        if key in found:
            raise InputError(f"{DIM}: {key} is given twice")
        found[key] = tuple(map(int, text.split(",")))
    count = max(map(len, found.values()), default=0)
    for key, sizes in found.items():
        if len(sizes) not in (1, count):
            raise InputError(
                f"{DIM}: {key} has {len(sizes)} sizes, and another dimension has {count}: sizes at one position belong "
                "together, so give as many for each, or one for all"
            )
    return {key: sizes if len(sizes) == count else sizes * count for key, sizes in found.items()}


def points_of(dims: Mapping[str, Sequence[int]], names: Sequence[str]) -> tuple[SizePoint, ...]:
    """Return the choices of sizes for a model whose inputs have these names, empty if they have none.

    An input without a name, or one that is not named, goes by its number. Dimensions of other models' inputs are left
    out. A choice that was given several times counts as often.
    """
    known: dict[str, tuple[int, int]] = {}
    for key in dims:
        name, _, dimension = key.rpartition(".")
        if name in names:
            known[key] = names.index(name), int(dimension)
        elif name.isascii() and name.isdecimal():
            known[key] = int(name), int(dimension)
    chosen = Counter(zip(*(dims[key] for key in known), strict=True))
    return tuple(
        SizePoint(
            label=",".join(f"{key}={size}" for key, size in zip(known, sizes, strict=True)),
            sizes=tuple((*place, size) for place, size in zip(known.values(), sizes, strict=True)),
            weight=weight,
        )
        for sizes, weight in chosen.items()
    )
