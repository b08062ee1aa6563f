"""Files that flags name: their content is part of what comes out, so it is part of every key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from iree.compiler.tools.binaries import find_tool

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.flag_files import changed_files, flag_files
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.dispatch.types import BenchmarkModule
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.make import plan_key
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.database import TuningDatabase
from pytest_shark_tune.tuning.microbenchmarks import Microbenchmarks
from pytest_shark_tune.tuning.settings import RunSettings

pytestmark = pytest.mark.compiler

CPU = Target.parse("llvm-cpu")
SPEC = "--iree-preprocessing-transform-spec-filename"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with some files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("a.mlir", "b.mlir", "with blank.mlir", "with,comma@at.mlir", "sub/c.mlir", "sub/.hidden"):
        (tmp_path / name).write_text(f"// {name}")
    (tmp_path / "flags.txt").write_text("--iree-opt-level=O2\n--other=sub/c.mlir  -x 'with blank.mlir' @more.txt\n")
    (tmp_path / "more.txt").write_text(f'{SPEC}="b.mlir"\n')
    (tmp_path / "spec.mlir").write_text(
        '// see a.mlir\nmodule attributes {lib = "b.mlir", opts = "x={y=sub/c.mlir}"} {}'
    )
    (tmp_path / "list.txt").write_text("a.mlir\nwith blank.mlir\n")
    return tmp_path


def names(*flags: str) -> list[str]:
    return [file.name for file in flag_files(flags)]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([f"{SPEC}=a.mlir"], ["a.mlir"]),
        ([SPEC, "a.mlir"], ["a.mlir"]),
        ([f"{SPEC}=./sub/../a.mlir"], ["./sub/../a.mlir"]),
        ([f"{SPEC}=with blank.mlir"], ["with blank.mlir"]),
        ([f"{SPEC}=with,comma@at.mlir"], ["with,comma@at.mlir"]),
        (["--iree-link-bitcode=a.mlir,b.mlir"], ["a.mlir", "b.mlir"]),
        (["--iree-codegen-transform-dialect-library=a.mlir@main"], ["a.mlir"]),
        (["--iree-parameter-import=scope=a.mlir"], ["a.mlir"]),
        (["--p=builtin.module(x{path=sub/c.mlir other=1},func.func(y{spec='with blank.mlir'}))"],
         ["sub/c.mlir", "with blank.mlir"]),
        (['--p=x{spec-path="a.mlir"}'], ["a.mlir"]),
        (["@flags.txt"], ["b.mlir", "flags.txt", "more.txt", "sub/c.mlir", "with blank.mlir"]),
        ([f"{SPEC}=spec.mlir"], ["b.mlir", "spec.mlir", "sub/c.mlir"]),
        (["--paths-file=list.txt"], ["a.mlir", "list.txt", "with blank.mlir"]),
        (["--iree-hal-substitute-executable-sources-from=sub"], ["sub"]),
        (["--mlir-print-ir-after-all", "@more.txt"], ["b.mlir", "more.txt"]),
        (["--iree-opt-level=O3", "--x=y", "--x", "--f=absent.mlir", "--root=/", ""], []),
        (["-o=a.mlir", "-o", "a.mlir", "--iree-hal-dump-executable-files-to=sub"], []),
        (["--iree-hal-dump-executable-sources-to", "sub", "--iree-parameter-export=s=a.mlir", f"{SPEC}=b.mlir"],
         ["b.mlir"]),
    ],
)  # fmt: skip
def test_files_are_found_however_a_flag_names_them(directory: Path, flags: list[str], named: list[str]) -> None:
    assert names(*flags) == named


@pytest.mark.parametrize(
    ("flag", "edited"),
    [
        (f"{SPEC}=a.mlir", "a.mlir"),
        (f"{SPEC}=spec.mlir", "sub/c.mlir"),
        ("--list=b.mlir,a.mlir", "a.mlir"),
        ("@flags.txt", "flags.txt"),
        ("@flags.txt", "b.mlir"),
        ("--from=sub", "sub/c.mlir"),
        ("--from=sub", "sub/new.mlir"),
        ("--p=builtin.module(x{spec-path=a.mlir})", "a.mlir"),
    ],
)
def test_content_counts_and_the_time_of_writing_does_not(directory: Path, flag: str, edited: str) -> None:
    before = flag_files([flag])
    path = directory / edited
    old = path.read_text() if path.exists() else None
    path.write_text("edited, of another length")
    os.utime(path, ns=(0, 0))
    assert flag_files([flag]) != before
    if old is None:
        path.unlink()
    else:
        path.write_text(old)
    assert flag_files([flag]) == before


def test_an_edit_that_keeps_length_and_time_is_seen(directory: Path) -> None:
    path = directory / "a.mlir"
    times = path.stat()
    before = flag_files(["--f=a.mlir"])
    path.write_text("// b.mlir")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert flag_files(["--f=a.mlir"]) != before


def test_pipes_and_endless_devices_are_not_read(directory: Path) -> None:
    os.mkfifo(directory / "pipe")
    (directory / "zero").symlink_to("/dev/zero")
    found = flag_files(["--one=pipe", "--two=zero", "--three=/dev/zero"])
    assert {file.sha256 for file in found} <= {""}


def test_files_that_name_each_other_and_directories_in_a_ring_end(directory: Path) -> None:
    (directory / "ring.txt").write_text("@ring.txt")
    (directory / "sub" / "again").symlink_to(directory / "sub")
    assert names("@ring.txt", "--from=sub") == ["ring.txt", "sub"]


def keys_of(directory: Path, *flags: str) -> dict[str, str]:
    """All kinds of keys of a run with these flags."""
    compiler = Compiler(CPU, flags)
    cache = Cache(directory / "cache")
    settings = RunSettings.in_directory(directory, [], "a cpu", jobs=1)
    builder = Builder(compiler, cache, DeviceLeases(()), jobs=1, report=print)
    module = BenchmarkModule(text="module {}", run_function="r", buffer_function="b", buffer_bytes=0, views=())
    candidate = Candidate(id="a", dispatch="d", pipeline="", knobs={}, config="", compilation_info="")
    source = read_source(ops.matmul(m=4, n=4, k=4, lhs="f32"), directory)
    microbenchmarks = Microbenchmarks(compiler, cache, "a cpu")
    builder.close()
    return {
        "plan": plan_key([source], compiler),
        "artifact": builder.key(module, candidate),
        "setting": TuningDatabase(cache, compiler, settings).fingerprint,
        "limits": microbenchmarks.key,
        "yardsticks": microbenchmarks.built_key,
    }


def test_every_key_changes_with_a_file_and_with_no_other(directory: Path) -> None:
    before = keys_of(directory, f"{SPEC}=a.mlir")
    (directory / "b.mlir").write_text("which no flag names")
    assert keys_of(directory, f"{SPEC}=a.mlir") == before
    (directory / "a.mlir").write_text("edited")
    after = keys_of(directory, f"{SPEC}=a.mlir")
    assert [kind for kind in before if after[kind] == before[kind]] == []


def test_nothing_is_kept_that_was_compiled_of_a_file_while_it_changed(directory: Path) -> None:
    spec = directory / "flags.txt"
    spec.write_text("--iree-opt-level=O1")
    tool = directory / "tool"
    tool.write_text(f'#!/bin/sh\necho --iree-opt-level=O2 > flags.txt\nexec {find_tool("iree-compile")} "$@"\n')
    tool.chmod(0o755)
    compiler = Compiler(CPU, ["@flags.txt"], tool=str(tool))
    out = directory / "out.vmfb"
    with pytest.raises(InputError, match=r"flags\.txt.*changed while this run was at work: start it again"):
        compiler.compile_sources("module {}", out)
    assert not out.exists()
    assert changed_files(compiler.flag_files) == ["flags.txt"]
