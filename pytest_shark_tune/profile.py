"""Profiles: what share of a model's time each of its dispatches takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pytest_shark_tune.bench import Bench
from pytest_shark_tune.builds import Builds
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.plan import Source, Task
from pytest_shark_tune.stages.dispatch import Tensor, Untunable
from pytest_shark_tune.tools.compiler import first_error
from pytest_shark_tune.tools.profiler import NoProfile, profile

__all__ = ["Profile", "Share", "arguments", "by_symbol", "function_of", "hot", "profile_source"]

_COUNTED = "its dispatches' benchmarks, times how often each is called"
_RUN = "the running model"


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one dispatch costs in one call of the model: ``time_us`` of all its ``calls`` together.

    ``dispatch`` is its NAME, or the executable's where it cannot be tuned, for which ``reason`` says why. ``share`` is
    its part of the sum over all dispatches.
    """

    dispatch: str
    calls: int
    time_us: float
    share: float
    reason: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a source's function goes, what takes longest first.

    ``model_us`` is the time of a call as it was measured, ``None`` where only the dispatches were; ``measured`` says
    what was measured, and ``unknown`` names dispatches whose time nobody could tell, with the reason.
    """

    source: str
    function: str
    model_us: float | None
    shares: tuple[Share, ...]
    measured: str
    unknown: dict[str, str] = {}

    @property
    def dispatches_us(self) -> float:
        """The time of all dispatches together, in microseconds."""
        return sum(each.time_us for each in self.shares)


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
    names = {
        member.symbol: task.name for task in tasks for member in task.dispatch.members if member.source == source.name
    }
    reasons = {each.name: each.reason for each in untunable if each.source == source.name}
    calls = {
        member.symbol: member.calls
        for task in tasks
        for member in task.dispatch.members
        if member.source == source.name
    }
    try:
        sources = builds.compiler.lower(source.text, to="executable-sources", name=source.name)
        vmfb = builds.model(sources)
    except CommandFailed as error:
        raise InputError(f"{source.name}: iree-compile rejects it: {first_error(error)}") from error
    try:
        with bench.device() as uri:
            told = profile(vmfb, uri, function, arguments(source, function))
    except NoProfile as reason:
        return _counted(source, function, tasks, builds, bench, str(reason))
    times = by_symbol(told.exports_us, [*names, *reasons])
    return Profile(
        source=source.name,
        function=function,
        model_us=told.model_us,
        shares=_shares(times, names, reasons, calls),
        measured=_RUN,
    )


def hot(profile: Profile, share: float) -> tuple[str, ...]:
    """The names of the fewest dispatches that make up ``share`` of the time, those that take longest first."""
    names = []
    so_far = 0.0
    for each in profile.shares:
        if so_far >= share:
            break
        so_far += each.share
        names.append(each.dispatch)
    return tuple(names)


def _counted(source: Source, function: str, tasks: Sequence[Task], builds: Builds, bench: Bench, why: str) -> Profile:
    times: dict[str, float] = {}
    calls: dict[str, int] = {}
    unknown: dict[str, str] = {}
    for task in tasks:
        own = [member for member in task.dispatch.members if member.source == source.name]
        if not own:
            continue
        try:
            measured = bench.measure(task, task.default, builds.artifact(task, task.default))
        except CandidateFailed as failure:
            unknown[task.name] = str(failure)
            continue
        calls[task.name] = sum(member.calls for member in own)
        times[task.name] = measured.baseline_median_us * calls[task.name]
    names = {name: name for name in times}
    return Profile(
        source=source.name,
        function=function,
        model_us=None,
        shares=_shares(times, names, {}, calls),
        measured=f"{_COUNTED} ({why})",
        unknown=unknown,
    )


def by_symbol(exports_us: Mapping[str, float], symbols: Sequence[str]) -> dict[str, float]:
    """The time of each executable: an entry point is named after it, and what it computes."""
    times: dict[str, float] = {}
    for export, time_us in exports_us.items():
        owner = next((each for each in symbols if export == each or export.startswith(f"{each}_")), export)
        times[owner] = times.get(owner, 0.0) + time_us
    return times


def _shares(
    times: Mapping[str, float], names: Mapping[str, str], reasons: Mapping[str, str], calls: Mapping[str, int]
) -> tuple[Share, ...]:
    """Join the executables of a dispatch; largest first, then by name."""
    total = sum(times.values()) or 1.0
    joined: dict[str, tuple[float, int]] = {}
    for symbol, time_us in times.items():
        name = names.get(symbol, symbol)
        so_far, number = joined.get(name, (0.0, 0))
        joined[name] = so_far + time_us, number + calls.get(symbol, 1)
    tunable = set(names.values())
    found = [
        Share(
            dispatch=name,
            calls=number,
            time_us=round(time_us, 3),
            share=round(time_us / total, 6),
            reason="" if name in tunable else reasons.get(name, "it computes nothing that has a config"),
        )
        for name, (time_us, number) in joined.items()
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
