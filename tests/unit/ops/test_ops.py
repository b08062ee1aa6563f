from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from iree.compiler import ir
from iree.compiler.dialects import iree_codegen, linalg
from iree.compiler.tools.binaries import find_tool

from pytest_shark_tune import ops
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.system import process

QUICKSTART = Path(__file__).parents[3] / "tuning_suites" / "quickstart"


def function_type(source: ops.OpSource) -> str:
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.parse(source.text)
        assert module.operation.verify()
        (main,) = module.body.operations
        assert main.attributes["sym_name"].value == "main"
        assert "sym_visibility" not in main.attributes
        return str(main.attributes["function_type"].value)


@pytest.mark.parametrize(
    ("source", "name", "signature"),
    [
        pytest.param(
            ops.matmul(m=64, n=96, k=128),
            "matmul_64x96x128_f32",
            "(tensor<64x128xf32>, tensor<128x96xf32>) -> tensor<64x96xf32>",
            id="default",
        ),
        pytest.param(
            ops.matmul(m=64, n=96, k=128, lhs="f16", transpose_a=True),
            "matmul_64x96x128_f16_ta",
            "(tensor<128x64xf16>, tensor<128x96xf16>) -> tensor<64x96xf32>",
            id="f16-transposed-a",
        ),
        pytest.param(
            ops.matmul(m=64, n=96, k=128, lhs="f16", acc="f16"),
            "matmul_64x96x128_f16_acc_f16",
            "(tensor<64x128xf16>, tensor<128x96xf16>) -> tensor<64x96xf16>",
            id="f16-in-f16",
        ),
        pytest.param(
            ops.matmul(m=64, n=96, k=128, lhs="bf16", out="bf16", transpose_a=True),
            "matmul_64x96x128_bf16_out_bf16_ta",
            "(tensor<128x64xbf16>, tensor<128x96xbf16>) -> tensor<64x96xbf16>",
            id="stored-as-bf16",
        ),
        pytest.param(
            ops.matmul(m=64, n=96, k=128, lhs="bf16", transpose_b=True),
            "matmul_64x96x128_bf16_tb",
            "(tensor<64x128xbf16>, tensor<96x128xbf16>) -> tensor<64x96xf32>",
            id="bf16-transposed-b",
        ),
        pytest.param(
            ops.matmul(m=64, n=96, k=128, lhs="f16", rhs="f32"),
            "matmul_64x96x128_f16xf32",
            "(tensor<64x128xf16>, tensor<128x96xf32>) -> tensor<64x96xf32>",
            id="mixed",
        ),
        pytest.param(
            ops.matmul(m=1, n=1, k=1, lhs="i8", transpose_a=True, transpose_b=True),
            "matmul_1x1x1_i8_ta_tb",
            "(tensor<1x1xi8>, tensor<1x1xi8>) -> tensor<1x1xi32>",
            id="i8",
        ),
        pytest.param(
            ops.batch_matmul(batch=12, m=128, n=96, k=64),
            "batch_matmul_12x128x96x64_f32",
            "(tensor<12x128x64xf32>, tensor<12x64x96xf32>) -> tensor<12x128x96xf32>",
            id="batch",
        ),
        pytest.param(
            ops.batch_matmul(batch=3, m=64, n=96, k=128, lhs="i8", transpose_a=True, transpose_b=True),
            "batch_matmul_3x64x96x128_i8_ta_tb",
            "(tensor<3x128x64xi8>, tensor<3x96x128xi8>) -> tensor<3x64x96xi32>",
            id="batch-transposed",
        ),
        pytest.param(
            ops.conv_2d(
                batch=2, height=8, width=6, channels=16, filters=32, kernel_height=3, kernel_width=1, lhs="f16"
            ),
            "conv_2d_nhwc_2x8x6x16_32x3x1_f16",
            "(tensor<2x10x6x16xf16>, tensor<3x1x16x32xf16>) -> tensor<2x8x6x32xf32>",
            id="convolution",
        ),
        pytest.param(
            ops.conv_2d(
                batch=1,
                height=4,
                width=4,
                channels=3,
                filters=8,
                kernel_height=3,
                kernel_width=3,
                stride=2,
                dilation=2,
                layout="nchw",
                lhs="i8",
            ),
            "conv_2d_nchw_1x4x4x3_8x3x3_stride_2_dilation_2_i8",
            "(tensor<1x3x11x11xi8>, tensor<8x3x3x3xi8>) -> tensor<1x8x4x4xi32>",
            id="strided-dilated-convolution",
        ),
        pytest.param(
            ops.attention(batch=4, queries=64, keys=128, head=32),
            "attention_4x64x128x32_f16",
            "(tensor<4x64x32xf16>, tensor<4x128x32xf16>, tensor<4x128x32xf16>) -> tensor<4x64x32xf16>",
            id="attention",
        ),
        pytest.param(
            ops.attention(batch=4, queries=64, keys=128, head=32, value_head=16, element="f32"),
            "attention_4x64x128x32x16_f32",
            "(tensor<4x64x32xf32>, tensor<4x128x32xf32>, tensor<4x128x16xf32>) -> tensor<4x64x16xf32>",
            id="attention-narrow-values",
        ),
    ],
)
def test_name_and_module_say_what_was_asked(source: ops.OpSource, name: str, signature: str) -> None:
    assert source.name == name
    assert function_type(source) == signature


def test_the_result_starts_from_zero() -> None:
    text = ops.matmul(m=8, n=8, k=8, lhs="i8").text
    assert "arith.constant 0 : i32" in text
    assert "linalg.fill" in text
    assert "linalg.matmul" in text


def test_equal_arguments_give_equal_values() -> None:
    assert ops.matmul(m=8, n=8, k=8) == ops.matmul(m=8, n=8, k=8, lhs="f32", rhs="f32", acc="f32")
    assert ops.matmul(m=8, n=8, k=8, transpose_b=True) != ops.matmul(m=8, n=8, k=8)


def test_a_source_cannot_be_changed() -> None:
    source = ops.matmul(m=8, n=8, k=8)
    with pytest.raises(AttributeError):
        source.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"m": 0}, r"m=0: a size is an integer from 1", id="zero"),
        pytest.param({"n": -4}, r"n=-4: a size is an integer from 1", id="negative"),
        pytest.param({"k": 8.0}, r"k=8\.0: a size is an integer", id="float"),
        pytest.param({"k": "8"}, r"k='8': a size is an integer", id="text"),
        pytest.param({"m": True}, r"m=True: a size is an integer", id="bool"),
        pytest.param({"m": 2**31}, r"m=2147483648: a size is an integer from 1 to 2147483647", id="huge"),
        pytest.param({"lhs": "f8"}, r"lhs='f8': an input is one of f32, f16, bf16, i8", id="element"),
        pytest.param({"lhs": None}, r"lhs=None: an input is one of", id="no-element"),
        pytest.param({"lhs": ["f32"]}, r"lhs=\['f32'\]: an input is one of", id="element-list"),
        pytest.param({"rhs": "i32"}, r"rhs='i32': an input is one of", id="second-element"),
        pytest.param({"lhs": "i8", "rhs": "f16"}, r"rhs='f16': with lhs='i8' it is one of i8", id="pair"),
        pytest.param({"acc": "f16"}, r"acc='f16': f32 times f32 accumulates in f32", id="narrow-sums"),
        pytest.param({"lhs": "f16", "acc": "i32"}, r"acc='i32': f16 times f16 accumulates in f32 or f16", id="sums"),
        pytest.param({"lhs": "f16", "rhs": "bf16", "acc": "f16"}, r"acc='f16': f16 times bf16 .* in f32", id="mixed"),
        pytest.param({"out": "f7"}, r"out='f7': sums in f32 are stored as f32 or f16 or bf16", id="result"),
        pytest.param({"lhs": "i8", "out": "f32"}, r"out='f32': sums in i32 are stored as i32", id="result-of-i8"),
        pytest.param({"transpose_a": 1}, r"transpose_a=1: it is True or False", id="flag"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ops.matmul(**{"m": 8, "n": 8, "k": 8, **arguments})
    with pytest.raises(InputError, match=message):
        ops.batch_matmul(**{"batch": 2, "m": 8, "n": 8, "k": 8, **arguments})


def test_a_bad_layout_is_named() -> None:
    with pytest.raises(InputError, match="layout='hwcn': it is nhwc or nchw"):
        ops.conv_2d(batch=1, height=4, width=4, channels=4, filters=4, kernel_height=1, kernel_width=1, layout="hwcn")


def test_attention_names_a_bad_element() -> None:
    with pytest.raises(InputError, match="element='i8': it is one of f16, bf16, f32"):
        ops.attention(batch=1, queries=4, keys=4, head=4, element="i8")


def test_a_bad_batch_is_named() -> None:
    with pytest.raises(InputError, match="batch=0: a size"):
        ops.batch_matmul(batch=0, m=8, n=8, k=8)


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("text", "loops"),
    [
        pytest.param(ops.matmul(m=32, n=48, k=64).text, [1, 1, 1], id="matmul"),
        pytest.param(ops.matmul(m=32, n=48, k=64, lhs="f16", acc="f16", transpose_a=True).text, [1, 1, 1], id="f16-ta"),
        pytest.param(ops.matmul(m=32, n=48, k=64, lhs="bf16", transpose_b=True).text, [1, 1, 1], id="bf16-tb"),
        pytest.param(ops.matmul(m=32, n=48, k=64, lhs="bf16", out="bf16").text, [1, 1, 1], id="bf16-out"),
        pytest.param(ops.batch_matmul(batch=3, m=32, n=48, k=64, lhs="i8").text, [1, 1, 1], id="batch"),
        pytest.param((QUICKSTART / "ppocr_rec_33.mlir").read_text(encoding="utf-8"), [2, 1, 1], id="quickstart"),
    ],
)
def test_becomes_one_dispatch_around_one_contraction(text: str, loops: list[int], tmp_path: Path) -> None:
    source = tmp_path / "source.mlir"
    source.write_text(text, encoding="utf-8")
    command = [
        find_tool("iree-compile"),
        str(source),
        *("-o", str(tmp_path / "out.mlir"), "--compile-to=executable-targets"),
        *("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"),
        "--iree-llvmcpu-target-cpu=generic",
        "--iree-codegen-add-tuner-attributes",
        f"--iree-hal-dump-executable-benchmarks-to={tmp_path / 'dump'}",
    ]
    process.run(command, timeout_s=60)
    (dump,) = (tmp_path / "dump").iterdir()
    with ir.Context():
        module = ir.Module.parse(dump.read_text(encoding="utf-8"))
        (root,) = iree_codegen.get_tuner_root_ops(module)
        dims = linalg.infer_contraction_dimensions(root)
        assert [len(dims.m), len(dims.n), len(dims.k)] == loops
        assert len(dims.batch) == ("batch_matmul" in text)
