"""Sources: the models, ops and benchmark modules to tune, and the inputs that a user gives for models."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from pytest_shark_tune.compiler.onnx import import_onnx, onnx_inputs
from pytest_shark_tune.compiler.refusals import InputRefused, refusal
from pytest_shark_tune.dispatch.extraction import read_module
from pytest_shark_tune.dispatch.types import Argument, SizePoint, Tensor
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.forms.form import DEFAULT_FORM, Form
from pytest_shark_tune.ops import OpenModel, OpSource
from pytest_shark_tune.plan.benchmark_file import IsSpec, is_benchmark_file
from pytest_shark_tune.plan.dims import DIM, parse_dims, points_of
from pytest_shark_tune.plan.parameters import ParameterFile, stray_parameters
from pytest_shark_tune.system.cache import file_digest
from pytest_shark_tune.system.files import MODEL_BYTES, check_plain, read_plain

__all__ = ["MODEL_SUFFIXES", "InputFile", "ModelInput", "Source", "check_data", "read_source", "read_sources"]

MODEL_SUFFIXES = (".mlir", ".mlirbc", ".onnx")

_SHAPE, _DATA, _FUNCTION = "--tune-input-shape", "--tune-input", "--tune-function"
_MOST_DIGITS = 9
_KINDS = (
    (re.compile(r"f(16|32|64)"), "f"),
    (re.compile(r"[su]?i(8|16|32|64)"), "iu"),
    (re.compile(r"bf(16)|f(8)E\w+"), "V"),
)
"""Element types of whole bytes, and the kinds of numpy's types that hold them. V is for the others."""


class InputFile(msgspec.Struct, frozen=True):
    """An array in an ``.npy`` file."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    """The type as numpy writes it, such as ``<f4``."""
    sha256: str
    """The digest of the file."""
    is_plain: bool = True
    """Whether IREE's own tools read it, too. They read neither types without a name in numpy nor Fortran's order."""

    @classmethod
    def read(cls, path: Path) -> InputFile:
        """Read the description of the array in a file.

        Raises:
            InputError: the file cannot be read, or does not hold an array of numbers.
        """
        try:
            check_plain(path)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            digest = file_digest(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # NumPy's reader lets errors of any kind out of damaged files.
            raise InputError(f"{path} holds no array that numpy.save wrote") from error
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path} holds several arrays: save each of them with numpy.save")
        is_plain = array.dtype.kind != "V" and array.flags.c_contiguous
        return cls(str(path.absolute()), array.shape, array.dtype.str, digest, is_plain)

    @property
    def content(self) -> tuple[object, ...]:
        """The array for content keys, without its path."""
        return (self.shape, self.dtype, self.sha256, self.is_plain)

    def mismatch(self, tensor: Tensor) -> str:
        """Return the reason why the array cannot be ``tensor``, or an empty text if it can."""
        dtype = np.dtype(self.dtype)
        if self.shape != tensor.shape or not _holds(dtype, tensor.element):
            wanted = "x".join(map(str, (*tensor.shape, tensor.element)))
            return f"{self.path} holds {'x'.join(map(str, (*self.shape, dtype.name)))}, and the input is {wanted}"
        if not dtype.isnative:
            return f"{self.path} has another byte order than this machine: save it again here"
        return ""


class ModelInput(msgspec.Struct, frozen=True, kw_only=True):
    """The user's inputs for the models of a run. They apply to the models that have such an input or function."""

    shapes: dict[str, tuple[int, ...]] = {}
    """The shapes of inputs by name. Only an ONNX model's inputs have names."""
    data: dict[str, InputFile] = {}
    """The data of inputs by name, or by position."""
    function: str = ""
    """The function to run whole."""
    dims: dict[str, tuple[int, ...]] = {}
    """The sizes of open dimensions, by input and dimension."""
    parameters: tuple[ParameterFile, ...] = ()
    """The files with parameters. A model takes those of the scopes that it refers to."""

    @classmethod
    def parse(
        cls,
        shapes: Iterable[str] = (),
        data: Iterable[str] = (),
        function: str = "",
        parameters: Iterable[str] = (),
        dims: Iterable[str] = (),
        *,
        base: Path = Path(),
    ) -> ModelInput:
        """Read lines such as ``x=1x3x48x320``, ``x=FILE.npy``, ``SCOPE=FILE.irpa`` and ``x.0=1,16``.

        Files are relative to ``base``.

        Raises:
            InputError: a line has another form, an input is given twice, or a file does not hold an array or
                parameters. The message names the option.
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
        archives = tuple(ParameterFile.parse(line, base) for line in parameters)
        return cls(shapes=sizes, data=files, function=function, parameters=archives, dims=parse_dims(dims))

    def data_of(self, names: Sequence[str]) -> dict[int, InputFile]:
        """Return the data for a model by position. ``names`` are its inputs' names, empty if they have none.

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
        """Report an input, function or scope that none of the ``models`` has. The text is empty if all is well."""
        if not models:
            return ""
        inputs = {name for model in models for name in model.input_names}
        by_name = {
            _SHAPE: list(self.shapes),
            _DATA: [name for name in self.data if not _is_number(name)],
            DIM: [name for key in self.dims if not _is_number(name := key.rpartition(".")[0])],
        }
        for option, names in by_name.items():
            for name in names:
                if name not in inputs:
                    known = "; ".join(dict.fromkeys(map(_inputs_of, models)))
                    return f"{option} {name}: there is no model with an input {name!r}: {known}"
        if self.dims and not any(model.points for model in models):
            return f"{DIM} {next(iter(self.dims))}: no dispatch of a model depends on this dimension as an open one"
        functions = {name for model in models for name in model.functions}
        if self.function and self.function not in functions:
            known = ", ".join(map(repr, sorted(functions))) or "none"
            return f"{_FUNCTION}: no function with inputs of fixed shapes is called {self.function!r}: there is {known}"
        return stray_parameters(self.parameters, (file for model in models for file in model.parameters))


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A model, or one executable benchmark module, as MLIR text."""

    name: str
    text: str
    is_benchmark: bool
    functions: dict[str, tuple[Argument, ...]] = {}
    """The public functions that take only tensors of fixed shapes and numbers, with these. A benchmark has none."""
    is_op: bool = False
    """Whether it is a single op of `pytest_shark_tune.ops`, not a model."""
    input_names: tuple[str, ...] = ()
    """The names of an ONNX model's inputs."""
    function: str = ""
    """The function to run whole, if the user chose one."""
    data: dict[int, InputFile] = {}
    """The user's data by the input's position. The other inputs are random."""
    parameters: tuple[ParameterFile, ...] = ()
    """The files with its parameters; before its dispatches are known, all files that the user gave."""
    points: tuple[SizePoint, ...] = ()
    """The sizes for its open dimensions; before its dispatches are known, also those for dimensions that are fixed."""
    called: dict[str, tuple[str, ...]] = {}
    """The executables that each function calls, as far as known."""
    why_not_run: str = ""
    """The reason why no function is run, although their inputs can be made up."""
    form: Form = DEFAULT_FORM
    """How the model is handed to the compiler. ``text`` has the form's rewrites already."""
    model: str = ""
    """The name of the model that this is a form of; empty for the model itself."""
    path: str = ""
    """The file that it was read from; empty for an op."""
    shapes: dict[str, tuple[int, ...]] = {}
    """The sizes that the user gave for inputs of an ONNX model."""

    @property
    def model_name(self) -> str:
        """The name of the model, whatever its form."""
        return self.model or self.name

    @property
    def label(self) -> str:
        """Its name in messages about its text: that of its file, if it was read from one."""
        return Path(self.path).name if self.path else self.name

    @property
    def is_model(self) -> bool:
        """Whether it is a model, neither a single op nor one dispatch."""
        return not self.is_op and not self.is_benchmark

    @property
    def run_whole(self) -> tuple[str, ...]:
        """The functions to run: the user's choice, or all of them, or none if the model cannot be run."""
        if self.why_not_run:
            return ()
        return (self.function,) if self.function else tuple(self.functions)

    @property
    def files(self) -> dict[int, str]:
        """The paths of the data files by the input's position."""
        return {number: file.path for number, file in self.data.items()}

    @property
    def largest(self) -> dict[tuple[int, int], int]:
        """The largest of the sizes for open dimensions, with which functions are run whole."""
        points = [point.by_dimension for point in self.points]
        return max(points, key=lambda sizes: math.prod(sizes.values()), default={})

    @property
    def parameter_arguments(self) -> tuple[str, ...]:
        """The files with its parameters, as IREE's tools take them."""
        return tuple(file.argument for file in self.parameters)

    def refused(self, error: CommandFailed) -> InputRefused:
        """The reason why iree-compile does not compile it."""
        return refusal(self.label, error, is_onnx=Path(self.path).suffix == ".onnx")

    @property
    def content(self) -> tuple[object, ...]:
        """Everything that results about it depend on, for content keys."""
        data = sorted((number, file.content) for number, file in self.data.items())
        parameters = [[file.content for file in self.parameters]] if self.parameters else []
        points = [self.points] if self.points else []
        return (self.name, self.text, self.function, data, *self.form.flags, *parameters, *points)


def read_sources(
    given: Sequence[object],
    directory: Path,
    asked: ModelInput = ModelInput(),  # noqa: B008 - it is frozen
) -> tuple[Source, ...]:
    """Read every source as `read_source` does. Equal names get a number, since dispatches go by their source's name.

    Raises:
        InputError: as `read_source` does.
    """
    seen: Counter[str] = Counter()
    apart = []
    for source in (read_source(item, directory, asked) for item in given):
        seen[source.name] += 1
        number = seen[source.name]
        apart.append(source if number == 1 else msgspec.structs.replace(source, name=f"{source.name}_{number}"))
    return tuple(apart)


def read_source(given: object, directory: Path, asked: ModelInput = ModelInput()) -> Source:  # noqa: B008 - it is frozen
    """Read a source of a marker, or of the command line: an op, or a path relative to ``directory``.

    ``asked`` are the user's inputs for models.

    Raises:
        InputError: the source is neither a path nor an op, the file is absent, or this IREE does not parse it.
    """
    if isinstance(given, OpSource):
        points = points_of(dict(given.dims), ())
        return Source(name=given.name, text=given.text, is_benchmark=False, is_op=True, points=points)
    if isinstance(given, OpenModel):
        lines = [f"{key}={','.join(map(str, sizes))}" for key, sizes in given.dims.items()]
        asked = msgspec.structs.replace(asked, dims=parse_dims(lines))
        given = given.path
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(
            f"{given!r} is not a source: give a path to {', '.join(MODEL_SUFFIXES)}, an op such as "
            "ops.matmul(m=512, n=512, k=512) or a CustomTask"
        )
    path = directory / given
    if path.suffix not in MODEL_SUFFIXES:
        raise InputError(f"{path} is not one of {', '.join(MODEL_SUFFIXES)}")
    names: tuple[str, ...] = ()
    try:
        check_plain(path)
        if path.suffix == ".onnx":
            text = import_onnx(path, asked.shapes, open_dims=asked.dims)
            names = onnx_inputs(path)
        else:
            text = read_module(read_plain(path, MODEL_BYTES))
        is_benchmark = path.suffix != ".onnx" and is_benchmark_file(text)
    except IsSpec as error:
        raise IsSpec(f"{path}: {error}") from error
    except InputError as error:
        if path.suffix == ".onnx":  # Its errors name it.
            raise
        raise InputError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except CommandFailed as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if is_benchmark:
        return Source(name=path.stem, text=text, is_benchmark=True, path=str(path.absolute()))
    return Source(
        name=path.stem,
        text=text,
        is_benchmark=False,
        input_names=names,
        function=asked.function,
        data=asked.data_of(names),
        parameters=asked.parameters,
        points=points_of(asked.dims, names),
        path=str(path.absolute()),
        shapes={name: shape for name, shape in asked.shapes.items() if name in names},
    )


def check_data(name: str, data: Mapping[int, InputFile], functions: Mapping[str, Sequence[Tensor]]) -> None:
    """Check that the data for the model ``name`` fits the inputs of its only function in ``functions``.

    Raises:
        InputError: the data does not fit, or there is not exactly one function.
    """
    if data and len(functions) != 1:
        has = f"several functions, {', '.join(map(repr, functions))}: choose one with {_FUNCTION}"
        has = has if functions else "no public function that takes only tensors of fixed shapes and numbers"
        raise InputError(f"{_DATA}: {name} has {has}")
    for inputs in functions.values():
        for number, file in data.items():
            if number >= len(inputs):
                raise InputError(f"{_DATA} {number}: {name} has {len(inputs)} inputs, numbered from 0")
            if why := file.mismatch(inputs[number]):
                raise InputError(f"{_DATA} {number}: {why}")


def _holds(dtype: np.dtype[np.generic], element: str) -> bool:
    """Return whether arrays of ``dtype`` have elements of an MLIR type, apart from their sign."""
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
    return name.isascii() and name.isdecimal() and len(name) <= _MOST_DIGITS


def _inputs_of(model: Source) -> str:
    names = ", ".join(map(repr, model.input_names))
    return f"{model.name} has {names}" if names else f"those of {model.name} have no names, only numbers from 0"
