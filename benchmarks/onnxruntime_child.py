"""ONNX Runtime in a process of its own, asked by ``benchmarks/models.py``; it needs numpy and onnxruntime alone.

``python onnxruntime_child.py MODEL.onnx INPUTS.npz OUTPUTS.npz THREADS`` runs the model once on the inputs, in their
order, and writes its outputs, in theirs. Then it prints its version, and answers each number on a line of stdin with
the seconds that so many runs took.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import onnxruntime


def main(model: str, inputs: str, outputs: str, threads: str) -> None:
    """Run the model, then as often as stdin asks for."""
    given = np.load(inputs)
    arrays = [given[name] for name in given.files]
    session = _session(model, arrays, int(threads))
    feeds = dict(zip([each.name for each in session.get_inputs()], arrays, strict=True))
    np.savez(outputs, *session.run(None, feeds))
    _answer(onnxruntime.__version__)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            session.run(None, feeds)
        _answer(time.perf_counter() - started)


def _answer(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def _session(model: str, arrays: list[Any], threads: int) -> Any:
    """A session for just these shapes, as IREE compiles for them, that leaves the processors alone between runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    loose = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    named = {
        name: size
        for each, array in zip(loose.get_inputs(), arrays, strict=True)
        for name, size in zip(each.shape, array.shape, strict=True)
        if isinstance(name, str)
    }
    if not named:
        return loose
    for name, size in named.items():
        options.add_free_dimension_override_by_name(name, size)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main(*sys.argv[1:])
