"""The encoder block of `benchmarks/encoder.py`: what it computes, and that it compiles for a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from iree import runtime
from scipy.special import erf, softmax

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.onnx import import_onnx
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.forms.mlir_rewrites import rewrite_mlir
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "encoder.py"
BATCH, TOKENS, WIDTH, HEADS, HIDDEN = 2, 24, 32, 2, 64


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("encoder") / "encoder.mlir"
    sizes = {"batch": BATCH, "tokens": TOKENS, "width": WIDTH, "heads": HEADS, "hidden": HIDDEN}
    options = [f"--{name}={size}" for name, size in sizes.items()]
    subprocess.run([sys.executable, SCRIPT, *options, "-o", output], check=True)
    return output


@pytest.mark.slow
def test_it_computes_what_numpy_does(path: Path, tmp_path: Path) -> None:
    compiler = Compiler(Target.parse("llvm-cpu"))
    source = read_source(path, Path())
    found = extract_dispatches([source], compiler, 2)
    (types,) = (each.functions["main"] for each in found.sources)
    assert {"attention", "contraction"} <= {each.root.kind for each in found.dispatches}
    compiler.compile_sources(compiler.lower(source.text, to="executable-sources"), tmp_path / "encoder.vmfb")
    generator = np.random.default_rng(0)
    inputs = [generator.uniform(-1, 1, each.shape).astype(np.float16) for each in types]
    config = runtime.Config("local-sync")
    module = runtime.load_vm_module(runtime.VmModule.mmap(config.vm_instance, str(tmp_path / "encoder.vmfb")), config)
    result = module.main(*inputs).to_host()
    expected = encoder(*(each.astype(np.float64) for each in inputs))
    assert result.shape == expected.shape == (BATCH, TOKENS, WIDTH)
    # Each of some ten roundings to f16 is off by up to 2**-11 of values of the order of 1.
    np.testing.assert_allclose(result, expected, atol=0.01)
    assert expected.std() > 0.3


@pytest.mark.slow
def test_a_gpu_compiles_it_and_has_contractions_to_tune(path: Path, tmp_path: Path) -> None:
    compiler = Compiler(Target.parse("cuda:sm_89"))
    source = read_source(path, Path())
    found = extract_dispatches([source], compiler, 2)
    assert sum(each.weight for each in found.dispatches if each.root.kind == "contraction") == 4
    compiler.compile_sources(compiler.lower(source.text, to="executable-sources"), tmp_path / "encoder.vmfb")


def encoder(*inputs: Any) -> Any:
    x, scale, shift, wqkv, bqkv, wo, bo, scale2, shift2, wup, bup, wdown, bdown = inputs
    qkv = linear(norm(x, scale, shift), wqkv, bqkv).reshape(BATCH, TOKENS, 3, HEADS, WIDTH // HEADS)
    query, key, value = np.moveaxis(qkv, (2, 3), (0, 2))
    scores = softmax(query @ np.swapaxes(key, -1, -2) / np.sqrt(WIDTH / HEADS), axis=-1)
    mixed = np.moveaxis(scores @ value, 1, 2).reshape(x.shape)
    y = x + linear(mixed, wo, bo)
    up = linear(norm(y, scale2, shift2), wup, bup)
    return y + linear(up * (1 + erf(up / np.sqrt(2))) / 2, wdown, bdown)


def linear(x: Any, weights: Any, bias: Any) -> Any:
    return x @ weights / np.sqrt(len(weights)) + bias


def norm(x: Any, scale: Any, shift: Any) -> Any:
    unit = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return unit * scale + shift


def test_the_onnx_layer_has_an_attention_and_three_equal_products(tmp_path: Path) -> None:
    output = tmp_path / "layer.onnx"
    sizes = {"batch": BATCH, "tokens": TOKENS, "width": WIDTH, "heads": HEADS, "hidden": HIDDEN}
    subprocess.run(
        [sys.executable, SCRIPT, *(f"--{name}={size}" for name, size in sizes.items()), "-o", output], check=True
    )
    _, counts = rewrite_mlir(import_onnx(output), ["fused-attention", "fused-products"])
    assert counts == {"fused-attention": 1, "fused-products": 3}
