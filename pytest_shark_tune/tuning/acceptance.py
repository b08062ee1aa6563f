"""Acceptance: how far the results of a dispatch, or of a whole model, may be off, and the checks that ask for it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.dispatch.types import Dispatch, Member, Numerics, Sum
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.acceptance import Acceptance, acceptance_for, tolerance_in_model
from pytest_shark_tune.measurement.correctness import Check, Tolerance
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.types import State

__all__ = ["acceptance_of", "check_edges", "check_result", "model_tolerance", "raise_if_wrong"]


def acceptance_of(dispatch: Dispatch, member: Member, *, bitwise: bool = False) -> Acceptance:
    """How far the results of one dispatch of a group may be off; ``bitwise`` if their bits have to be the same."""
    written = [math.prod(view.shape) for view in member.module.views if view.writes]
    found = acceptance_for(_numerics(dispatch, member), elements=max(1, min(written, default=1)))
    return msgspec.structs.replace(found, bitwise=bitwise)


def model_tolerance(source: Source, function: str, tasks: Iterable[Task], symbols: Iterable[str]) -> Tolerance:
    """How far the results of a source's function may be off if the executables ``symbols`` have other configs.

    Args:
        source: the model.
        function: the name of the function.
        tasks: all tasks of the plan.
        symbols: the executables with another config. If one of them belongs to none of the tasks, its sums are not
            known, and the sums of all tasks stand for them.
    """
    elements = [tensor.element for tensor in source.functions.get(function, ())]
    changed = set(symbols)
    of_symbol = {
        member.symbol: (task, member)  # Of a dispatch with open sizes, the member with the largest.
        for task in tasks
        for member in sorted(task.dispatch.members, key=lambda member: member.module.buffer_bytes)
        if member.source == source.name
    }
    of_source = list(of_symbol.values())
    elements += [view.element for _, member in of_source for view in member.module.views]
    if changed <= {member.symbol for _, member in of_source}:
        of_source = [(task, member) for task, member in of_source if member.symbol in changed]
    sums = [
        (total.element, total.length, member.calls)
        for task, member in of_source
        for total in _numerics(task.dispatch, member).sums
    ]
    return tolerance_in_model(elements, sums)


def check_result(
    child: DeviceChild,
    key: str,
    reference: str,
    dispatch: Dispatch,
    member: Member,
    timeout_s: float,
    *,
    bitwise: bool = False,
) -> None:
    """Compare the result of the program ``key`` with a reference on random inputs.

    Raises:
        CandidateFailed: the result is wrong.
    """
    raise_if_wrong(child.check(key, reference, acceptance_of(dispatch, member, bitwise=bitwise), timeout_s=timeout_s))


def check_edges(
    child: DeviceChild,
    key: str,
    reference: str,
    dispatch: Dispatch,
    member: Member,
    timeout_s: float,
    *,
    bitwise: bool = False,
) -> None:
    """Compare the results on special values. That runs the reference too, so it may take twice as long.

    Raises:
        CandidateFailed: the result is wrong.
    """
    acceptance = acceptance_of(dispatch, member, bitwise=bitwise)
    raise_if_wrong(child.check(key, reference, acceptance, edges=True, timeout_s=2 * timeout_s), special=True)


def raise_if_wrong(check: Check, *, special: bool = False) -> None:
    """Raise for a check that failed; ``special`` says that the inputs had special values.

    Raises:
        CandidateFailed: the check failed.
    """
    if not check.ok:
        where = "with NaN, infinities, large and tiny numbers among the inputs: " if special else ""
        raise CandidateFailed(State.WRONG_RESULT, where + check.reason, check)


def _numerics(dispatch: Dispatch, member: Member) -> Numerics:
    """The numerics of a dispatch, or a guess from its root op if nobody read the dispatch."""
    element = dispatch.root.outputs[0].element
    sums = (Sum(element, dispatch.root.reduction_length),)
    return member.module.numerics or Numerics(sums=sums, widest=element)
