"""Entrypoints: what a spec runs, in every form that iree-compile reads, as one ``foreach_match``.

Within one ``foreach_match`` the first matcher that matches an op takes it. A spec may run several of them, directly or
by including sequences of its own or of nested modules, as specs do that IREE has linked. Then a later one writes its
config over an earlier one's, unless its matcher asks for an op without a config. Entries are put in the order that
has the same effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from iree.compiler import ir

from pytest_shark_tune.dispatch.mlir import ops_named, string_of
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.spec import module as spec_module
from pytest_shark_tune.spec.predicate import MatchPredicate, read_matcher, relation

__all__ = ["flatten"]

_ASKS_FOR_NO_CONFIG = "transform.iree.match.has_no_lowering_config"
_FOREACH, _INCLUDE, _YIELD = "transform.foreach_match", "transform.include", "transform.yield"
_NAMED = "transform.named_sequence"


@dataclass(frozen=True)
class _Pair:
    """A matcher and its action, of one of the ``foreach_match`` that a spec runs."""

    matcher: ir.Operation
    action: ir.Operation


@dataclass(frozen=True)
class _Entry:
    """An entry of the flat spec."""

    matcher: str
    action: str
    is_yielding: bool
    """Whether it leaves ops alone that have a config."""
    written: frozenset[str]
    """The names of the attributes with a value that its action writes."""


def flatten(module: ir.Module, name: str) -> None:
    """Bring a spec into the default form, in place. Sequences that no entry needs are dropped.

    Args:
        module: The spec, with sequences of its own.
        name: What messages call the spec.

    Raises:
        InputError: The module has no entrypoint, or one that does more than to run ``foreach_match``.
    """
    entrypoints = _entrypoints(module.operation)
    if (not entrypoints and len(module.body.operations) > 0) or not spec_module.holds_sequences(module):
        raise InputError(
            f"{name} is no tuning spec: it has no entrypoint, and a `transform.named_sequence` with the name "
            f"`{spec_module.ENTRYPOINT}` or the attribute `{spec_module.ENTRYPOINT_MARK}` is needed"
        )
    try:
        stages = [stage for sequence in entrypoints for stage in _stages_of(sequence, name)]
        names = iter(_gather(module, [op for stage in stages for pair in stage for op in (pair.matcher, pair.action)]))
        sequences = spec_module.named_sequences(module)
        entries = [[_entry_of(next(names), next(names), sequences) for _ in stage] for stage in stages]
        order = _merge(entries, sequences, name)
        spec_module.add_entrypoint(module, [(entry.matcher, entry.action) for entry in order])
        module.operation.verify()
    except ir.MLIRError as error:
        raise InputError(f"{name} cannot be brought into one `foreach_match`: {error}") from error


def _entrypoints(module: ir.Operation) -> list[ir.Operation]:
    """Return the sequences that IREE runs of a spec: all marked ones, else the one with the entrypoint's name.

    If the module itself has none, those of the first nested module that has some are returned.
    """
    sequences = _sequences_in(module)
    marked = [sequence for sequence in sequences.values() if spec_module.ENTRYPOINT_MARK in sequence.attributes]
    if found := marked or [sequences[name] for name in (spec_module.ENTRYPOINT,) if name in sequences]:
        return found
    return next((found for inner in _modules_in(module) if (found := _entrypoints(inner))), [])


def _modules_in(module: ir.Operation) -> list[ir.Operation]:
    inner = (op.operation for op in module.regions[0].blocks[0].operations)
    return [op for op in inner if op.name == "builtin.module"]


def _sequences_in(module: ir.Operation) -> dict[str, ir.Operation]:
    return {
        string_of(op.operation, "sym_name"): op.operation
        for op in module.regions[0].blocks[0].operations
        if op.operation.name == _NAMED
    }


def _stages_of(sequence: ir.Operation, name: str) -> Iterator[list[_Pair]]:
    """Yield the pairs of each ``foreach_match`` that a sequence runs on the op that it is given, in order."""
    block = sequence.regions[0].blocks[0]
    for op in (inner.operation for inner in block.operations):
        # Whatever an op is given comes from the sequence's argument, since every op here that has a result is known.
        if op.name == _YIELD:
            return
        if len(op.operands) != 1:
            raise _unreadable(sequence, name, op.name, "with several operands")
        if op.name == _FOREACH:
            pairs = zip(ir.ArrayAttr(op.attributes["matchers"]), ir.ArrayAttr(op.attributes["actions"]), strict=True)
            yield [_Pair(_looked_up(matcher, op), _looked_up(action, op)) for matcher, action in pairs]
        elif op.name == _INCLUDE:
            # MLIR refuses sequences that include themselves.
            yield from _stages_of(_looked_up(op.attributes["target"], op), name)
        else:
            raise _unreadable(sequence, name, op.name)


def _unreadable(sequence: ir.Operation, name: str, op: str, how: str = "") -> InputError:
    return InputError(
        f"{name} cannot be brought into one `foreach_match`: @{string_of(sequence, 'sym_name')}, which it runs, "
        f"holds {op}{f' {how}' if how else ''}. An entrypoint may run `transform.foreach_match` and "
        "`transform.include` on the op that it is given"
    )


def _looked_up(reference: ir.Attribute, op: ir.Operation) -> ir.Operation:
    """Return the sequence that a reference in ``op`` names, as MLIR looks it up: in the module around ``op``."""
    path = list(ir.SymbolRefAttr(reference).value)
    scope = op
    while scope.name != "builtin.module":
        scope = scope.parent.operation
    for part in path[:-1]:
        found = [inner for inner in _modules_in(scope) if string_of(inner, "sym_name") == part]
        if not found:
            raise InputError(f"a tuning spec names @{'::@'.join(path)}, and there is no module @{part}")
        scope = found[0]
    sequence = _sequences_in(scope).get(path[-1])
    if sequence is None:
        raise InputError(f"a tuning spec names @{'::@'.join(path)}, and there is no such sequence")
    return sequence


def _gather(module: ir.Module, wanted: Sequence[ir.Operation]) -> list[str]:
    """Leave the ``wanted`` sequences, and those that they include, in ``module``, and nothing else.

    The sequences are replaced by copies. An op's hash is that of its contents, so an erased one is no key of a mapping.

    Returns:
        The names of the ``wanted`` ones, in order. Those of nested modules get other names where two are alike.
    """
    needed: dict[ir.Operation, None] = {}
    left = list(wanted)
    while left:
        sequence = left.pop(0)
        if sequence not in needed:
            needed[sequence] = None
            left += [_looked_up(op.attributes["target"], op) for op in ops_named(sequence, _INCLUDE)]
    # The module's own sequences come first, and keep their names.
    own = [sequence for sequence in _sequences_in(module.operation).values() if sequence in needed]
    names: dict[ir.Operation, str] = {}
    for sequence in (*own, *(sequence for sequence in needed if sequence not in own)):
        taken = {*names.values(), spec_module.ENTRYPOINT}
        names[sequence] = spec_module.unique_name(string_of(sequence, "sym_name"), taken)
    for sequence in needed:
        for op in ops_named(sequence, _INCLUDE):
            op.attributes["target"] = ir.FlatSymbolRefAttr.get(names[_looked_up(op.attributes["target"], op)])
    copies = {name: sequence.clone() for sequence, name in names.items()}
    found = [names[sequence] for sequence in wanted]
    for op in list(module.body.operations):
        op.operation.erase()
    for name, copy in copies.items():
        module.body.append(copy)
        copy.operation.attributes["sym_name"] = ir.StringAttr.get(name)
        if spec_module.ENTRYPOINT_MARK in copy.operation.attributes:
            del copy.operation.attributes[spec_module.ENTRYPOINT_MARK]
    return found


def _entry_of(matcher: str, action: str, sequences: Mapping[str, ir.Operation]) -> _Entry:
    reached = _reached(matcher, sequences)
    annotations = [op for sequence in _reached(action, sequences) for op in ops_named(sequence, "transform.annotate")]
    return _Entry(
        matcher,
        action,
        is_yielding=any(ops_named(sequence, _ASKS_FOR_NO_CONFIG) for sequence in reached),
        written=frozenset(string_of(op, "name") for op in annotations if len(op.operands) > 1),
    )


def _reached(name: str, sequences: Mapping[str, ir.Operation]) -> list[ir.Operation]:
    """Return a sequence and those that it includes."""
    found = [name]
    for reached in found:  # It grows.
        includes = ops_named(sequences[reached], _INCLUDE)
        targets = [ir.FlatSymbolRefAttr(op.attributes["target"]).value for op in includes]
        found += [target for target in dict.fromkeys(targets) if target not in found]
    return [sequences[reached] for reached in found]


def _merge(stages: Sequence[Sequence[_Entry]], sequences: Mapping[str, ir.Operation], name: str) -> list[_Entry]:
    """Return the entries in an order in which the first match has the effect of all stages.

    Raises:
        InputError: No order has, because entries may match the same op, and each has a part of its effect.
    """
    predicates: dict[str, MatchPredicate] = {}

    def may_meet(*entries: _Entry) -> bool:
        for matcher in (entry.matcher for entry in entries if entry.matcher not in predicates):
            predicates[matcher] = read_matcher(matcher, sequences)
        one, other = (predicates[entry.matcher] for entry in entries)
        return relation(one, other) != "apart"

    order: list[_Entry] = []
    for stage in stages:
        ahead = [entry for entry in stage if not entry.is_yielding and any(may_meet(entry, other) for other in order)]
        behind = [entry for entry in stage if entry not in ahead]
        passed = [(entry, other) for entry in ahead for other in order if other.written - entry.written]
        swapped = [(entry, other) for entry in ahead for other in stage[: stage.index(entry)] if other in behind]
        for entry, other in (*passed, *swapped):
            if may_meet(entry, other):
                raise InputError(
                    f"{name} cannot be brought into one `foreach_match`: @{entry.matcher} and @{other.matcher}, of "
                    "different ones, may match the same op. Put both into one"
                )
        order = [*ahead, *order, *behind]
    # A matcher and its action may stand in several stages.
    unique = {(entry.matcher, entry.action): entry for entry in reversed(order)}
    return [entry for entry in order if unique.pop((entry.matcher, entry.action), None) is not None]
