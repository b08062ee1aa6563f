"""``shark-tune rewrite``: a model whose graph computes the same and compiles to faster code."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.options import Command, shape_option
from pytest_shark_tune.commands.output import check_output_path, report
from pytest_shark_tune.compiler.onnx import import_onnx
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.mlir_rewrites import mlir_rewrite_names, rewrite_mlir
from pytest_shark_tune.forms.onnx_rewrites import INTO_PRODUCTS, REWRITES, rewrite_onnx
from pytest_shark_tune.plan.source import ModelInput
from pytest_shark_tune.system.cleanup import scratch_directory

__all__ = ["rewrite_model"]

_NAMES = (*REWRITES, *mlir_rewrite_names(), "none")


@click.command(name="rewrite", cls=Command, short_help="Write convolutions of an ONNX model as products.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The file to write: .onnx, or .mlir, imported.",
)
@click.option(
    "--rewrite",
    "rewrites",
    multiple=True,
    metavar="NAME",
    type=click.Choice(_NAMES),
    help=f"A rewrite to apply: {', '.join(_NAMES)}. Repeatable, in order (default: those into products); none imports "
    "MODEL as it is.",
)
@shape_option
def rewrite_model(model: Path, output: Path, rewrites: tuple[str, ...], shapes: tuple[str, ...]) -> None:
    """Write convolutions of the ONNX model MODEL as matrix products where they are products.

    These are convolutions with a kernel of 1 and transposed convolutions whose stride is their kernel. The rewrite
    strided-convolutions writes those with a stride along the rows, and few channels in a group, as convolutions with
    stride 1, which are faster once they are tuned. Other rewrites change the imported module, so OUTPUT is then a .mlir
    file. The same model gives the same bytes every time.
    """
    check_output_path(output)
    sizes = ModelInput.parse(shapes).shapes
    of_module = [name for name in rewrites if name in mlir_rewrite_names()]
    of_graph = [name for name in rewrites if name in REWRITES] if rewrites else list(INTO_PRODUCTS)
    if output.suffix != ".mlir" and (of_module or not of_graph):
        raise InputError(f"-o {output}: {', '.join(rewrites)} gives an imported module: name a .mlir file")
    with scratch_directory() as directory:
        graph, left = model, sizes
        if of_graph:
            graph, left = (directory / "model.onnx" if output.suffix == ".mlir" else output), {}
            for result in rewrite_onnx(model, graph, of_graph, shapes=sizes):
                _report(result.name, len(result.nodes))
        if output.suffix == ".mlir":
            text, counts = rewrite_mlir(import_onnx(graph, left), of_module)
            for name, count in counts.items():
                _report(name, count)
            output.write_text(text, encoding="utf-8")


def _report(name: str, count: int) -> None:
    report(f"{name}: {count} {'place' if count == 1 else 'places'} rewritten")
