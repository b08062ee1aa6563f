"""The module of a spec: its sequences, its matchers and their attributes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from iree.compiler import ir
from iree.compiler.dialects import builtin, iree_codegen

from pytest_shark_tune.compiler.configure import error_text
from pytest_shark_tune.dispatch.mlir import ops_named
from pytest_shark_tune.dispatch.trust import check_attribute, check_depth, check_spec
from pytest_shark_tune.errors import InputError, SpecNotParsed

__all__ = ["PROVENANCE", "Provenance", "matcher_name"]


Provenance = dict[str, str | int | float]


_NAME = "shark_tune_spec"


_DECOMPOSITION = "decomposition_config"


_ENTRYPOINT = "__kernel_config"


_IS_ENTRYPOINT = "iree_codegen.tuning_spec_entrypoint"


_IS_DEFAULT_FORM = "iree_codegen.tuning_spec_with_default_entrypoint"


_HAS_SEQUENCES = "transform.with_named_sequence"


PROVENANCE = "shark_tune.provenance"


_LONGEST_LINE = 300
"""So much of a line that does not parse is shown: a pattern's constants may take megabytes."""


_LINK = "builtin.module(iree-codegen-link-tuning-specs)"


def _decomposition(compilation_info: ir.Attribute) -> ir.Attribute | None:
    """How an attention's two products are made, which IREE takes from an attribute beside the config.

    A compilation info holds it inside its lowering config, so that one text says all of a candidate.
    """
    config = iree_codegen.CompilationInfoAttr(compilation_info).lowering_config
    attributes = getattr(config, "attributes", None)
    return attributes[_DECOMPOSITION] if attributes is not None and _DECOMPOSITION in attributes else None


def _keep_pairs(module: ir.Module, pairs: Sequence[tuple[str, str]]) -> None:
    """Leave only these matchers and actions in a spec, and the sequences that they need."""
    _set_pairs(module, pairs)
    needed = _needed(module, {name for pair in pairs for name in pair} | {_ENTRYPOINT})
    for name, sequence in _sequences(module).items():
        if name not in needed:
            sequence.erase()


def _needed(module: ir.Module, names: Collection[str]) -> set[str]:
    """The sequences of ``names``, and those that they include."""
    sequences = _sequences(module)
    needed = set(names)
    while wanted := {name for each in needed for name in _included(sequences[each])} - needed:
        needed |= wanted
    return needed


def _yielded(matcher: ir.Operation) -> list[ir.Operation]:
    """The constants that a matcher hands to its action."""
    return [
        value.owner.operation
        for op in matcher.regions[0].blocks[0].operations
        if op.operation.name == "transform.yield"
        for value in op.operation.operands
        if not isinstance(value.owner, ir.Block) and value.owner.operation.name == "transform.param.constant"
    ]


def _included(within: ir.Operation) -> set[str]:
    """The names of the sequences that are included somewhere in an op."""
    return {
        name
        for include in ops_named(within, "transform.include")
        for name in ir.SymbolRefAttr(include.attributes["target"]).value
    }


def _rename(sequence: ir.Operation, name: str, module: ir.Operation) -> None:
    old = _name(sequence)
    if old != name:
        ir.SymbolTable.replace_all_symbol_uses(old, name, module)
        ir.SymbolTable.set_symbol_name(sequence, name)


def _provenance(matcher: ir.Operation) -> Provenance:
    return _plain(matcher.attributes[PROVENANCE]) if PROVENANCE in matcher.attributes else {}


def _name(op: ir.Operation) -> str:
    return str(ir.StringAttr(op.attributes["sym_name"]).value)


def _sequences(module: ir.Module) -> dict[str, ir.Operation]:
    return {
        _name(op.operation): op.operation
        for op in module.body.operations
        if op.operation.name == "transform.named_sequence"
    }


def _foreach(module: ir.Module) -> ir.Operation:
    return _sequences(module)[_ENTRYPOINT].regions[0].blocks[0].operations[0].operation


def _pairs(module: ir.Module) -> list[tuple[str, str]]:
    """The matchers and actions of a spec in the default form, in order."""
    foreach = _foreach(module)
    matchers, actions = (ir.ArrayAttr(foreach.attributes[name]) for name in ("matchers", "actions"))
    return [
        (ir.FlatSymbolRefAttr(matcher).value, ir.FlatSymbolRefAttr(action).value)
        for matcher, action in zip(matchers, actions, strict=True)
    ]


def _set_pairs(module: ir.Module, pairs: Sequence[tuple[str, str]]) -> None:
    foreach = _foreach(module)
    foreach.attributes["matchers"] = _references([matcher for matcher, _ in pairs])
    foreach.attributes["actions"] = _references([action for _, action in pairs])


def _module(name: str, *, into: ir.Module | None = None) -> ir.Module:
    """Return an empty module that may hold named sequences, inside ``into`` if that is given."""
    if into is None:
        module = ir.Module.create()
    else:
        with ir.InsertionPoint(into.body):
            module = builtin.ModuleOp()
    module.operation.attributes["sym_name"] = ir.StringAttr.get(name)
    module.operation.attributes[_HAS_SEQUENCES] = ir.UnitAttr.get()
    return module


def _text(module: ir.Module) -> str:
    return f"{str(module).rstrip()}\n"


def _parse_spec(text: str, name: str) -> ir.Module:
    """Parse a spec and refuse what must not be interpreted in it: every function here gets its specs from this one."""
    module = _parsed(text, name)
    check_spec(module, name)
    return module


def _parsed(text: str, name: str) -> ir.Module:
    check_depth(text, name)
    try:
        return ir.Module.parse(text)
    except ir.MLIRError as error:
        raise SpecNotParsed(
            f"{name} is not MLIR that this IREE parses: {error_text(error)}{_line(error, text)}"
        ) from error


def _line(error: ir.MLIRError, text: str) -> str:
    """The line of ``text`` that the parser stopped at, which its message does not quote."""
    if not error.error_diagnostics:
        return ""
    # The bindings tell a place as text alone: loc("-":12:7).
    number = str(error.error_diagnostics[0].location).removesuffix(")").split(":")[-2:-1]
    lines = text.splitlines()
    if not number or not number[0].isdecimal() or not 0 < int(number[0]) <= len(lines):
        return ""
    return f", in {lines[int(number[0]) - 1].strip()[:_LONGEST_LINE]}"


def _attribute(text: str) -> ir.Attribute:
    if not text:
        raise InputError("not an attribute that this IREE parses: the text is empty")  # IREE would crash on it
    check_depth(text, "the config")
    try:
        return ir.Attribute.parse(text)
    except ir.MLIRError as error:
        raise InputError(f"not an attribute that this IREE parses: {text}: {error_text(error)}") from error


def _compilation_info(text: str, name: str = "the config") -> ir.Attribute:
    attribute = _attribute(text)
    if not _is_compilation_info(attribute):
        raise InputError(f"not a compilation_info: {text}")
    check_attribute(attribute, name)
    return attribute


def _is_compilation_info(attribute: ir.Attribute) -> bool:
    return bool(iree_codegen.CompilationInfoAttr.isinstance(attribute))


def _references(names: Sequence[str]) -> ir.ArrayAttr:
    return ir.ArrayAttr.get([ir.FlatSymbolRefAttr.get(name) for name in names])


def _dictionary(values: Mapping[str, str | int | float]) -> ir.DictAttr:
    def attribute(value: str | int | float) -> ir.Attribute:
        if isinstance(value, str):
            return ir.StringAttr.get(value)
        if isinstance(value, int):
            return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)
        return ir.FloatAttr.get_f64(value)

    return ir.DictAttr.get({name: attribute(value) for name, value in values.items()})


def _plain(dictionary: ir.DictAttr) -> Provenance:
    """Read back what ``_dictionary`` wrote."""
    return {named.name: named.attr.value for named in ir.DictAttr(dictionary)}


def matcher_name(name: str) -> str:
    """The matcher's name for a dispatch's: letters, digits and underscores, so that no tool has to quote it."""
    return "match_" + "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)


def _fresh(name: str, used: Iterable[str]) -> str:
    taken = set(used)
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
