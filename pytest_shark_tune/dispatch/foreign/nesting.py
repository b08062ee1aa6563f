"""How deeply MLIR text is nested, found without parsing it: the parser exhausts the stack where it is deep.

Brackets nest, and so do aliases that stand for other aliases. These can also grow without bounds when they are printed.
"""

from __future__ import annotations

import re

__all__ = ["why_too_deep"]

_DEEPEST = 200
_LARGEST = 100_000_000
"""The most characters that the aliases of a text may stand for."""
_TOKENS = re.compile(
    r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"'  # text, which may be a model's weights
    r"|//[^\n]*"
    r"|->|[<>]=|-[-\s]+"
    r"|^[ \t]*[#!][\w$.]+[ \t]*=(?!=)"  # the definition of an alias
    r"|[#!][\w$.]+"
    r"|[][(){}<>]",
    re.MULTILINE,
)
"""Brackets, aliases, runs of minus signs, and text that only looks like them and is matched as a whole."""


def why_too_deep(text: str) -> str:
    """Return the reason why a text is nested too deeply to be parsed; empty if it is not."""
    depth = 0
    depths: dict[str, int] = {}
    sizes: dict[str, int] = {}
    defined, deepest, size, total = "", 0, 0, 0
    for match in _TOKENS.finditer(text):
        found = match[0]
        first = found[0]
        if first in "([{<":
            depth += found != "<="
            reached = depth
        elif first in ")]}>":
            depth = max(depth - (found != ">="), 0)
            continue
        elif first == "-":
            reached = depth + found.count("-")
        elif found[-1] == "=":
            if defined:
                depths[defined], sizes[defined] = deepest, size
            defined, deepest, size = found[:-1].strip(), 0, 1
            continue
        elif first in "#!":
            reached = depth + depths.get(found, 0)
            size += sizes.get(found, 1)
            total += sizes.get(found, 0)
        else:
            continue
        deepest = max(deepest, reached)
        if reached > _DEEPEST:
            return f"it is nested more than {_DEEPEST} deep in line {text.count(chr(10), 0, match.start()) + 1}"
        if max(size, total) > _LARGEST:
            return f"its aliases stand for too much in line {text.count(chr(10), 0, match.start()) + 1}"
    return ""
