"""Other releases of IREE: how they are named, found and refused, and how they differ."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import Compiler, compiler_version
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.compiler.versions import Installation, OtherCompiler, child_environment, find_installation
from pytest_shark_tune.errors import CommandFailed, InputError, UntestedReleaseWarning
from pytest_shark_tune.system import process

CPU = Target.parse("llvm-cpu:x86-64-v3")
MODEL = (
    "func.func @f(%x: tensor<4xf32>) -> tensor<4xf32> { %y = math.absf %x : tensor<4xf32> return %y : tensor<4xf32> }"
)


@pytest.mark.compiler
def test_a_python_gives_its_own_compiler_and_runtime(tmp_path: Path) -> None:
    found = find_installation(sys.executable, tmp_path)
    assert found.version == compiler_version()
    other = OtherCompiler(found, CPU)
    assert other.reads_dispatches
    assert other.identity != Compiler(CPU).identity
    assert child_environment(found, {"PYTHONPATH": "a"})["PYTHONPATH"] == f"{found.directory}{os.pathsep}a"
    other.compile_model(MODEL, tmp_path / "out.vmfb", "abs")
    assert (tmp_path / "out.vmfb").stat().st_size > 0


def test_releases_before_3_12_have_no_dispatches_that_are_read(tmp_path: Path) -> None:
    tools = tmp_path / "iree" / "compiler" / "_mlir_libs"
    tools.mkdir(parents=True)
    (tools / "iree-compile").touch()
    known = {
        version: OtherCompiler(Installation(name=version, version=version, directory=str(tmp_path)), CPU)
        for version in ("3.11.0", "3.12.0", "3.14.0rc20261101")
    }
    assert [other.reads_dispatches for other in known.values()] == [False, True, True]
    with pytest.raises(InputError, match="has no iree-opt"):
        known["3.12.0"].opt("module {}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("iree==next", "'next' is no version of IREE"),
        ("absent-3.12.0-py3-none-any.whl", "there is no wheel"),
        ("/absent/python", "is neither iree==VERSION, a wheel nor a Python"),
    ],
)
def test_anything_else_is_refused_with_what_would_do(given: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        find_installation(given, tmp_path)


def test_a_wheel_needs_the_runtime_beside_it(tmp_path: Path) -> None:
    wheel = tmp_path / "iree_base_compiler-3.12.0-cp311-cp311-manylinux.whl"
    wheel.touch()
    with pytest.raises(InputError, match="put iree-base-runtime"):
        find_installation(str(wheel), tmp_path / "releases")


def test_an_untested_release_is_tried_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "3.14.0").mkdir()
    (tmp_path / "3.12.0").mkdir()
    with pytest.warns(UntestedReleaseWarning, match=r"3\.14\.0 is tried"):
        find_installation("iree==3.14.0", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_installation("iree==3.12.0", tmp_path).release == (3, 12)


def test_what_pip_cannot_install_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CommandFailed("pip failed", stderr="ERROR: No matching distribution found for iree-base-compiler==3.12.9")

    monkeypatch.setattr(process, "run", fail)
    with pytest.raises(InputError, match=r"iree==3\.12\.9 cannot be installed: ERROR: No matching distribution"):
        find_installation("iree==3.12.9", tmp_path)
    assert not any(tmp_path.iterdir())
