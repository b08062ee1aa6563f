"""Wanted configs: those that somebody has for a dispatch already, and that are to be among its candidates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.candidate import Candidate, outside_candidate
from pytest_shark_tune.search_space.config_reader import knobs_of

if TYPE_CHECKING:
    from pytest_shark_tune.plan.types import Plan

__all__ = ["Wanted", "outside_candidates", "wanted_knobs"]


class Wanted(NamedTuple):
    """A config that is to be among the candidates of the dispatch of that key.

    It is given by its pipeline and knobs, if the dispatch's space of that pipeline has it, or else by its
    ``compilation_info`` alone: such a config may lie outside of all spaces.
    """

    key: str
    pipeline: str
    knobs: dict[str, int]
    compilation_info: str = ""

    def is_missing(self, plan: Plan) -> bool:
        """Whether a dispatch of ``plan`` might have it, and was drawn without."""
        tasks = [task for task in plan.tasks if task.dispatch.key == self.key]
        if self.compilation_info:
            return any(
                all(each.compilation_info != self.compilation_info for each in task.candidates) for task in tasks
            )
        return any(
            task.space_size != len(task.candidates)
            and not any(each.pipeline == self.pipeline and each.knobs == self.knobs for each in task.candidates)
            for task in tasks
        )


def wanted_knobs(space: SearchSpace, wanted: Iterable[Wanted]) -> list[dict[str, int]]:
    """The knobs of the ``wanted`` configs that a space may have."""
    found: list[dict[str, int]] = []
    for each in wanted:
        if not each.compilation_info:
            found += [each.knobs] if each.pipeline == space.pipeline else []
            continue
        try:
            knobs = knobs_of(space, each.compilation_info)
        except InputError:  # Another release may have written it.
            continue
        found += [knobs] if isinstance(knobs, dict) else []
    return found


def outside_candidates(
    dispatch: Dispatch, candidates: Collection[Candidate], wanted: Iterable[Wanted], *, position: int
) -> Sequence[Candidate]:
    """Candidates for the ``wanted`` configs that no space gave; ``position`` comes after the dispatch's spaces."""
    known = {each.compilation_info for each in candidates}
    taken = {each.id for each in candidates}
    outside: list[Candidate] = []
    for each in wanted:
        if not each.compilation_info or each.compilation_info in known:
            continue
        try:
            candidate = outside_candidate(
                dispatch.name, dispatch.root, each.compilation_info, taken=taken, position=position
            )
        except InputError:
            continue
        if candidate.compilation_info not in known:
            outside.append(candidate)
            known.add(candidate.compilation_info)
            taken.add(candidate.id)
    return outside
