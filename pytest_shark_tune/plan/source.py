"""Sources: models, ops and benchmark modules whose dispatches are tuned."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pytest_shark_tune.compiler.onnx import import_onnx, onnx_inputs
from pytest_shark_tune.dispatch.extraction import (
    is_benchmark_module,
    read_module,
)
from pytest_shark_tune.dispatch.types import Tensor
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.model_input import InputFile, ModelInput

__all__ = ["MODEL_SUFFIXES", "Source", "read_source"]


MODEL_SUFFIXES = (".mlir", ".mlirbc", ".onnx")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A model, or one executable benchmark module, as MLIR text.

    ``functions`` are the public functions whose inputs can be made up, with their types; a benchmark module
    has none. ``is_op`` says that it holds a single op that was asked for by name, and no model. ``input_names`` are
    those of an ONNX model's inputs. ``function`` is the one that is run whole, where one was asked for, and ``data``
    what it takes, by the input's position; all else is made up.

    ``called`` are the executables that each function calls, as far as that is known. ``why_not_run`` says why none of
    its functions is run, though their inputs can be made up.
    """

    name: str
    text: str
    is_benchmark: bool
    functions: dict[str, tuple[Tensor, ...]] = {}
    is_op: bool = False
    input_names: tuple[str, ...] = ()
    function: str = ""
    data: dict[int, InputFile] = {}
    called: dict[str, tuple[str, ...]] = {}
    why_not_run: str = ""

    @property
    def run_whole(self) -> tuple[str, ...]:
        """The functions that are run: the one that was asked for, or all; none where it cannot be run."""
        if self.why_not_run:
            return ()
        return (self.function,) if self.function else tuple(self.functions)

    @property
    def files(self) -> dict[int, str]:
        """The paths of its data, by the input's position."""
        return {number: file.path for number, file in self.data.items()}

    @property
    def content(self) -> tuple[object, ...]:
        """All that what is found out about it depends on, for content keys."""
        data = sorted((number, file.content) for number, file in self.data.items())
        return (self.name, self.text, self.function, data)


def read_source(given: object, folder: Path, asked: ModelInput = ModelInput()) -> Source:  # noqa: B008 - it is frozen
    """Read what a user gave to the marker, or on the command line; a path is relative to ``folder``.

    ``asked`` is what the user says of models, and not of ops.

    Raises:
        InputError: it is no path and no op, the file is absent, or it is not MLIR that this IREE parses.
    """
    if isinstance(given, OpSource):
        return Source(name=given.name, text=given.text, is_benchmark=False, is_op=True)
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(
            f"{given!r} is no source: give a path to {', '.join(MODEL_SUFFIXES)}, an op such as "
            "ops.matmul(m=512, n=512, k=512) or a CustomTask"
        )
    path = folder / given
    if path.suffix not in MODEL_SUFFIXES:
        raise InputError(f"{path} is not one of {', '.join(MODEL_SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    names: tuple[str, ...] = ()
    try:
        if path.suffix == ".onnx":
            text = import_onnx(path, asked.shapes)
            names = onnx_inputs(path)
        else:
            text = read_module(path.read_bytes())
    except InputError as error:
        raise InputError(str(error) if path.suffix == ".onnx" else f"{path}: {error}") from error
    except (CommandFailed, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if is_benchmark_module(text):
        return Source(name=path.stem, text=text, is_benchmark=True)
    return Source(
        name=path.stem,
        text=text,
        is_benchmark=False,
        input_names=names,
        function=asked.function,
        data=asked.data_of(names),
    )
