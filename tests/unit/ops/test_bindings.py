"""A machine without the compiler: the message names the package, and commands that need no compiler run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import suite_text

_ROOT = Path(__file__).parents[3]
# Runs a module as on a machine on which only IREE's runtime is installed.
_WITHOUT = """
import importlib.abc, importlib.util, runpy, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name.startswith("iree.compiler") else found(name, *more)

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[:2] == ["iree", "compiler"]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
if sys.argv[0] == "pytest":
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)
else:
    from pytest_shark_tune.cli import main
    main()
"""


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("pytest --tune test_suite.py", 4, "ERROR: --tune: the IREE compiler is not installed on "),
        ("shark-tune show spec.mlir", 1, "this takes the IREE compiler"),
        ("shark-tune space model.mlir", 2, "the IREE compiler is not installed: python -m pip install"),
        ("shark-tune cache --tune-cache=cache", 0, "all kinds"),
    ],
)
def test_a_machine_without_the_compiler_is_told(
    tmp_path: Path, child_env: dict[str, str], command: str, status: int, words: str
) -> None:
    (tmp_path / "test_suite.py").write_text(suite_text("ops.matmul(m=16, n=16, k=16)"), encoding="utf-8")
    for name in ("spec.mlir", "model.mlir"):
        (tmp_path / name).write_text("module {}", encoding="utf-8")
    (tmp_path / "cache").mkdir(mode=0o700)
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, *command.split()],
        cwd=tmp_path,
        env=child_env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == status, output
    assert words in output
    assert "Traceback" not in output
