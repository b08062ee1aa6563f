"""The choice of the forms whose dispatches are tuned, by an estimate of what tuning leaves of a model's time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from pytest_shark_tune.dispatch.types import Dispatch, RootOp
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.forms.onnx_rewrites import PREPARATIONS
from pytest_shark_tune.measurement.roofline import Limits, roofline_us, work_of
from pytest_shark_tune.plan.profile import Profile
from pytest_shark_tune.plan.types import FormResult, Plan
from pytest_shark_tune.records.types import State
from pytest_shark_tune.search_space.cpu.tiling import operand_dims

__all__ = ["between_us", "choose_forms", "contenders", "estimated_us", "is_preparation"]

_SLOWER = 1.7
"""A form that is slower than the fastest untuned one by more than this is not tuned."""
_MOST_PROFILED = 3
_MOST_TUNED = 3
_FEW = 2
"""How many forms are profiled and tuned if time is short: each takes time to plan."""
_APART = 1.1
"""How much better a form with flags for the code generator has to be: it shares no tuned dispatch with others."""
_CLOSE = 1.2
"""A form is tuned if its estimate exceeds the best one by no more than this."""
_REACHED = {"contraction": 1.0, "swapped": 0.4, "convolution": 0.3, "strided": 0.05}
"""The part of a matrix product's speed that tuned kernels of other kinds reach, from runs on several models."""


def contenders(results: Sequence[FormResult], *, is_short: bool = False) -> tuple[FormResult, ...]:
    """Return the measured forms that are fast enough to be profiled, fastest first.

    These are the fastest three, or two if time is short, and the fastest one without flags: its ops have the largest
    spaces, so tuning may gain most there. Those that differ from one of these in `PREPARATIONS` alone come in addition,
    however fast they are untuned.
    """
    measured = [result for result in results if result.state == State.MEASURED]
    fastest = sorted(measured, key=_promise, reverse=True)
    near = [result for result in fastest if _promise(result) * _SLOWER >= _promise(fastest[0])]
    distinct = list(dict.fromkeys(_unprepared(result.form) for result in near))
    without_flags = [(flags, rewrites) for flags, rewrites in distinct if not flags]
    kept = {*distinct[: _FEW if is_short else _MOST_PROFILED], *without_flags[:1]}
    return tuple(result for result in fastest if _unprepared(result.form) in kept)


def choose_forms(
    results: Sequence[FormResult], estimates: Mapping[str, float], *, is_short: bool = False
) -> tuple[FormResult, ...]:
    """Choose the forms to tune: the fastest one, and those with estimates near the best one.

    Of forms that differ in `PREPARATIONS` alone, the one with the best estimate takes the place of the others.

    Args:
        results: All forms of a model.
        estimates: The estimated time of the contenders once they are tuned, in microseconds, by the form's name.
        is_short: Whether time is short, so that fewer forms are tuned.

    Returns:
        The results with the estimates and the choice.
    """
    right = [result for result in results if result.state == State.MEASURED]
    fastest = max(right or results[:1], key=_promise).form.name
    forms = {result.form.name: result.form for result in results}
    expected = {name: us * _effort(forms[name]) for name, us in estimates.items()}
    ranked = sorted(expected, key=lambda name: expected[name])
    best_of = {_unprepared(forms[name]): name for name in reversed(ranked)}
    near = [
        name
        for name in ranked
        if best_of[_unprepared(forms[name])] == name and expected[name] <= expected[ranked[0]] * _CLOSE
    ]
    most = _FEW if is_short else _MOST_TUNED
    tuned = near[:most]
    if best_of.get(_unprepared(forms[fastest]), fastest) not in tuned:
        tuned = [*tuned[: most - 1], fastest]
    marked = (
        msgspec.structs.replace(result, estimate_us=estimates.get(result.form.name), is_tuned=result.form.name in tuned)
        for result in results
    )
    return tuple(marked)


def between_us(profiles: Sequence[Profile]) -> float:
    """Return the time between two dispatches, in microseconds: the median over the forms of one model.

    It is what calls of the whole model take beyond their dispatches. The machine sets it, and not the form. Of a single
    form it is known badly: it is a small difference of two times that were not measured together.
    """
    return median(profile.outside_us / max(1, profile.calls) for profile in profiles)


def estimated_us(
    plan: Plan, profile: Profile, limits: Limits, raced_us: float | None = None, *, between: float | None = None
) -> float:
    """Estimate the time of a model once its dispatches are tuned, in microseconds.

    A dispatch that cannot be tuned keeps its time. The others reach a part of the roofline that depends on their kind.

    Args:
        plan: The dispatches of the model.
        profile: Their times untuned.
        limits: The device's limits.
        raced_us: The time of the model untuned, beside other forms. The profiles of forms are measured one after the
            other, while the speed of a machine changes, so their times are scaled by it.
        between: The time between two dispatches, see `between_us`; by default that of this profile.
    """
    dispatches = {task.name: task.dispatch for task in plan.tasks}
    scale = raced_us / profile.model_us if raced_us and profile.model_us else 1.0
    total = profile.outside_us * scale if between is None else between * profile.calls
    for part in profile.shares:
        dispatch, untuned_us = dispatches.get(part.dispatch), part.time_us * scale
        floor = part.calls * _tuned_us(dispatch, limits) if dispatch is not None else untuned_us
        total += min(untuned_us, floor)
    return total


def is_preparation(form: Form) -> bool:
    """Return whether a form pays only once its dispatches are tuned."""
    return not form.is_default and _unprepared(form) == ((), ())


def _unprepared(form: Form) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The flags and the rewrites of a form without those that pay only once its dispatches are tuned."""
    return form.flags, tuple(name for name in form.rewrites if name not in PREPARATIONS)


def _tuned_us(dispatch: Dispatch, limits: Limits) -> float:
    work = work_of(dispatch.root, dispatch.members[0].module)
    return roofline_us(work, limits, _REACHED.get(_kind(dispatch.root), 1.0))


def _kind(root: RootOp) -> str:
    """The kind of an op; a contraction is swapped if its results do not lie along its second operand.

    A convolution is strided if its results lie along a loop that the image is read along with a stride.
    """
    if root.kind == "contraction" and not (set(root.n) & _last_loop(root)):
        return "swapped"
    if root.kind == "convolution" and _reads_apart(root):
        return "strided"
    return root.kind


def _reads_apart(root: RootOp) -> bool:
    strides = dict(zip(root.output_image, root.strides, strict=False))
    results = operand_dims(root)[-1]
    return bool(results) and any(strides.get(loop, 1) > 1 for loop in results[-1])


def _last_loop(root: RootOp) -> set[int]:
    return {max((*root.batch, *root.m, *root.n), default=-1)}


def _promise(result: FormResult) -> float:
    """The speed of a form by the default's, less what its own dispatches cost to tune."""
    return (result.measurement.ratio if result.measurement else 1.0) / _effort(result.form)


def _effort(form: Form) -> float:
    return _APART if form.codegen_flags else 1.0
