"""Every kind of space of ours, through the contract suite; and that the suite finds what breaks the contract."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plan.spaces import search_spaces
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.request import SpaceRequest, opened
from pytest_shark_tune.testing.space_contract import SpaceContract
from tests.models import depthwise

pytestmark = pytest.mark.compiler

SUITES = Path(__file__).parents[3] / "tuning_suites"
SMALL = ops.matmul(m=128, n=96, k=64, lhs="f16")
SINGLE = ops.matmul(m=32, n=48, k=64, lhs="f32")
IMAGE = ops.conv_2d(batch=1, height=8, width=8, channels=8, filters=16, kernel_height=3, kernel_width=3, lhs="f32")
HEADS = ops.attention(batch=2, queries=32, keys=32, head=16, element="f32")
ROWS = OpSource(
    "row_sum",
    """
    func.func @main(%x: tensor<64x96xf32>) -> tensor<64xf32> {
      %zero = arith.constant 0.0 : f32
      %empty = tensor.empty() : tensor<64xf32>
      %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<64xf32>) -> tensor<64xf32>
      %sums = linalg.reduce { arith.addf }
        ins(%x : tensor<64x96xf32>) outs(%zeros : tensor<64xf32>) dimensions = [1]
      return %sums : tensor<64xf32>
    }
    """,
)

PACKED = OpSource(
    "packed",
    """
    func.func @main(%a: tensor<4x7x8x1xf32>, %b: tensor<6x7x16x1xf32>) -> tensor<4x6x8x16xf32> {
      %zero = arith.constant 0.0 : f32
      %empty = tensor.empty() : tensor<4x6x8x16xf32>
      %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<4x6x8x16xf32>) -> tensor<4x6x8x16xf32>
      %sums = linalg.mmt4d ins(%a, %b : tensor<4x7x8x1xf32>, tensor<6x7x16x1xf32>)
        outs(%zeros : tensor<4x6x8x16xf32>) -> tensor<4x6x8x16xf32>
      return %sums : tensor<4x6x8x16xf32>
    }
    """,
)
CHANNELS_FIRST = OpSource("depthwise", depthwise(8, 16, 32, 3))

# Target, the op, how many spaces it has, options to open: one row for each way in which a space is made.
COMPILED = {
    "cpu-contraction": ("llvm-cpu", ops.matmul(m=128, n=96, k=64, lhs="f32"), 1, {}),
    "cpu-batch": ("llvm-cpu", ops.batch_matmul(batch=4, m=32, n=48, k=64, lhs="f32"), 1, {}),
    "rocm-emitted": ("hip:gfx942", SMALL, 2, {"prefetch_num_stages": (0, 2, 3), "waves_per_eu": (0, 1, 2, 4)}),
    "cuda-emitted": ("cuda:sm_89", SMALL, 2, {}),
    "cuda-batch": ("cuda:sm_89", ops.batch_matmul(batch=2, m=32, n=48, k=64, lhs="f16"), 2, {}),
    "cuda-reduction": ("cuda:sm_89", ROWS, 1, {}),
    "cuda-padded": ("cuda:sm_89", ops.batch_matmul(batch=2, m=33, n=48, k=40, lhs="f16"), 1, {}),
    "cpu-convolution": ("llvm-cpu", IMAGE, 1, {}),
    "cpu-register-tiling": ("llvm-cpu", CHANNELS_FIRST, 1, {}),
    "cpu-attention": ("llvm-cpu", HEADS, 1, {}),
    "cpu-packed": ("llvm-cpu", PACKED, 1, {}),
    "cpu-reduction": ("llvm-cpu", ROWS, 1, {}),
    "cuda-simt-contraction": ("cuda:sm_60", SINGLE, 1, {}),
    "cuda-simt-convolution": ("cuda:sm_60", IMAGE, 2, {}),
    "cuda-attention": ("cuda:sm_89", ops.attention(batch=2, queries=64, keys=64, head=64), 1, {}),
    "spirv-contraction": ("vulkan:vp_android_baseline_2022", SINGLE, 2, {}),
    "spirv-convolution": ("vulkan:vp_android_baseline_2022", IMAGE, 2, {}),
}
_MADE: dict[str, tuple[SearchSpace, ...]] = {}


def compiled_spaces(row: str) -> tuple[SearchSpace, ...]:
    """The spaces of a row, made once for all tests."""
    if row not in _MADE:
        target, op, _, options = COMPILED[row]
        compiler = Compiler(Target.parse(target))
        extracted = extract_dispatches([Source(name=op.name, text=op.text, is_benchmark=False)], compiler, 2)
        (dispatch,) = extracted.dispatches
        _MADE[row] = opened(search_spaces(dispatch, compiler), SpaceRequest(knobs=options), compiler.target.backend)
    return _MADE[row]


def custom_kernel_space() -> SearchSpace:
    path = SUITES / "custom_kernel" / "test_matmul.py"
    spec = importlib.util.spec_from_file_location("custom_kernel_test_matmul", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    space: SearchSpace = module.SPACE
    return space


@pytest.mark.parametrize("row", COMPILED)
def test_the_rows_are_all_of_an_ops_spaces(row: str) -> None:
    assert len(compiled_spaces(row)) == COMPILED[row][2]


class TestCompiledSpaces(SpaceContract):
    # z3 takes longer over one of them than over half of the others.
    @pytest.fixture(
        params=[
            pytest.param((row, index), marks=[pytest.mark.slow] * ((row, index) == ("cuda-simt-convolution", 1)))
            for row in COMPILED
            for index in range(COMPILED[row][2])
        ],
        ids=str,
    )
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        given: tuple[str, int] = request.param
        row, index = given
        return compiled_spaces(row)[index]


class TestOtherSpaces(SpaceContract):
    @pytest.fixture(params=["custom_kernel", "smtlib", "large"])
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        if request.param == "custom_kernel":
            return custom_kernel_space()
        if request.param == "smtlib":
            text = """
              (declare-const tile Int) (declare-const unroll Int) (declare-const count Int)
              (assert (and (<= 1 count) (<= count 16)))
              (assert (= tile (* unroll count)))
            """
            return SearchSpace.from_smtlib(text, {"tile": range(1, 65), "unroll": (1, 2, 4)}, pipeline="Given")
        knobs = {f"k{index}": range(12) for index in range(8)}
        return SearchSpace.of("Large", knobs, "k0 <= k1 <= k2 <= k3 <= k4")


BROKEN = '''
import msgspec
import pytest
from pytest_shark_tune.search_space import Constraint, Knob, SearchSpace
from pytest_shark_tune.testing.space_contract import SpaceContract
from tests.models import depthwise

GOOD = SearchSpace.of("Toy", {"a": range(1, 9), "b": range(1, 9)}, "a % b == 0")


class Lossy(SearchSpace, frozen=True):
    """Loses its last member when it enumerates."""

    def members(self):
        return super().members()[:-1]


class TestLossy(SpaceContract):
    @pytest.fixture
    def space(self):
        return Lossy(pipeline="Toy", knobs=GOOD.knobs, constraints=GOOD.constraints)


class TestUnordered(SpaceContract):
    @pytest.fixture
    def space(self):
        return msgspec.structs.replace(GOOD, knobs=(Knob("a", (4, 2, 8)), Knob("b", (2, 1))))


class TestSilent(SpaceContract):
    @pytest.fixture
    def space(self):
        silent = tuple(Constraint(each.condition, "") for each in GOOD.constraints)
        return msgspec.structs.replace(GOOD, constraints=silent)


class TestEmpty(SpaceContract):
    @pytest.fixture
    def space(self):
        return GOOD.where("a < b").where("a > b")
'''


def test_a_broken_space_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BROKEN)
    result = pytester.runpytest("-p", "no:xdist")
    result.stdout.fnmatch_lines_random(
        [
            "FAILED *TestLossy::test_enumeration_equals_z3*",
            "FAILED *TestUnordered::test_knobs_are_named_once_and_have_finite_ascending_domains*",
            "FAILED *TestSilent::test_every_constraint_has_a_message*",
            "FAILED *TestEmpty::test_it_has_members*",
        ]
    )
