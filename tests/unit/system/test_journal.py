"""Journals: whole lines or none, also after a crash and with several writers at a time."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.system import journal

WRITERS, LINES = 4, 50


class Entry(msgspec.Struct):
    name: str
    value: int = 0


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    entries = [Entry("line\nbreaks\u2028and ünïcode", 1), Entry("", -1)]
    for entry in entries:
        journal.append(path, entry)
    assert journal.read(path, Entry) == entries
    assert path.read_bytes().count(b"\n") == 2


def test_no_file_is_no_lines(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "none.jsonl", Entry) == []


def test_an_empty_file_is_no_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.jsonl"
    path.touch()
    assert journal.read(path, Entry) == []
    assert not caplog.records


@pytest.mark.parametrize("kept", [1, 9, 23], ids=["a-brace", "in-the-name", "all-but-the-end"])
def test_a_torn_last_line_is_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: int
) -> None:
    path = tmp_path / "journal.jsonl"
    journal.append(path, Entry("whole", 1))
    journal.append(path, Entry("töorn", 2))
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    path.write_bytes(content[: first + kept])
    assert journal.read(path, Entry) == [Entry("whole", 1)]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{path}:2 is not a whole Entry and is left out: ")


def test_what_follows_a_torn_line_is_not_lost_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"name": "torn')
    journal.append(path, Entry("next", 1))
    journal.append(path, Entry("after", 2))
    assert journal.read(path, Entry) == [Entry("next", 1), Entry("after", 2)]
    assert [record.getMessage().partition(" is not")[0] for record in caplog.records] == [f"{path}:1"]


@pytest.mark.parametrize("line", [b"{}", b'{"name": 3}', b"[]", b"nonsense", b'{"name": "\xff"}'])
def test_a_line_of_another_kind_is_dropped_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"name": "a"}\n' + line + b'\n\n{"name": "b"}\n')
    assert journal.read(path, Entry) == [Entry("a"), Entry("b")]
    assert len(caplog.records) == 1


def test_writers_at_the_same_time_do_not_mix_their_lines(tmp_path: Path, child_env: dict[str, str]) -> None:
    path = tmp_path / "journal.jsonl"
    code = f"""
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pytest_shark_tune.system import journal
sys.stdin.readline()
for number in range({LINES}):
    journal.append(Path(sys.argv[1]), {{"name": sys.argv[2] * 3000, "value": number}})
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], stdin=subprocess.PIPE, env=child_env)
        for name in "abcdefgh"[:WRITERS]
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0] * WRITERS
    entries = journal.read(path, Entry)
    assert len(entries) == WRITERS * LINES
    for name in "abcdefgh"[:WRITERS]:
        assert [entry.value for entry in entries if entry.name == name * 3000] == list(range(LINES))


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    journal.replace_file(path, b"one")
    with path.open("rb") as before:
        journal.replace_file(path, b"two")
        assert before.read() == b"one"
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "directory"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"directory"):
        journal.replace_file(path, b"content")
    assert [each.name for each in tmp_path.iterdir()] == ["directory"]


@pytest.mark.parametrize("kind", ["pipe", "device", "open file"])
def test_nothing_but_a_file_is_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null" if kind == "device" else "/proc/self/fd/1")
    before = path.lstat()
    with pytest.raises(OSError, match="it is no regular file"):
        journal.replace_file(path, b"content")
    assert path.lstat() == before
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_that_come_at_once_all_read_the_one_that_was_first(tmp_path: Path) -> None:
    paths = [tmp_path / f"claim{number}" for number in range(40)]
    start = threading.Barrier(WRITERS)

    def claim(name: bytes) -> list[bytes]:
        found = []
        for path in paths:
            start.wait()
            found.append(journal.create_exclusive(path, name))
        return found

    with ThreadPoolExecutor(WRITERS) as pool:
        found = list(pool.map(claim, [b"a", b"bb", b"ccc", b"dddd"]))
    for path, owners in zip(paths, zip(*found, strict=True), strict=True):
        assert set(owners) == {path.read_bytes()} < {b"a", b"bb", b"ccc", b"dddd"}
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_without_links_who_comes_later_reads_who_was_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(source), None, str(target))

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "claim"
    assert [journal.create_exclusive(path, name) for name in (b"first", b"second")] == [b"first", b"first"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_put_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        journal.create_exclusive(tmp_path / "gone" / "claim", b"one")


def test_a_long_journal_is_read_a_line_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    line = msgspec.json.encode(Entry("x" * 1000, 1)) + b"\n"
    path.write_bytes(line * 5000)
    tracemalloc.start()
    try:
        assert sum(entry.value for entry in journal.stream(path, Entry)) == 5000
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 10
    finally:
        tracemalloc.stop()


def test_a_line_without_end_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_LONGEST_LINE", 100)
    path = tmp_path / "journal.jsonl"
    whole = msgspec.json.encode(Entry("a", 1)) + b"\n"
    path.write_bytes(whole + b"0" * 350 + b"\n" + whole)
    assert journal.read(path, Entry) == [Entry("a", 1)] * 2
    assert journal.damaged_lines(path, Entry) == (2,)


def test_of_many_damaged_lines_the_first_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"{\n" * 50)
    assert journal.read(path, Entry) == []
    assert len(caplog.records) == 11
    assert caplog.messages[-1] == f"{path}: 40 more lines are left out"
