"""The files that commands read: models and specs."""

from __future__ import annotations

from pathlib import Path

from pytest_shark_tune.commands.output import report
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.source import ModelInput, Source, read_source
from pytest_shark_tune.records.snapshot import read_spec_file
from pytest_shark_tune.spec.read import dropped_prints

__all__ = ["read_model", "read_whole_spec", "report_dropped"]


def read_model(path: Path, shapes: tuple[str, ...], dims: tuple[str, ...] = ()) -> Source:
    """Read a model with inputs that it leaves open.

    Args:
        path: The model.
        shapes: The sizes of inputs, as ``--tune-input-shape`` takes them.
        dims: The sizes of dimensions that stay open, as ``--tune-dim`` takes them.

    Raises:
        InputError: the model cannot be read, or has no such input.
    """
    asked = ModelInput.parse(shapes, dims=dims)
    source = read_source(path, Path(), asked)
    if problem := asked.stray([source]):
        raise InputError(problem)
    return source


def read_whole_spec(path: Path) -> str:
    """Read a spec that must parse, and report its ops that are left out.

    Raises:
        InputError: the spec cannot be read, or does not parse.
    """
    text = read_spec_file(path)
    report_dropped(path, text)
    return text


def report_dropped(name: object, text: str) -> None:
    """Report the ops of a spec that are left out, since they only print."""
    for sentence in dropped_prints(text):
        report(f"{name}: {sentence}")
