"""The code blocks of the README and the tutorials, run as a reader would run them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
README = ROOT / "README.md"
MODEL = ROOT / "tuning_suites" / "quickstart" / "ppocr_rec_33.mlir"
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
    """Its commands, but for the installation. Runs are short, and what needs a GPU is compiled for it."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command = line.rpartition(" && ")[2] if "pip install" in line else line
        if not command.strip() or "pip install" in command or command == "python -m pytest":
            continue
        if " --tune " not in f"{command} ":
            yield command
        elif GPU.search(command):
            yield f"{command} --tune-stop-after compile --tune-trials 2"
        else:
            yield command if "--tune-time" in command else f"{command} --tune-trials 4"


def is_possible(command: str, directory: Path) -> bool:
    """Whether the files that a command reads exist: nothing may have won, and some files are the reader's own."""
    if "--tune-strict" in command:
        return any(directory.glob("*/__specs__/*.mlir"))
    named = [word.rpartition("=")[2] for word in shlex.split(command) if word.endswith((".mlir", ".json"))]
    return all((directory / word).exists() for word in named)


def prepare(page: Path, directory: Path) -> None:
    """Save the blocks that have the name of a file, and make the other files that the commands of the README name."""
    if page == README:
        shutil.copytree(ROOT / "tuning_suites", directory / "tuning_suites")
        (directory / "suite").mkdir()
        shutil.copy(MODEL, directory / "model.mlir")
        shutil.copy(MODEL, directory / "suite" / "model.mlir")
    for block in blocks_of(page):
        if block.title:
            (directory / block.title).write_text(block.text, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, *TUTORIALS], ids=lambda page: page.stem)
def test_a_page_can_be_followed(page: Path, tmp_path: Path) -> None:
    if page.stem == "pytorch":
        pytest.importorskip("iree.turbine")
    bin_directory = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment |= {"PYTEST_ADDOPTS": f"--tune-cache={shlex.quote(str(tmp_path / 'cache'))}"}
    prepare(page, tmp_path)
    ran = 0
    for block in blocks_of(page):
        for command in commands_in(block) if block.language == "sh" else ():
            if not is_possible(command, tmp_path):
                continue
            done = subprocess.run(
                command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            ran += 1
    assert ran


def test_the_blocks_of_tutorials_are_found() -> None:
    assert len(TUTORIALS) >= 4
    assert "suite/test_matmul.py" in [block.title for block in blocks_of(README)]
    for page in (README, *TUTORIALS):
        languages = [block.language for block in blocks_of(page)]
        assert "sh" in languages
        assert page.read_text(encoding="utf-8").count("```") == 2 * len(languages)


def test_the_python_of_pages_compiles() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        for block in blocks_of(page):
            if block.language == "python":
                compile(block.text, str(page), "exec")
