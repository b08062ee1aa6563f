"""Candidates: members of a search space as the compiler takes them, with ids that stay the same from run to run."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, iree_gpu

from pytest_shark_tune.dispatch.types import Dispatch, RootOp
from pytest_shark_tune.errors import InputError, SharkTuneError
from pytest_shark_tune.stages.space.constraints import pipeline_name
from pytest_shark_tune.stages.space.forms import (
    CPU_PIPELINES,
    DECOMPOSITION,
    DENORMALS,
    GPU_OPTIONS,
    LLVM_ATTRIBUTES,
    PEELING,
    SPIRV_OPTIONS,
    SPIRV_PIPELINES,
    WAVES_ATTRIBUTE,
    denormals,
)
from pytest_shark_tune.stages.space.pipeline_options import (
    FLUSH_DENORMALS,
    NO_REDUCE_BANK_CONFLICTS,
    PIPELINE_OPTIONS,
    PREFETCH_STAGES,
    WAVES_PER_EU,
)
from pytest_shark_tune.stages.space.reading import ReadConfig
from pytest_shark_tune.stages.space.search_space import SearchSpace

__all__ = [
    "CANDIDATE_VERSION",
    "DEFAULT_ID",
    "Candidate",
    "NotInSpace",
    "applied_candidate",
    "cpu_compilation_info",
    "default_candidate",
    "kernel_candidates",
    "kernel_default",
    "make_candidates",
    "outside_candidate",
]

CANDIDATE_VERSION: Final = 1
"""Which members are drawn of a space, with which ids and configs.

Raise it where other candidates come of the same space and seed, or another config of the same knobs: plans are then
made anew.
"""

DEFAULT_ID = "default"

_SHORTEST_ID = 6


class NotInSpace(SharkTuneError):
    """Knobs that a candidate was asked for are no member of the space; the message says why."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration of one dispatch.

    ``id`` is made of the content: equal ids in one space mean equal candidates. ``dispatch`` is the dispatch's
    name, ``pipeline`` the pipeline's without its dialect. ``config`` is the canonical text of the lowering
    config attribute, ``compilation_info`` that of the attribute that applies it; the compiler's own choice,
    whose id is ``default``, has no knobs and an empty ``compilation_info``, as nothing is applied. A kernel of the
    client's own has knobs alone, its default included. ``space`` is the position of its space among the dispatch's:
    two of them may be of one pipeline.
    """

    id: str
    dispatch: str
    pipeline: str
    knobs: dict[str, int]
    config: str
    compilation_info: str
    space: int = 0


def make_candidates(
    dispatch_name: str,
    root: RootOp,
    space: SearchSpace,
    knob_sets: Iterable[Mapping[str, int]],
    *,
    taken: Collection[str] = (),
    position: int = 0,
) -> tuple[Candidate, ...]:
    """The candidates of ``knob_sets``, members of ``space``, the dispatch's at ``position``, in their order.

    An id is the first six hexadecimal digits of a digest of the root op's structure, the pipeline and the
    knobs, and as many more as are needed to tell it from the others made in the same call and from ``taken``, the
    ids of the dispatch's candidates from other spaces.

    Raises:
        NotInSpace: a knob set violates a constraint, lacks a knob or is given twice.
    """
    members = _members(dispatch_name, space, knob_sets)
    ids = _unique_prefixes([_digest(root, space.pipeline, knobs) for knobs in members], taken)
    candidates = []
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        for identity, knobs in zip(ids, members, strict=True):
            info = _compilation_info(space, knobs)
            candidates.append(
                Candidate(
                    id=identity,
                    dispatch=dispatch_name,
                    pipeline=space.pipeline,
                    knobs=knobs,
                    config=str(info.lowering_config),
                    compilation_info=str(info),
                    space=position,
                )
            )
    return tuple(candidates)


def default_candidate(dispatch: Dispatch) -> Candidate:
    """The compiler's own choice for ``dispatch``, against which the others are measured."""
    return Candidate(
        id=DEFAULT_ID,
        dispatch=dispatch.name,
        pipeline=dispatch.default_pipeline,
        knobs={},
        config=dispatch.default_config,
        compilation_info="",
    )


def applied_candidate(
    dispatch_name: str, compilation_info: str, *, identifier: str, knobs: Mapping[str, int]
) -> Candidate:
    """The candidate whose ``compilation_info`` a spec applies; ``identifier`` and ``knobs`` are its record's.

    Raises:
        InputError: the text is no compilation info that this IREE parses.
    """
    if not compilation_info:
        raise InputError("it attaches no compilation_info")  # IREE would crash on the empty text
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        try:
            info = iree_codegen.CompilationInfoAttr(ir.Attribute.parse(compilation_info))
        except (ir.MLIRError, ValueError) as error:
            raise InputError(f"not a compilation_info that this IREE parses: {compilation_info}: {error}") from error
        return Candidate(
            id=identifier,
            dispatch=dispatch_name,
            pipeline=pipeline_name(info.translation_info.pass_pipeline),
            knobs=dict(knobs),
            config=str(info.lowering_config),
            compilation_info=str(info),
        )


def outside_candidate(
    dispatch_name: str, root: RootOp, compilation_info: str, *, taken: Collection[str], position: int
) -> Candidate:
    """The candidate of a config that lies outside of all spaces, or is in none of them as it stands; it has no knobs.

    Its id is made like those of the others, and differs from those ``taken``. ``position`` comes after those of the
    dispatch's spaces.

    Raises:
        InputError: the text is no compilation info that this IREE parses.
    """
    made = applied_candidate(dispatch_name, compilation_info, identifier="", knobs={})
    content = msgspec.json.encode((root, made.compilation_info))
    (identity,) = _unique_prefixes([hashlib.sha256(content).hexdigest()], taken)
    return msgspec.structs.replace(made, id=identity, space=position)


def cpu_compilation_info(config: ReadConfig) -> str:
    """The text of the attribute of a config for CPUs that another release wrote.

    Raises:
        InputError: this IREE has no such pipeline, level or option.
    """
    levels = {name: tiles for name, tiles in config.tree.items() if isinstance(tiles, list)}
    flags = [name for name, value in config.tree.items() if name not in levels and value]
    with ir.Context() as context:
        context.enable_multithreading(False)
        try:
            return str(_cpu_attribute(f"{CPU_PIPELINES}{config.pipeline}>", levels, flags))
        except ir.MLIRError as error:
            raise InputError(f"this IREE has no config of that form: {error}") from error


def kernel_candidates(name: str, space: SearchSpace, knob_sets: Iterable[Mapping[str, int]]) -> tuple[Candidate, ...]:
    """The candidates of a kernel that IREE knows nothing of: knobs alone, with ids made as by `make_candidates`.

    Raises:
        NotInSpace: a knob set violates a constraint, lacks a knob or is given twice.
    """
    members = _members(name, space, knob_sets)
    ids = _unique_prefixes([_digest(name, space.pipeline, knobs) for knobs in members])
    return tuple(_kernel_candidate(identity, name, space, knobs) for identity, knobs in zip(ids, members, strict=True))


def kernel_default(name: str, space: SearchSpace, knobs: Mapping[str, int]) -> Candidate:
    """The baseline of such a kernel: unlike a dispatch's default, it has knobs."""
    return _kernel_candidate(DEFAULT_ID, name, space, dict(sorted(knobs.items())))


def _kernel_candidate(identity: str, name: str, space: SearchSpace, knobs: dict[str, int]) -> Candidate:
    return Candidate(id=identity, dispatch=name, pipeline=space.pipeline, knobs=knobs, config="", compilation_info="")


def _members(name: str, space: SearchSpace, knob_sets: Iterable[Mapping[str, int]]) -> list[dict[str, int]]:
    members = [dict(sorted(knobs.items())) for knobs in knob_sets]
    for knobs, is_member in zip(members, space.holds(members), strict=True):
        if not is_member:
            raise NotInSpace(f"{knobs} is no candidate of {name}: {'; '.join(space.violated(knobs))}")
    return members


def _digest(root: RootOp | str, pipeline: str, knobs: Mapping[str, int]) -> str:
    content = msgspec.json.encode((root, pipeline, sorted(knobs.items())))
    return hashlib.sha256(content).hexdigest()


def _unique_prefixes(digests: list[str], taken: Collection[str] = ()) -> list[str]:
    if len(set(digests)) < len(digests):
        raise NotInSpace("the same knobs are given twice")
    lengths = dict.fromkeys(digests, _SHORTEST_ID)
    while True:
        groups: dict[str, list[str]] = {}
        for digest, length in lengths.items():
            groups.setdefault(digest[:length], []).append(digest)
        clashing = [digest for prefix, group in groups.items() if len(group) > 1 or prefix in taken for digest in group]
        if not clashing:
            return [digest[: lengths[digest]] for digest in digests]
        for digest in clashing:
            lengths[digest] += 1


def _compilation_info(space: SearchSpace, knobs: Mapping[str, int]) -> Any:
    """The ``CompilationInfoAttr`` of a member: the compiler's own, save for CPUs and SPIR-V, where it makes none."""
    if space.pipeline_attribute.startswith(CPU_PIPELINES):
        return _cpu_compilation_info(space, knobs)
    if space.pipeline_attribute.startswith(SPIRV_PIPELINES):
        return _spirv_compilation_info(space, knobs)
    module = ir.Module.create()
    with ir.InsertionPoint(module.body):
        op = iree_codegen.ConstraintsOp(
            target=ir.Attribute.parse("#iree_codegen.root_op<set = 0>"),
            pipeline=ir.Attribute.parse(space.pipeline_attribute),
            knobs=ir.Attribute.parse(space.knob_dictionary),
            problem_dims=[],
        )
    op.regions[0].blocks.append()
    info = iree_codegen.materialize_compilation_info(op, dict(knobs))
    if DECOMPOSITION in ir.DictAttr(op.knobs):
        # The compiler makes this part of an attention's config apart, as it stands on the op; here one text holds both.
        part = iree_codegen.materialize_configuration_attr(op, DECOMPOSITION, dict(knobs))
        entries = {entry.name: entry.attr for entry in info.lowering_config.attributes} | {DECOMPOSITION: part}
        config = iree_gpu.LoweringConfigAttr.get(ir.DictAttr.get(entries))
        info = iree_codegen.CompilationInfoAttr.get(config, info.translation_info)
    options = {name: value for name, value in knobs.items() if name in PIPELINE_OPTIONS}
    return _with_options(info, options) if options else info


def _with_options(info: Any, options: Mapping[str, int]) -> Any:
    """``info`` with pipeline options in its translation info; those that the compiler filled in get the same again."""
    translation = info.translation_info
    entries = {entry.name: entry.attr for entry in translation.configuration or ()}
    if PREFETCH_STAGES in options or NO_REDUCE_BANK_CONFLICTS in options:
        entries[GPU_OPTIONS] = _pipeline_options(entries.get(GPU_OPTIONS), options)
    if WAVES_PER_EU in options:
        attributes = {entry.name: entry.attr for entry in entries.pop(LLVM_ATTRIBUTES, ())}
        attributes.pop(WAVES_ATTRIBUTE, None)
        if waves := options[WAVES_PER_EU]:
            attributes[WAVES_ATTRIBUTE] = ir.StringAttr.get(str(waves))
        if attributes:
            entries[LLVM_ATTRIBUTES] = ir.DictAttr.get(attributes)
    if FLUSH_DENORMALS in options:
        entries[DENORMALS] = ir.Attribute.parse(denormals(flushed=bool(options[FLUSH_DENORMALS])))
    changed = iree_codegen.TranslationInfoAttr.get(
        translation.pass_pipeline,
        translation.codegen_spec,
        translation.workgroup_size,
        translation.subgroup_size,
        ir.DictAttr.get(entries),
    )
    return iree_codegen.CompilationInfoAttr.get(info.lowering_config, changed)


def _pipeline_options(present: Any, options: Mapping[str, int]) -> Any:
    values: dict[str, Any] = {}
    if present is not None:
        given = iree_gpu.PipelineOptionsAttr(present)
        for name in ("use_igemm_convolution", "reorder_workgroups_strategy", PREFETCH_STAGES, NO_REDUCE_BANK_CONFLICTS):
            values[name] = getattr(given, name)
    if PREFETCH_STAGES in options:
        values[PREFETCH_STAGES] = options[PREFETCH_STAGES]
    if NO_REDUCE_BANK_CONFLICTS in options:
        values[NO_REDUCE_BANK_CONFLICTS] = bool(options[NO_REDUCE_BANK_CONFLICTS])
    return iree_gpu.PipelineOptionsAttr.get(**values)


def _cpu_compilation_info(space: SearchSpace, knobs: Mapping[str, int]) -> Any:
    """The one place where an ``iree_cpu`` config is made; its dialect has no bindings, so text is parsed once.

    Of the knob dictionary, arrays are tiling levels; a level of zeros tiles nothing and is left out, save for
    ``distribution``, which makes an op the root.
    """
    levels = {}
    peel = False
    for name, leaves in _cpu_levels(space.knob_dictionary):
        values = [knobs[leaf] if isinstance(leaf, str) else leaf for leaf in leaves]
        if name == PEELING:
            peel = any(values)
        elif any(values) or name == "distribution":
            levels[name] = values
    return _cpu_attribute(space.pipeline_attribute, levels, [PEELING] * peel)


@lru_cache(maxsize=16)  # A space has thousands of members.
def _cpu_levels(knob_dictionary: str) -> tuple[tuple[str, tuple[str | int, ...]], ...]:
    """The entries of a knob dictionary, whose leaves are knobs, by their names, or fixed."""

    def leaf(attribute: Any) -> str | int:
        return str(attribute.name) if isinstance(attribute, iree_codegen.IntKnobAttr) else int(attribute.value)

    entries = ir.DictAttr(ir.Attribute.parse(knob_dictionary))
    return tuple(
        (entry.name, (leaf(entry.attr),) if entry.name == PEELING else tuple(map(leaf, entry.attr)))
        for entry in entries
    )


def _cpu_attribute(pipeline: str, levels: Mapping[str, object], flags: Collection[str]) -> Any:
    config = f"#iree_cpu.lowering_config<{', '.join(f'{name} = {tiles}' for name, tiles in levels.items())}>"
    options = f", {{{', '.join(flags)}}}" if flags else ""
    return ir.Attribute.parse(
        f"#iree_codegen.compilation_info<lowering_config = {config}, "
        f"translation_info = <pipeline = {pipeline}{options}>>"
    )


def _spirv_compilation_info(space: SearchSpace, knobs: Mapping[str, int]) -> Any:
    """The one place where a config for SPIR-V is made: levels of tiles, which have no bindings either."""
    dictionary = ir.DictAttr(ir.Attribute.parse(space.knob_dictionary))
    entries = {entry.name: entry.attr for entry in dictionary}
    levels = [[_filled(leaf, knobs) for leaf in level] for level in entries["tile_sizes"]]
    i64 = ir.IntegerType.get_signless(64)
    options = {
        name: ir.IntegerAttr.get(i64, _filled(entries[name], knobs)) for name in SPIRV_OPTIONS if name in entries
    }
    translation = iree_codegen.TranslationInfoAttr.get(
        ir.Attribute.parse(space.pipeline_attribute),
        None,
        [_filled(leaf, knobs) for leaf in entries["workgroup_size"]],
        _filled(entries["subgroup_size"], knobs) if "subgroup_size" in entries else 0,
        ir.DictAttr.get(options) if options else None,
    )
    config = ir.Attribute.parse(f"#iree_codegen.lowering_config<tile_sizes = {levels}>")
    return iree_codegen.CompilationInfoAttr.get(config, translation)


def _filled(leaf: Any, knobs: Mapping[str, int]) -> int:
    return knobs[leaf.name] if isinstance(leaf, iree_codegen.IntKnobAttr) else int(leaf.value)
