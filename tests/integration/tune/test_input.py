"""What can be tuned: model files in each form, benchmark files that iree-compile dumped, and what is found in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_shark_tune.compiler.compiler import Compiler, environment
from pytest_shark_tune.compiler.target import Target
from tests.models import matmuls

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Outcome, Suite

DEFAULTS = ("--tune-trials=1", "-k", "default")
NO_FINALS = ("--tune-trials=1", "-k", "not final and not spec and not end-to-end")

MATMUL = matmuls('"name with $"', 32, 32, 32)

# Three equal products (two calls of one dispatch with a relu, one without), one of another size, and a sum of all.
MODEL = """
#id = affine_map<(d0, d1) -> (d0, d1)>
#total = affine_map<(d0, d1) -> ()>
!square = tensor<32x32xf32>

func.func @main(%a: !square, %b: !square, %c: tensor<32x16xf32>) -> (!square, tensor<32x16xf32>, tensor<f32>) {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : !square
  %f = linalg.fill ins(%zero : f32) outs(%e : !square) -> !square
  %0 = linalg.matmul ins(%a, %b : !square, !square) outs(%f : !square) -> !square
  %1 = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
      ins(%0 : !square) outs(%e : !square) {
  ^bb0(%x: f32, %unused: f32):
    %m = arith.maximumf %x, %zero : f32
    linalg.yield %m : f32
  } -> !square
  %2 = linalg.matmul ins(%1, %b : !square, !square) outs(%f : !square) -> !square
  %3 = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
      ins(%2 : !square) outs(%e : !square) {
  ^bb0(%x: f32, %unused: f32):
    %m = arith.maximumf %x, %zero : f32
    linalg.yield %m : f32
  } -> !square
  %4 = linalg.matmul ins(%3, %b : !square, !square) outs(%f : !square) -> !square
  %e5 = tensor.empty() : tensor<32x16xf32>
  %f5 = linalg.fill ins(%zero : f32) outs(%e5 : tensor<32x16xf32>) -> tensor<32x16xf32>
  %5 = linalg.matmul ins(%4, %c : !square, tensor<32x16xf32>) outs(%f5 : tensor<32x16xf32>) -> tensor<32x16xf32>
  %e6 = tensor.empty() : tensor<f32>
  %f6 = linalg.fill ins(%zero : f32) outs(%e6 : tensor<f32>) -> tensor<f32>
  %6 = linalg.generic {indexing_maps = [#id, #total], iterator_types = ["reduction", "reduction"]}
      ins(%5 : tensor<32x16xf32>) outs(%f6 : tensor<f32>) {
  ^bb0(%x: f32, %sum: f32):
    %y = math.absf %x : f32
    %s = arith.addf %sum, %y : f32
    linalg.yield %s : f32
  } -> tensor<f32>
  return %4, %5, %6 : !square, tensor<32x16xf32>, tensor<f32>
}
"""


@pytest.fixture(scope="module")
def suite(make_suite: MakeSuite) -> Suite:
    suite = make_suite({"sub directory/a model with $ in it.mlir": MATMUL, "model.mlir": MODEL})
    suite.write("test_nothing.py", "def test_nothing():\n    pass\n")
    return suite


@pytest.fixture(scope="module")
def model(suite: Suite) -> Outcome:
    return suite.tune("-v", "model.mlir", *NO_FINALS, out="model")


def dump(suite: Suite, directory: str, *flags: str) -> Path:
    """The benchmark file of the matrix product's only dispatch, as a user has it dumped."""
    out = suite.directory / directory
    command: list[str | Path] = [
        Path(sys.prefix, "bin", "iree-compile"),
        "sub directory/a model with $ in it.mlir",
        "-o",
        "model.vmfb",
    ]
    command += [*Target.parse("llvm-cpu").flags, f"--iree-hal-dump-executable-benchmarks-to={out}", *flags]
    subprocess.run(command, cwd=suite.directory, check=True, env=environment())
    (file,) = list(out.glob("*.mlir"))
    return file.relative_to(suite.directory)


def test_a_model_file_needs_no_suite(suite: Suite) -> None:
    outcome = suite.tune("-v", "sub directory/a model with $ in it.mlir", *NO_FINALS, out="spaces")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(
        ["sub directory/a model with $ in it.mlir::test_dispatch[[]matmul_32x32x32_f32-default[]] *"]
    )
    assert [each["state"] for each in outcome.records] == ["measured", "measured"]
    assert not (suite.directory / "sub directory" / "__specs__").exists(), "snapshots are for suites"


@pytest.mark.slow
def test_a_model_file_with_workers(suite: Suite) -> None:
    outcome = suite.tune("-n2", "sub directory/a model with $ in it.mlir", "model.mlir", *DEFAULTS, out="workers")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(["*3 passed in *"])


def test_a_model_file_without_tune_is_skipped_with_the_command(suite: Suite) -> None:
    outcome = suite.run("-rs", "sub directory/a model with $ in it.mlir")
    outcome.lines.fnmatch_lines(
        [
            "SKIPPED *: there is nothing to guard: pytest 'sub directory/a model with $ in it.mlir' --tune * tunes it*",
            "*1 skipped in *",
        ]
    )


def test_a_model_found_on_the_way_is_left_alone(suite: Suite) -> None:
    assert suite.collect(".") == ["test_nothing.py::test_nothing"]


def test_a_model_is_collected_beside_a_directory_that_it_is_in(suite: Suite) -> None:
    nodes = suite.collect(".", "sub directory/a model with $ in it.mlir")
    assert {node.partition("::")[0] for node in nodes} == {"test_nothing.py", "sub directory/a model with $ in it.mlir"}


@pytest.mark.slow
def test_bytecode(suite: Suite) -> None:
    opt: list[str | Path] = [Path(sys.prefix, "bin", "iree-opt"), "model.mlir", "--emit-bytecode", "-o", "model.mlirbc"]
    subprocess.run(opt, cwd=suite.directory, check=True)
    text, bytecode = (suite.collect(name, "--tune-trials=1") for name in ("model.mlir", "model.mlirbc"))
    assert [each.partition("::")[2] for each in bytecode] == [each.partition("::")[2] for each in text]


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((), id="plain"),
        pytest.param(("--iree-codegen-add-tuner-attributes",), id="with-root-op", marks=pytest.mark.slow),
    ],
)
def test_a_benchmark_file_that_was_dumped(suite: Suite, flags: tuple[str, ...]) -> None:
    file = dump(suite, f"dump{len(flags)}", *flags)
    assert "$" in file.name
    outcome = suite.tune(str(file), *NO_FINALS, out=f"dumped{len(flags)}")
    assert outcome.status == 0, outcome.text
    assert [each["state"] for each in outcome.records] == ["measured", "measured"]
    assert outcome.summary["untunable"] == []


def test_an_onnx_model(suite: Suite) -> None:
    onnx: Any = pytest.importorskip("onnx")
    f32 = onnx.TensorProto.FLOAT
    shapes = {"x": (32, 32), "w": (32, 32), "y": (32, 32)}
    x, w, y = (onnx.helper.make_tensor_value_info(name, f32, shape) for name, shape in shapes.items())
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "tiny", [x, w], [y])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    suite.write("tiny.onnx", made.SerializeToString())
    outcome = suite.tune("tiny.onnx", *DEFAULTS, out="onnx")
    assert outcome.status == 0, outcome.text
    assert outcome.dispatch("matmul_32x32x32_f32")["baseline_us"] > 0


@pytest.mark.slow
def test_dispatches_that_no_matcher_tells_apart_are_one_task_with_a_weight(model: Outcome) -> None:
    assert model.status == 0, model.text
    weights = {row["name"]: row["weight"] for row in model.summary["dispatches"]}
    assert weights == {"matmul_32x32x32_f32": 3, "matmul_32x16x32_f32": 1}


def test_what_cannot_be_tuned_is_listed_with_the_reason(model: Outcome) -> None:
    (untunable,) = model.summary["untunable"]
    assert untunable["source"] == "model"
    assert untunable["name"].startswith("main_dispatch_")
    assert untunable["reason"].startswith("linalg.generic has no parallel loop")
    model.lines.fnmatch_lines([f"not tuned (1): {untunable['name']}: linalg.generic has no parallel loop*"])


def test_a_suite_names_models_relative_to_itself(make_suite: MakeSuite) -> None:
    marker = '@pytest.mark.tune("../models/m $.mlir", ops.matmul(m=16, n=16, k=16))'
    code = f"import pytest\nfrom pytest_shark_tune import ops\n\n{marker}\ndef test_it(measurement):\n    pass\n"
    suite = make_suite({"suite/test_it.py": code, "models/m $.mlir": MATMUL})
    defaults = [each for each in suite.collect("suite", *DEFAULTS) if each.endswith("-default]")]
    names = ("matmul_32x32x32_f32", "matmul_16x16x16_f32")
    assert defaults == [f"suite/test_it.py::test_it[{name}-default]" for name in names]


@pytest.mark.slow
def test_two_tests_may_tune_one_dispatch(make_suite: MakeSuite) -> None:
    code = "import pytest\nfrom pytest_shark_tune import ops\n"
    for name in ("one", "two"):
        code += f"\n@pytest.mark.tune(ops.matmul(m=16, n=16, k=16))\ndef test_{name}(measurement):\n    pass\n"
    outcome = make_suite({"test_it.py": code}).tune("-rs", *NO_FINALS)
    assert outcome.status == 0, outcome.text
    assert len(outcome.summary["dispatches"]) == 1
    tried = [(each["dispatch"], each["id"]) for each in outcome.records]
    assert len(set(tried)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_two_tests_with_different_dispatches_of_one_name_are_told_apart(make_suite: MakeSuite, workers: str) -> None:
    code = "import pytest\nfrom pytest_shark_tune import ops\n"
    for layout in ("transpose_a", "transpose_b"):
        code += f"\n@pytest.mark.tune(ops.matmul(m=16, n=16, k=16, {layout}=True))\ndef test_{layout}(measurement):\n"
        code += "    pass\n"
    outcome = make_suite({"test_it.py": code}).tune(workers, "-k", "default or input", "--tune-trials=1")
    assert outcome.status == 0, outcome.text
    plain, other = sorted(row["name"] for row in outcome.summary["dispatches"])
    assert plain == "matmul_16x16x16_f32"
    assert other.startswith("matmul_16x16x16_f32_")
    assert {each["dispatch"] for each in outcome.records} == {plain, other}


@pytest.mark.parametrize("element", ["f16", "bf16", "i8"])
def test_the_compiler_takes_what_ops_builds(element: str) -> None:
    from pytest_shark_tune import ops

    source = ops.batch_matmul(batch=2, m=8, n=8, k=8, lhs=element, transpose_b=True)
    assert len(Compiler(Target.parse("llvm-cpu")).dump_benchmarks(source.text, source.name)) == 1
