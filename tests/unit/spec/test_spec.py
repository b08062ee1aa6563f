"""Specs: what is built, what links, and that a matcher matches its op and no other."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytest_shark_tune.compiler.configure import (
    MARK,
    Applied,
    ConfigureFailed,
    configure,
    configure_with,
    read_configs,
    replace_executables,
    why_not_applied,
)
from pytest_shark_tune.dispatch.types import RootOp, Tensor
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.spec.build import SpecEntry, build_spec, single_entry_spec
from pytest_shark_tune.spec.link import check_starter, link_spec
from pytest_shark_tune.spec.matcher import has_matcher
from pytest_shark_tune.spec.read import mark_entries, read_spec

GOLDEN = Path(__file__).parents[2] / "golden"
UPDATE = "SHARK_TUNE_UPDATE_GOLDEN"


def info(distribution: int) -> str:
    """A compilation info, told from others by one tile size."""
    return (
        "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<"
        f"distribution = [{distribution}, 256, 0], vector_common_parallel = [8, 32, 0], "
        "vector_reduction = [0, 0, 8]>, translation_info = #iree_codegen.translation_info<"
        "pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
    )


def contraction(
    letters: str,
    sizes: dict[str, int],
    elements: tuple[str, str, str] = ("f32", "f32", "f32"),
    *,
    loops: str = "",
) -> RootOp:
    """A contraction in einsum's notation; ``loops`` orders the iteration dimensions where that matters."""
    operands, out = letters.split("->")
    lhs, rhs = operands.split(",")
    order = loops or "".join(dict.fromkeys(out + lhs + rhs))
    dims = ", ".join(f"d{position}" for position in range(len(order)))

    def affine(letters: str) -> str:
        return f"affine_map<({dims}) -> ({', '.join(f'd{order.index(letter)}' for letter in letters)})>"

    def positions(chosen: set[str]) -> tuple[int, ...]:
        return tuple(sorted(order.index(letter) for letter in chosen))

    def tensor(letters: str, element: str) -> Tensor:
        return Tensor(tuple(sizes[letter] for letter in letters), element)

    return RootOp(
        op="linalg.generic",
        kind="contraction",
        loops=tuple(sizes[letter] for letter in order),
        iterators=tuple("parallel" if letter in out else "reduction" for letter in order),
        maps=(affine(lhs), affine(rhs), affine(out)),
        inputs=(tensor(lhs, elements[0]), tensor(rhs, elements[1])),
        outputs=(tensor(out, elements[2]),),
        batch=positions(set(lhs) & set(rhs) & set(out)),
        m=positions(set(lhs) & set(out) - set(rhs)),
        n=positions(set(rhs) & set(out) - set(lhs)),
        k=positions(set(lhs) & set(rhs) - set(out)),
    )


BASE = {"m": 64, "n": 32, "k": 16}
F16_F32 = ("f16", "f16", "f32")
MATMUL = contraction("mk,kn->mn", BASE)

# Each differs from another one in a single respect.
CONTRACTIONS = {
    "matmul": MATMUL,
    "other m": contraction("mk,kn->mn", BASE | {"m": 128}),
    "other n": contraction("mk,kn->mn", BASE | {"n": 64}),
    "other k": contraction("mk,kn->mn", BASE | {"k": 32}),
    "m and n exchanged": contraction("mk,kn->mn", {"m": 32, "n": 64, "k": 16}),
    "m and k exchanged": contraction("mk,kn->mn", {"m": 16, "n": 32, "k": 64}),
    "transposed lhs": contraction("km,kn->mn", BASE),
    "transposed rhs": contraction("mk,nk->mn", BASE),
    "both transposed": contraction("km,nk->mn", BASE),
    "transposed result": contraction("mk,kn->nm", BASE, loops="mnk"),
    "reduction loop first": contraction("mk,kn->mn", BASE, loops="kmn"),
    "f16": contraction("mk,kn->mn", BASE, ("f16", "f16", "f16")),
    "f16 to f32": contraction("mk,kn->mn", BASE, F16_F32),
    "bf16 to f32": contraction("mk,kn->mn", BASE, ("bf16", "bf16", "f32")),
    "f16 and f32 to f32": contraction("mk,kn->mn", BASE, ("f16", "f32", "f32")),
    "f32 and f16 to f32": contraction("mk,kn->mn", BASE, ("f32", "f16", "f32")),
    "f16 to f32, transposed rhs": contraction("mk,nk->mn", BASE, F16_F32),
    "i8 to i32": contraction("mk,kn->mn", BASE, ("i8", "i8", "i32")),
    "i32": contraction("mk,kn->mn", BASE, ("i32", "i32", "i32")),
    "batch": contraction("bmk,bkn->bmn", BASE | {"b": 4}),
    "batch of another size": contraction("bmk,bkn->bmn", BASE | {"b": 8}),
    "batch of one": contraction("bmk,bkn->bmn", BASE | {"b": 1}),
    "broadcast rhs": contraction("bmk,kn->bmn", BASE | {"b": 4}),
    "several m": contraction("amk,kn->amn", BASE | {"a": 8}),
    "several m, sizes exchanged": contraction("amk,kn->amn", BASE | {"a": 64, "m": 8}),
    "several m, n and k": contraction("amkl,klnp->amnp", BASE | {"a": 2, "l": 4, "p": 8}),
    "several k, sizes exchanged": contraction("amkl,klnp->amnp", BASE | {"a": 2, "k": 4, "l": 16, "p": 8}),
    "two batches": contraction("abmk,abkn->abmn", BASE | {"a": 2, "b": 3}),
    "matrix by vector": contraction("mk,k->m", BASE),
    "a loop of one input": contraction("mkr,kn->mn", BASE | {"r": 4}),
    "a loop of one input, of another size": contraction("mkr,kn->mn", BASE | {"r": 8}),
    "vector by matrix": contraction("k,kn->n", BASE),
}


def payload(roots: dict[str, RootOp]) -> str:
    """A module at ``executable-sources`` with one function per op."""
    functions = "".join(
        f'func.func @"{name}"({_arguments(root)}) {{ {_op(root)} return }}\n' for name, root in roots.items()
    )
    return (
        "module { hal.executable private @ops { hal.executable.variant public @cpu "
        'target(<"llvm-cpu", "embedded-elf-x86_64">) { builtin.module {\n' + functions + "} } } }"
    )


def _tensor(tensor: Tensor) -> str:
    return f"tensor<{'x'.join(map(str, tensor.shape))}x{tensor.element}>"


def _arguments(root: RootOp) -> str:
    return ", ".join(f"%{i}: {_tensor(tensor)}" for i, tensor in enumerate((*root.inputs, *root.outputs)))


def _op(root: RootOp) -> str:
    lhs, rhs, out = (tensor.element for tensor in (*root.inputs, *root.outputs))
    integer = out.startswith("i")
    extend, multiply, add = ("extsi", "muli", "addi") if integer else ("extf", "mulf", "addf")
    body = ""
    for name, element in (("x", lhs), ("y", rhs)):
        if element == out:
            continue
        body += f"%{name}w = arith.{extend} %{name} : {element} to {out} "
    x, y = ("%x" if lhs == out else "%xw"), ("%y" if rhs == out else "%yw")
    types = [_tensor(tensor) for tensor in (*root.inputs, *root.outputs)]
    iterators = ", ".join(f'"{iterator}"' for iterator in root.iterators)
    return (
        f"%r = linalg.generic {{indexing_maps = [{', '.join(root.maps)}], iterator_types = [{iterators}]}} "
        f"ins(%0, %1 : {types[0]}, {types[1]}) outs(%2 : {types[2]}) "
        f"{{ ^bb0(%x: {lhs}, %y: {rhs}, %z: {out}): {body}"
        f"%p = arith.{multiply} {x}, {y} : {out} %s = arith.{add} %z, %p : {out} "
        f"linalg.yield %s : {out} }} -> {types[2]}"
    )


@pytest.fixture(scope="module")
def all_ops() -> str:
    return payload(CONTRACTIONS)


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_an_entry_matches_its_op_and_no_other(name: str, all_ops: str) -> None:
    configured = configure_with(all_ops, single_entry_spec(CONTRACTIONS[name], info(128)))
    assert [applied.function for applied in configured.applied] == [name]
    assert why_not_applied(configured, info(128)) is None


def test_many_entries_each_take_their_own_op(all_ops: str) -> None:
    entries = [
        SpecEntry(name=name, root=root, compilation_info=info(8 * (number + 1)))
        for number, (name, root) in enumerate(CONTRACTIONS.items())
    ]
    configured = configure_with(all_ops, build_spec(entries))
    tiles = {applied.function: applied.config for applied in configured.applied}
    assert list(tiles) == list(CONTRACTIONS)
    assert all(f"[{8 * (number + 1)}, 256, 0]" in tile for number, tile in enumerate(tiles.values()))


def test_a_matcher_sees_named_ops_and_generics_alike() -> None:
    text = payload({"matmul": MATMUL})
    head, _, tail = text.partition("%r = ")
    named = (
        head + "%r = linalg.matmul ins(%0, %1 : tensor<64x16xf32>, tensor<16x32xf32>) "
        "outs(%2 : tensor<64x32xf32>) -> tensor<64x32xf32>" + tail[tail.index(" return") :]
    )
    (applied,) = configure_with(named, single_entry_spec(MATMUL, info(128))).applied
    assert applied.op == "linalg.matmul"


def test_an_op_with_another_body_is_not_matched() -> None:
    text = payload({"matmul": MATMUL})
    assert configure_with(text.replace("arith.mulf", "arith.divf"), single_entry_spec(MATMUL, info(128))).applied == ()


def test_a_kind_without_matcher_is_refused() -> None:
    root = RootOp(
        op="linalg.softmax", kind="other", loops=(8,), iterators=("parallel",), maps=(), inputs=(), outputs=()
    )
    assert has_matcher(MATMUL)
    assert not has_matcher(root)
    with pytest.raises(InputError, match=r"kind 'other' \(linalg.softmax\)"):
        single_entry_spec(root, info(128))


@pytest.mark.parametrize("text", ["#nobody.knows<this>", "42 : i32", "", '"compilation_info"'])
def test_a_text_that_is_no_compilation_info_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a"):
        single_entry_spec(MATMUL, text)


def entry(name: str, root: RootOp = MATMUL, tile: int = 128, **provenance: str | float) -> SpecEntry:
    return SpecEntry(name=name, root=root, compilation_info=info(tile), provenance=provenance)


def test_names_are_made_fit_for_symbols_and_kept_apart() -> None:
    other = CONTRACTIONS["other m"]
    rows = read_spec(build_spec([entry("main.$async 3"), entry("main_$async-3", other), entry("größe", other)]))
    assert [row.matcher for row in rows] == ["match_main__async_3", "match_main__async_3_2", "match_gr__e"]


def test_a_spec_needs_something_in_it() -> None:
    with pytest.raises(ValueError, match="an entry or a starter"):
        build_spec([])


def test_provenance_is_written_and_read_back_and_does_not_disturb() -> None:
    said: dict[str, str | int | float] = {"device": 'AMD "EPYC"', "speedup": 1.5, "runs": 60, "IREE version": "3.13.0"}
    text = build_spec([SpecEntry(name="mm", root=MATMUL, compilation_info=info(128), provenance=said)])
    assert read_spec(text)[0].provenance == said
    assert why_not_applied(configure_with(payload({"mm": MATMUL}), text), info(128)) is None


def linked(*specs: list[SpecEntry]) -> str:
    """Link lists of entries, the first behind none, each later one in front of all before it."""
    text = None
    for entries in reversed(specs):
        text = link_spec(build_spec(entries, text))
    assert text is not None
    return text


TRANSPOSED, HALF, BATCH = (CONTRACTIONS[name] for name in ("transposed rhs", "f16 to f32", "batch"))


def test_linking_puts_new_entries_before_the_starters() -> None:
    text = linked([entry("new", MATMUL), entry("new too", HALF)], [entry("old", TRANSPOSED)], [entry("oldest", BATCH)])
    assert [row.matcher for row in read_spec(text)] == ["match_new", "match_new_too", "match_old", "match_oldest"]


def test_a_linked_spec_has_one_entrypoint_and_round_trips() -> None:
    text = linked([entry("new", MATMUL)], [entry("old", TRANSPOSED)])
    assert text.count("@__kernel_config(") == 1
    assert text.count("transform.foreach_match") == 1
    assert text.count("module ") == 1
    assert "iree_codegen.tuning_spec_with_default_entrypoint" in text
    assert link_spec(text) == text
    configured = configure_with(payload({"a": MATMUL, "b": TRANSPOSED}), text)
    assert [applied.function for applied in configured.applied] == ["a", "b"]


def test_names_that_a_starter_uses_too_stay_apart() -> None:
    text = linked([entry("mm", MATMUL, 64)], [entry("mm", TRANSPOSED, 128)])
    assert [row.matcher for row in read_spec(text)] == ["match_mm", "match_mm_2"]
    configured = configure_with(payload({"a": MATMUL, "b": TRANSPOSED}), text)
    assert ["[64, " in applied.config for applied in configured.applied] == [True, False]


def test_dispatches_that_a_starter_tells_too_stay_apart() -> None:
    """A record is found by the name of its dispatch, which another op may have had in the starter."""
    ours, same, otherwise = (
        entry(name, root, 64, dispatch="mm") for name, root in (("mm", MATMUL), ("mm", TRANSPOSED), ("by hand", HALF))
    )
    text = linked([ours], [same, otherwise, entry("b", BATCH, dispatch="mm_2")])
    told = [(row.matcher, row.provenance["dispatch"]) for row in read_spec(text)]
    names = [("match_mm", "mm"), ("match_mm_3", "mm_3"), ("match_mm_4", "mm_4"), ("match_b", "mm_2")]
    assert told == names
    assert link_spec(build_spec([ours], text)) == text


def test_a_new_entry_takes_the_place_of_the_starters() -> None:
    text = linked(
        [entry("mm", MATMUL, 64)], [entry("t", TRANSPOSED, speedup=2.0), entry("mm", MATMUL, 128, speedup=1.2)]
    )
    assert [(row.matcher, "[64, " in row.compilation_info) for row in read_spec(text)] == [
        ("match_mm", True),
        ("match_t", False),
    ]
    assert why_not_applied(configure_with(payload({"a": MATMUL}), text), info(64)) is None


def test_tuning_again_does_not_grow_a_spec() -> None:
    text = linked([entry("mm"), entry("t", TRANSPOSED)])
    sizes = []
    for tile in (16, 32, 64):
        text = link_spec(build_spec([entry("mm", tile=tile)], text))
        sizes.append(len(text))
    assert sizes == [len(text)] * 3
    alone = link_spec(build_spec([entry("mm", tile=8)], build_spec([entry("mm", tile=4)])))
    assert alone == build_spec([entry("mm", tile=8)])


def test_marks_tell_which_entry_took_which_op() -> None:
    text = linked([entry("mm", MATMUL, 64)], [entry("t", TRANSPOSED), entry("unused", BATCH)])
    configured = configure_with(payload({"a": MATMUL, "b": TRANSPOSED, "c": HALF}), mark_entries(text))
    assert [(each.function, each.entry) for each in configured.applied] == [("a", "match_mm"), ("b", "match_t")]
    assert MARK not in configured.text
    plain = configure_with(payload({"a": MATMUL, "b": TRANSPOSED, "c": HALF}), text)
    assert configured.text == plain.text
    assert [each.entry for each in plain.applied] == ["", ""]


def test_a_spec_by_hand_can_be_marked() -> None:
    configured = configure_with(payload({"a": MATMUL}), mark_entries(GENERAL_FORM))
    assert [each.entry for each in configured.applied] == ["match_any"]


def test_a_spec_cannot_speak_for_another_entry() -> None:
    """Its action annotates the op with our own mark."""
    forged = """transform.annotate %op "by_hand" : !transform.any_op
    %other = transform.param.constant "match_other" -> !transform.any_param
    transform.annotate %op "shark_tune.entry" = %other : !transform.any_op, !transform.any_param"""
    spec = GENERAL_FORM.replace('transform.annotate %op "by_hand" : !transform.any_op', forged)
    assert spec != GENERAL_FORM
    configured = configure_with(payload({"a": MATMUL}), mark_entries(spec))
    assert [each.entry for each in configured.applied] == ["match_any"]


def test_executables_can_be_exchanged() -> None:
    default, tuned = payload({"a": MATMUL}), configure_with(payload({"a": MATMUL}), build_spec([entry("mm")])).text
    assert [each.function for each in read_configs(replace_executables(default, tuned, ["ops"]))] == ["a"]
    assert read_configs(replace_executables(tuned, default, ["ops"])) == ()
    assert [each.function for each in read_configs(replace_executables(tuned, default, []))] == ["a"]


def test_a_starter_alone_is_a_spec() -> None:
    text = build_spec([entry("mm")])
    assert build_spec([], text) == text


GENERAL_FORM = """
module @by_hand attributes {transform.with_named_sequence} {
  transform.named_sequence @apply_op_config(%op: !transform.any_op {transform.readonly}, %config: !transform.any_param {transform.readonly}) {
    transform.annotate %op "compilation_info" = %config : !transform.any_op, !transform.any_param
    transform.annotate %op "by_hand" : !transform.any_op
    transform.yield
  }
  transform.named_sequence @match_mm(%op: !transform.any_op {transform.readonly}) -> !transform.any_op {
    transform.match.operation_name %op ["linalg.generic"] : !transform.any_op
    transform.yield %op : !transform.any_op
  }
  transform.named_sequence @match_any(%op: !transform.any_op {transform.readonly}) -> (!transform.any_op, !transform.any_param) {
    %0 = transform.include @match_mm failures(propagate) (%op) : (!transform.any_op) -> !transform.any_op
    %config = transform.param.constant INFO -> !transform.any_param
    transform.yield %op, %config : !transform.any_op, !transform.any_param
  }
  transform.named_sequence @main(%op: !transform.any_op {transform.consumed}) -> !transform.any_op attributes {iree_codegen.tuning_spec_entrypoint} {
    %done = transform.foreach_match in %op @match_any -> @apply_op_config : (!transform.any_op) -> !transform.any_op
    transform.yield %done : !transform.any_op
  }
}
""".replace("INFO", info(512))  # noqa: E501


def test_a_starter_written_by_hand_in_the_general_form_stays_behind() -> None:
    text = link_spec(build_spec([entry("mm", MATMUL, 64)], GENERAL_FORM))
    assert [row.matcher for row in read_spec(text)] == ["match_mm", "match_any"]
    configured = configure_with(payload({"a": MATMUL, "b": TRANSPOSED}), text)
    assert ["[64, " in applied.config for applied in configured.applied] == [True, False]
    # Its own action and the matcher that it includes were renamed, not replaced by ours of the same name.
    assert configured.text.count("by_hand") == 1


def test_a_spec_without_a_name_in_the_general_form_can_be_applied() -> None:
    text = GENERAL_FORM.replace("module @by_hand", "module")
    assert why_not_applied(configure_with(payload({"a": MATMUL}), text), info(512)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("this is no MLIR", "not MLIR that this IREE parses.*shark-tune port"),
        ("func.func @main() { return }", "no entrypoint"),
        ("module {}", "no entrypoint"),
        (GENERAL_FORM.replace("@match_any -> @apply_op_config", "@missing -> @apply_op_config"), "missing"),
        (GENERAL_FORM.replace("#iree_cpu.lowering_config<", "#iree_cpu.no_such_config<"), "no_such_config"),
    ],
)
def test_a_starter_that_cannot_be_linked_is_refused(text: str, message: str) -> None:
    for use in (check_starter, lambda starter, name: build_spec([entry("mm")], starter)):
        with pytest.raises(InputError, match=f"(?s)the starter spec.*{message}"):
            use(text, "the starter spec")
    with pytest.raises(InputError, match=r"^specs/old\.mlir"):
        check_starter(text, "specs/old.mlir")


@pytest.mark.parametrize("directory", ["a b", "it's", 'a"b', "a$b", "a}b", "{ab", "a,b", "größe", "a(b)@c"])
def test_a_spec_is_found_whatever_its_path(directory: str, tmp_path: Path) -> None:
    path = tmp_path / directory / f"spec {directory}.mlir"
    path.parent.mkdir()
    path.write_text(single_entry_spec(MATMUL, info(128)), encoding="utf-8")
    assert why_not_applied(configure(payload({"mm": MATMUL}), path), info(128)) is None


def test_what_the_compiler_says_is_in_the_error() -> None:
    twice = payload({"mm": MATMUL}).replace("%r = ", "%q = ", 1)
    op, _, tail = twice.partition(" return }")
    again = op[op.index("%q = ") :].replace("%q", "%r").replace("outs(%2", "outs(%q")
    with pytest.raises(ConfigureFailed, match="multiple ops within dispatch") as caught:
        configure_with(f"{op} {again} return }}{tail}", single_entry_spec(MATMUL, info(128)))
    assert "see current operation" not in str(caught.value)


def test_what_cannot_be_read_is_the_users_mistake(tmp_path: Path) -> None:
    module = payload({"mm": MATMUL})
    with pytest.raises(InputError, match=r"absent\.mlir cannot be read: No such file"):
        configure(module, tmp_path / "absent.mlir")
    broken = tmp_path / "broken.mlir"
    broken.write_text("nonsense", encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.mlir is not MLIR.*:1:1.*nonsense"):
        configure(module, broken)
    with pytest.raises(InputError, match="the module is not MLIR"):
        configure_with("nonsense", single_entry_spec(MATMUL, info(128)))
    with pytest.raises(ConfigureFailed, match=r'"the tuning spec":1:1.*is not a transform dialect library'):
        configure_with(module, "module {}")


def test_a_reason_says_what_is_there_instead() -> None:
    spec = single_entry_spec(MATMUL, info(128))
    missed = why_not_applied(configure_with(payload({"t": TRANSPOSED}), spec), info(128))
    assert missed is not None
    assert "matches none" in missed
    other = why_not_applied(configure_with(payload({"mm": MATMUL}), spec), info(64))
    assert other is not None
    assert "another config" in other
    assert "[128, 256, 0]" in other


def test_a_config_is_compared_as_an_attribute() -> None:
    configured = configure_with(payload({"mm": MATMUL}), single_entry_spec(MATMUL, info(128)))
    (applied,) = configured.applied
    assert applied == Applied(
        symbol="ops",
        function="mm",
        op="linalg.generic",
        config="#iree_cpu.lowering_config<distribution = [128, 256, 0], vector_common_parallel = [8, 32, 0], "
        "vector_reduction = [0, 0, 8]>",
        translation="#iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>",
        compilation_info=applied.compilation_info,
    )
    for spelling in (info(128), info(128).replace(", ", " ,  "), applied.compilation_info):
        assert why_not_applied(configured, spelling) is None
    for wrong in ("#nobody.knows<this>", ""):
        with pytest.raises(InputError, match="not a compilation_info"):
            why_not_applied(configured, wrong)


def test_a_candidates_spec_is_made_quickly() -> None:
    def seconds() -> float:
        started = time.perf_counter()
        single_entry_spec(MATMUL, info(128))
        return time.perf_counter() - started

    # 13 ms where it was measured; a process of iree-opt would take 150.
    assert min(seconds() for _ in range(10)) < 0.1


def check_golden(file: str, text: str) -> None:
    if os.environ.get(UPDATE):
        (GOLDEN / file).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / file).read_text(encoding="utf-8"), (
        f"if that is right: {UPDATE}=1 python -m pytest {__file__}"
    )


def test_one_contraction_is_the_golden_spec() -> None:
    check_golden("spec_contraction.mlir", build_spec([entry("matmul_64x32x16_f32", speedup=1.5, device="test")]))


def test_two_linked_entries_are_the_golden_spec() -> None:
    new, starter = [entry("matmul_64x32x16_f32", tile=64)], [entry("batch_matmul_4x64x32x16_f32", BATCH)]
    check_golden("spec_linked.mlir", linked(new, starter))
