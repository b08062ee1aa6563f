"""A sum of products in f64: the reference for the places of NaN and infinities in a result."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.dispatch.types import Index, Product

__all__ = ["product_of"]

_MOST_PRODUCTS = 1 << 31
"""The most terms: more of them take a host longer than a check may take."""
_MOST_ELEMENTS = 1 << 26
"""The largest tensor, of half a gigabyte in f64: a host may not have memory for more."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def product_of(product: Product, lhs: NDArray[Any], rhs: NDArray[Any]) -> NDArray[np.float64] | None:
    """Compute the product in f64.

    Loops that share an index with another loop, as those of a filter do, run one by one. The rest is a product of
    matrices.

    Returns:
        The result; ``None`` if it has too many terms or elements.
    """
    largest = max(math.prod(shape) for shape in product.shapes)
    if math.prod(product.loops) > _MOST_PRODUCTS or largest > _MOST_ELEMENTS or len(product.loops) > len(_LETTERS):
        return None
    *operands, result = product.indices
    kept = {loop for index in result for loop, _ in index}
    shared = sorted(
        {loop for indices in operands for index in indices if len(index) > 1 for loop, _ in index if loop not in kept}
    )
    # The letters of the loops that index the dimensions, without the loops that run one by one.
    names = [
        "".join(_LETTERS[loop] for index in indices for loop, _ in index if loop not in shared)
        for indices in product.indices
    ]
    total = np.zeros(product.shapes[2], np.float64)
    values = [lhs.astype(np.float64), rhs.astype(np.float64)]
    with np.errstate(all="ignore"):
        for places in itertools.product(*(range(product.loops[loop]) for loop in shared)):
            at = dict(zip(shared, places, strict=True))
            parts = [
                part[tuple(_index_at(index, at, product.loops) for index in indices)]
                for part, indices in zip(values, operands, strict=True)
            ]
            total += np.einsum(f"{names[0]},{names[1]}->{names[2]}", *parts, optimize=True)
    return total


def _index_at(index: Index, at: dict[int, int], loops: tuple[int, ...]) -> int | slice:
    """The place in one dimension: the values of the loops in ``at``, and the whole range of the remaining loop."""
    start = sum(factor * at[loop] for loop, factor in index if loop in at)
    free = [(loop, factor) for loop, factor in index if loop not in at]
    if not free:
        return start
    ((loop, factor),) = free
    return slice(start, start + factor * (loops[loop] - 1) + 1, factor)
