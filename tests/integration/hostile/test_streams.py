"""A standard output that takes no text: the exit status is 1, and stderr says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import spec
from tests.integration.conftest import clean_environment

_PROGRAM = "from pytest_shark_tune.cli import main; main()"


@pytest.mark.parametrize(
    ("redirection", "reason"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_an_output_that_takes_no_text_is_told(redirection: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "spec.mlir").write_text(spec(), encoding="utf-8")
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", _PROGRAM, "show", "spec.mlir"]
    done = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(), stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.endswith(f": its output cannot be written: {reason}\n")
    assert done.stderr.count("\n") == 1


def test_a_closed_stderr_ends_no_command(tmp_path: Path) -> None:
    (tmp_path / "spec.mlir").write_text(spec(), encoding="utf-8")
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", _PROGRAM, "show", "spec.mlir"]
    done = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "match_mm" in done.stdout
