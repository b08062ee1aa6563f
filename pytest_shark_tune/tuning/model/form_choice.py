"""The choice of the forms whose dispatches are tuned, by an estimate of what tuning leaves of a model's time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from pytest_shark_tune.dispatch.types import Dispatch, RootOp
from pytest_shark_tune.measurement.roofline import Limits, roofline_us, work_of
from pytest_shark_tune.plan.profile import Profile
from pytest_shark_tune.plan.types import FormResult, Plan
from pytest_shark_tune.records.types import State

__all__ = ["choose_forms", "contenders", "estimated_us"]

_SLOWER = 1.7
"""A form that is slower than the fastest untuned one by more than this is not tuned."""
_MOST_PROFILED = 4
_MOST_TUNED = 3
_FEW = 2
"""How many forms are profiled and tuned if time is short: each takes time to plan."""
_CLOSE = 1.2
"""A form is tuned if its estimate exceeds the best one by no more than this."""
_REACHED = {"contraction": 1.0, "swapped": 0.4, "convolution": 0.3}
"""The part of a matrix product's speed that tuned kernels of other kinds reach, from runs on several models."""


def contenders(results: Sequence[FormResult], *, is_short: bool = False) -> tuple[FormResult, ...]:
    """Return the measured forms that are fast enough to be profiled, fastest first; at most two if time is short."""
    measured = [result for result in results if result.state == State.MEASURED]
    fastest = sorted(measured, key=_ratio, reverse=True)
    near = [result for result in fastest if _ratio(result) * _SLOWER >= _ratio(fastest[0])]
    return tuple(near[: _FEW if is_short else _MOST_PROFILED])


def choose_forms(
    results: Sequence[FormResult], estimates: Mapping[str, float], *, is_short: bool = False
) -> tuple[FormResult, ...]:
    """Choose the forms to tune: the fastest one, and those with estimates near the best one.

    Args:
        results: All forms of a model.
        estimates: The estimated time of the contenders once they are tuned, in microseconds, by the form's name.
        is_short: Whether time is short, so that fewer forms are tuned.

    Returns:
        The results with the estimates and the choice.
    """
    right = [result for result in results if result.state == State.MEASURED]
    fastest = max(right or results[:1], key=_ratio).form.name
    best = min(estimates.values(), default=0.0)
    near = sorted((name for name in estimates if estimates[name] <= best * _CLOSE), key=lambda name: estimates[name])
    most = _FEW if is_short else _MOST_TUNED
    tuned = near[:most]
    if fastest not in tuned:
        tuned = [*tuned[: most - 1], fastest]
    marked = (
        msgspec.structs.replace(result, estimate_us=estimates.get(result.form.name), is_tuned=result.form.name in tuned)
        for result in results
    )
    return tuple(marked)


def estimated_us(plan: Plan, profile: Profile, limits: Limits) -> float:
    """Estimate the time of a model once its dispatches are tuned, in microseconds.

    A dispatch that cannot be tuned keeps its time. The others reach a part of the roofline that depends on their kind.
    """
    dispatches = {task.name: task.dispatch for task in plan.tasks}
    total = profile.outside_us
    for part in profile.shares:
        dispatch = dispatches.get(part.dispatch)
        floor = part.calls * _tuned_us(dispatch, limits) if dispatch is not None else part.time_us
        total += min(part.time_us, floor)
    return total


def _tuned_us(dispatch: Dispatch, limits: Limits) -> float:
    work = work_of(dispatch.root, dispatch.members[0].module)
    return roofline_us(work, limits, _REACHED.get(_kind(dispatch.root), 1.0))


def _kind(root: RootOp) -> str:
    """The kind of an op; a contraction is swapped if its results do not lie along its second operand."""
    if root.kind == "contraction" and not (set(root.n) & _last_loop(root)):
        return "swapped"
    return root.kind


def _last_loop(root: RootOp) -> set[int]:
    return {max((*root.batch, *root.m, *root.n), default=-1)}


def _ratio(result: FormResult) -> float:
    return result.measurement.ratio if result.measurement else 1.0
