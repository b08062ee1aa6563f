"""Element types as MLIR spells them: their sizes and their rounding."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ELEMENT_BYTES", "SCALARS", "SCALAR_FLOATS", "SCALAR_INTEGERS", "unit_roundoff"]

ELEMENT_BYTES = {"i8": 1, "i16": 2, "f16": 2, "bf16": 2, "i32": 4, "f32": 4, "i64": 8, "f64": 8}
"""The sizes of the element types that search spaces cover."""

SCALARS: Final = frozenset({"f32", "f64", "i1", "i8", "i16", "i32", "i64", "index"})
"""The types of numbers that a function of a model may take beside tensors."""
SCALAR_FLOATS: Final = (0.5, 0.75, 1.25, 1.5, 1.75, 2.5, 3.0)
"""The values of floats that are known only at run time: positive, not 1, and exact in every type."""
SCALAR_INTEGERS: Final = (1, 2, 3, 4, 5, 6, 7)
"""The values of such integers: small enough for a shift or a small type, and no zero, by which one may divide."""

_FLOAT_DIGITS = {"f64": 53, "f32": 24, "tf32": 11, "f16": 11, "bf16": 8}
_SMALL_FLOAT = re.compile(r"f(?:8|6|4)E\d+M(\d+)")
_INTEGER = re.compile(r"(?:[su]?i\d+|index)\Z")
_COMPLEX = re.compile(r"complex<(\w+)>\Z")


def unit_roundoff(element: str) -> float:
    """Return the unit roundoff of an element type: 2**-p for p significant bits, 0 for integers.

    Args:
        element: An MLIR element type, or ``tf32`` for inputs that a tensor core rounds.

    Raises:
        ValueError: The type is unknown.
    """
    if inner := _COMPLEX.match(element):
        element = inner[1]
    if element in _FLOAT_DIGITS:
        return float(2.0 ** -_FLOAT_DIGITS[element])
    if small := _SMALL_FLOAT.match(element):
        return float(2.0 ** -(int(small[1]) + 1))
    if _INTEGER.match(element):
        return 0.0
    raise ValueError(f"the unit roundoff of element type {element!r} is not known")
