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


def test_each_line_is_an_op_and_equal_ones_are_one() -> None:
    sources = read_commands(LINES, "commands.txt")
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
        ("pool -n 1", "'pool' (choose from 'conv', 'convfp16', 'convbfp16', 'convint8', 'matmul')"),
        ("conv -n 1 -m trans", "-m/--mode: invalid choice: 'trans' (choose from 'conv')"),
        ("conv -n 1 -b 1", "-b/--bias: 1 cannot be expressed; leave the flag out"),
        ("conv -n zwei", "-n/--batchsize: zwei is no whole number"),
        ("conv -n 0", "-n/--batchsize: 0 is less than 1"),
        ("conv -n", "-n/--batchsize: expected one argument"),
        ("conv --frobnicate 1", "unrecognized arguments: --frobnicate"),
        ("conv -F 8", "-F/--forw: 8 is no sum of 1 (forward), 2 (input gradient) and 4"),
        ("conv --in_layout NHWC --fil_layout NDHWC", "the filter's layout NDHWC is no order of CHNW"),
        ("conv -c 3 -g 2", "in channels, 3, do not divide into 2 groups"),
        ("matmul -M 4 -N 4", "arguments are required: -K"),
        ("matmul -M 4 -N 4 -K 4 --bias", "unrecognized arguments: --bias"),
        ("matmul -M 4 -N 4 -K 4 --a_type f7", "-M 4 -N 4 -K 4 --a_type f7: lhs='f7'"),
        (
            "matmul -M 4 -N 4 -K 4 --out_type f7",
            "--out_type f7: out='f7': sums in f32 are stored as f32 or f16 or bf16",
        ),
        ("matmul -M 4 -N 4 -K 4 --a_type i8 --out_type i8", "--out_type i8: out='i8': sums in i32 are stored as i32"),
        ("conv -n '1", "No closing quotation"),
    ],
)
def test_a_line_that_cannot_be_expressed_is_named_with_its_flag(line: str, message: str) -> None:
    with pytest.raises(InputError) as told:
        read_commands(f"matmul -M 4 -N 4 -K 4\n{line}\n", "my list.txt")
    assert str(told.value).startswith("my list.txt, line 2: ")
    assert message in str(told.value)


def test_a_list_without_a_command_is_refused() -> None:
    with pytest.raises(InputError, match="there is no command in it"):
        read_commands("# nothing\n", "empty.txt")


def test_the_result_of_a_product_is_stored_as_the_line_says() -> None:
    types = ("f32", "bf16", "f16")
    stated = [f"--a_type bf16 --b_type bf16 --out_type {each}" for each in types]
    as_f32, as_bf16, *others = read_commands("\n".join(f"matmul -M 4 -N 4 -K 4 {each}" for each in stated), "list")
    with ir.Context():
        modules = [ir.Module.parse(each.text) for each in (as_f32, as_bf16, *others)]
        kinds = [each.body.operations[0].attributes["function_type"].value for each in modules]
        results = [str(kind.results[0]) for kind in kinds]
    assert results == [f"tensor<4x4x{each}>" for each in types]
    assert read_commands("matmul -M 4 -N 4 -K 4 --a_type bf16", "list") == (as_f32,)
    assert read_commands("matmul -M 4 -N 4 -K 4 --bf16", "list") == (as_bf16,)


def test_lines_that_differ_in_one_layout_are_ops_of_their_own() -> None:
    layouts = [("NHWC", "NCHW", "NCHW"), ("NCHW", "NHWC", "NHWC"), ("NHWC", "NCHW", "NHWC"), ("NHWC", "NHWC", "NCHW")]
    lines = [f"conv -n 1 -c 8 -k 8 --in_layout {i} --fil_layout {f} --out_layout {o}" for i, f, o in layouts]
    sources = read_commands("\n".join(lines), "list")
    assert len({source.text for source in sources}) == len(lines)
    assert sources[0].name == "conv_nhwc_nchw_nchw_1x32x32x8_8x3x3_f32"
