"""Sources: the models, ops and benchmark modules to tune, and the inputs that a user gives for models."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from pytest_shark_tune.compiler.onnx import import_onnx, onnx_inputs
from pytest_shark_tune.dispatch.extraction import is_benchmark_module, read_module
from pytest_shark_tune.dispatch.types import Tensor
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.ops import OpSource

__all__ = ["MODEL_SUFFIXES", "InputFile", "ModelInput", "Source", "check_data", "read_source", "read_sources"]

MODEL_SUFFIXES = (".mlir", ".mlirbc", ".onnx")

_SHAPE, _DATA, _FUNCTION = "--tune-input-shape", "--tune-input", "--tune-function"
_KINDS = (
    (re.compile(r"f(16|32|64)"), "f"),
    (re.compile(r"[su]?i(8|16|32|64)"), "iu"),
    (re.compile(r"bf(16)|f(8)E\w+"), "V"),
)
"""Element types of whole bytes, and the kinds of numpy's types that hold them; V stands for those it has no name of."""


class InputFile(msgspec.Struct, frozen=True):
    """An array in an ``.npy`` file. ``dtype`` is as numpy writes it (``<f4``), ``sha256`` is that of the file.

    ``is_plain`` says that IREE's own tools read it, too: they know no types that numpy has no name of, nor Fortran's
    order.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    is_plain: bool = True

    @classmethod
    def read(cls, path: Path) -> InputFile:
        """What is in the file ``path``.

        Raises:
            InputError: it cannot be read, or is no array of numbers.
        """
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, EOFError) as error:
            raise InputError(f"{path} holds no array that numpy.save wrote") from error
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path} holds several arrays: save each with numpy.save")
        is_plain = array.dtype.kind != "V" and array.flags.c_contiguous
        return cls(str(path.absolute()), array.shape, array.dtype.str, digest, is_plain)

    @property
    def content(self) -> tuple[object, ...]:
        """What is in it, for content keys: wherever it lies."""
        return (self.shape, self.dtype, self.sha256, self.is_plain)

    def why_not(self, tensor: Tensor) -> str:
        """Why it cannot be ``tensor``, in words; empty where it can."""
        dtype = np.dtype(self.dtype)
        if self.shape != tensor.shape or not _holds(dtype, tensor.element):
            wanted = "x".join(map(str, (*tensor.shape, tensor.element)))
            return f"{self.path} holds {'x'.join(map(str, (*self.shape, dtype.name)))}, and the input is {wanted}"
        if not dtype.isnative:
            return f"{self.path} has its bytes in another order than this machine: save it anew"
        return ""


class ModelInput(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of models: ``shapes`` of inputs by their names, ``data`` by name or position, and a ``function``.

    Only an ONNX model's inputs have names. All of it is for those models that have such an input or function.
    """

    shapes: dict[str, tuple[int, ...]] = {}
    data: dict[str, InputFile] = {}
    function: str = ""

    @classmethod
    def parse(
        cls, shapes: Iterable[str] = (), data: Iterable[str] = (), function: str = "", *, base: Path = Path()
    ) -> ModelInput:
        """Read lines such as ``x=1x3x48x320`` and ``x=FILE.npy``; files are relative to ``base``.

        Raises:
            InputError: a line has another form or names an input again, or a file is no array; the option is named.
        """
        sizes: dict[str, tuple[int, ...]] = {}
        files: dict[str, InputFile] = {}
        for line in shapes:
            name, _, text = line.rpartition("=")
            if not name or not re.fullmatch(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})*", text, re.ASCII):
                raise InputError(f"{_SHAPE}: {line!r} is not NAME=SIZES with whole numbers, as in x=1x3x224x224")
            _refuse_again(_SHAPE, name, sizes)
            sizes[name] = tuple(map(int, text.split("x")))
        for line in data:
            name, _, text = line.partition("=")
            if not name or not text:
                raise InputError(f"{_DATA}: {line!r} is not NAME=FILE.npy or, by the input's number from 0, 0=FILE.npy")
            _refuse_again(_DATA, name, files)
            try:
                files[name] = InputFile.read(base / text)
            except InputError as error:
                raise InputError(f"{_DATA}: {error}") from error
        return cls(shapes=sizes, data=files, function=function)

    def data_of(self, names: Sequence[str]) -> dict[int, InputFile]:
        """The data for a model whose inputs have these ``names``, none where they have none, by position.

        Raises:
            InputError: an input is given by name and by number.
        """
        found: dict[int, InputFile] = {}
        for name, file in self.data.items():
            if name in names:
                number = names.index(name)
            elif _is_number(name):
                number = int(name)
            else:
                continue
            if number in found:
                raise InputError(f"{_DATA}: input {number} is given twice, once by its name")
            found[number] = file
        return found

    def stray(self, models: Sequence[Source]) -> str:
        """Which name none of the ``models`` has, in words; empty where each is one's, and where there is no model."""
        if not models:
            return ""
        inputs = {name for model in models for name in model.input_names}
        by_name = {_SHAPE: list(self.shapes), _DATA: [name for name in self.data if not _is_number(name)]}
        for option, names in by_name.items():
            for name in names:
                if name not in inputs:
                    known = "; ".join(dict.fromkeys(map(_inputs_of, models)))
                    return f"{option} {name}: there is no model with an input {name!r}: {known}"
        functions = {name for model in models for name in model.functions}
        if self.function and self.function not in functions:
            known = ", ".join(map(repr, sorted(functions))) or "none"
            return f"{_FUNCTION}: of what can be run with inputs of fixed shapes none is {self.function!r}: {known}"
        return ""


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


def read_sources(
    given: Sequence[object],
    folder: Path,
    asked: ModelInput = ModelInput(),  # noqa: B008 - it is frozen
) -> tuple[Source, ...]:
    """Read every source as `read_source` does. Equal names get a number, since dispatches go by their source's name.

    Raises:
        InputError: as `read_source` does.
    """
    seen: Counter[str] = Counter()
    apart = []
    for source in (read_source(item, folder, asked) for item in given):
        seen[source.name] += 1
        number = seen[source.name]
        apart.append(source if number == 1 else msgspec.structs.replace(source, name=f"{source.name}_{number}"))
    return tuple(apart)


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


def check_data(name: str, data: Mapping[int, InputFile], functions: Mapping[str, Sequence[Tensor]]) -> None:
    """Make sure that the data for the model ``name`` is what its only function of ``functions`` takes.

    Raises:
        InputError: it is not, or there is another number of functions.
    """
    if data and len(functions) != 1:
        has = f"several functions, {', '.join(map(repr, functions))}: choose one with {_FUNCTION}"
        has = has if functions else "no public function that takes tensors of fixed shapes alone"
        raise InputError(f"{_DATA}: {name} has {has}")
    for inputs in functions.values():
        for number, file in data.items():
            if number >= len(inputs):
                raise InputError(f"{_DATA} {number}: {name} has {len(inputs)} inputs, whose numbers start at 0")
            if why := file.why_not(inputs[number]):
                raise InputError(f"{_DATA} {number}: {why}")


def _holds(dtype: np.dtype[np.generic], element: str) -> bool:
    """Whether arrays of ``dtype`` have the elements of an MLIR type; signs are the reader's affair."""
    if element == "i1":
        return dtype.kind == "b"
    if element.startswith("complex<f"):
        return dtype.kind == "c" and dtype.itemsize * 4 == int(element[len("complex<f") : -1])
    for pattern, kinds in _KINDS:
        if match := pattern.fullmatch(element):
            return dtype.kind in kinds and dtype.itemsize * 8 == int(next(filter(None, match.groups())))
    return False


def _refuse_again(option: str, name: str, known: Mapping[str, object]) -> None:
    if name in known:
        raise InputError(f"{option}: {name} is given twice")


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _inputs_of(model: Source) -> str:
    names = ", ".join(map(repr, model.input_names))
    return f"{model.name} has {names}" if names else f"those of {model.name} have no names, only numbers from 0"
