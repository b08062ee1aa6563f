"""Dispatches as they are read from what the real compiler dumps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import msgspec
import pytest
from iree.compiler import ir

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch import extraction, flow
from pytest_shark_tune.dispatch.grouping import group_dispatches
from pytest_shark_tune.dispatch.types import Argument, BufferView, FoundDispatch, Tensor, Untunable
from pytest_shark_tune.errors import InputError

pytestmark = pytest.mark.compiler

TUNABLE = ("plain", "transposed", "batch", "narrow", "fused", "reduction", "chain")


@pytest.fixture(scope="module")
def found(dumps: Mapping[str, str]) -> dict[str, FoundDispatch]:
    dispatches = {}
    for name, text in dumps.items():
        dispatch = extraction.read_benchmark(text, "model", processors=7)
        assert isinstance(dispatch, FoundDispatch), dispatch
        dispatches[name] = dispatch
    return dispatches


def test_every_static_dispatch_is_dumped_and_read(found: Mapping[str, FoundDispatch]) -> None:
    # A dispatch of dynamic shape has no benchmark: what is missing here is told apart by read_flow.
    assert set(found) == set(TUNABLE)
    assert {dispatch.symbol for dispatch in found.values()} == {f"{name}_dispatch_0" for name in TUNABLE}


@pytest.mark.parametrize(
    ("name", "loops", "inputs", "output", "dims"),
    [
        ("plain", (64, 96, 128), ("64x128xf32", "128x96xf32"), "64x96xf32", ((), (0,), (1,), (2,))),
        ("transposed", (64, 96, 128), ("64x128xf32", "96x128xf32"), "64x96xf32", ((), (0,), (1,), (2,))),
        ("batch", (3, 32, 48, 64), ("3x32x64xf32", "3x64x48xf32"), "3x32x48xf32", ((0,), (1,), (2,), (3,))),
        ("narrow", (64, 96, 128), ("64x128xi8", "128x96xi8"), "64x96xi32", ((), (0,), (1,), (2,))),
        ("fused", (24, 4, 20, 16), ("16x4x20xf32", "24x16xf32"), "24x4x20xf32", ((), (1, 2), (0,), (3,))),
    ],
)
def test_a_contraction_is_read_with_its_dimensions(
    found: Mapping[str, FoundDispatch],
    name: str,
    loops: tuple[int, ...],
    inputs: tuple[str, ...],
    output: str,
    dims: tuple[tuple[int, ...], ...],
) -> None:
    root = found[name].root
    assert root.kind == "contraction"
    assert root.loops == loops
    assert root.inputs == tuple(map(tensor, inputs))
    assert root.outputs == (tensor(output),)
    assert (root.batch, root.m, root.n, root.k) == dims
    reduction = dims[3]
    assert [index for index, kind in enumerate(root.iterators) if kind == "reduction"] == list(reduction)
    assert len(root.maps) == 3


def test_a_transposed_operand_shows_in_the_maps_alone(found: Mapping[str, FoundDispatch]) -> None:
    plain, transposed = found["plain"].root, found["transposed"].root
    assert plain.maps[1] == "affine_map<(d0, d1, d2) -> (d2, d1)>"
    assert transposed.maps == (plain.maps[0], "affine_map<(d0, d1, d2) -> (d1, d2)>", plain.maps[2])


def test_a_reduction_is_no_contraction(found: Mapping[str, FoundDispatch]) -> None:
    root = found["reduction"].root
    assert (root.kind, root.loops, root.iterators) == ("other", (40, 56), ("parallel", "reduction"))
    assert (root.m, root.n, root.k) == ((), (), ())


def test_the_target_is_read_from_the_module(found: Mapping[str, FoundDispatch]) -> None:
    target = found["plain"].target
    assert (target.backend, target.architecture) == ("llvm-cpu", "x86_64")
    assert (target.native_vector_bytes, target.max_stack_bytes) == (32, 32768)  # x86-64-v3 has AVX2
    assert target.processors == 7


def test_the_default_config_is_what_the_compiler_chose(found: Mapping[str, FoundDispatch]) -> None:
    for dispatch in found.values():
        assert dispatch.default_pipeline == "DoubleTilingExpert"
        with ir.Context():
            assert "iree_cpu.lowering_config" in str(ir.Attribute.parse(dispatch.default_config))


def test_the_module_is_stripped_and_gives_its_buffer_away(found: Mapping[str, FoundDispatch]) -> None:
    for dispatch in found.values():
        module = dispatch.module
        assert "lowering_config" not in module.text
        assert "translation_info" not in module.text
        assert module.text.count("root_op = ") == 1
        with ir.Context():
            parsed = ir.Module.parse(module.text)
            assert parsed.operation.verify()
            public = {
                ir.StringAttr(op.attributes["sym_name"]).value
                for op in parsed.body.operations
                if op.name == "util.func"
            }
        assert {module.run_function, module.buffer_function} <= public


def test_views_follow_one_another_in_the_buffer(found: Mapping[str, FoundDispatch]) -> None:
    module = found["plain"].module
    first, second = 64 * 128 * 4, 128 * 96 * 4
    scale = (3 / 128**0.5) ** 0.5
    assert module.views == (
        BufferView(offset_bytes=0, shape=(64, 128), element="f32", reads=True, writes=False, scale=scale),
        BufferView(offset_bytes=first, shape=(128, 96), element="f32", reads=True, writes=False, scale=scale),
        BufferView(offset_bytes=first + second, shape=(64, 96), element="f32", reads=False, writes=True),
    )
    assert module.buffer_bytes == first + second + 64 * 96 * 4


def test_every_view_lies_inside_the_buffer_apart_from_the_others(found: Mapping[str, FoundDispatch]) -> None:
    sizes = {"f32": 4, "i8": 1, "i32": 4}
    for dispatch in found.values():
        module = dispatch.module
        spans = []
        for view in module.views:
            size = sizes[view.element]
            for extent in view.shape:
                size *= extent
            spans.append((view.offset_bytes, view.offset_bytes + size))
        assert all(0 <= start < end <= module.buffer_bytes for start, end in spans)
        ordered = sorted(spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(ordered))


def test_a_result_written_in_part_is_also_read(found: Mapping[str, FoundDispatch]) -> None:
    # The padding around the fused contraction's result is there before it runs and has to stay.
    views = found["fused"].module.views
    assert [(view.shape, view.reads, view.writes) for view in views] == [
        ((16, 4, 20), True, False),
        ((24, 16), True, False),
        ((24,), True, False),
        ((24, 8, 24), True, True),
    ]


def test_offsets_are_followed_through_the_constants_of_the_call(dumps: Mapping[str, str]) -> None:
    # The three calls differ in the offsets of input and result, which are passed as constants: 4096 and 0 here.
    text = dumps["chain"]
    assert text.count("hal.interface.constant.load") == 2
    assert offsets(text) == [4096, 8192, 12288]
    moved = text.replace("%c0_i32 = arith.constant 0 : i32", "%c0_i32 = arith.constant 256 : i32")
    assert offsets(moved) == [4096, 8192, 12288 + 256]


def test_an_offset_in_two_constants_is_put_together(dumps: Mapping[str, str]) -> None:
    halves = """
          %low = arith.extui %1 : i32 to i64
          %high = arith.extui %0 : i32 to i64
          %width = arith.constant 32 : i64
          %shifted = arith.shli %high, %width : i64
          %joined = arith.ori %low, %shifted : i64
          %3 = arith.index_castui %joined : i64 to index"""
    text = dumps["chain"].replace("%3 = arith.index_castui %1 : i32 to index", halves)
    assert offsets(text) == [4096, 8192, 12288 + (4096 << 32)]


def test_an_offset_that_is_not_constant_cannot_be_tuned(dumps: Mapping[str, str]) -> None:
    text = dumps["chain"].replace("arith.index_castui %0 : i32 to index", "arith.index_castui %odd : i32 to index")
    text = text.replace("%2 = arith.index_castui", "%odd = arith.divui %0, %0 : i32\n %2 = arith.index_castui", 1)
    dispatch = extraction.read_benchmark(text, "model", processors=2)
    assert isinstance(dispatch, Untunable)
    assert "arith.divui, which is not followed" in dispatch.reason


def test_a_module_without_a_root_op_says_so(dumps: Mapping[str, str]) -> None:
    text = dumps["plain"].replace("root_op = #iree_codegen.root_op<set = 0>", "unmarked")
    dispatch = extraction.read_benchmark(text, "model", processors=2)
    assert dispatch == Untunable("plain_dispatch_0", "model", "the compiler marks no root op in it", kind="NoRootOp")


def test_text_that_does_not_parse_is_an_input_error(dumps: Mapping[str, str]) -> None:
    with pytest.raises(InputError, match=r"it is not MLIR that this IREE parses: .*expected"):
        extraction.read_benchmark(dumps["plain"][:-40], "model", processors=2)


def test_equal_dispatches_form_one_group_weighted_by_their_calls(found: Mapping[str, FoundDispatch]) -> None:
    plain = found["plain"]
    again = msgspec.structs.replace(plain, symbol="again", source="other")
    calls = {("model", "plain_dispatch_0"): 4, ("other", "again"): 2}
    (dispatch,) = group_dispatches([plain, again], calls)
    assert dispatch.name == "matmul_64x96x128_f32"
    assert [(member.symbol, member.source, member.calls) for member in dispatch.members] == [
        ("plain_dispatch_0", "model", 4),
        ("again", "other", 2),
    ]
    assert dispatch.weight == 6


def test_what_is_not_counted_is_called_once(found: Mapping[str, FoundDispatch]) -> None:
    (dispatch,) = group_dispatches([found["plain"]], {})
    assert dispatch.weight == 1


def test_a_contraction_is_grouped_however_its_op_is_spelled(found: Mapping[str, FoundDispatch]) -> None:
    named = found["plain"]
    generic = msgspec.structs.replace(named, root=msgspec.structs.replace(named.root, op="linalg.generic"))
    (dispatch,) = group_dispatches([named, generic], {})
    assert len(dispatch.members) == 2


def test_names_say_op_sizes_and_types(found: Mapping[str, FoundDispatch]) -> None:
    dispatches = group_dispatches([found[name] for name in ("batch", "narrow", "fused", "reduction")], {})
    assert [dispatch.name for dispatch in dispatches] == [
        "batch_matmul_3x32x48x64_f32",
        "matmul_64x96x128_i8xi8xi32",
        "matmul_like_24x4x20x16_f32",
        "reduction_40x56_f32",
    ]


def test_a_shared_name_gets_a_hash_of_the_structure(found: Mapping[str, FoundDispatch]) -> None:
    both = group_dispatches([found["plain"], found["transposed"]], {})
    names = [dispatch.name for dispatch in both]
    assert len(set(names)) == 2
    for name in names:
        base, _, digits = name.rpartition("_")
        assert base == "matmul_64x96x128_f32"
        assert len(digits) == 4
        assert int(digits, 16) >= 0
    backwards = group_dispatches([found["transposed"], found["plain"]], {})
    assert [dispatch.name for dispatch in backwards] == names[::-1]


def test_keys_tell_structures_apart_and_nothing_else(found: Mapping[str, FoundDispatch]) -> None:
    dispatches = group_dispatches(found.values(), {})
    assert len({dispatch.key for dispatch in dispatches}) == len(dispatches)
    renamed = msgspec.structs.replace(found["plain"], symbol="x", source="y", default_config="z")
    assert group_dispatches([renamed], {})[0].key == group_dispatches([found["plain"]], {})[0].key


def test_calls_are_counted_by_executable_and_known_by_function(compiler: Compiler, model: str) -> None:
    read = flow.read_flow(compiler.lower(model, to="flow"))
    assert read == flow.Flow(
        calls={f"{name}_dispatch_0": 1 for name in (*TUNABLE, "dynamic")} | {"chain_dispatch_0": 3},
        called={name: (f"{name}_dispatch_0",) for name in (*TUNABLE, "dynamic")},
    )


def test_what_a_function_calls_it_may_call_through_others() -> None:
    read = flow.read_flow(
        """
        flow.executable private @one { flow.executable.export public @run }
        flow.executable private @two { flow.executable.export public @run }
        util.func public @direct(%x: tensor<4xf32>) -> tensor<4xf32> {
          %0 = flow.dispatch @one::@run(%x) : (tensor<4xf32>) -> tensor<4xf32>
          %1 = flow.dispatch @one::@run(%0) : (tensor<4xf32>) -> tensor<4xf32>
          util.return %1 : tensor<4xf32>
        }
        util.func private @between(%x: tensor<4xf32>) -> tensor<4xf32> {
          %0 = util.call @direct(%x) : (tensor<4xf32>) -> tensor<4xf32>
          %1 = util.call @elsewhere(%0) : (tensor<4xf32>) -> tensor<4xf32>
          util.return %1 : tensor<4xf32>
        }
        util.func private @elsewhere(%x: tensor<4xf32>) -> tensor<4xf32>
        util.func public @through(%x: tensor<4xf32>) -> tensor<4xf32> {
          %0 = flow.dispatch @two::@run(%x) : (tensor<4xf32>) -> tensor<4xf32>
          %1 = util.call @between(%0) : (tensor<4xf32>) -> tensor<4xf32>
          util.return %1 : tensor<4xf32>
        }
        util.func public @nothing(%x: tensor<4xf32>) -> tensor<4xf32> { util.return %x : tensor<4xf32> }
        """
    )
    assert read.calls == {"one": 2, "two": 1}
    assert read.called == {"direct": ("one",), "between": ("one",), "through": ("one", "two"), "nothing": ()}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('#flow.parameter.named<"model"::"w"> : tensor<4xf32>', {"model": {"w": 16}}),
        ('#stream.parameter.named<"a b::<c>"::"d.e<0>", {f = "g"}> : tensor<3xi4>', {"a b::<c>": {"d.e<0>": 2}}),
        ('#flow.parameter.named<"w"> : tensor<2xcomplex<f64>>', {"": {"w": 32}}),
        ("dense<1.5> : tensor<4xf32>", {}),
    ],
)
def test_data_in_another_file_is_noticed(data: str, expected: dict[str, dict[str, int]]) -> None:
    kind = data[data.index("tensor<") :]
    assert flow.read_flow(f"util.global private @w = {data}").parameters == expected
    constant = f"%0 = flow.tensor.constant {data}\nutil.return %0 : {kind}"
    assert flow.read_flow(f"util.func public @f() -> {kind} {{\n{constant}\n}}").parameters == expected


def test_functions_with_static_tensors_are_listed_with_their_inputs(compiler: Compiler) -> None:
    functions = flow.function_inputs(
        compiler.lower(
            """
            func.func @two(%a: tensor<2x3xf32>, %b: tensor<4xi8>) -> tensor<2x3xf32> { return %a : tensor<2x3xf32> }
            func.func @none() -> tensor<1xf32> {
              %c = arith.constant dense<1.0> : tensor<1xf32>
              return %c : tensor<1xf32>
            }
            func.func @dynamic(%a: tensor<?xf32>) -> tensor<?xf32> { return %a : tensor<?xf32> }
            func.func @scalar(%a: i32) -> i32 { return %a : i32 }
            func.func private @hidden(%a: tensor<2xf32>) -> tensor<2xf32> { return %a : tensor<2xf32> }
            """,
            to="input",
        )
    )
    number = Argument((), "i32", is_scalar=True)
    assert functions == {"two": (argument("2x3xf32"), argument("4xi8")), "none": (), "scalar": (number,)}


def test_buffer_views_count_as_the_tensors_that_they_are_imported_as(compiler: Compiler) -> None:
    """An ONNX model's function waits for fences, and another one, which hides them, calls it."""
    functions = flow.function_inputs(
        compiler.lower(
            """
            util.func public @"of Paddle.$async"(%view: !hal.buffer_view, %wait: !hal.fence) -> tensor<2x3xf32> {
              %0 = hal.tensor.import wait(%wait) => %view : !hal.buffer_view -> tensor<2x3xf32>
              util.return %0 : tensor<2x3xf32>
            }
            util.func public @"of Paddle."(%view: !hal.buffer_view) -> tensor<2x3xf32> {
              %fence = util.null : !hal.fence
              %0 = util.call @"of Paddle.$async"(%view, %fence) : (!hal.buffer_view, !hal.fence) -> tensor<2x3xf32>
              util.return %0 : tensor<2x3xf32>
            }
            util.func public @"handed on"(%view: !hal.buffer_view) -> !hal.buffer_view {
              util.return %view : !hal.buffer_view
            }
            util.func public @demoted(%view: !hal.buffer_view) -> tensor<4xf32> {
              %0 = hal.tensor.import %view : !hal.buffer_view -> tensor<4xf64> as tensor<4xf32>
              util.return %0 : tensor<4xf32>
            }
            util.func public @unknown(%view: !hal.buffer_view) -> index {
              %0 = hal.buffer_view.dim<%view : !hal.buffer_view>[0] : index
              util.return %0 : index
            }
            """,
            to="input",
        )
    )
    assert functions == {
        "of Paddle.": (argument("2x3xf32"),),
        "handed on": (argument("1xf32"),),
        "demoted": (argument("4xf64"),),
    }


def test_the_reason_why_no_function_can_be_fed_names_the_input() -> None:
    other = (
        "util.func public @f(%a: tensor<2xf32>, %b: tensor<?xi8>) -> tensor<?xi8> {\nutil.return %b : tensor<?xi8>\n}"
    )
    empty = "util.func public @g(%a: tensor<0x2xf32>) -> tensor<0x2xf32> {\nutil.return %a : tensor<0x2xf32>\n}"
    why = (
        "no data can be made for 'f': its input 1 is of type tensor<?xi8>, and only tensors of fixed shapes and "
        "numbers of common types are made up"
    )
    assert flow.why_not_fed(other) == why
    assert flow.why_not_fed(f"{other}\n{empty}") == ""
    assert flow.function_inputs(f"{other}\n{empty}") == {"g": (argument("0x2xf32"),)}


@pytest.mark.parametrize("kind", ["f32", "i1", "i64", "index"])
def test_a_function_may_take_a_number(kind: str) -> None:
    text = f"util.func public @f(%a: tensor<2xf32>, %b: {kind}) -> {kind} {{\nutil.return %b : {kind}\n}}"
    assert flow.function_inputs(text) == {"f": (argument("2xf32"), Argument((), kind, is_scalar=True))}


def test_a_benchmark_file_is_told_from_a_model(dumps: Mapping[str, str], model: str) -> None:
    assert all(extraction.is_benchmark_module(text) for text in dumps.values())
    assert not extraction.is_benchmark_module(model)
    assert not extraction.is_benchmark_module("not MLIR at all")
    assert not extraction.is_benchmark_module("module {}")


def test_a_module_of_unknown_dialects_is_no_benchmark() -> None:
    assert not extraction.is_benchmark_module('"stablehlo.custom"() : () -> ()')


def test_bytecode_and_text_give_the_same_module(model: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("bytecode") / "model.mlirbc"
    with ir.Context():
        module = ir.Module.parse(model)
        text = str(module)
        with path.open("wb") as file:
            module.operation.write_bytecode(file)
    assert extraction.read_module(path.read_bytes()) == text
    assert extraction.read_module(model.encode()) == model


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"ML\xefR broken"], ids=["binary", "broken-bytecode"])
def test_content_that_is_neither_text_nor_bytecode_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="it is n"):
        extraction.read_module(content)


def offsets(text: str) -> list[int]:
    dispatch = extraction.read_benchmark(text, "model", processors=2)
    assert isinstance(dispatch, FoundDispatch), dispatch
    return [view.offset_bytes for view in dispatch.module.views]


def tensor(text: str) -> Tensor:
    *shape, element = text.split("x")
    return Tensor(tuple(map(int, shape)), element)


def argument(text: str) -> Argument:
    given = tensor(text)
    return Argument(given.shape, given.element)


SCALED = """
#a = affine_map<(m, n, k, b) -> (m, k, b)>
#b = affine_map<(m, n, k, b) -> (n, k, b)>
#as = affine_map<(m, n, k, b) -> (m, k)>
#bs = affine_map<(m, n, k, b) -> (n, k)>
#o = affine_map<(m, n, k, b) -> (m, n)>
func.func @main(%packed_a: tensor<64x4x16xi8>, %packed_b: tensor<128x4x16xi8>,
                %as: tensor<64x4xf8E8M0FNU>, %bs: tensor<128x4xf8E8M0FNU>) -> tensor<64x128xf32> {
  %a = flow.tensor.bitcast %packed_a : tensor<64x4x16xi8> -> tensor<64x4x32xf4E2M1FN>
  %b = flow.tensor.bitcast %packed_b : tensor<128x4x16xi8> -> tensor<128x4x32xf4E2M1FN>
  %z = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<64x128xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<64x128xf32>) -> tensor<64x128xf32>
  %r = linalg.generic {indexing_maps = [#a, #b, #as, #bs, #o],
                       iterator_types = ["parallel", "parallel", "reduction", "reduction"]}
      ins(%a, %b, %as, %bs : tensor<64x4x32xf4E2M1FN>, tensor<128x4x32xf4E2M1FN>,
                             tensor<64x4xf8E8M0FNU>, tensor<128x4xf8E8M0FNU>) outs(%f : tensor<64x128xf32>) {
  ^bb0(%x: f4E2M1FN, %y: f4E2M1FN, %xs: f8E8M0FNU, %ys: f8E8M0FNU, %acc: f32):
    %p = arith.scaling_extf %x, %xs : f4E2M1FN, f8E8M0FNU to f32
    %q = arith.scaling_extf %y, %ys : f4E2M1FN, f8E8M0FNU to f32
    %m = arith.mulf %p, %q : f32
    %s = arith.addf %acc, %m : f32
    linalg.yield %s : f32
  } -> tensor<64x128xf32>
  return %r : tensor<64x128xf32>
}
"""


@pytest.mark.parametrize("target", ["llvm-cpu:x86-64-v3", "hip:gfx950"])
def test_a_scaled_product_is_called_one(target: str) -> None:
    texts = Compiler(Target.parse(target)).dump_benchmarks(SCALED, "model")
    read = [extraction.read_benchmark(text, "model", processors=2) for text in texts]
    found = [each for each in read if isinstance(each, FoundDispatch)]
    (scaled,) = [each for each in group_dispatches(found, {}) if each.root.kind == "scaled_contraction"]
    assert (scaled.root.m, scaled.root.n, scaled.root.k) == ((0,), (1,), (2, 3))
    assert scaled.name.startswith("scaled_matmul_64x128x4x32_f4E2M1FN")
