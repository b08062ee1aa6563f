"""A form that computes something else leaves a small part of the model that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.forms.mlir_rewrites import GROUP
from pytest_shark_tune.plan.make import found_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.records.types import State
from pytest_shark_tune.results.form_results import named_wrong_part
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.model.forms import FormRace
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings
from tests.packages import install_package

TENSOR = "tensor<16x16xf32>"
MODEL = f"""
func.func private @untouched() -> f32
func.func @main(%x: {TENSOR}, %w: {TENSOR}) -> {TENSOR} {{
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : {TENSOR}
  %init = linalg.fill ins(%zero : f32) outs(%empty : {TENSOR}) -> {TENSOR}
  %a = linalg.matmul ins(%x, %w : {TENSOR}, {TENSOR}) outs(%init : {TENSOR}) -> {TENSOR}
  %b = math.tanh %a : {TENSOR}
  %factor = arith.constant dense<2.0> : {TENSOR}
  %c = arith.mulf %b, %factor : {TENSOR}
  %d = linalg.matmul ins(%c, %w : {TENSOR}, {TENSOR}) outs(%init : {TENSOR}) -> {TENSOR}
  %e = math.exp %d : {TENSOR}
  %f = linalg.matmul ins(%e, %w : {TENSOR}, {TENSOR}) outs(%init : {TENSOR}) -> {TENSOR}
  return %f : {TENSOR}
}}
"""
REWRITE = """
from iree.compiler import ir

def double(module):
    places = 0
    for function in module.body.operations:
        for op in [op for block in function.regions[0].blocks for op in block.operations]:
            value = str(op.operation.attributes["value"]) if "value" in op.operation.attributes else ""
            if "dense<2.0" in value:
                op.operation.attributes["value"] = ir.Attribute.parse(value.replace("2.0", "4.0"))
                places += 1
    return places
"""


@pytest.fixture
def session(tmp_path: Path, tune_cache: Path) -> Iterator[Session]:
    settings = RunSettings.in_directory(tmp_path, ["local-task"], "cpu", jobs=2)
    with closing(Session(settings, Compiler(Target.parse("llvm-cpu")), Cache(tune_cache))) as session:
        yield session


@pytest.mark.slow
def test_a_wrong_form_leaves_the_op_that_is_wrong(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_package(tmp_path, "their_rewrites", REWRITE, {GROUP: {"double": "double"}}, monkeypatch)
    (tmp_path / "model.mlir").write_text(MODEL)
    plan = found_dispatches([read_source("model.mlir", tmp_path)], session.compiler, processors=2)
    race = FormRace(session.builder, session.untuned, session.models, lambda message: None)
    form = Form(name="twice", rewrites=("double",))
    found = {result.form.name: result for result in race.run(plan, plan.sources[0], [form], lambda: False)}
    wrong = found["twice"]
    assert wrong.state == State.WRONG_RESULT
    assert "a part of 2 ops that shows it" in wrong.reason
    assert wrong.wrong_part.startswith("// On random inputs the form twice (no flags, rewritten by double) gives other")
    ops = [line.split()[2] for line in wrong.wrong_part.splitlines() if " = " in line]
    assert ops == ["arith.constant", "arith.mulf"]
    assert named_wrong_part(wrong).wrong_part == "model-form-twice.wrong.mlir"
    assert session.compiler.lower(wrong.wrong_part, to="executable-sources")


def test_a_right_form_leaves_none(session: Session, tmp_path: Path) -> None:
    (tmp_path / "model.mlir").write_text(MODEL)
    plan = found_dispatches([read_source("model.mlir", tmp_path)], session.compiler, processors=2)
    race = FormRace(session.builder, session.untuned, session.models, lambda message: None)
    results = race.run(plan, plan.sources[0], [Form(name="O1", flags=("--iree-opt-level=O1",))], lambda: False)
    assert [result.wrong_part for result in results] == ["", ""]
