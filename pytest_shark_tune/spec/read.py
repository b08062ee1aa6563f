"""Reading, selecting and changing the entries of a spec."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, transform

from pytest_shark_tune.compiler.configure import MARK, compiler_context
from pytest_shark_tune.dispatch.foreign.trust import drop_prints, refusals_in
from pytest_shark_tune.dispatch.mlir import ops_named, pipeline_name, string_of
from pytest_shark_tune.errors import InputError, SpecRefused
from pytest_shark_tune.search_space.attribute_names import DECOMPOSITION
from pytest_shark_tune.spec import module as spec_module
from pytest_shark_tune.spec.link import linked_spec, to_default_form
from pytest_shark_tune.spec.predicate import MatchPredicate, read_matcher

__all__ = [
    "SpecRow",
    "dropped_prints",
    "is_same_config",
    "mark_entries",
    "named_configs",
    "read_predicates",
    "read_spec",
    "refused_entries",
    "select_entries",
    "with_configs",
]


class SpecRow(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an existing spec: a matcher and the config that it attaches."""

    matcher: str
    """The name of the matcher."""
    compilation_info: str
    """The text of the config, empty if the matcher yields none, as a matcher that was written by hand may."""
    pipeline: str = ""
    """The pipeline in ``compilation_info``, without its dialect."""
    config: str = ""
    """The text of the lowering config in ``compilation_info``."""
    provenance: spec_module.Provenance = {}
    """The provenance of the entry, empty if it has none."""


def read_spec(text: str) -> tuple[SpecRow, ...]:
    """Return the entries of a spec in the order in which they are tried. Nested specs are linked first.

    Raises:
        InputError: The text is no tuning spec.
    """
    with compiler_context(keep=True):
        module = linked_spec(text, "the spec")
        sequences = spec_module.named_sequences(module)
        return tuple(
            _row_of(sequences[matcher], sequences[action]) for matcher, action in spec_module.match_pairs(module)
        )


def is_same_config(one: str, other: str) -> bool:
    """Return whether two texts are the same attribute, or cannot be compared since this release does not parse them."""
    if one == other:
        return True
    with compiler_context():
        try:
            return bool(ir.Attribute.parse(one) == ir.Attribute.parse(other))
        except ir.MLIRError:
            return True


def read_predicates(text: str) -> tuple[MatchPredicate, ...]:
    """Return the match predicate of each entry of a spec, in the order of ``read_spec``.

    Raises:
        InputError: The text is no tuning spec.
    """
    with compiler_context(keep=True):
        module = linked_spec(text, "the spec")
        sequences = spec_module.named_sequences(module)
        return tuple(read_matcher(matcher, sequences) for matcher, _ in spec_module.match_pairs(module))


def dropped_prints(text: str) -> tuple[str, ...]:
    """Return a message for each sequence of a spec with ops that only print. They are dropped wherever it is used.

    Raises:
        InputError: The text is no MLIR that this IREE parses.
    """
    with compiler_context(keep=True):
        return drop_prints(spec_module.parse_unchecked(text, "the spec"))


def refused_entries(text: str) -> tuple[tuple[SpecRow, str], ...]:
    """Return the entries of a spec that is refused, so that a user can tell which ones to remove.

    Nothing is interpreted.

    Returns:
        The entries, each with a message that names its refused content, or with an empty text.

    Raises:
        InputError: The text is no tuning spec.
    """
    with compiler_context(keep=True):
        parsed = spec_module.parse_unchecked(text, "the spec")
        drop_prints(parsed)
        module = to_default_form(parsed, "the spec")
        sequences = spec_module.named_sequences(module)

        def refusal(matcher: str, action: str) -> str:
            names = spec_module.needed_sequences(module, {matcher, action})
            found = [str(refusal) for name in names for refusal in refusals_in(sequences[name])]
            return str(SpecRefused(matcher, ", ".join(dict.fromkeys(found)))) if found else ""

        return tuple(
            (_row_of(sequences[matcher], sequences[action]), refusal(matcher, action))
            for matcher, action in spec_module.match_pairs(module)
        )


def select_entries(text: str, matchers: Collection[str]) -> str:
    """Return the text of a spec with the entries of ``matchers``, in their order.

    Raises:
        InputError: The text is no tuning spec.
    """
    with compiler_context(keep=True):
        module = linked_spec(text, "the spec")
        spec_module.keep_pairs(module, [pair for pair in spec_module.match_pairs(module) if pair[0] in matchers])
        return spec_module.spec_text(module)


def named_configs(text: str) -> dict[str, str]:
    """Return the names that stand for configs in a spec of another release (`port.old_iree_script`), by matcher.

    Raises:
        InputError: The text is no tuning spec.
    """
    with compiler_context(keep=True):
        module = linked_spec(text, "the spec")
        sequences = spec_module.named_sequences(module)
        found: dict[str, str] = {}
        for matcher, action in spec_module.match_pairs(module):
            constant = spec_module.written_constant(sequences[matcher], sequences[action], "compilation_info")
            if constant is not None and isinstance(name := constant.attributes["value"], ir.StringAttr):
                found[matcher] = name.value
        return found


def with_configs(text: str, configs: Mapping[str, str]) -> str:
    """Return the text of a spec with other configs. Its matchers do not change.

    Args:
        text: The text of the spec.
        configs: The compilation info of each matcher to keep. Other entries are dropped.

    Raises:
        InputError: The text is no tuning spec, a config does not parse, or an entry has another form than its new
            config needs.
    """
    with compiler_context(keep=True):
        module = linked_spec(text, "the spec")
        spec_module.keep_pairs(module, [pair for pair in spec_module.match_pairs(module) if pair[0] in configs])
        for matcher, action in spec_module.match_pairs(module):
            info = spec_module.parse_compilation_info(configs[matcher], f"the config of {matcher}")
            _set_config(module, matcher, action, info)
        module.operation.verify()
        return spec_module.spec_text(module)


def _set_config(module: ir.Module, matcher: str, action: str, config: ir.Attribute) -> None:
    """Replace the config that an entry writes, and the decomposition that it writes beside it."""
    sequences = spec_module.named_sequences(module)
    decomposition = spec_module.decomposition_of(config)
    info, beside = (
        spec_module.written_constant(sequences[matcher], sequences[action], name)
        for name in ("compilation_info", DECOMPOSITION)
    )
    if info is None:
        raise InputError(f"{matcher} attaches no config, so its config cannot be replaced")
    is_kept = decomposition is None and beside is not None and not hasattr(config.lowering_config, "attributes")
    if (beside is None) != (decomposition is None) and not is_kept:  # The configs of CPUs cannot hold it.
        raise InputError(f"{matcher} attaches {'no' if beside is None else 'a'} decomposition beside its config")
    if info.parent.operation != sequences[matcher]:
        # The constants stand in the action, which other entries may share.
        others = [pair for pair in spec_module.match_pairs(module) if pair[1] == action]
        if len(others) > 1:
            own = spec_module.unique_name(f"{action}_of_{matcher}", sequences)
            copy = sequences[action].clone(ip=ir.InsertionPoint(sequences[spec_module.ENTRYPOINT])).operation
            copy.attributes["sym_name"] = ir.StringAttr.get(own)
            pairs = [(name, own if name == matcher else used) for name, used in spec_module.match_pairs(module)]
            spec_module.set_pairs(module, pairs)
            _set_config(module, matcher, own, config)
            return
    info.attributes["value"] = config
    if fused := spec_module.fused_configs_of(config):
        constants = spec_module.yielded_constants(sequences[matcher])[1:]
        if len(constants) != len(fused):
            raise InputError(f"{matcher} attaches no config to {len(fused)} other ops beside its own")
        for constant, other in zip(constants, fused.values(), strict=True):
            constant.attributes["value"] = other
    if beside is not None and decomposition is not None:
        beside.attributes["value"] = decomposition


def mark_entries(text: str) -> str:
    """Return the text of a spec that also writes the matcher's name on each op that an entry matches.

    ``configure_with`` reads these marks and removes them.

    Raises:
        InputError: The text is no tuning spec.
    """
    with compiler_context(keep=True):
        module = linked_spec(text, "the spec")
        sequences = spec_module.named_sequences(module)
        used = set(sequences)
        pairs = []
        for matcher, action in spec_module.match_pairs(module):
            name = spec_module.unique_name(f"{action}_of_{matcher}", used)
            used.add(name)
            pairs.append((matcher, name))
            marking = sequences[action].clone(ip=ir.InsertionPoint(sequences[spec_module.ENTRYPOINT])).operation
            marking.attributes["sym_name"] = ir.StringAttr.get(name)
            _drop_annotations(marking)
            _add_mark(marking, matcher)
        spec_module.set_pairs(module, pairs)
        module.operation.verify()
        return spec_module.spec_text(module)


def _drop_annotations(action: ir.Operation) -> None:
    """Remove marks that an action already writes: in a foreign spec they could name another entry."""
    for op in ops_named(action, "transform.annotate"):
        if string_of(op, "name") == MARK:
            op.erase()


def _add_mark(action: ir.Operation, matcher: str) -> None:
    """Let an action write ``matcher`` on the op that it takes. An action that takes no op does not change."""
    block = action.regions[0].blocks[0]
    op = next((argument for argument in block.arguments if "op" in str(argument.type)), None)
    if op is not None:
        with ir.InsertionPoint.at_block_begin(block):
            name = transform.ParamConstantOp(transform.AnyParamType.get(), ir.StringAttr.get(matcher))
            transform.AnnotateOp(op, MARK, param=name)


def _row_of(matcher: ir.Operation, action: ir.Operation) -> SpecRow:
    name, provenance = string_of(matcher, "sym_name"), spec_module.provenance_of(matcher)
    constant = spec_module.written_constant(matcher, action, "compilation_info")
    info = None if constant is None else constant.attributes["value"]
    if not isinstance(info, iree_codegen.CompilationInfoAttr):
        return SpecRow(matcher=name, compilation_info="", provenance=provenance)
    return SpecRow(
        matcher=name,
        compilation_info=str(info),
        pipeline=pipeline_name(info.translation_info.pass_pipeline),
        config=str(info.lowering_config),
        provenance=provenance,
    )
