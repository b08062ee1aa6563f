"""Constraints for GPUs that the tuner makes: equal to those that the compiler states, and made where it cannot."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler, compiler_version
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.ops.convolution import Convolution, convolution_text
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.spaces import emitted_constraints, search_spaces
from pytest_shark_tune.search_space import SearchSpace, spaces_in
from pytest_shark_tune.search_space.candidate import make_candidates
from pytest_shark_tune.search_space.config_reader import knobs_of
from pytest_shark_tune.search_space.gpu.mma import mma_spaces
from tests.gpu_dispatches import extracted, failing
from tests.thinned import thinned

UPSTREAM = Path(__file__).parents[3] / "docs" / "upstream"
GPUS = ("hip:gfx942", "cuda:sm_89")


def product(m: int, n: int, k: int, lhs: str = "f16") -> OpSource:
    return ops.matmul(m=m, n=n, k=k, lhs=lhs)


def convolution(image: int, channels: int, filters: int, *, batch: int = 1, groups: int = 1) -> OpSource:
    conv = Convolution(
        batch=batch,
        in_channels=channels,
        out_channels=filters,
        image=(image + 2, image + 2),
        kernel=(3, 3),
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        groups=groups,
        input_layout="NHWC",
        filter_layout="NHWC",
        output_layout="NHWC",
        element="f16",
    )
    return OpSource(conv.name, convolution_text(conv))


def vecmat(k: int, n: int) -> OpSource:
    return OpSource(
        "vecmat",
        f"""
        func.func @main(%x: tensor<{k}xbf16>, %a: tensor<{k}x{n}xbf16>) -> tensor<{n}xf32> {{
          %zero = arith.constant 0.0 : f32
          %empty = tensor.empty() : tensor<{n}xf32>
          %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<{n}xf32>) -> tensor<{n}xf32>
          %sums = linalg.vecmat ins(%x, %a : tensor<{k}xbf16>, tensor<{k}x{n}xbf16>)
            outs(%zeros : tensor<{n}xf32>) -> tensor<{n}xf32>
          return %sums : tensor<{n}xf32>
        }}
        """,
    )


@cache
def spaces(target: str, op: OpSource) -> tuple[SearchSpace, ...]:
    compiler, dispatch = extracted(target, op)
    return search_spaces(dispatch, compiler)


STATED = [
    *((target, op) for target in GPUS for op in (product(128, 256, 64), product(100, 1000, 300))),
    ("hip:gfx942", convolution(14, 64, 96, batch=2)),
    ("cuda:sm_89", convolution(56, 32, 64)),
    ("cuda:sm_89", ops.matmul(m=128, n=256, k=64, lhs="f16", acc="f16", out="f16")),
    *(
        pytest.param(target, op, marks=pytest.mark.slow)
        for target in ("hip:gfx1100", "hip:gfx950", "cuda:sm_80")
        for op in (product(48, 80, 96), product(128, 256, 64, "bf16"), convolution(28, 64, 64))
    ),
    *(pytest.param("hip:gfx942", product(64, 96, 128, lhs), marks=pytest.mark.slow) for lhs in ("f32", "i8", "bf16")),
]


@pytest.mark.parametrize(("target", "op"), thinned(STATED, every=2))
def test_our_constraints_have_the_knobs_and_the_members_of_the_compilers(target: str, op: OpSource) -> None:
    compiler, dispatch = extracted(target, op)
    stated = [space for space in spaces_in(emitted_constraints(dispatch, compiler)) if space]
    ours = [space for space in mma_spaces(dispatch.root, dispatch.target) if space]
    assert stated
    assert [space.knob_dictionary for space in ours] == [space.knob_dictionary for space in stated]
    for own, given in zip(ours, stated, strict=True):
        assert own.names == given.names
        assert own.pipeline_attribute == given.pipeline_attribute
        np.testing.assert_array_equal(own.members(), given.members())
        # What is no member of one violates a constraint of the other, also outside of the domains that were derived.
        for knobs in given.sample(20, 1):
            for name in given.names:
                changed = knobs | {name: knobs[name] + 1}
                assert bool(own.violated(changed)) == bool(given.violated(changed)), changed


def test_a_product_that_is_hardly_more_than_a_vector_has_neither() -> None:
    compiler, dispatch = extracted("hip:gfx942", product(4, 256, 64))
    assert spaces_in(emitted_constraints(dispatch, compiler)) == mma_spaces(dispatch.root, dispatch.target) == ()


def command_in(reproducer: Path) -> list[str]:
    """The command in the first lines of a file for upstream."""
    lines = [line[2:].rstrip("\\ ") for line in reproducer.read_text().splitlines() if line.startswith("//")]
    words = shlex.split(" ".join(lines))
    command = [str(reproducer) if word == reproducer.name else word for word in words]
    assert command[0] == "iree-compile"
    return [shutil.which(command[0], path=sysconfig.get_path("scripts")) or command[0], *command[1:]]


def test_the_reproducer_for_upstream_shows_scalar_tiles() -> None:
    command = command_in(UPSTREAM / "odd_product_config.mlir")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    if not compiler_version().startswith("3.13."):
        pytest.skip("the defect of IREE 3.13")
    assert "vector_common_parallel = [1, 1, 0]" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("reproducer", sorted(UPSTREAM.glob("*_constraints.mlir")), ids=lambda path: path.stem)
def test_the_reproducers_for_upstream_show_the_defect(reproducer: Path, tmp_path: Path) -> None:
    command = command_in(reproducer)
    flag = "--iree-codegen-emit-pipeline-constraints"
    assert flag in command
    without = [argument for argument in command if argument != flag]
    assert subprocess.run(without, capture_output=True, timeout=120, check=False, cwd=tmp_path).returncode == 0
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, cwd=tmp_path)
    if not compiler_version().startswith("3.13."):
        pytest.skip("the defect of IREE 3.13")
    assert done.returncode != 0
    assert b"crash backtrace" in done.stderr


CRASHING = [
    pytest.param(ops.batch_matmul(batch=8, m=128, n=128, k=64, lhs="f16"), id="batch"),
    pytest.param(ops.batch_matmul(batch=8, m=77, n=128, k=64, lhs="f16"), id="batch-odd"),
    pytest.param(vecmat(8, 224), id="vecmat"),
    pytest.param(convolution(14, 64, 128, batch=2, groups=4), id="groups"),
]


@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize("op", thinned(CRASHING, every=4))
def test_where_the_compiler_fails_to_state_constraints_the_candidates_compile(
    target: str, op: OpSource, tmp_path: Path
) -> None:
    for space in spaces(target, op):
        assert_most_compile(target, op, space, 3, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize(
    "op",
    [
        *CRASHING,
        ops.batch_matmul(batch=4, m=128, n=512, k=64, lhs="f16"),
        ops.batch_matmul(batch=4, m=128, n=64, k=512, lhs="bf16"),
        ops.batch_matmul(batch=3, m=100, n=1000, k=300, lhs="f16"),
        product(77, 768, 768),
        product(128, 1000, 256),
        product(128, 256, 300),
        convolution(14, 256, 256, batch=4),
        convolution(28, 128, 128),
    ],
)
def test_nine_in_ten_candidates_compile(target: str, op: OpSource, tmp_path: Path) -> None:
    for space in spaces(target, op):
        assert_most_compile(target, op, space, 20, tmp_path)


@pytest.mark.parametrize("target", GPUS)
def test_batches_have_candidates_under_both_pipelines(target: str) -> None:
    op = ops.batch_matmul(batch=8, m=128, n=128, k=64, lhs="f16")
    _, dispatch = extracted(target, op)
    found = spaces(target, op)
    assert [space.pipeline for space in found] == ["TileAndFuse", "VectorDistribute"]
    assert sum(map(len, found)) >= 80
    for space in found:
        (candidate,) = make_candidates(dispatch.name, dispatch.root, space, space.sample(1, 0))
        tiles = (candidate.knobs["wg_1"], candidate.knobs["wg_2"])
        assert f"workgroup = [1, {tiles[0]}, {tiles[1]}, 0]" in candidate.config
    # The compiler's own choice is among them, apart from an entry for accumulators that are read.
    own = knobs_of(found[0], dispatch.default_info.replace("convert_acc_gemm, ", ""))
    assert isinstance(own, dict), own
    assert own in found[0]


def test_the_plan_names_the_step_that_failed() -> None:
    op = ops.batch_matmul(batch=2, m=32, n=32, k=32, lhs="f16")
    compiler = Compiler(Target.parse("hip:gfx942"))
    plan = make_plan([read_source(op, Path())], compiler, processors=1, count=4, seed=0)
    assert plan.untunable == ()
    (task,) = plan.tasks
    assert len(task.candidates) == 4
    assert "--iree-codegen-emit-pipeline-constraints" in task.failed_step
    assert "SIGSEGV" in task.failed_step
    (aligned,) = make_plan([read_source(product(32, 32, 32), Path())], compiler, processors=1, count=4, seed=0).tasks
    assert aligned.failed_step == ""


def assert_most_compile(target: str, op: OpSource, space: SearchSpace, count: int, directory: Path) -> None:
    compiler, dispatch = extracted(target, op)
    candidates = make_candidates(dispatch.name, dispatch.root, space, space.sample(count, 0))
    failed = failing(compiler, dispatch, candidates, directory)
    assert len(failed) <= len(candidates) / 10, failed
