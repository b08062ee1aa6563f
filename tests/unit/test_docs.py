"""The docs link to what is there, and name test modules by where they lie."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text)
    tests = re.findall(r"\btests/\S+?\.py\b", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [path for path in tests if not (ROOT / path).exists()] == []
