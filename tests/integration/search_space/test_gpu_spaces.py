"""GPU search spaces with the real compiler and without a GPU: sizes, and candidates that apply and compile."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_shark_tune import ops
from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import configure_with
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.spaces import search_spaces
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.candidate import make_candidates
from pytest_shark_tune.spec.build import SpecEntry, build_spec, single_entry_spec
from pytest_shark_tune.spec.read import read_spec
from tests.gpu_dispatches import compiles
from tests.thinned import thinned

MATMUL = ops.matmul(m=2048, n=10240, k=1280, lhs="f16")
CONVOLUTION = ops.conv_2d(
    batch=2, height=32, width=32, channels=1280, filters=1280, kernel_height=3, kernel_width=3, lhs="f16"
)
ATTENTION = ops.attention(batch=20, queries=1024, keys=1024, head=64)
HALF = ops.matmul(m=256, n=512, k=128, lhs="f16")
HALF_IMAGE = ops.conv_2d(
    batch=1, height=16, width=16, channels=64, filters=64, kernel_height=3, kernel_width=3, lhs="f16"
)
SINGLE = ops.matmul(m=128, n=96, k=64, lhs="f32")
ODD = ops.matmul(m=127, n=131, k=61, lhs="f32")
IMAGE = ops.conv_2d(batch=1, height=11, width=11, channels=8, filters=16, kernel_height=3, kernel_width=3, lhs="f32")


@cache
def spaces(target: str, op: OpSource) -> tuple[Compiler, Dispatch, tuple[SearchSpace, ...]]:
    compiler = Compiler(Target.parse(target))
    (dispatch,) = extract_dispatches([read_source(op, Path())], compiler, processors=2).dispatches
    return compiler, dispatch, search_spaces(dispatch, compiler)


@pytest.mark.parametrize(
    ("target", "op", "sizes"),
    [
        ("hip:gfx942", MATMUL, {"TileAndFuse": [2692], "VectorDistribute": [1009]}),
        ("hip:gfx942", ATTENTION, {"VectorDistribute": [162]}),
        ("cuda:sm_89", MATMUL, {"TileAndFuse": [2716], "VectorDistribute": [1744]}),
        ("cuda:sm_89", CONVOLUTION, {"TileAndFuse": [12808, 20776], "VectorDistribute": [358]}),
    ],
)
def test_emitted_spaces_are_complete(target: str, op: OpSource, sizes: dict[str, list[int]]) -> None:
    _, _, found = spaces(target, op)
    assert {name: [len(space) for space in found if space.pipeline == name] for name in sizes} == sizes


EMITTED = [
    ("hip:gfx942", ATTENTION),
    ("cuda:sm_89", HALF_IMAGE),
    *(
        pytest.param(target, op, marks=pytest.mark.slow)
        for target in ("hip:gfx942", "hip:gfx950", "hip:gfx90a", "hip:gfx1100", "hip:gfx1201")
        for op in (HALF, HALF_IMAGE, ATTENTION)
        if (target, op) != ("hip:gfx942", ATTENTION)
    ),
    *(
        pytest.param(target, op, marks=pytest.mark.slow)
        for target in ("cuda:sm_80", "cuda:sm_86", "cuda:sm_89")
        for op in (HALF, HALF_IMAGE)
        if (target, op) != ("cuda:sm_89", HALF_IMAGE)
    ),
]


@pytest.mark.parametrize(("target", "op"), EMITTED)
def test_every_emitted_space_has_a_candidate_that_applies_and_compiles(
    target: str, op: OpSource, tmp_path: Path
) -> None:
    """The compiler rejects some of the configs that its own constraints allow, so each space may try a few."""
    compiler, dispatch, found = spaces(target, op)
    assert found
    ids: set[str] = set()
    for space in found:
        candidates = make_candidates(dispatch.name, dispatch.root, space, space.sample(8, 0), taken=ids)
        ids |= {each.id for each in candidates}
        assert any(compiles(compiler, dispatch, each, tmp_path) for each in candidates), space.knob_dictionary
    assert len(ids) == sum(min(8, len(space)) for space in found)


@pytest.mark.parametrize(
    ("target", "op"),
    thinned(
        [
            ("cuda:sm_89", ATTENTION),
            ("cuda:sm_89", ODD),
            ("cuda:sm_60", IMAGE),
            ("cuda:sm_60", ATTENTION),
            ("hip:gfx1100", SINGLE),
            ("vulkan:rdna3", HALF),
            ("vulkan:vp_android_baseline_2022", SINGLE),
            ("vulkan:vp_android_baseline_2022", IMAGE),
        ],
        every=4,
    ),
)
def test_the_candidates_of_our_spaces_apply_and_compile(target: str, op: OpSource, tmp_path: Path) -> None:
    compiler, dispatch, found = spaces(target, op)
    for space in found:
        (candidate,) = make_candidates(dispatch.name, dispatch.root, space, space.sample(1, 7))
        assert compiles(compiler, dispatch, candidate, tmp_path), candidate.config


def test_direct_and_igemm_configs_say_which_they_are() -> None:
    _, dispatch, found = spaces("cuda:sm_89", CONVOLUTION)
    direct, product = (
        make_candidates(dispatch.name, dispatch.root, space, space.sample(1, 0))[0]
        for space in found
        if space.pipeline == "TileAndFuse"
    )
    assert "use_igemm_convolution = false" in direct.compilation_info
    assert "use_igemm_convolution = true" in product.compilation_info


def test_attention_takes_the_configs_of_its_two_products() -> None:
    _, dispatch, (space,) = spaces("hip:gfx942", ATTENTION)
    (candidate,) = make_candidates(dispatch.name, dispatch.root, space, space.sample(1, 3))
    spec = single_entry_spec(dispatch.root, candidate.compilation_info)
    assert spec.count('transform.annotate %arg0 "decomposition_config"') == 1
    configured = configure_with(dispatch.members[0].module.text, spec).text
    products = candidate.config[candidate.config.index("decomposition_config = ") :].partition(", promote_operands")[0]
    assert products.startswith("decomposition_config = {pv_attrs = {lowering_config = ")
    (op,) = (line for line in configured.splitlines() if "iree_linalg_ext.online_attention" in line)
    assert products in op.partition("{lowering_config = #iree_gpu.lowering_config<{decomposition_config")[0]


def test_a_spec_tunes_attention_beside_other_ops() -> None:
    entries = []
    for op in (ATTENTION, MATMUL):
        _, dispatch, found = spaces("hip:gfx942", op)
        (candidate,) = make_candidates(dispatch.name, dispatch.root, found[0], found[0].sample(1, 0))
        entries.append(SpecEntry(name=dispatch.name, root=dispatch.root, compilation_info=candidate.compilation_info))
    rows = read_spec(build_spec(entries))
    assert [row.compilation_info for row in rows] == [entry.compilation_info for entry in entries]


def test_the_command_line_lists_the_spaces(tmp_path: Path) -> None:
    model = tmp_path / "model.mlir"
    model.write_text(IMAGE.text)
    done = CliRunner().invoke(main, ["space", str(model), "--tune-target", "cuda:sm_60", "--json"])
    assert done.exit_code == 0, done.output
    product, direct = json.loads(done.stdout)
    for row in (product, direct):
        assert row["dispatch"] == "conv_2d_hwc_hwcf_11x11x16_3x3x8_f32"
        assert row["kind"] == "convolution"
        assert row["pipeline"] == "TileAndFuse"
        assert row["configs"] > 100
        assert row["seconds"] < 10
        assert row["knobs"]["wg_2"]
    table = CliRunner().invoke(main, ["space", str(model), "--tune-target", "cuda:sm_60"])
    assert table.exit_code == 0
    assert str(product["configs"]) in table.stdout
