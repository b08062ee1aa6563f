"""Models of random parameters: their text, and the files of their parameters in each format that IREE reads."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import iree.runtime as rt
import numpy as np
from numpy.typing import NDArray

__all__ = ["parameter_model", "random_parameters", "write_parameters"]

Arrays = Mapping[str, NDArray[np.float32]]


def parameter_model(rows: int, *widths: int, scope: str = "model") -> str:
    """A function of f32 matmuls whose right sides are the parameters ``w0``, ``w1`` and so on.

    ``parameter_model(64, 128, 96)`` takes a matrix of 64x128 elements and a parameter of 128x96.
    """
    weights = [f"tensor<{inner}x{outer}xf32>" for inner, outer in pairwise(widths)]
    named = f'"{scope}"::' if scope else ""
    dialects = ["flow", "stream"]
    text = "".join(
        f'util.global private @w{number} = #{dialects[number % 2]}.parameter.named<{named}"w{number}"> : {kind}\n'
        for number, kind in enumerate(weights)
    )
    results = [f"tensor<{rows}x{width}xf32>" for width in widths]
    body = ""
    for number, kind in enumerate(weights):
        taken, given = results[number], results[number + 1]
        body += f"""
  %w{number} = util.global.load @w{number} : {kind}
  %e{number} = tensor.empty() : {given}
  %f{number} = linalg.fill ins(%zero : f32) outs(%e{number} : {given}) -> {given}
  %x{number + 1} = linalg.matmul ins(%x{number}, %w{number} : {taken}, {kind}) outs(%f{number} : {given}) -> {given}"""
    return f"""{text}
func.func @main(%x0: {results[0]}) -> {results[-1]} {{
  %zero = arith.constant 0.0 : f32{body}
  return %x{len(weights)} : {results[-1]}
}}
"""


def random_parameters(*widths: int) -> dict[str, NDArray[np.float32]]:
    """The parameters of `parameter_model`, always the same."""
    random = np.random.default_rng(0)
    return {f"w{number}": random.standard_normal(shape, np.float32) for number, shape in enumerate(pairwise(widths))}


def write_parameters(path: Path, arrays: Arrays) -> Path:
    """Write f32 arrays to a file of the format that its suffix names."""
    if path.suffix == ".irpa":
        index = rt.ParameterIndex()
        for key, array in arrays.items():
            index.add_buffer(key, array.tobytes())
        index.create_archive_file(str(path))
        return path
    path.write_bytes({".safetensors": _safetensors, ".gguf": _gguf}[path.suffix](arrays))
    return path


def _safetensors(arrays: Arrays) -> bytes:
    header, offset = {}, 0
    for key, array in arrays.items():
        header[key] = {"dtype": "F32", "shape": array.shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in arrays.values())


def _gguf(arrays: Arrays, alignment: int = 32) -> bytes:
    head, data = b"GGUF" + struct.pack("<IQQ", 3, len(arrays), 0), b""
    for key, array in arrays.items():
        name, sizes = key.encode(), array.shape[::-1]
        head += struct.pack("<Q", len(name)) + name
        head += struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, 0, len(data))
        data += array.tobytes() + b"\0" * (-array.nbytes % alignment)
    return head + b"\0" * (-len(head) % alignment) + data
