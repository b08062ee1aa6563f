"""The search spaces of a dispatch: emitted by the compiler, or built here."""

from __future__ import annotations

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.search_space import (
    NoSpace,
    SearchSpace,
    SpaceTooLarge,
    UnboundedKnob,
    UnreadableConstraints,
    spaces_for,
    spaces_in,
)
from pytest_shark_tune.search_space.registry import provided_spaces

__all__ = ["NO_SPACE", "emitted_constraints", "search_spaces", "spaces_from", "stated_spaces"]


_EMITTING = ("cuda", "hip")
"""Backends for which the compiler emits constraints, at least for some ops."""


NO_SPACE = (CommandFailed, NoSpace, SpaceTooLarge, UnboundedKnob, UnreadableConstraints)
"""What keeps one dispatch from being tuned, and the others not."""


def search_spaces(dispatch: Dispatch, compiler: Compiler) -> tuple[SearchSpace, ...]:
    """The spaces of a dispatch: those of another package, else the compiler's own, else those that we build.

    Raises:
        NoSpace: there is none of them, and why.
        InputError: another package's entry point is broken.
    """
    if (provided := provided_spaces(dispatch.root, dispatch.target)) is not None:
        return provided
    return spaces_from(dispatch, emitted_constraints(dispatch, compiler))


def emitted_constraints(dispatch: Dispatch, compiler: Compiler) -> str:
    """The module in which the compiler states the constraints of a dispatch; empty for backends that state none.

    Raises:
        CommandFailed: the compiler rejects the dispatch.
    """
    if compiler.target.backend not in _EMITTING:
        return ""
    return compiler.lower(
        dispatch.members[0].module.text,
        since="executable-sources",
        to="executable-configurations",
        name=dispatch.name,
        flags=["--iree-codegen-add-tuner-attributes", "--iree-codegen-emit-pipeline-constraints"],
    )


def stated_spaces(constraints: str) -> tuple[SearchSpace, ...]:
    """The spaces that ``constraints`` state, a module or nothing; none of them is empty."""
    return tuple(space for space in spaces_in(constraints) if space) if constraints else ()


def spaces_from(dispatch: Dispatch, constraints: str) -> tuple[SearchSpace, ...]:
    """The spaces that ``constraints`` state, a module or nothing, else those that this package builds.

    Raises:
        NoSpace: there is neither, and why.
    """
    return stated_spaces(constraints) or spaces_for(dispatch.root, dispatch.target)
