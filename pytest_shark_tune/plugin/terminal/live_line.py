"""A line at the bottom of a terminal that is drawn anew once a second, and makes room for other output."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from pytest_shark_tune.system.terminal import escaped_line

__all__ = ["LiveLine"]

_PERIOD_S = 1.0
_CLEAR = "\r\x1b[2K"


class LiveLine:
    """Draws a line on the terminal behind a file descriptor, which is duplicated.

    Pytest captures the descriptors while a test runs. A duplicate that was made before still leads to the terminal.
    """

    def __init__(self, descriptor: int) -> None:
        self._out: TextIO = os.fdopen(os.dup(descriptor), "w", encoding="utf-8", errors="replace")
        self._console = Console(file=self._out, force_terminal=True, highlight=False)
        self._lock = threading.RLock()
        self._text: Callable[[], str] = str
        self._is_drawn = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, text: Callable[[], str]) -> None:
        """Show a line, and ask for its text again once a second."""
        with self._lock:
            if self._ended.is_set():
                return
            self._text = text
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_drawing, daemon=True, name="shark-tune live line")
                self._thread.start()
            self._draw()

    def write_above(self, text: str) -> None:
        """Write lines that stay."""
        with self._lock:
            self.clear()
            self._out.write(f"{text}\n")
            self._out.flush()

    def clear(self) -> None:
        """Make room for other output on the line; the line comes back within a second."""
        with self._lock:
            if self._is_drawn:
                self._out.write(_CLEAR)
                self._out.flush()
                self._is_drawn = False

    def close(self) -> None:
        """Remove the line for good."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * _PERIOD_S)
        with self._lock:
            if not self._out.closed:
                self.clear()
                self._out.close()

    def make_room_in(self, reporter: Any) -> None:
        """Have the file of pytest's reporter clear the line before it writes."""
        writer = reporter._tw
        if not isinstance(writer._file, _Clearing):
            writer._file = _Clearing(writer._file, self, writer)

    def _keep_drawing(self) -> None:
        while not self._ended.wait(_PERIOD_S):
            with self._lock:
                if not self._ended.is_set():
                    self._draw()

    def _draw(self) -> None:
        line = Text(escaped_line(self._text()), style="dim")
        line.truncate(max(1, self._console.width - 1), overflow="ellipsis")
        self._out.write(_CLEAR)
        self._console.print(line, end="", soft_wrap=True)
        self._out.flush()
        self._is_drawn = True


class _Clearing:
    """The file of a reporter, which makes room before it writes, and leaves the line that it wrote on."""

    def __init__(self, file: TextIO, line: LiveLine, writer: Any) -> None:
        self._file = file
        self._line = line
        self._writer = writer

    def write(self, text: str) -> int:
        if not text:
            return 0
        self._line.clear()
        return self._file.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
