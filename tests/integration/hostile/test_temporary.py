"""A temporary directory that takes nothing from the start: the message names the option and the directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import MODEL, spec
from tests.integration.conftest import clean_environment
from tests.models import suite_text

_READ_ONLY = Path("/sys")
"""A directory in which not even root can make one."""
_PROGRAM = "from pytest_shark_tune.cli import main; main()"
_COMMANDS = {
    "tune": ["-m", "pytest", "-p", "no:cacheprovider", "--tune", "test_suite.py", "--tune-cache=cache"],
    "guard": ["-m", "pytest", "-p", "no:cacheprovider", "model.mlir", "--tune-guard=spec.mlir", "--tune-cache=cache"],
    "space": ["-c", _PROGRAM, "space", "model.mlir"],
    "compile": ["-c", _PROGRAM, "compile", "model.mlir", "--spec", "spec.mlir", "-o", "model.vmfb"],
}


@pytest.mark.slow
@pytest.mark.skipif(not _READ_ONLY.is_dir(), reason="there is no /sys")
@pytest.mark.parametrize("command", _COMMANDS)
def test_a_temporary_directory_that_takes_nothing_is_named(command: str, tmp_path: Path) -> None:
    files = {"model.mlir": MODEL, "spec.mlir": spec(), "test_suite.py": suite_text("ops.matmul(m=32, n=32, k=32)")}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *_COMMANDS[command]],
        cwd=tmp_path,
        env=clean_environment() | {"TMPDIR": str(_READ_ONLY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode in (1, 2, 4), output
    assert f"TMPDIR: cannot write to {_READ_ONLY}: " in output
    assert f"make room in {_READ_ONLY}, or name another directory" in output
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
