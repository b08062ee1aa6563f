"""Text from outside in Markdown: it reads as it is, and marks nothing up."""

from __future__ import annotations

from pytest_shark_tune.system.terminal import escaped, escaped_line

__all__ = ["markdown_code", "markdown_text"]


def markdown_text(text: str) -> str:
    """Return Markdown that reads as ``text``."""
    return "".join(f"\\{sign}" if sign in "\\`*_<>|[]#" else sign for sign in escaped(text))


def markdown_code(text: str) -> str:
    """Return ``text`` as code inside a line of Markdown, in which a backquote has no escape."""
    shown = escaped_line(text).replace("`", "'")
    return f"`{shown}`"
