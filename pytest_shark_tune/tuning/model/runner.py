"""The model runner: compares whole models with their default on a leased device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.dispatch.types import Tensor
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.correctness import Tolerance
from pytest_shark_tune.measurement.timing import (
    FINAL,
    Measurement,
    Policy,
    combine_rounds,
    compare_finalists,
    is_decided,
)
from pytest_shark_tune.records.types import State
from pytest_shark_tune.tuning.acceptance import raise_if_wrong
from pytest_shark_tune.tuning.children import DeviceChildren

__all__ = ["ModelFunction", "ModelRunner"]

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
    ) -> dict[str, Measurement]:
        """Time models in turns with the default one, in fresh children, after their results were checked.

        Args:
            function: the function that is run.
            default: the default model.
            tuned: the others, by name.
            policy: the time that one round may take.
            most_rounds: the most rounds; fewer if three decide.

        Raises:
            CandidateFailed: a model cannot be run, or its results differ.
        """
        rounds: dict[str, list[Measurement]] = {name: [] for name in tuned}
        disturbed: Path | None = None

        def play(number: int, disturbed: Path | None) -> dict[str, Measurement]:
            with self._loaded(function, default, tuned, number, disturbed) as child:
                runs = {name: partial(child.run, name) for name in tuned}
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
        disturbed: Path | None = None

        def load(number: int, disturbed: Path | None) -> None:
            with self._loaded(function, default, {_TUNED: tuned}, number, disturbed):
                pass

        for number in range(inputs):
            _, disturbed = _with_second_chance(function, partial(load, number), disturbed)

    @contextmanager
    def _loaded(
        self, function: ModelFunction, default: Path, tuned: Mapping[str, Path], number: int, disturbed: Path | None
    ) -> Iterator[DeviceChild]:
        """A fresh child with models loaded and their results checked on the inputs of round ``number``."""
        with self.children.fresh() as child:
            load = partial(
                child.load_function,
                function=function.name,
                inputs=function.inputs,
                files=function.files,
                parameters=function.parameters,
            )
            load(_DEFAULT, default)
            child.store_reference(_DEFAULT, _REFERENCE, self._seed + number)
            if disturbed is not None:
                load(_DISTURBED, disturbed)
                child.learn_response(_DISTURBED, _REFERENCE, function.tolerance.deviation)
                child.unload(_DISTURBED)
            for name, path in tuned.items():
                load(name, path)
                raise_if_wrong(child.check(name, _REFERENCE, function.tolerance))
            yield child


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
