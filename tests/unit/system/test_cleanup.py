"""Leftovers: commands and directories of a process that ends in whichever way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLEEPER = """
import os, signal, subprocess, sys
from pytest_shark_tune.system import cleanup
directory = cleanup.new_directory("kept")
with cleanup.scratch_directory() as scratch:
    pass
assert not scratch.exists()
ended, left = [subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, start_new_session=True) for _ in range(2)]
for each in (ended, left):
    cleanup.watch_group(each.pid)
cleanup.release_group(ended.pid)
print(directory.parent, ended.pid, left.pid, flush=True)
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)", "cleanup.clear(); os._exit(0)"])
def test_nothing_outlives_the_process(child_env: dict[str, str], tmp_path: Path, end: str) -> None:
    env = {**child_env, "TMPDIR": os.fspath(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SLEEPER + end], env=env, stdout=subprocess.PIPE, text=True, check=False
    )
    directory, ended, left = done.stdout.split()
    deadline = time.monotonic() + 20
    while Path(directory).exists() or _is_alive(int(left)):
        assert time.monotonic() < deadline, f"{directory} or process {left} is still there"
        time.sleep(0.02)
    assert _is_alive(int(ended)), "what was released is nobody's business"
    os.kill(int(ended), 9)
    assert list(tmp_path.iterdir()) == []


# What a process leaves whose guard is killed together with it.
KILLED = """
import os, signal
from pytest_shark_tune.system import cleanup
directory = cleanup.new_directory("kept").parent
print(directory, flush=True)
os.kill(cleanup._current()._process.pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_only_what_belongs_to_nobody_is_swept(child_env: dict[str, str], tmp_path: Path) -> None:
    env = {**child_env, "TMPDIR": os.fspath(tmp_path)}
    old, young = left_by_a_killed_process(env), left_by_a_killed_process(env)
    os.utime(old, (0, 0))
    remove_abandoned(env)
    assert not old.exists()
    assert young.exists(), "its process may have yet to lock it"


def test_what_is_only_called_like_ours_is_not_swept(child_env: dict[str, str], tmp_path: Path) -> None:
    env = {**child_env, "TMPDIR": os.fspath(tmp_path)}
    ours = left_by_a_killed_process(env)
    notes, renamed, link = (tmp_path / f"shark-tune-{name}" for name in ("notes", "renamed", "link"))
    (notes / "chapters").mkdir(parents=True)
    (notes / "lock").touch()  # By which older releases knew their own.
    shutil.copytree(ours, renamed)
    link.symlink_to(ours.rename(tmp_path / "elsewhere"))
    for each in (notes, renamed, tmp_path / "elsewhere"):
        os.utime(each, (0, 0))
    os.utime(link, (0, 0), follow_symlinks=False)
    remove_abandoned(env)
    assert {path.name for path in tmp_path.iterdir()} == {notes.name, renamed.name, link.name, "elsewhere"}
    assert (tmp_path / "elsewhere").is_dir()
    assert (notes / "chapters").is_dir()


def left_by_a_killed_process(env: dict[str, str]) -> Path:
    """The temporary directory of a process that could remove nothing."""
    command = [sys.executable, "-c", KILLED]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
    return Path(done.stdout.strip())


def remove_abandoned(env: dict[str, str]) -> None:
    """Sweep in a process that has a directory of its own, which it keeps until it ends."""
    code = """
import os
from pytest_shark_tune.system import cleanup
own = cleanup.new_directory("own")
os.utime(own.parent, (0, 0))
cleanup.remove_abandoned()
assert own.exists()
cleanup.clear()
assert not own.parent.exists()
"""
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_process_that_is_killed_as_it_makes_its_directory_leaves_none(tmp_path: Path) -> None:
    script = """
import os, signal
from pathlib import Path
from pytest_shark_tune.system import cleanup
Path.write_text = lambda *rest, **named: os.kill(os.getpid(), signal.SIGKILL)
cleanup.new_directory("any")
"""
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 10
    while list(tmp_path.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []
