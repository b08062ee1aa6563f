from __future__ import annotations

import pytest
from iree.compiler import ir

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.driver_commands import read_commands

LINES = """
# forward, of half precision
convbfp16 -n 16 -c 32 -H 12 -W 12 -k 64 -y 1 -x 1 -p 0 -q 0 -u 1 -v 1 -l 1 -j 1 -m conv -g 1 -F 1 -t 1 \
--in_layout NHWC --out_layout NHWC --fil_layout NHWC
./bin/MIOpenDriver conv -n 2 -c 12 -H 8 -W 8 -k 12 -y 3 -x 3 -p 1 -q 1 -g 3 -F 7
[SKIP] conv -n 0
--iter 10 conv --bf16 -F 1 -n 2 -c 16 --in_d 2 -H 8 -W 8 -k 16 --fil_d 2 -y 1 -x 1 --conv_stride_d 2 --spatial_dim 3

--iter 10 matmul -M 64 -N 96 -K 32 --a_type bf16 --b_type bf16 --out_type bf16 --transA
matmul --fp16 -M 64 -N 96 -K 32 -B 4
matmul -M 64 -N 96 -K 32 --a_type bf16 --transA
matmul -M 64 -N 96 -K 32 --a_type bf16 --out_type f32 --transA
"""


SDPA = "sdpa -B 2 --heads_q 4 --seq_q 5 --seq_kv 7 -d 8 -t f32"


def test_each_line_is_an_op_and_equal_ones_are_one() -> None:
    sources = read_commands(LINES, "commands.txt").sources
    assert [source.name for source in sources] == [
        "conv_nhwc_16x12x12x32_64x1x1_bf16",
        "conv_nchw_2x8x8x12_12x3x3_f32_padding_1_groups_3",
        "conv_dgrad_nchw_2x8x8x12_12x3x3_f32_padding_1_groups_3",
        "conv_wgrad_nchw_2x8x8x12_12x3x3_f32_padding_1_groups_3",
        "conv_ncdhw_2x2x8x8x16_16x2x1x1_bf16_stride_2x1x1",
        "matmul_64x96x32_bf16_out_bf16_ta",
        "batch_matmul_4x64x96x32_f16_out_f16",
        "matmul_64x96x32_bf16_ta",
    ]
    with ir.Context():
        assert all(ir.Module.parse(source.text).operation.verify() for source in sources)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "pool -n 1",
            "invalid choice: 'pool' (choose from 'conv', 'convfp16', 'convbfp16', 'convint8', 'matmul', 'gemm'",
        ),
        ("conv -n 1 -m trans", "-m/--mode: invalid choice: 'trans' (choose from 'conv')"),
        ("conv -n 1 -r 1", "-r/--pad_val: 1 cannot be expressed; leave the flag out"),
        ("conv -n 1 -b maybe", "-b/--bias: maybe is neither 0 nor 1"),
        ("convint8 -n 1 -b 1", "the sums of a convolution of integers take neither a bias nor an activation here"),
        ("CBAInfer -m 9", "-m/--activMode: the activation 9 cannot be expressed, only 0 (none), 1 (logistic), 2"),
        ("conv -n zwei", "-n/--batchsize: zwei is no whole number"),
        ("conv -n 0", "-n/--batchsize: 0 is less than 1"),
        ("conv -n", "-n/--batchsize: expected one argument"),
        ("conv --frobnicate 1", "unrecognized arguments: --frobnicate"),
        ("conv -F 8", "-F/--forw: 8 is no sum of 1 (forward), 2 (input gradient) and 4"),
        ("conv --in_layout NHWC --fil_layout NDHWC", "the filter's layout NDHWC is no order of CHNW"),
        ("conv -c 3 -g 2", "in channels, 3, do not divide into 2 groups"),
        ("matmul -M 4 -N 4", "arguments are required: -K"),
        ("matmul -M 4 -N 4 -K 4 --frob", "unrecognized arguments: --frob"),
        ("gemm -F 7", "-F/--forw: invalid choice: 7"),
        ("gemm -F 2 -A 3", "-F 2 of a gemm with factors cannot be expressed"),
        (
            "bnorm -b 1",
            "-b/--back: 1 cannot be expressed; leave the flag out: gradients of batch normalizations are not read",
        ),
        ("bnorm -L NHW", "--layout: NHW is no order of NCHW"),
        ("layernorm -X 2x3 -t 1", "-o/--normalized_dim: 3 is no dimension of 2"),
        ("layernorm -X 2x3 -t f7", "-t/--type: f7 is no whole number"),
        ("layernorm -X 2x0 -t f32", "-X/--input: 0 is less than 1"),
        ("layernorm -X 2x3x4x5 --layout NHWC", "--layout and --elementwise_affine are Fusilli's, which takes a --type"),
        ("sdpa -B 1 --heads_q 4", "arguments are required: --heads_kv, --seq_q, --seq_kv, -d/--head_dim, -t/--type"),
        (f"{SDPA} --heads_kv 2", "4 heads of queries share the keys of 2 with --gqa only"),
        (f"{SDPA} --heads_kv 3 --gqa", "4 heads of queries do not divide into 3 groups"),
        (
            f"{SDPA} --heads_kv 4 --dropout 0.5",
            "-p/--dropout: 0.5 cannot be expressed; leave the flag out: it is random",
        ),
        ("layernorm -X 2x3x4x5 -F 16", "-F/--forw: 16 is no sum of 1 (forward), 2 (input), 4 (scale) and 8 (bias"),
        ("layernorm -X 7 -t f32", "-X/--input: 1 dimensions, where it takes 2 to 5"),
        ("aten::mm [[1,2],[2,3]] \"['float','float']\" [[2,1],[3,1]] \"['\\'a\\'','']\"", "'a' is no number"),
        ("aten::mm", "it takes four lists, of shapes, types, strides and values, and has 0"),
        ("aten::frob [] [] [] []", "'aten::frob': an op of PyTorch's is one of aten::mm, aten::bmm, aten::addmm"),
        ("aten::mm [[1,2],[2,3]] x [] []", "its lists of shapes, types, strides and values are not such lists"),
        (
            """aten::mm "[[4, 4], [4, 4]]" "['double', 'double']" "[[4, 1], [4, 1]]" "['', '']\"""",
            "double: a tensor is of one of the types float, c10::Float, c10::Half, c10::BFloat16",
        ),
        (
            """aten::mm "[[4, 4], [5, 4]]" "['float', 'float']" "[[4, 1], [4, 1]]" "['', '']\"""",
            "there is no product of [4, 4] and [5, 4]",
        ),
        (
            """aten::mm "[[4, 4], [4, 4]]" "['float', 'float']" "[[4, 1], [0, 1]]" "['', '']\"""",
            "the strides [0, 1] of a shape [4, 4] turn its dimensions, or repeat it",
        ),
        ("matmul -M 4 -N 4 -K 4 --a_type f7", "-M 4 -N 4 -K 4 --a_type f7: lhs='f7'"),
        (
            "matmul -M 4 -N 4 -K 4 --out_type f7",
            "--out_type f7: out='f7': sums in f32 are stored as f32 or f16 or bf16",
        ),
        ("matmul -M 4 -N 4 -K 4 --a_type i8 --out_type i8", "--out_type i8: out='i8': sums in i32 are stored as i32"),
        ("conv -n '1", "No closing quotation"),
    ],
)
def test_a_line_that_cannot_be_expressed_is_told_with_its_flag(line: str, message: str) -> None:
    commands = read_commands(f"matmul -M 4 -N 4 -K 4\n{line}\n", "my list.txt")
    assert [source.name for source in commands.sources] == ["matmul_4x4x4_f32"]
    (problem,) = commands.problems
    assert problem.startswith("line 2: ")
    assert message in problem


def test_all_lines_that_cannot_be_expressed_are_told_together() -> None:
    lines = ["pool -n 1", "matmul -M 4 -N 4 -K 4", "# no op", "conv --frob 1"]
    told = read_commands("\n".join(lines), "my list.txt").describe_problems("my list.txt").splitlines()
    assert told[0] == "my list.txt: 2 lines are not tuned"
    assert [line.partition(":")[0] for line in told[1:]] == ["  line 1", "  line 4"]
    with pytest.raises(InputError, match=r"^list: 1 line is not tuned\n  line 1: op: invalid choice: 'pool'"):
        read_commands("pool -n 1", "list")


@pytest.mark.parametrize("end", ["", "\n"])
def test_lists_that_people_have_are_read(end: str) -> None:
    """The shapes of Fusilli's and BOO's own lists, of a log of MIOpen's, and of rocMLIR's list of convolutions."""
    aten = (
        """aten::mm "[[128, 64], [64, 256]]" "['c10::BFloat16', 'c10::BFloat16']" "[[1, 128], [128, 1]]" "['', '']\""""
    )
    lines = {
        aten: "matmul_128x256x64_bf16_out_bf16_ta",
        "matmul -M 16 -N 32 -K 64 --a_type f32 --b_type f32 --out_type f32": "matmul_16x32x64_f32",
        "layernorm -X 2x3x128 -F 1 -t f32 --layout NCH": "layernorm_nch_2x3x128_over_1x2_f32",
        "sdpa -B 1 --heads_q 8 --heads_kv 8 --seq_q 64 --seq_kv 64 -d 64 -t f16": "attention_8x64x64x64_f16",
        "MIOpen(HIP): Command [LogCmdConvolution] ./bin/MIOpenDriver conv -n 2 -c 4 -H 8 -W 8 -k 6 -F 1": (
            "conv_nchw_2x8x8x4_6x3x3_f32"
        ),
        "conv -F 1 -f N01GC -I 01NGC -O NGC01 -n 1 -c 4 -H 8 -W 8 -k 6 -y 1 -x 1 -g 1 -perf_priority 2": (
            "conv_hwnc_nhwc_nchw_1x8x8x4_6x1x1_f32"
        ),
        "gemmfp16 --a_w 32 --a_h 64 --b_w 128 --transB 1": "matmul_64x128x32_f16_out_f16_tb",
        "bnormbfp16 -n 8 --in_channels 64 --in_h 56 --in_w 56 -t 1 --iter 100 --save 1 --run 1 -L NHWC": (
            "bnorm_nhwc_8x56x56x64_over_0_bf16_scale_1x2x3_running_eps_0.001"
        ),
        "iree-boo-driver\tgemm\t-m\t4\t-n\t4\t-k\t4": "matmul_4x4x4_f32",
    }
    commands = read_commands("\n".join(lines) + end, "list")
    assert not commands.problems
    assert [source.name for source in commands.sources] == list(lines.values())


def test_without_a_direction_told_apart_all_are_tuned() -> None:
    names = [source.name.split("_nchw")[0] for source in read_commands("conv -n 1 -F 0", "list").sources]
    assert names == ["conv", "conv_dgrad", "conv_wgrad"]


def test_a_list_without_a_command_is_refused() -> None:
    with pytest.raises(InputError, match="there is no command in it"):
        read_commands("# nothing\n", "empty.txt")


def test_the_result_of_a_product_is_stored_as_the_line_says() -> None:
    types = ("f32", "bf16", "f16")
    stated = [f"--a_type bf16 --b_type bf16 --out_type {each}" for each in types]
    as_f32, as_bf16, *others = read_commands(
        "\n".join(f"matmul -M 4 -N 4 -K 4 {each}" for each in stated), "list"
    ).sources
    with ir.Context():
        modules = [ir.Module.parse(each.text) for each in (as_f32, as_bf16, *others)]
        kinds = [each.body.operations[0].attributes["function_type"].value for each in modules]
        results = [str(kind.results[0]) for kind in kinds]
    assert results == [f"tensor<4x4x{each}>" for each in types]
    assert read_commands("matmul -M 4 -N 4 -K 4 --a_type bf16", "list").sources == (as_f32,)
    assert read_commands("matmul -M 4 -N 4 -K 4 --bf16", "list").sources == (as_bf16,)


def test_lines_that_differ_in_one_layout_are_ops_of_their_own() -> None:
    layouts = [("NHWC", "NCHW", "NCHW"), ("NCHW", "NHWC", "NHWC"), ("NHWC", "NCHW", "NHWC"), ("NHWC", "NHWC", "NCHW")]
    lines = [f"conv -n 1 -c 8 -k 8 --in_layout {i} --fil_layout {f} --out_layout {o}" for i, f, o in layouts]
    sources = read_commands("\n".join(lines), "list").sources
    assert len({source.text for source in sources}) == len(lines)
    assert sources[0].name == "conv_nhwc_nchw_nchw_1x32x32x8_8x3x3_f32"
