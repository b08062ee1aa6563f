"""Handles Ctrl-C, SIGTERM and SIGHUP during a run, whenever and however often they come.

The first interrupt ends the run as pytest does, and the results so far are written. A second one, while they are being
written, shows a message and changes nothing else. A third one ends the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

__all__ = ["Interrupts", "Terminated"]

_ENDED = 128
"""The exit status that a shell gives a process that a signal ended is this, plus the number of the signal."""

_AT_ONCE = 2
_IMPORTING = "<frozen importlib"
_BINDINGS = f"{os.sep}iree{os.sep}compiler{os.sep}"
_RETRY_S = 0.005
_WAIT_S = 1.0
"""How long an interrupt waits for the compiler's bindings at most; a dialect's import takes about 0.1 s."""
_BUSY = "\nshark-tune: the run is ending and writes its results; another interrupt ends it at once, without them\n"


class Terminated(KeyboardInterrupt):
    """A SIGTERM or SIGHUP, which ends the run as Ctrl-C does."""


class Interrupts:
    """The signal handlers of a run, from `install` to `restore`.

    A signal is left alone if another handler is installed, or if it is ignored. ``status`` is the exit status that a
    SIGTERM or SIGHUP asks for, 0 without one, and ``is_ending`` whether the run is ending.

    Args:
        terminate: whether to handle SIGTERM and SIGHUP, too. Otherwise SIGHUP is ignored: a worker gets it from the
            terminal as its controller does, which then ends the worker.
    """

    def __init__(self, *, terminate: bool) -> None:
        self._numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if terminate else (signal.SIGINT,)
        self._ignored = () if terminate else (signal.SIGHUP,)
        self._previous: dict[int, Any] = {}
        self.is_ending = False
        self._in_vain = 0
        self._waits_until = 0.0
        self.status = 0

    def install(self) -> None:
        """Handle the signals from here on; outside of the main thread, where Python forbids it, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self._numbers:
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                self._previous[number] = signal.signal(number, self._handle)
        for number in self._ignored:
            if signal.getsignal(number) is signal.SIG_DFL:
                self._previous[number] = signal.signal(number, signal.SIG_IGN)

    def restore(self) -> None:
        """Restore the handlers that were there before."""
        while self._previous:
            signal.signal(*self._previous.popitem())

    def wind_down(self) -> None:
        """Mark the run as ending: an interrupt would only keep results from being written."""
        self.is_ending = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            self.status = self.status or _ENDED + number
        if not self.is_ending and not _is_unwinding():
            if self._waits(number, frame):
                return
            if number != signal.SIGINT:
                raise Terminated(signal.Signals(number).name)
            raise KeyboardInterrupt
        self._in_vain += 1
        if self._in_vain < _AT_ONCE:
            with suppress(OSError):  # The terminal may be gone. Its own writer may be the interrupted code.
                os.write(2, _BUSY.encode())
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _waits(self, number: int, frame: FrameType | None) -> bool:
        """Send the signal again in a moment if Python code is running that the compiler's bindings may have called.

        The bindings look up the module of a dialect with every attribute that they hand out. They do so from C++ code
        that an exception must not leave: the process would abort.
        """
        now = time.monotonic()
        if not _is_in_bindings(frame):
            self._waits_until = 0.0
            return False
        self._waits_until = self._waits_until or now + _WAIT_S
        if now >= self._waits_until:
            return False
        timer = threading.Timer(_RETRY_S, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()
        return True


def _is_in_bindings(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTING) or _BINDINGS in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _is_unwinding() -> bool:
    """Whether the interrupted code is handling another interrupt."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
