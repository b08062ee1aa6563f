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


def test_every_fault_has_a_test() -> None:
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| (.+) \| `(\S+\.py)(?:::(\w+))?` \|$", page.partition("## Tests\n")[2], re.M)
    assert len(rows) >= 30
    for fault, _, path, name in rows:
        assert (ROOT / "tests" / path).is_file(), fault
        text = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {name or 'test_'}", text, re.M), f"{fault}: {path} has no {name}"
