"""Leftovers: commands and folders of a process that ends in whichever way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLEEPER = """
import os, signal, subprocess, sys
from pytest_shark_tune.tools import leftovers
folder = leftovers.new_folder("kept")
with leftovers.scratch_folder() as scratch:
    pass
assert not scratch.exists()
ended, left = [subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, start_new_session=True) for _ in range(2)]
for each in (ended, left):
    leftovers.watch_group(each.pid)
leftovers.release_group(ended.pid)
print(folder.parent, ended.pid, left.pid, flush=True)
"""


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)", "leftovers.clear(); os._exit(0)"]
)
def test_nothing_outlives_the_process(child_env: dict[str, str], tmp_path: Path, end: str) -> None:
    env = {**child_env, "TMPDIR": os.fspath(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SLEEPER + end], env=env, stdout=subprocess.PIPE, text=True, check=False
    )
    folder, ended, left = done.stdout.split()
    deadline = time.monotonic() + 20
    while Path(folder).exists() or _is_alive(int(left)):
        assert time.monotonic() < deadline, f"{folder} or process {left} is still there"
        time.sleep(0.02)
    assert _is_alive(int(ended)), "what was released is nobody's business"
    os.kill(int(ended), 9)
    assert list(tmp_path.iterdir()) == []


def test_only_what_belongs_to_nobody_is_swept(child_env: dict[str, str], tmp_path: Path) -> None:
    for name, age_s, locked in (("old", 90_000, False), ("new", 3600, False), ("free", 90, True), ("young", 0, True)):
        folder = tmp_path / f"shark-tune-{name}"
        folder.mkdir()
        if locked:
            (folder / "lock").touch()
        os.utime(folder, (time.time() - age_s,) * 2)
    code = """
import os
from pytest_shark_tune.tools import leftovers
own = leftovers.new_folder("own")
os.utime(own.parent, (0, 0))
leftovers.sweep()
assert own.exists()
leftovers.clear()
assert not own.parent.exists()
"""
    subprocess.run([sys.executable, "-c", code], env={**child_env, "TMPDIR": os.fspath(tmp_path)}, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"shark-tune-new", "shark-tune-young"}


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
