"""Tuning specs: transform-dialect modules that match an op and attach a config to it.

A spec is built and linked through IREE's bindings. Every finished spec has the form that IREE calls "with default
entrypoint": one ``@__kernel_config`` with one ``foreach_match``, in which the first matcher that
matches an op wins. IREE's other form runs its parts one after the other, so that the last one wins and a starter spec
would undo what was tuned; specs in that form are turned into this one, or refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from iree.compiler import ir, passmanager
from iree.compiler.dialects import builtin, iree_codegen, transform

from pytest_shark_tune.compiler.configure import MARK, compiler_context, error_text
from pytest_shark_tune.dispatch.extraction import pipeline_name
from pytest_shark_tune.dispatch.mlir import ops_named
from pytest_shark_tune.dispatch.trust import check_attribute, check_depth, check_spec, drop_prints, refusals_in
from pytest_shark_tune.dispatch.types import RootOp
from pytest_shark_tune.errors import InputError, SpecNotParsed, SpecRefused
from pytest_shark_tune.stages.matcher import add_matcher

__all__ = [
    "PROVENANCE",
    "SPEC_VERSION",
    "Provenance",
    "SpecEntry",
    "SpecPart",
    "SpecRow",
    "build_spec",
    "check_starter",
    "dropped_prints",
    "link_spec",
    "mark_entries",
    "matcher_name",
    "merge_specs",
    "named_configs",
    "read_spec",
    "refused_entries",
    "select_entries",
    "single_entry_spec",
    "with_configs",
]

SPEC_VERSION: Final = 1
"""What text a spec has, and how specs are linked.

Raise it where another text comes of the same entries: what rests on specs is then compiled, and checked, anew.
"""

Provenance = dict[str, str | int | float]

_NAME = "shark_tune_spec"
_ACTION = "apply_op_config"
_ATTENTION_ACTION = "apply_attention_op_config"
_DECOMPOSITION = "decomposition_config"
_ENTRYPOINT = "__kernel_config"
_IS_ENTRYPOINT = "iree_codegen.tuning_spec_entrypoint"
_IS_DEFAULT_FORM = "iree_codegen.tuning_spec_with_default_entrypoint"
_HAS_SEQUENCES = "transform.with_named_sequence"
PROVENANCE = "shark_tune.provenance"
_LONGEST_LINE = 300
"""So much of a line that does not parse is shown: a pattern's constants may take megabytes."""
_LINK = "builtin.module(iree-codegen-link-tuning-specs)"


class SpecEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a spec to be: the ops like ``root`` get ``compilation_info``, the text of such an attribute.

    ``name`` is the dispatch's NAME, of which the matcher's name is made. ``provenance`` says where the entry comes
    from (device, speedup, IREE's version); it is written beside the matcher, where IREE passes over it.
    """

    name: str
    root: RootOp
    compilation_info: str
    provenance: Provenance = {}


class SpecRow(msgspec.Struct, frozen=True, kw_only=True):
    """One matcher of an existing spec, and the config that it attaches.

    ``matcher`` is the symbol's name. ``compilation_info`` is empty where the matcher yields no such attribute, as one
    written by hand may; ``pipeline`` and ``config``, the text of the lowering config, are parts of it. ``provenance``
    is empty where there is none.
    """

    matcher: str
    compilation_info: str
    pipeline: str = ""
    config: str = ""
    provenance: Provenance = {}


class SpecPart(msgspec.Struct, frozen=True, kw_only=True):
    """What of one spec goes into a merged one: the matchers of ``entries``.

    Each has the dispatch's name that its provenance is to tell from now on, which its matcher is then named after;
    empty leaves both as they are, unless another part has a sequence of that name.
    """

    text: str
    entries: dict[str, str]


def build_spec(entries: Iterable[SpecEntry], starter: str | None = None) -> str:
    """Return the text of a spec with ``entries`` in their order, and ``starter`` nested behind them.

    Without a starter the text is final; with one it holds two modules that ``link_spec`` makes into one. An entry
    matches ops of its root's sizes, element types and indexing maps, and no others. Entries of the starter whose
    matcher is that of a new entry could never match, and are left out: a suite that is tuned again and again keeps
    one entry a dispatch.

    Raises:
        InputError: there is no matcher for a root's kind, an attribute's text does not parse, or ``starter`` is no
            tuning spec.
        ValueError: there is nothing to put into the spec.
    """
    entries = list(entries)
    if not entries and starter is None:
        raise ValueError("a spec needs an entry or a starter")
    with compiler_context(keep=True):
        behind = None if starter is None else _linked(starter, "the starter spec")
        if not entries:
            return _text(behind)
        if behind is None:
            module = _module(_NAME)
            _fill(module, entries)
            module.operation.verify()
            return _text(module)
        outer = _module(_NAME)
        first = _module("tuned", into=outer)
        _fill(first, entries)
        if _drop_shadowed(behind, first):
            _rename_apart(behind, first)
            inner = behind.operation.clone()
            outer.body.append(inner)
            inner.operation.attributes["sym_name"] = ir.StringAttr.get("starter")
        outer.operation.verify()
        return _text(outer)


def single_entry_spec(root: RootOp, compilation_info: str) -> str:
    """Return the text of a spec for one candidate. It needs no linking.

    Raises:
        InputError: there is no matcher for the root's kind, or ``compilation_info`` does not parse.
    """
    return build_spec([SpecEntry(name="candidate", root=root, compilation_info=compilation_info)])


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


def dropped_prints(text: str) -> tuple[str, ...]:
    """Sentences about ops of a spec that only print, which are left out wherever the spec is used.

    Raises:
        InputError: the text is no MLIR that this IREE parses.
    """
    with compiler_context(keep=True):
        return drop_prints(_parsed(text, "the spec"))


def refused_entries(text: str) -> tuple[tuple[SpecRow, str], ...]:
    """The entries of a spec that is refused, with what each holds that no entry needs; empty where it holds nothing.

    Nothing is interpreted: this only tells which entries to take out.

    Raises:
        InputError: the text is no tuning spec.
    """
    with compiler_context(keep=True):
        parsed = _parsed(text, "the spec")
        drop_prints(parsed)
        module = _default_form(parsed, "the spec")
        sequences = _sequences(module)

        def told(matcher: str, action: str) -> str:
            found = [str(each) for name in _needed(module, {matcher, action}) for each in refusals_in(sequences[name])]
            return str(SpecRefused(matcher, ", ".join(dict.fromkeys(found)))) if found else ""

        return tuple((_row(sequences[matcher]), told(matcher, action)) for matcher, action in _pairs(module))


def read_spec(text: str) -> tuple[SpecRow, ...]:
    """List a spec's matchers in the order in which they are tried; nested specs are linked first.

    Raises:
        InputError: the text is no tuning spec.
    """
    with compiler_context(keep=True):
        module = _linked(text, "the spec")
        sequences = _sequences(module)
        return tuple(_row(sequences[matcher]) for matcher, _ in _pairs(module))


def select_entries(text: str, matchers: Collection[str]) -> str:
    """Make a spec, linked if need be, of just the entries of these matchers, in the spec's order; one at least.

    Raises:
        InputError: the text is no tuning spec.
    """
    with compiler_context(keep=True):
        module = _linked(text, "the spec")
        _keep_pairs(module, [pair for pair in _pairs(module) if pair[0] in matchers])
        return _text(module)


def named_configs(text: str) -> dict[str, str]:
    """The names that stand for configs in a spec that another release wrote (`tools.old_spec`), by matcher.

    Raises:
        InputError: the text is no tuning spec.
    """
    with compiler_context(keep=True):
        module = _linked(text, "the spec")
        sequences = _sequences(module)
        found: dict[str, str] = {}
        for matcher, _ in _pairs(module):
            values = [op.attributes["value"] for op in _yielded(sequences[matcher])]
            if names := [value.value for value in values if isinstance(value, ir.StringAttr)]:
                found[matcher] = names[0]
        return found


def with_configs(text: str, configs: Mapping[str, str]) -> str:
    """Make a spec of some of a spec's entries, one at least, that attach other configs.

    ``configs`` has a compilation info by matcher; entries that it lacks are left out. Matchers stay as they are.

    Raises:
        InputError: the text is no tuning spec, an attribute's text does not parse, or an entry has another form than
            its new config needs.
    """
    with compiler_context(keep=True):
        module = _linked(text, "the spec")
        _keep_pairs(module, [pair for pair in _pairs(module) if pair[0] in configs])
        sequences = _sequences(module)
        for matcher, info in configs.items():
            _set_config(sequences[matcher], _compilation_info(info, f"the config of {matcher}"))
        module.operation.verify()
        return _text(module)


def _set_config(matcher: ir.Operation, config: ir.Attribute) -> None:
    """Have a matcher yield ``config``, and the decomposition in it where it yields one beside it."""
    decomposition = _decomposition(config)
    values = [config] if decomposition is None else [config, decomposition]
    constants = _yielded(matcher)
    if len(constants) != len(values):
        raise InputError(
            f"{_name(matcher)} hands {len(constants)} attributes on, and its new config needs {len(values)}"
        )
    for constant, value in zip(constants, values, strict=True):
        constant.attributes["value"] = value


def mark_entries(text: str) -> str:
    """Make a spec, linked if need be, that also writes its matcher's name on each op that an entry matches.

    ``configure_with`` reads the names, and takes them off again.

    Raises:
        InputError: the text is no tuning spec.
    """
    with compiler_context(keep=True):
        module = _linked(text, "the spec")
        pairs = _pairs(module)
        sequences = _sequences(module)
        used = set(sequences)
        actions = []
        for matcher, action in pairs:
            name = _fresh(f"{action}_of_{matcher}", used)
            used.add(name)
            actions.append(name)
            marking = sequences[action].clone(ip=ir.InsertionPoint(_foreach(module).parent)).operation
            marking.attributes["sym_name"] = ir.StringAttr.get(name)
            _drop_marks(marking)
            _mark(marking, matcher)
        _foreach(module).attributes["actions"] = _references(actions)
        module.operation.verify()
        return _text(module)


def _drop_marks(action: ir.Operation) -> None:
    """Take off annotations of our own name: those of a spec from elsewhere could speak for another entry."""
    for op in ops_named(action, "transform.annotate"):
        if ir.StringAttr(op.attributes["name"]).value == MARK:
            op.erase()


def _mark(action: ir.Operation, matcher: str) -> None:
    """Have the action write ``matcher`` on the op that it is given; one that is given none is left as it is."""
    block = action.regions[0].blocks[0]
    op = next((given for given in block.arguments if "op" in str(given.type)), None)
    if op is not None:
        with ir.InsertionPoint.at_block_begin(block):
            name = transform.ParamConstantOp(transform.AnyParamType.get(), ir.StringAttr.get(matcher))
            transform.AnnotateOp(op, MARK, param=name)


def _fill(module: ir.Module, entries: Sequence[SpecEntry]) -> None:
    """Put the action, a matcher for each entry and the entrypoint into an empty module."""
    unit = ir.UnitAttr.get()
    any_op, any_param = transform.AnyOpType.get(), transform.AnyParamType.get()
    read_only = {"transform.readonly": unit}
    module.operation.attributes[_IS_DEFAULT_FORM] = unit
    matchers: list[str] = []
    with ir.InsertionPoint(module.body):
        configs = [_compilation_info(each.compilation_info, f"the config of {each.name}") for each in entries]
        decompositions = [_decomposition(config) for config in configs]
        actions = [_ACTION if decomposition is None else _ATTENTION_ACTION for decomposition in decompositions]
        for name in dict.fromkeys(actions):
            _fill_action(name, ["compilation_info", *([_DECOMPOSITION] if name == _ATTENTION_ACTION else [])])
        for entry, config, decomposition in zip(entries, configs, decompositions, strict=True):
            name = _fresh(matcher_name(entry.name), {*matchers, _ACTION, _ATTENTION_ACTION, _ENTRYPOINT})
            matchers.append(name)
            values = [config] if decomposition is None else [config, decomposition]
            results = [any_op, *[any_param] * len(values)]
            matcher = transform.named_sequence(name, [any_op], results, arg_attrs=[read_only])
            if entry.provenance:
                matcher.operation.attributes[PROVENANCE] = _dictionary(entry.provenance)
            with ir.InsertionPoint(matcher.body):
                add_matcher(entry.root, matcher.bodyTarget)
                params = [transform.ParamConstantOp(any_param, value).result for value in values]
                transform.yield_([matcher.bodyTarget, *params])
        consumed = [{"transform.consumed": unit}]
        entrypoint = transform.named_sequence(_ENTRYPOINT, [any_op], [any_op], arg_attrs=consumed)
        entrypoint.operation.attributes[_IS_ENTRYPOINT] = unit
        with ir.InsertionPoint(entrypoint.body):
            result = transform.ForeachMatchOp(
                any_op,
                [],
                entrypoint.bodyTarget,
                [],
                _references(matchers),
                _references(actions),
            )
            transform.yield_([result])


def _fill_action(name: str, attributes: Sequence[str]) -> None:
    """Add the action that writes its parameters on an op, as the attributes of these names."""
    any_op, any_param = transform.AnyOpType.get(), transform.AnyParamType.get()
    kinds = [any_op, *[any_param] * len(attributes)]
    read_only = {"transform.readonly": ir.UnitAttr.get()}
    action = transform.named_sequence(name, kinds, [], arg_attrs=[read_only] * len(kinds))
    with ir.InsertionPoint(action.body):
        for attribute, param in zip(attributes, action.bodyExtraArgs, strict=True):
            transform.AnnotateOp(action.bodyTarget, attribute, param=param)
        transform.yield_([])


def _decomposition(compilation_info: ir.Attribute) -> ir.Attribute | None:
    """How an attention's two products are made, which IREE takes from an attribute beside the config.

    A compilation info holds it inside its lowering config, so that one text says all of a candidate.
    """
    config = iree_codegen.CompilationInfoAttr(compilation_info).lowering_config
    attributes = getattr(config, "attributes", None)
    return attributes[_DECOMPOSITION] if attributes is not None and _DECOMPOSITION in attributes else None


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


def _question(matcher: ir.Operation) -> ir.Operation:
    """A copy of a matcher that holds what it asks, without its name, its provenance and the config that it yields."""
    copy = _nameless(matcher)
    for config in _yielded(copy):
        config.attributes["value"] = ir.UnitAttr.get()
    return copy


def _yielded(matcher: ir.Operation) -> list[ir.Operation]:
    """The constants that a matcher hands to its action."""
    return [
        value.owner.operation
        for op in matcher.regions[0].blocks[0].operations
        if op.operation.name == "transform.yield"
        for value in op.operation.operands
        if not isinstance(value.owner, ir.Block) and value.owner.operation.name == "transform.param.constant"
    ]


def _nameless(sequence: ir.Operation) -> ir.Operation:
    copy = sequence.clone().operation
    copy.attributes["sym_name"] = ir.StringAttr.get("")
    if PROVENANCE in copy.attributes:
        del copy.attributes[PROVENANCE]
    return copy


def _same(one: ir.Operation, other: ir.Operation) -> bool:
    return bool(one.is_structurally_equivalent(other, ir.OperationEquivalenceFlags.IGNORE_LOCATIONS))


def _included(within: ir.Operation) -> set[str]:
    """The names of the sequences that are included somewhere in an op."""
    names: set[str] = set()

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name == "transform.include":
            names.update(ir.SymbolRefAttr(op.attributes["target"]).value)
        return ir.WalkResult.ADVANCE

    within.walk(visit)
    return names


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


def _rename(sequence: ir.Operation, name: str, module: ir.Operation) -> None:
    old = _name(sequence)
    if old != name:
        ir.SymbolTable.replace_all_symbol_uses(old, name, module)
        ir.SymbolTable.set_symbol_name(sequence, name)


def _row(matcher: ir.Operation) -> SpecRow:
    configs = _configs(matcher)
    info = iree_codegen.CompilationInfoAttr(configs[-1].attributes["value"]) if configs else None
    return SpecRow(
        matcher=_name(matcher),
        compilation_info="" if info is None else str(info),
        pipeline="" if info is None else pipeline_name(info.translation_info),
        config="" if info is None else str(info.lowering_config),
        provenance=_provenance(matcher),
    )


def _provenance(matcher: ir.Operation) -> Provenance:
    return _plain(matcher.attributes[PROVENANCE]) if PROVENANCE in matcher.attributes else {}


def _configs(matcher: ir.Operation) -> list[ir.Operation]:
    """The constants of a matcher that are compilation infos."""
    return [
        op.operation
        for op in matcher.regions[0].blocks[0].operations
        if op.operation.name == "transform.param.constant" and _is_compilation_info(op.operation.attributes["value"])
    ]


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
