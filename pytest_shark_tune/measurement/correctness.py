"""The check of results: compares a candidate's outputs with the default's on the same inputs.

It works over numpy arrays alone. docs/measurement.md derives the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.dispatch.elements import unit_roundoff

__all__ = [
    "ALL_MAY_JUMP",
    "CHECK_VERSION",
    "EXACT",
    "Check",
    "Response",
    "Tolerance",
    "check_output",
    "magnitude",
    "may_jump",
    "may_step",
    "merge_checks",
    "response",
    "tolerance_for",
    "with_bits",
]

CHECK_VERSION: Final = 3
"""The version of the check: its inputs, tolerances and verdicts.

Raise it with a change that may give a result another verdict. Candidates measured under the old version are then
measured again.
"""

ALL_MAY_JUMP = 64
"""Stands for a number of roundings so large that every element may be off by a jump.

Without a sum there is no error that is much smaller than a rounding: fused multiplications alone move half of them.
"""
_ULPS = 4
_DEVIATIONS = 6
_JUMPING = 0.02
_CHUNK = 1 << 16
_FEW_JUMPS = 8
"""The number of elements that may be off by a jump in any output, however small."""
_RUNS_THAT_TELL = 4
_FLOOR = 0.1
_LARGEST_OF_MANY = 3.0
"""The largest of thousands of normal deviates is at least this many standard deviations."""


class Tolerance(msgspec.Struct, frozen=True):
    """The distance that a floating-point result may have from the reference.

    The magnitude is that of the whole reference (see `magnitude`), so the tolerance follows the data. With all fields
    0, results have to be equal. Integers have to be equal in any case.
    """

    rtol: float
    """The part of ``|expected|`` by which every element may be off."""
    atol_scale: float
    """The part of ``magnitude`` by which every element may be off as well."""
    jump: float = 0.0
    """The part of ``|expected| + magnitude`` by which a few elements may be off beyond that.

    It allows for values that are rounded to a coarser type on their way. Two right results differ by a rounding error
    of the sum. Rarely the border between two neighbours of the coarser type lies between them, and they are rounded
    apart.
    """
    stored: float = 0.0
    """The same for the rounding to the type of the output, as a part of ``|expected|`` alone."""
    roundings: int = 0
    """The number of roundings in ``jump`` and ``stored``."""
    steps: float = 0.0
    """The share of integers that may be off by one, because floats were rounded to them."""

    @classmethod
    def of_walk(cls, walk: float, unit: float, *, spread: float = 0.0) -> Tolerance:
        """The tolerance between two results, each off by a random walk of rounding errors.

        Args:
            walk: The standard deviation of the walk, as a part of the magnitude.
            unit: The unit roundoff of the type that sums are kept in.
            spread: The part of the magnitude by which results may be off for another reason.
        """
        return cls(_ULPS * unit, _DEVIATIONS * walk + 2 * unit + spread)

    @property
    def deviation(self) -> float:
        """The standard deviation of the error of a sum, as a part of ``magnitude``."""
        return self.atol_scale / _DEVIATIONS

    @property
    def unit(self) -> float:
        """The unit roundoff of the type that sums are kept in."""
        return self.rtol / _ULPS

    @property
    def jumping_share(self) -> float:
        """The share of elements that may be off by a jump.

        The probability that a rounding falls the other way is the error over the distance of neighbours. This allows
        about thirty times as many.
        """
        total = self.jump + self.stored
        if not total:
            return 0.0
        if self.roundings >= ALL_MAY_JUMP:
            return 1.0
        # Not once per rounding: equal numbers give equal results, so a jump of the first rounding causes the others.
        return min(1.0, _JUMPING + 4 * self.atol_scale * self.roundings / total)

    def stored_as(self, element: str) -> Tolerance:
        """The tolerance of sums that are rounded to ``element`` at the end."""
        roundoff = unit_roundoff(element)
        if roundoff <= self.unit or not self.rtol:
            return self
        return msgspec.structs.replace(self, stored=2 * roundoff, roundings=self.roundings + 1)


EXACT = Tolerance(0.0, 0.0)


class Response(msgspec.Struct, frozen=True):
    """The response of a reference's elements to disturbed inputs.

    Every element of a plain sum of products moves in proportion to the magnitude. Operations behind the sum may amplify
    its rounding errors as they amplify the disturbance: the relative error of exp(x) is x times that of x.
    """

    elements: NDArray[np.float32]
    """For each element, the magnitude of a plain sum that would move as far."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of one candidate's outputs with the reference's. Every number is finite, so that JSON holds it."""

    ok: bool
    seed: int = 0
    """The seed of the inputs."""
    output: int = 0
    """The number of the output that has the first wrong element."""
    copy: int = 0
    """The number of the copy of the data that has it."""
    first_bad: tuple[int, ...] | None = None
    """The place of the first wrong element."""
    expected: str = ""
    """The reference's value there, as text."""
    actual: str = ""
    """The candidate's value there, as text."""
    wrong: int = 0
    """The number of elements out of tolerance."""
    compared: int = 0
    magnitude: float = 0.0
    """The `magnitude` of the reference's output."""
    max_abs_error: float = 0.0
    """The largest error of an element that is finite in both."""
    worst: float = 0.0
    """The largest error as a part of the tolerance there, over elements with a tolerance."""
    nans: int = 0
    """The number of NaN where the reference has none."""
    infs: int = 0
    """The number of infinities where the reference has another value."""
    poison_left: int = 0
    """The number of elements that were never written."""
    stray_bytes: int = 0
    """The number of bytes changed outside the outputs, if the reference changes none."""
    differing: int = 0
    """The number of elements with other bits, if bits have to be the same and all elements are within tolerance."""
    jumped: int = 0
    """The number of wrong elements that are off by no more than a rounding. A few such elements are not wrong."""

    @property
    def reason(self) -> str:
        """A message about the errors; empty for a right result."""
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
            if self.worst <= 1 and self.jumped:
                allowed = f", and {self.jumped} elements are off by a rounding, more than chance explains"
            parts.append(f"largest error {self.max_abs_error:.3g} at a magnitude of {self.magnitude:.3g}{allowed}")
        if self.differing:
            parts.append(
                f"{self.differing} of {self.compared} elements differ in their bits, first at "
                f"{list(self.first_bad or ())} of output {self.output}: expected {self.expected}, got {self.actual}"
            )
        parts += [
            f"{count} {kind}"
            for count, kind in (
                (self.nans, "NaN"),
                (self.infs, "infinite"),
                (self.poison_left, "never written"),
                (self.stray_bytes, "bytes changed outside the outputs"),
            )
            if count
        ]
        return "; ".join(parts) + f" (seed {self.seed})"


def tolerance_for(element_in: str, element_out: str, reduction_length: int) -> Tolerance:
    """The tolerance between two correct ways to compute sums of products.

    With u the unit roundoff of ``element_out`` and K the reduction length::

        rtol       = 4 * u
        atol_scale = 6 * u * sqrt(K) + 2 * u

    Rounding errors of a sum behave as a random walk, so the error grows with sqrt(K) * u instead of the worst case's K
    * u: Higham and Mary, 'A new approach to probabilistic rounding error analysis' (SIAM J. Sci. Comput. 41, 2019),
    theorem 2.4, there with a factor lambda for the confidence. For inputs of mean zero, as the device child makes them,
    two orders of one sum differ by a standard deviation of 0.86 * u * sqrt(K) of the results' magnitude (measured,
    docs/measurement.md). So the factor 6 stands for seven standard deviations, which covers the largest of 10**9
    elements. ``rtol`` covers a few units in the last place of elementwise operations. Products of inputs that are
    stored in ``element_in`` are exact, or rounded to the type of the sum. Inputs are rounded on their way to ``tf32``
    only, which adds twice its unit roundoff to ``atol_scale``. Integer results are exact.

    Args:
        element_in: The type of the factors.
        element_out: The type that sums are kept in, which may differ from the type that they are stored in (see
            `Tolerance.stored_as`).
        reduction_length: The number of products in a sum.

    Raises:
        ValueError: an element type is not known, or ``reduction_length`` is less than 1.
    """
    if reduction_length < 1:
        raise ValueError(f"the reduction length must be at least 1, not {reduction_length}")
    u_in, u_out = unit_roundoff(element_in), unit_roundoff(element_out)
    if not u_out:
        return EXACT
    rounded = 2 * u_in if element_in == "tf32" else 0.0
    return Tolerance.of_walk(u_out * math.sqrt(reduction_length), u_out, spread=rounded)


def may_jump(jumped: int, compared: int, tolerance: Tolerance) -> bool:
    """Whether so many floats of an output may be off by a rounding."""
    return jumped <= max(_FEW_JUMPS, tolerance.jumping_share * compared)


def may_step(stepped: int, compared: int, tolerance: Tolerance) -> bool:
    """Whether so many integers of an output may be off by one."""
    return not stepped or (tolerance.steps > 0 and stepped <= max(_FEW_JUMPS, tolerance.steps * compared))


def magnitude(reference: NDArray[Any]) -> float:
    """The root mean square of the finite elements; 0 without any."""
    total, count = 0.0, 0
    flat = reference.reshape(-1)
    scale = _square_scale(reference)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float64)
        finite = np.isfinite(part)
        if not finite.all():
            part = part[finite]
        part *= scale
        total += float(np.einsum("i,i->", part, part))  # Not by dot: its threads cost more than they save here.
        count += part.size
    return math.sqrt(total / count) / scale if count else 0.0


def response(reference: NDArray[Any], disturbed: Sequence[NDArray[Any]], relative: float) -> Response:
    """Measure the response of a reference to disturbed inputs.

    A sum of products of two disturbed inputs is off by ``sqrt(2) * relative`` of its magnitude. A single run may leave
    an element nearly where it was by chance, and rare roundings may move a few elements far. With few runs, an
    element's move therefore counts as at least a third of the largest move, relative to the element plus a tenth of the
    magnitude.

    Args:
        reference: The output without a disturbance.
        disturbed: The same output of runs with disturbed inputs.
        relative: By how much every input is off, up or down at random, as a part of itself.
    """
    with np.errstate(all="ignore"):
        squares = np.zeros(reference.shape, np.float64)
        for results in disturbed:
            squares += np.square(results.astype(np.float64) - reference)
        moved = np.sqrt(squares / len(disturbed))
        moved[~np.isfinite(moved)] = 0.0
        if len(disturbed) < _RUNS_THAT_TELL:
            size = np.abs(reference.astype(np.float64))
            size = np.where(np.isfinite(size), size, 0.0) + _FLOOR * magnitude(reference)
            part = moved[size > 0] / size[size > 0]
            if part.size:
                moved = np.maximum(moved, size * float(part.max()) / _LARGEST_OF_MANY)
    return Response((moved / (math.sqrt(2) * relative)).astype(np.float32))


def _square_scale(array: NDArray[Any]) -> float:
    """The factor that keeps squares from overflowing. They are computed in f64, so only those of f64 can overflow."""
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
    answers: Response | None = None,
    floor: float = 0.0,
    finite_only: NDArray[np.bool_] | bool = False,
    seed: int = 0,
    output: int = 0,
) -> Check:
    """Compare one output with its reference, element by element.

    Args:
        expected: The reference's output: float32, float64, or an integer type, which is compared exactly.
        actual: The candidate's output, of the same shape and dtype. A NaN is right if the reference has one, an
            infinity if it has the same.
        tolerance: The distance that elements may have.
        scale: The reference's `magnitude`; by default it is computed.
        answers: The response of the reference to disturbed inputs, if it is known. The tolerance then grows with it.
        floor: The absolute error that every element may have, because its type has no smaller numbers.
        finite_only: The places where only elements are compared that are finite in both.
        seed: The seed of the inputs, for the result.
        output: The number of this output, for the result.

    Raises:
        ValueError: shapes or dtypes differ.
    """
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        raise ValueError(f"{actual.dtype}{actual.shape} cannot be compared with {expected.dtype}{expected.shape}")
    if np.issubdtype(expected.dtype, np.floating):
        scale = magnitude(expected) if scale is None else scale
        check = _check_floats(expected.reshape(-1), actual.reshape(-1), tolerance, scale, answers, floor, finite_only)
    else:
        check = _check_integers(expected.reshape(-1), actual.reshape(-1), tolerance)
    check = msgspec.structs.replace(check, seed=seed, output=output, compared=expected.size)
    if check.first_bad is None:
        return check
    place = tuple(int(i) for i in np.unravel_index(check.first_bad[0], expected.shape))
    return msgspec.structs.replace(check, first_bad=place, expected=str(expected[place]), actual=str(actual[place]))


def with_bits(check: Check, expected: NDArray[Any], actual: NDArray[Any]) -> Check:
    """Refuse a right result that differs from the reference in a bit. Any two NaN are the same.

    Args:
        check: the comparison of both within a tolerance. One that failed stays as it is.
        expected: the reference.
        actual: the result.
    """
    if not check.ok:
        return check
    if expected.dtype.kind == "f":
        same = (expected == actual) & (np.signbit(expected) == np.signbit(actual))
        same |= np.isnan(expected) & np.isnan(actual)
    else:
        same = expected == actual
    differing = int(same.size - np.count_nonzero(same))
    if not differing:
        return check
    place = tuple(int(i) for i in np.unravel_index(int(np.argmin(same)), expected.shape))
    return msgspec.structs.replace(
        check,
        ok=False,
        differing=differing,
        compared=check.compared or int(same.size),
        first_bad=place,
        expected=repr(expected[place].item()),
        actual=repr(actual[place].item()),
    )


def merge_checks(checks: Sequence[Check]) -> Check:
    """Merge the checks of several outputs: the place of the first wrong one, and the sums of the counts."""
    first = next((check for check in checks if check.wrong or check.differing), checks[0])
    return msgspec.structs.replace(
        first,
        ok=all(check.ok for check in checks),
        wrong=sum(check.wrong for check in checks),
        differing=sum(check.differing for check in checks),
        compared=sum(check.compared for check in checks),
        max_abs_error=max(check.max_abs_error for check in checks),
        worst=max(check.worst for check in checks),
        nans=sum(check.nans for check in checks),
        infs=sum(check.infs for check in checks),
        poison_left=sum(check.poison_left for check in checks),
        stray_bytes=sum(check.stray_bytes for check in checks),
        jumped=sum(check.jumped for check in checks),
    )


def _check_floats(
    expected: NDArray[Any],
    actual: NDArray[Any],
    tolerance: Tolerance,
    scale: float,
    answers: Response | None,
    floor: float,
    finite_only: NDArray[np.bool_] | bool,
) -> Check:
    """Compare flat arrays; the first wrong element is a flat index."""
    answered = None if answers is None else answers.elements.reshape(-1)
    not_compared = (
        np.broadcast_to(finite_only, expected.shape) if isinstance(finite_only, bool) else finite_only.reshape(-1)
    )
    first: int | None = None
    first_jump: int | None = None
    wrong = jumped = nans = infs = 0
    largest = worst = 0.0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for start in range(0, expected.size, _CHUNK):
            chunk = slice(start, start + _CHUNK)
            e, a = expected[chunk], actual[chunk]
            local = scale if answered is None else np.maximum(answered[chunk], scale)
            size = np.abs(e)
            error = np.abs(a - e)
            near = size * tolerance.rtol + local * tolerance.atol_scale + floor
            allowed = near + size * (tolerance.stored + tolerance.jump) + local * tolerance.jump
            good = (error <= near) & (error < math.inf)
            if not good.all():
                good |= (e == a) | (np.isnan(e) & np.isnan(a))
                finite = np.isfinite(error)
                good |= ~(np.isfinite(e) & np.isfinite(a)) & not_compared[chunk]
                nans += int(np.count_nonzero(np.isnan(a) & ~np.isnan(e) & ~good))
                infs += int(np.count_nonzero(np.isinf(a) & (a != e) & ~good))
                jumps = ~good & (error <= allowed) & finite
                if jumps.any():
                    jumped += int(np.count_nonzero(jumps))
                    first_jump = start + int(np.argmax(jumps)) if first_jump is None else first_jump
                error, allowed = error[finite], np.broadcast_to(allowed, finite.shape)[finite]
                bad = ~good & ~jumps
                wrong += int(np.count_nonzero(bad))
                if first is None and bad.any():
                    first = start + int(np.argmax(bad))
            if error.size:
                largest = max(largest, float(error.max()))
                part = error[allowed > 0] / allowed[allowed > 0]
                worst = max(worst, float(np.max(part, initial=0.0, where=np.isfinite(part))))
    if may_jump(jumped, expected.size, tolerance):
        jumped = 0
    elif first is None or (first_jump is not None and first_jump < first):
        first = first_jump
    return Check(
        ok=wrong + jumped == 0,
        first_bad=None if first is None else (first,),
        wrong=wrong + jumped,
        magnitude=scale,
        max_abs_error=largest,
        worst=worst,
        nans=nans,
        infs=infs,
        jumped=jumped,
    )


def _check_integers(expected: NDArray[Any], actual: NDArray[Any], tolerance: Tolerance) -> Check:
    """Compare flat arrays; the first wrong element is a flat index."""
    bad = expected != actual
    wrong = int(np.count_nonzero(bad))
    if not wrong:
        return Check(ok=True)
    largest = float(np.abs(actual[bad].astype(np.float64) - expected[bad].astype(np.float64)).max())
    if largest <= 1 and may_step(wrong, expected.size, tolerance):
        return Check(ok=True, max_abs_error=largest)
    return Check(ok=False, first_bad=(int(np.argmax(bad)),), wrong=wrong, max_abs_error=largest)
