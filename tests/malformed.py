"""Malformed files: mutations of every format that is read, and a process that runs commands on them.

The process runs commands without starting Python anew, and a crash or a hang ends it alone.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import multiprocessing
import os
import re
import shutil
import tarfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pytest_shark_tune.device import lease

__all__ = ["HANG_S", "KINDS", "Commands", "Mutation", "Outcome", "mutations", "restore"]

HANG_S = 10.0
"""The most processor time of a command on a small file, compilers included."""
_WALL_S = 60.0
"""The most time of a command on a machine that does other work as well."""


@dataclass(frozen=True)
class Outcome:
    """The end of a command."""

    status: int
    output: str
    traceback: str = ""
    problem: str = ""
    """A hang or a signal; empty for a command that ended by itself."""


class Commands:
    """Runs ``shark-tune`` and pytest in a process of their own, which is replaced after a crash or a hang."""

    def __init__(self, directory: Path, cache: Path) -> None:
        self._directory = directory
        self._cache = cache
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def run(self, arguments: Sequence[str]) -> Outcome:
        """Run a command line, ``pytest …`` or one of ``shark-tune``'s."""
        if self._process is None or self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, far = context.Pipe()
            self._process = context.Process(target=_serve, args=(far, str(self._directory), str(self._cache)))
            self._process.start()
            far.close()
        self._pipe.send(list(arguments))
        try:
            if self._pipe.poll(_WALL_S):
                outcome, spent_s = self._pipe.recv()
                if spent_s > HANG_S:
                    return Outcome(0, "", problem=f"it took {spent_s:.0f} s")
                assert isinstance(outcome, Outcome)
                return outcome
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            self.close()
            return Outcome(0, "", problem=f"the process ended with status {code}")
        self.close()
        return Outcome(0, "", problem=f"it did not end within {_WALL_S:.0f} s")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection, directory: str, cache: str) -> None:
    os.chdir(directory)
    os.environ["XDG_CACHE_HOME"] = cache
    # Nobody compares the figures of these commands, so they need not wait for other runs on this machine.
    lease._HOST_DIRECTORY = Path(cache) / "locks"
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        before = sum(os.times()[:4])
        outcome = _pytest(arguments[1:]) if arguments[0] == "pytest" else _shark_tune(arguments)
        pipe.send((outcome, sum(os.times()[:4]) - before))


def _shark_tune(arguments: list[str]) -> Outcome:
    from click.testing import CliRunner

    from pytest_shark_tune.cli import main

    done = CliRunner().invoke(main, arguments)
    is_told = done.exception is None or isinstance(done.exception, SystemExit)
    text = "" if is_told else "".join(traceback.format_exception(done.exception))
    return Outcome(done.exit_code, done.output, text)


def _pytest(arguments: list[str]) -> Outcome:
    import pytest

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        status = pytest.main(["-p", "no:cacheprovider", "-p", "no:xdist", *arguments])
    output = shown.getvalue()
    is_bad = "INTERNALERROR" in output or "Traceback (most recent call last)" in output
    return Outcome(int(status), output, output if is_bad else "")


# Mutations.


@dataclass(frozen=True)
class Mutation:
    """A change of a file."""

    name: str
    """What is changed, for messages."""
    apply: Callable[[Path], None]
    """Changes the file at a path, which is whole."""


Mutate = Callable[[bytes], bytes]
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.5, -0.5, 1e308, -1e308, 1e-320),
    *("", " ", "x", "a" * 5000, "\0", "\x1b[31m", "\u202e", "\ud800", "../../x", "/", "1e999", "default", "matmul"),
    *([], {}, [[]], [{}], [None], [0] * 3, {"": 0}, {"a": {"b": []}}),
)
_NUMBERS = ("0", "-1", "1", "4611686018427387904", "9223372036854775807", "18446744073709551616", "9" * 400, "1e999")
_WORDS = (
    "",
    "%x",
    "@x",
    "#x",
    "!x",
    "^bb0",
    "->",
    "=",
    "(",
    ")",
    "{",
    "}",
    "<",
    ">",
    "[",
    "]",
    '"',
    ",",
    ":",
    "dense<",
)
_ATTRIBUTES = (
    "dense<> : tensor<0xf32>",
    'dense<"0x00"> : tensor<4611686018427387904xf32>',
    "affine_map<(d0) -> (d0 floordiv 0)>",
    "#iree_codegen.compilation_info<>",
    "#iree_cpu.lowering_config<>",
    "tensor<4611686018427387904x4611686018427387904xf32>",
    "vector<0xf32>",
    "i99999999",
    "unit",
    '"' + "a" * 5000 + '"',
)
_TOKEN = re.compile(rb"[\w.]+|[^\w\s]")
_NUMBER = re.compile(rb"(?<![\w.])-?\d+(?![\w])")
_BRACKETS = (b"(", b"[", b"{", b"<", b"([{<", b"tensor<", b"tuple<", b"module{", b"//", b'"')


def _span(draw: st.DrawFn, content: bytes) -> tuple[int, int]:
    start = draw(st.integers(0, len(content)))
    return start, min(len(content), start + draw(st.sampled_from((0, 1, 2, 7, 40, 300))))


@st.composite
def _of_bytes(draw: st.DrawFn, content: bytes) -> tuple[str, bytes]:
    """Change bytes regardless of what they mean."""
    how = draw(st.sampled_from(("flip", "cut", "drop", "double", "insert", "deep", "whole", "gzip")))
    start, end = _span(draw, content)
    if how == "flip":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 8))):
            if changed:
                changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
        return how, bytes(changed)
    if how == "cut":
        return how, content[:start]
    if how == "drop":
        return how, content[:start] + content[end:]
    if how == "double":
        return how, content[:end] + content[start:end] * draw(st.integers(1, 5)) + content[end:]
    if how == "insert":
        new = draw(
            st.sampled_from((b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\x1b[31m", b"\xed\xa0\x80", b"\n\n"))
        )
        return f"insert {new!r}", content[:start] + new + content[start:]
    if how == "deep":
        bracket = draw(st.sampled_from(_BRACKETS))
        count = draw(st.sampled_from((1, 60, 1000, 20_000, 200_000)))
        return f"{count} times {bracket!r}", content[:start] + bracket * count + content[start:]
    if how == "gzip":
        packed = gzip.compress(content, mtime=0)
        return how, packed[: draw(st.integers(1, len(packed)))]
    new = draw(
        st.sampled_from((b"", b"\0" * 1000, b" " * 1_000_000, b"\n" * 100_000, b"{}", b"[]", b"null", b"1", b'""'))
    )
    return f"whole {new[:4]!r}", new


@st.composite
def _of_text(draw: st.DrawFn, content: bytes) -> tuple[str, bytes]:
    """Change the tokens of MLIR, or of a list of commands."""
    how = draw(st.sampled_from(("number", "token", "swap", "line", "attribute", "lines", "name")))
    pattern = _NUMBER if how == "number" else _TOKEN
    found = list(pattern.finditer(content))
    if how in ("line", "lines") or not found:
        lines = content.splitlines(keepends=True) or [b""]
        place = draw(st.integers(0, len(lines) - 1))
        other = draw(st.integers(0, len(lines) - 1))
        if how == "line":
            del lines[place]
        else:
            lines.insert(other, lines[place])
        return how, b"".join(lines)
    one = found[draw(st.integers(0, len(found) - 1))]
    if how == "swap":
        two = found[draw(st.integers(0, len(found) - 1))]
        if one.start() > two.start():
            one, two = two, one
        if one.end() > two.start():
            return how, content
        middle = content[one.end() : two.start()]
        return how, content[: one.start()] + two[0] + middle + one[0] + content[two.end() :]
    new = {
        "number": st.sampled_from(_NUMBERS),
        "token": st.sampled_from(_WORDS),
        "attribute": st.sampled_from(_ATTRIBUTES),
        "name": st.sampled_from(("a" * 5000, "ä", "a.b", "_", "return", "module", "f32", "i1", "index", "x" * 300)),
    }[how]
    return how, content[: one.start()] + draw(new).encode() + content[one.end() :]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in _places(child, (*path, key)))]


def _changed(draw: st.DrawFn, value: Any) -> tuple[str, Any]:
    """Change one value in parsed JSON."""
    places = _places(value)
    place = draw(st.sampled_from(places))
    how = draw(st.sampled_from(("odd", "odd", "drop", "add", "double", "deep")))
    odd = draw(st.sampled_from(_ODD))
    shown = f"{how} {'.'.join(map(str, place))} {odd!r:.40}"
    if not place:
        return shown, odd
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    last = place[-1]
    if how == "drop":
        del holder[last]
    elif how == "add" and isinstance(holder, dict):
        holder["more"] = odd
    elif how == "double" and isinstance(holder, list):
        holder.insert(last, holder[last])
    elif how == "deep":
        holder[last] = "DEEP"
    else:
        holder[last] = odd
    return shown, value


def _dumped(value: Any) -> bytes:
    deep = "[" * 5000 + "]" * 5000
    return json.dumps(value).replace('"DEEP"', deep).encode(errors="surrogatepass")


@st.composite
def _of_json(draw: st.DrawFn, content: bytes) -> tuple[str, bytes]:
    """Change one value in JSON, or in one of its lines."""
    lines = content.splitlines()
    try:
        whole = json.loads(content)
    except ValueError:
        number = draw(st.integers(0, len(lines) - 1))
        shown, value = _changed(draw, json.loads(lines[number]))
        lines[number] = _dumped(value)
        return f"line {number + 1}: {shown}", b"\n".join(lines) + b"\n"
    shown, value = _changed(draw, whole)
    return shown, _dumped(value)


@st.composite
def _of_bundle(draw: st.DrawFn, content: bytes) -> tuple[str, bytes]:
    """Change the manifest of a bundle, or its members."""
    members = []
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            members.append((member, file.read() if file is not None else b""))
    shown, manifest = _changed(draw, json.loads(members[0][1]))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for member, data in [(members[0][0], _dumped(manifest)), *members[1:]]:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return shown, packed.getvalue()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _nothing(path: Path) -> None:
    del path


_INSTEAD: dict[str, Callable[[Path], None]] = {
    "a directory": Path.mkdir,
    "a FIFO": _fifo,
    "a loop of links": _loop,
    "/dev/zero": _zero,
    "nothing": _nothing,
}


def _replacing(name: str) -> Mutation:
    def apply(path: Path) -> None:
        path.unlink()
        _INSTEAD[name](path)

    return Mutation(name, apply)


def restore(path: Path, content: bytes) -> None:
    """Put the whole file back."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(content)


KINDS: dict[str, Callable[[bytes], st.SearchStrategy[tuple[str, bytes]]]] = {
    ".mlir": _of_text,
    ".txt": _of_text,
    ".flags": _of_text,
    ".json": _of_json,
    ".jsonl": _of_json,
    ".tar": _of_bundle,
}


def mutations(path: Path, content: bytes) -> st.SearchStrategy[Mutation]:
    """Mutations of a file: of its bytes, of its tokens or values, and other kinds of files in its place."""
    own = KINDS.get(path.suffix, _of_bytes)(content)

    def made(change: tuple[str, bytes]) -> Mutation:
        return Mutation(change[0], lambda place: restore(place, change[1]))

    changed = st.one_of(own, own, own, _of_bytes(content)).map(made)
    others = st.sampled_from(sorted(_INSTEAD)).map(_replacing)
    return st.integers(0, 19).flatmap(lambda number: others if number == 0 else changed)
