"""Matchers on what the compiler really makes of a model: each entry takes its own op, and no other of a long row."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import Configured, configure_with
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.grouping import group_dispatches
from pytest_shark_tune.dispatch.types import Dispatch, FoundDispatch, Untunable
from pytest_shark_tune.spec.build import SpecEntry, build_spec, single_entry_spec

GOLDEN = Path(__file__).parents[2] / "golden" / "spec_kinds.mlir"
UPDATE = "SHARK_TUNE_UPDATE_GOLDEN"
INFO = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [{}]>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
)


def conv(op: str, image: str, kernel: str, out: str, attributes: str = "") -> str:
    zero = "0 : i32" if out.endswith("i32") else "0.0 : f32"
    acc = out.rpartition("x")[2]
    return f"""(%x: tensor<{image}>, %f: tensor<{kernel}>) -> tensor<{out}> {{
      %z = arith.constant {zero}
      %e = tensor.empty() : tensor<{out}>
      %i = linalg.fill ins(%z : {acc}) outs(%e : tensor<{out}>) -> tensor<{out}>
      %r = linalg.{op} {attributes} ins(%x, %f : tensor<{image}>, tensor<{kernel}>) outs(%i : tensor<{out}>)
        -> tensor<{out}>
      return %r : tensor<{out}>
    }}"""


def steps(strides: int, dilations: int) -> str:
    return f"{{strides = dense<{strides}> : tensor<2xi64>, dilations = dense<{dilations}> : tensor<2xi64>}}"


def generic(maps: str, iterators: str, ins: list[str], out: str, body: str, result: str = "f32") -> str:
    names = [f"%x{number}" for number in range(len(ins))]
    arguments = ", ".join(f"{name}: tensor<{kind}>" for name, kind in zip(names, ins, strict=True))
    types = ", ".join(f"tensor<{kind}>" for kind in ins)
    blocks = ", ".join(f"%b{number}: {kind.rpartition('x')[2]}" for number, kind in enumerate([*ins, out]))
    spelled = ", ".join(f'"{"parallel" if letter == "p" else "reduction"}"' for letter in iterators)
    return f"""({arguments}) -> tensor<{out}> {{
      %z = arith.constant 0.0 : f32
      %e = tensor.empty() : tensor<{out}>
      %i = linalg.fill ins(%z : f32) outs(%e : tensor<{out}>) -> tensor<{out}>
      %r = linalg.generic {{indexing_maps = [{maps}], iterator_types = [{spelled}]}}
        ins({", ".join(names)} : {types}) outs(%i : tensor<{out}>) {{
      ^bb0({blocks}):
        {body}
        linalg.yield %y : {result}
      }} -> tensor<{out}>
      return %r : tensor<{out}>
    }}"""


def attention(
    heads: int, queries: int, keys: int, element: str = "f32", *, value: str = "b, k2, n", body: str = ""
) -> str:
    dims = "(b, m, n, k1, k2)"
    shapes = [f"{heads}x{queries}x16x{element}", f"{heads}x{keys}x16x{element}"]
    shapes.append(f"{heads}x{keys}x32x{element}" if value == "b, k2, n" else f"{heads}x32x{keys}x{element}")
    out = f"{heads}x{queries}x32x{element}"
    operands = ["b, m, k1", "b, k2, k1", value, "", "b, m, n"]
    maps = ", ".join(f"affine_map<{dims} -> ({operand})>" for operand in operands)
    types = ", ".join(f"tensor<{shape}>" for shape in shapes)
    return f"""(%q: tensor<{shapes[0]}>, %k: tensor<{shapes[1]}>, %v: tensor<{shapes[2]}>) -> tensor<{out}> {{
      %s = arith.constant 0.125 : {element}
      %e = tensor.empty() : tensor<{out}>
      %r = iree_linalg_ext.attention <{{indexing_maps = [{maps}]}}>
        ins(%q, %k, %v, %s : {types}, {element}) outs(%e : tensor<{out}>) {{
      ^bb0(%score: f32):
        {body or "%y = arith.addf %score, %score : f32"}
        iree_linalg_ext.yield {"%y" if body else "%score"} : f32
      }} -> tensor<{out}>
      return %r : tensor<{out}>
    }}"""


def packing(dims: str, out: str) -> str:
    return f"""(%x: tensor<64x64xf32>) -> tensor<{out}> {{
      %e = tensor.empty() : tensor<{out}>
      %r = linalg.pack %x inner_dims_pos = {dims} inner_tiles = [8, 8] into %e : tensor<64x64xf32> -> tensor<{out}>
      return %r : tensor<{out}>
    }}"""


def sorting(dimension: int) -> str:
    return f"""(%x: tensor<64x64xf32>) -> tensor<64x64xf32> {{
      %r = iree_linalg_ext.sort dimension({dimension}) outs(%x : tensor<64x64xf32>) {{
      ^bb0(%a: f32, %b: f32):
        %c = arith.cmpf ogt, %a, %b : f32
        iree_linalg_ext.yield %c : i1
      }} -> tensor<64x64xf32>
      return %r : tensor<64x64xf32>
    }}"""


NHWC, DEPTHWISE = "conv_2d_nhwc_hwcf", "depthwise_conv_2d_nhwc_hwc"
SAME, SWAPPED = "affine_map<(i, j) -> (i, j)>", "affine_map<(i, j) -> (j, i)>"
FIRST, SECOND = "affine_map<(i, j) -> (i)>", "affine_map<(i, j) -> (j)>"
SQUARE, ROW = "64x64xf32", "64xf32"


def scaled(factor: str) -> str:
    return f"%c = arith.constant {factor} : f32 %s = arith.mulf %b0, %c : f32 %y = arith.addf %s, %b1 : f32"


# Each differs from another one in a single respect.
OPS = {
    "conv": conv(NHWC, "1x10x10x8xf32", "3x3x8x16xf32", "1x8x8x16xf32"),
    "conv_batch": conv(NHWC, "2x10x10x8xf32", "3x3x8x16xf32", "2x8x8x16xf32"),
    "conv_image": conv(NHWC, "1x10x18x8xf32", "3x3x8x16xf32", "1x8x16x16xf32"),
    "conv_image_turned": conv(NHWC, "1x18x10x8xf32", "3x3x8x16xf32", "1x16x8x16xf32"),
    "conv_filter": conv(NHWC, "1x12x12x8xf32", "5x5x8x16xf32", "1x8x8x16xf32"),
    "conv_channels_in": conv(NHWC, "1x10x10x4xf32", "3x3x4x16xf32", "1x8x8x16xf32"),
    "conv_channels_out": conv(NHWC, "1x10x10x8xf32", "3x3x8x32xf32", "1x8x8x32xf32"),
    "conv_stride": conv(NHWC, "1x17x17x8xf32", "3x3x8x16xf32", "1x8x8x16xf32", steps(2, 1)),
    "conv_stride_unread_rest": conv(NHWC, "1x18x18x8xf32", "3x3x8x16xf32", "1x8x8x16xf32", steps(2, 1)),
    "conv_dilation": conv(NHWC, "1x12x12x8xf32", "3x3x8x16xf32", "1x8x8x16xf32", steps(1, 2)),
    "conv_f16": conv(NHWC, "1x10x10x8xf16", "3x3x8x16xf16", "1x8x8x16xf32"),
    "conv_i8": conv(NHWC, "1x10x10x8xi8", "3x3x8x16xi8", "1x8x8x16xi32"),
    "conv_nchw": conv("conv_2d_nchw_fchw", "1x8x10x10xf32", "16x8x3x3xf32", "1x16x8x8xf32"),
    "conv_filter_layout": conv("conv_2d_nhwc_fhwc", "1x10x10x8xf32", "16x3x3x8xf32", "1x8x8x16xf32"),
    "depthwise": conv(DEPTHWISE, "1x10x10x16xf32", "3x3x16xf32", "1x8x8x16xf32"),
    "depthwise_stride": conv(DEPTHWISE, "1x17x17x16xf32", "3x3x16xf32", "1x8x8x16xf32", steps(2, 1)),
    "grouped": conv("conv_2d_ngchw_fgchw", "1x2x8x10x10xf32", "16x2x8x3x3xf32", "1x2x16x8x8xf32"),
    "maximum": conv("pooling_nhwc_max", "1x10x10x16xf32", "3x3xf32", "1x8x8x16xf32"),
    "minimum": conv("pooling_nhwc_min", "1x10x10x16xf32", "3x3xf32", "1x8x8x16xf32"),
    "attention": attention(4, 32, 64),
    "attention_heads": attention(8, 32, 64),
    "attention_keys": attention(4, 32, 128),
    "attention_f16": attention(4, 32, 64, "f16"),
    "attention_value_layout": attention(4, 32, 64, value="b, n, k2"),
    "attention_body": attention(4, 32, 64, body="%y = math.tanh %score : f32"),
    "sum": generic(f"{SAME}, {FIRST}", "pr", [SQUARE], ROW, "%y = arith.addf %b0, %b1 : f32"),
    "sum_of_columns": generic(f"{SAME}, {SECOND}", "rp", [SQUARE], ROW, "%y = arith.addf %b0, %b1 : f32"),
    "sum_of_wider": generic(f"{SAME}, {FIRST}", "pr", ["64x128xf32"], ROW, "%y = arith.addf %b0, %b1 : f32"),
    "product": generic(f"{SAME}, {FIRST}", "pr", [SQUARE], ROW, "%y = arith.mulf %b0, %b1 : f32"),
    "sum_of_thirds": generic(f"{SAME}, {FIRST}", "pr", [SQUARE], ROW, scaled("0.333")),
    "sum_of_fifths": generic(f"{SAME}, {FIRST}", "pr", [SQUARE], ROW, scaled("0.2")),
    "add_turned": generic(f"{SAME}, {SWAPPED}, {SAME}", "pp", [SQUARE] * 2, SQUARE, "%y = arith.addf %b0, %b1 : f32"),
    "add": generic(f"{SAME}, {SAME}, {SAME}", "pp", [SQUARE] * 2, SQUARE, "%y = arith.addf %b0, %b1 : f32"),
    "pack": packing("[0, 1]", "8x8x8x8xf32"),
    "pack_turned": packing("[1, 0]", "8x8x8x8xf32"),
    "sort": sorting(0),
    "sort_rows": sorting(1),
}

KINDS = {
    "conv": "convolution",
    "conv_nchw": "convolution",
    "depthwise": "convolution",
    "grouped": "convolution",
    "maximum": "pooling",
    "attention": "attention",
    "sum": "other",
    "pack": "other",
}


class Model:
    """All ops as one model: their dispatches, and the model with its default configs chosen."""

    def __init__(self) -> None:
        compiler = Compiler(Target.parse("llvm-cpu"))
        text = "\n".join(f"func.func @{name}{function}" for name, function in OPS.items())
        self.benchmarks = compiler.dump_benchmarks(text, "ops")
        found = [read_benchmark(each, "ops", processors=1) for each in self.benchmarks]
        tunable = [each for each in found if isinstance(each, FoundDispatch)]
        self.dispatches = group_dispatches(tunable, {})
        self.configurations = compiler.lower(text, to="executable-configurations")

    def dispatch(self, op: str) -> Dispatch:
        """The dispatch of one function."""
        return next(each for each in self.dispatches if each.members[0].symbol.startswith(f"{op}_dispatch_"))

    def configured(self, spec: str) -> Configured:
        """The model with a spec applied."""
        return configure_with(self.configurations, spec)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


def info(dispatch: Dispatch, tile: int = 8) -> str:
    """Any config that the op takes: one tile size for each loop."""
    return INFO.format(", ".join([str(tile)] * max(len(dispatch.root.loops), 2)))


def test_every_op_is_a_dispatch_of_its_own(model: Model) -> None:
    assert len(model.dispatches) == len(OPS)
    assert len({dispatch.name for dispatch in model.dispatches}) == len(OPS)
    assert {op: model.dispatch(op).root.kind for op in KINDS} == KINDS


@pytest.mark.parametrize("op", OPS)
def test_an_entry_takes_its_own_op_and_no_other(op: str, model: Model) -> None:
    dispatch = model.dispatch(op)
    configured = model.configured(single_entry_spec(dispatch.root, info(dispatch)))
    assert [each.symbol for each in configured.applied] == [dispatch.members[0].symbol]


@pytest.mark.parametrize("op", ["conv", "attention", "sum", "sum_of_thirds", "pack", "sort"])
def test_an_entry_takes_the_benchmark_that_it_is_tuned_on(op: str, model: Model) -> None:
    dispatch = model.dispatch(op)
    module = dispatch.members[0].module.text
    (applied,) = configure_with(module, single_entry_spec(dispatch.root, info(dispatch))).applied
    assert applied.compilation_info


def test_all_entries_in_one_spec_each_take_their_own_op(model: Model) -> None:
    entries = [
        SpecEntry(name=dispatch.name, root=dispatch.root, compilation_info=info(dispatch, number + 1))
        for number, dispatch in enumerate(model.dispatches)
    ]
    tiles = {each.symbol: each.config for each in model.configured(build_spec(entries)).applied}
    assert len(tiles) == len(OPS)
    for number, dispatch in enumerate(model.dispatches):
        assert f"distribution = [{number + 1}, " in tiles[dispatch.members[0].symbol]


def test_one_entry_of_each_kind_is_the_golden_spec(model: Model) -> None:
    chosen = [model.dispatch(op) for op in ("conv_stride", "maximum", "attention", "sum_of_thirds", "pack_turned")]
    text = build_spec(SpecEntry(name=each.root.kind, root=each.root, compilation_info=info(each)) for each in chosen)
    if os.environ.get(UPDATE):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8"), f"if that is right: {UPDATE}=1 python -m pytest {__file__}"


def test_names_say_layout_sizes_and_steps(model: Model) -> None:
    names = {op: model.dispatch(op).name for op in OPS}
    assert names["conv_batch"] == "conv_2d_nhwc_hwcf_2x8x8x16_3x3x8_f32"
    assert names["conv_dilation"] == "conv_2d_nhwc_hwcf_1x8x8x16_3x3x8_d2x2_f32"
    assert names["conv_filter_layout"] == "conv_2d_nhwc_fhwc_1x8x8x16_3x3x8_f32"
    assert names["conv_i8"] == "conv_2d_nhwc_hwcf_1x8x8x16_3x3x8_i8xi8xi32"
    assert names["depthwise_stride"] == "depthwise_conv_2d_nhwc_hwc_1x8x8x16_3x3_s2x2_f32"
    assert names["grouped"] == "grouped_conv_2d_ngchw_fgchw_1x2x16x8x8_3x3x8_f32"
    assert names["attention_heads"] == "attention_8x32x32_k64x16_f32"
    assert names["sum_of_wider"] == "reduction_64x128_f32"


def test_the_dimensions_of_a_convolution_are_told(model: Model) -> None:
    root = model.dispatch("conv_stride").root
    assert root.loops == (1, 8, 8, 16, 3, 3, 8)
    assert (root.batch, root.output_image, root.output_channel) == ((0,), (1, 2), (3,))
    assert (root.filter_loop, root.input_channel, root.depth) == ((4, 5), (6,), ())
    assert (root.strides, root.dilations) == ((2, 2), (1, 1))
    assert root.reduction_length == 72
    assert model.dispatch("depthwise").root.depth == (3,)
    grouped = model.dispatch("grouped").root
    assert (grouped.depth, grouped.output_channel, grouped.input_channel) == ((1,), (2,), (5,))


def test_the_dimensions_of_attention_are_told(model: Model) -> None:
    root = model.dispatch("attention").root
    assert root.loops == (4, 32, 32, 16, 64)
    assert (root.batch, root.m, root.n, root.k1, root.k2) == ((0,), (1,), (2,), (3,), (4,))
    assert root.iterators == ("parallel", "parallel", "parallel", "reduction", "reduction")
    assert [tensor.shape for tensor in root.inputs] == [(4, 32, 16), (4, 64, 16), (4, 64, 32), ()]


def test_a_constant_of_a_body_is_part_of_the_pattern(model: Model) -> None:
    root = model.dispatch("sum_of_thirds").root
    body = root.pattern[root.pattern.index("^bb0") :]
    assert "arith.constant 3.330000e-01" in body


def test_a_body_that_uses_what_is_computed_outside_is_told(model: Model) -> None:
    constant = "arith.constant 3.330000e-01 : f32"
    (text,) = (each for each in model.benchmarks if constant in each)
    (line,) = (each for each in text.splitlines() if constant in each)
    name = line.split()[0]
    computed = f"%before = {constant}\n{name} = arith.addf %before, %before : f32"
    told = read_benchmark(text.replace(line, computed), "ops", processors=1)
    assert isinstance(told, Untunable)
    assert "a value from outside that is no constant" in told.reason
