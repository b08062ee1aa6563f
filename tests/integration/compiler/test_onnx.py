from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from iree.compiler import ir

from pytest_shark_tune.compiler.onnx import import_onnx
from pytest_shark_tune.compiler.refusals import InvalidOnnxModel, MissingWeights, NotAnOnnxModel, UnknownOperator
from pytest_shark_tune.errors import CommandFailed, InputError

onnx: Any = pytest.importorskip("onnx")


def write_model(path: Path, *, opset: int = 17, shape: Sequence[int | str] | None = (2, 3), op: str = "Relu") -> Path:
    """A model that applies ``op`` to a product of its input and a weight; its output names no shape."""
    f32 = onnx.TensorProto.FLOAT
    weight = onnx.helper.make_tensor("w", f32, (3, 4), [0.5] * 12)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["xw"]), onnx.helper.make_node(op, ["xw"], ["y"])],
        "tiny",
        [
            onnx.helper.make_tensor_value_info("x", f32, shape),
            onnx.helper.make_tensor_value_info("w", f32, (3, 4)),  # as old models list their weights
        ],
        [onnx.helper.make_tensor_value_info("y", f32, ("any", "any"))],
        [weight],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("opset", [11, 17, 18])
def test_a_model_becomes_mlir_with_inferred_shapes(tmp_path: Path, opset: int) -> None:
    text = import_onnx(write_model(tmp_path / "tiny model.onnx", opset=opset))
    assert "(%arg0: !torch.vtensor<[2,3],f32>) -> !torch.vtensor<[2,4],f32>" in text
    assert f"torch.onnx_meta.opset_version = {max(opset, 17)}" in text
    assert 'torch.operator "onnx.MatMul"' in text


def test_what_it_returns_is_a_module(tmp_path: Path) -> None:
    text = import_onnx(write_model(tmp_path / "tiny.onnx"))
    with ir.Context() as context:
        context.allow_unregistered_dialects = True
        assert ir.Module.parse(text).operation.name == "builtin.module"


def test_the_directory_of_the_model_stays_as_it_was(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    import_onnx(model)
    assert list(tmp_path.iterdir()) == [model]


def test_a_relative_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "-tiny.onnx")
    monkeypatch.chdir(tmp_path)
    assert import_onnx(Path("-tiny.onnx"))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (("batch", 3), r"input 'x' has none in dimension 0 \('batch'\)"),
        (("batch", "width"), r"input 'x' has none in dimension 0 \('batch'\), 1 \('width'\)"),
        (("batch", 0), r"input 'x' has none in dimension 0 \('batch'\)\. Give"),
        ((-1, 3), r"input 'x' has none in dimension 0"),
        (None, r"input 'x' has no shape"),
    ],
)
def test_dynamic_dimensions_are_named(tmp_path: Path, shape: Sequence[int | str] | None, message: str) -> None:
    path = write_model(tmp_path / "tiny.onnx", shape=shape)
    with pytest.raises(InputError, match=rf"tiny\.onnx: every dimension of an input needs a fixed size, but {message}"):
        import_onnx(path)


def test_a_shape_for_another_input_is_named(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.onnx", shape=("batch", 3))
    with pytest.raises(InputError, match=r"--tune-input-shape x=.*\. It has no input 'y'$"):
        import_onnx(path, {"y": (1, 3)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ONNX model, or one without a single node"),
        (b"module {}", "not an ONNX model, or one that was cut short"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(NotAnOnnxModel, match=rf"other\.onnx: {message}"):
        import_onnx(path)


def test_a_model_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.onnx")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="one that was cut short"):
        import_onnx(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.onnx: cannot be read: No such file or directory"):
        import_onnx(tmp_path / "absent.onnx")


def test_what_the_importer_says_is_kept(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.onnx", op="NoSuchOp")
    message = r"tiny\.onnx: IREE cannot import it: there is no operator NoSuchOp: export the model with"
    with pytest.raises(UnknownOperator, match=message) as caught:
        import_onnx(path)
    assert isinstance(caught.value.__cause__, CommandFailed)
    assert "Traceback" in caught.value.__cause__.stderr


@pytest.mark.slow
def test_the_importer_names_the_rule_that_a_model_breaks(tmp_path: Path) -> None:
    path = write_model(tmp_path / "unsorted.onnx")
    model = onnx.load(path)
    model.graph.node.reverse()
    onnx.save(model, path)
    with pytest.raises(
        InvalidOnnxModel, match=r"topologically sorted, however input 'xw' .* any previous nodes\.: export"
    ):
        import_onnx(path)


@pytest.mark.slow
def test_weights_that_are_absent_are_named(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(
        MissingWeights, match=r"should be stored in .*weights\.bin.*: copy the file with the weights there"
    ):
        import_onnx(path)


def test_a_time_out_is_no_broken_file(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        import_onnx(write_model(tmp_path / "tiny.onnx"), timeout_s=0.001)
    assert caught.value.timed_out


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r'python -m pip install "pytest-shark-tune\[onnx\]"'):
        import_onnx(tmp_path / "tiny.onnx")
