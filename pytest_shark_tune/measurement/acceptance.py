"""Acceptance: the tolerances of a dispatch or a model, from its numerics.

`tolerance_for` is the tolerance of one sum. docs/measurement.md derives the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from pytest_shark_tune.dispatch.elements import unit_roundoff
from pytest_shark_tune.dispatch.types import Numerics
from pytest_shark_tune.measurement.correctness import ALL_MAY_JUMP, EXACT, Tolerance

__all__ = ["Acceptance", "ExactData", "acceptance_for", "tolerance_in_model"]

_STEPS = 0.001
"""The share of integers, rounded from floats, that may be off by one. In right results it is about a tenth of that."""
_FINE = 2.0**-20
"""Sums in a type of a finer unit roundoff show a missing product in random data."""
_EXACT_ROUNDS = 8
_HITS = 16
_SWITCHED = 8
"""The number of terms of a sum of exponentials that are 1: so few that one more or less shows in the coarsest type."""


class ExactData(msgspec.Struct, frozen=True):
    """Inputs of small integers. Their sums are exact in any order."""

    amplitude: int
    """The largest integer, of either sign."""
    density: float
    """The share of inputs that are not 0."""
    rounds: int
    """The number of such inputs that it takes to see one product that is left out."""
    switched: bool = False
    """Inputs are 1, ``density`` of them, or far below, so that exponentials of their differences to 1 are 1 and 0."""


class Acceptance(msgspec.Struct, frozen=True):
    """The tolerances of a right result."""

    tolerance: Tolerance
    """The tolerance on random inputs."""
    exact: Tolerance = EXACT
    """The tolerance on inputs of ``data``."""
    data: ExactData | None = None
    bitwise: bool = False
    """Whether results have to be equal bit for bit as well."""


def acceptance_for(numerics: Numerics, *, elements: int) -> Acceptance:
    """Derive the tolerances of a dispatch from its numerics.

    The errors of several sums add up as those of one walk. A value that is rounded to a coarser type between two sums
    is off by up to a rounding of that type, and the second sum spreads this over its results.

    Sums that are kept in a type of 16 bits hide a missing product in their rounding errors. If small integers make them
    exact, they are computed on such integers as well, and every order gives the same result.

    Args:
        numerics: The sums and roundings of the dispatch.
        elements: The number of elements of its smallest output.

    Raises:
        ValueError: an element type is not known.
    """
    walk, unit = _walk((kept.element, kept.length, 1) for kept in numerics.sums)
    roundings = 1 if unit else ALL_MAY_JUMP
    if not unit:
        if not numerics.widest:
            return Acceptance(EXACT)
        walk = unit = min(unit_roundoff(numerics.widest), unit_roundoff("f32"))
    jumps = [2 * unit_roundoff(element) for element in numerics.rounded]
    spread = max((2 * unit_roundoff(element) for element in numerics.spread), default=0.0)
    few = {"jump": sum(jumps), "steps": _STEPS if numerics.to_integers else 0.0}
    tolerance = msgspec.structs.replace(
        Tolerance.of_walk(walk, unit, spread=spread), roundings=roundings * len(jumps), **few
    )
    if not (numerics.exact or numerics.switched) or unit <= _FINE:
        return Acceptance(tolerance)
    plain = unit_roundoff("f32")
    exact = msgspec.structs.replace(Tolerance.of_walk(plain, plain), roundings=len(jumps), **few)
    return Acceptance(tolerance, exact, _exact_data(unit, numerics, elements))


def _exact_data(unit: float, numerics: Numerics, elements: int) -> ExactData:
    """Choose integers so that sums stay within ``1 / unit`` in any order, which a type of this unit roundoff holds.

    Sums of products of either sign stay within 7.5 standard deviations. Other sums may have terms of one sign.
    """
    largest = 1 / unit
    length = max(kept.length for kept in numerics.sums)
    if not numerics.exact:
        return ExactData(0, min(1.0, _SWITCHED / length), _EXACT_ROUNDS, switched=True)
    amplitude = 3 if largest >= 1024 else 1
    square = sum(value * value for value in range(1, amplitude + 1)) / amplitude
    if numerics.products:
        terms = min(length, (largest / 7.5 / square) ** 2)
        density = math.sqrt(terms / length)
    else:
        terms = min(length, largest / 2 / amplitude**2)
        density = terms / length
    hits = terms / length * elements
    return ExactData(amplitude, density, min(_EXACT_ROUNDS, math.ceil(_HITS / hits)))


def _walk(sums: Iterable[tuple[str, int, int]]) -> tuple[float, float]:
    """The standard deviation of the walk of rounding errors, and the coarsest unit roundoff of the sums' types."""
    made = [(unit_roundoff(element), length, calls) for element, length, calls in sums]
    walk = math.sqrt(sum(calls * length * unit**2 for unit, length, calls in made))
    return walk, max((unit for unit, _, _ in made), default=0.0)


def tolerance_in_model(elements: Iterable[str], sums: Iterable[tuple[str, int, int]]) -> Tolerance:
    """The tolerance between two correct ways to compute some of a model's dispatches.

    Calls come one after another, so their errors add up as those of one long sum. A value that is rounded to a coarser
    type between two dispatches may fall the other way and move a few results. How the model amplifies the errors is
    another matter (see `disturbance`). Integer results are exact.

    Args:
        elements: The element types that are known to be in the model.
        sums: For each of these dispatches the type that its sums are kept in, their length and the number of calls.

    Raises:
        ValueError: an element type is not known.
    """
    known = [roundoff for roundoff in map(unit_roundoff, elements) if roundoff]
    walk, unit = _walk(sums)
    if not unit:
        walk = unit = min([*known, unit_roundoff("f32")])
    # Types of less than 16 bits are those of weights.
    coarsest = max((roundoff for roundoff in known if unit < roundoff <= unit_roundoff("bf16")), default=0.0)
    return msgspec.structs.replace(Tolerance.of_walk(walk, unit), jump=2 * coarsest, roundings=1 if coarsest else 0)
