"""The search spaces of dispatches: another package's, the compiler's, or our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.dispatch.fused import fused_ops, has_other_reductions
from pytest_shark_tune.dispatch.reasons import CannotTune, CompilerFailed, SeveralReductions
from pytest_shark_tune.dispatch.rotation import rotated_dispatch
from pytest_shark_tune.dispatch.types import Dispatch, Untunable
from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.search_space import (
    SearchSpace,
    SpaceRequest,
    cpu,
    gpu,
    opened,
    spaces_for,
    spaces_in,
)
from pytest_shark_tune.search_space.gpu.convolution import completed_spaces
from pytest_shark_tune.search_space.gpu.generic import gpu_fused_spaces
from pytest_shark_tune.search_space.registry import provided_spaces
from pytest_shark_tune.system.steps import Stage, Step

__all__ = [
    "NO_SPACE",
    "DispatchSpaces",
    "attach_spaces",
    "emitted_constraints",
    "search_spaces",
    "spaces_from",
    "stated_spaces",
    "untunable_members",
]

_STATING = ("cuda", "hip")
"""Backends for which the compiler states constraints, at least for some ops."""

_BY_LAYOUT = "VectorDistribute"
_STATE_CONSTRAINTS = "--iree-codegen-emit-pipeline-constraints"

NO_SPACE = (CommandFailed, CannotTune)
"""Errors that keep one dispatch from being tuned, but not the others."""


class DispatchSpaces(NamedTuple):
    """A dispatch with its search spaces, as the user's request opens them."""

    dispatch: Dispatch
    spaces: tuple[SearchSpace, ...]
    failed_step: str = ""
    """The optional step of the compiler that failed for the dispatch, with the reason."""


def attach_spaces(
    dispatches: Sequence[Dispatch],
    compiler: Compiler,
    request: SpaceRequest,
    rotate_bytes: int = 0,
    report: Callable[[str], None] = lambda message: None,
) -> tuple[tuple[DispatchSpaces, ...], tuple[Untunable, ...]]:
    """Find the search spaces of ``dispatches``, which are measured on data rotated through ``rotate_bytes``.

    Returns:
        The dispatches that have a space, and the members of the others with the reason.
    """
    attached: list[DispatchSpaces] = []
    untunable: list[Untunable] = []
    for number, dispatch in enumerate(dispatches):
        report(Step(f"finding the configs of {dispatch.name}", Stage.EXTRACT, number, len(dispatches)))
        try:
            failures: list[str] = []
            spaces = opened(search_spaces(dispatch, compiler, failures.append), request, compiler.target.backend)
            attached.append(DispatchSpaces(rotated_dispatch(dispatch, rotate_bytes), spaces, "".join(failures)))
        except NO_SPACE as reason:
            untunable += untunable_members(dispatch, reason)
    return tuple(attached), tuple(untunable)


def untunable_members(dispatch: Dispatch, reason: Exception) -> list[Untunable]:
    """The members of a dispatch that cannot be tuned for that reason."""
    why = reason if isinstance(reason, CannotTune) else CompilerFailed(str(reason))
    return [Untunable.of(member.symbol, member.source, why) for member in dispatch.members]


def search_spaces(
    dispatch: Dispatch, compiler: Compiler, report_failure: Callable[[str], None] = lambda message: None
) -> tuple[SearchSpace, ...]:
    """Find the spaces of a dispatch: those of another package, else the compiler's, else our own.

    ``report_failure`` is as for `emitted_constraints`.

    Raises:
        NoSpace: there are none; the message says why.
        InputError: another package's entry point is broken.
    """
    if (provided := provided_spaces(dispatch.root, dispatch.target)) is not None:
        return provided
    return spaces_from(dispatch, emitted_constraints(dispatch, compiler, report_failure))


def emitted_constraints(
    dispatch: Dispatch, compiler: Compiler, report_failure: Callable[[str], None] = lambda message: None
) -> str:
    """Have the compiler state the constraints of a dispatch, as a module.

    The text is empty for other backends, and if the compiler fails in this step, which is not needed to compile.

    Args:
        dispatch: the dispatch.
        compiler: the compiler.
        report_failure: called with the step and the reason if it fails.

    Raises:
        CommandFailed: the run ends.
    """
    if compiler.target.backend not in _STATING:
        return ""
    try:
        return compiler.lower(
            dispatch.members[0].module.text,
            since="executable-sources",
            to="executable-configurations",
            name=dispatch.name,
            flags=["--iree-codegen-add-tuner-attributes", _STATE_CONSTRAINTS],
        )
    except CommandFailed as error:
        if error.stopped:
            raise
        report_failure(f"the optional step that states constraints ({_STATE_CONSTRAINTS}) failed, {error}")
        return ""


def stated_spaces(dispatch: Dispatch, constraints: str) -> tuple[SearchSpace, ...]:
    """Read the spaces that are not empty from the module of `emitted_constraints`, with padding where it is needed."""
    if not constraints:
        return ()
    stated = [space for space in spaces_in(constraints) if space]
    return completed_spaces(stated, dispatch.root, dispatch.target)


def spaces_from(dispatch: Dispatch, constraints: str) -> tuple[SearchSpace, ...]:
    """Read the spaces from the module of `emitted_constraints`. If it states none, build our own.

    Raises:
        NoSpace: there are none; the message says why.
    """
    if stated := stated_spaces(dispatch, constraints):
        return stated
    root, text = dispatch.root, dispatch.members[0].module.text
    if root.kind == "other" and "reduction" in root.iterators and has_other_reductions(text):
        if dispatch.target.backend in gpu.BUILDERS:
            others = fused_ops(text) if dispatch.default_pipeline == _BY_LAYOUT else ()
            return gpu_fused_spaces(root, dispatch.target, others)
        if dispatch.target.backend == cpu.BACKEND and cpu.has_long_rows(root, dispatch.target):
            raise SeveralReductions(
                f"another op of this dispatch goes over rows of {root.reduction_length} elements, too long for one "
                f"vector, and a spec gives a config to {root.op} alone"
            )
    return spaces_for(root, dispatch.target)
