"""``shark-tune rewrite``: a model whose graph computes the same and compiles to faster code."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.options import Command, shape_option
from pytest_shark_tune.commands.output import check_output_path, report
from pytest_shark_tune.forms.onnx_rewrites import REWRITES, rewrite_onnx
from pytest_shark_tune.plan.source import ModelInput

__all__ = ["rewrite_model"]


@click.command(name="rewrite", cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The ONNX file to write.")
@click.option(
    "--rewrite",
    "rewrites",
    multiple=True,
    type=click.Choice(list(REWRITES)),
    help="A rewrite to apply; repeatable, in order (default: all).",
)
@shape_option
def rewrite_model(model: Path, output: Path, rewrites: tuple[str, ...], shapes: tuple[str, ...]) -> None:
    """Write convolutions of the ONNX model MODEL as matrix products where they are products.

    These are convolutions with a kernel of 1 and transposed convolutions whose stride is their kernel. The same model
    gives the same bytes every time.
    """
    check_output_path(output)
    for result in rewrite_onnx(model, output, rewrites, shapes=ModelInput.parse(shapes).shapes):
        report(f"{result.name}: {len(result.nodes)} {'node' if len(result.nodes) == 1 else 'nodes'} rewritten")
