"""The entries of a spec, read, selected and changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, transform

from pytest_shark_tune.compiler.configure import MARK, compiler_context
from pytest_shark_tune.dispatch.extraction import pipeline_name
from pytest_shark_tune.dispatch.mlir import ops_named
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.spec.link import (
    _linked,
)
from pytest_shark_tune.spec.module import (
    Provenance,
    _compilation_info,
    _decomposition,
    _foreach,
    _fresh,
    _is_compilation_info,
    _keep_pairs,
    _name,
    _pairs,
    _provenance,
    _references,
    _sequences,
    _text,
    _yielded,
)

__all__ = ["SpecRow", "mark_entries", "named_configs", "read_spec", "select_entries", "with_configs"]


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
    """The names that stand for configs in a spec that another release wrote (`port.old_iree_script`), by matcher.

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


def _configs(matcher: ir.Operation) -> list[ir.Operation]:
    """The constants of a matcher that are compilation infos."""
    return [
        op.operation
        for op in matcher.regions[0].blocks[0].operations
        if op.operation.name == "transform.param.constant" and _is_compilation_info(op.operation.attributes["value"])
    ]
