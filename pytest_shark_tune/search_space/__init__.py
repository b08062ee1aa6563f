"""Search spaces: the configs of a root op that are worth a try on a target.

Each backend is a package with one module per kind of op and a table of them, so that a new space touches no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_shark_tune.dispatch.reasons import (
    DynamicDimension,
    EmptyDimension,
    KindNotCovered,
    NoSpace,
    NothingFits,
    SpaceTooLarge,
    UnboundedKnob,
    UnreadableConstraints,
)
from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space import constraints, cpu, gpu, spirv
from pytest_shark_tune.search_space.constraints import spaces_in
from pytest_shark_tune.search_space.pipeline_options import PIPELINE_OPTIONS, options_of
from pytest_shark_tune.search_space.request import SpaceRequest, narrowed, opened
from pytest_shark_tune.search_space.space import Constraint, Knob, SearchSpace
from pytest_shark_tune.search_space.where import parse_condition

__all__ = [
    "PIPELINE_OPTIONS",
    "SPACE_VERSIONS",
    "Constraint",
    "Knob",
    "NoSpace",
    "SearchSpace",
    "SpaceRequest",
    "SpaceTooLarge",
    "UnboundedKnob",
    "UnreadableConstraints",
    "narrowed",
    "opened",
    "options_of",
    "parse_condition",
    "spaces_for",
    "spaces_in",
]

SpaceBuilder = Callable[[RootOp, TargetFacts], tuple[SearchSpace, ...]]

SPACE_VERSIONS: Mapping[str, int] = {
    **cpu.VERSIONS,
    "emitted": constraints.VERSION,
    **gpu.VERSIONS,
    **spirv.VERSIONS,
}
"""The version of each space, from its module. Keys of plans contain them."""

_BUILDERS: Mapping[str, Mapping[str, SpaceBuilder]] = {**cpu.BUILDERS, **gpu.BUILDERS, **spirv.BUILDERS}


def spaces_for(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """Return the spaces of ``root`` on ``target``, at least one for each pipeline, none of them empty.

    Raises:
        NoSpace: The op's kind, a size or an element type is not covered, or no config fits the target.
    """
    builders = _BUILDERS.get(target.backend, {})
    if root.kind not in builders:
        covered = ", ".join(sorted(builders)) or "no op"
        raise KindNotCovered(f"no search space covers {root.op} ({root.kind}) on {target.backend}, which has {covered}")
    for index, size in enumerate(root.loops):
        if size < 0:
            raise DynamicDimension(f"dimension {index} of {root.op} is dynamic; a config is tuned for one size")
        if size == 0:
            raise EmptyDimension(f"dimension {index} of {root.op} has size zero, so there is nothing to compute")
    spaces = tuple(space for space in builders[root.kind](root, target) if space)
    if not spaces:
        raise NothingFits(f"no configuration of {root.op} fits the limits of the target")
    return spaces
