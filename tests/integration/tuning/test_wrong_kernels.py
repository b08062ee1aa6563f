"""Wrong kernels are found by the checks of a run, and right ones in another order are not: with real modules."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.compiler.disturbance import with_disturbed_sums
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.correctness import Check
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.records.types import State
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.acceptance import acceptance_of, model_tolerance
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.children import DeviceChildren
from pytest_shark_tune.tuning.model.disturbed import disturbed_model
from pytest_shark_tune.tuning.model.runner import ModelFunction, ModelRunner
from tests.integration.conftest import MakeSuite
from tests.models import suite_text
from tests.thinned import thinned

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
TAIL = """
    %one = arith.constant 1.0 : f32
    %neg = arith.negf %s : f32
    %pow = math.exp %neg : f32
    %more = arith.addf %pow, %one : f32
    %share = arith.divf %one, %more : f32
    %y = arith.truncf %share : f32 to bf16
"""


def matmul(kept: str, tail: str = "", k: int = 512) -> OpSource:
    """32x32 sums of products of bf16, stored as bf16."""
    wide, narrow = f"tensor<32x32x{kept}>", "tensor<32x32xbf16>"
    last = f"""
  %n = tensor.empty() : {narrow}
  %1 = linalg.generic {{
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>],
    iterator_types = ["parallel", "parallel"]
  }} ins(%0 : {wide}) outs(%n : {narrow}) {{
  ^bb0(%s: {kept}, %old: bf16):
    {tail or "%y = arith.truncf %s : f32 to bf16"}
    linalg.yield %y : bf16
  }} -> {narrow}
  return %1 : {narrow}
}}"""
    return OpSource(
        "main",
        f"""
func.func @main(%a: tensor<32x{k}xbf16>, %b: tensor<{k}x32xbf16>) -> {narrow} {{
  %zero = arith.constant 0.0 : {kept}
  %e = tensor.empty() : {wide}
  %f = linalg.fill ins(%zero : {kept}) outs(%e : {wide}) -> {wide}
  %0 = linalg.matmul ins(%a, %b : tensor<32x{k}xbf16>, tensor<{k}x32xbf16>) outs(%f : {wide}) -> {wide}
"""
        + (last if kept != "bf16" else f"  return %0 : {wide}\n}}"),
    )


@pytest.fixture(scope="module")
def wrong_modules() -> ModuleType:
    """The edits of `benchmarks/sensitivity.py`."""
    spec = importlib.util.spec_from_file_location("wrong_modules", BENCHMARKS / "wrong_modules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def host() -> Compiler:
    return Compiler(Target.parse("llvm-cpu"))


@pytest.fixture(scope="module")
def child() -> Iterator[DeviceChild]:
    with DeviceChild("local-task") as child:
        yield child


class Checked:
    """A dispatch with its default loaded; edits of it are compiled, and checked as a run does."""

    def __init__(self, op: OpSource, compiler: Compiler, child: DeviceChild, directory: Path) -> None:
        (self.dispatch,) = extract_dispatches([read_source(op, Path())], compiler, 2).dispatches
        self.module = self.dispatch.members[0].module
        self.compiler, self.child, self.directory = compiler, child, directory
        self.load("default", self.module.text)
        child.store_reference("default", "reference", 0)

    def load(self, key: str, text: str) -> None:
        out = self.directory / f"{key}.vmfb"
        self.compiler.compile_sources(text, out)
        self.child.load_benchmark(key, out, self.module)

    def check(self, text: str, *, edges: bool = False) -> Check:
        self.load("edited", text)
        return self.child.check(
            "edited", "reference", acceptance_of(self.dispatch, self.dispatch.members[0]), edges=edges
        )


@pytest.mark.parametrize(
    ("kept", "tail"),
    [
        pytest.param("f32", "", id="stored-as-bf16", marks=pytest.mark.slow),
        pytest.param("bf16", "", id="kept-in-bf16"),
        pytest.param("f32", TAIL, id="sigmoid", marks=pytest.mark.slow),
    ],
)
def test_one_missing_product_is_found_and_another_order_is_right(
    kept: str, tail: str, host: Compiler, child: DeviceChild, tmp_path: Path, wrong_modules: ModuleType
) -> None:
    checked = Checked(matmul(kept, tail), host, child, tmp_path)
    text = checked.module.text
    edited = wrong_modules.edited
    for what in ("one product is missing", "the sum is never computed", "the output is partly written"):
        found = checked.check(edited(text, wrong_modules.WRONG[what]))
        assert not found.ok, what
        assert found.wrong
    for edit in wrong_modules.RIGHT.values():
        reordered = edited(text, edit)
        assert reordered != text
        for edges in (False, True):
            found = checked.check(reordered, edges=edges)
            assert found.ok, found.reason


def test_a_narrow_accumulator_of_integers_is_found(
    host: Compiler, child: DeviceChild, tmp_path: Path, wrong_modules: ModuleType
) -> None:
    checked = Checked(ops.matmul(m=16, n=16, k=64, lhs="i8"), host, child, tmp_path)
    found = checked.check(wrong_modules.edited(checked.module.text, wrong_modules.WRONG["the sum is kept in i16"]))
    assert not found.ok
    assert found.max_abs_error >= 1 << 16


def test_a_narrow_accumulator_of_wide_integers_is_found(
    host: Compiler, child: DeviceChild, tmp_path: Path, wrong_modules: ModuleType
) -> None:
    source = OpSource(
        "main",
        """
func.func @main(%a: tensor<16x64xi32>, %b: tensor<64x16xi32>) -> tensor<16x16xi32> {
  %z = arith.constant 0 : i32
  %e = tensor.empty() : tensor<16x16xi32>
  %f = linalg.fill ins(%z : i32) outs(%e : tensor<16x16xi32>) -> tensor<16x16xi32>
  %0 = linalg.matmul ins(%a, %b : tensor<16x64xi32>, tensor<64x16xi32>) outs(%f : tensor<16x16xi32>)
      -> tensor<16x16xi32>
  return %0 : tensor<16x16xi32>
}
""",
    )
    checked = Checked(source, host, child, tmp_path)
    edited = wrong_modules.edited
    assert not checked.check(edited(checked.module.text, wrong_modules.WRONG["the sum is kept in i16"])).ok
    assert checked.check(edited(checked.module.text, next(iter(wrong_modules.RIGHT.values())))).ok


def test_a_sum_of_exponentials_in_a_coarse_type_is_checked_where_it_is_exact(
    host: Compiler, child: DeviceChild, tmp_path: Path, wrong_modules: ModuleType
) -> None:
    kind = "tensor<32x256xbf16>"
    source = OpSource(
        "main",
        f"""
func.func @main(%a: {kind}) -> {kind} {{
  %e = tensor.empty() : {kind}
  %0 = linalg.softmax dimension(1) ins(%a : {kind}) outs(%e : {kind}) -> {kind}
  return %0 : {kind}
}}
""",
    )
    checked = Checked(source, host, child, tmp_path)
    edited, wrong, right = wrong_modules.edited, wrong_modules.WRONG, wrong_modules.RIGHT
    assert not checked.check(edited(checked.module.text, wrong["the last product counts twice"])).ok
    assert checked.check(edited(checked.module.text, next(iter(right.values())))).ok


def test_a_nan_that_a_product_has_and_a_candidate_has_not_is_found(
    host: Compiler, child: DeviceChild, tmp_path: Path, wrong_modules: ModuleType
) -> None:
    """Among special values are some that are clipped, and some that overflow f16."""
    checked = Checked(ops.matmul(m=16, n=16, k=64, lhs="f32"), host, child, tmp_path)
    text = checked.module.text
    for what in ("results are clipped", "results overflow f16"):
        found = checked.check(wrong_modules.edited(text, wrong_modules.WRONG[what]), edges=True)
        assert not found.ok, what
    # A module that runs on special values is left with its own data: timing must not depend on them.
    assert checked.check(text, edges=True).ok
    for key in ("default", "edited"):
        lhs, rhs, _ = child.read(key)
        assert all(np.isfinite(np.frombuffer(part.data, np.float32)).all() for part in (lhs, rhs))


LOGITS = """
func.func @main(%tokens: tensor<64xi32>) -> tensor<64x32xf32> {
  %weights = arith.constant dense_resource<weights> : tensor<512x32xf32>
  %zero = arith.constant 0.0 : f32
  %size = arith.constant 0.001 : f32
  %xe = tensor.empty() : tensor<64x512xf32>
  %x = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (i)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]
  } ins(%tokens : tensor<64xi32>) outs(%xe : tensor<64x512xf32>) {
  ^bb0(%t: i32, %old: f32):
    %j = linalg.index 1 : index
    %i = linalg.index 0 : index
    %ji = arith.index_cast %j : index to i32
    %ii = arith.index_cast %i : index to i32
    %seven = arith.constant 7919 : i32
    %thousand = arith.constant 1000 : i32
    %p = arith.muli %ji, %seven : i32
    %q = arith.addi %t, %ii : i32
    %m = arith.muli %p, %q : i32
    %r = arith.remui %m, %thousand : i32
    %f = arith.uitofp %r : i32 to f32
    %s = arith.mulf %f, %size : f32
    linalg.yield %s : f32
  } -> tensor<64x512xf32>
  %e = tensor.empty() : tensor<64x32xf32>
  %o = linalg.fill ins(%zero : f32) outs(%e : tensor<64x32xf32>) -> tensor<64x32xf32>
  %logits = linalg.matmul ins(%x, %weights : tensor<64x512xf32>, tensor<512x32xf32>)
      outs(%o : tensor<64x32xf32>) -> tensor<64x32xf32>
  %shares = linalg.softmax dimension(1) ins(%logits : tensor<64x32xf32>) outs(%e : tensor<64x32xf32>)
      -> tensor<64x32xf32>
  return %shares : tensor<64x32xf32>
}
"""


def with_weights(text: str) -> str:
    values = np.random.default_rng(0).normal(0, 6, (512, 32)).astype("<f4")
    blob = f'"0x04000000{values.tobytes().hex()}"'
    return f"{text}{{-# dialect_resources: {{ builtin: {{ weights: {blob} }} }} #-}}\n"


@pytest.mark.slow
def test_a_model_of_integers_shows_what_it_makes_of_rounding_errors(
    host: Compiler, tmp_path: Path, wrong_modules: ModuleType
) -> None:
    """As magika's: a softmax behind large sums, and inputs that nobody can disturb."""
    plan = make_plan([read_source(OpSource("main", with_weights(LOGITS)), Path())], host, processors=2, count=1, seed=0)
    (source,) = plan.sources
    sources = strip(host.for_models.lower(source.text, to="executable-sources", name="main"))
    leases = DeviceLeases(("local-task",))
    builder = Builder(host, Cache(tmp_path / "cache"), leases, jobs=1, report=lambda _: None)
    children = DeviceChildren(leases, lambda _: None)
    models = ModelRunner(children, seed=0)
    symbols = [member.symbol for task in plan.tasks for member in task.dispatch.members]
    tolerance = model_tolerance(source, "main", plan.tasks, symbols)
    default = builder.model(sources)
    function = ModelFunction("main", source.functions["main"], tolerance)
    asked: list[Path | None] = []

    def disturbed() -> Path | None:
        asked.append(disturbed_model(builder, sources, symbols))
        return asked[-1]

    answering = replace(function, disturbed=disturbed)
    try:
        edit, *_ = wrong_modules.RIGHT.values()
        reordered = builder.model(wrong_modules.edited(sources, edit))
        with pytest.raises(CandidateFailed, match="times what is allowed") as refused:
            models.check(function, default, reordered)
        assert refused.value.state is State.WRONG_RESULT
        models.check(answering, default, reordered)
        assert len(asked) == 1
        assert asked[0] is not None
        for what in ("one product is missing", "a quarter of the results is 0"):
            wrong = builder.model(wrong_modules.edited(sources, wrong_modules.WRONG[what]))
            with pytest.raises(CandidateFailed, match="elements are wrong"):
                models.check(answering, default, wrong)
    finally:
        builder.close()
        children.close()


def test_every_sum_of_floats_is_disturbed_and_nothing_else(host: Compiler) -> None:
    sources = strip(host.for_models.lower(with_weights(LOGITS), to="executable-sources", name="main"))
    disturbed = with_disturbed_sums(sources, [f"main_dispatch_{number}" for number in range(4)])
    assert with_disturbed_sums(sources, []).count("linalg.generic") == sources.count("linalg.generic")
    # One in the product, and one in the softmax.
    assert disturbed.count("linalg.generic") == sources.count("linalg.generic") + 2


SUITE = suite_text('ops.matmul(m=32, n=48, k=256, lhs="bf16", acc="f32")')
CONFTEST = f"""
import importlib.util
import pytest

spec = importlib.util.spec_from_file_location("wrong_modules", {str(BENCHMARKS / "wrong_modules.py")!r})
wrong_modules = importlib.util.module_from_spec(spec)
spec.loader.exec_module(wrong_modules)


def drop_an_eighth(text):
    if "lowering_config" not in text:
        return text
    return wrong_modules.edited_with_its_config(text, wrong_modules.WRONG["the last block is missing"])


@pytest.fixture
def artifact(tune_dispatch):
    return tune_dispatch.build(drop_an_eighth, key="an eighth")
"""


@pytest.mark.slow
def test_candidates_that_drop_an_eighth_of_a_sum_win_nothing(make_suite: MakeSuite) -> None:
    """End to end, with a compile step that spares the default."""
    outcome = make_suite({"test_suite.py": SUITE, "conftest.py": CONFTEST}).tune("--tune-trials=4")
    states = {record["id"]: record["state"] for record in outcome.records}
    assert states.pop("default") == "measured", outcome.text
    assert set(states.values()) <= {"wrong_result", "duplicate"}, outcome.text
    assert "wrong_result" in states.values()
    assert not (outcome.out / "spec.mlir").exists()


SLICED = """
func.func @main(%a: tensor<32x96xf32>, %b: tensor<64x16xf32>) -> tensor<32x16xf32> {
  %z = arith.constant 0.0 : f32
  %s = tensor.extract_slice %a[0, 16] [32, 64] [1, 1] : tensor<32x96xf32> to tensor<32x64xf32>
  %e = tensor.empty() : tensor<32x16xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<32x16xf32>) -> tensor<32x16xf32>
  %0 = linalg.matmul ins(%s, %b : tensor<32x64xf32>, tensor<64x16xf32>) outs(%f : tensor<32x16xf32>)
      -> tensor<32x16xf32>
  return %0 : tensor<32x16xf32>
}
"""
MIXED = """
#a = affine_map<(m, n, k) -> (m, k)>
#b = affine_map<(m, n, k) -> (k, n)>
#c = affine_map<(m, n, k) -> (m, n)>
func.func @main(%a: tensor<32x512x{float}>, %b: tensor<512x32x{integer}>) -> tensor<32x32x{float}> {{
  %z = arith.constant 0.0 : {float}
  %e = tensor.empty() : tensor<32x32x{float}>
  %f = linalg.fill ins(%z : {float}) outs(%e : tensor<32x32x{float}>) -> tensor<32x32x{float}>
  %0 = linalg.generic {{indexing_maps = [#a, #b, #c], iterator_types = ["parallel", "parallel", "reduction"]}}
      ins(%a, %b : tensor<32x512x{float}>, tensor<512x32x{integer}>) outs(%f : tensor<32x32x{float}>) {{
  ^bb0(%x: {float}, %w: {integer}, %o: {float}):
    %y = arith.sitofp %w : {integer} to {float}
    %p = arith.mulf %x, %y : {float}
    %s = arith.addf %o, %p : {float}
    linalg.yield %s : {float}
  }} -> tensor<32x32x{float}>
  return %0 : tensor<32x32x{float}>
}}
"""


def test_a_product_of_a_part_of_what_is_stored_is_checked_on_special_values(
    host: Compiler, child: DeviceChild, tmp_path: Path
) -> None:
    checked = Checked(OpSource("main", SLICED), host, child, tmp_path)
    assert checked.check(checked.module.text, edges=True).ok


@pytest.mark.parametrize(("floating", "integer"), thinned([("f16", "i8"), ("bf16", "i4")], every=2))
def test_integers_that_are_cast_to_a_coarse_float_are_summed_exactly(
    floating: str, integer: str, host: Compiler, child: DeviceChild, tmp_path: Path, wrong_modules: ModuleType
) -> None:
    checked = Checked(OpSource("main", MIXED.format(float=floating, integer=integer)), host, child, tmp_path)
    for edit in wrong_modules.RIGHT.values():
        found = checked.check(wrong_modules.edited(checked.module.text, edit))
        assert found.ok, found.reason
    missing = wrong_modules.WRONG["one product is missing"]
    assert not checked.check(wrong_modules.edited(checked.module.text, missing)).ok
