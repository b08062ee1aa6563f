"""Comparisons on the device: results stay there, and only counts come back.

The functions are those of `dispatch.comparison`. Their verdict counts only where it is *right*. Any other result is
read and compared on the host, which finds the first wrong element and its value. Limits are a millionth narrower than
the host's, so no rounding on the device makes a result right that the host would refuse. A module is used once it has
found planted errors, and nothing else, in the results of a reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import iree.runtime as rt
import msgspec
import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.device.buffers import BufferImage, BufferLayout, Output, end_of
from pytest_shark_tune.device.elements import Bytes, as_bytes, element_type, hal_type, smallest_step
from pytest_shark_tune.measurement.correctness import Tolerance, may_jump, may_step

if TYPE_CHECKING:
    from pytest_shark_tune.device.hal_device import HalDevice

__all__ = ["Counts", "Expected", "ResultComparer", "StagedReference"]

_NARROWER = 1 - 1e-6
_WORDS = {4: rt.HalElementType.INT_32, 2: rt.HalElementType.INT_16, 1: rt.HalElementType.INT_8}
_PLANTED = 10
"""How many elements of an output get an error."""
_BEYOND = 2.0
"""A planted error is so many times as large as is allowed."""


class Counts(msgspec.Struct, frozen=True):
    """The comparison of one output, in all copies of the data."""

    wrong: int
    jumped: int
    """The elements that are off by no more than a rounding, or integers that are off by one, in the worst copy."""
    largest: float = 0.0
    """The largest error."""
    worst: float = 0.0
    """The largest error as a part of its tolerance."""


class Expected(msgspec.Struct, frozen=True):
    """One output of a reference, and how far a result may be from it."""

    output: Output
    tolerance: Tolerance
    scale: NDArray[np.float32] | None
    """The magnitude for each element, negative where only finite numbers are compared; ``None`` for integers.

    If it is the same for all, the array has one element in memory.
    """

    @property
    def uniform(self) -> float | None:
        """The magnitude, if it is the same for all elements."""
        return float(self.scale[0]) if self.scale is not None and self.scale.strides == (0,) else None

    def stays_right(self, counts: Counts) -> bool:
        """Whether an output with these counts is right."""
        compared = math.prod(self.output.shape) if self.scale is None else self.scale.size
        allows = may_step if self.scale is None else may_jump
        return not counts.wrong and allows(counts.jumped, compared, self.tolerance)

    @property
    def can_be_staged(self) -> bool:
        """Whether the magnitudes are numbers of f32."""
        known = self.uniform if self.uniform is not None else self.scale
        return known is None or bool(np.isfinite(known).all())

    @property
    def limits(self) -> tuple[float, ...]:
        """The limits of floats, in the order of the function's arguments. Magnitudes on the device are 1 if uniform."""
        known, scale = self.tolerance, 1.0 if self.uniform is None else abs(self.uniform)
        rounded, step = known.stored + known.jump, smallest_step(self.output.element)
        limits = (known.rtol, known.atol_scale * scale, step, rounded, known.jump * scale)
        return tuple(limit * _NARROWER for limit in limits)


class StagedReference(msgspec.Struct, frozen=True):
    """A reference on the device."""

    expected: tuple[Any, ...]
    """The buffers of its outputs."""
    scales: tuple[Any, ...]
    """The buffers of their magnitudes, ``None`` for integers."""
    image: Any
    """The buffer that fills others before a run; ``None`` if bytes outside the outputs may change."""
    size: int
    """The number of bytes of its own buffers."""


class ResultComparer:
    """Compares results in buffers of one layout on the device.

    Args:
        device: The device.
        path: The compiled module of `dispatch.comparison`.
        layout: The layout of the buffers.
        mark: The path of a file that says that the module found planted errors on such a device; empty for none.
    """

    def __init__(self, device: HalDevice, path: str, layout: BufferLayout, mark: str = "") -> None:
        self._device = device
        self._mark = Path(mark) if mark else None
        self._context, self._module = device.load(path)
        self._layout = layout
        self._views = [view for view in layout.views if view.writes]
        names = set(self._module.function_names)
        self._word = next((word for word in _WORDS if f"stray_{word}" in names), 0)
        self._is_trusted: bool | None = None

    def stage(self, expected: Sequence[Expected], image: BufferImage | None) -> StagedReference:
        """Copy a reference to the device.

        Args:
            expected: Its outputs.
            image: The buffer before a run, unless bytes outside the outputs may change.
        """
        outputs = [np.ascontiguousarray(part.output.raw) for part in expected]
        scales = [part.scale for part in expected if part.scale is not None and part.uniform is None]
        return StagedReference(
            expected=tuple(map(self._device.allocate, outputs)),
            scales=tuple(map(self._staged_scale, expected)),
            image=image.staged(self._device.device) if image is not None and self._word else None,
            size=sum(array.nbytes for array in (*outputs, *scales)),
        )

    def _staged_scale(self, expected: Expected) -> Any:
        if expected.scale is None:
            return None
        if expected.uniform is not None:
            return self._device.repeated(math.copysign(1.0, expected.uniform), expected.scale.size)
        return self._device.allocate(as_bytes(expected.scale))

    def differs(self, buffer: Any, staged: StagedReference) -> int:
        """Count the words outside the outputs that a run changed, in all copies."""
        if staged.image is None:
            return 0
        kind, whole = _WORDS[self._word], self._layout.stride // self._word
        views = [(buffer, (self._layout.copies, whole), kind), (staged.image, (whole,), kind)]
        return sum(map(_sum, self._call(f"stray_{self._word}", views)))

    def compare(self, buffer: Any, staged: StagedReference, number: int, expected: Expected) -> Counts:
        """Compare output ``number`` in all copies of a buffer."""
        kind = element_type(self._views[number].element)
        hal = rt.HalElementType.INT_8 if kind.name == "i1" else hal_type(kind.name)
        count = as_bytes(expected.output.raw).size * 8 // kind.bits
        whole = self._layout.stride * 8 // kind.bits
        views = [(buffer, (self._layout.copies, whole), hal), (staged.expected[number], (count,), hal)]
        if expected.scale is None:
            results = self._call(f"compare_{number}", views)
            return Counts(sum(map(_sum, results[::2])), _most_in_a_copy(results[1::2]))
        views.append((staged.scales[number], (count,), rt.HalElementType.FLOAT_32))
        results = self._call(f"compare_{number}", views, expected.limits)
        return Counts(
            wrong=sum(map(_sum, results[::4])),
            jumped=_most_in_a_copy(results[1::4]),
            largest=max(float(part.max()) for part in results[2::4]),
            worst=max(float(part.max()) for part in results[3::4]),
        )

    def counts_of_right(
        self, buffer: Any, staged: StagedReference, expected: Sequence[Expected]
    ) -> list[Counts] | None:
        """Compare all outputs, and the bytes outside them; ``None`` unless everything is right."""
        counts = [self.compare(buffer, staged, number, part) for number, part in enumerate(expected)]
        is_right = all(part.stays_right(found) for part, found in zip(expected, counts, strict=True))
        return counts if is_right and not self.differs(buffer, staged) else None

    def is_trusted(self, staged: StagedReference, expected: Sequence[Expected], image: BufferImage) -> bool:
        """Whether the module finds planted errors, and nothing else. It is tried on the first reference."""
        if self._is_trusted is None:
            self._is_trusted = self._mark is not None and self._mark.exists()
            if not self._is_trusted and self._finds_planted(staged, expected, image):
                self._is_trusted = True
                if self._mark is not None:
                    with suppress(OSError):  # Then the next process tries it again.
                        self._mark.touch()
        return self._is_trusted

    def _finds_planted(self, staged: StagedReference, expected: Sequence[Expected], image: BufferImage) -> bool:
        host = image.host[: self._layout.size].copy()
        copies = host.reshape(self._layout.copies, self._layout.stride)
        places = [slice(view.offset_bytes, end_of(view)) for view in self._views]
        for place, part in zip(places, expected, strict=True):
            copies[:, place] = part.output.raw
        if any(self._found_in(host, staged, expected)):
            return False
        last = copies[-1]
        planted = [_plant(last[place], part) for place, part in zip(places, expected, strict=True)]
        if staged.image is not None:
            strays = _outside(places, last.size)
            last[strays] ^= 0x40
            planted.append(len({at // self._word for at in strays}))
        else:
            planted.append(0)
        return self._found_in(host, staged, expected) == planted

    def _found_in(self, host: Bytes, staged: StagedReference, expected: Sequence[Expected]) -> list[int]:
        """The wrong elements of each output in a buffer of these contents, then the words outside them that differ."""
        buffer = self._device.allocate(host)
        wrong = [self.compare(buffer, staged, number, part).wrong for number, part in enumerate(expected)]
        return [*wrong, self.differs(buffer, staged)]

    def _call(
        self, name: str, views: Sequence[tuple[Any, tuple[int, ...], Any]], numbers: Sequence[float] = ()
    ) -> list[NDArray[Any]]:
        arguments = rt.VmVariantList(len(views) + len(numbers))
        for buffer, shape, kind in views:
            arguments.push_ref(rt.HalBufferView(buffer, shape, int(kind)))
        for number in numbers:
            arguments.push_float(number)
        results = rt.VmVariantList(1)
        self._context.invoke(self._module.lookup_function(name), arguments, results)
        return [self._device.read_array(results.get_as_object(at, rt.HalBufferView)) for at in range(len(results))]


def _plant(place: Bytes, expected: Expected) -> int:
    """Change some elements of an output, from the first to the last, and return how many are wrong."""
    element = expected.output.element
    stored = place.view(element_type(element).dtype)
    places = np.unique(np.linspace(0, stored.size - 1, min(_PLANTED, stored.size)).astype(np.int64))
    if expected.scale is None:
        stored[places] ^= 0x40
        return places.size
    return sum(
        _plant_float(stored, int(at), float(stored[at]), expected, as_nan=bool(turn % 2))
        for turn, at in enumerate(places)
    )


def _plant_float(stored: NDArray[Any], at: int, value: float, expected: Expected, *, as_nan: bool) -> bool:
    """Change one float, and return whether it is wrong."""
    assert expected.scale is not None
    known, scale = expected.tolerance, float(expected.scale[at])
    if not math.isfinite(value):
        stored[at] = 1.0
        return not math.copysign(1, scale) < 0
    allowed = abs(value) * (known.rtol + known.stored + known.jump)
    allowed += abs(scale) * (known.atol_scale + known.jump) + smallest_step(expected.output.element)
    with np.errstate(over="ignore"):
        stored[at] = math.nan if as_nan else value + _BEYOND * allowed
    now = float(stored[at])
    if not math.isfinite(now):
        return not math.copysign(1, scale) < 0
    return abs(now - value) > allowed


def _outside(places: Sequence[slice], size: int) -> list[int]:
    """The first and the last byte outside some places."""
    covered = sorted((place.start, place.stop) for place in places)
    first, last = 0, size - 1
    for start, end in covered:
        first = end if start <= first < end else first
    for start, end in reversed(covered):
        last = start - 1 if start <= last < end else last
    return sorted({first, last})


def _sum(part: NDArray[Any]) -> int:
    return int(part.sum(dtype=np.int64))


def _most_in_a_copy(parts: Sequence[NDArray[Any]]) -> int:
    return int(sum(part.sum(axis=1, dtype=np.int64) for part in parts).max())
