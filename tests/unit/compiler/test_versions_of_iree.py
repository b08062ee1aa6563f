"""Other releases of IREE: how they are named, found and refused, and how they differ."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest

from pytest_shark_tune.compiler import versions
from pytest_shark_tune.compiler.compiler import Compiler, compiler_version
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.compiler.versions import (
    Installation,
    OtherCompiler,
    as_installed,
    child_environment,
    find_installation,
)
from pytest_shark_tune.errors import CommandFailed, InputError, UntestedReleaseWarning
from pytest_shark_tune.plugin import reporting
from pytest_shark_tune.records.snapshot import read_spec_file
from pytest_shark_tune.system import process
from pytest_shark_tune.system.cache import Cache

CPU = Target.parse("llvm-cpu:x86-64-v3")
MODEL = (
    "func.func @f(%x: tensor<4xf32>) -> tensor<4xf32> { %y = math.absf %x : tensor<4xf32> return %y : tensor<4xf32> }"
)


@pytest.mark.compiler
def test_a_python_gives_its_own_compiler_and_runtime(tmp_path: Path) -> None:
    found = find_installation(sys.executable, tmp_path)
    assert found.version == compiler_version()
    other = OtherCompiler(found, CPU)
    assert other.identity != Compiler(CPU).identity
    assert child_environment(found, {"PYTHONPATH": "a"})["PYTHONPATH"] == f"{found.directory}{os.pathsep}a"
    other.compile_model(MODEL, tmp_path / "out.vmfb", "abs")
    assert (tmp_path / "out.vmfb").stat().st_size > 0


def other(version: str, directory: Path) -> OtherCompiler:
    """A release of which only the name is there."""
    tools = directory / "iree" / "compiler" / "_mlir_libs"
    tools.mkdir(parents=True, exist_ok=True)
    (tools / "iree-compile").touch()
    return OtherCompiler(Installation(name=version, version=version, directory=str(directory)), CPU)


def test_a_release_needs_its_commands(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no iree-opt"):
        other("3.12.0", tmp_path).opt("module {}")


HERE = """
%id = arith.constant {shark_tune.ordinal = @d::@x86::@f} 0 : i64
linalg.fill {root_op = #iree_codegen.root_op<set = 0>}
<pipeline = #iree_cpu.pipeline<DoubleTilingExpert>>
<pipeline = #iree_gpu.pipeline<TileAndFuse> workgroup_size = [64]> <pipeline = #iree_cpu.pipeline<Mmt4dTilingExpert>>
<pipeline = None>
"""
ATTENTIONS = """
%0 = iree_linalg_ext.attention <indexing_maps = [#map, #map1]> {root_op = #r} ins(%a)
%1 = iree_linalg_ext.online_attention <indexing_maps = [affine_map<(d0) -> (d0)>]> {} ins(%a)
"""
IN_3_12 = """
%0 = iree_linalg_ext.attention {indexing_maps = [#map, #map1], root_op = #r} ins(%a)
%1 = iree_linalg_ext.online_attention {indexing_maps = [affine_map<(d0) -> (d0)>]} ins(%a)
"""
IN_3_11 = """
%id = hal.executable.export.ordinal target(@d::@x86::@f) : index
linalg.fill {root_op = #iree_codegen.root_op<set = 0>}
<pipeline = CPUDoubleTilingExpert>
<pipeline = LLVMGPUTileAndFuse workgroup_size = [64]> <pipeline = Mmt4dTilingExpert>
<pipeline = None>
"""
IN_3_10 = IN_3_11.replace("root_op = #iree_codegen.root_op<set = 0>", "root_op")


@pytest.mark.parametrize(("version", "there"), [("3.12.0", HERE), ("3.11.0", IN_3_11), ("3.10.0", IN_3_10)])
def test_modules_are_read_and_handed_over_as_each_release_writes_them(
    version: str, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "compiler_version", lambda: "3.13.0")
    compiler, handed_over = other(version, tmp_path), []

    def lower(_: Compiler, source: str, **__: object) -> str:
        handed_over.append(source)
        return there

    monkeypatch.setattr(Compiler, "lower", lower)
    assert compiler.lower(HERE, to="flow") == HERE
    assert handed_over == [there]
    assert compiler.as_written(HERE) == there


def test_a_newer_release_is_read_as_the_installed_one_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "compiler_version", lambda: "3.11.0")
    monkeypatch.setattr(Compiler, "lower", lambda *_, **__: HERE)
    compiler = other("3.13.0", tmp_path)
    assert compiler.lower(IN_3_11, to="flow") == IN_3_11
    assert compiler.as_written(IN_3_11) == HERE


def test_the_maps_of_an_attention_stand_where_each_release_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "compiler_version", lambda: "3.13.0")
    assert other("3.13.0", tmp_path).as_written(ATTENTIONS) == ATTENTIONS
    assert other("3.12.0", tmp_path).as_written(ATTENTIONS.replace("> {} ins", "> ins")) == IN_3_12
    assert versions._as_here(IN_3_12, (3, 12)) == ATTENTIONS
    last = "iree_linalg_ext.attention {a = {b}, indexing_maps = [#map]} ins(%a)"
    assert versions._as_here(last, (3, 12)) == "iree_linalg_ext.attention <indexing_maps = [#map]> {a = {b}} ins(%a)"


@pytest.mark.parametrize(("version", "written"), [("3.13.0", HERE), ("3.12.0", HERE), ("3.11.0", IN_3_11)])
def test_specs_and_configs_are_read_as_the_installed_release_writes_them(
    version: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "compiler_version", lambda: version)
    assert as_installed(HERE) == written


def test_a_spec_of_the_newest_release_is_read() -> None:
    """With another release installed, this shows that its configs are renamed."""
    assert "match_" in read_spec_file(Path(__file__).parents[2] / "golden" / "spec_contraction.mlir")


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


@pytest.mark.parametrize(("version", "warned"), [("3.14.0rc20261201", True), ("3.11.0", False)])
def test_an_untested_release_that_is_installed_is_tried_with_a_warning(
    version: str, warned: bool, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Warning] = []
    monkeypatch.setattr(reporting, "compiler_version", lambda: version)
    monkeypatch.setattr(pytestconfig, "issue_config_time_warning", lambda warning, stacklevel: found.append(warning))
    monkeypatch.delattr(pytestconfig, "workerinput", raising=False)
    reporting.warn_of_release(pytestconfig)
    assert [type(warning) for warning in found] == [UntestedReleaseWarning] * warned
    assert all(f"IREE {version} is tried, but only 3.10, 3.11, " in str(warning) for warning in found)


def test_a_release_is_held_and_counts_as_used(tmp_path: Path) -> None:
    for version in ("3.11.0", "3.12.0"):
        (tmp_path / "releases" / version).mkdir(parents=True)
        (tmp_path / "releases" / version / "code").write_text("12345")
        os.utime(tmp_path / "releases" / version, (1, 1))
    cache = Cache(tmp_path)
    find_installation("iree==3.12.0", tmp_path / "releases")
    (row,) = (row for row in cache.usage() if row.kind == "releases")
    assert (row.number, row.bytes, row.oldest_s) == (2, 10, 1)
    assert row.newest_s is not None
    assert row.newest_s > 1
    assert cache.evict(5).number == 1
    assert not (tmp_path / "releases" / "3.11.0").exists()
    assert cache.clear(["releases"]).busy == 1, "this process uses it"
    assert (tmp_path / "releases" / "3.12.0" / "code").exists()


def test_what_pip_cannot_install_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CommandFailed("pip failed", stderr="ERROR: No matching distribution found for iree-base-compiler==3.12.9")

    monkeypatch.setattr(process, "run", fail)
    with pytest.raises(InputError, match=r"iree==3\.12\.9 cannot be installed: ERROR: No matching distribution"):
        find_installation("iree==3.12.9", tmp_path)
    assert not any(tmp_path.iterdir())
