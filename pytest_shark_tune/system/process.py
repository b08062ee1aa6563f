"""The only module that runs commands, with time-outs, memory limits, process groups and kept output.

Not `subprocess.run`: its time-out kills the command but not the processes that the command started.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.system import cleanup

__all__ = ["Completed", "run", "stop_all", "stop_group"]


_HELD = ("/bin/sh", "-c", 'read -r _ && exec "$@"', "sh")
"""Starts a command once it reads a line. If this process ends before it sends one, the shell ends too."""

_lock = threading.Lock()
_running: set[subprocess.Popen[bytes]] = set()
_stopped: set[subprocess.Popen[bytes]] = set()


class Completed(NamedTuple):
    """The output of a command that exited with 0, and the seconds that it took."""

    stdout: str
    stderr: str
    seconds: float


def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    stdin: str = "",
    memory_bytes: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a command in its own process group.

    The whole group is killed on a time-out, on any exception in the caller's thread (Ctrl-C included), and if this
    process ends first, even by SIGKILL.

    Args:
        command: The program and its arguments.
        timeout_s: The number of seconds that it may take.
        stdin: Its input.
        memory_bytes: The limit of its address space.
        env: Its environment, if it is not this process's.

    Returns:
        The output of the command.

    Raises:
        CommandFailed: the command could not be started, exited with another status than 0, or ran out of time. The
            exception has its whole stderr.
    """
    name = os.path.basename(command[0])
    started = time.monotonic()
    if shutil.which(command[0], path=(os.environ if env is None else env).get("PATH")) is None:
        raise CommandFailed(f"{name} could not be started: {command[0]} is no program that can be run")
    try:
        process = subprocess.Popen(
            [*_HELD, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"{name} could not be started: {error}") from error
    with _lock:
        _running.add(process)
    try:
        cleanup.watch_group(process.pid)
        _limit_memory(process.pid, memory_bytes)
        out, err = process.communicate(b"\n" + stdin.encode(), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        stop_group(process)
        _, err = process.communicate()
        raise CommandFailed(
            f"{name} ran longer than {timeout_s:g} s and was stopped",
            stderr=err.decode(errors="replace"),
            timed_out=True,
        ) from None
    except BaseException:
        stop_group(process)
        process.communicate()
        raise
    finally:
        cleanup.release_group(process.pid)
        with _lock:
            _running.discard(process)
            stopped = process in _stopped
            _stopped.discard(process)
    stderr = err.decode(errors="replace")
    if process.returncode < 0:
        ended_by = signal.Signals(-process.returncode).name
        raise CommandFailed(f"{name} was ended by {ended_by}", stderr=stderr, stopped=stopped, ended_by=ended_by)
    if process.returncode:
        raise CommandFailed(f"{name} exited with status {process.returncode}", stderr=stderr)
    return Completed(out.decode(errors="replace"), stderr, time.monotonic() - started)


def stop_all() -> None:
    """Kill the running commands of all threads. They raise ``CommandFailed`` with ``stopped`` there."""
    with _lock:
        _stopped.update(_running)
        for process in _running:
            stop_group(process)


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group that ``process`` leads. It is no error if the group has ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _limit_memory(pid: int, memory_bytes: int | None) -> None:
    """Limit the address space of a process that has just started.

    This process sets the limit, since a ``preexec_fn`` is unsafe in a parent with threads. Systems without ``prlimit``
    (all but Linux) have no limit.
    """
    if memory_bytes is None or not hasattr(resource, "prlimit"):
        return
    with suppress(ProcessLookupError):
        _, hardest = resource.prlimit(pid, resource.RLIMIT_AS)
        if hardest != resource.RLIM_INFINITY:  # Only root may raise it.
            memory_bytes = min(memory_bytes, hardest)
        resource.prlimit(pid, resource.RLIMIT_AS, (memory_bytes, memory_bytes))
