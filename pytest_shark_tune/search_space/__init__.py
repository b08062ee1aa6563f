"""Search spaces: which configurations of a root op are worth a try on a target.

One module per kind of op and backend, listed here and nowhere else: adding one touches no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_shark_tune.dispatch.types import RootOp, TargetFacts
from pytest_shark_tune.search_space import constraints
from pytest_shark_tune.search_space.constraints import UnreadableConstraints, spaces_in
from pytest_shark_tune.search_space.cpu import attention as cpu_attention
from pytest_shark_tune.search_space.cpu import contraction as cpu_contraction
from pytest_shark_tune.search_space.cpu import convolution as cpu_convolution
from pytest_shark_tune.search_space.cpu import generic as cpu_generic
from pytest_shark_tune.search_space.cpu.attention import ATTENTION, cpu_attention_spaces
from pytest_shark_tune.search_space.cpu.contraction import KIND as CONTRACTION
from pytest_shark_tune.search_space.cpu.contraction import cpu_contraction_spaces
from pytest_shark_tune.search_space.cpu.convolution import CONVOLUTION, POOLING, cpu_convolution_spaces
from pytest_shark_tune.search_space.cpu.generic import OTHER, cpu_generic_spaces
from pytest_shark_tune.search_space.cpu.tiling import BACKEND as CPU
from pytest_shark_tune.search_space.domains import UnboundedKnob
from pytest_shark_tune.search_space.gpu import attention as gpu_attention
from pytest_shark_tune.search_space.gpu import contraction as gpu_contraction
from pytest_shark_tune.search_space.gpu import convolution as gpu_convolution
from pytest_shark_tune.search_space.gpu.attention import gpu_attention_spaces
from pytest_shark_tune.search_space.gpu.contraction import gpu_contraction_spaces
from pytest_shark_tune.search_space.gpu.convolution import gpu_convolution_spaces
from pytest_shark_tune.search_space.pipeline_options import PIPELINE_OPTIONS, options_of
from pytest_shark_tune.search_space.request import SpaceRequest, narrowed, opened
from pytest_shark_tune.search_space.space import Constraint, Knob, NoSpace, SearchSpace, SpaceTooLarge
from pytest_shark_tune.search_space.spirv import contraction as spirv_contraction
from pytest_shark_tune.search_space.spirv import convolution as spirv_convolution
from pytest_shark_tune.search_space.spirv.contraction import spirv_contraction_spaces
from pytest_shark_tune.search_space.spirv.convolution import spirv_convolution_spaces
from pytest_shark_tune.search_space.spirv.tiling import BACKEND as SPIRV
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
    "cpu_attention": cpu_attention.VERSION,
    "cpu_contraction": cpu_contraction.VERSION,
    "cpu_convolution": cpu_convolution.VERSION,
    "cpu_generic": cpu_generic.VERSION,
    "emitted": constraints.VERSION,
    "gpu_attention": gpu_attention.VERSION,
    "gpu_contraction": gpu_contraction.VERSION,
    "gpu_convolution": gpu_convolution.VERSION,
    "spirv_contraction": spirv_contraction.VERSION,
    "spirv_convolution": spirv_convolution.VERSION,
}
"""The number of each space, as its module has it: part of the keys of plans."""

_BUILDERS: Mapping[tuple[str, str], SpaceBuilder] = {
    (CPU, CONTRACTION): cpu_contraction_spaces,
    (CPU, CONVOLUTION): cpu_convolution_spaces,
    (CPU, POOLING): cpu_convolution_spaces,
    (CPU, ATTENTION): cpu_attention_spaces,
    (CPU, OTHER): cpu_generic_spaces,
    ("cuda", CONTRACTION): gpu_contraction_spaces,
    ("cuda", CONVOLUTION): gpu_convolution_spaces,
    ("cuda", ATTENTION): gpu_attention_spaces,
    ("rocm", CONTRACTION): gpu_contraction_spaces,
    ("rocm", CONVOLUTION): gpu_convolution_spaces,
    (SPIRV, CONTRACTION): spirv_contraction_spaces,
    (SPIRV, CONVOLUTION): spirv_convolution_spaces,
}


def spaces_for(root: RootOp, target: TargetFacts) -> tuple[SearchSpace, ...]:
    """The spaces of ``root`` on ``target``, one for each pipeline, none of them empty.

    Raises:
        NoSpace: the op's kind, a size or an element type is not covered, or no configuration fits the target.
    """
    builder = _BUILDERS.get((target.backend, root.kind))
    if builder is None:
        covered = ", ".join(sorted(kind for backend, kind in _BUILDERS if backend == target.backend)) or "no op"
        raise NoSpace(f"no search space covers {root.op} ({root.kind}) on {target.backend}, which has {covered}")
    for index, size in enumerate(root.loops):
        if size < 0:
            raise NoSpace(f"dimension {index} of {root.op} is dynamic; a config is tuned for one size")
        if size == 0:
            raise NoSpace(f"dimension {index} of {root.op} has size zero, so there is nothing to compute")
    spaces = tuple(space for space in builder(root, target) if space)
    if not spaces:
        raise NoSpace(f"no configuration of {root.op} fits the limits of the target")
    return spaces
