"""Writing compilation infos from knobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, iree_gpu

from pytest_shark_tune.compiler.versions import as_installed
from pytest_shark_tune.dispatch.text_pipelines import TEXT_PREFIX
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space import pipeline_options
from pytest_shark_tune.search_space.attribute_names import (
    CPU_PIPELINES,
    DECOMPOSITION,
    DENORMALS,
    GPU_OPTIONS,
    LLVM_ATTRIBUTES,
    PEELING,
    SPIRV_OPTIONS,
    SPIRV_PIPELINES,
    WAVES_ATTRIBUTE,
    cpu_pipeline,
    denormals,
)
from pytest_shark_tune.search_space.config_reader import ReadConfig
from pytest_shark_tune.search_space.constraints import knob_name
from pytest_shark_tune.search_space.space import SearchSpace

__all__ = ["compilation_info_of", "cpu_compilation_info", "gpu_compilation_info", "with_decomposition"]


def cpu_compilation_info(config: ReadConfig) -> str:
    """Return the text of the compilation info for a CPU config from another release.

    Raises:
        InputError: This IREE has no such pipeline, level or option.
    """
    levels = {name: tiles for name, tiles in config.tree.items() if isinstance(tiles, list)}
    flags = [name for name, value in config.tree.items() if name not in levels and value]
    with ir.Context() as context:
        context.enable_multithreading(False)
        try:
            return str(_cpu_attribute(cpu_pipeline(config.pipeline), levels, flags))
        except ir.MLIRError as error:
            raise InputError(f"this IREE has no config of that form: {error}") from error


def gpu_compilation_info(config: ReadConfig) -> str:
    """Return the text of the compilation info for a GPU config from another release.

    Raises:
        InputError: This IREE has no such pipeline, level or option.
    """
    levels: dict[str, Any] = dict(config.tree)
    sizes, subgroup_size = levels.pop("workgroup_size", []), levels.pop("subgroup_size", 0)
    names = [name for name in (GPU_OPTIONS, LLVM_ATTRIBUTES, *pipeline_options.PIPELINE_OPTIONS) if name in levels]
    options = {name: levels.pop(name) for name in names}
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        try:
            entries = {LLVM_ATTRIBUTES: _attribute_of(options[LLVM_ATTRIBUTES])} if LLVM_ATTRIBUTES in options else {}
            if given := options.pop(GPU_OPTIONS, {}):
                numbers = {name: value for name, value in given.items() if name == pipeline_options.PREFETCH_STAGES}
                flags = {name: bool(value) for name, value in given.items() if isinstance(value, int)}
                if len(flags) < len(given):
                    raise ValueError(f"the pipeline options {given}")
                entries[GPU_OPTIONS] = iree_gpu.PipelineOptionsAttr.get(**(flags | numbers))
            info = iree_codegen.CompilationInfoAttr.get(
                iree_gpu.LoweringConfigAttr.get(_attribute_of(levels)),
                iree_codegen.TranslationInfoAttr.get(
                    ir.Attribute.parse(f"#iree_gpu.pipeline<{config.pipeline}>"),
                    None,
                    sizes,
                    subgroup_size,
                    ir.DictAttr.get(entries),
                ),
            )
            return str(_with_options(info, options) if options else info)
        except (ir.MLIRError, TypeError, ValueError) as error:
            raise InputError(f"this IREE has no config of that form: {error}") from error


def _attribute_of(tree: Any, name: str = "") -> Any:
    """Return the attribute that `config_reader` reads as ``tree``, in an entry called ``name``."""
    if isinstance(tree, dict):
        entries = ir.DictAttr.get({key: _attribute_of(part, key) for key, part in tree.items()})
        return iree_gpu.LoweringConfigAttr.get(entries) if name == "lowering_config" else entries
    if isinstance(tree, list):
        return ir.ArrayAttr.get([_attribute_of(part) for part in tree])
    if isinstance(tree, int):
        return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), tree)
    return ir.Attribute.parse(tree) if tree.startswith("#") else ir.StringAttr.get(tree)


def with_decomposition(compilation_info: Any, decomposition: Any) -> Any:
    """Return a compilation info whose lowering config, of a GPU, holds the decomposition of an attention too."""
    config = compilation_info.lowering_config
    entries = {entry.name: entry.attr for entry in config.attributes} | {DECOMPOSITION: decomposition}
    return iree_codegen.CompilationInfoAttr.get(
        iree_gpu.LoweringConfigAttr.get(ir.DictAttr.get(entries)), compilation_info.translation_info
    )


def compilation_info_of(space: SearchSpace, knobs: Mapping[str, int]) -> Any:
    """Return the ``CompilationInfoAttr`` of a member. The compiler makes it, except on CPUs and SPIR-V."""
    if space.pipeline_attribute.startswith((CPU_PIPELINES, TEXT_PREFIX)):
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
        # The compiler makes this part of an attention's config separately, for an attribute of the op.
        part = iree_codegen.materialize_configuration_attr(op, DECOMPOSITION, dict(knobs))
        info = with_decomposition(info, part)
    options = {name: value for name, value in knobs.items() if name in pipeline_options.PIPELINE_OPTIONS}
    return _with_options(info, options) if options else info


def _with_options(info: Any, options: Mapping[str, int]) -> Any:
    """Add pipeline options to the translation info. Options that the compiler has set get the same value again."""
    translation = info.translation_info
    entries = {entry.name: entry.attr for entry in translation.configuration or ()}
    if pipeline_options.PREFETCH_STAGES in options or pipeline_options.NO_REDUCE_BANK_CONFLICTS in options:
        entries[GPU_OPTIONS] = _pipeline_options(entries.get(GPU_OPTIONS), options)
    if pipeline_options.WAVES_PER_EU in options:
        attributes = {entry.name: entry.attr for entry in entries.pop(LLVM_ATTRIBUTES, ())}
        attributes.pop(WAVES_ATTRIBUTE, None)
        if waves := options[pipeline_options.WAVES_PER_EU]:
            attributes[WAVES_ATTRIBUTE] = ir.StringAttr.get(str(waves))
        if attributes:
            entries[LLVM_ATTRIBUTES] = ir.DictAttr.get(attributes)
    if pipeline_options.FLUSH_DENORMALS in options:
        entries[DENORMALS] = ir.Attribute.parse(denormals(flushed=bool(options[pipeline_options.FLUSH_DENORMALS])))
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
        values = {name: getattr(given, name) for name in pipeline_options.GPU_OPTION_FIELDS}
    if pipeline_options.PREFETCH_STAGES in options:
        values[pipeline_options.PREFETCH_STAGES] = options[pipeline_options.PREFETCH_STAGES]
    if pipeline_options.NO_REDUCE_BANK_CONFLICTS in options:
        values[pipeline_options.NO_REDUCE_BANK_CONFLICTS] = bool(options[pipeline_options.NO_REDUCE_BANK_CONFLICTS])
    return iree_gpu.PipelineOptionsAttr.get(**values)


def _cpu_compilation_info(space: SearchSpace, knobs: Mapping[str, int]) -> Any:
    """Make an ``iree_cpu`` config, the only place that does. Its dialect has no bindings, so text is parsed.

    Arrays in the knob dictionary are tiling levels. A level of zeros tiles nothing and is left out, except for
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
    """Return the entries of a knob dictionary. A leaf is the name of a knob or a constant."""

    def leaf(attribute: Any) -> str | int:
        name = knob_name(attribute)
        return int(attribute.value) if name is None else name

    entries = ir.DictAttr(ir.Attribute.parse(knob_dictionary))
    return tuple(
        (entry.name, (leaf(entry.attr),) if entry.name == PEELING else tuple(map(leaf, entry.attr)))
        for entry in entries
    )


def _cpu_attribute(pipeline: str, levels: Mapping[str, object], flags: Collection[str]) -> Any:
    config = f"#iree_cpu.lowering_config<{', '.join(f'{name} = {tiles}' for name, tiles in levels.items())}>"
    options = f", {{{', '.join(flags)}}}" if flags else ""
    info = (
        f"#iree_codegen.compilation_info<lowering_config = {config}, "
        f"translation_info = <pipeline = {pipeline}{options}>>"
    )
    return ir.Attribute.parse(as_installed(info))


def _spirv_compilation_info(space: SearchSpace, knobs: Mapping[str, int]) -> Any:
    """Make a config for SPIR-V, the only place that does: levels of tiles, which have no bindings either."""
    dictionary = ir.DictAttr(ir.Attribute.parse(space.knob_dictionary))
    entries = {entry.name: entry.attr for entry in dictionary}
    levels = [[_fill(leaf, knobs) for leaf in level] for level in entries["tile_sizes"]]
    i64 = ir.IntegerType.get_signless(64)
    options = {name: ir.IntegerAttr.get(i64, _fill(entries[name], knobs)) for name in SPIRV_OPTIONS if name in entries}
    translation = iree_codegen.TranslationInfoAttr.get(
        ir.Attribute.parse(space.pipeline_attribute),
        None,
        [_fill(leaf, knobs) for leaf in entries["workgroup_size"]],
        _fill(entries["subgroup_size"], knobs) if "subgroup_size" in entries else 0,
        ir.DictAttr.get(options) if options else None,
    )
    config = ir.Attribute.parse(f"#iree_codegen.lowering_config<tile_sizes = {levels}>")
    return iree_codegen.CompilationInfoAttr.get(config, translation)


def _fill(leaf: Any, knobs: Mapping[str, int]) -> int:
    name = knob_name(leaf)
    return int(leaf.value) if name is None else knobs[name]
