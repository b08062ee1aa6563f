"""``shark-tune init``: a suite for a model, with the lines of an ini file and a CI workflow."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from pytest_shark_tune.commands.options import Command, shape_option
from pytest_shark_tune.commands.output import print_wrapped
from pytest_shark_tune.commands.start.installation import PACKAGE, install_command
from pytest_shark_tune.device.driver.architecture import resolve_target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.source import MODEL_SUFFIXES, ModelInput

__all__ = ["init"]

_SUITE = '''# `pytest {directory} --tune` tunes {name}, `pytest {directory}` guards the result.

import pytest


@pytest.mark.tune({model!r})
def test_dispatch(tuned):
    """One test per pair of a dispatch and a candidate config."""
'''
_WORKFLOW = """name: guard the tuning specs
on:
  pull_request:
  schedule:
    - cron: "0 5 * * 1"
permissions:
  contents: read
jobs:
  guard:
    runs-on: ubuntu-latest
    timeout-minutes: 30
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - run: python -m pip install {install}
      - run: python -m pytest {directory} --tune-strict --tune-report-html=guard.html --junitxml=guard.xml
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: guard
          path: |
            guard.html
            guard.xml
          if-no-files-found: ignore
"""
_FROM_ELSEWHERE = "…  # the package as pip can install it on this runner, e.g. git+https://HOST/OWNER/NAME"
_INCOMPLETE = (
    f"complete the line `pip install` in it: {PACKAGE} is installed here from a directory that no other machine has"
)
_SECTIONS = {
    "pytest.ini": "[pytest]",
    "pyproject.toml": "[tool.pytest.ini_options]",
    "tox.ini": "[pytest]",
    "setup.cfg": "[tool:pytest]",
}
"""The ini files that pytest reads, and where its settings are in them."""


@click.command(cls=Command, short_help="Write a suite for a model, and a workflow for CI.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", "directory", type=click.Path(path_type=Path), default="tuning", show_default=True)
@click.option("--tune-target", default="llvm-cpu", show_default=True, help="As pytest's option.")
@shape_option
def init(model: Path, directory: Path, tune_target: str, shapes: tuple[str, ...]) -> None:
    """Write a suite that tunes and guards MODEL, and a workflow for GitHub that runs it.

    The workflow is written to the root of the repository, and installs the package from where it was installed here.
    Existing files are left as they are. An ini file with settings of pytest's gets no line: the command prints the
    lines to add.
    """
    if model.suffix not in MODEL_SUFFIXES or not model.is_file():
        problem = "there is no such file" if model.suffix in MODEL_SUFFIXES else "this is no model"
        raise InputError(f"{model}: {problem}; give a {', '.join(MODEL_SUFFIXES[:-1])} or {MODEL_SUFFIXES[-1]} file")
    target = str(resolve_target(tune_target))
    ModelInput.parse(shapes)  # It refuses what pytest would refuse.
    test = directory / f"test_{_identifier(model.stem)}.py"
    root = _repository()
    workflow = Path(os.path.relpath(root / ".github" / "workflows" / "guard.yml"))
    install = install_command(root, "[onnx]" if model.suffix == ".onnx" else "")
    shown = shlex.quote(str(directory))
    suite = _SUITE.format(name=model.name, directory=shown, model=os.path.relpath(model, directory))
    from_root = shlex.quote(os.path.relpath(directory, root))
    files = {test: suite, workflow: _WORKFLOW.format(install=install or _FROM_ELSEWHERE, directory=from_root)}
    ini = _ini_file(root)
    if ini is None:
        files[Path("pytest.ini")] = _settings(Path("pytest.ini"), target, shapes)
    for path, text in files.items():
        if path.exists():
            click.echo(f"{path} is there already, and stays")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(f"{path} is written")
        if path == workflow and not install:
            print_wrapped(_INCOMPLETE)
    if ini is not None and (target != "llvm-cpu" or shapes):
        click.echo(f"add to {os.path.relpath(ini)}:\n\n{_settings(ini, target, shapes)}")
    click.echo(f"next: pytest {shown} --tune")


def _repository() -> Path:
    """The root of the repository around the working directory; without one, that directory."""
    here = Path.cwd()
    return next((path for path in (here, *here.parents) if (path / ".git").exists()), here)


def _ini_file(root: Path) -> Path | None:
    """The ini file in the working directory, or in one above it up to ``root``: pytest takes the nearest."""
    here = Path.cwd()
    places = [path for path in (here, *here.parents) if path.is_relative_to(root)]
    return next((path for place in places for name in _SECTIONS if (path := place / name).exists()), None)


def _settings(ini: Path, target: str, shapes: Sequence[str]) -> str:
    """The settings of a run as the lines of an ini file, which has a syntax of its own if it is TOML."""
    lists = {"tune_input_shape": shapes} if shapes else {}
    if ini.suffix == ".toml":
        lines = [f"tune_target = {_quoted(target)}"]
        lines += [f"{name} = [{', '.join(map(_quoted, values))}]" for name, values in lists.items()]
    else:
        lines = [f"tune_target = {target}"]
        lines += [f"{name} =" + "".join(f"\n    {value}" for value in values) for name, values in lists.items()]
    return "\n".join([_SECTIONS[ini.name], *lines, ""])


def _quoted(text: str) -> str:
    """A text as a string of TOML, which has the escapes of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _identifier(stem: str) -> str:
    """A name for a module, of a file's name."""
    return "".join(character if character.isalnum() else "_" for character in stem.lower())
