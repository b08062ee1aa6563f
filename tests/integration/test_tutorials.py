"""The code blocks of the README and the tutorials, run as a reader would run them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)
GPU = re.compile(r"--tune-target (cuda|hip|vulkan)")


class Block(NamedTuple):
    """A code block: its language, the file that it is to be saved as, and its text."""

    language: str
    title: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def commands_in(block: Block) -> Iterator[str]:
    """Its commands, but for the installation. What needs a GPU is compiled for it."""
    for line in block.text.splitlines():
        if "pip install" in line or not line.strip():
            continue
        is_tuning = " --tune " in f"{line} "
        yield f"{line} --tune-stop-after compile --tune-trials 2" if is_tuning and GPU.search(line) else line


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_can_be_followed(page: Path, tmp_path: Path) -> None:
    if page.stem == "pytorch":
        pytest.importorskip("iree.turbine")
    bin_directory = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment |= {"PYTEST_ADDOPTS": f"--tune-cache={shlex.quote(str(tmp_path / 'cache'))}"}
    ran = 0
    for block in blocks_of(page):
        if block.title:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
        for command in commands_in(block) if block.language == "sh" else ():
            named = [word for word in shlex.split(command) if word.endswith((".mlir", ".json"))]
            if not all((tmp_path / word).exists() or word.endswith("vmfb") for word in named):
                continue  # Nothing won, or the file is the reader's own.
            done = subprocess.run(
                command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            ran += 1
    assert ran


def test_the_blocks_of_tutorials_are_found() -> None:
    assert len(TUTORIALS) >= 4
    for page in TUTORIALS:
        languages = [block.language for block in blocks_of(page)]
        assert "sh" in languages
        assert page.read_text(encoding="utf-8").count("```") == 2 * len(languages)


def test_the_python_of_pages_compiles() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        for block in blocks_of(page):
            if block.language == "python":
                compile(block.text, str(page), "exec")
