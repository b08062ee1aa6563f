"""Building tuning specs: transform-dialect modules that match an op and attach a config to it.

IREE's bindings build and link specs. Every finished spec has the form that IREE calls "with default entrypoint": one
``@__kernel_config`` with one ``foreach_match``, in which the first matching matcher takes precedence. IREE's other form
runs its parts one after the other, so that the last match takes precedence and a starter spec would undo the tuned
entries. Specs in that form are converted to the default form, or refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import transform

from pytest_shark_tune.compiler.configure import compiler_context
from pytest_shark_tune.dispatch.types import RootOp
from pytest_shark_tune.search_space.attribute_names import DECOMPOSITION
from pytest_shark_tune.spec import module as spec_module
from pytest_shark_tune.spec.link import linked_spec, nest_starter
from pytest_shark_tune.spec.matcher import add_matcher

__all__ = ["SPEC_VERSION", "SpecEntry", "build_spec", "single_entry_spec"]

SPEC_VERSION: Final = 1
"""The version of the text of specs and of linking.

Raise it if the same entries yield another text. Results that depend on specs are then compiled and checked again.
"""

_ACTION = "apply_op_config"
_ATTENTION_ACTION = "apply_attention_op_config"


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
        actions = [_ACTION if decomposition is None else _ATTENTION_ACTION for decomposition in decompositions]
        for name in dict.fromkeys(actions):
            _add_action(name, ["compilation_info", *([DECOMPOSITION] if name == _ATTENTION_ACTION else [])])
        for entry, config, decomposition in zip(entries, configs, decompositions, strict=True):
            name = spec_module.unique_name(
                spec_module.matcher_name(entry.name), {*matchers, _ACTION, _ATTENTION_ACTION, spec_module.ENTRYPOINT}
            )
            matchers.append(name)
            values = [config] if decomposition is None else [config, decomposition]
            results = [any_op, *[any_param] * len(values)]
            matcher = transform.named_sequence(name, [any_op], results, arg_attrs=[read_only])
            if entry.provenance:
                spec_module.set_provenance(matcher.operation, entry.provenance)
            with ir.InsertionPoint(matcher.body):
                add_matcher(entry.root, matcher.bodyTarget)
                params = [transform.ParamConstantOp(any_param, value).result for value in values]
                transform.yield_([matcher.bodyTarget, *params])
    spec_module.add_entrypoint(module, list(zip(matchers, actions, strict=True)))


def _add_action(name: str, attributes: Sequence[str]) -> None:
    """Add an action that writes its parameters on an op, as attributes with these names."""
    any_op, any_param = transform.AnyOpType.get(), transform.AnyParamType.get()
    kinds = [any_op, *[any_param] * len(attributes)]
    read_only = {"transform.readonly": ir.UnitAttr.get()}
    action = transform.named_sequence(name, kinds, [], arg_attrs=[read_only] * len(kinds))
    with ir.InsertionPoint(action.body):
        for attribute, param in zip(attributes, action.bodyExtraArgs, strict=True):
            transform.AnnotateOp(action.bodyTarget, attribute, param=param)
        transform.yield_([])
