"""The MLIR module of a spec: its named sequences, its pairs of matchers and actions, and their attributes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

from iree.compiler import ir
from iree.compiler.dialects import builtin, iree_codegen, iree_gpu, transform

from pytest_shark_tune.compiler.configure import error_text
from pytest_shark_tune.dispatch.foreign.trust import check_attribute, check_depth, check_spec
from pytest_shark_tune.dispatch.mlir import ops_named, string_of
from pytest_shark_tune.errors import InputError, SpecNotParsed
from pytest_shark_tune.search_space.attribute_names import DECOMPOSITION, FUSED
from pytest_shark_tune.search_space.config_writer import with_decomposition

__all__ = [
    "DEFAULT_FORM_MARK",
    "ENTRYPOINT",
    "ENTRYPOINT_MARK",
    "PROVENANCE",
    "Provenance",
    "add_entrypoint",
    "decomposition_of",
    "empty_spec",
    "fused_configs_of",
    "holds_sequences",
    "include_decompositions",
    "keep_pairs",
    "match_pairs",
    "matcher_name",
    "named_sequences",
    "needed_sequences",
    "parse_compilation_info",
    "parse_spec",
    "parse_unchecked",
    "provenance_of",
    "rename_sequence",
    "set_pairs",
    "set_provenance",
    "spec_text",
    "symbol_array",
    "unique_name",
    "written_constant",
    "yielded_constants",
]

Provenance: TypeAlias = dict[str, str | int | float]
"""The origin of an entry (device, speedup, version of IREE), as plain data."""

PROVENANCE = "shark_tune.provenance"
"""The attribute of a matcher that holds its provenance."""

ENTRYPOINT = "__kernel_config"
"""The name that IREE requires of the entrypoint of a spec in the default form."""

ENTRYPOINT_MARK = "iree_codegen.tuning_spec_entrypoint"
DEFAULT_FORM_MARK = "iree_codegen.tuning_spec_with_default_entrypoint"

_SEQUENCES_MARK = "transform.with_named_sequence"

_LONGEST_LINE = 300
"""Error messages show at most this much of a line that does not parse: a pattern's constants may take megabytes."""


def decomposition_of(compilation_info: ir.Attribute) -> ir.Attribute | None:
    """Return how both products of an attention are computed, or ``None`` for other ops.

    IREE takes this from an attribute beside the config. A compilation info holds it inside its lowering config, so
    that one text describes a candidate completely.
    """
    config = iree_codegen.CompilationInfoAttr(compilation_info).lowering_config
    attributes = getattr(config, "attributes", None)
    return attributes[DECOMPOSITION] if attributes is not None and DECOMPOSITION in attributes else None


def fused_configs_of(compilation_info: ir.Attribute) -> dict[str, ir.Attribute]:
    """Return the lowering configs of the other ops of a dispatch by the path from the root op.

    IREE takes them from those ops. A compilation info holds them inside its lowering config, as it does decompositions.
    """
    attributes = getattr(iree_codegen.CompilationInfoAttr(compilation_info).lowering_config, "attributes", None)
    if attributes is None or FUSED not in attributes:
        return {}
    held = attributes[FUSED]
    if not isinstance(held, ir.DictAttr) or not all(isinstance(each.attr, ir.DictAttr) for each in held):
        raise InputError(f"{FUSED} holds a dictionary for each path, not {held}")
    return {each.name: iree_gpu.LoweringConfigAttr.get(each.attr) for each in held}


def keep_pairs(module: ir.Module, pairs: Sequence[tuple[str, str]]) -> None:
    """Remove all other matchers and actions from a spec, and the sequences that only they need."""
    set_pairs(module, pairs)
    needed = needed_sequences(module, {name for pair in pairs for name in pair} | {ENTRYPOINT})
    for name, sequence in named_sequences(module).items():
        if name not in needed:
            sequence.erase()


def needed_sequences(module: ir.Module, names: Collection[str]) -> set[str]:
    """Return ``names`` and the names of all sequences that these include, directly or not."""
    sequences = named_sequences(module)
    needed = set(names)
    while wanted := {name for sequence in needed for name in _includes(sequences[sequence])} - needed:
        needed |= wanted
    return needed


def written_constant(matcher: ir.Operation, action: ir.Operation, attribute: str) -> ir.Operation | None:
    """Return the constant that an entry writes as an attribute of this name, if its ops show it.

    The matcher passes it to the action, or it stands in the action itself.
    """
    for annotation in ops_named(action, "transform.annotate"):
        if string_of(annotation, "name") != attribute or len(annotation.operands) < 2:
            continue
        value = annotation.operands[1]
        if isinstance(value.owner, ir.Block):
            passed = matcher.regions[0].blocks[0].operations[-1].operation.operands
            number = ir.BlockArgument(value).arg_number
            value = passed[number] if number < len(passed) else value
        if not isinstance(value.owner, ir.Block) and value.owner.operation.name == "transform.param.constant":
            return value.owner.operation
    return None


def include_decompositions(module: ir.Module) -> None:
    """Let the configs of a spec in the default form hold the decompositions that their entries write beside them.

    Our own specs have them in both places (`decomposition_of`). IREE reads them from beside the config alone.
    """
    sequences = named_sequences(module)
    for matcher, action in match_pairs(module):
        info, decomposition = (
            written_constant(sequences[matcher], sequences[action], name)
            for name in ("compilation_info", DECOMPOSITION)
        )
        if info is None or decomposition is None or info.parent.operation != decomposition.parent.operation:
            continue
        config, part = info.attributes["value"], decomposition.attributes["value"]
        if (
            isinstance(config, iree_codegen.CompilationInfoAttr)
            and isinstance(config.lowering_config, iree_gpu.LoweringConfigAttr)
            and isinstance(part, ir.DictAttr)
        ):
            info.attributes["value"] = with_decomposition(config, part)


def yielded_constants(matcher: ir.Operation) -> list[ir.Operation]:
    """Return the constants that a matcher passes to its action."""
    return [
        value.owner.operation
        for op in matcher.regions[0].blocks[0].operations
        if op.operation.name == "transform.yield"
        for value in op.operation.operands
        if not isinstance(value.owner, ir.Block) and value.owner.operation.name == "transform.param.constant"
    ]


def _includes(sequence: ir.Operation) -> set[str]:
    """Return the names of the sequences that ``sequence`` includes."""
    return {
        name
        for include in ops_named(sequence, "transform.include")
        for name in ir.SymbolRefAttr(include.attributes["target"]).value
    }


def rename_sequence(sequence: ir.Operation, name: str, module: ir.Operation) -> None:
    """Rename a sequence and all uses of its name in ``module``."""
    old = string_of(sequence, "sym_name")
    if old != name:
        ir.SymbolTable.replace_all_symbol_uses(old, name, module)
        ir.SymbolTable.set_symbol_name(sequence, name)


def provenance_of(matcher: ir.Operation) -> Provenance:
    """Return the provenance of a matcher, empty if it has none. Values of other types than ours are left out."""
    if PROVENANCE not in matcher.attributes:
        return {}
    held = matcher.attributes[PROVENANCE]
    kinds = ir.StringAttr | ir.IntegerAttr | ir.FloatAttr
    named = [entry for entry in held if isinstance(entry.attr, kinds)] if isinstance(held, ir.DictAttr) else []
    return {entry.name: entry.attr.value for entry in named}


def set_provenance(matcher: ir.Operation, provenance: Provenance) -> None:
    """Write a provenance on a matcher."""

    def attribute(value: str | int | float) -> ir.Attribute:
        if isinstance(value, str):
            return ir.StringAttr.get(value)
        if isinstance(value, int):
            return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)
        return ir.FloatAttr.get_f64(value)

    matcher.attributes[PROVENANCE] = ir.DictAttr.get({name: attribute(value) for name, value in provenance.items()})


def named_sequences(module: ir.Module) -> dict[str, ir.Operation]:
    """Return the named sequences of a spec by name."""
    return {
        string_of(op.operation, "sym_name"): op.operation
        for op in module.body.operations
        if op.operation.name == "transform.named_sequence"
    }


def match_pairs(module: ir.Module) -> list[tuple[str, str]]:
    """Return the matchers of a spec in the default form in order, each with its action; none if it is empty."""
    foreach = _foreach_match(module)
    if foreach is None:
        return []
    matchers, actions = (ir.ArrayAttr(foreach.attributes[name]) for name in ("matchers", "actions"))
    return [
        (ir.FlatSymbolRefAttr(matcher).value, ir.FlatSymbolRefAttr(action).value)
        for matcher, action in zip(matchers, actions, strict=True)
    ]


def set_pairs(module: ir.Module, pairs: Sequence[tuple[str, str]]) -> None:
    """Replace the matchers and actions of a spec in the default form."""
    foreach = _foreach_match(module)
    if pairs and foreach is not None:
        foreach.attributes["matchers"] = symbol_array([matcher for matcher, _ in pairs])
        foreach.attributes["actions"] = symbol_array([action for _, action in pairs])
    elif pairs or foreach is not None:
        named_sequences(module)[ENTRYPOINT].erase()
        add_entrypoint(module, pairs)


def _foreach_match(module: ir.Module) -> ir.Operation | None:
    op = named_sequences(module)[ENTRYPOINT].regions[0].blocks[0].operations[0].operation
    return op if op.name == "transform.foreach_match" else None


def add_entrypoint(module: ir.Module, pairs: Sequence[tuple[str, str]]) -> None:
    """Add the entrypoint of the default form to a module with these matchers and actions.

    IREE calls a spec's form "with default entrypoint" if it has one entry or more, so an empty spec is not marked.
    """
    unit, any_op = ir.UnitAttr.get(), transform.AnyOpType.get()
    module.operation.attributes[_SEQUENCES_MARK] = unit
    if pairs:
        module.operation.attributes[DEFAULT_FORM_MARK] = unit
    elif DEFAULT_FORM_MARK in module.operation.attributes:
        del module.operation.attributes[DEFAULT_FORM_MARK]
    with ir.InsertionPoint(module.body):
        argument = {"transform.consumed" if pairs else "transform.readonly": unit}
        entrypoint = transform.named_sequence(ENTRYPOINT, [any_op], [any_op], arg_attrs=[argument])
    entrypoint.operation.attributes[ENTRYPOINT_MARK] = unit
    with ir.InsertionPoint(entrypoint.body):
        result = entrypoint.bodyTarget
        if pairs:
            names = (symbol_array([pair[place] for pair in pairs]) for place in (0, 1))
            result = transform.ForeachMatchOp(any_op, [], result, [], *names)
        transform.yield_([result])


def empty_spec(name: str = "shark_tune_spec", *, into: ir.Module | None = None) -> ir.Module:
    """Return an empty module that may hold named sequences, nested in ``into`` if that is given."""
    if into is None:
        module = ir.Module.create()
    else:
        with ir.InsertionPoint(into.body):
            module = builtin.ModuleOp()
    module.operation.attributes["sym_name"] = ir.StringAttr.get(name)
    module.operation.attributes[_SEQUENCES_MARK] = ir.UnitAttr.get()
    return module


def holds_sequences(module: ir.Module) -> bool:
    """Return whether a module may hold named sequences. Any spec may, even an empty one."""
    return _SEQUENCES_MARK in module.operation.attributes


def spec_text(module: ir.Module) -> str:
    """Return the text of a spec as it is written to a file."""
    return f"{str(module).rstrip()}\n"


def parse_spec(text: str, name: str) -> ir.Module:
    """Parse a spec and refuse content that must not be interpreted.

    Every function in this package that interprets a spec parses it here.

    Args:
        text: The text of the spec.
        name: What messages call the spec.

    Raises:
        SpecNotParsed: This IREE does not parse the text.
        SpecRefused: The spec holds something that no spec needs.
    """
    module = parse_unchecked(text, name)
    check_spec(module, name)
    return module


def parse_unchecked(text: str, name: str) -> ir.Module:
    """Parse a spec that nothing will interpret.

    Raises:
        SpecNotParsed: This IREE does not parse the text.
        SpecRefused: The text is nested too deeply to be parsed safely.
    """
    check_depth(text, name)
    try:
        return ir.Module.parse(text)
    except ir.MLIRError as error:
        raise SpecNotParsed(
            f"{name} is not MLIR that this IREE parses: {error_text(error)}{_failing_line(error, text)}"
        ) from error


def _failing_line(error: ir.MLIRError, text: str) -> str:
    """Return the line of ``text`` at which the parser stopped. The parser's message does not quote it."""
    if not error.error_diagnostics:
        return ""
    # The bindings give a location only as text: loc("-":12:7).
    number = str(error.error_diagnostics[0].location).removesuffix(")").split(":")[-2:-1]
    lines = text.splitlines()
    if not number or not number[0].isdecimal() or not 0 < int(number[0]) <= len(lines):
        return ""
    return f", in {lines[int(number[0]) - 1].strip()[:_LONGEST_LINE]}"


def parse_compilation_info(text: str, name: str) -> ir.Attribute:
    """Parse the config of an entry.

    Args:
        text: The text of a ``compilation_info`` attribute.
        name: What messages call the config.

    Raises:
        InputError: The text is no ``compilation_info`` that this IREE parses.
        SpecRefused: The attribute holds more than a config needs.
    """
    if not text:
        raise InputError("not an attribute that this IREE parses: the text is empty")  # IREE would crash on it.
    check_depth(text, "the config")
    try:
        attribute = ir.Attribute.parse(text)
    except ir.MLIRError as error:
        raise InputError(f"not an attribute that this IREE parses: {text}: {error_text(error)}") from error
    if not isinstance(attribute, iree_codegen.CompilationInfoAttr):
        raise InputError(f"not a compilation_info: {text}")
    check_attribute(attribute, name)
    return attribute


def symbol_array(names: Sequence[str]) -> ir.ArrayAttr:
    """Return an array of references to symbols."""
    return ir.ArrayAttr.get([ir.FlatSymbolRefAttr.get(name) for name in names])


def matcher_name(dispatch: str) -> str:
    """Return the name of the matcher for a dispatch: letters, digits and underscores, so that no tool quotes it."""
    return "match_" + "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in dispatch)


def unique_name(name: str, used: Iterable[str]) -> str:
    """Return ``name``, with a number at its end if ``used`` contains it."""
    taken = set(used)
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
