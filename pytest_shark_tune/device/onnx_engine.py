"""Runs ONNX models with ONNX Runtime, or with the evaluator of the package onnx, to compare results and times."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pytest_shark_tune.device.elements import as_bytes, element_type, to_array
from pytest_shark_tune.device.protocol import TensorData
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.system.cleanup import scratch_directory
from pytest_shark_tune.system.machine import processors

__all__ = ["OnnxEngine", "arrays_of", "has_onnxruntime", "run_onnx", "tensors_like"]

_CHILD = Path(__file__).with_name("onnx_child.py")


class OnnxEngine:
    """A model in a process of its own that runs it.

    Args:
        process: the process.
        outputs: the file with the outputs of its first run.
        errors: the file that its stderr goes to.

    Raises:
        InputError: the model cannot be run.
    """

    def __init__(self, process: subprocess.Popen[str], outputs: Path, errors: Path) -> None:
        self._process = process
        self._errors = errors
        self.name = self._answer()
        """The name and the version of what runs it."""
        given = np.load(outputs)
        self.outputs: list[Any] = [given[name] for name in given.files]
        """The outputs of its first run."""

    def run(self, batch: int) -> float:
        """Run the model ``batch`` times, and return the seconds that it took.

        Raises:
            InputError: the process ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{batch}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if line:
            return line
        status = self._process.wait()
        told = self._errors.read_text("utf-8", "replace").strip().splitlines()
        raise InputError(f"ONNX Runtime or onnx's evaluator ended with status {status}: {told[-1] if told else ''}")


@contextmanager
def run_onnx(
    model: Path, inputs: Sequence[Any], python: str = sys.executable, *, is_timed: bool = False
) -> Iterator[OnnxEngine]:
    """Run an ONNX model on arrays, one for each of its inputs in their order.

    Args:
        model: The model file.
        inputs: The arrays.
        python: The Python whose ONNX Runtime, or whose package onnx, runs the model.
        is_timed: Whether its time counts. Then only ONNX Runtime will do, since the evaluator is far slower.

    Raises:
        InputError: The model cannot be run.
    """
    env = dict(os.environ)
    if python != sys.executable:  # Packages of this Python are none of the other's.
        env.pop("PYTHONPATH", None)
    with scratch_directory() as directory:
        given, outputs, errors = (directory / name for name in ("inputs.npz", "outputs.npz", "errors.txt"))
        np.savez(given, *inputs)
        engine = "onnxruntime" if is_timed else "any"
        command = [python, "-P", *map(str, (_CHILD, model, given, outputs, processors(), engine))]
        # ONNX Runtime may write many warnings, which would fill a pipe that nobody reads.
        with (
            errors.open("wb") as stderr,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env
            ) as process,
        ):
            try:
                yield OnnxEngine(process, outputs, errors)
            finally:
                process.kill()


def arrays_of(tensors: Sequence[TensorData]) -> list[Any]:
    """Return tensors as arrays of their own types, as ONNX Runtime takes them."""
    arrays = []
    for tensor in tensors:
        values = to_array(np.frombuffer(tensor.data, np.uint8), tensor.element, tensor.shape)
        narrow = {"f16": np.float16, "i1": np.bool_}.get(tensor.element)
        arrays.append(values.astype(narrow) if narrow is not None else values)
    return arrays


def tensors_like(outputs: Sequence[TensorData], arrays: Sequence[Any]) -> tuple[TensorData, ...]:
    """Return arrays as tensors of the types and shapes of ``outputs``.

    Raises:
        InputError: there are fewer or more of them, or their shapes differ.
    """
    ours, theirs = [output.shape for output in outputs], [np.shape(array) for array in arrays]
    if ours != theirs:
        raise InputError(f"the ONNX model has outputs of the shapes {theirs}, and IREE's of {ours}")
    return tuple(
        TensorData(output.shape, output.element, as_bytes(array.astype(element_type(output.element).dtype)).tobytes())
        for output, array in zip(outputs, arrays, strict=True)
    )


def has_onnxruntime() -> bool:
    """Whether this Python has ONNX Runtime."""
    return importlib.util.find_spec("onnxruntime") is not None
