"""Environment variables that the plugin reads, with odd values: the run goes on, or the message names the variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import clean_environment
from tests.models import suite_text

_CASES = {
    "TMPDIR=a file": ("file", 4, "ERROR: TMPDIR: cannot write to *: Not a directory; name another directory"),
    "TMPDIR=nothing": ("/nowhere", 4, "ERROR: TMPDIR: cannot write to /nowhere: No such file or directory; name *"),
    "TMPDIR=no text": (os.fsdecode(b"/no/\xff"), 4, "ERROR: TMPDIR: cannot write to /no/*: No such file or directory*"),
    "TMPDIR=relative": ("here", 0, ""),
    "TMPDIR=a blank": ("b l a n k", 0, ""),
    "XDG_CACHE_HOME=a device": ("/dev/null", 4, "ERROR: --tune-cache: cannot write to /dev/null/*: Not a directory"),
    "XDG_CACHE_HOME=empty": ("", 0, ""),
    "GITHUB_STEP_SUMMARY=a pipe": ("pipe", 1, "GITHUB_STEP_SUMMARY: cannot write pipe: No such device or address"),
    "GITHUB_STEP_SUMMARY=full": ("/dev/full", 1, "GITHUB_STEP_SUMMARY: cannot write /dev/full: No space left on *"),
    "GITHUB_STEP_SUMMARY=a directory": (".", 1, "GITHUB_STEP_SUMMARY: cannot write .: Is a directory"),
    "PYTEST_SHARK_TUNE_PARENT=no number": ("x", 0, ""),
    "PYTEST_XDIST_WORKER=a worker": ("gw7", 0, ""),
    "COLUMNS=no number": ("x", 0, ""),
    "COLUMNS=none": ("0", 0, ""),
}
"""By variable and kind of value: the value, the exit status, and a line of the output."""
_COMMAND = ("-m", "pytest", "-p", "no:cacheprovider", "-p", "quick_rounds", "--tune", "--tune-trials=1")


@pytest.mark.slow
@pytest.mark.parametrize("case", _CASES)
def test_a_variable_with_an_odd_value(tmp_path: Path, case: str) -> None:
    value, status, line = _CASES[case]
    (tmp_path / "test_suite.py").write_text(suite_text("ops.matmul(m=16, n=16, k=16)"), encoding="utf-8")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name in ("here", "b l a n k"):
        (tmp_path / name).mkdir()
    variables = {"HOME": str(tmp_path), "COLUMNS": "300", case.partition("=")[0]: value}
    done = subprocess.run(
        [sys.executable, *_COMMAND, "-k", "default"],
        cwd=tmp_path,
        env=clean_environment() | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == status, output
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
    if line:
        pytest.LineMatcher(output.splitlines()).fnmatch_lines([line])
