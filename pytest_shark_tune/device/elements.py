"""Element types: how their values lie in memory, and the runtime's names for them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import iree.runtime as rt
import ml_dtypes
import msgspec
import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.dispatch.elements import unit_roundoff

__all__ = [
    "Bytes",
    "ElementType",
    "as_bytes",
    "bit_patterns",
    "byte_size",
    "disturbance_step",
    "element_of_hal_type",
    "element_type",
    "hal_type",
    "smallest_step",
    "stored_shape",
    "to_array",
]

Bytes: TypeAlias = NDArray[np.uint8]

_ODD = (0xA5, 0x5A)
_FNUZ = (0x80, 0x7B)
_SIGNED = re.compile(r"[su]i(\d+)\Z")
_COMPLEX = re.compile(r"complex<(f32|f64)>\Z")


class ElementType(msgspec.Struct, frozen=True):
    """The storage of an element type. A complex number is stored as two floats."""

    name: str
    dtype: Any
    """The numpy type of one element; of types narrower than a byte that of an unpacked one."""
    bits: int
    kind: Literal["float", "int", "bool"]
    hal: str = ""
    """The runtime's name; empty for a type that no function takes as an argument."""
    poisons: tuple[int, int] = (0xFF, 0x7B)
    """The bytes that fill an output before a run.

    The first run uses the first: a NaN for floats that have one, otherwise an unlikely number. If a right result looks
    the same, a second run uses the second.
    """

    @property
    def is_signed_float(self) -> bool:
        """Whether elements are floats of either sign, which f8E8M0FNU is not."""
        return self.kind == "float" and self.name != "f8E8M0FNU"

    @property
    def can_be_disturbed(self) -> bool:
        """Whether elements are fine enough to be moved by a small part of themselves."""
        return self.kind == "float" and self.bits >= 16

    @property
    def smallest_normal(self) -> float:
        """The smallest normal number of a float type."""
        return float(ml_dtypes.finfo(self.dtype).tiny)  # type: ignore[no-untyped-call]


_TYPES = {
    kind.name: kind
    for kind in (
        ElementType("f64", np.float64, 64, "float", "FLOAT_64"),
        ElementType("f32", np.float32, 32, "float", "FLOAT_32"),
        ElementType("f16", np.float16, 16, "float", "FLOAT_16"),
        ElementType("bf16", ml_dtypes.bfloat16, 16, "float", "BFLOAT_16"),
        ElementType("f8E4M3FN", ml_dtypes.float8_e4m3fn, 8, "float", "FLOAT_8_E4M3_FN"),
        ElementType("f8E4M3FNUZ", ml_dtypes.float8_e4m3fnuz, 8, "float", "FLOAT_8_E4M3_FNUZ", _FNUZ),
        ElementType("f8E5M2", ml_dtypes.float8_e5m2, 8, "float", "FLOAT_8_E5M2"),
        ElementType("f8E5M2FNUZ", ml_dtypes.float8_e5m2fnuz, 8, "float", "FLOAT_8_E5M2_FNUZ", _FNUZ),
        ElementType("f8E8M0FNU", ml_dtypes.float8_e8m0fnu, 8, "float", "FLOAT_8_E8M0_FNU"),
        ElementType("f4E2M1FN", ml_dtypes.float4_e2m1fn, 4, "float", "", _ODD),
        ElementType("i1", np.uint8, 8, "bool", "BOOL_8", _ODD),
        ElementType("i4", np.uint8, 4, "int", "INT_4", _ODD),
        ElementType("i8", np.int8, 8, "int", "INT_8", _ODD),
        ElementType("i16", np.int16, 16, "int", "INT_16", _ODD),
        ElementType("i32", np.int32, 32, "int", "INT_32", _ODD),
        ElementType("i64", np.int64, 64, "int", "INT_64", _ODD),
        ElementType("index", np.int64, 64, "int", "INT_64", _ODD),
    )
}


def element_type(element: str) -> ElementType:
    """Look up an element type as MLIR spells it; of a complex type, the type of its parts.

    Raises:
        ValueError: the type is not supported.
    """
    plain = element
    if inner := _COMPLEX.match(element):
        plain = inner[1]
    elif signed := _SIGNED.match(element):
        plain = f"i{signed[1]}"
    if plain not in _TYPES:
        raise ValueError(f"element type {element!r} is not supported")
    return _TYPES[plain]


def stored_shape(element: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape in which a tensor is stored: complex numbers become pairs."""
    return (*shape, 2) if _COMPLEX.match(element) else tuple(shape)


def byte_size(element: str, shape: Sequence[int]) -> int:
    """The number of bytes that a tensor fills."""
    return (math.prod(stored_shape(element, shape)) * element_type(element).bits + 7) // 8


def as_bytes(array: NDArray[Any]) -> Bytes:
    """The bytes of an array, row-major."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def to_array(raw: Bytes, element: str, shape: Sequence[int]) -> NDArray[Any]:
    """Stored bytes as an array that `check_output` compares: float32, float64 or an integer type."""
    kind, dims = element_type(element), stored_shape(element, shape)
    values = bit_patterns(raw, element)[: math.prod(dims)].view(kind.dtype)
    if kind.kind == "float" and kind.bits < 64:
        values = values.astype(np.float32, copy=False)
    return np.asarray(values).reshape(dims)


def bit_patterns(raw: Bytes, element: str) -> NDArray[Any]:
    """Stored bytes as the bit patterns of their elements (a complex number's parts)."""
    bits = element_type(element).bits
    return raw.view(f"u{bits // 8}") if bits >= 8 else np.stack([raw & 0xF, raw >> 4], axis=-1).reshape(-1)


def disturbance_step(elements: Iterable[str]) -> float:
    """The smallest part of themselves by which inputs of these types can all be off; 0 if none can be."""
    fine = (element for element in elements if element_type(element).can_be_disturbed)
    return max((2 * unit_roundoff(element) for element in fine), default=0.0)


def smallest_step(element: str) -> float:
    """The distance of a float type's smallest numbers, or its smallest normal number if denormals may be flushed."""
    kind = element_type(element)
    if kind.kind != "float":
        return 0.0
    smallest = kind.smallest_normal
    return smallest if smallest < 2.0**-100 else smallest * 2 * unit_roundoff(element)


def hal_type(element: str) -> int:
    """The runtime's number for the type of a function's argument.

    Raises:
        ValueError: the runtime has no such type.
    """
    if inner := _COMPLEX.match(element):
        return int(rt.HalElementType.COMPLEX_64 if inner[1] == "f32" else rt.HalElementType.COMPLEX_128)
    if not (name := element_type(element).hal):
        raise ValueError(f"a function argument cannot have element type {element!r}")
    return int(getattr(rt.HalElementType, name))


def element_of_hal_type(number: int) -> str:
    """The element type with this number in the runtime.

    Raises:
        ValueError: the type is not supported.
    """
    if number not in _ELEMENTS_OF_HAL:
        raise ValueError(f"a result has the element type {number}, which cannot be compared")
    return _ELEMENTS_OF_HAL[number]


_ELEMENTS_OF_HAL = {
    **{hal_type(kind.name): kind.name for kind in _TYPES.values() if kind.hal},
    **{
        int(getattr(rt.HalElementType, f"{sign}INT_{bits}")): f"i{bits}"
        for sign in ("S", "U", "")
        for bits in (4, 8, 16, 32, 64)
    },
    **{hal_type(name): name for name in ("complex<f32>", "complex<f64>")},
}
