"""What a run takes: ONNX models with open sizes, inputs from files, and lists of commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from pytest_shark_tune import ops
from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.onnx import import_onnx, onnx_inputs, write_fixed
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.elements import to_array
from pytest_shark_tune.device.profiler import profile
from pytest_shark_tune.dispatch.elements import SCALAR_FLOATS, SCALAR_INTEGERS
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import ModelInput, read_source
from pytest_shark_tune.records.snapshot import write_spec
from pytest_shark_tune.tuning.model.profile import arguments
from tests.integration.guard.test_guard import CONFIG, record_of

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Suite

NAME = "matmul_8x16x8_f32"
DEFAULTS = ("--tune-trials=1", "-k", "default or input")
COMMANDS = "# two\nmatmul -M 32 -N 32 -K 32\nconv -n 1 -c 8 -H 4 -W 4 -k 8 -y 1 -x 1 -F 1\n"
DOUBLE = """
func.func @"times $.two"(%a: tensor<2x3xi64>, %b: tensor<4xf32>) -> (tensor<2x3xi64>, tensor<4xf32>) {
  %0 = arith.addi %a, %a : tensor<2x3xi64>
  %1 = arith.addf %b, %b : tensor<4xf32>
  return %0, %1 : tensor<2x3xi64>, tensor<4xf32>
}
func.func @other(%a: tensor<4xf32>) -> tensor<4xf32> {
  return %a : tensor<4xf32>
}
"""


def onnx_model(path: Path, *, columns: int = 16, external: bool = False, data_dependent: bool = False) -> Path:
    """A product as PaddlePaddle writes one: of an old opset, with an open size and names of their kind."""
    onnx: Any = pytest.importorskip("onnx")
    helper, f32 = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.full((8, columns), 0.5, np.float32), "w.$ 0")
    nodes = [
        helper.make_node("MatMul", ["x", "w.$ 0"], ["xw"]),
        helper.make_node("Relu", ["xw"], ["relu_0.tmp 0"]),
    ]
    outputs = [helper.make_tensor_value_info("relu_0.tmp 0", f32, (None, None))]
    if data_dependent:
        nodes.append(helper.make_node("NonZero", ["xw"], ["where"]))
        outputs.append(helper.make_tensor_value_info("where", onnx.TensorProto.INT64, (2, None)))
    graph = helper.make_graph(
        nodes,
        "Model from PaddlePaddle.",
        [
            helper.make_tensor_value_info("x", f32, ("batch", 8)),
            helper.make_tensor_value_info("never used", f32, (1,)),
        ],
        outputs,
        [weight],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, path, save_as_external_data=external, location="weights.bin", size_threshold=0)
    return path


@pytest.fixture(scope="module")
def suite(make_suite: MakeSuite) -> Suite:
    suite = make_suite({"ops.txt": COMMANDS, "test_nothing.py": "def test_nothing():\n    pass\n"})
    onnx_model(suite.directory / "my $ model.onnx")
    return suite


# Models with open sizes.


@pytest.mark.slow
def test_open_sizes_are_given_by_name(suite: Suite) -> None:
    outcome = suite.tune("my $ model.onnx", *DEFAULTS, "--tune-input-shape=x=8x8", "-v", out="sizes")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines([f"my $ model.onnx::test_dispatch[[]{NAME}-default[]]*"])
    assert outcome.dispatch(NAME)["baseline_us"] > 0


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_a_name_that_no_model_has_is_told_before_anything_runs(suite: Suite, workers: str) -> None:
    shapes = ("--tune-input-shape=x=8x8", "--tune-input-shape=image=1x8")
    outcome = suite.tune(workers, "my $ model.onnx", "test_nothing.py", *shapes, out="strays")
    assert outcome.status != 0
    outcome.lines.fnmatch_lines(
        ["--tune-input-shape image: there is no model with an input 'image': my $ model has 'x', 'never used'"]
    )
    assert "passed" not in outcome.text
    assert not outcome.out.exists()


@pytest.mark.slow
def test_guarding_and_suites_take_sizes_too(make_suite: MakeSuite) -> None:
    marked = "import pytest\n\n@pytest.mark.tune('models/a.onnx')\ndef test_it(candidate, measurement):\n    pass\n"
    suite = make_suite({"test_it.py": marked, "pytest.ini": "[pytest]\ntune_input_shape =\n    x=8x8\n    z=4\n"})
    onnx_model(suite.directory / "models" / "a.onnx")
    write_spec(suite.directory / "spec.mlir", [record_of(ops.matmul(m=64, n=64, k=64))])
    assert suite.tune(*DEFAULTS).status == 0, "the ini file's z may be another model's"
    guarded = suite.run("--tune-guard=spec.mlir", "-k", "parses")
    assert guarded.status == 0, guarded.text
    named = suite.run("--tune-guard=spec.mlir", "--tune-input-shape=x=8x8", "--tune-input-shape=z=4")
    assert named.status != 0
    named.lines.fnmatch_lines(["--tune-input-shape z: there is no model with an input 'z': a has 'x', 'never used'"])


def test_weights_beside_an_old_model_are_imported(tmp_path: Path) -> None:
    path = onnx_model(tmp_path / "a model.onnx", columns=64, external=True)
    assert (tmp_path / "weights.bin").stat().st_size == 8 * 64 * 4
    text = import_onnx(path, {"x": (4, 8), "another model's": (1,)})
    assert 'func.func @"Model from PaddlePaddle."(%arg0: !torch.vtensor<[4,8],f32>' in text
    assert "torch.onnx_meta.opset_version = 17" in text
    assert onnx_inputs(path) == ("x", "never used")


@pytest.mark.slow
def test_weights_beside_a_model_stay_beside_it(tmp_path: Path) -> None:
    # In one file with them a model may be larger than any protobuf.
    path = onnx_model(tmp_path / "given" / "m.onnx", columns=64, external=True)
    onnx: Any = pytest.importorskip("onnx")
    model = onnx.load(path, load_external_data=False)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    write_fixed(model, path, tmp_path / "fixed.onnx")
    (written,) = onnx.load(tmp_path / "fixed.onnx", load_external_data=False).graph.initializer
    assert written.data_location == onnx.TensorProto.EXTERNAL
    (weights,) = onnx.load(tmp_path / "fixed.onnx").graph.initializer
    assert onnx.numpy_helper.to_array(weights).tolist() == [[0.5] * 64] * 8


def test_weights_that_are_gone_are_told(tmp_path: Path) -> None:
    path = onnx_model(tmp_path / "m.onnx", external=True)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"m\.onnx: it cannot be written with the sizes of --tune-input-shape: "):
        import_onnx(path, {"x": (4, 8)})


def test_the_sizes_that_are_missing_are_told_with_an_example(tmp_path: Path) -> None:
    path = onnx_model(tmp_path / "m.onnx")
    with pytest.raises(
        InputError,
        match=r"'x' has none in dimension 0 .*as in --tune-input-shape x=1x8, or .* as in --tune-dim x.0=1,16,128\. "
        r"It has no input 'another'$",
    ):
        import_onnx(path, {"another": (1,)})
    for shape, why in (((8,), "has 2 dimensions, 8 has 1"), ((4, 9), "dimension 1 of input 'x' is 8, not 9")):
        with pytest.raises(InputError, match=f"--tune-input-shape: .*{why}"):
            import_onnx(path, {"x": shape})


@pytest.mark.slow
def test_sizes_that_depend_on_the_data_are_told_once_for_all(tmp_path: Path) -> None:
    asked = ModelInput.parse(["x=8x8"])
    source = read_source(onnx_model(tmp_path / "m.onnx", data_dependent=True), Path(), asked)
    extracted = extract_dispatches([source], Compiler(Target.parse("llvm-cpu")), 2)
    assert NAME.removesuffix("_f32") in " ".join(each.name for each in extracted.dispatches)
    (reason,) = {each.reason for each in extracted.untunable if "dynamic" in each.reason}
    assert reason.endswith("though no input has: its sizes depend on the data, and it keeps its default")
    assert list(extracted.sources[0].functions) == ["Model from PaddlePaddle."]


@pytest.mark.parametrize(("shape", "status"), [("x=8x8", 0), ("y=8x8", 2)])
def test_commands_take_sizes(suite: Suite, shape: str, status: int) -> None:
    arguments = ["space", str(suite.directory / "my $ model.onnx"), "--tune-input-shape", shape]
    result = CliRunner().invoke(main, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == status, result.output
    assert (NAME if status == 0 else "--tune-input-shape") in result.output


@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [("x", 1), ("y", 2)])
@pytest.mark.parametrize("command", ["compile", "port"])
def test_commands_that_take_a_spec_take_sizes(tmp_path: Path, command: str, name: str, status: int) -> None:
    """With the sizes they come to look for what the spec is for, which is nothing here."""
    model, spec = onnx_model(tmp_path / "m.onnx"), tmp_path / "spec.mlir"
    write_spec(spec, [record_of(ops.matmul(m=64, n=64, k=64))])
    given = {"compile": [str(model), "--spec", str(spec)], "port": [str(spec), str(model), "--static"]}[command]
    shapes = [f"--tune-input-shape={each}=8x8" for each in dict.fromkeys(["x", name])]
    result = CliRunner().invoke(main, [command, *given, *shapes, "-o", str(tmp_path / "out")])
    assert result.exit_code == status, result.output
    assert ("there is no model with an input 'y': m has 'x'" in result.output) == (name == "y")


SCALED = """
func.func @main(%x: tensor<8xf32>, %a: f32, %d: f64, %b: i32, %i: index, %c: i1) -> tensor<8xf32> {
  %e = tensor.empty() : tensor<8xf32>
  %n = arith.index_cast %i : index to i32
  %s = arith.addi %b, %n : i32
  %f = arith.sitofp %s : i32 to f32
  %w = arith.truncf %d : f64 to f32
  %y = linalg.generic {
    indexing_maps = [affine_map<(d0) -> (d0)>, affine_map<(d0) -> (d0)>], iterator_types = ["parallel"]
  } ins(%x : tensor<8xf32>) outs(%e : tensor<8xf32>) {
  ^bb0(%in: f32, %out: f32):
    %0 = arith.mulf %in, %a : f32
    %1 = arith.mulf %0, %w : f32
    %2 = arith.addf %1, %f : f32
    %3 = arith.select %c, %2, %in : f32
    linalg.yield %3 : f32
  } -> tensor<8xf32>
  return %y : tensor<8xf32>
}
"""


# What a model is run whole on.


@pytest.mark.slow
def test_a_function_is_run_on_what_the_files_hold(tmp_path: Path) -> None:
    (tmp_path / "double.mlir").write_text(DOUBLE, encoding="utf-8")
    given = np.asfortranarray(np.arange(6).reshape(2, 3) * 10)
    np.save(tmp_path / "given.npy", given)
    asked = ModelInput.parse((), ["0=given.npy"], "times $.two", base=tmp_path)
    compiler = Compiler(Target.parse("llvm-cpu"))
    (source,) = extract_dispatches([read_source("double.mlir", tmp_path, asked)], compiler, 2).sources
    (function,) = source.run_whole
    vmfb = tmp_path / "double.vmfb"
    compiler.compile_sources(compiler.lower(source.text, to="executable-sources"), vmfb)
    with DeviceChild("local-task") as child:
        child.load_function("model", vmfb, function, source.functions[function], source.files)
        read = {}
        for seed in (1, 2):
            child.fill("model", seed)
            child.run("model", 1)
            read[seed] = child.read("model")
    assert [np.frombuffer(read[1][number].data, np.int64).tolist() for number in (0, 2)] == [
        given.reshape(-1).tolist(),
        (2 * given).reshape(-1).tolist(),
    ]
    assert read[1][0] == read[2][0]
    assert read[1][1] != read[2][1], "what no file holds is random"
    np.save(tmp_path / "given.npy", np.ascontiguousarray(given))
    inputs = [f"@{tmp_path / 'given.npy'}", "4xf32=0.5"]
    assert profile(vmfb, "local-task", function, inputs, seconds=0.01).model_us > 0


def test_a_function_is_run_on_numbers_beside_tensors(tmp_path: Path) -> None:
    (tmp_path / "scaled.mlir").write_text(SCALED, encoding="utf-8")
    compiler = Compiler(Target.parse("llvm-cpu"))
    (source,) = extract_dispatches([read_source("scaled.mlir", tmp_path)], compiler, 2).sources
    vmfb = tmp_path / "scaled.vmfb"
    compiler.compile_sources(compiler.lower(source.text, to="executable-sources"), vmfb)
    with DeviceChild("local-task") as child:
        child.load_function("model", vmfb, "main", source.functions["main"])
        child.fill("model", 1)
        child.run("model", 1)
        tensors = child.read("model")
    values = [to_array(np.frombuffer(each.data, np.uint8), each.element, each.shape) for each in tensors]
    given, factor, wide, added, place, switch, result = values
    assert factor in SCALAR_FLOATS
    assert {int(added), int(place)} <= set(SCALAR_INTEGERS)
    assert switch == 1
    np.testing.assert_allclose(result, given * factor * wide + added + place, rtol=1e-5)
    assert profile(vmfb, "local-task", "main", arguments(source, "main"), seconds=0.01).model_us > 0


@pytest.mark.slow
def test_data_that_does_not_fit_is_told_before_anything_runs(suite: Suite) -> None:
    np.save(suite.directory / "in.npy", np.zeros((8, 9), np.float32))
    given = ("--tune-input-shape=x=8x8", "--tune-input=x=in.npy")
    outcome = suite.tune("my $ model.onnx", *given, out="data")
    assert outcome.status == 1
    outcome.lines.fnmatch_lines(["--tune-input 0: *in.npy holds 8x9xfloat32, and the input is 8x8xf32"])
    assert not outcome.out.exists()


# Lists of commands.


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_a_list_of_commands_is_tuned_alone(suite: Suite, workers: str) -> None:
    outcome = suite.tune(workers, "--tune-commands=ops.txt", *DEFAULTS, "-v", out=f"commands{workers}")
    assert outcome.status == 0, outcome.text
    assert outcome.summary["dispatches"][0]["name"] == "matmul_32x32x32_f32"
    assert len(outcome.records) == 2
    outcome.lines.fnmatch_lines(["*ops.txt::test_dispatch[[]matmul_32x32x32_f32-default[]]*", "*= 2 passed*"])
    assert "test_nothing" not in outcome.text


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_lines_that_are_not_read_are_told_and_the_others_are_tuned(make_suite: MakeSuite, workers: str) -> None:
    suite = make_suite({"ops.txt": f"pool -n 1\n{COMMANDS}matmul -M 4 --frob\n"})
    outcome = suite.tune(workers, "-q", "--tune-commands=ops.txt", *DEFAULTS, out=f"unread{workers}")
    assert outcome.status == 0, outcome.text
    assert len(outcome.records) == 2
    told = ["ops.txt: 2 lines are not tuned", "  line 1: op: invalid choice: 'pool'*", "  line 5: *"]
    outcome.lines.fnmatch_lines([*told, "*= commands that were not read =*", *told], consecutive=False)
    assert outcome.text.count(told[0]) == 2


@pytest.mark.slow
def test_a_list_is_collected_besides_what_is_named(suite: Suite) -> None:
    files = [line.partition("::")[0] for line in suite.collect("test_nothing.py", "--tune-commands=ops.txt")]
    assert set(files) == {"test_nothing.py", "ops.txt"}
    again = suite.collect("ops.txt::test_dispatch[matmul_32x32x32_f32-default]", "--tune-commands=ops.txt")
    assert again == ["ops.txt::test_dispatch[matmul_32x32x32_f32-default]"]


@pytest.mark.slow
def test_a_list_of_the_ini_file_is_no_part_of_what_is_named(make_suite: MakeSuite) -> None:
    files = {"ops.txt": COMMANDS, "test_nothing.py": "def test_nothing():\n    pass\n"}
    suite = make_suite(files | {"pytest.ini": "[pytest]\ntune_commands = ops.txt\n"})
    assert suite.collect("test_nothing.py") == ["test_nothing.py::test_nothing"]
    assert {line.partition("::")[0] for line in suite.collect()} == {"test_nothing.py", "ops.txt"}


def test_a_text_file_is_no_list_unless_it_is_said_so(suite: Suite) -> None:
    outcome = suite.tune("ops.txt", out="plain")
    assert outcome.status != 0
    outcome.lines.fnmatch_lines(["*no tests ran*"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# no op\nconv -n 1 --frob 2\n", "*bad.txt: 1 line is not tuned*"),
        (None, "*bad.txt cannot be read: No such file or directory"),
    ],
    ids=["flag", "absent"],
)
def test_a_bad_list_is_a_usage_error(make_suite: MakeSuite, content: str | None, message: str) -> None:
    suite = make_suite({"bad.txt": content} if content else {})
    outcome = suite.tune("--tune-commands=bad.txt")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    outcome.lines.fnmatch_lines([f"ERROR: --tune-commands: {message}"])


def test_without_tune_the_list_is_skipped_with_the_command(suite: Suite) -> None:
    outcome = suite.run("-rs", "--tune-commands=ops.txt")
    outcome.lines.fnmatch_lines(["SKIPPED *: pytest --tune *--tune-commands=ops.txt* tunes it, *", "*1 skipped*"])


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_list_is_guarded_with_a_spec(make_suite: MakeSuite, workers: str) -> None:
    suite = make_suite({"ops.txt": "matmul -M 64 -N 64 -K 64\n"})
    suite.habits = ()
    write_spec(suite.directory / "spec.mlir", [record_of(ops.matmul(m=64, n=64, k=64))])
    static = "parses or allowed or applies"
    outcome = suite.run(workers, "--tune-commands=ops.txt", "--tune-guard=spec.mlir", "-k", static, "-v")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(["*ops.txt::test_dispatch[[]matmul_64x64x64_f32-applies[]]*", "*= 3 passed*"])
    assert CONFIG.partition("<")[0] in (suite.directory / "spec.mlir").read_text(encoding="utf-8")
