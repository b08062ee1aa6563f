"""The profiler: measures the share of each dispatch in a model's time, and leaves out dispatches with small ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from pytest_shark_tune.device.profiler import Cost, NoProfile, Profiled, model_time_us, profile
from pytest_shark_tune.dispatch.types import Argument
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.measurement.roofline import Limits, least_us, work_of
from pytest_shark_tune.plan.profile import Profile, Share, tasks_of
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.system.cache import Cache, content_key, file_digest
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.children import DeviceChildren
from pytest_shark_tune.tuning.microbenchmarks import Microbenchmarks
from pytest_shark_tune.tuning.model.whole import UntunedModels
from pytest_shark_tune.tuning.runner import Runner

__all__ = ["PROFILE_VERSION", "Profiler", "arguments", "by_symbol", "function_of"]

PROFILE_VERSION: Final = 4
"""How the time of a model is split among its dispatches.

Raise it if the same run of a model may give other shares, or the same shares may give other dispatches to tune.
"""

_COUNTED = "its dispatches' benchmarks, times how often each is called"
_RUN = "the running model"
_NO_FUNCTION = "it has no public function that takes only tensors of fixed shapes and numbers"
_NO_CONFIG = "it computes nothing that has a config"
_HAL_NAMES = {"complex<f32>": "cf64", "complex<f64>": "cf128"}
"""The names of element types for IREE's tools, where they are other than MLIR's."""
_BYTES = {
    "i1": "01",
    "i4": "11",
    "si4": "11",
    "ui4": "11",
    "complex<f32>": "0000003F0000003F",
    "complex<f64>": "000000000000E03F000000000000E03F",
}
"""A value of each type of which IREE's tools parse no number: true, 1, and 0.5 + 0.5i."""


def function_of(source: Source) -> str:
    """The function of a source that is measured: the one that the user asked for, or the only one.

    Raises:
        InputError: there is no such function, none at all, or several to choose from.
    """
    name, known = source.function, ", ".join(map(repr, source.functions))
    if name and name not in source.functions:
        raise InputError(f"{source.name}: there is no function {name!r} whose inputs can be made up; it has {known}")
    if not source.functions:
        raise InputError(f"{source.name} cannot be run: {_NO_FUNCTION}")
    if not name and len(source.functions) > 1:
        raise InputError(f"{source.name} has several functions, {known}: choose one with --tune-function")
    return name or next(iter(source.functions))


@dataclass(frozen=True)
class Profiler:
    """Measures the profiles of models for one process of a run."""

    builder: Builder
    """Compiles dispatches."""
    untuned: UntunedModels
    """Compiles models."""
    runner: Runner
    """Measures dispatches."""
    children: DeviceChildren
    """Lease the devices that models run on."""
    microbenchmarks: Microbenchmarks
    """Measure the limits of a device."""
    of_run: Cache
    """Ends with the run, and has what all its processes measured."""

    def profile(self, source: Source, plan: Plan) -> Profile:
        """Measure the profile of a source.

        It is made of the driver's own statistics of the running model, if the driver has some. Otherwise it is made of
        each dispatch's benchmark times its calls. A dispatch of which there is no benchmark has no time then.

        Args:
            source: a model.
            plan: its plan.

        Raises:
            InputError: the function to run is not known, or the model cannot be compiled.
            CandidateFailed: a default cannot be run.
        """
        if not source.functions and not source.function:
            return self.counted(source, "", plan, model_us=None, why=source.why_not_run or _NO_FUNCTION)
        function = function_of(source)
        if source.why_not_run:
            return self.counted(source, function, plan, model_us=None, why=source.why_not_run)
        try:
            vmfb = self.untuned.vmfb(source)
        except CommandFailed as error:
            raise source.refused(error) from error
        inputs, parameters = arguments(source, function), source.parameter_arguments
        try:
            statistics = self._statistics(vmfb, function, inputs, parameters)
        except NoProfile as reason:
            model_us = self._model_us(vmfb, function, inputs, parameters)
            return self.counted(source, function, plan, model_us=model_us, why=str(reason))
        known = _shares(source, plan)
        # A branch that this call does not take has dispatches, too.
        costs = {symbol: Cost(time_us=0, calls=0) for symbol in known} | by_symbol(statistics.exports, list(known))
        operations = {symbol: _operation(symbol, statistics.exports) for symbol in costs}
        return Profile(
            source=source.name,
            function=function,
            model_us=round(statistics.model_us, 3),
            shares=self._bounded(_profile_rows(costs, known, operations), plan.tasks),
            measured=_RUN,
        )

    def _statistics(self, vmfb: Path, function: str, inputs: Sequence[str], parameters: Sequence[str]) -> Profiled:
        """The driver's statistics of a running model, which are taken once in a run."""

        def measure() -> Profiled:
            with self.children.lease() as uri:
                return profile(vmfb, uri, function, inputs, parameters)

        key = content_key("statistics", file_digest(vmfb), function, inputs, parameters)
        return self.of_run.get_or_make("profiles", key, Profiled, measure)

    def _default_us(self, task: Task) -> float:
        """The time of a dispatch by its default, which is taken once in a run, as several forms may have the dispatch.

        Raises:
            CandidateFailed: it cannot be compiled or run.
        """
        artifact = self.builder.artifact(task, task.default)
        key = content_key("default time", artifact.sha256)
        return self.of_run.get_or_make("profiles", key, float, lambda: self.runner.default_time_us(task, artifact))

    def _model_us(self, vmfb: Path, function: str, inputs: Sequence[str], parameters: Sequence[str]) -> float | None:
        """The time of a call of a model, which is taken once in a run; ``None`` if it cannot be run."""

        def measure() -> tuple[float, ...]:
            with self.children.lease() as uri:
                time_us = model_time_us(vmfb, uri, function, inputs, parameters)
            return () if time_us is None else (time_us,)

        key = content_key("model time", file_digest(vmfb), function, inputs, parameters)
        return next(iter(self.of_run.get_or_make("profiles", key, tuple[float, ...], measure)), None)

    def limits(self) -> Limits | None:
        """The limits of the device; ``None`` if they cannot be measured.

        Raises:
            CandidateFailed: a microbenchmark crashed or hung.
        """
        with self.children.leased() as child:
            return self.microbenchmarks.limits(child)

    def _bounded(self, shares: Sequence[Share], tasks: Iterable[Task]) -> tuple[Share, ...]:
        """The shares with the least time that each dispatch can take."""
        limits = None
        with suppress(CandidateFailed):
            limits = self.limits()
        if limits is None:
            return tuple(shares)
        on_processor = self.builder.compiler.target.shares_processor
        works = {task.name: work_of(task.dispatch.root, task.dispatch.members[0].module) for task in tasks}
        least = {name: least_us(work, limits, shares_processor=on_processor) for name, work in works.items()}
        return tuple(
            msgspec.structs.replace(part, least_us=round(part.calls * least[part.dispatch], 3))
            if part.dispatch in least
            else part
            for part in shares
        )

    def counted(self, source: Source, function: str, plan: Plan, *, model_us: float | None, why: str) -> Profile:
        """The profile by the dispatches' own benchmarks.

        Args:
            source: a model.
            function: the name of its function.
            plan: its plan.
            model_us: the time of a call of the model, if it is known.
            why: the reason for not asking the driver.
        """
        costs: dict[str, Cost] = {}
        unknown: dict[str, str] = {}
        tasks = list(tasks_of(source, (*plan.tasks, *plan.defaults)))
        self.builder.begin((task, (task.default.id,)) for task in tasks)
        for task in tasks:
            try:
                time_us = self._default_us(task)
            except CandidateFailed as failure:
                unknown[task.name] = str(failure)
                continue
            for member in task.dispatch.members:
                if member.source == source.name:
                    costs[member.symbol] = Cost(time_us=time_us * member.calls, calls=member.calls)
        known = _shares(source, plan)
        unknown |= {symbol: part.reason for symbol, part in known.items() if part.reason and symbol not in costs}
        return Profile(
            source=source.name,
            function=function,
            model_us=model_us and round(model_us, 3),
            shares=self._bounded(_profile_rows(costs, known, {}), plan.tasks),
            measured=f"{_COUNTED} ({why})",
            unknown=unknown,
        )


def by_symbol(exports: Mapping[str, Cost], symbols: Sequence[str]) -> dict[str, Cost]:
    """The cost of each executable. The name of an entry point has that of its executable in front."""
    costs: dict[str, Cost] = {}
    for export, cost in exports.items():
        owner = next((symbol for symbol in symbols if export == symbol or export.startswith(f"{symbol}_")), export)
        so_far = costs.get(owner, Cost(time_us=0, calls=0))
        costs[owner] = Cost(time_us=so_far.time_us + cost.time_us, calls=so_far.calls + cost.calls)
    return costs


def _operation(symbol: str, exports: Iterable[str]) -> str:
    """The operations of an executable's entry points, by the names of these."""
    own = (export.removeprefix(f"{symbol}_") for export in exports if export.startswith(f"{symbol}_"))
    return ", ".join(sorted(own))


def _shares(source: Source, plan: Plan) -> dict[str, Share]:
    """The executables of a source, with the shares of their dispatches before the costs are known."""
    reasons = {each.name: each.reason for each in plan.untunable if each.source == source.name}
    shares = {
        symbol: Share(dispatch=symbol, calls=0, time_us=0, share=0, reason=why) for symbol, why in reasons.items()
    }
    for task in tasks_of(source, (*plan.tasks, *plan.defaults)):
        root, pipeline = task.dispatch.root, task.dispatch.default_pipeline
        described = " ".join(filter(None, (root.op, "x".join(map(str, root.loops)))))
        for member in task.dispatch.members:
            if member.source == source.name:
                why = reasons.get(member.symbol, "")
                shares[member.symbol] = Share(
                    # The summary knows untunable dispatches by their executables.
                    dispatch=member.symbol if why else task.name,
                    op=described,
                    pipeline=pipeline,
                    calls=0,
                    time_us=0,
                    share=0,
                    reason=why,
                )
    return shares


def _profile_rows(
    costs: Mapping[str, Cost], known: Mapping[str, Share], operations: Mapping[str, str]
) -> tuple[Share, ...]:
    """Join the executables of a dispatch; largest first, then by name."""
    total = sum(cost.time_us for cost in costs.values()) or 1.0
    joined: dict[str, Share] = {}
    for symbol, cost in costs.items():
        like = known.get(symbol) or Share(dispatch=symbol, calls=0, time_us=0, share=0, reason=_NO_CONFIG)
        so_far = joined.get(like.dispatch, like)
        joined[like.dispatch] = msgspec.structs.replace(
            so_far,
            op=so_far.op or operations.get(symbol, ""),
            calls=so_far.calls + cost.calls,
            time_us=so_far.time_us + cost.time_us,
        )
    found = [
        msgspec.structs.replace(part, time_us=round(part.time_us, 3), share=round(part.time_us / total, 6))
        for part in joined.values()
    ]
    return tuple(sorted(found, key=lambda part: (-part.time_us, part.dispatch)))


def arguments(source: Source, function: str) -> list[str]:
    """The inputs of a function for ``iree-benchmark-module``.

    An input without a file that it can read has the same value everywhere.
    """
    inputs = source.functions[function]
    given = {
        number: str(np.load(file.path).item()) if inputs[number].is_scalar else f"@{file.path}"
        for number, file in source.data.items()
        if file.is_plain
    }
    return [given.get(number) or _splat(tensor) for number, tensor in enumerate(inputs)]


def _splat(tensor: Argument) -> str:
    """A number, or a tensor with the same value everywhere, since times hardly depend on it.

    IREE's tools parse a number only of some types. They take the bytes of a value of every other type, a pair of values
    in one byte included, and no value for a tensor without elements.
    """
    if tensor.is_scalar:
        return "0.5" if "f" in tensor.element else "1"
    shape = "".join(f"{size}x" for size in tensor.shape)
    if 0 in tensor.shape:
        return f"{shape}{_HAL_NAMES.get(tensor.element, tensor.element)}"
    if tensor.element in _BYTES:
        return f"{shape}{_HAL_NAMES.get(tensor.element, tensor.element)}={_BYTES[tensor.element]}"
    return f"{shape}{tensor.element}={0.5 if 'f' in tensor.element else 1}"
