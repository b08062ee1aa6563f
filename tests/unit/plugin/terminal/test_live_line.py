"""The live line on a terminal of its own."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_shark_tune.plugin.terminal.live_line import LiveLine


@dataclass
class Terminal:
    """The two ends of a pseudo terminal: programs write to ``slave``, and ``read`` returns what arrives."""

    master: int
    slave: int
    lines: list[LiveLine] = field(default_factory=list)

    def line(self) -> LiveLine:
        self.lines.append(LiveLine(self.slave))
        return self.lines[-1]

    def read(self) -> str:
        os.set_blocking(self.master, False)
        time.sleep(0.05)
        try:
            text = os.read(self.master, 65536).decode()
        except BlockingIOError:
            return ""
        return re.sub(r"\x1b\[\d*m", "", text)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    ends = Terminal(*os.openpty())
    yield ends
    for line in ends.lines:
        line.close()
    os.close(ends.master)
    os.close(ends.slave)


def test_the_line_is_drawn_in_place_and_fits_the_terminal(terminal: Terminal) -> None:
    line = terminal.line()
    line.show(lambda: "search 3 of 60, about 10 min left: a long name of a dispatch")
    assert terminal.read() == "\r\x1b[2Ksearch 3 of 60, about 10 min left: a l…"
    line.show(lambda: "finals")
    assert terminal.read() == "\r\x1b[2Kfinals"


def test_names_from_a_model_move_no_cursor(terminal: Terminal) -> None:
    terminal.line().show(lambda: "a\x1b[2J\nb")
    assert "\x1b[2J" not in terminal.read()


def test_it_keeps_up_with_the_time(terminal: Terminal) -> None:
    left = iter(f"{number} s left" for number in range(9, 0, -1))
    terminal.line().show(lambda: next(left))
    time.sleep(1.2)
    assert terminal.read().endswith("\r\x1b[2K8 s left")


def test_other_output_finds_the_line_empty(terminal: Terminal) -> None:
    line = terminal.line()
    written: list[str] = []
    file = SimpleNamespace(write=lambda text: written.append(f"{terminal.read()!r} {text}"), encoding="utf-8")
    reporter: Any = SimpleNamespace(_tw=SimpleNamespace(_file=file))
    line.make_room_in(reporter)
    line.make_room_in(reporter)
    line.show(lambda: "search")
    terminal.read()
    reporter._tw._file.write("test_suite.py .")
    reporter._tw._file.write("")
    assert written == [r"'\r\x1b[2K' test_suite.py ."]
    assert reporter._tw._file.encoding == "utf-8"


def test_lines_that_stay_are_written_above(terminal: Terminal) -> None:
    line = terminal.line()
    line.show(lambda: "search")
    line.write_above("shark-tune: waiting")
    assert terminal.read() == "\r\x1b[2Ksearch\r\x1b[2Kshark-tune: waiting\r\n"


def test_it_leaves_nothing_behind(terminal: Terminal) -> None:
    line = terminal.line()
    line.show(lambda: "search")
    terminal.read()
    line.close()
    line.close()
    line.show(lambda: "late")
    assert terminal.read() == "\r\x1b[2K"
