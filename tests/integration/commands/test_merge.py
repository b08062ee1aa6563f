"""The commands ``shark-tune merge``, ``show`` and ``diff``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.configure import configure_with
from pytest_shark_tune.records.snapshot import read_records, records_of, write_spec
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.spec.read import read_spec
from tests.factories import make_winner, matmul_root

GFX942 = Path(__file__).parents[2] / "golden" / "iree_default_tuning_spec_gfx942.mlir"
MAPS = tuple(f"affine_map<(d0, d1, d2) -> ({each})>" for each in ("d0, d2", "d2, d1", "d0, d1"))


def info(tile: int) -> str:
    return (
        f"#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<distribution = [{tile}, 8, 0]>, "
        "translation_info = <pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
    )


def winner(
    m: int, *, ratio: float = 2.0, tile: int = 8, element: str = "f32", device: str = "some CPU", iree: str = "3.13.0"
) -> WinnerRecord:
    """The record of a matmul of m x 32 x 16; ``tile`` is its only knob."""
    return make_winner(
        f"DoubleTilingExpert-{tile}",
        dispatch=f"matmul_{m}x32x16_f32",
        knobs={"tile": tile},
        config=f"#iree_cpu.lowering_config<distribution = [{tile}, 8, 0]>",
        samples_us=(100.0 / ratio,),
        ratio=ratio,
        ratio_low=ratio - 0.1,
        ratio_high=ratio + 0.1,
        device=device,
        iree=iree,
        root=matmul_root(m, 32, 16, element, out=element),
        compilation_info=info(tile),
    )


def general_spec(tile: int, ask: str = "", *, speedup: float | None = None) -> str:
    """A spec by hand for f32 matmuls of any size, of those that ``ask`` leaves."""
    told = f'attributes {{shark_tune.provenance = {{speedup = "{speedup}"}}}}' if speedup else ""
    return f"""
module attributes {{transform.with_named_sequence, iree_codegen.tuning_spec_with_default_entrypoint}} {{
transform.named_sequence @match_any(%op: !transform.any_op {{transform.readonly}})
    -> (!transform.any_op, !transform.any_param) {told} {{
  %b, %m, %n, %k = transform.iree.match.contraction %op, lhs_type = f32, rhs_type = f32, output_type = f32
      : !transform.any_op -> !transform.param<i64>
  {ask}
  %config = transform.param.constant {info(tile)} -> !transform.any_param
  transform.yield %op, %config : !transform.any_op, !transform.any_param
}}
transform.named_sequence @apply_op_config(%op: !transform.any_op {{transform.readonly}},
    %config: !transform.any_param {{transform.readonly}}) {{
  transform.annotate %op "compilation_info" = %config : !transform.any_op, !transform.any_param
  transform.annotate %op "by_hand" : !transform.any_op
  transform.yield
}}
transform.named_sequence @__kernel_config(%variant: !transform.any_op {{transform.consumed}}) -> !transform.any_op
    attributes {{iree_codegen.tuning_spec_entrypoint}} {{
  %res = transform.foreach_match in %variant @match_any -> @apply_op_config : (!transform.any_op) -> !transform.any_op
  transform.yield %res : !transform.any_op
}}
}}
"""


def tiles(spec: Path, *sizes: int) -> list[str]:
    """The configs that matmuls of these sizes are given by a spec."""
    functions = "".join(
        f"func.func @m{m}(%0: tensor<{m}x16xf32>, %1: tensor<16x32xf32>, %2: tensor<{m}x32xf32>) {{ "
        f"%r = linalg.matmul ins(%0, %1 : tensor<{m}x16xf32>, tensor<16x32xf32>) outs(%2 : tensor<{m}x32xf32>) "
        f"-> tensor<{m}x32xf32> return }}\n"
        for m in sizes
    )
    module = (
        "module { hal.executable private @ops { hal.executable.variant public @cpu "
        'target(<"llvm-cpu", "embedded-elf-x86_64">) { builtin.module {\n' + functions + "} } } }"
    )
    configured = {each.function: each.config for each in configure_with(module, spec.read_text("utf-8")).applied}
    return [configured.get(f"m{m}", "").partition("[")[2].partition(",")[0] for m in sizes]


class Runner:
    """A directory with specs to be worked with."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.out = directory / "out.mlir"

    def write(self, name: str, spec: str | Sequence[WinnerRecord]) -> Path:
        path = self.directory / f"{name}.mlir"
        if isinstance(spec, str):
            path.write_text(spec, encoding="utf-8")
        else:
            write_spec(path, spec)
        return path

    def run(self, *arguments: str | Path) -> Result:
        command = [str(each) for each in arguments]
        return CliRunner().invoke(main, command, env={"COLUMNS": "250"}, catch_exceptions=False)

    def merge(self, *arguments: str | Path, status: int = 0) -> list[str]:
        """What a merge prints, with the directory left out."""
        result = self.run("merge", *arguments, "-o", self.out)
        assert result.exit_code == status, result.output
        return result.stdout.replace(f"{self.directory}/", "").splitlines()

    def order(self) -> list[str]:
        return [row.matcher for row in read_spec(self.out.read_text("utf-8"))]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_specs_that_have_nothing_in_common_are_put_together(runner: Runner) -> None:
    one = runner.write("one", [winner(64, tile=8), winner(96, tile=16)])
    two = runner.write("two", [winner(128, tile=32)])
    assert runner.merge(one, two) == ["out.mlir: 3 entries, 0 dropped"]
    assert runner.order() == ["match_matmul_64x32x16_f32", "match_matmul_96x32x16_f32", "match_matmul_128x32x16_f32"]
    assert tiles(runner.out, 64, 96, 128, 32) == ["8", "16", "32", ""]
    assert read_records(runner.out) == (winner(64, tile=8), winner(96, tile=16), winner(128, tile=32))
    rows = read_spec(runner.out.read_text("utf-8"))
    assert rows == read_spec(one.read_text("utf-8")) + read_spec(two.read_text("utf-8"))


def test_of_duplicates_the_first_named_wins(runner: Runner) -> None:
    one, two = runner.write("one", [winner(64, ratio=1.5, tile=8)]), runner.write("two", [winner(64, ratio=3, tile=32)])
    (line, last) = runner.merge(one, two)
    assert line == (
        "two.mlir: match_matmul_64x32x16_f32 (contraction 64x32x16 f32, f32 -> f32) matches the same ops as "
        "match_matmul_64x32x16_f32 of one.mlir: dropped, since one.mlir comes first"
    )
    assert last == "out.mlir: 1 entry, 1 dropped"
    assert tiles(runner.out, 64) == ["8"]
    assert read_records(runner.out) == (winner(64, ratio=1.5, tile=8),)


def test_of_duplicates_the_faster_wins_if_wished(runner: Runner) -> None:
    one, two = runner.write("one", [winner(64, ratio=1.5, tile=8)]), runner.write("two", [winner(64, ratio=3, tile=32)])
    (line, _) = runner.merge(one, two, "--prefer", "faster")
    assert line.startswith("one.mlir: match_matmul_64x32x16_f32 ")
    assert line.endswith("dropped, since that entry is faster (3.000x, this one 1.500x)")
    assert tiles(runner.out, 64) == ["32"]


def test_an_entry_behind_one_that_covers_it_is_dropped(runner: Runner) -> None:
    general, special = runner.write("general", general_spec(8)), runner.write("special", [winner(64, tile=32)])
    (line, _) = runner.merge(general, special)
    assert "matches only ops that also match match_any of general.mlir: dropped" in line
    assert line.endswith("since general.mlir comes first; it stays if special.mlir is named first")
    assert tiles(runner.out, 64, 96) == ["8", "8"]
    assert not read_records(runner.out)


def test_an_entry_in_front_of_one_that_covers_it_stays(runner: Runner) -> None:
    general, special = runner.write("general", general_spec(8)), runner.write("special", [winner(64, tile=32)])
    (line, _) = runner.merge(special, general)
    assert line == (
        "general.mlir: match_any (contraction f32, f32 -> f32) matches, besides others, all ops of "
        "match_matmul_64x32x16_f32 of special.mlir: kept behind it, since special.mlir comes first"
    )
    assert tiles(runner.out, 64, 96) == ["32", "8"]


def test_what_was_measured_on_fewer_ops_goes_in_front_where_the_faster_is_wished(runner: Runner) -> None:
    general, special = runner.write("general", general_spec(8)), runner.write("special", [winner(64, tile=32)])
    runner.merge(general, special, "--prefer", "faster")
    assert tiles(runner.out, 64, 96) == ["32", "8"]
    by_hand = runner.write(
        "by_hand", general_spec(16, "transform.iree.match.dims_equal %m, [64] : !transform.param<i64>")
    )
    runner.merge(general, by_hand, "--prefer", "faster")
    assert tiles(runner.out, 64, 96) == ["8", "8"]


def test_overlaps_are_kept_in_order(runner: Runner) -> None:
    ask = "transform.iree.match.dims_equal %{}, [{}] : !transform.param<i64>"
    one, two = (
        runner.write("one", general_spec(8, ask.format("n", 32))),
        runner.write("two", general_spec(16, ask.format("m", 64))),
    )
    (line, last) = runner.merge(one, two)
    assert "may match the same ops as match_any of one.mlir: kept behind it, since one.mlir comes first" in line
    assert last == "out.mlir: 2 entries, 0 dropped"
    assert runner.order() == ["match_any", "match_any_2"]
    assert tiles(runner.out, 64) == ["8"]


@pytest.mark.parametrize("order", list(permutations(range(4)))[::3], ids=lambda order: "".join(map(str, order)))
def test_each_op_gets_what_the_first_spec_that_matches_it_gives(runner: Runner, order: tuple[int, ...]) -> None:
    by_64 = "%v = transform.get_operand %op[0] : (!transform.any_op) -> !transform.any_value {} : !transform.any_value"
    specs = [
        runner.write("special", [winner(64, tile=8), winner(96, tile=16)]),
        runner.write(
            "bounded", general_spec(24, by_64.format("transform.iree.match.dim_bounds %v[0], none, umax = 100"))
        ),
        runner.write("multiple", general_spec(32, by_64.format("transform.iree.match.dim_is_multiple_of %v[0], 64"))),
        runner.write("any", general_spec(40, "transform.iree.match.dims_equal %n, [32] : !transform.param<i64>")),
    ]
    sizes = (32, 64, 96, 128, 160)
    given = [tiles(specs[number], *sizes) for number in order]
    runner.merge(*(specs[number] for number in order))
    assert tiles(runner.out, *sizes) == [next(each for each in column if each) for column in zip(*given, strict=True)]


def test_an_entry_for_fewer_ops_stands_in_front_of_all_where_the_faster_is_wished(runner: Runner) -> None:
    n, m, k = (
        f"transform.iree.match.dims_equal %{name} : !transform.param<i64> "
        for name in ("n, [32]", "m, [64]", "k, [16]")
    )
    specs = [
        runner.write("wide", general_spec(8, n, speedup=3)),
        runner.write("deep", general_spec(16, k, speedup=2)),
        runner.write("special", general_spec(24, n + m, speedup=1.5)),
    ]
    lines = [line.partition(" (")[0] + line.rpartition(":")[2] for line in runner.merge(*specs, "--prefer", "faster")]
    assert lines == [
        "wide.mlir: match_any kept behind it, since that entry is for fewer ops and was measured on these",
        "deep.mlir: match_any kept behind it, since that entry must stand in front of one that matches all of its ops",
        "deep.mlir: match_any kept behind it, since that entry is faster (3.000x, this one 2.000x)",
        "out.mlir: 3 entries, 0 dropped 3 entries, 0 dropped",
    ]
    assert tiles(runner.out, 64, 96) == ["24", "8"]


def test_what_is_not_read_is_kept_and_said(runner: Runner) -> None:
    compared = (
        "%c = transform.param.constant 64 : i64 -> !transform.param<i64> "
        "transform.match.param.cmpi eq %m, %c : !transform.param<i64>"
    )
    one, two = runner.write("one", general_spec(8, compared)), runner.write("two", [winner(64)])
    (line, last) = runner.merge(one, two)
    assert "cannot be read here" in line
    assert last == "out.mlir: 2 entries, 0 dropped"


def test_a_starter_stands_behind_even_if_it_is_faster(runner: Runner) -> None:
    one = runner.write("one", [winner(64, ratio=1.2, tile=8)])
    starter = runner.write("starter", [winner(64, ratio=3, tile=32), winner(96, ratio=3, tile=16)])
    (line, _) = runner.merge(one, "--starter", starter, "--prefer", "faster")
    assert line.endswith("dropped, since a starter's entries stand behind")
    assert tiles(runner.out, 64, 96) == ["8", "16"]


@pytest.mark.parametrize("prefer", [(), ("--prefer", "faster")])
def test_a_spec_merged_with_itself_stays_as_it_is(runner: Runner, prefer: tuple[str, ...]) -> None:
    one = runner.write("one", [winner(64, ratio=1.2, tile=8), winner(96, ratio=3)])
    runner.merge(one, runner.write("general", general_spec(8)), runner.write("two", [winner(128, tile=16)]), *prefer)
    text, records = runner.out.read_bytes(), read_records(runner.out)
    assert link_spec(text.decode()) == text.decode()
    count = len(runner.order())
    assert runner.merge(runner.out, runner.out, *prefer)[-1] == f"out.mlir: {count} entries, {count} dropped"
    assert (runner.out.read_bytes(), read_records(runner.out)) == (text, records)


def test_records_of_one_name_stay_apart(runner: Runner) -> None:
    one = runner.write("one", [winner(64, tile=8)])
    two = runner.write("two", [winner(64, tile=16, element="f16")])
    runner.merge(one, two)
    rows, records = read_spec(runner.out.read_text("utf-8")), read_records(runner.out)
    assert [each.dispatch for each in records] == ["matmul_64x32x16_f32", "matmul_64x32x16_f32_2"]
    assert records_of(rows, records) == records
    assert [row.config for row in rows] == [each.config for each in records]


def test_specs_of_other_devices_are_warned_of(runner: Runner) -> None:
    one = runner.write("one", [winner(64, device="CPU A")])
    two = runner.write("two", [winner(96, device="CPU B")])
    result = runner.run("merge", one, two, "-o", runner.out)
    assert (result.exit_code, result.stderr) == (
        0,
        f"entries were made for different devices: CPU A ({one}); CPU B ({two})\n",
    )


def test_a_spec_that_iree_ships_is_merged(runner: Runner) -> None:
    one = runner.write("one", [winner(64)])
    assert runner.merge(one, GFX942) == ["out.mlir: 3 entries, 0 dropped"]
    merged, shipped = (read_spec(path.read_text("utf-8")) for path in (runner.out, GFX942))
    assert merged[1:] == shipped
    assert "__tuning_spec_applied__" in runner.out.read_text("utf-8")


def test_findings_as_json(runner: Runner) -> None:
    one, two = runner.write("one", [winner(64)]), runner.write("two", [winner(64)])
    result = runner.run("merge", one, two, "-o", runner.out, "--json")
    shown = json.loads(result.stdout)
    (conflict,) = shown["findings"]
    assert (shown["entries"], conflict["relation"], conflict["outcome"], conflict["other_spec"]) == (
        1,
        "equal",
        "dropped",
        str(one),
    )


@pytest.mark.parametrize("command", ["merge", "show", "diff"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("module {}", "has no entrypoint"), ("nonsense", "is not MLIR that this IREE parses")],
)
def test_a_bad_input_is_a_usage_error(runner: Runner, command: str, content: str | None, message: str) -> None:
    good, bad = runner.write("good", general_spec(8)), runner.directory / "bad.mlir"
    if content is not None:
        runner.write("bad", content)
    files: dict[str, list[str | Path]] = {
        "merge": [good, bad, "-o", runner.out],
        "show": [bad],
        "diff": [good, bad],
    }
    result = runner.run(command, *files[command])
    assert result.exit_code == 2
    assert f"tuning spec {bad}" in result.stderr
    assert message in result.stderr
    assert not runner.out.exists()


@pytest.mark.parametrize(("name", "message"), [(".", "this is a directory"), ("out.jsonl", "name the spec ")])
def test_an_output_that_is_no_spec_is_a_usage_error(runner: Runner, name: str, message: str) -> None:
    result = runner.run("merge", runner.write("one", general_spec(8)), "-o", runner.directory / name)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (runner.directory / "out.jsonl").exists()


def test_an_output_without_a_directory_is_a_usage_error(runner: Runner) -> None:
    result = runner.run("merge", runner.write("one", general_spec(8)), "-o", runner.directory / "no" / "out.mlir")
    assert result.exit_code == 2
    assert "there is no directory" in result.stderr


@pytest.mark.parametrize("length", [300, 250])
def test_an_output_that_cannot_be_written_is_a_usage_error(runner: Runner, length: int) -> None:
    """The longer name is refused at once; beside the shorter one there is no room for a file that is not whole yet."""
    out = runner.directory / "out.mlir".rjust(length, "x")
    result = runner.run("merge", runner.write("one", general_spec(8)), "-o", out)
    assert result.exit_code == 2
    assert f"-o {out}: " in result.stderr
    assert "cannot be written: File name too long" in result.stderr


def test_show_has_a_row_for_each_entry(runner: Runner) -> None:
    path = runner.write("one", [winner(64, tile=8), winner(96, tile=16, ratio=1.25)])
    runner.merge(path, runner.write("two", general_spec(32)))
    result = runner.run("show", runner.out)
    rows = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()[2:]]
    assert result.exit_code == 0
    assert rows == [
        [
            "match_matmul_64x32x16_f32",
            "contraction 64x32x16 f32, f32 -> f32",
            "DoubleTilingExpert",
            "tile=8",
            "2.000 (1.900 to 2.100)",
            "3.13.0",
            "some CPU",
        ],
        [
            "match_matmul_96x32x16_f32",
            "contraction 96x32x16 f32, f32 -> f32",
            "DoubleTilingExpert",
            "tile=16",
            "1.250 (1.150 to 1.350)",
            "3.13.0",
            "some CPU",
        ],
        [
            "match_any",
            "contraction f32, f32 -> f32",
            "DoubleTilingExpert",
            "#iree_cpu.lowering_config<distribution = [32, 8, 0]>",
            "-",
            "-",
            "-",
        ],
    ]


def test_show_tells_a_config_that_was_edited_and_no_speedup_of_it(runner: Runner) -> None:
    path = runner.write("one", [winner(64, tile=8)])
    path.write_text(path.read_text().replace("distribution = [8, 8, 0]", "distribution = [4, 8, 0]"))
    result = runner.run("show", path)
    assert result.exit_code == 0
    assert "(edited since it was measured)" in result.stdout
    assert "2.000" not in result.stdout


def test_show_as_json(runner: Runner) -> None:
    path = runner.write("one", [winner(64, tile=8)])
    (row,) = json.loads(runner.run("show", path, "--json").stdout)
    assert (row["dispatch"], row["knobs"], row["speedup"], row["time_us"]) == (
        "matmul_64x32x16_f32",
        {"tile": 8},
        2,
        50,
    )


def test_a_spec_that_no_longer_parses_is_shown_from_its_records(runner: Runner) -> None:
    path = runner.write("one", [winner(64, iree="3.9.0")])
    path.write_text("syntax of another age", encoding="utf-8")
    result = runner.run("show", path, "--json")
    (row,) = json.loads(result.stdout)
    assert (row["dispatch"], row["iree"], row["op"]) == ("matmul_64x32x16_f32", "3.9.0", "")
    assert result.stderr.startswith(f"{path}: shown from its records, since the spec is not MLIR")
    compared = runner.run("diff", path, runner.write("new", [winner(64, tile=16)]))
    assert compared.stdout == (
        "matmul_64x32x16_f32: tile: 8 -> 16, IREE: 3.9.0 -> 3.13.0, time: 50 us (2.00x) -> 50 us (2.00x)\n"
    )
    assert "read from its records alone" in compared.stderr


def test_equal_specs_do_not_differ(runner: Runner) -> None:
    one = runner.write("one", [winner(64), winner(96)])
    again = runner.write("again", [msgspec.structs.replace(winner(64, ratio=2.05)), winner(96)])
    for other in (one, again):
        result = runner.run("diff", one, other)
        assert (result.exit_code, result.output) == (0, "")


def test_differences_are_told_entry_by_entry(runner: Runner) -> None:
    old = runner.write("old", [winner(64, tile=8), winner(96), winner(128, iree="3.12.0", device="CPU A")])
    new = runner.write("new", [winner(64, tile=16, ratio=4), winner(128, device="CPU B"), winner(160, ratio=2.5)])
    result = runner.run("diff", old, new)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "matmul_64x32x16_f32: tile: 8 -> 16, time: 50 us (2.00x) -> 25 us (4.00x)",
        "matmul_128x32x16_f32: IREE: 3.12.0 -> 3.13.0, device: CPU A -> CPU B, time: 50 us (2.00x) -> 50 us (2.00x)",
        "matmul_160x32x16_f32: added (contraction 160x32x16 f32, f32 -> f32, DoubleTilingExpert, 40 us, 2.50x)",
        "matmul_96x32x16_f32: removed (contraction 96x32x16 f32, f32 -> f32, DoubleTilingExpert, 50 us, 2.00x)",
    ]
    (first, *_) = json.loads(runner.run("diff", old, new, "--json").stdout)
    assert (first["what"], first["knobs"]) == ("changed", {"tile": [8, 16]})


def test_without_records_configs_are_compared(runner: Runner) -> None:
    result = runner.run("diff", runner.write("old", general_spec(8)), runner.write("new", general_spec(16)))
    config = "#iree_cpu.lowering_config<distribution = [{}, 8, 0]>"
    assert result.stdout == f"match_any: config: {config.format(8)} -> {config.format(16)}\n"


def test_an_order_that_matters_is_told(runner: Runner) -> None:
    special, general = runner.write("special", [winner(64)]), runner.write("general", general_spec(8))
    runner.merge(special, general)
    # The other way round the merge would drop the entry, so its matchers are exchanged.
    text = runner.out.read_text("utf-8")
    pairs = ["@match_matmul_64x32x16_f32 -> @apply_op_config", "@match_any -> @apply_op_config_2"]
    assert all(pair in text for pair in pairs)
    turned = runner.write("turned", text.replace(pairs[0], "X").replace(pairs[1], pairs[0]).replace("X", pairs[1]))
    result = runner.run("diff", runner.out, turned)
    assert "match_any: now stands in front of matmul_64x32x16_f32, which may match the same ops" in result.stdout
