"""``shark-tune init``."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.commands.start import installation


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my net.mlir").write_text("module {}", encoding="utf-8")
    return tmp_path


def init(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["init", *arguments])
    return result.exit_code, result.output


def test_a_suite_a_workflow_and_an_ini_file_are_written(directory: Path) -> None:
    status, said = init("my net.mlir", "--tune-target", "rocm:gfx942")
    assert status == 0, said
    suite = (directory / "tuning" / "test_my_net.py").read_text(encoding="utf-8")
    assert "@pytest.mark.tune('../my net.mlir')" in suite
    compile(suite, "suite", "exec")
    assert "tune_target = hip:gfx942" in (directory / "pytest.ini").read_text(encoding="utf-8")
    assert "pytest tuning --tune-strict" in (directory / ".github/workflows/guard.yml").read_text(encoding="utf-8")
    assert said.endswith("next: pytest tuning --tune\n")


def test_files_that_are_there_stay(directory: Path) -> None:
    (directory / "pyproject.toml").write_text("", encoding="utf-8")
    assert init("my net.mlir")[0] == 0
    (directory / "tuning" / "test_my_net.py").write_text("mine", encoding="utf-8")
    status, said = init("my net.mlir", "--tune-target", "cuda:sm_80")
    assert status == 0
    assert "tuning/test_my_net.py is there already, and stays" in said
    assert 'add to pyproject.toml:\n\n[tool.pytest.ini_options]\ntune_target = "cuda:sm_80"\n' in said
    assert (directory / "tuning" / "test_my_net.py").read_text(encoding="utf-8") == "mine"
    assert not (directory / "pytest.ini").exists()


def test_the_workflow_lies_in_the_root_of_the_repository(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / ".git").mkdir()
    (directory / "setup.cfg").touch()
    inner = directory / "a model"
    inner.mkdir()
    monkeypatch.chdir(inner)
    said = init("../my net.mlir", "--tune-target", "cuda:sm_80")[1]
    workflow = (directory / ".github/workflows/guard.yml").read_text(encoding="utf-8")
    assert "pytest 'a model/tuning' --tune-strict" in workflow
    assert "../.github/workflows/guard.yml is written" in said
    assert "add to ../setup.cfg:\n\n[tool:pytest]\n" in said, "pytest would read no ini file above a new one"
    assert not (inner / "pytest.ini").exists()


@pytest.mark.parametrize(
    ("origin", "installed"),
    [
        (None, "'pytest-shark-tune[onnx]'"),
        ({"url": "https://a.org/p", "vcs_info": {"vcs": "git", "commit_id": "0a1"}}, "git+https://a.org/p@0a1'"),
        ({"url": "https://a.org/p.whl", "archive_info": {}}, "'pytest-shark-tune[onnx] @ https://a.org/p.whl'"),
        ({"url": "file:///a%20root", "dir_info": {"editable": True}}, "'.[onnx]'"),
        ({"url": "file:///a%20root/.tools/it", "dir_info": {}}, "'./.tools/it[onnx]'"),
        ({"url": "file:///elsewhere", "dir_info": {}}, ""),
    ],
)
def test_the_package_is_installed_from_where_it_came(
    origin: dict[str, Any] | None, installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "_origin", lambda: origin)
    found = installation.install_command(Path("/a root"), "[onnx]")
    assert found.endswith(installed)
    assert bool(found) == bool(installed)


@pytest.mark.parametrize(("model", "message"), [("gone.onnx", "there is no such file"), ("x.py", "this is no model")])
def test_what_is_no_model_is_refused(model: str, message: str) -> None:
    status, said = init(model)
    assert status == 2
    assert f"{model}: {message}" in said


def test_the_shapes_of_inputs_go_into_the_ini_file(directory: Path) -> None:
    shapes = ("--tune-input-shape", "x=1x3x48x192", "--tune-input-shape", "y=1")
    assert init("my net.mlir", *shapes)[0] == 0
    ini = configparser.ConfigParser()
    ini.read(directory / "pytest.ini", encoding="utf-8")
    assert ini["pytest"]["tune_input_shape"].split() == ["x=1x3x48x192", "y=1"]


def test_the_lines_for_an_ini_file_of_toml_are_toml(directory: Path) -> None:
    (directory / "pyproject.toml").write_text("", encoding="utf-8")
    said = init("my net.mlir", "--tune-input-shape", 'a "name"=1x3')[1]
    lines = said.split("add to pyproject.toml:\n\n")[1].split("\n\n")[0]
    settings = tomllib.loads(lines)["tool"]["pytest"]["ini_options"]
    assert settings == {"tune_target": "llvm-cpu", "tune_input_shape": ['a "name"=1x3']}


def test_a_shape_that_pytest_would_refuse_is_refused(directory: Path) -> None:
    status, said = init("my net.mlir", "--tune-input-shape", "1x3")
    assert status == 2
    assert "--tune-input-shape: '1x3' is not NAME=SIZES" in said
    assert not (directory / "tuning").exists()


def test_the_next_command_can_be_typed(directory: Path) -> None:
    del directory
    assert init("my net.mlir", "-o", "my suite")[1].endswith("next: pytest 'my suite' --tune\n")
