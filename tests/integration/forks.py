"""Runs pytest in forks of a process that has imported what half of the start of a run on a small op goes into.

This file is also the program of that process. It imports no plugin, since pytest rewrites the asserts of those.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

IMPORTED = (
    *("pytest", "_pytest.junitxml", "_pytest.pytester", "_pytest.unittest", "execnet", "statistics"),
    *("numpy", "scipy.special", "ml_dtypes", "msgspec", "rich.console", "rich.table"),
    *("iree.compiler.ir", "iree.compiler.dialects.linalg", "iree.compiler.dialects.func"),
)


class Forks:
    """The process that is forked; ``environment`` is that of its start, and has to be like those of the runs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])

    def close(self) -> None:
        self._channel.close()
        self._process.wait()

    def run(
        self, arguments: Sequence[str], directory: Path, environment: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str]:
        """The exit status of ``python -m pytest`` with ``arguments`` in a directory, and what it printed."""
        request = json.dumps(
            {"arguments": arguments, "directory": os.fspath(directory), "environment": dict(environment)}
        )
        reader, writer = os.pipe()
        socket.send_fds(self._channel, [request.encode()], [writer])
        os.close(writer)
        too_late = threading.Timer(timeout_s, os.killpg, (int(self._channel.recv(99)), signal.SIGKILL))
        too_late.start()
        try:
            with os.fdopen(reader, encoding="utf-8") as output:
                text = output.read()
            return int(self._channel.recv(99)), text
        finally:
            too_late.cancel()


def _serve(channel: socket.socket) -> None:
    """Fork for each request; return in the fork, once it is as a process of its own."""
    while True:
        message, files, *_ = socket.recv_fds(channel, 1 << 20, 1)
        if not message:
            sys.exit()
        pid = os.fork()
        if not pid:
            break
        os.close(files[0])
        channel.send(str(pid).encode())
        channel.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    channel.close()
    request = json.loads(message)
    os.setsid()
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(files[0], 1)
    os.dup2(files[0], 2)
    sys.path[0] = request["directory"]
    sys.argv[1:] = request["arguments"]


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # Else every run looks for garbage in all that was imported here, again and again.
    _serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)
