"""A spec applied to a whole model: the entries that `shark-tune compile` applies on each backend, and its output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from iree import runtime

from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import read_configs
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.grouping import group_dispatches
from pytest_shark_tune.dispatch.types import Dispatch, FoundDispatch
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.form import DEFAULT_FORM
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.spec.apply import Application, apply_spec
from pytest_shark_tune.spec.build import SpecEntry, build_spec

TARGETS = ("llvm-cpu", "hip:gfx942", "cuda:sm_89", "vulkan:rdna3")
CPU = (
    "#iree_codegen.compilation_info<lowering_config = #iree_cpu.lowering_config<{}>, "
    "translation_info = <pipeline = #iree_cpu.pipeline<{}>>>"
)
CPU_MATMUL = CPU.format(
    "distribution = [16, 16, 0], vector_common_parallel = [4, 8, 0], vector_reduction = [0, 0, 2]",
    "DoubleTilingExpert",
)
CPU_CONVOLUTION = CPU.format(
    "distribution = [0, 2, 4, 16, 0, 0, 0], vector_common_parallel = [1, 1, 2, 8, 0, 0, 0], "
    "vector_reduction = [0, 0, 0, 0, 1, 1, 2]",
    "ConvTileAndDecomposeExpert",
)
MODEL = """
func.func @main(%a: tensor<64x32xf32>, %b: tensor<32x48xf32>, %x: tensor<1x10x10x8xf32>, %f: tensor<3x3x8x16xf32>)
    -> (tensor<64x48xf32>, tensor<1x8x8x16xf32>) {
  %z = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<64x48xf32>
  %i0 = linalg.fill ins(%z : f32) outs(%e0 : tensor<64x48xf32>) -> tensor<64x48xf32>
  %0 = linalg.matmul ins(%a, %b : tensor<64x32xf32>, tensor<32x48xf32>)
    outs(%i0 : tensor<64x48xf32>) -> tensor<64x48xf32>
  %e1 = tensor.empty() : tensor<1x8x8x16xf32>
  %i1 = linalg.fill ins(%z : f32) outs(%e1 : tensor<1x8x8x16xf32>) -> tensor<1x8x8x16xf32>
  %1 = linalg.conv_2d_nhwc_hwcf ins(%x, %f : tensor<1x10x10x8xf32>, tensor<3x3x8x16xf32>)
    outs(%i1 : tensor<1x8x8x16xf32>) -> tensor<1x8x8x16xf32>
  return %0, %1 : tensor<64x48xf32>, tensor<1x8x8x16xf32>
}
"""
SOURCE = Source(name="model", text=MODEL, is_benchmark=False)


def extracted(compiler: Compiler, model: str = MODEL) -> tuple[tuple[Dispatch, ...], dict[str, str]]:
    """The model's dispatches, and each one's default config by its name."""
    texts = compiler.dump_benchmarks(model, "model")
    found = [read_benchmark(text, "model", processors=1) for text in texts]
    tunable = [each for each in found if isinstance(each, FoundDispatch)]
    assert len(tunable) == 2
    dispatches = group_dispatches(tunable, {})
    infos = {each.config: each.compilation_info for text in texts for each in read_configs(text)}
    return dispatches, {each.name: infos[each.default_config] for each in dispatches}


def spec_of(dispatches: tuple[Dispatch, ...], infos: dict[str, str]) -> str:
    return build_spec(
        SpecEntry(name=each.name, root=each.root, compilation_info=infos[each.name])
        for each in dispatches
        if each.name in infos
    )


@pytest.fixture(scope="module")
def cpu_spec() -> str:
    """A spec for both ops on a CPU; none of its tiles is the compiler's choice."""
    dispatches, infos = extracted(Compiler(Target.parse("llvm-cpu")))
    configs = {"contraction": CPU_MATMUL, "convolution": CPU_CONVOLUTION}
    chosen = {each.name: configs[each.root.kind] for each in dispatches}
    assert set(chosen.values()).isdisjoint(infos.values())
    return spec_of(dispatches, chosen)


@pytest.fixture(scope="module")
def cpu_application(cpu_spec: str) -> Application:
    return apply_spec(SOURCE, cpu_spec, Compiler(Target.parse("llvm-cpu")))


@pytest.mark.parametrize("target", TARGETS)
def test_every_entry_is_in_force_on_every_backend(target: str) -> None:
    compiler = Compiler(Target.parse(target))
    dispatches, infos = extracted(compiler)
    # A default config of one op changes nothing that can be seen, but for the other op's missing entry.
    application = apply_spec(SOURCE, spec_of(dispatches, infos), compiler)
    assert application.dropped == ()
    assert application.unmatched == ()
    assert sorted(each.compilation_info for each in application.placements) == sorted(infos.values())
    assert len({each.symbol for each in application.placements}) == 2
    matmul, convolution = sorted(application.placements, key=lambda each: each.symbol)
    is_cpu = target == "llvm-cpu"
    assert [matmul.late, convolution.late] == [False, is_cpu]
    assert matmul.by_flag == (target in {"llvm-cpu", "hip:gfx942"})
    assert convolution.by_flag == (target == "hip:gfx942")


@pytest.mark.parametrize("target", ["llvm-cpu", "hip:gfx942"])
def test_the_result_is_that_of_the_compilers_own_flag(target: str) -> None:
    compiler = Compiler(Target.parse(target))
    dispatches, infos = extracted(compiler)
    if target == "llvm-cpu":  # The flag misses the convolution there.
        dispatches = tuple(each for each in dispatches if each.root.kind == "contraction")
        infos = {each.name: CPU_MATMUL for each in dispatches}
    spec = spec_of(dispatches, infos)
    ours = apply_spec(SOURCE, spec, compiler).text
    sources = compiler.lower(MODEL, to="executable-sources")
    by_flag = compiler.configure_by_flag(sources, spec)
    assert compiler.lower(ours, to="executable-configurations", since="executable-sources") == by_flag


def test_a_convolution_that_is_rewritten_takes_its_config_late(cpu_application: Application) -> None:
    matmul, convolution = cpu_application.placements
    assert (matmul.late, matmul.by_flag) == (False, True)
    assert (convolution.late, convolution.by_flag) == (True, False)
    compiler = Compiler(Target.parse("llvm-cpu"))
    configured = compiler.lower(cpu_application.text, to="executable-configurations", since="executable-sources")
    infos = [each.compilation_info for each in read_configs(configured)]
    assert {matmul.compilation_info, convolution.compilation_info} <= set(infos)
    assert "shark_tune.entry" not in cpu_application.text


def test_a_config_that_the_compiler_drops_is_told_and_leaves_the_default() -> None:
    """The form without a batch, as GPUs have it, matches the sources on a CPU too, but is rewritten afterwards."""
    dispatches, _ = extracted(Compiler(Target.parse("cuda:sm_89")))
    (convolution,) = (each for each in dispatches if each.root.kind == "convolution")
    info = CPU.format(
        "distribution = [2, 4, 16, 0, 0, 0], vector_common_parallel = [1, 2, 8, 0, 0, 0], "
        "vector_reduction = [0, 0, 0, 1, 1, 2]",
        "DoubleTilingExpert",
    )
    compiler = Compiler(Target.parse("llvm-cpu"))
    application = apply_spec(SOURCE, spec_of((convolution,), {convolution.name: info}), compiler)
    assert application.placements == ()
    assert [each.symbol for each in application.dropped] == ["main_dispatch_1"]
    assert application.unmatched == (f"match_{convolution.name}",)
    chosen = compiler.lower(application.text, to="executable-configurations", since="executable-sources")
    assert chosen == compiler.lower(MODEL, to="executable-configurations")


def test_a_model_with_late_configs_computes_the_same(cpu_application: Application, tmp_path: Path) -> None:
    compiler = Compiler(Target.parse("llvm-cpu"))
    compiler.compile_sources(compiler.lower(MODEL, to="executable-sources"), tmp_path / "default.vmfb")
    compiler.compile_sources(cpu_application.text, tmp_path / "tuned.vmfb")
    assert (tmp_path / "default.vmfb").read_bytes() != (tmp_path / "tuned.vmfb").read_bytes()
    generator = np.random.default_rng(0)
    shapes = [(64, 32), (32, 48), (1, 10, 10, 8), (3, 3, 8, 16)]
    inputs = [generator.standard_normal(shape).astype(np.float32) for shape in shapes]
    default, tuned = (run(tmp_path / f"{name}.vmfb", inputs) for name in ("default", "tuned"))
    np.testing.assert_allclose(default[0], inputs[0] @ inputs[1], atol=1e-4)
    for expected, got in zip(default, tuned, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_model_keeps_its_weights(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((32, 48)).astype(np.float32)
    text = MODEL.replace("%b: tensor<32x48xf32>, ", "").replace(
        "%z = arith", f"%b = arith.constant dense<{weights.tolist()}> : tensor<32x48xf32>\n  %z = arith"
    )
    compiler = Compiler(Target.parse("llvm-cpu"))
    (dispatch,) = (each for each in extracted(compiler, text)[0] if each.root.kind == "contraction")
    spec = spec_of((dispatch,), {dispatch.name: CPU_MATMUL})
    application = apply_spec(Source(name="weights", text=text, is_benchmark=False), spec, compiler)
    assert [each.compilation_info for each in application.placements] == [CPU_MATMUL]
    compiler.compile_sources(application.text, tmp_path / "tuned.vmfb")
    inputs = [np.ones(shape, np.float32) for shape in [(64, 32), (1, 10, 10, 8), (3, 3, 8, 16)]]
    result, _ = run(tmp_path / "tuned.vmfb", inputs)
    np.testing.assert_allclose(result, inputs[0] @ weights, atol=1e-4)


def run(path: Path, inputs: list[Any]) -> list[Any]:
    config = runtime.Config("local-sync")
    module = runtime.load_vm_module(runtime.VmModule.mmap(config.vm_instance, str(path)), config)
    return [result.to_host() for result in module.main(*inputs)]


def shark_tune(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["compile", *map(str, arguments)])


@pytest.fixture
def files(tmp_path: Path, cpu_spec: str) -> tuple[Path, Path, Path]:
    """A model, a spec and where the output goes."""
    paths = tmp_path / "model.mlir", tmp_path / "spec.mlir", tmp_path / "out.vmfb"
    paths[0].write_text(MODEL)
    paths[1].write_text(cpu_spec)
    return paths


def test_the_command_prints_what_is_in_force_where(files: tuple[Path, Path, Path]) -> None:
    model, spec, out = files
    result = shark_tune(model, "--spec", spec, "-o", out, "--iree-compile-flag=--iree-opt-level=O2")
    assert result.exit_code == 0, result.output
    matmul, convolution = result.stdout.splitlines()
    assert matmul == "main_dispatch_0: match_matmul_64x48x32_f32 (linalg.generic)"
    assert convolution == (
        "main_dispatch_1: match_conv_2d_nhwc_hwcf_1x8x8x16_3x3x8_f32 "
        "(linalg.generic, late, --iree-codegen-tuning-spec-path does not apply it)"
    )
    assert out.stat().st_size


def test_an_entry_that_is_in_force_nowhere_fails_the_command(files: tuple[Path, Path, Path]) -> None:
    model, spec, out = files
    text = MODEL.replace("64x32", "60x32").replace("64x48", "60x48")
    model.write_text(text)
    result = shark_tune(model, "--spec", spec, "-o", out)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["match_matmul_64x48x32_f32 is applied nowhere"]
    assert out.exists()
    assert shark_tune(model, "--spec", spec, "-o", out, "--allow-unmatched").exit_code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "absent.mlir"}, "there is no file absent.mlir"),
        ({"model": "model.pt"}, "model.pt is not one of .mlir, .mlirbc, .onnx"),
        ({"spec": "absent.mlir"}, "cannot be read: No such file or directory; a run of pytest --tune writes one only"),
        ({"out": "no/such/directory.vmfb"}, "there is no directory no/such"),
        ({"more": "--tune-target=cuda"}, "target 'cuda' names no architecture"),
        ({"more": "--tune-target=cuda:sm_90"}, "iree-compile does not take target cuda:sm_90"),
        ({"more": "--iree-compile-flag=--no-such-flag"}, "--no-such-flag"),
        ({"more": "--iree-compile-flag=--iree-codegen-tuning-spec-path=x"}, "give the spec with --spec instead"),
        ({"more": "--iree-compile-flag=--compile-to=flow"}, "sets this flag itself"),
    ],
)
def test_bad_input_is_told(files: tuple[Path, Path, Path], change: dict[str, str], message: str) -> None:
    model, spec, out = files
    more = [change["more"]] if "more" in change else []
    result = shark_tune(
        change.get("model", model), "--spec", change.get("spec", spec), "-o", change.get("out", out), *more
    )
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize(("text", "message"), [("nonsense", "not MLIR"), ("module {}", "no tuning spec")])
def test_a_file_that_is_no_spec_is_told(files: tuple[Path, Path, Path], text: str, message: str) -> None:
    model, spec, out = files
    spec.write_text(text)
    result = shark_tune(model, "--spec", spec, "-o", out)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_a_model_that_the_compiler_rejects_is_told(cpu_spec: str) -> None:
    broken = Source(name="broken", text="func.func @main() -> i32 { }", is_benchmark=False)
    with pytest.raises(InputError, match=r"broken: iree-compile rejects it: broken:1"):
        apply_spec(broken, cpu_spec, Compiler(Target.parse("llvm-cpu")))


def test_a_form_without_a_spec_is_compiled_and_told(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, _, out = files
    record = FormRecord(model=model.stem, form=DEFAULT_FORM, target="llvm-cpu", device="", iree="", stem="llvm-cpu")
    path = tmp_path / f"{model.stem}-llvm-cpu.form.json"
    path.write_bytes(msgspec.json.encode(record))
    result = shark_tune(model, "--form", path, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out} is written in the form default; no spec goes with this form\n"
    assert out.exists()
