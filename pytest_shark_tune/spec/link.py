"""Specs linked and merged into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from iree.compiler import ir, passmanager

from pytest_shark_tune.compiler.configure import compiler_context, error_text
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.spec.module import (
    _ENTRYPOINT,
    _IS_DEFAULT_FORM,
    _IS_ENTRYPOINT,
    _LINK,
    _NAME,
    PROVENANCE,
    _dictionary,
    _fresh,
    _keep_pairs,
    _module,
    _pairs,
    _parse_spec,
    _provenance,
    _rename,
    _sequences,
    _set_pairs,
    _text,
    _yielded,
    matcher_name,
)

__all__ = ["SpecPart", "check_starter", "link_spec", "merge_specs"]


class SpecPart(msgspec.Struct, frozen=True, kw_only=True):
    """What of one spec goes into a merged one: the matchers of ``entries``.

    Each has the dispatch's name that its provenance is to tell from now on, which its matcher is then named after;
    empty leaves both as they are, unless another part has a sequence of that name.
    """

    text: str
    entries: dict[str, str]


def link_spec(text: str) -> str:
    """Make one spec of the specs nested in a module: one ``@__kernel_config`` with one ``foreach_match``.

    Matchers keep the order of the modules that they come from, so the first module's win. A spec that is linked
    already comes back as IREE prints it.

    Raises:
        InputError: the text is no tuning spec, or cannot be brought into the default form.
    """
    with compiler_context(keep=True):
        return _text(_linked(text, "the spec"))


def merge_specs(parts: Sequence[SpecPart], order: Sequence[tuple[int, str]]) -> str:
    """Return the text of one spec with the entries of ``parts``, tried in ``order``: a part's number and a matcher.

    Names that two parts share are kept by the first; entries of one action share it. A single part of which all
    entries are kept, in their order and under their names, comes back as `link_spec` prints it.

    Raises:
        InputError: a text is no tuning spec, or they cannot be linked.
        ValueError: there is no entry to keep.
    """
    if not order:
        raise ValueError("a spec needs an entry")
    with compiler_context(keep=True):
        used: set[str] = set()
        names: dict[tuple[int, str], str] = {}
        modules: list[ir.Module] = []
        for number, part in enumerate(parts):
            if not part.entries:
                continue
            module = _linked(part.text, "the spec")
            _keep_pairs(module, [pair for pair in _pairs(module) if pair[0] in part.entries])
            renamed = _name_entries(module, part.entries, used)
            names |= {(number, old): new for old, new in renamed.items()}
            used |= set(_sequences(module))
            modules.append(module)
        merged = modules[0] if len(modules) == 1 else _default_form(_nested(modules), "the merged spec")
        actions = dict(_pairs(merged))
        _set_pairs(merged, [(names[key], actions[names[key]]) for key in order])
        merged.operation.verify()
        return _text(merged)


def _nested(modules: Sequence[ir.Module]) -> ir.Module:
    """Specs whose sequences have names of their own, in one module that can be linked."""
    outer = _module(_NAME)
    for number, module in enumerate(modules):
        inner = module.operation.clone()
        outer.body.append(inner)
        inner.operation.attributes["sym_name"] = ir.StringAttr.get(f"part_{number}")
    return outer


def _name_entries(module: ir.Module, entries: Mapping[str, str], used: set[str]) -> dict[str, str]:
    """Name the sequences of a part apart from those ``used``; return the new name of each matcher."""
    taken = used | set(_sequences(module))
    renamed: dict[str, str] = {}
    for name, sequence in _sequences(module).items():
        wanted = name
        dispatch = entries.get(name)
        if dispatch and dispatch != _provenance(sequence).get("dispatch"):
            sequence.attributes[PROVENANCE] = _dictionary(_provenance(sequence) | {"dispatch": dispatch})
            wanted = matcher_name(dispatch)
        if name != _ENTRYPOINT and (wanted != name or name in used):
            wanted = _fresh(wanted, taken - ({name} - used))
            taken.add(wanted)
            _rename(sequence, wanted, module.operation)
        renamed[name] = wanted
    return renamed


def check_starter(text: str, name: str = "the starter spec") -> None:
    """Refuse a text that cannot be linked behind new entries; ``name`` is what the message calls it.

    Raises:
        InputError: the text is no MLIR that this IREE parses, or no tuning spec; the message says what to do.
    """
    with compiler_context(keep=True):
        _linked(text, name)


def _linked(text: str, name: str) -> ir.Module:
    return _default_form(_parse_spec(text, name), name)


def _default_form(module: ir.Module, name: str) -> ir.Module:
    """Bring a parsed spec into the default form, in place where that is possible."""
    nested = [op for op in module.body.operations if op.operation.name == "builtin.module"]
    if not nested:
        _promote(module.operation, name)
        return module
    if len(nested) != len(module.body.operations):
        raise InputError(
            f"{name} holds specs that were linked in IREE's older form, where the last match wins: "
            "give the specs that it was linked from, each with one `foreach_match`"
        )
    for inner in nested:
        _promote(inner.operation, name)
    if len(nested) == 1:
        # IREE's linker would wrap it in the older form.
        alone = ir.Module.parse(str(nested[0]))
        if "sym_name" in module.operation.attributes:
            alone.operation.attributes["sym_name"] = module.operation.attributes["sym_name"]
        return alone
    try:
        passmanager.PassManager.parse(_LINK).run(module.operation)
    except ir.MLIRError as error:
        raise InputError(f"{name} cannot be linked: {error_text(error)}") from error
    if _IS_DEFAULT_FORM not in module.operation.attributes:
        raise InputError(f"{name} cannot be linked into one spec: symbols that are no named sequences clash in it")
    _merge_actions(module)
    return module


def _merge_actions(module: ir.Module) -> None:
    """Let the entries of all linked specs share their action where it is the same one."""
    sequences = _sequences(module)
    actions = list(dict.fromkeys(action for _, action in _pairs(module)))
    for position, name in enumerate(actions):
        for earlier in actions[:position]:
            if earlier in sequences and _same(_nameless(sequences[name]), _nameless(sequences[earlier])):
                ir.SymbolTable.replace_all_symbol_uses(name, earlier, module.operation)
                sequences.pop(name).erase()
                break


def _promote(module: ir.Operation, name: str) -> None:
    """Give a spec whose one entrypoint has IREE's general form the default form's marks."""
    if _IS_DEFAULT_FORM in module.attributes:
        return
    entrypoints = [
        op.operation for op in module.regions[0].blocks[0].operations if _IS_ENTRYPOINT in op.operation.attributes
    ]
    if len(entrypoints) != 1:
        found = f"{len(entrypoints)} entrypoints" if entrypoints else "no entrypoint"
        raise InputError(
            f"{name} is no tuning spec that can be linked: it has {found}, and one `transform.named_sequence` "
            f"with the attribute `{_IS_ENTRYPOINT}` is needed"
        )
    try:
        _rename(entrypoints[0], _ENTRYPOINT, module)
        module.attributes[_IS_DEFAULT_FORM] = ir.UnitAttr.get()
        module.verify()
    except ir.MLIRError as error:
        raise InputError(
            f"{name} is no tuning spec that can be linked: its entrypoint must be one `transform.foreach_match` and "
            f"a yield: {error_text(error)}"
        ) from error


def _drop_shadowed(starter: ir.Module, new: ir.Module) -> bool:
    """Take the pairs whose matcher is in ``new`` too out of ``starter``; tell whether any is left."""
    taken = [_question(_sequences(new)[matcher]) for matcher, _ in _pairs(new)]
    sequences = _sequences(starter)

    def is_shadowed(matcher: str) -> bool:
        question = _question(sequences[matcher])
        return any(_same(question, other) for other in taken)

    shadowed = {matcher for matcher, _ in _pairs(starter) if is_shadowed(matcher)}
    kept = [(matcher, action) for matcher, action in _pairs(starter) if matcher not in shadowed]
    if shadowed and kept:
        _keep_pairs(starter, kept)
    return bool(kept)


def _question(matcher: ir.Operation) -> ir.Operation:
    """A copy of a matcher that holds what it asks, without its name, its provenance and the config that it yields."""
    copy = _nameless(matcher)
    for config in _yielded(copy):
        config.attributes["value"] = ir.UnitAttr.get()
    return copy


def _nameless(sequence: ir.Operation) -> ir.Operation:
    copy = sequence.clone().operation
    copy.attributes["sym_name"] = ir.StringAttr.get("")
    if PROVENANCE in copy.attributes:
        del copy.attributes[PROVENANCE]
    return copy


def _same(one: ir.Operation, other: ir.Operation) -> bool:
    return bool(one.is_structurally_equivalent(other, ir.OperationEquivalenceFlags.IGNORE_LOCATIONS))


def _rename_apart(starter: ir.Module, new: ir.Module) -> None:
    """Rename the starter's sequences that are named as new ones, wherever they are used, and the dispatches they tell.

    IREE's linker would rename them too, but only where ``foreach_match`` uses them. A dispatch's name is what a record
    is found by.
    """
    own = {_told_dispatch(each) for each in _sequences(new).values()} - {""}
    used = own | {_told_dispatch(each) for each in _sequences(starter).values()}
    names: dict[str, str] = {}
    for name, sequence in _sequences(starter).items():
        dispatch = _told_dispatch(sequence)
        names[name] = _fresh(dispatch, used) if dispatch in own else dispatch
        used.add(names[name])
    _name_entries(starter, names, set(_sequences(new)))


def _told_dispatch(sequence: ir.Operation) -> str:
    """The dispatch's name in the provenance of an entry; empty where it tells none."""
    return str(_provenance(sequence).get("dispatch", ""))
