"""Building tuning specs: transform-dialect modules that match an op and attach a config to it.

IREE's bindings build and link specs. Every finished spec has the form that IREE calls "with default entrypoint": one
``@__kernel_config`` with one ``foreach_match``, in which the first matching matcher takes precedence. IREE's other form
runs its parts one after the other, so that the last match takes precedence and a starter spec would undo the tuned
entries. Specs in that form are converted to the default form, or refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from itertools import chain
from typing import Final

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import transform

from pytest_shark_tune.compiler.configure import compiler_context
from pytest_shark_tune.dispatch.types import RootOp
from pytest_shark_tune.search_space.attribute_names import DECOMPOSITION
from pytest_shark_tune.spec import module as spec_module
from pytest_shark_tune.spec.link import linked_spec, nest_starter
from pytest_shark_tune.spec.matcher import add_matcher, match_fused

__all__ = ["SPEC_VERSION", "SpecEntry", "build_spec", "single_entry_spec"]

SPEC_VERSION: Final = 1
"""The version of the text of specs and of linking.

Raise it if the same entries yield another text. Results that depend on specs are then compiled and checked again.
"""

_ACTION = "apply_op_config"
_ATTENTION_ACTION = "apply_attention_op_config"
_FUSED_ACTION = "apply_fused_op_config"
_FUSED = "fused"
_PROPAGATE = 1
"""The mode of an included sequence whose failure is that of the matcher."""


class SpecEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a new spec: ops like ``root`` get ``compilation_info``."""

    name: str
    """The name of the dispatch, from which the matcher's name is made."""
    root: RootOp
    """The op to match."""
    compilation_info: str
    """The text of the attribute that matching ops get."""
    provenance: spec_module.Provenance = {}
    """The origin of the entry (device, speedup, version of IREE). It is written on the matcher; IREE ignores it."""


def build_spec(entries: Iterable[SpecEntry], starter: str | None = None) -> str:
    """Build a spec from entries, in their order, and an optional starter spec behind them.

    An entry matches ops of its root's sizes, element types and indexing maps, and no others. Entries of the starter
    that have the matcher of a new entry could never match and are dropped, so a suite that is tuned repeatedly keeps
    one entry per dispatch.

    Args:
        entries: The new entries.
        starter: The text of the starter spec.

    Returns:
        The text of the spec. With a starter it holds two modules, from which ``link_spec`` makes one.

    Raises:
        InputError: There is no matcher for a root's kind, a config does not parse, or ``starter`` is no tuning spec.
        ValueError: There is neither an entry nor a starter.
    """
    entries = list(entries)
    if not entries and starter is None:
        raise ValueError("a spec needs an entry or a starter")
    with compiler_context(keep=True):
        behind = None if starter is None else linked_spec(starter, "the starter spec")
        if not entries:
            return spec_module.spec_text(behind)
        outer = spec_module.empty_spec()
        new = outer if behind is None else spec_module.empty_spec("tuned", into=outer)
        _add_entries(new, entries)
        if behind is not None:
            nest_starter(behind, new, outer)
        outer.operation.verify()
        return spec_module.spec_text(outer)


def single_entry_spec(root: RootOp, compilation_info: str) -> str:
    """Return the text of a spec for one candidate. It needs no linking.

    Raises:
        InputError: There is no matcher for the root's kind, or ``compilation_info`` does not parse.
    """
    return build_spec([SpecEntry(name="candidate", root=root, compilation_info=compilation_info)])


def _add_entries(module: ir.Module, entries: Sequence[SpecEntry]) -> None:
    """Add the actions, a matcher for each entry and the entrypoint to an empty module."""
    unit = ir.UnitAttr.get()
    any_op, any_param = transform.AnyOpType.get(), transform.AnyParamType.get()
    read_only = {"transform.readonly": unit}
    matchers: list[str] = []
    with ir.InsertionPoint(module.body):
        configs = [
            spec_module.parse_compilation_info(entry.compilation_info, f"the config of {entry.name}")
            for entry in entries
        ]
        decompositions = [spec_module.decomposition_of(config) for config in configs]
        others = [spec_module.fused_configs_of(config) for config in configs]
        actions = [_action_of(*parts) for parts in zip(decompositions, others, strict=True)]
        for name, fused in dict(zip(actions, others, strict=True)).items():
            _add_action(name, ["compilation_info", *([DECOMPOSITION] if name == _ATTENTION_ACTION else [])], len(fused))
        paths = {path: f"{_FUSED}_{path}" for path in dict.fromkeys(chain.from_iterable(others))}
        for path, name in paths.items():
            finder = transform.named_sequence(name, [any_op], [any_op], arg_attrs=[read_only])
            with ir.InsertionPoint(finder.body):
                transform.yield_([match_fused(path, finder.bodyTarget)])
        for entry, config, decomposition, fused in zip(entries, configs, decompositions, others, strict=True):
            name = spec_module.unique_name(
                spec_module.matcher_name(entry.name), {*matchers, *actions, *paths.values(), spec_module.ENTRYPOINT}
            )
            matchers.append(name)
            values = [config] if decomposition is None else [config, decomposition]
            results = [any_op, *[any_param] * len(values), *[any_op, any_param] * len(fused)]
            matcher = transform.named_sequence(name, [any_op], results, arg_attrs=[read_only])
            if entry.provenance:
                spec_module.set_provenance(matcher.operation, entry.provenance)
            with ir.InsertionPoint(matcher.body):
                add_matcher(entry.root, matcher.bodyTarget)
                # The ops that find them may stand in a matcher only in a sequence that it includes.
                ops = [_included(paths[path], matcher.bodyTarget) for path in fused]
                params = [transform.ParamConstantOp(any_param, value).result for value in (*values, *fused.values())]
                pairs = zip(ops, params[len(values) :], strict=True)
                transform.yield_([matcher.bodyTarget, *params[: len(values)], *chain.from_iterable(pairs)])
    spec_module.add_entrypoint(module, list(zip(matchers, actions, strict=True)))


def _included(name: str, op: ir.Value) -> ir.Value:
    """Add the op that includes a sequence with one operand and one result, and return the result."""
    mode = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), _PROPAGATE)
    return transform.IncludeOp([transform.AnyOpType.get()], name, mode, [op]).results[0]


def _action_of(decomposition: object, fused: Sized) -> str:
    """Return the name of the action for a config with these parts."""
    if fused:
        return f"{_FUSED_ACTION}_{len(fused)}"
    return _ACTION if decomposition is None else _ATTENTION_ACTION


def _add_action(name: str, attributes: Sequence[str], fused: int) -> None:
    """Add an action that writes its parameters on an op, as attributes with these names, and a config on other ops."""
    any_op, any_param = transform.AnyOpType.get(), transform.AnyParamType.get()
    kinds = [any_op, *[any_param] * len(attributes), *[any_op, any_param] * fused]
    read_only = {"transform.readonly": ir.UnitAttr.get()}
    action = transform.named_sequence(name, kinds, [], arg_attrs=[read_only] * len(kinds))
    with ir.InsertionPoint(action.body):
        own, others = action.bodyExtraArgs[: len(attributes)], action.bodyExtraArgs[len(attributes) :]
        for attribute, param in zip(attributes, own, strict=True):
            transform.AnnotateOp(action.bodyTarget, attribute, param=param)
        for number in range(fused):
            transform.AnnotateOp(others[2 * number], "lowering_config", param=others[2 * number + 1])
        transform.yield_([])
