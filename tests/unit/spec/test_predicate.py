"""Questions: what matchers ask, held against what IREE then matches."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import configure_with
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.types import FoundDispatch, RootOp, Tensor
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.spec.build import SpecEntry, build_spec
from pytest_shark_tune.spec.matcher import has_matcher
from pytest_shark_tune.spec.predicate import MatchPredicate, Relation, describe, differences, relation
from pytest_shark_tune.spec.read import read_predicates, read_spec
from tests.factories import matmul_root

GOLDEN = Path(__file__).parents[2] / "golden"

INFO = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [8, 8, 0]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)
LHS = "affine_map<(d0, d1, d2) -> (d0, d2)>"
RHS = "affine_map<(d0, d1, d2) -> (d2, d1)>"
TRANSPOSED = "affine_map<(d0, d1, d2) -> (d1, d2)>"
OUT = "affine_map<(d0, d1, d2) -> (d0, d1)>"

# Matmuls as (m, n, k, element type, map of the right operand).
OPS = {
    "base": (64, 32, 16, "f32", RHS),
    "wide": (128, 32, 16, "f32", RHS),
    "odd": (100, 32, 16, "f32", RHS),
    "deep": (64, 32, 32, "f32", RHS),
    "half": (64, 32, 16, "f16", RHS),
    "transposed": (64, 32, 16, "f32", TRANSPOSED),
    "square": (32, 32, 32, "f32", RHS),
}


def contraction(element: str = "f32", rhs: str = RHS, *, with_maps: bool = True) -> str:
    maps = f", indexing_maps = [{LHS}, {rhs}, {OUT}]" if with_maps else ""
    return (
        f"%b, %m, %n, %k = transform.iree.match.contraction %op, lhs_type = {element}, rhs_type = {element}, "
        f"output_type = {element}{maps} : !transform.any_op -> !transform.param<i64> "
    )


def sizes(**expected: int) -> str:
    return "".join(
        f"transform.iree.match.dims_equal %{name}, [{size}] : !transform.param<i64> " for name, size in expected.items()
    )


def operand(position: int, ask: str) -> str:
    """``ask`` asks something of ``%v``."""
    return (
        f"%v = transform.get_operand %op[{position}] : (!transform.any_op) -> !transform.any_value "
        f"transform.iree.match.{ask} : !transform.any_value "
    )


ASKS = {
    "any": contraction(with_maps=False),
    "plain": contraction(),
    "half": contraction("f16"),
    "transposed": contraction(rhs=TRANSPOSED),
    "exact": contraction() + sizes(m=64, n=32, k=16),
    "exact, no maps": contraction(with_maps=False) + sizes(m=64, n=32, k=16),
    "another m": contraction() + sizes(m=128, n=32, k=16),
    "any m": contraction() + sizes(m=-1, n=32, k=16),
    "no batch": contraction() + "transform.iree.match.dims_equal %b, [] : !transform.param<i64> ",
    "m to 64": contraction() + operand(0, "dim_bounds %v[0], none, umax = 64"),
    "m from 100": contraction() + operand(0, "dim_bounds %v[0], umin = 100, none"),
    "m by 32": contraction() + operand(0, "dim_is_multiple_of %v[0], 32"),
    "m by 64": contraction() + operand(0, "dim_is_multiple_of %v[0], 64"),
    "m by type": contraction() + operand(0, "cast_compatible_type %v = tensor<64x?xf32>"),
    "lhs": operand(0, "cast_compatible_type %v = tensor<64x?xf32>"),
    "lhs bounds": operand(0, "dim_bounds %v[1], umin = 8, umax = 16"),
    "result": operand(2, "cast_compatible_type %v = tensor<64x32xf32>"),
    "by name": 'transform.match.operation_name %op ["linalg.matmul"] : !transform.any_op ',
    "another name": 'transform.match.operation_name %op ["linalg.generic"] : !transform.any_op ',
    "two names": 'transform.match.operation_name %op ["linalg.matmul", "linalg.generic"] : !transform.any_op ',
    "included": "%m = transform.include @asks failures(propagate) (%op) : (!transform.any_op) -> !transform.param<i64> "
    + sizes(m=64),
    "compared": contraction() + "%c = transform.param.constant 64 : i64 -> !transform.param<i64> "
    "transform.match.param.cmpi eq %m, %c : !transform.param<i64> ",
    "unconfigured": "transform.iree.match.has_no_lowering_config %op : !transform.any_op "
    + contraction()
    + sizes(m=64),
}

UNREAD = {"two names": "transform.match.operation_name", "compared": "transform.match.param.cmpi"}


def spec_of(asks: Mapping[str, str]) -> str:
    matchers = ""
    for number, ask in enumerate(asks.values()):
        matchers += (
            f"transform.named_sequence @match_{number}(%op: !transform.any_op {{transform.readonly}}) "
            f"-> (!transform.any_op, !transform.any_param) {{ {ask} "
            f"%config = transform.param.constant {INFO} -> !transform.any_param "
            "transform.yield %op, %config : !transform.any_op, !transform.any_param }\n"
        )
    pairs = ", ".join(f"@match_{number} -> @apply" for number in range(len(asks)))
    return (
        "module attributes {transform.with_named_sequence, iree_codegen.tuning_spec_with_default_entrypoint} {\n"
        "transform.named_sequence @asks(%op: !transform.any_op {transform.readonly}) -> !transform.param<i64> { "
        + contraction()
        + "transform.yield %m : !transform.param<i64> }\n"
        "transform.named_sequence @apply(%op: !transform.any_op {transform.readonly}, "
        "%config: !transform.any_param {transform.readonly}) { "
        'transform.annotate %op "compilation_info" = %config : !transform.any_op, !transform.any_param '
        "transform.yield }\n"
        + matchers
        + "transform.named_sequence @__kernel_config(%variant: !transform.any_op {transform.consumed}) "
        "-> !transform.any_op attributes {iree_codegen.tuning_spec_entrypoint} { "
        f"%res = transform.foreach_match in %variant {pairs} : (!transform.any_op) -> !transform.any_op "
        "transform.yield %res : !transform.any_op } }"
    )


@pytest.fixture(scope="module")
def predicates() -> Mapping[str, MatchPredicate]:
    return dict(zip(ASKS, read_predicates(spec_of(ASKS)), strict=True))


@pytest.fixture(scope="module")
def matched() -> Mapping[str, frozenset[str]]:
    """The ops that IREE finds each matcher to match, each alone in a spec."""
    functions = ""
    for name, (m, n, k, element, rhs) in OPS.items():
        right = f"{n}x{k}" if rhs == TRANSPOSED else f"{k}x{n}"
        types = [f"tensor<{shape}x{element}>" for shape in (f"{m}x{k}", right, f"{m}x{n}")]
        maps = f"indexing_maps = [{LHS}, {rhs}, {OUT}]" if rhs == TRANSPOSED else ""
        functions += (
            f"func.func @{name}(%0: {types[0]}, %1: {types[1]}, %2: {types[2]}) {{ %r = linalg.matmul {maps} "
            f"ins(%0, %1 : {types[0]}, {types[1]}) outs(%2 : {types[2]}) -> {types[2]} return }}\n"
        )
    module = (
        "module { hal.executable private @ops { hal.executable.variant public @cpu "
        'target(<"llvm-cpu", "embedded-elf-x86_64">) { builtin.module {\n' + functions + "} } } }"
    )
    return {
        name: frozenset(each.function for each in configure_with(module, spec_of({name: ask})).applied)
        for name, ask in ASKS.items()
    }


def root(name: str) -> RootOp:
    m, n, k, element, rhs = OPS[name]
    inputs = (Tensor((m, k), element), Tensor((n, k) if rhs == TRANSPOSED else (k, n), element))
    plain = matmul_root(m, n, k, element, out=element)
    return msgspec.structs.replace(plain, maps=(LHS, rhs, OUT), inputs=inputs)


@pytest.mark.parametrize("name", ASKS)
def test_an_op_differs_in_something_just_where_it_is_not_matched(
    name: str, predicates: Mapping[str, MatchPredicate], matched: Mapping[str, frozenset[str]]
) -> None:
    alike = {each for each in OPS if not differences(predicates[name], root(each))}
    if name in UNREAD:
        assert alike >= matched[name]
    else:
        assert alike == matched[name]


def test_relations_hold_for_what_iree_matches(
    predicates: Mapping[str, MatchPredicate], matched: Mapping[str, frozenset[str]]
) -> None:
    said: set[Relation] = set()
    for one, first in predicates.items():
        for other, second in predicates.items():
            how = relation(first, second)
            said.add(how)
            pair = f"{one} {how} {other}"
            if how in ("covers", "equal"):
                assert matched[one] >= matched[other], pair
            if how in ("covered", "equal"):
                assert matched[one] <= matched[other], pair
            if how == "apart":
                assert not matched[one] & matched[other], pair
    assert said == {"equal", "covers", "covered", "overlaps", "apart", "unknown"}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("any", "exact", "covers"),
        ("exact", "any", "covered"),
        ("any", "exact, no maps", "covers"),
        ("exact, no maps", "exact", "covers"),
        ("any m", "exact", "covers"),
        ("any m", "another m", "covers"),
        ("m to 64", "exact", "covers"),
        ("m by 32", "m by 64", "covers"),
        ("m by 32", "another m", "covers"),
        ("m by type", "exact", "covers"),
        ("m by type", "included", "equal"),
        ("included", "unconfigured", "equal"),
        ("lhs", "m by type", "overlaps"),
        ("m to 64", "m by 32", "overlaps"),
        ("m to 64", "m from 100", "apart"),
        ("m to 64", "another m", "apart"),
        ("exact", "another m", "apart"),
        ("plain", "transposed", "apart"),
        ("plain", "half", "apart"),
        ("by name", "another name", "apart"),
        ("by name", "exact", "overlaps"),
        ("plain", "no batch", "equal"),
        ("plain", "compared", "covers"),
        ("compared", "exact", "unknown"),
        ("compared", "compared", "equal"),
        ("compared", "transposed", "apart"),
    ],
)
def test_a_relation_is_told(
    predicates: Mapping[str, MatchPredicate], first: str, second: str, expected: Relation
) -> None:
    assert relation(predicates[first], predicates[second]) == expected


def test_what_is_not_read_is_named(predicates: Mapping[str, MatchPredicate]) -> None:
    assert {name: " ".join(each.unread) for name, each in predicates.items() if each.unread} == UNREAD


@pytest.mark.parametrize(
    ("ask", "op", "expected"),
    [
        ("exact", "wide", ["its m is 128 instead of 64"]),
        ("exact", "deep", ["its k is 32 instead of 16"]),
        (
            "exact",
            "half",
            [f"its {each} has elements f16 instead of f32" for each in ("lhs", "rhs", "result")],
        ),
        (
            "exact",
            "transposed",
            ["its rhs has the layout (d0, d1, d2) -> (d1, d2) instead of (d0, d1, d2) -> (d2, d1)"],
        ),
        ("m to 64", "odd", ["its m is 100 instead of at most 64"]),
        ("m by 64", "odd", ["its m is 100 instead of a multiple of 64"]),
        ("lhs", "wide", ["its operand 0 is tensor<128x16xf32> instead of tensor<64x?xf32>"]),
        ("another name", "base", ["it is linalg.matmul instead of linalg.generic"]),
    ],
)
def test_differences_in_words(predicates: Mapping[str, MatchPredicate], ask: str, op: str, expected: list[str]) -> None:
    assert list(differences(predicates[ask], root(op))) == expected


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        ("exact", "contraction 64x32x16 f32, f32 -> f32"),
        ("m to 64", "contraction m at most 64, n any, k any, f32, f32 -> f32"),
        ("any m", "contraction m any, n 32, k 16, f32, f32 -> f32"),
        ("exact, no maps", "contraction m 64, n 32, k 16, f32, f32 -> f32"),
        ("any", "contraction f32, f32 -> f32"),
        ("lhs", "any op tensor<64x?xf32>"),
        ("by name", "linalg.matmul"),
    ],
)
def test_a_question_in_a_few_words(predicates: Mapping[str, MatchPredicate], ask: str, expected: str) -> None:
    assert describe(predicates[ask]) == expected


def test_each_real_op_is_asked_for_by_its_own_entry_alone(dumps: Mapping[str, str], compiler: Compiler) -> None:
    convolution = partial(ops.conv_2d, batch=1, width=10, channels=4, filters=8, kernel_height=3, kernel_width=3)
    attention = partial(ops.attention, batch=2, queries=32, head=16, element="f32")
    more = [
        convolution(height=10),
        convolution(height=10, stride=2),
        convolution(height=12),
        attention(keys=32),
        attention(keys=64),
    ]
    texts = [*dumps.values(), *(text for each in more for text in compiler.dump_benchmarks(each.text, each.name))]
    found = [read_benchmark(text, "model", processors=2) for text in texts]
    matchable = [each.root for each in found if isinstance(each, FoundDispatch) and has_matcher(each.root)]
    roots = list({msgspec.json.encode(msgspec.structs.replace(each, op="")): each for each in matchable}.values())
    assert {each.kind for each in roots} >= {"contraction", "convolution", "attention", "other"}
    entries = [SpecEntry(name=f"e{number}", root=each, compilation_info=INFO) for number, each in enumerate(roots)]
    predicates = read_predicates(build_spec(entries))
    assert not any(predicate.unread for predicate in predicates)
    for one, predicate in enumerate(predicates):
        for other, each in enumerate(roots):
            assert bool(differences(predicate, each)) == (one != other), (predicate.matcher, each.op)
            expected = "equal" if one == other else "apart"
            assert relation(predicate, predicates[other]) == expected, (predicate.matcher, predicates[other].matcher)


def test_a_spec_that_iree_ships_is_read() -> None:
    text = (GOLDEN / "iree_default_tuning_spec_gfx942.mlir").read_text(encoding="utf-8")
    attention, matmul = read_predicates(text)
    assert (attention.matcher, matmul.matcher) == tuple(row.matcher for row in read_spec(text))
    assert not attention.unread
    assert describe(attention) == (
        "online attention batch ?x?, m a multiple of 128, n 64, k1 64, k2 64, f16, f16, f16, f16 -> f32, f32, f32"
    )
    assert describe(matmul) == "contraction 2048x1280x5120 f16, f16 -> f32"


@pytest.mark.parametrize(
    "ask",
    [
        contraction() + "transform.iree.match.dims_equal %m, [64, 64] : !transform.param<i64> ",
        "%b, %m, %n, %k1, %k2 = transform.iree.match.attention %op, query_type = f32, key_type = f32, "
        f"value_type = f32, output_type = f32, indexing_maps = [{LHS}] : !transform.any_op -> !transform.param<i64> "
        + sizes(m=64),
    ],
    ids=["too many sizes", "too few maps"],
)
def test_a_matcher_that_contradicts_itself_covers_nothing(ask: str, predicates: Mapping[str, MatchPredicate]) -> None:
    (predicate,) = read_predicates(spec_of({"ask": ask}))
    assert predicate.unread == ("transform.iree.match.dims_equal",)
    assert {relation(predicate, each) for each in predicates.values()} <= {"apart", "covered", "unknown"}


def test_what_is_no_spec_is_refused() -> None:
    with pytest.raises(InputError, match="no entrypoint"):
        read_predicates("module {}")
