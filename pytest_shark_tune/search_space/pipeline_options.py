"""Options of GPU pipelines as knobs of a space.

The compiler's constraints fix these options or omit them. Searching over them takes time, so users must ask for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from pytest_shark_tune.dispatch.reasons import AskedTooMuch
from pytest_shark_tune.search_space.expression import variables
from pytest_shark_tune.search_space.space import Knob, SearchSpace

__all__ = [
    "FLUSH_DENORMALS",
    "GPU_OPTION_FIELDS",
    "NO_REDUCE_BANK_CONFLICTS",
    "PIPELINE_OPTIONS",
    "PREFETCH_STAGES",
    "WAVES_PER_EU",
    "PipelineOption",
    "open_option",
    "options_of",
]

PREFETCH_STAGES = "prefetch_num_stages"
NO_REDUCE_BANK_CONFLICTS = "no_reduce_shared_memory_bank_conflicts"
WAVES_PER_EU = "waves_per_eu"
FLUSH_DENORMALS = "flush_denormals"

GPU_OPTION_FIELDS = ("use_igemm_convolution", "reorder_workgroups_strategy", PREFETCH_STAGES, NO_REDUCE_BANK_CONFLICTS)
"""The fields of ``#iree_gpu.pipeline_options``."""

_TILING_PIPELINES = ("TileAndFuse", "VectorDistribute")


class PipelineOption(msgspec.Struct, frozen=True, kw_only=True):
    """An option of a pipeline."""

    values: tuple[int, int]
    """The least and the largest value."""
    meaning: str
    backends: tuple[str, ...]
    """The backends on which the option changes code."""
    pipelines: tuple[str, ...] = _TILING_PIPELINES
    """The pipelines that have the option."""


PIPELINE_OPTIONS: Mapping[str, PipelineOption] = {
    PREFETCH_STAGES: PipelineOption(
        values=(0, 8),
        meaning="stages of the software pipeline that prefetches to shared memory; 0 and 1 do not prefetch",
        backends=("hip",),
    ),
    NO_REDUCE_BANK_CONFLICTS: PipelineOption(
        values=(0, 1), meaning="1 leaves shared memory unpadded", backends=("cuda", "hip")
    ),
    WAVES_PER_EU: PipelineOption(
        values=(0, 16),
        meaning="how many waves per execution unit the register allocator aims at; 0 leaves it to the compiler",
        backends=("hip",),
    ),
    FLUSH_DENORMALS: PipelineOption(
        values=(0, 1), meaning="1 lets f32 arithmetic take denormals for zero, keeping the sign", backends=("hip",)
    ),
}


def options_of(backend: str) -> tuple[str, ...]:
    """Return the options that change code on a backend (``cuda``, ``hip``)."""
    return tuple(name for name, option in PIPELINE_OPTIONS.items() if backend in option.backends)


def open_option(
    spaces: Sequence[SearchSpace], name: str, values: Sequence[int], backend: str
) -> tuple[SearchSpace, ...]:
    """Make an option a knob in all spaces with a pipeline that has the option.

    Constraints on the option alone are dropped, since they fix its value.

    Args:
        spaces: The spaces of one dispatch.
        name: The option.
        values: The values that the knob takes.
        backend: The backend (``cuda``, ``hip``).

    Raises:
        NoSpace: No pipeline of ``spaces`` has the option on this backend.
    """
    option = PIPELINE_OPTIONS[name]
    if backend not in option.backends or not any(space.pipeline in option.pipelines for space in spaces):
        pipelines = ", ".join(sorted({space.pipeline for space in spaces}))
        raise AskedTooMuch(
            f"--tune-knob: {name} is no option of {pipelines} on {backend}; "
            f"{' and '.join(option.pipelines)} have it on {' and '.join(option.backends)}"
        )
    return tuple(_open_in(space, name, values) if space.pipeline in option.pipelines else space for space in spaces)


def _open_in(space: SearchSpace, name: str, values: Sequence[int]) -> SearchSpace:
    knobs = [knob for knob in space.knobs if knob.name != name]
    return msgspec.structs.replace(
        space,
        knobs=(*knobs, Knob(name, tuple(sorted(set(values))))),
        constraints=tuple(c for c in space.constraints if variables(c.condition) != {name}),
    )
