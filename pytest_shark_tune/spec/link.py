"""Linking specs: several specs become one, in the form that IREE calls "with default entrypoint"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from iree.compiler import ir, passmanager

from pytest_shark_tune.compiler.configure import compiler_context, error_text
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.spec import module as spec_module
from pytest_shark_tune.spec.entrypoint import flatten

__all__ = ["SpecPart", "check_starter", "link_spec", "linked_spec", "merge_specs", "nest_starter", "to_default_form"]

_LINK = "builtin.module(iree-codegen-link-tuning-specs)"


class SpecPart(msgspec.Struct, frozen=True, kw_only=True):
    """The entries that one spec contributes to a merged spec."""

    text: str
    """The text of the spec."""
    entries: dict[str, str]
    """The matchers to take, each with the dispatch's name for its provenance, after which the matcher is renamed.

    An empty name leaves provenance and matcher unchanged, unless another part has a sequence of the matcher's name.
    """


def link_spec(text: str) -> str:
    """Link the specs that are nested in a module into one spec with one ``foreach_match``.

    Matchers keep the order of their modules, so the first module takes precedence.

    Args:
        text: The text of a module. A spec that is already linked is returned as IREE prints it.

    Returns:
        The text of the linked spec.

    Raises:
        InputError: The text is no tuning spec, or cannot be brought into the default form.
    """
    with compiler_context(keep=True):
        return spec_module.spec_text(linked_spec(text, "the spec"))


def merge_specs(parts: Sequence[SpecPart], order: Sequence[tuple[int, str]]) -> str:
    """Merge entries of several specs into one spec.

    If two parts share a name, the first part keeps it. Entries with equal actions share one action.

    Args:
        parts: The specs, each with the entries to take.
        order: The order in which entries are tried: the position of a part and the name of a matcher in it.

    Returns:
        The text of the merged spec. A single part that keeps all of its entries, in their order and under their
        names, is returned as `link_spec` prints it.

    Returns an empty spec if ``order`` is empty.

    Raises:
        InputError: A text is no tuning spec, or the specs cannot be linked.
    """
    with compiler_context(keep=True):
        if not order:
            module = spec_module.empty_spec()
            spec_module.add_entrypoint(module, [])
            return spec_module.spec_text(module)
        used: set[str] = set()
        names: dict[tuple[int, str], str] = {}
        modules: list[ir.Module] = []
        for number, part in enumerate(parts):
            if not part.entries:
                continue
            module = linked_spec(part.text, "the spec")
            spec_module.keep_pairs(
                module, [pair for pair in spec_module.match_pairs(module) if pair[0] in part.entries]
            )
            renamed = _name_entries(module, part.entries, used)
            names |= {(number, old): new for old, new in renamed.items()}
            used |= set(spec_module.named_sequences(module))
            modules.append(module)
        merged = modules[0] if len(modules) == 1 else to_default_form(_nest(modules), "the merged spec")
        actions = dict(spec_module.match_pairs(merged))
        spec_module.set_pairs(merged, [(names[key], actions[names[key]]) for key in order])
        merged.operation.verify()
        return spec_module.spec_text(merged)


def _nest(modules: Sequence[ir.Module]) -> ir.Module:
    """Return a module with copies of specs to be linked. Their sequences must have different names."""
    outer = spec_module.empty_spec()
    for number, module in enumerate(modules):
        _append_copy(outer, module, f"part_{number}")
    return outer


def _append_copy(outer: ir.Module, module: ir.Module, name: str) -> None:
    copy = module.operation.clone()
    outer.body.append(copy)
    copy.operation.attributes["sym_name"] = ir.StringAttr.get(name)


def _name_entries(module: ir.Module, entries: Mapping[str, str], used: set[str]) -> dict[str, str]:
    """Give the sequences of a part names that are not in ``used``, and return the new name of each sequence."""
    taken = used | set(spec_module.named_sequences(module))
    renamed: dict[str, str] = {}
    for name, sequence in spec_module.named_sequences(module).items():
        wanted = name
        dispatch = entries.get(name)
        if dispatch and dispatch != _dispatch_of(sequence):
            spec_module.set_provenance(sequence, spec_module.provenance_of(sequence) | {"dispatch": dispatch})
            wanted = spec_module.matcher_name(dispatch)
        if name != spec_module.ENTRYPOINT and (wanted != name or name in used):
            wanted = spec_module.unique_name(wanted, taken - ({name} - used))
            taken.add(wanted)
            spec_module.rename_sequence(sequence, wanted, module.operation)
        renamed[name] = wanted
    return renamed


def check_starter(text: str, name: str = "the starter spec") -> None:
    """Refuse a starter spec that cannot be linked behind new entries.

    Args:
        text: The text of the spec.
        name: What messages call the spec.

    Raises:
        InputError: The text is no MLIR that this IREE parses, or no tuning spec. The message tells the remedy.
    """
    with compiler_context(keep=True):
        linked_spec(text, name)


def linked_spec(text: str, name: str) -> ir.Module:
    """Parse a spec and bring it into the default form; messages call it ``name``.

    Raises:
        InputError: The text is no tuning spec, or cannot be brought into the default form.
    """
    module = to_default_form(spec_module.parse_spec(text, name), name)
    spec_module.include_decompositions(module)
    return module


def to_default_form(module: ir.Module, name: str) -> ir.Module:
    """Bring a parsed spec into the default form, in place if possible; messages call it ``name``.

    If a module holds nothing but other modules, these are linked: the first takes precedence, as IREE's linker does it.

    Raises:
        InputError: The module is no tuning spec, or cannot be linked.
    """
    nested = [op for op in module.body.operations if op.operation.name == "builtin.module"]
    if not nested or len(nested) != len(module.body.operations):
        if nested or spec_module.DEFAULT_FORM_MARK not in module.operation.attributes:
            flatten(module, name)
        return module
    title = module.operation.attributes.get("sym_name")
    parts = [to_default_form(ir.Module.parse(str(inner)), name) for inner in nested]
    parts = [part for part in parts if spec_module.match_pairs(part)] or parts[:1]
    if len(parts) == 1:
        # IREE's linker would wrap a single module in the older form.
        if title is not None:
            parts[0].operation.attributes["sym_name"] = title
        return parts[0]
    merged = spec_module.empty_spec()
    if title is not None:
        merged.operation.attributes["sym_name"] = title
    for number, part in enumerate(parts):
        _append_copy(merged, part, f"part_{number}")
    try:
        passmanager.PassManager.parse(_LINK).run(merged.operation)
    except ir.MLIRError as error:
        raise InputError(f"{name} cannot be linked: {error_text(error)}") from error
    if spec_module.DEFAULT_FORM_MARK not in merged.operation.attributes:
        raise InputError(f"{name} cannot be linked into one spec: symbols that are no named sequences clash in it")
    _merge_actions(merged)
    return merged


def _merge_actions(module: ir.Module) -> None:
    """Replace actions of linked specs that are equal by one of them."""
    sequences = spec_module.named_sequences(module)
    actions = list(dict.fromkeys(action for _, action in spec_module.match_pairs(module)))
    for position, name in enumerate(actions):
        for earlier in actions[:position]:
            if earlier in sequences and _are_equal(_nameless(sequences[name]), _nameless(sequences[earlier])):
                ir.SymbolTable.replace_all_symbol_uses(name, earlier, module.operation)
                sequences.pop(name).erase()
                break


def nest_starter(starter: ir.Module, new: ir.Module, outer: ir.Module) -> None:
    """Append a starter spec to ``outer``, behind the new entries.

    Entries of the starter with the matcher of a new entry could never match, so they are dropped.

    Args:
        starter: The starter in the default form. It is changed.
        new: The new entries, a module in ``outer``.
        outer: The module that the linker makes one spec of.
    """
    taken = [_bare_matcher(spec_module.named_sequences(new)[matcher]) for matcher, _ in spec_module.match_pairs(new)]
    sequences = spec_module.named_sequences(starter)
    pairs = spec_module.match_pairs(starter)
    kept = [
        (matcher, action)
        for matcher, action in pairs
        if not any(_are_equal(_bare_matcher(sequences[matcher]), other) for other in taken)
    ]
    if not kept:
        return
    if len(kept) < len(pairs):
        spec_module.keep_pairs(starter, kept)
    _rename_apart(starter, new)
    _append_copy(outer, starter, "starter")


def _bare_matcher(matcher: ir.Operation) -> ir.Operation:
    """Return a copy of a matcher without its name, its provenance and the config that it yields."""
    copy = _nameless(matcher)
    for config in spec_module.yielded_constants(copy):
        config.attributes["value"] = ir.UnitAttr.get()
    return copy


def _nameless(sequence: ir.Operation) -> ir.Operation:
    copy = sequence.clone().operation
    copy.attributes["sym_name"] = ir.StringAttr.get("")
    if spec_module.PROVENANCE in copy.attributes:
        del copy.attributes[spec_module.PROVENANCE]
    return copy


def _are_equal(one: ir.Operation, other: ir.Operation) -> bool:
    return bool(one.is_structurally_equivalent(other, ir.OperationEquivalenceFlags.IGNORE_LOCATIONS))


def _rename_apart(starter: ir.Module, new: ir.Module) -> None:
    """Rename sequences and dispatches of the starter that have the name of a new one.

    IREE's linker would rename sequences too, but only in ``foreach_match``. A record is found by the dispatch's name.
    """
    own = {_dispatch_of(sequence) for sequence in spec_module.named_sequences(new).values()} - {""}
    used = own | {_dispatch_of(sequence) for sequence in spec_module.named_sequences(starter).values()}
    names: dict[str, str] = {}
    for name, sequence in spec_module.named_sequences(starter).items():
        dispatch = _dispatch_of(sequence)
        names[name] = spec_module.unique_name(dispatch, used) if dispatch in own else dispatch
        used.add(names[name])
    _name_entries(starter, names, set(spec_module.named_sequences(new)))


def _dispatch_of(sequence: ir.Operation) -> str:
    """Return the dispatch's name in the provenance of an entry, or an empty text."""
    return str(spec_module.provenance_of(sequence).get("dispatch", ""))
