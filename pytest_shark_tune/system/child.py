"""A child process that answers requests: frames over pipes, a watchdog, kept stderr.

A request is one frame to the child's stdin, an answer one frame from its stdout. The caller decides on their contents.
After a time-out or a crash the child is gone, so no answer can belong to an earlier request. Its owner starts a new
one.

Not multiprocessing: its pools have no time-out that kills, and lose the stderr and the exit status of a dead worker.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from pytest_shark_tune.errors import DeviceChildDied
from pytest_shark_tune.system.process import stop_group

__all__ = ["Child", "die_with_parent", "read_frame", "write_frame"]

_HEADER = struct.Struct("<I")
_PARENT = "PYTEST_SHARK_TUNE_PARENT"
_PR_SET_PDEATHSIG = 1
_STDERR_KEPT_BYTES = 65536
_STDERR_SHOWN_BYTES = 4000
_WAKE_S = 0.5
_REAP_S = 10.0
_FAREWELL_S = 2.0


class _Ended(Exception):
    """The child closed a pipe or is gone."""


class _OutOfTime(Exception):
    """The request ran out of time."""


class Child(AbstractContextManager["Child"]):
    """A persistent child that answers one framed request at a time. Several threads must not use it at once.

    The child starts in the constructor, in its own session, so that a Ctrl-C in the terminal does not reach it. An
    exception during a request, ``KeyboardInterrupt`` included, ends its whole group instead of leaving half an answer.

    Args:
        command: The program and its arguments.
        env: Its environment, if it is not this process's.

    Raises:
        DeviceChildDied: the child could not be started.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        environment = dict(os.environ if env is None else env)
        environment.pop(_PARENT, None)
        if threading.current_thread() is threading.main_thread():
            # The kernel's parent-death signal follows the thread that forked, so only the main thread may use it.
            environment[_PARENT] = str(os.getpid())
        _import_from_here(environment)
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceChildDied(f"the child {command[0]} could not be started: {error}") from error
        self._stdin = _pipe(self._process.stdin)
        self._stdout = _pipe(self._process.stdout)
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        self._stderr = _Tail(_pipe(self._process.stderr))
        self._closed = False

    @property
    def pid(self) -> int:
        """The id of the child's process and of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child can be sent a request."""
        return not self._closed and self._process.poll() is None

    @property
    def stderr(self) -> str:
        """The last 64 KiB of the child's stderr."""
        return self._stderr.text()

    def request(self, payload: bytes, *, timeout_s: float) -> bytes:
        """Send ``payload`` and return the answer's payload.

        Raises:
            DeviceChildDied: the child ended, closed its pipes, or gave no whole answer within ``timeout_s`` seconds
                (``timed_out``). By then it and its group are gone. The message has the signal or exit status and the
                end of its stderr.
        """
        if self._closed:
            raise DeviceChildDied("the child process has been closed; start a new one")
        deadline = time.monotonic() + timeout_s
        try:
            self._send(_HEADER.pack(len(payload)) + payload, deadline)
            (size,) = _HEADER.unpack(self._receive(_HEADER.size, deadline))
            return self._receive(size, deadline)
        except _OutOfTime:
            self._finish(0.0)
            raise DeviceChildDied(
                f"the child process gave no answer within {timeout_s:g} s and was stopped{self._stderr_text()}",
                timed_out=True,
            ) from None
        except (_Ended, OSError):
            # A child that dies closes its pipes before it can be waited for.
            self._finish(_FAREWELL_S)
            raise DeviceChildDied(f"the child process {self._how_it_ended()}{self._stderr_text()}") from None
        except BaseException:
            self._finish(0.0)
            raise

    def close(self) -> None:
        """End the child. It sees the end of its stdin, and two seconds later its group is killed."""
        if not self._closed:
            self._finish(_FAREWELL_S)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, frame: bytes, deadline: float) -> None:
        rest = memoryview(frame)
        while rest:
            self._await(self._stdin.fileno(), select.POLLOUT, deadline)
            with suppress(BlockingIOError):
                rest = rest[os.write(self._stdin.fileno(), rest) :]

    def _receive(self, size: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            self._await(self._stdout.fileno(), select.POLLIN, deadline)
            with suppress(BlockingIOError):
                part = os.read(self._stdout.fileno(), min(size - len(parts), 1 << 20))
                if not part:
                    raise _Ended
                parts += part
        return bytes(parts)

    def _await(self, fd: int, event: int, deadline: float) -> None:
        poller = select.poll()
        poller.register(fd, event)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _OutOfTime
            if poller.poll(min(left, _WAKE_S) * 1000):
                return
            # A grandchild may hold the pipe open, so its closing is not the only sign of an end.
            if self._process.poll() is not None and not poller.poll(0):
                raise _Ended

    def _finish(self, grace_s: float) -> None:
        self._closed = True
        with suppress(OSError):
            self._stdin.close()
        if grace_s:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        stop_group(self._process)
        with suppress(subprocess.TimeoutExpired):  # A process stuck in a driver outlives even SIGKILL.
            self._process.wait(_REAP_S)
        self._stdout.close()
        self._stderr.finish()

    def _how_it_ended(self) -> str:
        status = self._process.returncode
        if status is None:
            return "does not end"
        if status == -signal.SIGKILL:
            return "was ended by SIGKILL, as the system does when memory runs out"
        if status < 0:
            return f"was ended by {_signal_name(-status)}"
        return f"exited with status {status}"

    def _stderr_text(self) -> str:
        words = self._stderr.text()[-_STDERR_SHOWN_BYTES:].strip()
        return f"; its stderr ends with:\n{words}" if words else "; it wrote nothing to stderr"


class _Tail:
    """The end of a stream, drained by a thread so that its writer never blocks."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, name="child-stderr", daemon=True)
        self._thread.start()

    def text(self) -> str:
        with self._lock:
            return self._kept.decode(errors="replace")

    def finish(self) -> None:
        """Wait for the end of the stream. If another process holds it open, the thread goes on."""
        self._thread.join(1.0)

    def _drain(self) -> None:
        with self._stream as stream:
            while part := stream.read(65536):
                with self._lock:
                    self._kept += part
                    del self._kept[:-_STDERR_KEPT_BYTES]


def read_frame(stream: BinaryIO) -> bytes | None:
    """Read the payload of the next frame; ``None`` at the end of the stream, also in the middle of a frame."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    (size,) = _HEADER.unpack(header)
    payload = stream.read(size)
    return payload if len(payload) == size else None


def write_frame(stream: BinaryIO, payload: bytes) -> None:
    """Write ``payload`` as one frame and flush."""
    stream.write(_HEADER.pack(len(payload)) + payload)
    stream.flush()


def die_with_parent(stdin_fd: int = 0) -> None:
    """End this process, a child, when its parent is gone, even if it is busy.

    A thread waits for the other end of ``stdin_fd`` to close. If the parent started the child from its main thread, the
    kernel also sends SIGKILL, which ends a child that hangs with the GIL held.
    """
    threading.Thread(target=_exit_on_hangup, args=(stdin_fd,), name="parent-watch", daemon=True).start()
    parent = os.environ.get(_PARENT)
    if parent is not None and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # The parent ended before this was set.
            os._exit(1)


def _exit_on_hangup(fd: int) -> None:
    poller = select.poll()
    poller.register(fd, 0)
    poller.poll()
    time.sleep(_FAREWELL_S / 2)  # An idle child sees the end of its stdin and exits by itself.
    os._exit(1)


def _import_from_here(environment: dict[str, str]) -> None:
    """Let a child import the package from the same place as this process, which may be a checkout off its path."""
    root = Path(__file__).resolve().parents[2]
    if root.name in ("site-packages", "dist-packages"):
        return
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = str(root) if not inherited else f"{root}{os.pathsep}{inherited}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
