"""The compiler, with the real one."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import Compiler, compiler_version, first_error
from pytest_shark_tune.compiler.refusals import OperatorNotLowered, refusal, why_rejected
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.types import FoundDispatch
from pytest_shark_tune.errors import CommandFailed, InputError

pytestmark = pytest.mark.compiler

BROKEN = "func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {\n  return %y : tensor<4xf32>\n}\n"
WORK = BROKEN.replace("return", "%y = math.absf %x : tensor<4xf32>\n  return")


@pytest.fixture(scope="module")
def benchmark_module(dumps: Mapping[str, str]) -> str:
    dispatch = read_benchmark(dumps["plain"], "model", processors=2)
    assert isinstance(dispatch, FoundDispatch)
    return dispatch.module.text


@pytest.mark.parametrize(
    ("text", "backend", "architecture", "flag", "driver"),
    [
        ("llvm-cpu", "llvm-cpu", "host", "--iree-llvmcpu-target-cpu=host", "local-task"),
        ("llvm-cpu:znver4", "llvm-cpu", "znver4", "--iree-llvmcpu-target-cpu=znver4", "local-task"),
        ("cuda:sm_89", "cuda", "sm_89", "--iree-cuda-target=sm_89", "cuda"),
        ("hip:gfx942", "hip", "gfx942", "--iree-rocm-target=gfx942", "hip"),
        ("vulkan:rdna3", "vulkan", "rdna3", "--iree-vulkan-target=rdna3", "vulkan"),
    ],
)
def test_a_target_is_parsed_and_written_back(
    text: str, backend: str, architecture: str, flag: str, driver: str
) -> None:
    target = Target.parse(text)
    assert target == Target(backend, architecture)
    assert str(target) == text
    assert target.flags[-1] == flag
    assert target.driver == driver
    assert target.shares_processor == (backend == "llvm-cpu")


@pytest.mark.parametrize("text", ["llvm-cpu:host", "cuda:host", "vulkan:host", "hip:gfx942:sramecc+"])
def test_what_a_target_is_written_as_parses_to_it(text: str) -> None:
    target = Target.parse(text)
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown target '': give one of llvm-cpu or llvm-cpu:znver4, cuda:sm_89, hip:gfx942, vulkan:rdna3"),
        ("metal", "unknown target 'metal': give one of "),
        ("CUDA:sm_89", "unknown target 'CUDA:sm_89': give one of "),
        ("cuda", "target 'cuda' names no architecture: give for example cuda:sm_89"),
        ("hip:", "target 'hip:' names no architecture: give for example hip:gfx942"),
        ("vulkan", "target 'vulkan' names no architecture: give for example vulkan:rdna3"),
        ("llvm-cpu:", "target 'llvm-cpu:' names no architecture: give for example llvm-cpu"),
    ],
)
def test_a_bad_target_is_refused_with_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Target.parse(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("target", ["llvm-cpu", "cuda:sm_89", "hip:gfx942", "vulkan:rdna3"])
def test_every_backend_compiles_without_its_device(target: str) -> None:
    Compiler(Target.parse(target)).check()


@pytest.mark.parametrize(
    ("target", "flags", "message"),
    [
        ("llvm-cpu:nothing", [], "iree-compile does not take target llvm-cpu:nothing: .*Unknown CPU"),
        ("cuda:sm_90", [], "iree-compile does not take target cuda:sm_90: .*missing GPU target"),
        ("hip:gfx1", [], "iree-compile does not take target hip:gfx1: .*Unknown ROCM target 'gfx1'"),
        ("llvm-cpu", ["--no-such=1", "--b"], "llvm-cpu with --no-such=1 --b: .*Unknown .*argument '--no-such=1'"),
    ],
)
def test_a_target_or_flag_that_the_compiler_refuses_is_told(target: str, flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Compiler(Target.parse(target), flags).check()


@pytest.mark.parametrize("to", ["input", "flow", "executable-sources"])
def test_errors_name_the_source_and_the_place(compiler: Compiler, to: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        compiler.lower(BROKEN, to=to, name="models/my model.mlir")
    assert first_error(caught.value) == "models/my model.mlir:2:10: error: use of undeclared SSA value name"
    assert "return %y" in caught.value.stderr
    assert "<stdin>" not in caught.value.stderr


def test_errors_of_a_dump_name_the_source_too(compiler: Compiler) -> None:
    with pytest.raises(CommandFailed) as caught:
        compiler.dump_benchmarks(BROKEN, "here")
    assert first_error(caught.value).startswith("here:2:10: error: ")


def test_the_first_error_is_found_among_other_lines() -> None:
    failure = CommandFailed("it failed", stderr="\nwarning: odd\nx.mlir:1:2: error: wrong\nx.mlir:3:4: error: also\n")
    assert first_error(failure) == "x.mlir:1:2: error: wrong"
    assert first_error(CommandFailed("it failed", stderr="\n  no such flag\nTry: --help\n")) == "no such flag"
    assert first_error(CommandFailed("it failed")) == "it failed"
    crash = "Please report issues to https://github.com/iree-org/iree/issues\n #0 0x00007f llvm::sys::PrintStackTrace\n"
    assert first_error(CommandFailed("it was ended by SIGSEGV", stderr=crash)) == "it was ended by SIGSEGV"
    assert first_error(CommandFailed("it ran too long", stderr="warning: odd\n", timed_out=True)) == "it ran too long"


def test_an_onnx_operator_that_cannot_be_lowered_is_named(compiler: Compiler) -> None:
    model = """
func.func @main(%x: !torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32>
    attributes {torch.onnx_meta.opset_version = 17 : si64} {
  %y = torch.operator "onnx.GRU"(%x) : (!torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32>
  return %y : !torch.vtensor<[2],f32>
}
"""
    with pytest.raises(CommandFailed) as caught:
        compiler.lower(model, to="flow", name="my model")
    refused = refusal("my model", caught.value, is_onnx=True)
    assert isinstance(refused, OperatorNotLowered)
    assert str(refused) == (
        "my model: iree-compile cannot lower the ONNX operator GRU as this model uses it (my model:4:8): "
        f"{OperatorNotLowered.remedy}"
    )


def test_equal_input_gives_equal_binaries_in_different_directories(
    compiler: Compiler, benchmark_module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    for name in ("one", "another"):  # No blank: IREE does not link where TMPDIR has one.
        directory = tmp_path / name
        directory.mkdir()
        monkeypatch.chdir(directory)
        monkeypatch.setenv("TMPDIR", os.fspath(directory))
        out = directory / f"{name}.vmfb"
        assert compiler.compile_sources(benchmark_module, out) > 0
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
        assert [each.name for each in directory.iterdir()] == [out.name]
    assert len(digests) == 1


def test_a_compilation_that_fails_leaves_no_binary(compiler: Compiler, tmp_path: Path) -> None:
    out = tmp_path / "out.vmfb"
    with pytest.raises(CommandFailed):
        compiler.compile_sources(BROKEN, out)
    assert list(tmp_path.iterdir()) == []


def test_a_compilation_is_stopped_when_its_time_is_up(benchmark_module: str, tmp_path: Path) -> None:
    hasty = Compiler(Target.parse("llvm-cpu"), timeout_s=0.01)
    with pytest.raises(CommandFailed, match=r"iree-compile ran longer than 0\.01 s and was stopped") as caught:
        hasty.compile_sources(benchmark_module, tmp_path / "out.vmfb")
    assert caught.value.timed_out
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_takes_too_long_all_the_same_is_told_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "iree-compile"
    tool.write_text("#!/bin/sh\nexec sleep 100\n", encoding="utf-8")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("pytest_shark_tune.compiler.compiler.MODEL_TIMEOUT_S", 0.02)
    compiler = Compiler(Target.parse("llvm-cpu"), timeout_s=0.01, timeout_option="--more", tool=os.fspath(tool))
    with pytest.raises(CommandFailed) as caught:
        compiler.for_models.lower(WORK, to="flow")
    message = "iree-compile ran longer than 0.02 s and was stopped: --more gives it more than that"
    assert why_rejected(caught.value) == message
    with pytest.raises(CommandFailed, match=r"ran longer than 0\.01 s and was stopped$"):
        compiler.lower(WORK, to="flow")
    patient = Compiler(Target.parse("llvm-cpu"), timeout_s=3600)
    assert (patient.for_models.timeout_s, patient.for_models.identity) == (3600, patient.identity)


def test_a_compilation_is_stopped_when_it_needs_too_much_memory(benchmark_module: str, tmp_path: Path) -> None:
    small = Compiler(Target.parse("llvm-cpu"), memory_bytes=64 << 20)
    with pytest.raises(CommandFailed) as caught:
        small.compile_sources(benchmark_module, tmp_path / "out.vmfb")
    assert not caught.value.timed_out


def test_a_dump_makes_no_files_and_its_modules_are_told_apart(tmp_path: Path) -> None:
    first = "#map = affine_map<(d0) -> (d0)>\nmodule {\n  func.func @a() {\n    return\n  }\n}\n"
    data = '\n{-#\n  dialect_resources: {\n    builtin: {\n      w: "0x04000000"\n    }\n}\n#-}\n'
    (tmp_path / "printed").write_text(first + data + "\n" + first, encoding="utf-8")
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\ncat {tmp_path / 'printed'}\n", encoding="utf-8")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    compiler = Compiler(Target.parse("llvm-cpu"), tool=os.fspath(tool))
    assert compiler.dump_benchmarks("", "name") == [first + data + "\n", first]


def test_phases_continue_where_they_stopped(compiler: Compiler, benchmark_module: str) -> None:
    configured = compiler.lower(benchmark_module, to="executable-configurations", since="executable-sources")
    assert "lowering_config" not in benchmark_module
    assert "lowering_config" in configured
    assert "root_op" in configured


def test_flags_of_the_user_reach_the_compiler() -> None:
    limited = Compiler(Target.parse("llvm-cpu"), ["--iree-llvmcpu-stack-allocation-limit=16384"])
    assert "max_stack_allocation_size = 16384" in limited.lower(WORK, to="executable-sources")


def test_identity_tells_targets_and_flags_apart() -> None:
    def identity(text: str, *flags: str) -> tuple[str, ...]:
        return Compiler(Target.parse(text), flags).identity

    assert identity("llvm-cpu") == identity("llvm-cpu:host")
    ones = [
        identity("llvm-cpu"),
        identity("llvm-cpu", "--a"),
        identity("llvm-cpu", "--b"),
        identity("llvm-cpu:znver4"),
        identity("cuda:sm_89"),
    ]
    assert len(set(ones)) == len(ones)
    assert all(compiler_version() in one for one in ones)


def test_it_links_with_a_temporary_directory_whose_name_has_a_blank(tmp_path: Path) -> None:
    directory = tmp_path / "a directory"
    directory.mkdir()
    code = (
        "import sys; from pathlib import Path; from pytest_shark_tune.compiler.compiler import Compiler, Target; "
        "compiler = Compiler(Target.parse('llvm-cpu')); "
        "compiler.compile_sources(compiler.lower(sys.stdin.read(), to='executable-sources'), Path(sys.argv[1]))"
    )
    source = "func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {\n"
    source += "  %y = math.absf %x : tensor<4xf32>\n  return %y : tensor<4xf32>\n}\n"
    out = directory / "out.vmfb"
    env = {**os.environ, "TMPDIR": str(directory)}
    subprocess.run([sys.executable, "-c", code, str(out)], input=source, text=True, env=env, check=True)
    assert out.stat().st_size > 0


LEFT = {
    "nothing": (":", "is missing"),
    "an empty file": ('touch "$out"', "is empty"),
    "a directory": ('mkdir "$out"', "cannot be read: Is a directory"),
    "a pipe": ('mkfifo "$out"', "cannot be read: it is no regular file"),
}


@pytest.mark.parametrize("left", LEFT)
def test_a_compiler_that_succeeds_and_leaves_no_binary_has_failed(left: str, tmp_path: Path) -> None:
    command, reason = LEFT[left]
    tool = tmp_path / "iree-compile"
    tool.write_text(f"#!/bin/sh\ncat >/dev/null\nfor out; do :; done\n{command}\n", encoding="utf-8")
    tool.chmod(0o755)
    compiler = Compiler(Target.parse("llvm-cpu"), tool=str(tool))
    with pytest.raises(CommandFailed, match=f"exited with status 0, and its output {reason}"):
        compiler.compile_sources(WORK, tmp_path / "out.vmfb")
    with pytest.raises(CommandFailed, match=f"exited with status 0, and its output {reason}"):
        compiler.lower(WORK, to="flow")
    assert not (tmp_path / "out.vmfb").exists()


@pytest.mark.parametrize(
    ("number", "words"), [("KILL", "something else than the compiler ended it"), ("SEGV", "target")]
)
def test_a_compiler_that_is_killed_says_nothing_of_the_target(number: str, words: str, tmp_path: Path) -> None:
    tool = tmp_path / "iree-compile"
    tool.write_text(f"#!/bin/sh\nkill -{number} $$\n", encoding="utf-8")
    tool.chmod(0o755)
    with pytest.raises(InputError, match=words) as caught:
        Compiler(Target.parse("llvm-cpu"), tool=str(tool)).check()
    assert ("llvm-cpu" in str(caught.value)) == (number == "SEGV")
