"""What commands that take a MODEL ask about it, as pytest's options of the same names do."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.source import ModelInput, Source, read_source

__all__ = ["read_model", "shape_option"]

shape_option = click.option(
    "--tune-input-shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZES",
    help="The sizes of an ONNX model's input, as in x=1x3x224x224; repeatable.",
)


def read_model(path: Path, shapes: tuple[str, ...]) -> Source:
    """Read a model, its inputs being of ``shapes`` where it leaves them open.

    Raises:
        InputError: it cannot be read, or has no such input.
    """
    asked = ModelInput.parse(shapes)
    source = read_source(path, Path(), asked)
    if problem := asked.stray([source]):
        raise InputError(problem)
    return source
