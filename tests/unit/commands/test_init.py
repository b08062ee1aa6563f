"""``shark-tune init``."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main


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
    assert "add to the settings of pytest in pyproject.toml: tune_target = cuda:sm_80" in said
    assert (directory / "tuning" / "test_my_net.py").read_text(encoding="utf-8") == "mine"
    assert not (directory / "pytest.ini").exists()


@pytest.mark.parametrize(("model", "message"), [("gone.onnx", "there is no such file"), ("x.py", "this is no model")])
def test_what_is_no_model_is_refused(model: str, message: str) -> None:
    status, said = init(model)
    assert status == 2
    assert f"{model}: {message}" in said
