"""A page of HTML as a browser reads it: whether it is well-formed, loads nothing, and what its tables hold."""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "br", "hr", "img", "input", "link"})
SVG = "{http://www.w3.org/2000/svg}"
_LOADING = frozenset({"src", "href", "srcset", "data", "action", "xlink:href", "style"})


@dataclass
class Table:
    """The rows of a table, the headings first."""

    rows: list[list[str]] = field(default_factory=list)

    @property
    def columns(self) -> dict[str, list[str]]:
        headings, *rows = self.rows
        return {heading: [row[at] for row in rows] for at, heading in enumerate(headings)}


class Page(HTMLParser):
    """A page that was parsed: its figures by title, with the drawing and the table of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.problems: list[str] = []
        self.figures: list[tuple[str, Table]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.policy = ""
        self.shown = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.problems += [f"<{name}> is never closed" for name in self._open]
        self.drawings = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.S)]

    def table(self, title: str) -> Table:
        """The table of the first figure of that title."""
        return next(table for name, table in self.figures if name == title)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.problems += [f"<{tag} {name}>" for name in given if name in _LOADING or name.startswith("on")]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given.get("content") or ""
        if tag not in VOID:
            self._open.append(tag)
        if tag == "figure":
            self.figures.append(("", Table()))
        elif tag == "tr":
            self.figures[-1][1].rows.append([])
        elif tag in ("td", "th"):
            self.figures[-1][1].rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        place = self._open[-1] if self._open else ""
        if place in ("script", "style"):
            (self.scripts if place == "script" else self.styles).append(data)
            return
        self.shown += data
        if place == "h4" and self.figures:
            self.figures[-1] = (self.figures[-1][0] + data, self.figures[-1][1])
        elif place in ("td", "th"):
            self.figures[-1][1].rows[-1][-1] += data


def assert_self_contained(page: Page) -> None:
    """A strict policy holds, and lets the page's own style sheet and script through and nothing else."""
    assert page.problems == []
    assert page.policy.startswith("default-src 'none'; ")
    assert "unsafe" not in page.policy
    for directive, texts in (("style-src", page.styles), ("script-src", page.scripts)):
        (text,) = texts
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in page.policy
    assert not re.search(r"@import|url\(", page.styles[0])
    assert not re.search(r"\b(?:fetch|XMLHttpRequest|eval|innerHTML|import)\b", page.scripts[0])
    assert len(page.text.encode()) < 1_500_000
    assert "http" not in page.text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert all(table.rows for _, table in page.figures), "every figure has its values as a table"
    for drawing in page.drawings:
        assert drawing.get("aria-label")
        _, _, width, height = map(float, (drawing.get("viewBox") or "").split())
        for element in drawing.iter(f"{SVG}text"):
            assert -2 <= float(element.get("x") or 0) <= width
            assert 0 <= float(element.get("y") or 0) <= height


def texts_of(drawing: ET.Element) -> list[str]:
    """All texts in a drawing."""
    return [text.text or "" for text in drawing.iter(f"{SVG}text")]
