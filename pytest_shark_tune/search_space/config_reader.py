"""Reading configs: the knobs of a space that a compilation info was made with.

A space's knob dictionary is what a config looks like with knobs left in it. A compilation info is brought into the
same shape, and the two are walked side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, iree_gpu

from pytest_shark_tune.dispatch.mlir import pipeline_name
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space.attribute_names import (
    DENORMALS,
    GPU_OPTIONS,
    LLVM_ATTRIBUTES,
    WAVES_ATTRIBUTE,
    denormals,
)
from pytest_shark_tune.search_space.pipeline_options import (
    FLUSH_DENORMALS,
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
    "read_config",
    "read_knobs",
    "space_entries",
    "without_entry",
]

ConfigTree: TypeAlias = int | str | list["ConfigTree"] | dict[str, "ConfigTree"]
"""An attribute as plain data: truths are 1 and 0, and what is no number, array or dictionary is its text."""

_OPTIONS_READ = ("use_igemm_convolution", "reorder_workgroups_strategy", PREFETCH_STAGES, NO_REDUCE_BANK_CONFLICTS)


class ReadConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A compilation info as plain data.

    ``pipeline`` is its name without a dialect. ``tree`` has the entries of the lowering config and, beside them,
    ``workgroup_size``, ``subgroup_size`` and the entries of the translation info's dictionary: the shape of a
    knob dictionary. Options that can be knobs (``waves_per_eu``, ``flush_denormals``) stand at the top, by their names.
    """

    pipeline: str
    tree: dict[str, ConfigTree]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a space finds of its knobs in a config, and in what else the config is none of the space's, in words."""

    knobs: dict[str, int]
    differences: tuple[str, ...] = ()


class _IntKnob(msgspec.Struct, frozen=True):
    name: str


class _OneOfKnob(msgspec.Struct, frozen=True):
    name: str
    choices: list[ConfigTree]


_Template: TypeAlias = Any
"""A `ConfigTree` with knobs in it."""


def knobs_of(space: SearchSpace, compilation_info: str) -> dict[str, int] | str:
    """The knobs for which ``space`` makes this very compilation info, or why there are none, in words.

    The knobs need not be a member: ``space.violated`` says what they violate. Knobs that change nothing in the
    attribute take the value that the space has for "off".

    Raises:
        InputError: the text is no compilation info that this IREE parses.
    """
    config = read_config(compilation_info)
    if config.pipeline != space.pipeline:
        return f"its pipeline is {config.pipeline}, and the space's is {space.pipeline}"
    reading = read_knobs(space, config)
    return "; ".join(reading.differences) or reading.knobs


def read_config(compilation_info: str) -> ReadConfig:
    """A compilation info's text as plain data.

    Raises:
        InputError: the text is no compilation info that this IREE parses.
    """
    if not compilation_info:
        raise InputError("not a compilation_info: the text is empty")  # IREE would crash on it
    with ir.Context() as context:
        context.enable_multithreading(False)
        try:
            info = iree_codegen.CompilationInfoAttr(ir.Attribute.parse(compilation_info))
        except (ir.MLIRError, ValueError) as error:
            raise InputError(f"not a compilation_info that this IREE parses: {compilation_info}: {error}") from error
        translation = info.translation_info
        tree = _levels(info.lowering_config)
        if sizes := list(translation.workgroup_size):
            tree["workgroup_size"] = sizes
        if translation.subgroup_size:
            tree["subgroup_size"] = translation.subgroup_size
        for entry in translation.configuration or ():
            tree.update(_option(entry.name, entry.attr))
        return ReadConfig(pipeline=pipeline_name(translation.pass_pipeline), tree=tree)


def read_knobs(space: SearchSpace, config: ReadConfig) -> Reading:
    """The knobs of ``space`` as far as ``config``, which is of its pipeline, has them.

    A knob that the config contradicts itself about, or has no value of, is missing, and is told as a difference.
    """
    found: dict[str, int] = {}
    differences: list[str] = []
    absent: dict[str, str] = {}
    for path, problem in _differences(_template(space), config.tree, "", found, absent):
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
    """The pipeline options of a config that are not off, as ``--tune-knob`` names them."""
    options = config.tree.get(GPU_OPTIONS, {})
    assert isinstance(options, dict)
    everything = {**options, **config.tree}
    names = (PREFETCH_STAGES, NO_REDUCE_BANK_CONFLICTS, WAVES_PER_EU, FLUSH_DENORMALS)
    values = {name: everything.get(name) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, int) and value}


def config_entries(config: str) -> tuple[str, ...]:
    """The names of a lowering config's entries; ``config`` is its text, as a `Candidate` has it, or nothing.

    Raises:
        InputError: the text has another form than lowering configs of this IREE have.
    """
    if not config:
        return ()
    with ir.Context():
        return tuple(_levels(ir.Attribute.parse(config)))


def space_entries(space: SearchSpace) -> tuple[str, ...]:
    """The names of the entries that lowering configs of a space may have."""
    with ir.Context():
        return tuple(entry.name for entry in ir.DictAttr(ir.Attribute.parse(space.knob_dictionary)))


def without_entry(compilation_info: str, name: str) -> str:
    """The same compilation info with the entry of that name taken out of its lowering config."""
    with ir.Context():
        info = iree_codegen.CompilationInfoAttr(ir.Attribute.parse(compilation_info))
        kept = ir.DictAttr.get({key: value for key, value in _entries(info.lowering_config).items() if key != name})
        if isinstance(info.lowering_config, iree_gpu.LoweringConfigAttr):
            config = iree_gpu.LoweringConfigAttr.get(kept)
        else:
            # The way back from what `_entries` did.
            head = str(info.lowering_config).partition("<")[0]
            config = ir.Attribute.parse(f"{head}<{str(kept)[1:-1]}>")
        return str(iree_codegen.CompilationInfoAttr.get(config, info.translation_info))


def _differences(
    template: _Template, given: ConfigTree | None, path: str, found: dict[str, int], absent: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Fill ``found`` with the knobs in ``template`` as ``given`` has them; yield where the two differ, and how.

    ``absent`` gets the knobs that ``given`` has no place for, with that place.
    """
    match template:
        case _IntKnob(name):
            if given is None:
                absent[name] = path
            elif isinstance(given, int):
                yield from _set_knob(name, given, path, found)
            else:
                yield path, f"is {_shown(given)}, which is no whole number"
        case _OneOfKnob(name, choices):
            positions = [index for index, choice in enumerate(choices) if _is_same(choice, given)]
            if positions:
                yield from _set_knob(name, positions[0], path, found)
            else:
                yield path, f"is {_shown(given)}, which is none of {', '.join(map(_shown, choices))}"
        case dict():
            entries = {} if given is None else given
            if not isinstance(entries, dict):
                yield path, f"is {_shown(given)}, which is no dictionary"
                return
            for name, part in template.items():
                yield from _differences(part, entries.get(name), _path_to(path, name), found, absent)
            for name, part in entries.items():
                if name not in template and not _is_off(part):
                    yield _path_to(path, name), f"is {_shown(part)}, and the space has no such entry"
        case list():
            parts: Sequence[ConfigTree | None] = [None] * len(template)
            if given is not None:
                if not isinstance(given, list) or len(given) != len(template):
                    yield path, f"is {_shown(given)}, and the space has {len(template)} entries there"
                    return
                parts = given
            for index, (part, entry) in enumerate(zip(template, parts, strict=True)):
                yield from _differences(part, entry, f"{path}[{index}]", found, absent)
        case _:
            if not _is_same(template, given):
                yield path, f"is {_shown(given)}, and in the space always {_shown(template)}"


def _set_knob(name: str, value: int, path: str, found: dict[str, int]) -> Iterator[tuple[str, str]]:
    if found.setdefault(name, value) != value:
        yield path, f"makes the knob {name} {value}, and elsewhere it is {found[name]}"


def _is_same(choice: ConfigTree, given: ConfigTree | None) -> bool:
    """Whether the two are equal; what is left out is off."""
    return _is_off(choice) if given is None else choice == given or (_is_off(choice) and _is_off(given))


def _is_off(tree: ConfigTree) -> bool:
    if isinstance(tree, dict):
        return all(map(_is_off, tree.values()))
    return all(map(_is_off, tree)) if isinstance(tree, list) else not tree


def _path_to(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(tree: ConfigTree | None) -> str:
    if isinstance(tree, dict):
        return f"{{{', '.join(f'{name} = {_shown(part)}' for name, part in tree.items())}}}"
    if isinstance(tree, list):
        return f"[{', '.join(map(_shown, tree))}]"
    return "missing" if tree is None else str(tree)


def _template(space: SearchSpace) -> dict[str, _Template]:
    """The knob dictionary, with the knobs of pipeline options where those options are written."""
    with ir.Context() as context:
        context.enable_multithreading(False)
        template: dict[str, _Template] = _tree(ir.Attribute.parse(space.knob_dictionary))
    for name in space.names:
        if name in (PREFETCH_STAGES, NO_REDUCE_BANK_CONFLICTS):
            template.setdefault(GPU_OPTIONS, {})[name] = _IntKnob(name)
        elif name in (WAVES_PER_EU, FLUSH_DENORMALS):
            template[name] = _IntKnob(name)
    return template


def _levels(config: Any) -> dict[str, ConfigTree]:
    return {name: _tree(attribute) for name, attribute in _entries(config).items()}


def _entries(config: Any) -> dict[str, Any]:
    """The entries of a lowering config.

    Those of CPUs and of SPIR-V have no bindings. Inside their brackets stands what stands in a dictionary's braces, so
    their printed form is parsed as one: here, and nowhere else.
    """
    if isinstance(config, iree_gpu.LoweringConfigAttr):
        return {entry.name: entry.attr for entry in config.attributes}
    inner = str(config).partition("<")[2].removesuffix(">")
    try:
        return {entry.name: entry.attr for entry in ir.DictAttr(ir.Attribute.parse(f"{{{inner}}}"))}
    except ir.MLIRError as error:
        raise InputError(f"the lowering config {config} has a form that is not read: {error}") from error


def _option(name: str, attribute: Any) -> dict[str, ConfigTree]:
    """An entry of a translation info's dictionary, by the names that knobs have."""
    if name == LLVM_ATTRIBUTES:
        others = {entry.name: _tree(entry.attr) for entry in ir.DictAttr(attribute)}
        waves = others.pop(WAVES_ATTRIBUTE, "")
        options: dict[str, ConfigTree] = {name: others} if others else {}
        return options | ({WAVES_PER_EU: int(waves)} if isinstance(waves, str) and waves.isdecimal() else {})
    if name == DENORMALS:
        for flushed in (False, True):
            if attribute == ir.Attribute.parse(denormals(flushed=flushed)):
                return {FLUSH_DENORMALS: int(flushed)}
    return {name: _tree(attribute)}


def _tree(attribute: Any) -> Any:
    """An attribute as plain data, with knobs where it has them."""
    match attribute:
        case iree_codegen.IntKnobAttr():
            return _IntKnob(attribute.name)
        case iree_codegen.OneOfKnobAttr():
            return _OneOfKnob(attribute.name, [_tree(each) for each in attribute.options])
        case ir.DictAttr():
            return {entry.name: _tree(entry.attr) for entry in attribute}
        case ir.ArrayAttr() | ir.DenseI64ArrayAttr():
            return [each if isinstance(each, int) else _tree(each) for each in attribute]
        case iree_gpu.LoweringConfigAttr():
            return _tree(attribute.attributes)
        case iree_gpu.PipelineOptionsAttr():
            given = {name: getattr(attribute, name) for name in _OPTIONS_READ}
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
