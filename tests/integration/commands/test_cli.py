"""The command ``shark-tune``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_shark_tune import __version__, ops
from pytest_shark_tune.cli import main
from pytest_shark_tune.system.cache import KINDS, Cache, content_key
from tests.models import TOTAL

NAME = "matmul_32x32x32_f32"

SEAL = len('{"sha256":"","value":""}') + 64
"""What is written around a text in the cache; around a digit it is one byte less."""
USED_S = (1_700_100_000, 1_700_000_000, 1_700_200_000)
"""When the artifacts in the cache were last used, in seconds since the epoch."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "a model.mlir"
    path.write_text(ops.matmul(m=32, n=32, k=32).text, encoding="utf-8")
    return path


def test_the_command_is_installed() -> None:
    done = subprocess.run([Path(sys.prefix, "bin", "shark-tune"), "--version"], capture_output=True, check=True)
    assert __version__ in done.stdout.decode()


def test_space_shows_a_table(model: Path) -> None:
    result = CliRunner().invoke(main, ["space", str(model)], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    assert NAME in result.stdout
    assert "DoubleTilingExpert" in result.stdout
    assert "32x32x32" in result.stdout.replace(NAME, "")


def test_info_fits_and_says_what_to_type() -> None:
    result = CliRunner().invoke(main, ["info"], env={"COLUMNS": "80"}, catch_exceptions=False)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "pytest MODEL --tune --tune-target TARGET" in result.stdout


def test_space_prints_json(model: Path) -> None:
    result = CliRunner().invoke(main, ["space", "--json", str(model)], catch_exceptions=False)
    (row,) = json.loads(result.stdout)
    assert row["dispatch"] == NAME
    assert row["loops"] == [32, 32, 32]
    assert row["configs"] > 1
    assert all(domain for domain in row["knobs"].values())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.mlir", None, "there is no file"),
        ("notes.txt", "", "is not one of .mlir, .mlirbc, .onnx"),
        ("broken.mlir", "func.func @f(", "broken.mlir: iree-compile rejects it: broken:1:"),
        ("broken.onnx", "nonsense", "not an ONNX model"),
    ],
)
def test_a_bad_input_is_a_usage_error(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    result = CliRunner().invoke(main, ["space", str(path)], catch_exceptions=False)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_an_unknown_target_is_a_usage_error(model: Path) -> None:
    result = CliRunner().invoke(main, ["space", "--tune-target", "vax", str(model)], catch_exceptions=False)
    assert result.exit_code == 2
    assert "unknown target 'vax'" in result.stderr


def test_a_model_with_nothing_to_tune_says_why(tmp_path: Path) -> None:
    path = tmp_path / "total.mlir"
    path.write_text(TOTAL, encoding="utf-8")
    result = CliRunner().invoke(main, ["space", "--json", str(path)], catch_exceptions=False)
    assert json.loads(result.stdout) == []
    result = CliRunner().invoke(main, ["space", str(path)], catch_exceptions=False)
    assert result.stdout.split() == f"{path}: none of its dispatches can be tuned for llvm-cpu".split()
    assert "linalg.generic has no parallel loop" in result.stderr


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    kept = Cache(tmp_path / "cache")
    for used_s in USED_S:
        key = content_key(used_s)
        kept.put("artifacts", key, "x" * (2048 - SEAL))
        os.utime(kept.file("artifacts", key, ".json"), (used_s, used_s))
    kept.put("plans", content_key("a"), 1)
    return kept


def run_cache(cache: Cache, *arguments: str) -> tuple[int, str, str]:
    command = ["cache", f"--tune-cache={cache.directory}", *arguments]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_cache_shows_what_is_kept(cache: Cache) -> None:
    status, shown, _ = run_cache(cache, "--tune-cache-size=5G")
    directory, heading, *rows, total = shown.splitlines()
    assert (status, directory, heading.split()[:3]) == (0, str(cache.directory), ["kind", "number", "size"])
    assert [row.split()[0] for row in rows] == list(KINDS)
    by_kind = {row.split()[0]: row.split()[1:] for row in rows}
    times = [time.strftime("%Y-%m-%d %H:%M", time.localtime(used_s)).split() for used_s in (min(USED_S), max(USED_S))]
    assert by_kind["artifacts"] == ["3", "6.0K", *times[0], *times[1]]
    assert by_kind["models"] == ["0", "0B", "-", "-"]
    assert total.split() == ["all", "kinds", "4", "6.1K", "of", "5.0G", "at", "most", "after", "a", "run"]
    assert max(map(len, [heading, *rows, total])) <= 80


def test_the_help_of_cache_names_every_kind() -> None:
    shown = CliRunner().invoke(main, ["cache", "--help"], catch_exceptions=False).stdout
    assert [kind for kind in KINDS if kind not in shown] == []


def test_cache_shows_and_clears_some_kinds(cache: Cache) -> None:
    _, shown, _ = run_cache(cache, "plans", "models")
    assert [line.split()[0] for line in shown.splitlines()[2:]] == ["plans", "models", "all"]
    assert run_cache(cache, "--clear", "artifacts", "models") == (0, f"{cache.directory}: 3 removed, 6.0K\n", "")
    assert cache.get("plans", content_key("a"), int) == 1
    assert run_cache(cache, "--clear")[:2] == (0, f"{cache.directory}: 1 removed, {SEAL - 1}B\n")
    assert [each.number for each in cache.usage()] == [0] * len(KINDS)


def test_cache_leaves_what_is_being_made(cache: Cache) -> None:
    with cache.lock("plans", content_key("a")).held():
        status, shown, problem = run_cache(cache, "--clear", "plans")
    assert (status, shown) == (1, f"{cache.directory}: 0 removed, 0B\n")
    assert problem.startswith("1 stay")


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    status, shown, _ = run_cache(Cache(tmp_path / "absent"))
    assert (status, shown.splitlines()[-1].split()[2:4]) == (0, ["0", "0B"])
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [("spam", "'spam' is not one of 'plans', "), ("--tune-cache-size=9", "--tune-cache-size: '9' is not a size")],
)
def test_a_bad_argument_of_cache_is_a_usage_error(cache: Cache, argument: str, message: str) -> None:
    status, _, problem = run_cache(cache, argument)
    assert status == 2
    assert message in problem
