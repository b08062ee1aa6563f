"""What is said of models: what each form means, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.dispatch.types import Tensor
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.make import plan_key
from pytest_shark_tune.plan.source import InputFile, ModelInput, Source, check_data, read_source
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.model.profile import arguments, function_of
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings

pytestmark = pytest.mark.compiler

TWO = """
func.func @"one $.x"(%a: tensor<2x3xi64>, %b: tensor<4xf32>) -> tensor<2x3xi64> {
  %0 = arith.addi %a, %a : tensor<2x3xi64>
  return %0 : tensor<2x3xi64>
}
func.func @other(%a: tensor<4xf32>) -> tensor<4xf32> {
  return %a : tensor<4xf32>
}
"""
ELEMENTS = (
    *("f16", "f32", "f64", "bf16", "f8E4M3FN", "f8E5M2", "complex<f32>", "complex<f64>"),
    *("i1", "i4", "i8", "si8", "ui8", "i16", "i64", "si64", "ui64", "index"),
)
ONNX = Source(name="net", text="", is_benchmark=False, input_names=("x", "a b"), functions={"main": ()})
MLIR = Source(name="plain", text="", is_benchmark=False)


def save(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


def test_shapes_are_read_by_name() -> None:
    asked = ModelInput.parse(["x=1x3x48x320", "a=b c=7"])
    assert asked.shapes == {"x": (1, 3, 48, 320), "a=b c": (7,)}


@pytest.mark.parametrize("line", ["", "x", "x=", "=1x2", "x=1x", "x=0x2", "x=-1", "x=?x3", "x=1,3", "x=1X3", "x=٣"])
def test_a_bad_shape_is_refused_by_name(line: str) -> None:
    with pytest.raises(InputError) as told:
        ModelInput.parse([line])
    assert str(told.value).startswith(f"--tune-input-shape: {line!r} is not NAME=SIZES")


def test_what_is_given_twice_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"^--tune-input-shape: x is given twice"):
        ModelInput.parse(["x=1", "x=2"])
    with pytest.raises(InputError, match=r"^--tune-input: x is given twice"):
        ModelInput.parse((), ["x=x.npy", "x=x.npy"], base=tmp_path)
    with pytest.raises(InputError, match=r"^--tune-input: input 1 is given twice, once by its name"):
        ModelInput.parse((), ["y=x.npy", "1=x.npy"], base=tmp_path).data_of(("x", "y"))


def test_data_is_for_those_inputs_that_a_model_has(tmp_path: Path) -> None:
    save(tmp_path / "x.npy", np.zeros(3, np.float32))
    asked = ModelInput.parse((), ["y=x.npy", "0=x.npy"], base=tmp_path)
    assert list(asked.data_of(("x", "y"))) == [1, 0]
    assert list(asked.data_of(())) == [0]
    assert asked.data["0"] == InputFile.read(tmp_path / "x.npy")
    assert asked.data["0"].shape == (3,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no array that numpy.save wrote"),
        (b"1 2 3\n", "holds no array that numpy.save wrote"),
    ],
    ids=["absent", "empty", "text"],
)
def test_a_file_without_an_array_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "in.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^--tune-input: .*in\.npy {message}"):
        ModelInput.parse((), ["x=in.npy"], base=tmp_path)


def test_objects_and_archives_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "objects.npy", np.array([{}], object))
    np.savez(tmp_path / "many.npz", a=np.zeros(2))
    for name, message in (("objects.npy", "holds no array"), ("many.npz", "holds several arrays")):
        with pytest.raises(InputError, match=message):
            ModelInput.parse((), [f"x={name}"], base=tmp_path)


@pytest.mark.parametrize("line", ["x", "x=", "=a.npy", ""])
def test_data_of_another_form_is_refused(line: str) -> None:
    with pytest.raises(InputError, match=r"^--tune-input: .* is not NAME=FILE.npy or, by the input's number"):
        ModelInput.parse((), [line])


@pytest.mark.parametrize(
    ("dtype", "elements"),
    [
        (np.float32, ("f32",)),
        (np.float16, ("f16",)),
        (np.int64, ("i64", "si64", "ui64")),
        (np.uint8, ("i8", "si8", "ui8")),
        (np.bool_, ("i1",)),
        (np.complex64, ("complex<f32>",)),
        (ml_dtypes.bfloat16, ("bf16",)),
        (ml_dtypes.float8_e4m3fn, ("f8E4M3FN", "f8E5M2")),
    ],
)
def test_an_array_is_held_against_its_input(tmp_path: Path, dtype: type, elements: tuple[str, ...]) -> None:
    file = InputFile.read(save(tmp_path / "in.npy", np.zeros((2, 3), dtype)))
    assert tuple(each for each in ELEMENTS if not file.mismatch(Tensor((2, 3), each))) == elements
    why = file.mismatch(Tensor((3, 2), elements[0]))
    assert why.endswith(f" holds 2x3x{np.dtype(file.dtype).name}, and the input is 3x2x{elements[0]}")


def test_bytes_in_another_order_are_refused(tmp_path: Path) -> None:
    file = InputFile.read(save(tmp_path / "in.npy", np.zeros(2, ">f4")))
    assert "another byte order" in file.mismatch(Tensor((2,), "f32"))


def test_names_that_no_model_has_are_told() -> None:
    assert not ModelInput(shapes={"z": (1,)}, function="nope").stray([])
    assert not ModelInput(shapes={"a b": (1,)}, function="main").stray([ONNX, MLIR])
    assert ModelInput(shapes={"z": (1,)}).stray([ONNX, MLIR]) == (
        "--tune-input-shape z: there is no model with an input 'z': net has 'x', 'a b'; "
        "those of plain have no names, only numbers from 0"
    )
    told = ModelInput(function="nope").stray([ONNX, MLIR])
    assert told.startswith("--tune-function: ")
    assert told.endswith("is called 'nope': there is 'main'")


def test_strays_of_data_are_names_alone(tmp_path: Path) -> None:
    file = InputFile.read(save(tmp_path / "x.npy", np.zeros(3)))
    assert not ModelInput(data={"5": file, "x": file}).stray([ONNX])
    assert ModelInput(data={"z": file}).stray([ONNX]).startswith("--tune-input z: there is no model")


def test_data_must_fit_the_one_function(tmp_path: Path) -> None:
    file = InputFile.read(save(tmp_path / "x.npy", np.zeros((2, 3), np.float32)))
    fits, other = (Tensor((2, 3), "f32"),), (Tensor((2, 3), "f16"),)
    check_data("net", {0: file}, {"main": fits})
    check_data("net", {}, {"main": other, "second": ()})
    with pytest.raises(InputError, match=r"^--tune-input 0: .*2x3xfloat32, and the input is 2x3xf16$"):
        check_data("net", {0: file}, {"main": other})
    with pytest.raises(InputError, match=r"^--tune-input 1: net has 1 inputs, numbered from 0$"):
        check_data("net", {1: file}, {"main": fits})
    with pytest.raises(InputError, match=r"^--tune-input: net has several functions, 'a', 'b': .* --tune-function$"):
        check_data("net", {0: file}, {"a": fits, "b": fits})
    with pytest.raises(InputError, match=r"^--tune-input: net has no public function"):
        check_data("net", {0: file}, {})


def test_a_source_knows_what_is_run_whole_and_on_what(compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / "two.mlir").write_text(TWO, encoding="utf-8")
    save(tmp_path / "in.npy", np.arange(6).reshape(2, 3))
    asked = ModelInput.parse((), ["0=in.npy"], "one $.x", base=tmp_path)
    read = [read_source(each, tmp_path, asked) for each in ("two.mlir", ops.matmul(m=8, n=8, k=8))]
    model, op = extract_dispatches(read, compiler, processors=2).sources
    assert (model.run_whole, op.run_whole) == (("one $.x",), ("main",))
    other = msgspec.structs.replace(model, function="other")
    assert (function_of(model), function_of(other)) == ("one $.x", "other")
    assert arguments(model, "one $.x") == [f"@{tmp_path / 'in.npy'}", "4xf32=0.5"]
    assert (list(model.files.values()), op.files) == ([str(tmp_path / "in.npy")], {})


def test_a_function_of_another_model_changes_nothing(compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / "two.mlir").write_text(TWO, encoding="utf-8")
    source = read_source("two.mlir", tmp_path, ModelInput(function="elsewhere"))
    (model,) = extract_dispatches([source], compiler, processors=2).sources
    assert model.run_whole == ("one $.x", "other")


def test_what_is_said_of_a_model_is_part_of_the_key(compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / "two.mlir").write_text(TWO, encoding="utf-8")

    def key(*data: str, function: str = "") -> str:
        asked = ModelInput.parse((), data, function, base=tmp_path)
        return plan_key([read_source("two.mlir", tmp_path, asked)], compiler)

    save(tmp_path / "in.npy", np.zeros((2, 3), np.int64))
    keys = {key(), key(function="other"), key("0=in.npy")}
    save(tmp_path / "in.npy", np.ones((2, 3), np.int64))
    assert len(keys | {key("0=in.npy")}) == 4


def test_a_plan_is_the_same_wherever_its_data_lies(compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / "two.mlir").write_text(TWO, encoding="utf-8")
    directories = [tmp_path / name for name in ("here", "elsewhere")]
    found = []
    for directory in directories:
        directory.mkdir()
        data = save(directory / "in.npy", np.ones((2, 3), np.int64))
        asked = ModelInput.parse((), ["0=in.npy"], "one $.x", base=directory)
        settings = replace(RunSettings.in_directory(directory, (), "", jobs=1), models=asked)
        session = Session(settings, compiler, Cache(tmp_path / "cache"))
        try:
            found.append(session.planner.plan(["two.mlir"], tmp_path))
        finally:
            session.close()
        data.unlink()
    (key, first), (again, second) = found
    assert key == again
    assert [plan.sources[0].files for plan in (first, second)] == [{0: str(each / "in.npy")} for each in directories]
