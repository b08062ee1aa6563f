"""ONNX Runtime, or the evaluator of the package onnx, in a process of its own. It imports nothing of this package.

``python onnx_child.py MODEL.onnx INPUTS.npz OUTPUTS.npz THREADS ENGINE`` runs the model once on the inputs, in their
order, and writes its outputs, in theirs. ENGINE is ``onnxruntime``, or ``any`` for what there is. Then it prints the
name and the version of what ran it, and answers each number on a line of stdin with the seconds that so many runs took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def main(model: str, inputs: str, outputs: str, threads: str, engine: str) -> None:
    """Run the model, then as often as stdin asks for."""
    given = np.load(inputs)
    arrays = [given[name] for name in given.files]
    name, run = _engine(model, arrays, int(threads), may_evaluate=engine == "any")
    np.savez(outputs, *run())
    _answer(name)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            run()
        _answer(time.perf_counter() - started)


def _answer(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def _engine(model: str, arrays: list[Any], threads: int, *, may_evaluate: bool) -> tuple[str, Callable[[], list[Any]]]:
    """What runs the model, and a callable that runs it on the arrays."""
    try:
        import onnxruntime
    except ImportError:
        if not may_evaluate:
            raise
        import onnx
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(model)
        fed = dict(zip(evaluator.input_names, arrays, strict=True))
        return f"onnx's evaluator {onnx.__version__}", lambda: list(evaluator.run(None, fed))
    session = _session(onnxruntime, model, arrays, threads)
    feeds = dict(zip([each.name for each in session.get_inputs()], arrays, strict=True))
    return f"ONNX Runtime {onnxruntime.__version__}", lambda: list(session.run(None, feeds))


def _session(onnxruntime: Any, model: str, arrays: list[Any], threads: int) -> Any:
    """A session for just these shapes, as IREE compiles for them, that leaves the processors alone between runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    loose = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    named: dict[str, set[int]] = {}
    for each, array in zip(loose.get_inputs(), arrays, strict=True):
        for name, size in zip(each.shape, array.shape, strict=True):
            if isinstance(name, str):
                named.setdefault(name, set()).add(size)
    # Some models call all open dimensions alike, such as "?".
    fixed = {name: sizes.pop() for name, sizes in named.items() if len(sizes) == 1}
    if not fixed:
        return loose
    for name, size in fixed.items():
        options.add_free_dimension_override_by_name(name, size)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main(*sys.argv[1:])
