"""Rewrites of imported models: the compiled results stay the same, and the same text gives the same text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from iree import runtime
from onnx import TensorProto, helper, numpy_helper

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.onnx import import_onnx
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.mlir_rewrites import GROUP, MLIR_REWRITES, mlir_rewrite_names, rewrite_mlir
from tests.packages import install_package

TYPES = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
BATCH, HEADS, ROWS, KEYS, DEPTH = 2, 3, 5, 6, 4
Q, K, V = (BATCH, HEADS, ROWS, DEPTH), (BATCH, HEADS, KEYS, DEPTH), (BATCH, HEADS, KEYS, 7)


class Model:
    """An ONNX model under construction. All its inputs have one element type."""

    def __init__(self, element: str = "f32", **inputs: tuple[int, ...]) -> None:
        self.element = element
        self.inputs = inputs
        self.nodes: list[onnx.NodeProto] = []
        self.outputs: list[str] = []

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        return name

    def constant(self, value: Any, element: str | None = None) -> str:
        array = np.asarray(value).astype(DTYPES[element or self.element])
        return self.add("Constant", value=numpy_helper.from_array(array))

    def shape(self, *sizes: int) -> str:
        return self.add("Constant", value=numpy_helper.from_array(np.asarray(sizes, np.int64)))

    def swapped(self, value: str, rank: int = 4) -> str:
        return self.add("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])

    def text(self, directory: Path) -> str:
        kind = TYPES[self.element]
        graph = helper.make_graph(
            self.nodes,
            "model",
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in self.inputs.items()],
            [helper.make_tensor_value_info(name, kind, None) for name in self.outputs],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path = directory / "model.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True), path)
        return import_onnx(path)


def attention(
    element: str = "f32",
    *,
    scaled: Callable[[Model, str], str] = lambda model, value: model.add("Div", value, model.constant(DEPTH**0.5)),
    axis: int = -1,
    query: Callable[[Model, str], str] = lambda model, value: value,
    key: Callable[[Model, str], str] = lambda model, value: model.swapped(value),
    also: bool = False,
    shapes: Mapping[str, tuple[int, ...]] = {"q": Q, "k": K, "v": V},
    **more: tuple[int, ...],
) -> Model:
    """An attention; ``scaled`` makes the scores from the product, and ``also`` returns them, too."""
    model = Model(element, **shapes, **more)
    scores = scaled(model, model.add("MatMul", query(model, "q"), key(model, "k")))
    model.outputs.append(model.add("MatMul", model.add("Softmax", scores, axis=axis), "v"))
    if also:
        model.outputs.append(scores)
    return model


def masked(model: Model, value: str) -> str:
    return model.add("Add", model.add("Mul", value, model.constant([0.5])), "mask")


def masked_first(model: Model, value: str) -> str:
    return model.add("Add", "mask", model.add("Mul", model.constant(0.3), value))


def in_f32(model: Model, value: str) -> str:
    wide = model.add("Cast", value, to=TensorProto.FLOAT)
    return model.add("Div", wide, model.constant(2.0, "f32"))


def cast_attention() -> Model:
    model = Model("f16", q=Q, k=K, v=V)
    scores = in_f32(model, model.add("MatMul", "q", model.swapped("k")))
    weights = model.add("Cast", model.add("Softmax", scores, axis=-1), to=TensorProto.FLOAT16)
    model.outputs.append(model.add("MatMul", weights, "v"))
    return model


def times(factor: float) -> Callable[[Model, str], str]:
    return lambda model, value: model.add("Mul", value, model.constant(factor))


def plain(_: Model, value: str) -> str:
    return value


def scaled_key(model: Model, value: str) -> str:
    return model.add("Mul", model.swapped(value), model.constant(DEPTH**-0.25))


def split_key(model: Model, value: str) -> str:
    return model.add("Transpose", value, perm=[0, 2, 3, 1])


SPLIT = {"q": Q, "k": (BATCH, KEYS, HEADS, DEPTH), "v": V}
FUSED = {
    **{element: attention(element) for element in TYPES},
    "no scale": attention(scaled=plain),
    "another scale": attention(scaled=times(-0.3)),
    "another scale in f16": attention("f16", scaled=times(0.3)),
    "scales on Q and K": attention(scaled=plain, query=times(DEPTH**-0.25), key=scaled_key),
    "a scale as an input": attention(scaled=lambda model, value: model.add("Div", value, "by"), by=(1,)),
    "an untransposed key": attention(key=plain, shapes={"q": Q, "k": (BATCH, HEADS, DEPTH, KEYS), "v": V}),
    "K split into heads": attention(key=split_key, shapes=SPLIT),
    "three dimensions": attention(
        key=lambda model, value: model.swapped(value, 3), shapes={"q": (4, 5, 4), "k": (4, 6, 4), "v": (4, 6, 4)}
    ),
    "the last axis by number": attention(axis=3),
    "a mask for each": attention(scaled=masked, mask=(BATCH, HEADS, ROWS, KEYS)),
    "a mask by batch": attention(scaled=masked, mask=(BATCH, 1, 1, KEYS)),
    "a mask by head": attention(scaled=masked_first, mask=(1, HEADS, ROWS, KEYS)),
    "a mask of rows": attention(scaled=masked, mask=(BATCH, 1, ROWS, KEYS)),
    "a mask of two dimensions": attention(scaled=masked_first, mask=(ROWS, KEYS)),
    "a mask of one dimension": attention("f16", scaled=masked, mask=(KEYS,)),
    "a mask by row": attention(scaled=masked, mask=(HEADS, ROWS, 1)),
    "scores in f32": cast_attention(),
}
KEPT = {
    "scores that are a result": attention(also=True),
    "another axis": attention(axis=2),
    "an infinite scale": attention(scaled=lambda model, value: model.add("Div", value, model.constant(0.0))),
    "a scale by key": attention(scaled=lambda model, value: model.add("Mul", value, "by"), by=(KEYS,)),
    "a mask that makes more scores": attention(
        scaled=masked, mask=(4, 1, ROWS, KEYS), shapes={"q": (1, *Q[1:]), "k": (1, *K[1:]), "v": (1, *V[1:])}
    ),
    "one key for all heads": attention(shapes={"q": Q, "k": (BATCH, 1, KEYS, DEPTH), "v": V}),
    "two dimensions": attention(
        key=lambda model, value: model.swapped(value, 2), shapes={"q": (5, 4), "k": (6, 4), "v": (6, 4)}
    ),
}


QUICK = ("a mask by batch",)


@pytest.mark.parametrize(
    "model",
    [pytest.param(model, id=name, marks=[] if name in QUICK else pytest.mark.slow) for name, model in FUSED.items()],
)
def test_attention_becomes_one_op_with_the_same_results(model: Model, tmp_path: Path, compiler: Compiler) -> None:
    text = model.text(tmp_path)
    rewritten, counts = rewrite_mlir(text, ["fused-attention"])
    assert counts == {"fused-attention": 1}
    assert rewritten.count("torch.aten.scaled_dot_product_attention") == 1
    assert "onnx.Softmax" not in rewritten
    assert "onnx.MatMul" not in rewritten
    assert_same(model, text, rewritten, tmp_path, compiler)


@pytest.mark.parametrize("model", KEPT.values(), ids=KEPT)
def test_what_is_no_attention_stays(model: Model, tmp_path: Path) -> None:
    text = model.text(tmp_path)
    assert rewrite_mlir(text, ["fused-attention"]) == (text, {"fused-attention": 0})


def products(*weights: tuple[int, ...], rank: int = 3, constants: bool = False, transposed: bool = False) -> Model:
    names = {f"w{number}": shape for number, shape in enumerate(weights)}
    model = Model("f32", x=(2, 3, 4)[-rank:], **({} if constants else names))
    for name, shape in names.items():
        weight = model.constant(np.random.default_rng(len(name)).uniform(-1, 1, shape)) if constants else name
        if transposed:
            weight = model.add("Transpose", weight, perm=[1, 0])
        model.outputs.append(model.add("Relu", model.add("MatMul", "x", weight)))
    return model


@pytest.mark.slow
def test_equal_products_become_one(tmp_path: Path, compiler: Compiler) -> None:
    for model in (
        products((4, 5), (4, 5), (4, 5)),
        products((4, 5), (4, 5), rank=2, constants=True),
        products((5, 4), (5, 4), transposed=True, constants=True),
    ):
        text = model.text(tmp_path)
        rewritten, counts = rewrite_mlir(text, ["fused-products"])
        assert counts == {"fused-products": len(model.outputs)}
        assert rewritten.count("onnx.MatMul") == 1
        assert_same(model, text, rewritten, tmp_path, compiler)


def test_only_products_of_the_same_shapes_are_joined(tmp_path: Path, compiler: Compiler) -> None:
    model = products((4, 5), (4, 3), (4, 5))
    text = model.text(tmp_path)
    rewritten, counts = rewrite_mlir(text, ["fused-products"])
    assert counts == {"fused-products": 2}
    assert_same(model, text, rewritten, tmp_path, compiler)


def test_a_product_with_a_result_of_another_stays(tmp_path: Path) -> None:
    model = Model(x=(4, 4), w=(4, 4))
    first = model.add("MatMul", "x", "w")
    model.outputs = [model.add("MatMul", "x", first)]
    text = model.text(tmp_path)
    assert rewrite_mlir(text, ["fused-products"]) == (text, {"fused-products": 0})


def test_the_same_text_gives_the_same_text(tmp_path: Path) -> None:
    text = FUSED["f16"].text(tmp_path)
    first, counts = rewrite_mlir(text, list(MLIR_REWRITES))
    assert (first, counts) == rewrite_mlir(text, list(MLIR_REWRITES))
    assert first != text
    assert rewrite_mlir(first, list(MLIR_REWRITES)) == (first, dict.fromkeys(MLIR_REWRITES, 0))


def test_an_unknown_rewrite_and_a_broken_module_are_errors() -> None:
    with pytest.raises(InputError, match="no rewrite 'fused'"):
        rewrite_mlir("module {}", ["fused"])
    with pytest.raises(InputError, match="not MLIR"):
        rewrite_mlir("module", ["fused-attention"])


PACKAGE = """
from iree.compiler import ir

def double(module):
    # The factor 2 becomes 4.
    places = 0
    for function in module.body.operations:
        for op in function.regions[0].blocks[0].operations:
            if op.operation.name == "arith.constant" and "2.0" in str(op.operation.attributes["value"]):
                op.operation.attributes["value"] = ir.FloatAttr.get(ir.F32Type.get(), 4.0)
                places += 1
    return places

def broken(module):
    raise RuntimeError("no fusion today")

def uncounted(module):
    return "many"

def invalid(module):
    with ir.InsertionPoint(module.body):
        ir.Operation.create("func.func")
    return 1
"""
FACTOR = """
func.func @main(%x: f32) -> f32 {
  %two = arith.constant 2.0 : f32
  %y = arith.mulf %x, %two : f32
  return %y : f32
}
"""


@pytest.fixture
def their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with rewrites of its own is installed."""
    names = ("double", "broken", "uncounted", "invalid", "missing")
    install_package(tmp_path, "their_rewrites", PACKAGE, {GROUP: {name: name for name in names}}, monkeypatch)


@pytest.mark.usefixtures("their_package")
def test_the_rewrite_of_another_package_is_applied_by_its_name() -> None:
    assert mlir_rewrite_names() == (*MLIR_REWRITES, "broken", "double", "invalid", "missing", "uncounted")
    text, counts = rewrite_mlir(FACTOR, ["double"])
    assert counts == {"double": 1}
    assert "4.000000e+00" in text
    assert "2.000000e+00" not in text


@pytest.mark.usefixtures("their_package")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("broken", "failed: RuntimeError: no fusion today"),
        ("uncounted", "returned 'many', not the number of places"),
        ("invalid", "failed: MLIRError"),
        ("missing", "cannot be loaded: AttributeError"),
    ],
)
def test_the_broken_rewrite_of_another_package_is_named(name: str, problem: str) -> None:
    with pytest.raises(InputError, match=f"^the entry point {name} = 'their_rewrites:{name}' of {GROUP} {problem}"):
        rewrite_mlir(FACTOR, [name])


def assert_same(model: Model, before: str, after: str, directory: Path, compiler: Compiler) -> None:
    """Compile both and compare their results on random inputs."""
    generator = np.random.default_rng(0)
    dtype = DTYPES[model.element]
    inputs = [generator.uniform(-2, 2, shape).astype(dtype) for shape in model.inputs.values()]
    expected, found = (run(text, inputs, directory, compiler) for text in (before, after))
    precision = {"f32": 1e-5, "f16": 5e-3, "bf16": 4e-2}[model.element]
    for one, other in zip(expected, found, strict=True):
        assert one.std() > 0.05
        np.testing.assert_allclose(one, other, atol=precision, rtol=precision)


def run(text: str, inputs: list[Any], directory: Path, compiler: Compiler) -> list[Any]:
    output = directory / "model.vmfb"
    compiler.compile_sources(compiler.lower(text, to="executable-sources"), output)
    config = runtime.Config("local-sync")
    module = runtime.load_vm_module(runtime.VmModule.mmap(config.vm_instance, str(output)), config)
    results = module["model"](*inputs)
    results = results if isinstance(results, tuple | list) else [results]
    return [np.asarray(result.to_host()).astype(np.float64) for result in results]
