"""Tile sizes, and knobs for them, for the spaces of all backends."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from pytest_shark_tune.dispatch.elements import ELEMENT_BYTES
from pytest_shark_tune.dispatch.reasons import ElementNotCovered
from pytest_shark_tune.dispatch.types import RootOp, Tensor
from pytest_shark_tune.search_space.emit import Body, knob
from pytest_shark_tune.search_space.space import SearchSpace

__all__ = ["divisors", "fast_or_any", "powers", "refuse_elements", "tile_knobs", "tile_level"]


def fast_or_any(build: Callable[[bool], SearchSpace]) -> SearchSpace:
    """Return the space with limits made for speed, or without them if they leave no member.

    Such limits may contradict each other if there is little to compute or to divide.

    Args:
        build: Makes the space. Its argument tells whether the limits apply.
    """
    fast = build(True)
    return fast if fast else build(False)


def refuse_elements(
    root: RootOp, covered: Collection[str] = tuple(ELEMENT_BYTES), operands: Sequence[Tensor] | None = None
) -> None:
    """Refuse a root op with an element type that a space does not cover.

    Args:
        root: The root op.
        covered: The element types that the space covers.
        operands: The operands to look at, by default all inputs and outputs.

    Raises:
        NoSpace: An element type is not covered.
    """
    for tensor in (*root.inputs, *root.outputs) if operands is None else operands:
        if tensor.element not in covered:
            raise ElementNotCovered(
                f"{root.op} has elements of type {tensor.element}; its space covers {', '.join(covered)}"
            )


def tile_level(count: int, prefix: str, choices: Mapping[int, Sequence[int]], ones: Iterable[int] = ()) -> list[object]:
    """Return a level of a lowering config over ``count`` loops.

    Args:
        count: The number of loops.
        prefix: The knob of loop ``i`` is called ``<prefix>_i``.
        choices: The tiles to try for each loop; a loop with a single tile gets no knob.
        ones: The loops that get 1 unless they have choices. All others get 0.
    """
    level: list[object] = [0] * count
    for index in ones:
        level[index] = 1
    for index, tiles in choices.items():
        level[index] = knob(f"{prefix}_{index}") if len(tiles) > 1 else tiles[0]
    return level


def tile_knobs(body: Body, prefix: str, choices: Mapping[int, Sequence[int]]) -> dict[int, Any]:
    """Return the tiles of `tile_level` as values of a constraints op, by loop."""
    return {
        index: body.knob(f"{prefix}_{index}", tiles) if len(tiles) > 1 else body.number(tiles[0])
        for index, tiles in choices.items()
    }


def powers(largest: int) -> tuple[int, ...]:
    """Return the powers of two up to ``largest``, which is at least 1, in ascending order."""
    return tuple(1 << bit for bit in range(largest.bit_length()))


def divisors(number: int) -> tuple[int, ...]:
    """Return the divisors of ``number`` in ascending order."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))
