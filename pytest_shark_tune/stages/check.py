"""Checks: whether a candidate's results are right, compared with the default's on the same inputs.

Works over numpy arrays alone. docs/measurement.md says where the tolerance comes from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHECK_VERSION",
    "EXACT",
    "PLAIN",
    "Check",
    "Conditioning",
    "Tolerance",
    "check_output",
    "conditioning",
    "magnitude",
    "merge_checks",
    "tolerance_for",
    "tolerance_in_model",
    "unit_roundoff",
]

CHECK_VERSION: Final = 1
"""How results are compared: inputs, tolerances, and what counts as wrong.

Raise it where a result may get another verdict: what was measured under the old one is then measured anew.
"""

_CHUNK = 1 << 16


class Tolerance(msgspec.Struct, frozen=True):
    """How far a result may lie from the reference: ``rtol * |expected| + atol_scale * magnitude``.

    ``magnitude`` is that of the whole reference (see `magnitude`), so the allowance follows the data. Both
    0 means exact. Integers are compared exactly whatever the tolerance.
    """

    rtol: float
    atol_scale: float


EXACT = Tolerance(0.0, 0.0)

_GAIN_OF_NONE = 2.0
"""A larger one is more than a sum's answer to disturbed inputs."""


class Conditioning(msgspec.Struct, frozen=True):
    """How results answer to inputs that are off, in units of what a sum of products does.

    ``magnitude`` is that of the sum that would be off as much as the results are, ``gain`` by how many times as large a
    part of itself each is off, 1 where that is no more than a sum's, 0 where nobody asked. What follows on a sum may
    amplify its rounding errors as it does its inputs': the exponential of x is off by x times as large a part as x is.
    And where it is scaled by a factor that not all have, large results are off in proportion.
    """

    magnitude: float
    gain: float

    def applied(self, tolerance: Tolerance) -> Tolerance:
        """The tolerance of a sum with these results' amplification."""
        return msgspec.structs.replace(tolerance, rtol=tolerance.rtol + self.gain * tolerance.atol_scale)


PLAIN = Conditioning(0.0, 0.0)
"""Of what was not asked."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """How one candidate's outputs compare with the reference's on the same inputs, made from ``seed``.

    ``wrong`` of ``compared`` elements are out of tolerance. The first of them is at ``first_bad`` of output
    number ``output``, in copy number ``copy`` of the data where there are several; ``expected`` and ``actual`` are its
    values as text, empty where nothing is wrong. ``magnitude`` is that output's reference's (see `magnitude`).
    ``max_abs_error`` is over elements finite in both, ``worst`` the largest error as a part of what was allowed there,
    over elements where anything was. ``nans`` and ``infs`` count where the candidate has one and the reference has not
    the same, ``poison_left`` the elements never written, ``stray_bytes`` the bytes changed outside the outputs where
    the reference changes none. Every number is finite, so that JSON holds it.
    """

    ok: bool
    seed: int = 0
    output: int = 0
    copy: int = 0
    first_bad: tuple[int, ...] | None = None
    expected: str = ""
    actual: str = ""
    wrong: int = 0
    compared: int = 0
    magnitude: float = 0.0
    max_abs_error: float = 0.0
    worst: float = 0.0
    nans: int = 0
    infs: int = 0
    poison_left: int = 0
    stray_bytes: int = 0

    @property
    def reason(self) -> str:
        """What is wrong, in words; empty where nothing is."""
        if self.ok:
            return ""
        parts = []
        if self.wrong:
            copy = f" in copy {self.copy}" if self.copy else ""
            parts.append(
                f"{self.wrong} of {self.compared} elements are wrong, first at {list(self.first_bad or ())} of output "
                f"{self.output}{copy}: expected {self.expected}, got {self.actual}"
            )
            allowed = f", {self.worst:.3g} times what is allowed" if self.worst else ""
            parts.append(f"largest error {self.max_abs_error:.3g} at a magnitude of {self.magnitude:.3g}{allowed}")
        parts += [
            f"{count} {what}"
            for count, what in (
                (self.nans, "NaN"),
                (self.infs, "infinite"),
                (self.poison_left, "never written"),
                (self.stray_bytes, "bytes changed outside the outputs"),
            )
            if count
        ]
        return "; ".join(parts) + f" (seed {self.seed})"


_FLOAT_DIGITS = {"f64": 53, "f32": 24, "tf32": 11, "f16": 11, "bf16": 8}
_SMALL_FLOAT = re.compile(r"f(?:8|6|4)E\d+M(\d+)")
_INTEGER = re.compile(r"(?:[su]?i\d+|index)\Z")
_COMPLEX = re.compile(r"complex<(\w+)>\Z")
_WITHOUT_DIGITS = 0.5
"""The roundoff of a type that holds powers of two alone."""


def unit_roundoff(element: str) -> float:
    """The unit roundoff of an MLIR element type: 2**-p for p significant bits, 0 for integers.

    ``tf32`` is accepted for inputs that a tensor core rounds.

    Raises:
        ValueError: the type is not known.
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


def tolerance_for(element_in: str, element_out: str, reduction_length: int) -> Tolerance:
    """The tolerance between two correct ways to compute sums of ``reduction_length`` products.

    ``element_in`` and ``element_out`` are the types of the root op's inputs and of its result, in which it
    accumulates. With u the unit roundoff and K the reduction length::

        rtol       = 4 * u_out
        atol_scale = 6 * u_out * sqrt(K) + 2 * u_in

    Rounding errors of a sum behave as a random walk, so its error grows with sqrt(K) * u instead of the
    worst case's K * u: Higham and Mary, 'A new approach to probabilistic rounding error analysis' (SIAM J.
    Sci. Comput. 41, 2019), theorem 2.4, there with a factor lambda for the confidence. For inputs of mean
    zero, as the device child makes them, two orders of one sum differ by a deviation of 0.86 * u * sqrt(K)
    of the results' magnitude (measured, docs/measurement.md), so 6 stands at seven deviations: room for the
    largest of 10**9 elements. ``rtol`` holds the rounding on store and a few units of the last place of an
    elementwise tail, ``2 * u_in`` intermediates that an implementation rounds to the input's type. Integer
    results are exact.

    Raises:
        ValueError: an element type is not known, or ``reduction_length`` is less than 1.
    """
    if reduction_length < 1:
        raise ValueError(f"the reduction length must be at least 1, not {reduction_length}")
    u_in, u_out = unit_roundoff(element_in), unit_roundoff(element_out)
    if not u_out:
        return EXACT
    return Tolerance(4 * u_out, 6 * u_out * math.sqrt(reduction_length) + 2 * u_in)


def tolerance_in_model(elements: Iterable[str], sums: Iterable[tuple[str, int, int]]) -> Tolerance:
    """The tolerance between two correct ways to compute some of a model's dispatches.

    ``elements`` are the types that are known to be in the model: its first input, often of integers, tells little of
    what it computes in. ``sums`` are, for each of these dispatches, the type of its sums, their length and the number
    of its calls. It is `tolerance_for` of the coarsest float and the longest sum, since results are rounded to that
    type on their way; f32 where no float is known. Sums are made in no type below 16 bits. Calls come one after
    another, so that their errors add up as those of one long sum, where that is more. Integer results are exact all
    the same.

    Raises:
        ValueError: an element type is not known.
    """
    made = list(sums)
    plain = unit_roundoff("f32")
    # A type of scales has no digits, and nothing is rounded to it.
    floats = [each for each in map(unit_roundoff, elements) if 0 < each < _WITHOUT_DIGITS] or [plain]
    u_in = max(floats)
    u_out = max((each for each in floats if each <= unit_roundoff("bf16")), default=plain)
    longest = max([1, *(length for _, length, _ in made)])
    walk = math.sqrt(sum(calls * length * unit_roundoff(element) ** 2 for element, length, calls in made))
    return Tolerance(4 * u_out, 6 * max(u_out * math.sqrt(longest), walk) + 2 * u_in)


def magnitude(reference: NDArray[Any]) -> float:
    """The root mean square of the finite elements, 0 where there are none."""
    total, count = 0.0, 0
    flat = reference.reshape(-1)
    scale = _square_scale(reference)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float64)
        finite = np.isfinite(part)
        if not finite.all():
            part = part[finite]
        part *= scale
        total += float(np.dot(part, part))
        count += part.size
    return math.sqrt(total / count) / scale if count else 0.0


def conditioning(reference: NDArray[Any], disturbed: NDArray[Any], relative: float) -> Conditioning:
    """How much more than a sum of products these results answer to a disturbance of the inputs.

    ``disturbed`` are the results once each input is off by ``relative`` of itself, up or down by chance, which takes a
    sum of products of two such inputs ``sqrt(2) * relative`` of its magnitude off.
    """
    with np.errstate(all="ignore"):
        error = np.abs(disturbed.astype(np.float64) - reference)
        part = error / np.abs(reference)
    part = part[np.isfinite(part) & (np.abs(reference) >= np.finfo(reference.dtype).tiny)]
    of_a_sum = math.sqrt(2) * relative
    # The median of a normal deviate's size; beside a sum's, which may lie near 0, this comes to 1.5.
    gain = float(np.median(part)) / 0.6745 / of_a_sum if part.size else 0.0
    return Conditioning(magnitude(error) / of_a_sum, gain if gain > _GAIN_OF_NONE else 1.0)


def _square_scale(array: NDArray[Any]) -> float:
    """By what to multiply so that squares do not overflow; only f64 has numbers whose squares do."""
    if array.dtype != np.float64:
        return 1.0
    largest = float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))
    return 1 / largest if largest > 2.0**400 else 1.0


def check_output(
    expected: NDArray[Any],
    actual: NDArray[Any],
    tolerance: Tolerance,
    *,
    scale: float | None = None,
    conditioned: Conditioning = PLAIN,
    seed: int = 0,
    output: int = 0,
) -> Check:
    """Compare one output with its reference, element by element.

    Both arrays have the same shape and dtype: float32, float64, or an integer type, which is compared
    exactly. ``scale`` is the reference's `magnitude`, computed where not given. With ``conditioned`` the tolerance is
    that of results which answer so. A NaN is right where the reference has one, an infinity where it has the same.

    Raises:
        ValueError: shapes or dtypes differ.
    """
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        raise ValueError(f"{actual.dtype}{actual.shape} cannot be compared with {expected.dtype}{expected.shape}")
    if np.issubdtype(expected.dtype, np.floating):
        scale = magnitude(expected) if scale is None else scale
        allowed = conditioned.applied(tolerance)
        absolute = allowed.atol_scale * max(scale, conditioned.magnitude)
        check = _check_floats(expected, actual, allowed.rtol, absolute, seed, output)
        return msgspec.structs.replace(check, magnitude=scale)
    return _check_integers(expected, actual, seed, output)


def merge_checks(checks: Sequence[Check]) -> Check:
    """The outputs' checks as one: the place of the first wrong output, the sums of counts."""
    first = next((each for each in checks if each.wrong), checks[0])
    return msgspec.structs.replace(
        first,
        ok=all(each.ok for each in checks),
        wrong=sum(each.wrong for each in checks),
        compared=sum(each.compared for each in checks),
        max_abs_error=max(each.max_abs_error for each in checks),
        worst=max(each.worst for each in checks),
        nans=sum(each.nans for each in checks),
        infs=sum(each.infs for each in checks),
        poison_left=sum(each.poison_left for each in checks),
        stray_bytes=sum(each.stray_bytes for each in checks),
    )


def _check_floats(
    expected: NDArray[Any], actual: NDArray[Any], rtol: float, absolute: float, seed: int, output: int
) -> Check:
    wanted, got = expected.reshape(-1), actual.reshape(-1)
    first: int | None = None
    wrong = nans = infs = 0
    largest = worst = 0.0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for start in range(0, wanted.size, _CHUNK):
            e, a = wanted[start : start + _CHUNK], got[start : start + _CHUNK]
            error = np.abs(a - e)
            allowed = np.abs(e) * rtol + absolute
            good = (error <= allowed) & (error < math.inf)
            if not good.all():
                good |= (e == a) | (np.isnan(e) & np.isnan(a))
                finite = np.isfinite(error)
                nans += int(np.count_nonzero(np.isnan(a) & ~np.isnan(e)))
                infs += int(np.count_nonzero(np.isinf(a) & (a != e)))
                error, allowed = error[finite], allowed[finite]
                bad = ~good
                wrong += int(np.count_nonzero(bad))
                if first is None and bad.any():
                    first = start + int(np.argmax(bad))
            if error.size:
                largest = max(largest, float(error.max()))
                part = error[allowed > 0] / allowed[allowed > 0]
                worst = max(worst, float(np.max(part, initial=0.0, where=np.isfinite(part))))
    return _checked(expected, actual, first, wrong, seed, output, largest, worst, nans, infs)


def _check_integers(expected: NDArray[Any], actual: NDArray[Any], seed: int, output: int) -> Check:
    bad = expected.reshape(-1) != actual.reshape(-1)
    wrong = int(np.count_nonzero(bad))
    if not wrong:
        return _checked(expected, actual, None, 0, seed, output, 0.0, 0.0, 0, 0)
    error = np.abs(actual.reshape(-1)[bad].astype(np.float64) - expected.reshape(-1)[bad].astype(np.float64))
    return _checked(expected, actual, int(np.argmax(bad)), wrong, seed, output, float(error.max()), 0.0, 0, 0)


def _checked(
    expected: NDArray[Any],
    actual: NDArray[Any],
    first: int | None,
    wrong: int,
    seed: int,
    output: int,
    largest: float,
    worst: float,
    nans: int,
    infs: int,
) -> Check:
    place = None if first is None else tuple(int(i) for i in np.unravel_index(first, expected.shape))
    return Check(
        ok=wrong == 0,
        seed=seed,
        output=output,
        first_bad=place,
        expected="" if place is None else str(expected[place]),
        actual="" if place is None else str(actual[place]),
        wrong=wrong,
        compared=expected.size,
        max_abs_error=largest,
        worst=worst,
        nans=nans,
        infs=infs,
    )
