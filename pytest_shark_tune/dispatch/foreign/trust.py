"""The parts of a tuning spec that the compiler may interpret, regardless of the spec's origin.

A spec is a program in the transform dialect, and the compiler runs it with the user's rights: an op may apply any pass
of the compiler's library, and a config may name a pipeline of passes. Some passes start commands and write files. A
foreign spec is data, so it may hold only the content that matchers and annotations need: the ops, the kinds of
attributes and the passes listed here and in `passes`. Everything else is refused before anything interprets it.

The check runs where specs are parsed (`spec.module`) and where they are applied (`compiler.configure`), so that no
command can omit it. `trusting_specs` disables it for this process, as ``--tune-trust-spec`` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, iree_gpu

from pytest_shark_tune.dispatch.foreign.nesting import why_too_deep
from pytest_shark_tune.dispatch.foreign.passes import why_not_plain
from pytest_shark_tune.dispatch.mlir import parse_module, string_of, walk
from pytest_shark_tune.dispatch.text_pipelines import TEXT_PREFIX
from pytest_shark_tune.errors import SpecRefused

__all__ = [
    "Refusal",
    "check_attribute",
    "check_depth",
    "check_pattern",
    "check_source",
    "check_spec",
    "drop_prints",
    "refusals_in",
    "trusting_specs",
    "trusts_specs",
]

_OPS = frozenset(
    {
        "builtin.module",
        "transform.annotate",
        "transform.cast",
        "transform.collect_matching",
        "transform.foreach",
        "transform.foreach_match",
        "transform.get_consumers_of_result",
        "transform.get_defining_op",
        "transform.get_operand",
        "transform.get_parent_op",
        "transform.get_producer_of_operand",
        "transform.get_result",
        "transform.get_type",
        "transform.include",
        "transform.merge_handles",
        "transform.named_sequence",
        "transform.num_associations",
        "transform.param.constant",
        "transform.replicate",
        "transform.select",
        "transform.sequence",
        "transform.split_handle",
        "transform.structured.match",
        "transform.verify",
        "transform.yield",
    }
)
_MATCHER_PREFIXES = ("transform.match.", "transform.iree.match.")
"""Prefixes of the names of ops that only inspect an op."""
_PRINTS = frozenset({"transform.print"})
_PATTERN_HOLDERS = frozenset({"transform.iree.match.cast_compatible_dag_from_root", "transform.iree.match.regions"})
"""Matchers with a pattern as their region: ops to compare with, which nothing interprets."""
_PATTERN_DIALECTS = frozenset(
    {
        "affine",
        "arith",
        "complex",
        "index",
        "iree_encoding",
        "iree_linalg_ext",
        "iree_tensor_ext",
        "linalg",
        "math",
        "scf",
        "tensor",
        "ub",
        "vector",
    }
)
_PATTERN_FRAME = frozenset({"builtin.module", "func.func", "func.return", "transform.yield"})
_ANNOTATIONS = frozenset({"compilation_info", "decomposition_config", "lowering_config", "translation_info"})
"""The attributes that a spec may write on an op with a value. An attribute without a value may have any name.

The compiler finds object files to link, and specs to interpret after this one, in attributes with other names.
"""
_OWN = "shark_tune."
"""The prefix of our own attributes."""
_NAMED_PIPELINES = getattr(iree_codegen, "DispatchLoweringPassPipelineAttr", ())
"""The pipelines by name of releases before 3.12. The text of one names no kind of attribute."""
_LEAVES = frozenset(
    {
        "#arith.fastmath",
        "#arith.overflow",
        "#complex.number",
        "#iree_codegen.denormal_fp_math",
        "#iree_codegen.local_mapping",
        "#iree_codegen.lowering_config",
        "#iree_codegen.no_pipeline",
        "#iree_codegen.root_op",
        "#iree_codegen.rotate_rows",
        "#iree_codegen.ukernel_descriptor",
        "#iree_codegen.vmvx_pipeline",
        "#iree_codegen.workgroup_mapping",
        "#iree_codegen.xor_shuffle",
        "#iree_cpu.data_tiled_mma_layout",
        "#iree_cpu.mma_semantics",
        "#iree_cpu.pipeline",
        "#iree_gpu.data_tiled_mma_layout",
        "#iree_gpu.data_tiled_scaled_mma_layout",
        "#iree_gpu.derived_thread_config",
        "#iree_gpu.lane_id",
        "#iree_gpu.mma_layout",
        "#iree_gpu.mma_semantics",
        "#iree_gpu.pipeline",
        "#iree_gpu.pipeline_options",
        "#iree_gpu.scaled_mma_layout",
        "#iree_gpu.spirv_pipeline",
        "#iree_gpu.use_global_load_dma",
        "#iree_gpu.virtual_mma_layout",
    }
)
"""Kinds of attributes that hold numbers and words from fixed sets, and no other attributes."""
_LEAF_DIALECTS = ("#iree_encoding.", "#iree_linalg_ext.", "#linalg.", "#vector.")
_ATTRIBUTE_INSIDE = frozenset({"#iree_gpu.promote_with_cache_swizzle"})
_DICTIONARY_INSIDE = frozenset({"#iree_cpu.lowering_config", "#iree_gpu.swizzle_operand"})
"""Kinds without bindings: their brackets enclose one attribute, or the content of a dictionary."""
_RUN_BY_COMPILER = (
    "#hal.executable.object",
    "#iree_codegen.transform_dialect_codegen",
    "#util.preprocessing_pipeline",
)
"""Prefixes of kinds of attributes that let the compiler interpret, or link, more than its input."""
_BAKED_IN = "iree_codegen.tuning_spec"
"""The prefix of attributes that hold a spec for the compiler to interpret."""
_MOST_LISTED = 3
_trusting = 0


class Refusal(msgspec.Struct, frozen=True):
    """One thing that a spec may not hold."""

    description: str
    sequence: str = ""
    """The named sequence around it, if any."""

    def __str__(self) -> str:
        return f"{self.description} in @{self.sequence}" if self.sequence else self.description


@contextmanager
def trusting_specs() -> Iterator[None]:
    """Refuse nothing in this process until the context ends: the user vouches for the specs."""
    global _trusting  # noqa: PLW0603 - a setting of the process, like the user's rights that it is about
    _trusting += 1
    try:
        yield
    finally:
        _trusting -= 1


def trusts_specs() -> bool:
    """Return whether the user vouches for specs."""
    return _trusting > 0


def check_spec(module: ir.Module, name: str) -> None:
    """Make a parsed spec safe to interpret: remove ops that only print, and refuse content that no spec needs.

    Args:
        module: The spec. It is changed.
        name: What the message calls the spec.

    Raises:
        SpecRefused: The spec holds something that is not on the list. The message names it.
    """
    drop_prints(module)
    # Other checks report a module without transform ops, such as a model.
    if not trusts_specs() and any(op.name.startswith("transform.") for op in walk(module.operation)):
        _raise_refused(list(refusals_in(module.operation)), name)


def check_depth(text: str | bytes, name: str) -> None:
    """Refuse a text with such deep nesting that the parser, or a later walk, would exhaust the stack.

    Raises:
        SpecRefused: The nesting is too deep. The message calls the text ``name``.
    """
    if why := why_too_deep(text if isinstance(text, str) else text.decode(errors="replace")):
        raise SpecRefused(name, f"text that cannot be parsed safely ({why})")


def check_attribute(attribute: ir.Attribute, name: str) -> None:
    """Refuse an attribute, such as a config in a record, that holds more than a config needs.

    Raises:
        SpecRefused: The attribute holds something that is not on the list. The message calls it ``name``.
    """
    if not trusts_specs():
        _raise_refused([Refusal(description) for description in _objections(attribute)], name)


def check_pattern(module: ir.Module, name: str) -> None:
    """Refuse a recorded op, inside a function and a module, that holds more than a pattern needs.

    Raises:
        SpecRefused: The op holds something that is not on the list. The message calls it ``name``.
    """
    if not trusts_specs():
        _raise_refused(list(_refusals(module.operation, "", in_pattern=True)), name)


def check_source(text: str, name: str) -> None:
    """Refuse a source in a foreign file that makes the compiler do more than compile it.

    No source needs an embedded spec, a strategy, names of passes or files to link.

    Raises:
        InputError: The source does not parse here.
        SpecRefused: The source holds something of the kind. The message calls it ``name``.
    """
    if trusts_specs():
        return
    found: list[Refusal] = []
    with ir.Context() as context:
        context.enable_multithreading(False)
        context.allow_unregistered_dialects = True
        module = parse_module(text)  # The ops of a walk do not keep it alive.
        for op in walk(module.operation):
            if op.name.startswith(("transform.", "pdl.", "pdl_interp.")):
                found.append(Refusal(f"the op {op.name}"))
            for position in range(len(op.attributes)):
                named = op.attributes[position]
                if named.name.startswith(_BAKED_IN):
                    found.append(Refusal(f"the attribute {named.name}"))
                elif not isinstance(named.attr, _constant_kinds()):
                    found.extend(Refusal(description) for description in _run_by_compiler(named.attr))
    _raise_refused(found, name)


def _run_by_compiler(attribute: ir.Attribute) -> Iterator[str]:
    """Return a description of everything in an attribute of a source that the compiler would run or link."""
    kind = str(attribute).partition("<")[0]
    if kind.startswith(_RUN_BY_COMPILER):
        yield f"an attribute {kind}"
    elif kind.startswith(("#iree_codegen.", "#iree_cpu.", "#iree_gpu.")) or isinstance(attribute, ir.ArrayAttr):
        for inner in _parts_of(attribute) or ():
            if isinstance(inner, str):
                yield inner
            else:
                yield from _run_by_compiler(inner)
    elif isinstance(attribute, ir.DictAttr):
        for named in attribute:
            yield from [f"the attribute {named.name}"] if named.name.startswith(_BAKED_IN) else []
            yield from _run_by_compiler(named.attr)


def drop_prints(module: ir.Module) -> tuple[str, ...]:
    """Remove ops that only print, and return a message for every sequence that held one."""
    found = [(_sequence_around(op), op) for op in walk(module.operation) if op.name in _PRINTS]
    for _, op in found:
        op.erase()
    sequences = dict.fromkeys(sequence for sequence, _ in found)
    return tuple(f"transform.print in @{sequence} is left out: it only prints" for sequence in sequences)


def refusals_in(op: ir.Operation) -> Iterator[Refusal]:
    """Return everything inside a spec, or inside one of its sequences, that no spec needs."""
    return _refusals(op, "", in_pattern=False)


def _raise_refused(found: list[Refusal], name: str) -> None:
    if not found:
        return
    refusals = list(dict.fromkeys(map(str, found)))
    rest = f" and {len(refusals) - _MOST_LISTED} more" if len(refusals) > _MOST_LISTED else ""
    raise SpecRefused(name, f"{', '.join(refusals[:_MOST_LISTED])}{rest}")


def _refusals(op: ir.Operation, sequence: str, *, in_pattern: bool) -> Iterator[Refusal]:
    name = op.name
    if name == "transform.named_sequence":
        sequence = string_of(op, "sym_name")
    if in_pattern:
        is_known = name in _PATTERN_FRAME or name.partition(".")[0] in _PATTERN_DIALECTS
    else:
        is_known = name in _OPS or name.startswith(_MATCHER_PREFIXES)
    if not is_known:
        yield Refusal(f"the op {name}", sequence)
        return
    if name == "transform.annotate" and (objection := _annotation_objection(op)):
        yield Refusal(objection, sequence)
    for position in range(len(op.attributes)):
        for objection in _objections(op.attributes[position].attr, in_pattern=in_pattern):
            yield Refusal(objection, sequence)
    for region in op.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield from _refusals(inner.operation, sequence, in_pattern=in_pattern or name in _PATTERN_HOLDERS)


def _annotation_objection(op: ir.Operation) -> str:
    written = string_of(op, "name")
    has_value = len(op.operands) > 1
    if not has_value or written in _ANNOTATIONS or written.startswith(_OWN):
        return ""
    return f"an annotation named {written!r}"


def _sequence_around(op: ir.Operation) -> str:
    while op is not None and op.name != "transform.named_sequence":
        op = op.parent.operation if op.parent is not None else None
    return "" if op is None else string_of(op, "sym_name")


def _objections(attribute: ir.Attribute, *, in_pattern: bool = False) -> Iterator[str]:
    """Return a description of everything in an attribute that is not on the list."""
    if in_pattern and isinstance(attribute, _constant_kinds()):
        return
    if isinstance(attribute, _plain_kinds()):
        return
    inside = _parts_of(attribute)
    if inside is None:
        yield _kind_text(attribute)
        return
    for inner in inside:
        if isinstance(inner, str):
            yield inner
        else:
            yield from _objections(inner, in_pattern=in_pattern)


def _parts_of(attribute: ir.Attribute) -> list[ir.Attribute | str] | None:
    """Return the attributes in an attribute, and objections as text; ``None`` for kinds that are not on the list."""
    if isinstance(attribute, ir.DictAttr):
        return [named.attr for named in attribute]
    if isinstance(attribute, ir.ArrayAttr):
        return list(attribute)
    if isinstance(attribute, iree_codegen.CompilationInfoAttr):
        return [attribute.lowering_config, attribute.translation_info]
    if isinstance(attribute, iree_codegen.TranslationInfoAttr):
        return [part for part in (attribute.pass_pipeline, attribute.configuration) if part is not None]
    if isinstance(attribute, _NAMED_PIPELINES):
        return []
    if str(attribute).startswith(TEXT_PREFIX):
        refused = why_not_plain(str(attribute).removeprefix(TEXT_PREFIX).removesuffix('">'))
        return [f"{refused} in a pass_pipeline"] if refused else []
    if isinstance(attribute, iree_gpu.LoweringConfigAttr):
        return [attribute.attributes]
    kind, _, inner = str(attribute).partition("<")
    if kind in _LEAVES or kind.startswith(_LEAF_DIALECTS):
        return []
    if kind in _ATTRIBUTE_INSIDE | _DICTIONARY_INSIDE:
        inner = inner.removesuffix(">")
        try:
            return [ir.Attribute.parse(inner if kind in _ATTRIBUTE_INSIDE else f"{{{inner}}}")]
        except ir.MLIRError:
            return None
    return None


def _kind_text(attribute: ir.Attribute) -> str:
    kind = str(attribute).partition("<")[0] if not isinstance(attribute, _constant_kinds()) else ""
    return f"an attribute {kind}" if kind.startswith("#") else f"an attribute of the kind {type(attribute).__name__}"


@cache
def _plain_kinds() -> tuple[type, ...]:
    """Return MLIR's own kinds of attributes that hold no others."""
    # This is a function, since the module is also imported on machines without the compiler.
    return (
        ir.AffineMapAttr,
        ir.BoolAttr,
        ir.DenseBoolArrayAttr,
        ir.DenseF32ArrayAttr,
        ir.DenseF64ArrayAttr,
        ir.DenseI16ArrayAttr,
        ir.DenseI32ArrayAttr,
        ir.DenseI64ArrayAttr,
        ir.DenseI8ArrayAttr,
        ir.FlatSymbolRefAttr,
        ir.FloatAttr,
        ir.IntegerAttr,
        ir.StringAttr,
        ir.SymbolRefAttr,
        ir.TypeAttr,
        ir.UnitAttr,
    )


@cache
def _constant_kinds() -> tuple[type, ...]:
    """Return the kinds of attributes that hold a constant's data."""
    return (ir.DenseElementsAttr, ir.DenseIntElementsAttr, ir.DenseFPElementsAttr, ir.DenseResourceElementsAttr)
