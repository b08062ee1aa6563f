"""Applying specs with the real compiler: to a dumped dispatch, to a whole model, and by the plain compile."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import (
    Applied,
    configure,
    configure_with,
    read_configs,
    strip,
    why_not_applied,
)
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.types import FoundDispatch
from pytest_shark_tune.spec.build import SpecEntry, build_spec, single_entry_spec
from pytest_shark_tune.spec.link import check_starter, link_spec
from pytest_shark_tune.spec.read import read_spec
from tests.models import matmuls

FIRST, SECOND = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<"
    f"distribution = [{m}, 32, 0], vector_common_parallel = [8, 32, 0], vector_reduction = [0, 0, 8]>, "
    "translation_info = #iree_codegen.translation_info<pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>>"
    for m in (32, 16)
)

# A name like those of models imported from ONNX, and two dispatches that differ in their sizes alone.
MODEL = matmuls('"a model from $x"', 64, 128, 96, 32)


@pytest.fixture(scope="module")
def target() -> Target:
    return Target.parse("llvm-cpu")


@pytest.fixture(scope="module")
def compiler(target: Target) -> Compiler:
    return Compiler(target)


@pytest.fixture(scope="module")
def dumps(compiler: Compiler) -> list[str]:
    return compiler.dump_benchmarks(MODEL, "model.mlir")


@pytest.fixture(scope="module")
def dispatches(dumps: list[str]) -> list[FoundDispatch]:
    found = []
    for text in dumps:
        dispatch = read_benchmark(text, "model.mlir", processors=2)
        assert isinstance(dispatch, FoundDispatch)
        found.append(dispatch)
    return found


@pytest.fixture(scope="module")
def default_configs(compiler: Compiler) -> tuple[Applied, ...]:
    return read_configs(compiler.lower(MODEL, to="executable-configurations"))


def roots(configs: tuple[Applied, ...]) -> dict[str, str]:
    return {applied.symbol: applied.compilation_info for applied in configs if applied.op == "linalg.matmul"}


def test_stripping_drops_configs_and_keeps_root_marks(dumps: list[str]) -> None:
    for text in dumps:
        assert read_configs(text)
        stripped = strip(text)
        assert read_configs(stripped) == ()
        assert "translation_info" not in stripped
        assert stripped.count("root_op = ") == text.count("root_op = ") == 1


def test_a_candidate_is_applied_to_its_dispatch_and_compiles(
    compiler: Compiler, dispatches: list[FoundDispatch], tmp_path: Path
) -> None:
    dispatch = dispatches[1]
    configured = configure_with(dispatch.module.text, single_entry_spec(dispatch.root, SECOND))
    assert [(applied.symbol, applied.op) for applied in configured.applied] == [(dispatch.symbol, "linalg.matmul")]
    assert why_not_applied(configured, SECOND) is None
    assert why_not_applied(configured, FIRST) is not None
    assert configure_with(dispatches[0].module.text, single_entry_spec(dispatch.root, SECOND)).applied == ()
    binary = tmp_path / "candidate.vmfb"
    compiler.compile_sources(configured.text, binary)
    assert binary.stat().st_size


def test_the_config_in_force_gives_way_to_the_specs(dumps: list[str], dispatches: list[FoundDispatch]) -> None:
    # A dump carries the default config; IREE would leave it and ignore the spec without a word.
    configured = configure_with(dumps[1], single_entry_spec(dispatches[1].root, SECOND))
    assert why_not_applied(configured, SECOND) is None


def test_a_whole_model_takes_an_entry_in_the_expected_dispatch_alone(
    compiler: Compiler,
    dispatches: list[FoundDispatch],
    default_configs: tuple[Applied, ...],
    tmp_path: Path,
) -> None:
    spec = tmp_path / "spec.mlir"
    spec.write_text(build_spec([SpecEntry(name="second", root=dispatches[1].root, compilation_info=SECOND)]))
    sources = compiler.lower(MODEL, to="executable-sources")
    configured = configure(sources, spec)
    assert [applied.symbol for applied in configured.applied] == [dispatches[1].symbol]
    assert why_not_applied(configured, SECOND) is None

    done = compiler.lower(configured.text, to="executable-configurations", since="executable-sources")
    default = roots(default_configs)
    assert roots(read_configs(done)) == default | {dispatches[1].symbol: configured.applied[0].compilation_info}
    assert default[dispatches[1].symbol] != configured.applied[0].compilation_info
    compiler.compile_sources(configured.text, tmp_path / "model.vmfb")


def test_the_plain_compile_takes_a_linked_spec_the_same_way(
    target: Target, compiler: Compiler, dispatches: list[FoundDispatch], tmp_path: Path
) -> None:
    starter = build_spec([SpecEntry(name="same", root=dispatches[1].root, compilation_info=SECOND)])
    entry = SpecEntry(
        name="same", root=dispatches[0].root, compilation_info=FIRST, provenance={"device": "this", "speedup": 1.5}
    )
    spec = tmp_path / "spec.mlir"
    spec.write_text(link_spec(build_spec([entry], starter)))

    configured = configure(compiler.lower(MODEL, to="executable-sources"), spec)
    assert [applied.symbol for applied in configured.applied] == [dispatch.symbol for dispatch in dispatches]
    ours = compiler.lower(configured.text, to="executable-configurations", since="executable-sources")
    # With threads, the compiler sometimes deadlocks while it loads a spec.
    flags = [f"--iree-codegen-tuning-spec-path={spec}", "--mlir-disable-threading"]
    plain = Compiler(target, flags).lower(MODEL, to="executable-configurations")
    assert ours == plain


def test_the_default_spec_of_gfx942_is_a_starter(
    dispatches: list[FoundDispatch], default_spec: str, half_matmul: str
) -> None:
    check_starter(default_spec)
    entry = SpecEntry(name="mm", root=dispatches[0].root, compilation_info=FIRST)
    linked = link_spec(build_spec([entry], default_spec))
    assert link_spec(linked) == linked
    default_matchers = [row.matcher for row in read_spec(default_spec)]
    assert default_matchers
    assert [row.matcher for row in read_spec(linked)] == ["match_mm", *default_matchers]

    sources = Compiler(Target.parse("hip:gfx942")).lower(half_matmul, to="executable-sources")
    (applied,) = configure_with(sources, linked).applied
    assert applied.compilation_info in {row.compilation_info for row in read_spec(default_spec)}


@pytest.fixture(scope="module")
def half_matmul() -> str:
    """A matmul that IREE's default spec for gfx942 has an entry for."""
    return """
func.func @main(%a: tensor<2048x5120xf16>, %b: tensor<1280x5120xf16>) -> tensor<2048x1280xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<2048x1280xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<2048x1280xf32>) -> tensor<2048x1280xf32>
  %0 = linalg.generic {
    indexing_maps = [affine_map<(m, n, k) -> (m, k)>, affine_map<(m, n, k) -> (n, k)>, affine_map<(m, n, k) -> (m, n)>],
    iterator_types = ["parallel", "parallel", "reduction"]
  } ins(%a, %b : tensor<2048x5120xf16>, tensor<1280x5120xf16>) outs(%f : tensor<2048x1280xf32>) {
  ^bb0(%x: f16, %y: f16, %z: f32):
    %xw = arith.extf %x : f16 to f32
    %yw = arith.extf %y : f16 to f32
    %p = arith.mulf %xw, %yw : f32
    %s = arith.addf %z, %p : f32
    linalg.yield %s : f32
  } -> tensor<2048x1280xf32>
  return %0 : tensor<2048x1280xf32>
}
"""


@pytest.fixture(scope="module")
def default_spec(half_matmul: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The spec for gfx942 that is embedded in the compiler, as the compiler itself dumps it."""
    directory = tmp_path_factory.mktemp("default")
    flags = ["--iree-codegen-enable-default-tuning-specs", f"--iree-codegen-dump-tuning-specs-to={directory}"]
    Compiler(Target.parse("hip:gfx942"), flags).lower(half_matmul, to="executable-configurations")
    return next(directory.glob("*.mlir")).read_text(encoding="utf-8")
