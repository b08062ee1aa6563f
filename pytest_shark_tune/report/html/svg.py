"""The only module that writes SVG: shapes and text in one drawing, escaped.

Drawings have no styles of their own, only classes, since a strict content-security policy forbids styles in attributes.
The style sheet of the page gives the classes their colors, for light and dark.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from pytest_shark_tune.system.terminal import escaped_line

__all__ = ["TEXT", "WIDTH", "Drawing", "fit", "number"]

WIDTH = 440
"""The width of all drawings: on a telephone they shrink by a sixth, and on a wide screen several stand in a row."""
TEXT = 7.4
"""The mean width of a letter of names in the widest of the usual fonts, at the size that a telephone shows."""


def number(value: float) -> str:
    """Return a coordinate, to a tenth."""
    return f"{round(value, 1):g}"


def fit(text: str, width: float) -> str:
    """Return a text that is no wider than ``width``, with an ellipsis in its middle: names often end in sizes."""
    most = max(3, int(width / TEXT))
    text = escaped_line(text)
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


class Drawing:
    """An SVG image of the width `WIDTH`.

    Args:
        height: The height, in the same units.
        label: The description for people who cannot see it.
    """

    def __init__(self, height: float, label: str) -> None:
        self._root = ET.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {WIDTH} {number(height)}",
                "role": "img",
                "aria-label": escaped_line(label),
            },
        )

    def rect(self, x: float, y: float, width: float, height: float, kind: str, tip: str = "") -> None:
        """Add a rectangle of the class ``kind``; ``tip`` is shown beside the pointer."""
        size = {"x": x, "y": y, "width": max(width, 0.5), "height": height}
        self._add("rect", {name: number(value) for name, value in size.items()}, kind, tip)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str, tip: str = "") -> None:
        """Add a straight line."""
        ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
        self._add("line", {name: number(value) for name, value in ends.items()}, kind, tip)

    def circle(self, x: float, y: float, radius: float, kind: str, tip: str = "") -> None:
        """Add a dot that has a tip; many dots without one belong into `dots`."""
        self._add("circle", {"cx": number(x), "cy": number(y), "r": number(radius)}, kind, tip)

    def dots(self, places: Iterable[tuple[float, float]], kind: str) -> None:
        """Add dots as one path of lines without length, which takes a tenth of the bytes of as many circles."""
        self._path("".join(f"M{number(x)} {number(y)}h0" for x, y in places), f"dots {kind}")

    def polylines(self, lines: Iterable[Iterable[tuple[float, float]]], kind: str) -> None:
        """Add polylines as one path."""
        paths = ("L".join(f"{number(x)} {number(y)}" for x, y in line) for line in lines)
        self._path("".join(f"M{path}" for path in paths if path), kind)

    def text(self, x: float, y: float, text: str, kind: str = "", *, anchor: str = "start", tip: str = "") -> None:
        """Add a text that begins, ends or has its middle at ``x``, by the ``anchor`` ``start``, ``end``, ``middle``."""
        place = {"x": number(x), "y": number(y)} | ({} if anchor == "start" else {"text-anchor": anchor})
        self._add("text", place, kind, tip).text = escaped_line(text)

    def markup(self) -> str:
        """Return the image as XML."""
        return ET.tostring(self._root, encoding="unicode")

    def _path(self, steps: str, kind: str) -> None:
        if steps:
            self._add("path", {"d": steps}, kind, "")

    def _add(self, name: str, attributes: dict[str, str], kind: str, tip: str) -> ET.Element:
        added = ET.SubElement(self._root, name, attributes | ({"class": kind} if kind else {}))
        if tip:
            ET.SubElement(added, "title").text = escaped_line(tip)
        return added
