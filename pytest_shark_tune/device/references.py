"""References: results that the device child keeps, and the check of other results against them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pytest_shark_tune.device.buffers import BufferImage, Output, count_unwritten, hides_poison
from pytest_shark_tune.device.comparison import Counts, Expected, ResultComparer, StagedReference
from pytest_shark_tune.device.elements import element_type, smallest_step, to_array
from pytest_shark_tune.device.inputs import InputData
from pytest_shark_tune.device.loaded import Loaded, ReferenceResult, RunResult
from pytest_shark_tune.device.protocol import TensorData
from pytest_shark_tune.measurement import correctness
from pytest_shark_tune.measurement.acceptance import Acceptance

__all__ = ["References"]

_logger = logging.getLogger(__name__)

_MOST_RESPONSE_RUNS = 8
_FEWEST_RESPONSE_RUNS = 4
_RESPONSE_S = 10.0
"""Once the fewest runs have taken so long, no more are made."""
_ENOUGH_FOR_A_QUANTILE = 1 << 20
_MOST_STAGED_BYTES = 2 << 30
"""How much memory of the device the results of references may take."""

_FiniteOnly = Sequence[NDArray[np.bool_] | bool]
"""The places of each output where only finite numbers are compared."""

_StagedKey = tuple[int, int, bool, correctness.Tolerance]
"""The identities of a result and of a comparer in this process, whether responses count, and the tolerance."""

_Responses = tuple[correctness.Response | None, ...]
"""The response of each output, ``None`` for integers; empty if it cannot be found."""


class _Reference(msgspec.Struct):
    """The results of a loaded module that others are compared with."""

    name: str
    key: str
    """The key of the loaded module."""
    seed: int
    kept: tuple[ReferenceResult, ...]
    """The results: a second one, with another poison, if values of the first look like poison."""
    own: ReferenceResult | None = None
    """The module's own results, if what is kept was computed elsewhere."""
    on_other_data: dict[InputData, ReferenceResult] = {}
    unconfirmed: list[NDArray[np.bool_] | bool] | None = None
    responses: _Responses | None = None
    staged: dict[_StagedKey, tuple[list[Expected], StagedReference]] = {}
    """The results on the device."""

    @property
    def own_result(self) -> ReferenceResult:
        """What the module itself computes, even if what is kept was computed elsewhere."""
        return self.own or self.kept[0]


class References:
    """The references of one device, by name: results of the modules in ``loaded``."""

    def __init__(self, loaded: Mapping[str, Loaded]) -> None:
        self._loaded = loaded
        self._references: dict[str, _Reference] = {}

    def keep(self, key: str, name: str, seed: int, outputs: Sequence[TensorData] = ()) -> None:
        """Fill ``key`` from ``seed``, run it once and keep the outputs as ``name``, or the given ones in their place.

        Raises:
            ValueError: given outputs have other types or shapes than those of ``key``.
        """
        if outputs:
            results = self._loaded[key].run_once(InputData(seed))
            kept_ones = (_kept(_replaced(results, outputs)),)
            self._references[name] = _Reference(name, key, seed, kept_ones, own=_kept(results))
            return
        kept = [_kept(self._loaded[key].run_once(InputData(seed)))]
        if any(map(hides_poison, kept[0].result.outputs, kept[0].values)):
            kept.append(_kept(self._loaded[key].run_once(InputData(seed, poison=1))))
        self._references[name] = _Reference(name, key, seed, tuple(kept))

    def check(self, key: str, name: str, acceptance: Acceptance) -> correctness.Check:
        """Run ``key`` on the data of reference ``name`` and compare the outputs, then on exact data.

        If outputs are out of tolerance, the reference is run on disturbed inputs, and the tolerance grows as much as
        the reference responds.
        """
        reference, loaded = self._reference(name), self._loaded[key]
        for poison, kept in enumerate(reference.kept):
            bitwise = acceptance.bitwise
            loaded.execute(InputData(reference.seed, poison))
            right = self._right_on_device(loaded, reference, kept, acceptance.tolerance, bitwise=bitwise)
            if right is None and reference.responses:
                responses = reference.responses
                right = self._right_on_device(
                    loaded, reference, kept, acceptance.tolerance, responses=responses, bitwise=bitwise
                )
            if right is not None:
                check = right
                continue
            results = loaded.results()
            check = _compare(results, key, reference, kept, acceptance.tolerance, bitwise=bitwise)
            if not check.ok and not check.differing and (responses := self._responses_of(reference)):
                check = _compare(
                    results, key, reference, kept, acceptance.tolerance, responses=responses, bitwise=bitwise
                )
            if not check.ok:
                return check
        if acceptance.data is not None and reference.key in self._loaded:
            try:
                for trial in range(acceptance.data.rounds):
                    data = InputData(reference.seed, trial=trial, exact=acceptance.data)
                    kept = self._kept_on(reference, data)
                    exact = self._checked_on(data, key, reference, kept, acceptance.exact, bitwise=acceptance.bitwise)
                    if not exact.ok:
                        check = exact
                        break
            finally:
                self._restore(key, reference)
        return check

    def check_edges(self, key: str, name: str, acceptance: Acceptance) -> correctness.Check:
        """Run ``key`` and the reference on special values, and compare the outputs.

        Some elements are very large and are off in proportion to themselves, so the magnitude is that of most elements.
        """
        reference = self._reference(name)
        data = InputData(reference.seed, edges=True)
        try:
            kept = self._kept_on(reference, data)
            if reference.unconfirmed is None:
                reference.unconfirmed = self._loaded[reference.key].unconfirmed(kept)
            finite_only, bitwise = reference.unconfirmed, acceptance.bitwise
            return self._checked_on(
                data, key, reference, kept, acceptance.tolerance, finite_only=finite_only, bitwise=bitwise
            )
        finally:
            self._restore(key, reference)

    def learn_response(self, key: str, name: str, relative: float) -> None:
        """Take the difference between ``key`` and reference ``name`` as a response of the reference."""
        reference = self._reference(name)
        was, now = reference.own_result, _kept(self._loaded[key].run_once(InputData(reference.seed))).values
        if [values.shape for values in was.values] != [values.shape for values in now]:
            raise ValueError(f"outputs of {key!r} cannot be compared with reference {name!r}")
        found = _responses(was, [now], relative / 2**0.5)
        known = self._responses_of(reference) or (None,) * len(found)
        reference.responses = tuple(map(_larger, known, found))
        reference.staged = {key: staged for key, staged in reference.staged.items() if not key[2]}

    def _checked_on(
        self,
        data: InputData,
        key: str,
        reference: _Reference,
        kept: ReferenceResult,
        tolerance: correctness.Tolerance,
        *,
        finite_only: _FiniteOnly = (),
        bitwise: bool = False,
    ) -> correctness.Check:
        """Run ``key`` on some data and compare its outputs, on the device if that shows that they are right."""
        loaded = self._loaded[key]
        loaded.execute(data)
        right = self._right_on_device(loaded, reference, kept, tolerance, finite_only=finite_only, bitwise=bitwise)
        return right or _compare(
            loaded.results(), key, reference, kept, tolerance, finite_only=finite_only, bitwise=bitwise
        )

    def _right_on_device(
        self,
        loaded: Loaded,
        reference: _Reference,
        kept: ReferenceResult,
        tolerance: correctness.Tolerance,
        *,
        responses: _Responses = (),
        finite_only: _FiniteOnly = (),
        bitwise: bool = False,
    ) -> correctness.Check | None:
        """Compare the results of the last run on the device, unless all bits have to be the same.

        Returns:
            The check of a right result; ``None`` if the host has to compare.
        """
        comparer, image = loaded.comparer, loaded.image
        if bitwise or comparer is None or image is None or not _fits(loaded, kept):
            return None
        try:
            return self._compared_by(comparer, image, loaded, reference, kept, tolerance, responses, finite_only)
        except (IndexError, RuntimeError, ValueError) as error:  # As where the device has no memory left for it.
            _logger.warning("results are compared on the host: %s", error)
            return None

    def _compared_by(
        self,
        comparer: ResultComparer,
        image: BufferImage,
        loaded: Loaded,
        reference: _Reference,
        kept: ReferenceResult,
        tolerance: correctness.Tolerance,
        responses: _Responses,
        finite_only: _FiniteOnly,
    ) -> correctness.Check | None:
        key = (id(kept), id(comparer), bool(responses), tolerance)
        if key not in reference.staged:
            expected = _expected(kept, tolerance, responses, finite_only)
            if not all(part.can_be_staged for part in expected):
                return None
            staged = comparer.stage(expected, None if kept.result.stray else image)
            self._make_room(staged.size)
            reference.staged[key] = expected, staged
        expected, staged = reference.staged[key]
        if not comparer.is_trusted(staged, expected, image):
            return None
        counts = comparer.counts_of_right(loaded.buffer, staged, expected)
        return None if counts is None else _right(reference.seed, kept, counts)

    def free_staged(self) -> None:
        """Free the device's memory of all results; they are copied there again when they are compared."""
        for reference in self._references.values():
            reference.staged.clear()

    def _make_room(self, size: int) -> None:
        """Free the device's memory of results that were staged first, if all of them take too much."""
        held = [(reference, key) for reference in self._references.values() for key in reference.staged]
        total = size + sum(reference.staged[key][1].size for reference, key in held)
        for reference, key in held:
            if total <= _MOST_STAGED_BYTES:
                break
            total -= reference.staged.pop(key)[1].size

    def _reference(self, name: str) -> _Reference:
        if name not in self._references:
            raise KeyError(f"no reference {name!r} is kept")
        return self._references[name]

    def _kept_on(self, reference: _Reference, data: InputData) -> ReferenceResult:
        """The reference's results on other data than its own."""
        if data not in reference.on_other_data:
            reference.on_other_data[data] = _kept(self._loaded[reference.key].run_once(data))
        return reference.on_other_data[data]

    def _restore(self, key: str, reference: _Reference) -> None:
        """Fill both modules with the reference's own data again, as timing may depend on it."""
        for filled in {key, reference.key}:
            self._loaded[filled].fill(InputData(reference.seed))

    def _responses_of(self, reference: _Reference) -> _Responses:
        """The response of each output of a reference to disturbed inputs."""
        if reference.responses is None:
            loaded = self._loaded.get(reference.key)
            reference.responses = () if loaded is None or not loaded.step else _measure_responses(loaded, reference)
        return reference.responses


def _measure_responses(loaded: Loaded, reference: _Reference) -> _Responses:
    runs = []
    started = time.perf_counter()
    for trial in range(_MOST_RESPONSE_RUNS):
        data = InputData(reference.seed, disturbed=loaded.step, trial=trial)
        runs.append(_kept(loaded.run_once(data)).values)
        if trial + 1 >= _FEWEST_RESPONSE_RUNS and time.perf_counter() - started > _RESPONSE_S:
            break
    loaded.fill(InputData(reference.seed))
    return _responses(reference.own_result, runs, loaded.step)


def _replaced(results: Sequence[RunResult], outputs: Sequence[TensorData]) -> list[RunResult]:
    """The result with other outputs."""
    ours = [(output.element, output.shape) for output in results[0].outputs]
    theirs = [(output.element, output.shape) for output in outputs]
    if ours != theirs:
        raise ValueError(f"outputs {theirs} cannot take the place of outputs {ours}")
    given = (Output(output.element, output.shape, np.frombuffer(output.data, np.uint8)) for output in outputs)
    return [RunResult(tuple(given), results[0].stray)]


def _kept(results: Sequence[RunResult]) -> ReferenceResult:
    values = tuple(to_array(output.raw, output.element, output.shape) for output in results[0].outputs)
    magnitudes = tuple(correctness.magnitude(part) if part.dtype.kind == "f" else 0.0 for part in values)
    return ReferenceResult(results[0], values, magnitudes)


def _responses(was: ReferenceResult, runs: Sequence[tuple[Any, ...]], relative: float) -> _Responses:
    return tuple(
        correctness.response(part, [run[number] for run in runs], relative) if part.dtype.kind == "f" else None
        for number, part in enumerate(was.values)
    )


def _larger(one: correctness.Response | None, other: correctness.Response | None) -> correctness.Response | None:
    if one is None or other is None:
        return one or other
    return correctness.Response(np.maximum(one.elements, other.elements))


def _fits(loaded: Loaded, kept: ReferenceResult) -> bool:
    """Whether a reference's outputs are those of a benchmark with the same layout."""
    ours = [(view.element, view.shape) for view in loaded.views if view.writes]
    return ours == [(output.element, output.shape) for output in kept.result.outputs]


def _expected(
    kept: ReferenceResult, tolerance: correctness.Tolerance, responses: _Responses, finite_only: _FiniteOnly
) -> list[Expected]:
    """The outputs of a reference, with the magnitude of each element as `correctness.check_output` takes it."""
    found = []
    for number, output in enumerate(kept.result.outputs):
        allowed, scale, places = _allowance(kept, number, tolerance, finite_only)
        values = kept.values[number]
        scales = None
        if values.dtype.kind == "f":
            answered = responses[number] if responses else None
            scales = np.broadcast_to(np.float32(-scale if places is True else scale), (values.size,))
            if answered is not None:
                scales = np.maximum(scales, answered.elements.reshape(-1))
            if not isinstance(places, bool):
                scales = np.where(places.reshape(-1), -scales, scales)
        found.append(Expected(output, allowed, scales))
    return found


def _right(seed: int, kept: ReferenceResult, counts: Sequence[Counts]) -> correctness.Check:
    """The check of a right result."""
    return correctness.merge_checks(
        [
            correctness.Check(
                ok=True,
                seed=seed,
                output=number,
                compared=kept.values[number].size,
                magnitude=kept.magnitudes[number],
                max_abs_error=found.largest,
                worst=found.worst,
            )
            for number, found in enumerate(counts)
        ]
    )


def _allowance(
    kept: ReferenceResult, number: int, tolerance: correctness.Tolerance, finite_only: _FiniteOnly
) -> tuple[correctness.Tolerance, float, NDArray[np.bool_] | bool]:
    """The tolerance of an output, its magnitude, and the places where only finite numbers are compared."""
    element = kept.result.outputs[number].element
    allowed = tolerance.stored_as(element) if element_type(element).kind == "float" else tolerance
    if not finite_only:
        return allowed, kept.magnitudes[number], False
    allowed = msgspec.structs.replace(allowed, rtol=allowed.rtol + allowed.atol_scale)
    return allowed, _usual(kept.values[number]), finite_only[number]


def _compare(
    results: Sequence[RunResult],
    key: str,
    reference: _Reference,
    kept: ReferenceResult,
    tolerance: correctness.Tolerance,
    *,
    responses: _Responses = (),
    finite_only: _FiniteOnly = (),
    bitwise: bool = False,
) -> correctness.Check:
    """Compare results with those of a reference.

    Args:
        results: The results of ``key``: one for each copy of the data that differs.
        key: The key of the module, for messages.
        reference: The reference.
        kept: The reference's result on the same data.
        tolerance: The tolerance of outputs that are not rounded.
        responses: The responses of the reference's outputs, if they count.
        finite_only: The places of each output where only finite numbers are compared, if inputs hold special values.
        bitwise: Whether outputs have to be equal bit for bit.
    """
    ours = [(output.element, output.shape) for output in results[0].outputs]
    theirs = [(output.element, output.shape) for output in kept.result.outputs]
    if ours != theirs:
        raise ValueError(f"outputs {ours} cannot be compared with reference {reference.name!r}, which has {theirs}")
    if not ours:
        raise ValueError(f"{key!r} has no outputs to compare")
    merged = []
    for result in results:
        checks = []
        for number, (output, expected) in enumerate(zip(result.outputs, kept.result.outputs, strict=True)):
            allowed, scale, places = _allowance(kept, number, tolerance, finite_only)
            values = to_array(output.raw, output.element, output.shape)
            check = correctness.check_output(
                kept.values[number],
                values,
                allowed,
                scale=scale,
                answers=responses[number] if responses else None,
                floor=smallest_step(output.element),
                finite_only=places,
                seed=reference.seed,
                output=number,
            )
            if bitwise:
                check = correctness.with_bits(check, kept.values[number], values)
            left = count_unwritten(output, expected) if output.before is not None and not check.ok else 0
            checks.append(msgspec.structs.replace(check, copy=result.copy, poison_left=left))
        # If the reference changes bytes outside its outputs as well, they may be scratch memory.
        stray = 0 if kept.result.stray else result.stray
        one = correctness.merge_checks(checks)
        merged.append(msgspec.structs.replace(one, ok=one.ok and not stray, stray_bytes=stray))
    return correctness.merge_checks(merged)


def _usual(values: NDArray[Any]) -> float:
    """The magnitude without the largest twentieth of the elements."""
    if values.dtype.kind != "f":
        return 0.0
    flat = values.reshape(-1)
    some = flat[:: max(1, flat.size // _ENOUGH_FOR_A_QUANTILE)]
    finite = np.abs(some[np.isfinite(some)])
    if not finite.size:
        return 0.0
    return correctness.magnitude(finite[finite <= np.quantile(finite, 0.95)]) or correctness.magnitude(finite)
