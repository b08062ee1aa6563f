"""The only module that escapes text for terminals: text from outside is shown as it is, and has no effect there.

Names, compilers' messages, records and the notes of other processes come from files and people that a run does not
know. A terminal obeys escape sequences in them, and a CI system obeys lines that look like its own commands.
"""

from __future__ import annotations

import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from pytest_shark_tune.errors import OutputError

__all__ = ["EscapingStream", "escaped", "escaped_json", "escaped_line", "escaping_streams"]

_KEPT = frozenset("\n\t")
_BLANKS = r"[^\S\n]*"
_COMMAND = re.compile(rf"^({_BLANKS}):(?=:)", re.MULTILINE)
"""GitHub obeys lines that begin with two colons, behind blanks of any kind ..."""
_OLD_COMMAND = re.compile(r"#(?=#[\w.]*\[)")
"""... and, anywhere in a line, its older form; Azure and TeamCity have such commands, too."""
_COLON_AT_END = re.compile(rf"^({_BLANKS}):\Z", re.MULTILINE)


def escaped(text: str) -> str:
    r"""Escape text for a terminal: characters that are not printed become ``\x1b`` or ``\u202e``.

    Control characters, marks that change the direction of text, characters without a width and halves of surrogates
    are not printed. Ends of lines and tabs stay. Commands of CI systems lose their form.
    """
    if not text.isprintable():
        text = "".join(letter if _is_harmless(letter) else _visible(letter) for letter in text)
    return _OLD_COMMAND.sub(r"\\x23", _COMMAND.sub(r"\1\\x3a", text))


def escaped_line(text: str) -> str:
    r"""Escape text for one line: as `escaped`, with ends of lines and tabs as ``\n`` and ``\t``."""
    return escaped(text.replace("\n", "\\n").replace("\t", "\\t"))


def escaped_json(text: str) -> str:
    """Escape JSON without changing its values: characters that are not printed can only be in its strings."""
    shown = "".join(letter if _is_harmless(letter) else _as_json(letter) for letter in text)
    return _OLD_COMMAND.sub(r"\\u0023", shown)


class EscapingStream(io.TextIOBase):
    """A stream that escapes text and passes it to ``stream``, a line at a time and at a flush.

    It has no buffer of bytes, so the escaping cannot be bypassed. It is no terminal, so no library writes escape
    sequences to it on purpose.
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
        """The treatment of characters that the encoding lacks, as in the stream behind it."""
        return self._stream.errors

    def writable(self) -> bool:
        """Whether text can be written: it can."""
        return True

    def write(self, text: str) -> int:
        """Write the whole lines of ``text`` and hold back the rest; return the length of ``text``."""
        whole, end, self._held = (self._held + text).rpartition("\n")
        if end:
            self._hand_on(whole + end)
        return len(text)

    def flush(self) -> None:
        """Write the rest of the last line as well, and flush the stream behind.

        Raises:
            OutputError: the stream behind takes no text.
        """
        held, self._held = self._held, ""
        if held:
            self._hand_on(held)
        with self._reported():
            self._stream.flush()

    def _hand_on(self, text: str) -> None:
        # Text in the middle of a line is no command, and a colon at its end may begin one.
        front = "" if self._begins_line else "."
        shown = _COLON_AT_END.sub(r"\1\\x3a", escaped(front + text)).removeprefix(front)
        self._begins_line = text.endswith("\n") or (self._begins_line and not text.strip())
        with self._reported():
            self._stream.write(shown)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Report an error of the stream behind once, and lose all text from then on."""
        try:
            yield
        except BrokenPipeError:  # Nobody reads on, which is no error.
            raise
        except OSError as error:
            # What the stream still holds would fail again when Python ends.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            raise OutputError(f"its output cannot be written: {error.strerror}") from error


@contextmanager
def escaping_streams() -> Iterator[None]:
    """Escape everything that this process writes to its stdout and stderr.

    After an unexpected exception the streams stay escaped, since the interpreter is about to show the exception.
    """
    streams = sys.stdout or _closed(), sys.stderr or _closed()
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


def _closed() -> TextIO:
    """Return a stream that fails like one that was closed when Python began. Its number goes to no other file."""
    return os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")


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
