"""The one door to terminals: text from outside is shown as it is, and does nothing there.

Names, compilers' messages, records and the notes of other processes come from files and from people that a run does not
know. A terminal obeys escape sequences in them, and a CI system obeys lines that look like its own commands.
"""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["EscapingStream", "escaped", "escaped_json", "escaped_line", "escaping_streams"]

_KEPT = frozenset("\n\t")
_BLANKS = r"[^\S\n]*"
_COMMAND = re.compile(rf"^({_BLANKS}):(?=:)", re.MULTILINE)
"""GitHub obeys lines that begin with two colons, behind blanks of any kind ..."""
_OLD_COMMAND = re.compile(r"#(?=#[\w.]*\[)")
"""... and, anywhere in a line, its older form; Azure and TeamCity have such commands, too."""
_COLON_AT_END = re.compile(rf"^({_BLANKS}):\Z", re.MULTILINE)


def escaped(text: str) -> str:
    r"""``text`` for a terminal: what is not printed is shown as ``\x1b`` or ``\u202e``; ends of lines and tabs stay.

    Control characters, marks that change the direction of text, characters without a width and halves of surrogates
    are not printed. Commands of CI systems lose their form.
    """
    if not text.isprintable():
        text = "".join(each if _is_harmless(each) else _visible(each) for each in text)
    return _OLD_COMMAND.sub(r"\\x23", _COMMAND.sub(r"\1\\x3a", text))


def escaped_line(text: str) -> str:
    r"""`escaped`, in one line: ends of lines and tabs are shown as ``\n`` and ``\t``."""
    return escaped(text.replace("\n", "\\n").replace("\t", "\\t"))


def escaped_json(text: str) -> str:
    """JSON with the same values, of which nothing is left to escape: what is not printed can only be in its strings."""
    shown = "".join(each if _is_harmless(each) else _as_json(each) for each in text)
    return _OLD_COMMAND.sub(r"\\u0023", shown)


class EscapingStream(io.TextIOBase):
    """A stream of text that hands on to ``stream``, escaped, what is written to it: a line at a time, and at a flush.

    It has no buffer of bytes and is no terminal, so nobody gets past it and nobody writes escape sequences on purpose.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held = ""
        self._begins_line = True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream behind it."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """What the stream behind it does with characters that its encoding lacks."""
        return self._stream.errors

    def writable(self) -> bool:
        """Text can be written to it."""
        return True

    def write(self, text: str) -> int:
        """Write ``text`` escaped, as far as its last line is whole; return its length."""
        whole, end, self._held = (self._held + text).rpartition("\n")
        if end:
            self._hand_on(whole + end)
        return len(text)

    def flush(self) -> None:
        """Write the last line also where it is not whole, and flush the stream behind."""
        held, self._held = self._held, ""
        if held:
            self._hand_on(held)
        self._stream.flush()

    def _hand_on(self, text: str) -> None:
        # What comes in the middle of a line is no command, and a colon may be the first half of one's beginning.
        front = "" if self._begins_line else "."
        shown = _COLON_AT_END.sub(r"\1\\x3a", escaped(front + text)).removeprefix(front)
        self._begins_line = text.endswith("\n") or (self._begins_line and not text.strip())
        self._stream.write(shown)


@contextmanager
def escaping_streams() -> Iterator[None]:
    """Within it all that this process writes to its stdout and stderr is escaped.

    An exception that nobody expects leaves it so, since the interpreter is about to show it.
    """
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = EscapingStream(streams[0]), EscapingStream(streams[1])
    try:
        yield
    except Exception:
        streams = sys.stdout, sys.stderr
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _KEPT or unicodedata.category(character) == "Zs"


def _visible(character: str) -> str:
    number = ord(character)
    if character == "\r":
        return "\\r"
    return f"\\x{number:02x}" if number <= 0xFF else f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _as_json(character: str) -> str:
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))
