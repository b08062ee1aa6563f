"""Profiles measured: what share of a model's time each of its dispatches takes, and which of them to tune for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from pytest_shark_tune.compiler.compiler import why_rejected
from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.device.profiler import Cost, NoProfile, model_time_us, profile
from pytest_shark_tune.dispatch.types import RootOp, Tensor, Untunable
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.plan.profile import Profile, Share, tasks_of
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.tuning.builder import Builds
from pytest_shark_tune.tuning.runner import Bench

__all__ = [
    "PROFILE_VERSION",
    "arguments",
    "by_symbol",
    "counted_profile",
    "function_of",
    "profile_source",
]

PROFILE_VERSION: Final = 1
"""How a model's time is shared out among its dispatches.

Raise it where the same run of a model may give other shares, or the same shares other dispatches to tune.
"""

_COUNTED = "its dispatches' benchmarks, times how often each is called"
_RUN = "the running model"
_NO_CONFIG = "it computes nothing that has a config"


def function_of(source: Source, name: str = "") -> str:
    """The function of a source that is measured: the one of that name, the one asked for of it, or the only one.

    Raises:
        InputError: there is no such function, none at all, or several to choose from.
    """
    name = name or source.function
    known = ", ".join(map(repr, source.functions))
    if name and name not in source.functions:
        raise InputError(f"{source.name}: there is no function {name!r} whose inputs can be made up; it has {known}")
    if not source.functions:
        raise InputError(f"{source.name} has no public function that takes tensors of fixed shapes alone")
    if not name and len(source.functions) > 1:
        raise InputError(f"{source.name} has several functions, {known}: choose one with --tune-function")
    return name or next(iter(source.functions))


def profile_source(
    source: Source, tasks: Sequence[Task], untunable: Iterable[Untunable], builds: Builds, bench: Bench, name: str = ""
) -> Profile:
    """Measure where the time of a source goes; ``name`` is the function's, where there are several.

    The driver's own statistics of the running model are taken where it keeps them. Elsewhere it is each dispatch's
    benchmark times its calls, which leaves out what cannot be tuned.

    Raises:
        InputError: there is no function to run, or the model cannot be compiled.
        CandidateFailed: a default cannot be run.
    """
    function = function_of(source, name)
    if source.why_not_run:
        return counted_profile(source, function, tasks, builds, bench, model_us=None, why=source.why_not_run)
    try:
        sources = builds.compiler.for_models.lower(source.text, to="executable-sources", name=source.name)
        # Stripped, as the default is that a model with a spec is compared with, so that it is compiled but once.
        vmfb = builds.model(strip(sources))
    except CommandFailed as error:
        raise InputError(f"{source.name}: {why_rejected(error)}") from error
    inputs = arguments(source, function)
    try:
        with bench.device() as uri:
            told = profile(vmfb, uri, function, inputs)
    except NoProfile as reason:
        with bench.device() as uri:
            model_us = model_time_us(vmfb, uri, function, inputs)
        return counted_profile(source, function, tasks, builds, bench, model_us=model_us, why=str(reason))
    known = dict(_known(source, tasks)) | {
        each.name: Share(dispatch=each.name, calls=0, time_us=0, share=0, reason=each.reason)
        for each in untunable
        if each.source == source.name
    }
    costs = by_symbol(told.exports, list(known))
    operations = {symbol: _operation(symbol, told.exports) for symbol in costs}
    return Profile(
        source=source.name,
        function=function,
        model_us=round(told.model_us, 3),
        shares=_shares(costs, known, operations),
        measured=_RUN,
    )


def counted_profile(
    source: Source,
    function: str,
    tasks: Sequence[Task],
    builds: Builds,
    bench: Bench,
    *,
    model_us: float | None,
    why: str,
) -> Profile:
    """The profile that the dispatches' own benchmarks give, where nobody tells more: ``why`` not.

    What cannot be tuned is not in it. ``model_us`` is the time of a call of the model, if that is known.
    """
    costs: dict[str, Cost] = {}
    unknown: dict[str, str] = {}
    for task in tasks_of(source, tasks):
        try:
            measured = bench.measure(task, task.default, builds.artifact(task, task.default))
        except CandidateFailed as failure:
            unknown[task.name] = str(failure)
            continue
        for member in task.dispatch.members:
            if member.source == source.name:
                costs[member.symbol] = Cost(time_us=measured.baseline_median_us * member.calls, calls=member.calls)
    return Profile(
        source=source.name,
        function=function,
        model_us=model_us and round(model_us, 3),
        shares=_shares(costs, dict(_known(source, tasks)), {}),
        measured=f"{_COUNTED} ({why})",
        unknown=unknown,
    )


def by_symbol(exports: Mapping[str, Cost], symbols: Sequence[str]) -> dict[str, Cost]:
    """The cost of each executable: an entry point is named after it, and what it computes."""
    costs: dict[str, Cost] = {}
    for export, cost in exports.items():
        owner = next((each for each in symbols if export == each or export.startswith(f"{each}_")), export)
        so_far = costs.get(owner, Cost(time_us=0, calls=0))
        costs[owner] = Cost(time_us=so_far.time_us + cost.time_us, calls=so_far.calls + cost.calls)
    return costs


def _operation(symbol: str, exports: Iterable[str]) -> str:
    """What the entry points of an executable compute, by their names."""
    own = (export.removeprefix(f"{symbol}_") for export in exports if export.startswith(f"{symbol}_"))
    return ", ".join(sorted(own))


def _known(source: Source, tasks: Iterable[Task]) -> Iterator[tuple[str, Share]]:
    """Each executable of a source that can be tuned, with what is known of its dispatch but its cost."""
    for task in tasks_of(source, tasks):
        share = Share(
            dispatch=task.name,
            op=_described(task.dispatch.root),
            pipeline=task.dispatch.default_pipeline,
            calls=0,
            time_us=0,
            share=0,
        )
        for member in task.dispatch.members:
            if member.source == source.name:
                yield member.symbol, share


def _described(root: RootOp) -> str:
    return " ".join(filter(None, (root.op, "x".join(map(str, root.loops)))))


def _shares(costs: Mapping[str, Cost], known: Mapping[str, Share], operations: Mapping[str, str]) -> tuple[Share, ...]:
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
        msgspec.structs.replace(each, time_us=round(each.time_us, 3), share=round(each.time_us / total, 6))
        for each in joined.values()
    ]
    return tuple(sorted(found, key=lambda each: (-each.time_us, each.dispatch)))


def arguments(source: Source, function: str) -> list[str]:
    """The inputs of a function as ``iree-benchmark-module`` takes them: those that are given, the others made up.

    What it cannot read of them is made up, too.
    """
    given = {number: f"@{file.path}" for number, file in source.data.items() if file.is_plain}
    return [given.get(number) or _splat(each) for number, each in enumerate(source.functions[function])]


def _splat(tensor: Tensor) -> str:
    """A tensor with the same value everywhere, since times hardly depend on it."""
    shape = "".join(f"{size}x" for size in tensor.shape)
    return f"{shape}{tensor.element}={0.5 if 'f' in tensor.element else 1}"
