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
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.search_space.config_reader import config_entries, knobs_of, space_entries, without_entry
from pytest_shark_tune.tuning.builder import Builder

__all__ = ["ConstraintCheck"]


class ConstraintCheck:
    """Checks configs against the constraints of this compiler, and compiles if these do not decide.

    Constraints that the compiler states are binding. If it states none, this package builds the space, and leaves out
    configs that are not worth a try; so a config outside of such a space fails only if it does not compile either.
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
            spaces, are_stated = self._spaces(task)
        except NO_SPACE as error:
            said = first_error(error) if isinstance(error, CommandFailed) else str(error)
            yield self._compile_note(task, f"there are no constraints to check it against: {said}")
            return
        self._check_entries(task, spaces)
        fitting = [space for space in spaces if space.pipeline == candidate.pipeline]
        if not fitting:
            there = ", ".join(dict.fromkeys(space.pipeline for space in spaces))
            said = f"there is no pipeline {candidate.pipeline} for {task.name}, which has {there}"
            if are_stated:
                raise CheckFailed(f"{said}: tune the dispatch again with --tune")
            yield self._compile_note(task, said)
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
            said = f"its config breaks the constraints of {candidate.pipeline} on {task.name}: {'; '.join(fewest)}"
            if are_stated:
                raise CheckFailed(f"{said}. Port it (`shark-tune port`), or tune the dispatch again with --tune")
            self._compile_note(task, said)
            return
        yield self._compile_note(task, unread)

    def _check_entries(self, task: Task, spaces: Iterable[SearchSpace]) -> None:
        """Find the parts of a config that the compiler silently ignores.

        A part that no config of this compiler has is taken out. If the same binary comes out, the part was ignored.
        """
        (candidate,) = task.candidates
        known = {*config_entries(task.default.config), *chain.from_iterable(map(space_entries, spaces))}
        for name in set(config_entries(candidate.config)) - known:
            shorter = msgspec.structs.replace(
                candidate, id=f"{candidate.id}-{name}", compilation_info=without_entry(candidate.compilation_info, name)
            )
            if self._made(task, shorter) == self._made(task, candidate):
                raise CheckFailed(
                    f"this compiler ignores {name} in its config: without it, the same comes out for {task.name}. "
                    f"Configs have {', '.join(sorted(known))} here: port it (`shark-tune port`)"
                )

    def _spaces(self, task: Task) -> tuple[tuple[SearchSpace, ...], bool]:
        """The spaces of a dispatch, and whether the compiler itself states their constraints.

        Raises:
            NO_SPACE: there is none.
        """
        compiler = self._builder.compiler
        stated = stated_spaces(task.dispatch, emitted_constraints(task.dispatch, compiler))
        return (stated, True) if stated else (search_spaces(task.dispatch, compiler), False)

    def _compile_note(self, task: Task, why: str) -> str:
        try:
            self._builder.artifact(task, task.candidates[0])
        except CandidateFailed as failure:
            raise CheckFailed(f"{why}; and the compiler refuses it: {failure.reason}") from failure
        return f"{why}; it compiles"

    def _made(self, task: Task, candidate: Candidate) -> str:
        """The hash of the compiled binary, or the reason for there being none."""
        try:
            return self._builder.artifact(task, candidate).sha256 or ""
        except CandidateFailed as failure:
            return failure.reason


def _knobs_of_entry(space: SearchSpace, task: Task, entry: GuardEntry) -> Mapping[str, int] | str:
    """The knobs of the entry's config in ``space``, or the reason for there being none."""
    recorded = entry.record.knobs if entry.record else {}
    if set(recorded) == set(space.names):
        return recorded
    (candidate,) = task.candidates
    return knobs_of(space, candidate.compilation_info)
