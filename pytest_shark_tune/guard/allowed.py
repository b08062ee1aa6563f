"""The constraint check: whether this compiler allows an entry's config on the entry's dispatches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import msgspec

from pytest_shark_tune.compiler.compiler import first_error
from pytest_shark_tune.errors import CandidateFailed, CheckFailed, CommandFailed
from pytest_shark_tune.guard.plan import GuardEntry
from pytest_shark_tune.plan.spaces import NO_SPACE, emitted_constraints, search_spaces, stated_spaces
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.attribute_names import DECOMPOSITION
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.search_space.config_reader import config_entries, knobs_of, space_entries, without_entry
from pytest_shark_tune.tuning.builder import Builder

__all__ = ["ConstraintCheck", "ignored_entry"]


class ConstraintCheck:
    """Checks configs against the constraints of this compiler, and compiles if these do not allow them.

    Constraints are for search. Those that the compiler states leave out configs that it compiles, as in the spec that
    IREE itself ships. Spaces that this package builds leave out configs that are not worth a try. So a config outside
    of all spaces fails only if it does not compile either.
    """

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def check(self, entry: GuardEntry) -> list[str]:
        """Check the config of an entry on the entry's dispatches.

        Returns:
            Notes on dispatches for which only compiling decided.

        Raises:
            CheckFailed: the config is not allowed on one of the dispatches.
            InputError: another package's entry point for spaces is broken.
        """
        return [note for task in entry.tasks for note in self._check_in(task, entry)]

    def _check_in(self, task: Task, entry: GuardEntry) -> Iterator[str]:
        (candidate,) = task.candidates
        try:
            spaces = self._spaces(task)
        except NO_SPACE as error:
            said = first_error(error) if isinstance(error, CommandFailed) else str(error)
            yield self._compile_note(task, f"there are no constraints to check it against: {said}")
            return
        if name := ignored_entry(self._builder, task, spaces):
            raise CheckFailed(
                f"this compiler ignores {name} in its config: without it, the same comes out for {task.name}. Configs "
                f"have {', '.join(sorted(_known_entries(task, spaces)))} here: port it (`shark-tune port`)"
            )
        fitting = [space for space in spaces if space.pipeline == candidate.pipeline]
        if not fitting:
            there = ", ".join(dict.fromkeys(space.pipeline for space in spaces))
            yield self._compile_note(
                task, f"there is no pipeline {candidate.pipeline} for {task.name}, which has {there}"
            )
            return
        readings = [_knobs_of_entry(space, task, entry) for space in fitting]
        violations: list[tuple[str, ...]] = [
            space.violated(knobs) for space, knobs in zip(fitting, readings, strict=True) if not isinstance(knobs, str)
        ]
        if () in violations:
            return
        unread = "; ".join(knobs for knobs in readings if isinstance(knobs, str))
        if violations and not unread:
            fewest = min(violations, key=len)
            yield self._compile_note(
                task, f"its config breaks the constraints of {candidate.pipeline} on {task.name}: {'; '.join(fewest)}"
            )
            return
        yield self._compile_note(task, unread)

    def _spaces(self, task: Task) -> tuple[SearchSpace, ...]:
        """The spaces of a dispatch: those that the compiler itself states, if there are any.

        Raises:
            NO_SPACE: there is none.
        """
        compiler = self._builder.compiler
        stated = stated_spaces(task.dispatch, emitted_constraints(task.dispatch, compiler))
        return stated or search_spaces(task.dispatch, compiler)

    def _compile_note(self, task: Task, why: str) -> str:
        try:
            self._builder.artifact(task, task.candidates[0])
        except CandidateFailed as failure:
            raise CheckFailed(
                f"{why}; and the compiler refuses it: {failure.reason}. Port it (`shark-tune port`), or tune the "
                "dispatch again with --tune"
            ) from failure
        return f"{why}; it compiles"


def ignored_entry(builder: Builder, task: Task, spaces: Iterable[SearchSpace]) -> str:
    """Return the name of a part of a config that the compiler silently ignores, or an empty text.

    A part that no config of this compiler has is taken out. If the same binary comes out, the part was ignored.

    Args:
        builder: compiles.
        task: a dispatch with the config as its only candidate.
        spaces: the spaces of the dispatch.
    """
    (candidate,) = task.candidates
    for name in sorted(set(config_entries(candidate.config)) - _known_entries(task, spaces)):
        shorter = msgspec.structs.replace(
            candidate, id=f"{candidate.id}-{name}", compilation_info=without_entry(candidate.compilation_info, name)
        )
        if _binary_of(builder, task, shorter) == _binary_of(builder, task, candidate):
            return name
    return ""


def _known_entries(task: Task, spaces: Iterable[SearchSpace]) -> set[str]:
    """The names of the parts of configs that this compiler has, and of the one that holds a decomposition."""
    return {DECOMPOSITION, *config_entries(task.default.config), *chain.from_iterable(map(space_entries, spaces))}


def _binary_of(builder: Builder, task: Task, candidate: Candidate) -> str:
    """The hash of the compiled binary, or the reason for there being none."""
    try:
        return builder.artifact(task, candidate).sha256 or ""
    except CandidateFailed as failure:
        return failure.reason


def _knobs_of_entry(space: SearchSpace, task: Task, entry: GuardEntry) -> Mapping[str, int] | str:
    """The knobs of the entry's config in ``space``, or the reason for there being none."""
    recorded = entry.record.knobs if entry.record else {}
    if set(recorded) == set(space.names):
        return recorded
    (candidate,) = task.candidates
    return knobs_of(space, candidate.compilation_info)
