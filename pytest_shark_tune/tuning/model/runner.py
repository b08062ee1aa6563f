"""The model runner: compares whole models with their default on a leased device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.onnx_engine import arrays_of, run_onnx
from pytest_shark_tune.device.protocol import TensorData
from pytest_shark_tune.dispatch.types import Tensor
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.correctness import Tolerance
from pytest_shark_tune.measurement.rounds import combine_rounds, is_decided
from pytest_shark_tune.measurement.timing import FINAL, Measurement, Policy, Run, compare_finalists
from pytest_shark_tune.records.types import State
from pytest_shark_tune.tuning.acceptance import raise_if_wrong
from pytest_shark_tune.tuning.children import DeviceChildren

__all__ = ["ONNX", "ModelFunction", "ModelRunner"]

ONNX = "ONNX Runtime"
"""The name of ONNX Runtime among the models that are compared."""

_DEFAULT, _TUNED, _REFERENCE, _DISTURBED = "default", "tuned", "reference", "disturbed"
_FEWEST_ROUNDS, _ROUNDS = 3, 5
"""Fresh processes in which models are compared: two speeds of one machine show in few, and a model takes long."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class ModelFunction:
    """One function of a model, as its variants are compared."""

    name: str
    """The name of the function."""
    inputs: Sequence[Tensor]
    """The shapes of its inputs. Their data is random, and differs from child to child."""
    tolerance: Tolerance
    """How far results may be off."""
    files: Mapping[int, str] = field(default_factory=dict)
    """Files with the data of some inputs, by position."""
    parameters: Sequence[str] = ()
    """Files with the model's parameters, as ``SCOPE=FILE``."""
    disturbed: Callable[[], Path | None] = lambda: None
    """Compiles the default with its sums disturbed (see `disturbance`), before a result is called wrong."""
    expected: Callable[[Sequence[TensorData], Sequence[TensorData]], Sequence[TensorData]] | None = None
    """Computes what the outputs should be from the inputs and from the default's outputs, whose types they have.

    Without it the default's outputs are what they should be.
    """


class ModelRunner:
    """Compares whole models for one process of a run; inputs are drawn by ``seed``."""

    def __init__(self, children: DeviceChildren, seed: int) -> None:
        self.children = children
        """The device children that it shares with other runners."""
        self._seed = seed

    def compare(
        self,
        function: ModelFunction,
        default: Path,
        tuned: Mapping[str, Path],
        *,
        policy: Policy = FINAL,
        most_rounds: int = _ROUNDS,
        is_checked: bool = False,
        onnx: Path | None = None,
    ) -> dict[str, Measurement]:
        """Time models in turns with the default one, in fresh children, after their results were checked.

        Args:
            function: the function that is run.
            default: the default model.
            tuned: the others, by name.
            policy: the time that one round may take.
            most_rounds: the most rounds; fewer if three decide.
            is_checked: whether `check_all` has checked the results, so that they are not checked again.
            onnx: the model as an ONNX file, which is timed in turns with the others in ONNX Runtime, as ``ONNX``.

        Raises:
            CandidateFailed: a model cannot be run, or its results differ.
            InputError: ONNX Runtime cannot run the model.
        """
        rounds: dict[str, list[Measurement]] = {name: [] for name in (*tuned, *([ONNX] if onnx else []))}
        disturbed: Path | None = None

        def play(number: int, disturbed: Path | None) -> dict[str, Measurement]:
            with self._reference(function, default, number, disturbed) as child:
                for name, path in tuned.items():
                    _load(child, name, path, function)
                    if not is_checked:
                        raise_if_wrong(child.check(name, _REFERENCE, function.tolerance))
                runs: dict[str, Run] = {name: partial(child.run, name) for name in tuned}
                with ExitStack() as stack:
                    if onnx is not None:
                        inputs = child.read(_DEFAULT)[: len(function.inputs)]
                        runs[ONNX] = stack.enter_context(run_onnx(onnx, arrays_of(inputs), is_timed=True)).run
                    return compare_finalists(runs, partial(child.run, _DEFAULT), policy, seed=self._seed + number)

        for number in range(most_rounds):
            measured, disturbed = _with_second_chance(function, partial(play, number), disturbed)
            for name, measurement in measured.items():
                rounds[name].append(measurement)
            if number + 1 >= _FEWEST_ROUNDS and is_decided(rounds.values()):
                break
        return {name: combine_rounds(measurements) for name, measurements in rounds.items()}

    def check(self, function: ModelFunction, default: Path, tuned: Path, *, inputs: int = 1) -> None:
        """Compare a model's results with the default's on so many different inputs, in fresh children.

        Raises:
            CandidateFailed: a model cannot be run, or its results differ.
        """
        for failure in self.check_all(function, default, {_TUNED: tuned}, inputs=inputs).values():
            raise failure

    def check_all(
        self, function: ModelFunction, default: Path, models: Mapping[str, Path], *, inputs: int
    ) -> dict[str, CandidateFailed]:
        """Compare the results of models with the default's on so many different inputs, a fresh child for each input.

        A child that a model ended is replaced.

        Returns:
            The failures of models, by name.

        Raises:
            CandidateFailed: the default cannot be run.
        """
        failed: dict[str, CandidateFailed] = {}
        disturbed: Path | None = None
        for number in range(inputs):
            waiting = [name for name in models if name not in failed]
            while waiting:
                busy = ""
                try:
                    with self._reference(function, default, number, disturbed) as child:
                        while waiting:
                            busy = waiting[0]
                            _load(child, busy, models[busy], function)
                            raise_if_wrong(child.check(busy, _REFERENCE, function.tolerance))
                            child.unload(busy)
                            del waiting[0]
                except CandidateFailed as failure:
                    if not busy:
                        raise
                    # A result that seems wrong is compared again once it is known how the model answers to rounding.
                    if failure.state is State.WRONG_RESULT and not disturbed and (disturbed := function.disturbed()):
                        continue
                    failed[waiting.pop(0)] = failure
        return failed

    @contextmanager
    def _reference(
        self, function: ModelFunction, default: Path, number: int, disturbed: Path | None
    ) -> Iterator[DeviceChild]:
        """A fresh child with the default's results on the inputs of round ``number``."""
        with self.children.fresh() as child:
            _load(child, _DEFAULT, default, function)
            seed = self._seed + number
            child.store_reference(_DEFAULT, _REFERENCE, seed)
            if function.expected is not None:
                tensors = child.read(_DEFAULT)
                inputs, outputs = tensors[: len(function.inputs)], tensors[len(function.inputs) :]
                child.store_reference(_DEFAULT, _REFERENCE, seed, outputs=function.expected(inputs, outputs))
            if disturbed is not None:
                _load(child, _DISTURBED, disturbed, function)
                child.learn_response(_DISTURBED, _REFERENCE, function.tolerance.deviation)
                child.unload(_DISTURBED)
            yield child


def _load(child: DeviceChild, key: str, path: Path, function: ModelFunction) -> None:
    child.load_function(
        key,
        path,
        function=function.name,
        inputs=function.inputs,
        files=function.files,
        parameters=function.parameters,
    )


def _with_second_chance(
    function: ModelFunction, run: Callable[[Path | None], _T], disturbed: Path | None
) -> tuple[_T, Path | None]:
    """Run, and if a result is wrong run again with the model that shows how results respond to rounding errors.

    Returns:
        The result of the run, and the disturbed model if it is known by now.
    """
    try:
        return run(disturbed), disturbed
    except CandidateFailed as failure:
        if failure.state is not State.WRONG_RESULT or disturbed or not (disturbed := function.disturbed()):
            raise
    return run(disturbed), disturbed
