"""Options of GPU pipelines that the compiler pins or leaves out, as knobs of a space.

The compiler's constraints fix them: a search over them is worth its time only to those who ask for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from pytest_shark_tune.search_space.expression import variables
from pytest_shark_tune.search_space.space import Knob, NoSpace, SearchSpace

__all__ = [
    "FLUSH_DENORMALS",
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

_TILING_PIPELINES = ("TileAndFuse", "VectorDistribute")


class PipelineOption(msgspec.Struct, frozen=True, kw_only=True):
    """An option: the values it takes, the pipelines that have it, and the backends whose code it changes."""

    values: tuple[int, int]
    meaning: str
    backends: tuple[str, ...]
    pipelines: tuple[str, ...] = _TILING_PIPELINES


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
    """The options that change code for a backend (``cuda``, ``hip``)."""
    return tuple(name for name, option in PIPELINE_OPTIONS.items() if backend in option.backends)


def open_option(
    spaces: Sequence[SearchSpace], name: str, values: Sequence[int], backend: str
) -> tuple[SearchSpace, ...]:
    """``spaces`` with the option ``name`` as a knob that takes ``values``, wherever a pipeline has that option.

    What the constraints say of the option alone is dropped, since that is what pins it.

    Raises:
        NoSpace: no pipeline of ``spaces`` has the option on this backend.
    """
    option = PIPELINE_OPTIONS[name]
    if backend not in option.backends or not any(space.pipeline in option.pipelines for space in spaces):
        pipelines = ", ".join(sorted({space.pipeline for space in spaces}))
        raise NoSpace(
            f"--tune-knob: {name} is no option of {pipelines} on {backend}; "
            f"{' and '.join(option.pipelines)} have it on {' and '.join(option.backends)}"
        )
    return tuple(_opened(space, name, values) if space.pipeline in option.pipelines else space for space in spaces)


def _opened(space: SearchSpace, name: str, values: Sequence[int]) -> SearchSpace:
    knobs = [knob for knob in space.knobs if knob.name != name]
    return msgspec.structs.replace(
        space,
        knobs=(*knobs, Knob(name, tuple(sorted(set(values))))),
        constraints=tuple(each for each in space.constraints if variables(each.condition) != {name}),
    )
