"""Reading configs: finds the knobs of a space in a compilation info.

The knob dictionary of a space is a config with knobs in it. A compilation info is converted to the same shape, and both
are walked side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, iree_gpu

from pytest_shark_tune.dispatch.mlir import parse_attribute, pipeline_name, shared_context
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space import attribute_names
from pytest_shark_tune.search_space.constraints import knob_name
from pytest_shark_tune.search_space.pipeline_options import (
    FLUSH_DENORMALS,
    GPU_OPTION_FIELDS,
    NO_REDUCE_BANK_CONFLICTS,
    PIPELINE_OPTIONS,
    PREFETCH_STAGES,
    WAVES_PER_EU,
)
from pytest_shark_tune.search_space.space import SearchSpace

__all__ = [
    "ConfigTree",
    "ReadConfig",
    "Reading",
    "config_entries",
    "knobs_of",
    "option_values",
    "parse_info",
    "read_config",
    "read_knobs",
    "space_entries",
    "without_entry",
]

ConfigTree: TypeAlias = int | str | list["ConfigTree"] | dict[str, "ConfigTree"]
"""An attribute as plain data: truth values are 1 and 0, and kinds without such a form are text."""


class ReadConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A compilation info as plain data."""

    pipeline: str
    """The name of the pipeline, without its dialect."""
    tree: dict[str, ConfigTree]
    """The entries of the lowering config and of the translation info's dictionary, in the shape of a knob dictionary.

    ``workgroup_size``, ``subgroup_size`` and options that can be knobs (``waves_per_eu``, ``flush_denormals``) are
    entries at the top level.
    """


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs of a space that were found in a config."""

    knobs: dict[str, int]
    differences: tuple[str, ...] = ()
    """The differences between the config and all members of the space, as text."""


class _IntKnob(msgspec.Struct, frozen=True):
    name: str


class _OneOfKnob(msgspec.Struct, frozen=True):
    name: str
    choices: list[ConfigTree]


_Template: TypeAlias = Any
"""A `ConfigTree` with knobs in it."""


def knobs_of(space: SearchSpace, compilation_info: str) -> dict[str, int] | str:
    """Return the knobs for which ``space`` makes exactly this compilation info, or the reason why there are none.

    The knobs need not be a member: ``space.violated`` returns violated constraints. Knobs that change nothing in the
    attribute take the space's value for "off".

    Raises:
        InputError: The text is no compilation info that this IREE parses.
    """
    config = read_config(compilation_info)
    if config.pipeline != space.pipeline:
        return f"its pipeline is {config.pipeline}, and the space's is {space.pipeline}"
    reading = read_knobs(space, config)
    return "; ".join(reading.differences) or reading.knobs


def read_config(compilation_info: str) -> ReadConfig:
    """Read the text of a compilation info as plain data.

    Raises:
        InputError: The text is no compilation info that this IREE parses.
    """
    if not compilation_info:
        raise InputError("not a compilation_info: the text is empty")  # IREE would crash on it.
    with shared_context():
        info = parse_info(compilation_info)
        translation = info.translation_info
        tree = _levels(info.lowering_config)
        if sizes := list(translation.workgroup_size):
            tree["workgroup_size"] = sizes
        if translation.subgroup_size:
            tree["subgroup_size"] = translation.subgroup_size
        for entry in translation.configuration or ():
            tree.update(_option(entry.name, entry.attr))
        return ReadConfig(pipeline=pipeline_name(translation.pass_pipeline), tree=tree)


def parse_info(text: str) -> Any:
    """Parse a compilation info, which is not empty, in the current context.

    Raises:
        InputError: The text is no compilation info that this IREE parses.
    """
    try:
        return iree_codegen.CompilationInfoAttr(parse_attribute(text))
    except (InputError, ValueError) as error:
        raise InputError(f"not a compilation_info that this IREE parses: {text}: {error}") from error


def read_knobs(space: SearchSpace, config: ReadConfig) -> Reading:
    """Read the knobs of ``space`` from a config of its pipeline.

    A knob with contradicting values, or without a value, is missing from the result and reported as a difference.
    """
    found: dict[str, int] = {}
    differences: list[str] = []
    absent: dict[str, str] = {}
    template = _template(space)
    if attribute_names.FUSED not in config.tree:  # The compiler's default holds only the config of the root op.
        template.pop(attribute_names.FUSED, None)
    for path, problem in _differences(template, config.tree, "", found, absent):
        differences.append(f"{path} {problem}" if path else problem)
    domains = {knob.name: knob.domain for knob in space.knobs}
    for name, path in absent.items():
        if name not in found and (name in PIPELINE_OPTIONS or 0 in domains[name]):
            found[name] = 0
        elif found.get(name) != 0:
            differences.append(f"{path}, which is {name}, is missing")
    missing = [name for name in space.names if name not in found]
    if missing and not differences:
        differences.append(f"it has nothing that tells {', '.join(missing)}")
    return Reading(knobs={name: found[name] for name in space.names if name in found}, differences=tuple(differences))


def option_values(config: ReadConfig) -> dict[str, int]:
    """Return the pipeline options of a config that are not off, by their names in ``--tune-knob``."""
    options = config.tree.get(attribute_names.GPU_OPTIONS, {})
    assert isinstance(options, dict)
    everything = {**options, **config.tree}
    names = (PREFETCH_STAGES, NO_REDUCE_BANK_CONFLICTS, WAVES_PER_EU, FLUSH_DENORMALS)
    values = {name: everything.get(name) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, int) and value}


def config_entries(config: str) -> tuple[str, ...]:
    """Return the names of the entries of a lowering config, given its text or an empty text.

    Raises:
        InputError: The text is no lowering config of this IREE.
    """
    if not config:
        return ()
    with shared_context():
        return tuple(_levels(parse_attribute(config)))


def space_entries(space: SearchSpace) -> tuple[str, ...]:
    """Return the names of the entries that lowering configs of a space may have."""
    with shared_context():
        return tuple(entry.name for entry in ir.DictAttr(ir.Attribute.parse(space.knob_dictionary)))


def without_entry(compilation_info: str, name: str) -> str:
    """Remove the entry of that name from the lowering config of a compilation info."""
    with shared_context():
        info = iree_codegen.CompilationInfoAttr(ir.Attribute.parse(compilation_info))
        kept = ir.DictAttr.get(
            {key: value for key, value in _lowering_entries(info.lowering_config).items() if key != name}
        )
        if isinstance(info.lowering_config, iree_gpu.LoweringConfigAttr):
            config = iree_gpu.LoweringConfigAttr.get(kept)
        else:
            # This reverses `_entries`.
            head = str(info.lowering_config).partition("<")[0]
            config = ir.Attribute.parse(f"{head}<{str(kept)[1:-1]}>")
        return str(iree_codegen.CompilationInfoAttr.get(config, info.translation_info))


def _differences(
    template: _Template, given: ConfigTree | None, path: str, found: dict[str, int], absent: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Find the knobs of ``template`` in ``given``, and yield the paths of differences with a description.

    Args:
        template: A part of a knob dictionary.
        given: The same part of a config, ``None`` if the config lacks it.
        path: The path of the part.
        found: Gets the knobs that are found.
        absent: Gets the knobs with no place in the config, with the path of that place.
    """
    match template:
        case _IntKnob(name):
            if given is None:
                absent[name] = path
            elif isinstance(given, int):
                yield from _set_knob(name, given, path, found)
            else:
                yield path, f"is {_tree_text(given)}, which is no whole number"
        case _OneOfKnob(name, choices):
            positions = [index for index, choice in enumerate(choices) if _is_same(choice, given)]
            if positions:
                yield from _set_knob(name, positions[0], path, found)
            else:
                yield path, f"is {_tree_text(given)}, which is none of {', '.join(map(_tree_text, choices))}"
        case dict():
            entries = {} if given is None else given
            if not isinstance(entries, dict):
                yield path, f"is {_tree_text(given)}, which is no dictionary"
                return
            for name, part in template.items():
                yield from _differences(part, entries.get(name), _path_to(path, name), found, absent)
            for name, part in entries.items():
                if name not in template and not _is_off(part):
                    yield _path_to(path, name), f"is {_tree_text(part)}, and the space has no such entry"
        case list():
            parts: Sequence[ConfigTree | None] = [None] * len(template)
            if given is not None:
                if not isinstance(given, list) or len(given) != len(template):
                    yield path, f"is {_tree_text(given)}, and the space has {len(template)} entries there"
                    return
                parts = given
            for index, (part, entry) in enumerate(zip(template, parts, strict=True)):
                yield from _differences(part, entry, f"{path}[{index}]", found, absent)
        case _:
            if not _is_same(template, given):
                yield path, f"is {_tree_text(given)}, and in the space always {_tree_text(template)}"


def _set_knob(name: str, value: int, path: str, found: dict[str, int]) -> Iterator[tuple[str, str]]:
    if found.setdefault(name, value) != value:
        yield path, f"makes the knob {name} {value}, and elsewhere it is {found[name]}"


def _is_same(choice: ConfigTree, given: ConfigTree | None) -> bool:
    """Return whether both are equal; a missing entry is off."""
    return _is_off(choice) if given is None else choice == given or (_is_off(choice) and _is_off(given))


def _is_off(tree: ConfigTree) -> bool:
    if isinstance(tree, dict):
        return all(map(_is_off, tree.values()))
    return all(map(_is_off, tree)) if isinstance(tree, list) else not tree


def _path_to(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _tree_text(tree: ConfigTree | None) -> str:
    if isinstance(tree, dict):
        return f"{{{', '.join(f'{name} = {_tree_text(part)}' for name, part in tree.items())}}}"
    if isinstance(tree, list):
        return f"[{', '.join(map(_tree_text, tree))}]"
    return "missing" if tree is None else str(tree)


def _template(space: SearchSpace) -> dict[str, _Template]:
    """Return the knob dictionary, with knobs of pipeline options at the places of the options."""
    with shared_context():
        template: dict[str, _Template] = _tree(ir.Attribute.parse(space.knob_dictionary))
    for name in space.names:
        if name in (PREFETCH_STAGES, NO_REDUCE_BANK_CONFLICTS):
            template.setdefault(attribute_names.GPU_OPTIONS, {})[name] = _IntKnob(name)
        elif name in (WAVES_PER_EU, FLUSH_DENORMALS):
            template[name] = _IntKnob(name)
    return template


def _levels(config: Any) -> dict[str, ConfigTree]:
    return {name: _tree(attribute) for name, attribute in _lowering_entries(config).items()}


def _lowering_entries(config: Any) -> dict[str, Any]:
    """Return the entries of a lowering config.

    The configs of CPUs and of SPIR-V have no bindings. Their brackets enclose the content of a dictionary, so their
    printed form is parsed as one. This happens only here.
    """
    if isinstance(config, iree_gpu.LoweringConfigAttr):
        return {entry.name: entry.attr for entry in config.attributes}
    inner = str(config).partition("<")[2].removesuffix(">")
    try:
        return {entry.name: entry.attr for entry in ir.DictAttr(ir.Attribute.parse(f"{{{inner}}}"))}
    except ir.MLIRError as error:
        raise InputError(f"the lowering config {config} has a form that is not read: {error}") from error


def _option(name: str, attribute: Any) -> dict[str, ConfigTree]:
    """Return an entry of a translation info's dictionary by the names of knobs."""
    if name == attribute_names.LLVM_ATTRIBUTES:
        others = {entry.name: _tree(entry.attr) for entry in ir.DictAttr(attribute)}
        waves = others.pop(attribute_names.WAVES_ATTRIBUTE, "")
        options: dict[str, ConfigTree] = {name: others} if others else {}
        return options | ({WAVES_PER_EU: int(waves)} if isinstance(waves, str) and waves.isdecimal() else {})
    if name == attribute_names.DENORMALS:
        for flushed in (False, True):
            if attribute == ir.Attribute.parse(attribute_names.denormals(flushed=flushed)):
                return {FLUSH_DENORMALS: int(flushed)}
    return {name: _tree(attribute)}


def _tree(attribute: Any) -> Any:
    """Return an attribute as plain data, with its knobs."""
    if (name := knob_name(attribute)) is not None:
        options = getattr(attribute, "options", None)
        return _IntKnob(name) if options is None else _OneOfKnob(name, [_tree(option) for option in options])
    match attribute:
        case ir.DictAttr():
            return {entry.name: _tree(entry.attr) for entry in attribute}
        case ir.ArrayAttr() | ir.DenseI64ArrayAttr():
            return [part if isinstance(part, int) else _tree(part) for part in attribute]
        case iree_gpu.LoweringConfigAttr():
            return _tree(attribute.attributes)
        case iree_gpu.PipelineOptionsAttr():
            given = {name: getattr(attribute, name) for name in GPU_OPTION_FIELDS}
            return {
                name: int(value) if isinstance(value, int) else str(value)
                for name, value in given.items()
                if value is not None
            }
        case ir.BoolAttr() | ir.IntegerAttr():
            return int(attribute.value)
        case ir.StringAttr():
            return str(attribute.value)
        case ir.UnitAttr():
            return 1
    return str(attribute)
