from __future__ import annotations

import pytest
import z3
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen

from pytest_shark_tune.search_space.constraints import UnreadableConstraints, spaces_in
from pytest_shark_tune.search_space.domains import UnboundedKnob

TOY = """
func.func @toy() {
  %c48 = arith.constant 48 : index
  %c36 = arith.constant 36 : index
  iree_codegen.smt.constraints target = <set = 0>, pipeline = #iree_gpu.pipeline<TileAndFuse>,
   knobs = {
     fixed = [1, 0],
     mma_kind = #iree_codegen.smt.one_of_knob<"mma", [
       #iree_gpu.mma_layout<MFMA_F32_16x16x16_F16>, #iree_gpu.mma_layout<MFMA_F32_32x32x8_F16>]>,
     nested = {inner = [[#iree_codegen.smt.int_knob<"sg">], 3]},
     workgroup = [#iree_codegen.smt.int_knob<"wg">, 0]
   } dims(%c48, %c36) {
  ^bb0(%m: !smt.int, %n: !smt.int):
    %s48 = smt.int.constant 48
    %s36 = smt.int.constant 36
    %m48 = smt.eq %m, %s48 : !smt.int
    iree_codegen.smt.assert %m48, "dim_0 ({}) == 48", %m : !smt.bool, !smt.int
    %n36 = smt.eq %n, %s36 : !smt.int
    iree_codegen.smt.assert %n36, "dim_1 ({}) == 36", %n : !smt.bool, !smt.int
    %wg = iree_codegen.smt.knob "wg" : !smt.int
    %sg = iree_codegen.smt.knob "sg" : !smt.int
    %mma = iree_codegen.smt.knob "mma" : !smt.int
    %zero = smt.int.constant 0
    %one = smt.int.constant 1
    %first = smt.int.cmp ge %mma, %zero
    iree_codegen.smt.assert %first, "mma >= 0" : !smt.bool
    %last = smt.int.cmp le %mma, %one
    iree_codegen.smt.assert %last, "mma <= 1" : !smt.bool
    %size = iree_codegen.smt.lookup %mma [0, 1] -> [2, 4] : !smt.int
    %rest = smt.int.mod %m, %wg
    %divides = smt.eq %rest, %zero : !smt.int
    iree_codegen.smt.assert %divides, "dim_0 must be divisible by wg ({} % {} == 0)", %m, %wg
      : !smt.bool, !smt.int, !smt.int
    %positive = smt.int.cmp ge %wg, %one
    iree_codegen.smt.assert %positive, "wg >= 1" : !smt.bool
    %some = smt.int.cmp ge %sg, %one
    iree_codegen.smt.assert %some, "sg >= 1" : !smt.bool
    %count = smt.declare_fun "count" : !smt.int
    %counted = smt.int.cmp ge %count, %one
    iree_codegen.smt.assert %counted, "count >= 1" : !smt.bool
    %product = smt.int.mul %sg, %count, %size
    %whole = smt.eq %wg, %product : !smt.int
    iree_codegen.smt.assert %whole, "wg == sg * count * size" : !smt.bool
    %small = smt.int.cmp le %sg, %n
    %few = smt.int.cmp lt %count, %sg
    %either = smt.or %few, %small
    %not = smt.not %few
    %implied = smt.implies %not, %either
    iree_codegen.smt.assert %implied, "few or small" : !smt.bool
  }
  return
}
"""


def compilers_smtlib(text: str) -> str:
    with ir.Context():
        module = ir.Module.parse(text)
        (op,) = ir.get_ops_of_type(module, iree_codegen.ConstraintsOp)
        return str(iree_codegen.convert_constraints_op_to_smtlib(op, emit_reset=False))


def solutions(smtlib: str, names: tuple[str, ...]) -> set[tuple[int, ...]]:
    solver = z3.Solver()
    solver.add(z3.parse_smt2_string(smtlib))
    found = set()
    while solver.check() == z3.sat:
        model = solver.model()
        values = tuple(model.eval(z3.Int(name), model_completion=True).as_long() for name in names)
        found.add(values)
        solver.add(z3.Or(*(z3.Int(name) != value for name, value in zip(names, values, strict=True))))
    return found


def test_knobs_are_found_at_any_depth_and_in_any_form() -> None:
    (space,) = spaces_in(TOY)
    assert space.pipeline == "TileAndFuse"
    assert space.pipeline_attribute == "#iree_gpu.pipeline<TileAndFuse>"
    assert space.names == ("mma", "sg", "wg")
    assert [helper.name for helper in space.helpers] == ["count"]
    domains = {knob.name: knob.domain for knob in space.knobs}
    assert domains["mma"] == (0, 1)
    assert domains["wg"] == (2, 4, 6, 8, 12, 16, 24, 48)


def test_enumeration_equals_what_z3_finds_in_the_compilers_own_smtlib() -> None:
    (space,) = spaces_in(TOY)
    members = {tuple(row) for row in space.members().tolist()}
    assert len(members) > 20
    assert members == solutions(compilers_smtlib(TOY), space.names)
    assert members == solutions(space.smtlib(), space.names)


def test_messages_are_the_compilers_with_values_filled_in() -> None:
    (space,) = spaces_in(TOY)
    assert space.violated({"mma": 0, "sg": 1, "wg": 7}) == ("dim_0 must be divisible by wg (48 % 7 == 0)",)
    assert space.violated({"mma": 3, "sg": 1, "wg": 48}) == ("mma <= 1",)


def test_fixed_dimensions_leave_no_constraint_behind() -> None:
    (space,) = spaces_in(TOY)
    assert not [constraint for constraint in space.constraints if constraint.message.startswith("dim_0 ({})")]


def test_a_knob_that_nothing_bounds_is_told() -> None:
    free = TOY.replace('iree_codegen.smt.assert %last, "mma <= 1" : !smt.bool', "")
    with pytest.raises(UnboundedKnob, match="upper bound of mma"):
        spaces_in(free)


def test_a_knob_that_nothing_mentions_is_told() -> None:
    silent = TOY.replace("fixed = [1, 0]", 'fixed = [#iree_codegen.smt.int_knob<"lost">, 0]')
    with pytest.raises(UnreadableConstraints, match="no constraint mentions the knob lost"):
        spaces_in(silent)


def test_an_operation_that_is_no_integer_arithmetic_is_told() -> None:
    odd = TOY.replace(
        "%some = smt.int.cmp ge %sg, %one",
        "%bits = smt.int2bv %sg : !smt.bv<8>\n    %some = smt.eq %bits, %bits : !smt.bv<8>",
    )
    with pytest.raises(UnreadableConstraints, match=r"smt\.int2bv"):
        spaces_in(odd)


def test_a_module_without_constraints_has_no_space() -> None:
    assert spaces_in("func.func @nothing() { return }") == ()
