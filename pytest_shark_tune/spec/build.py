"""Tuning specs: transform-dialect modules that match an op and attach a config to it.

A spec is built and linked through IREE's bindings. Every finished spec has the form that IREE calls "with default
entrypoint": one ``@__kernel_config`` with one ``foreach_match``, in which the first matcher that
matches an op wins. IREE's other form runs its parts one after the other, so that the last one wins and a starter spec
would undo what was tuned; specs in that form are turned into this one, or refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import transform

from pytest_shark_tune.compiler.configure import compiler_context
from pytest_shark_tune.dispatch.trust import drop_prints, refusals_in
from pytest_shark_tune.dispatch.types import RootOp
from pytest_shark_tune.errors import SpecRefused
from pytest_shark_tune.spec.link import (
    _default_form,
    _drop_shadowed,
    _linked,
    _rename_apart,
)
from pytest_shark_tune.spec.matcher import add_matcher
from pytest_shark_tune.spec.module import (
    _DECOMPOSITION,
    _ENTRYPOINT,
    _IS_DEFAULT_FORM,
    _IS_ENTRYPOINT,
    _NAME,
    PROVENANCE,
    Provenance,
    _compilation_info,
    _decomposition,
    _dictionary,
    _fresh,
    _module,
    _needed,
    _pairs,
    _parsed,
    _references,
    _sequences,
    _text,
    matcher_name,
)
from pytest_shark_tune.spec.read import (
    SpecRow,
    _row,
)

__all__ = ["SPEC_VERSION", "SpecEntry", "build_spec", "dropped_prints", "refused_entries", "single_entry_spec"]

SPEC_VERSION: Final = 1
"""What text a spec has, and how specs are linked.

Raise it where another text comes of the same entries: what rests on specs is then compiled, and checked, anew.
"""


_ACTION = "apply_op_config"
_ATTENTION_ACTION = "apply_attention_op_config"


class SpecEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a spec to be: the ops like ``root`` get ``compilation_info``, the text of such an attribute.

    ``name`` is the dispatch's NAME, of which the matcher's name is made. ``provenance`` says where the entry comes
    from (device, speedup, IREE's version); it is written beside the matcher, where IREE passes over it.
    """

    name: str
    root: RootOp
    compilation_info: str
    provenance: Provenance = {}


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
