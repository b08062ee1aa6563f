"""Comparisons on the device agree with the host's, and a module that finds no errors is not believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.buffers import BufferImage, BufferLayout, Output
from pytest_shark_tune.device.comparison import Expected, ResultComparer
from pytest_shark_tune.device.elements import as_bytes, byte_size, element_type, smallest_step, to_array
from pytest_shark_tune.device.hal_device import HalDevice
from pytest_shark_tune.device.inputs import InputData
from pytest_shark_tune.dispatch.comparison import comparison_module
from pytest_shark_tune.dispatch.types import BenchmarkModule, BufferView
from pytest_shark_tune.measurement.correctness import Tolerance, check_output, magnitude, tolerance_for
from tests.thinned import thinned

pytestmark = pytest.mark.compiler
START, SHAPE, COPIES = 256, (271, 257), 2
"""The elements fill one row of the module's and part of another."""


def view(start: int, shape: tuple[int, ...], element: str, *, writes: bool) -> BufferView:
    return BufferView(offset_bytes=start, shape=shape, element=element, reads=not writes, writes=writes)


def benchmark(element: str) -> BenchmarkModule:
    stride = -(-(START + byte_size(element, SHAPE) + 64) // 256) * 256
    views = (view(0, (50,), "f32", writes=False), view(START, SHAPE, element, writes=True))
    return BenchmarkModule(
        text="", run_function="", buffer_function="", buffer_bytes=COPIES * stride, views=views, copies=COPIES
    )


def compiled(text: str, out: Path) -> Path:
    Compiler(Target.parse("llvm-cpu")).compile_module(text, out, "comparison", ["--iree-input-demote-f64-to-f32=false"])
    return out


@pytest.mark.parametrize("element", thinned(["f32", "f16", "f64", "i8"], every=4))
def test_device_and_host_agree(element: str, tmp_path: Path) -> None:
    module, device, kind = benchmark(element), HalDevice("local-task"), element_type(element)
    stride, size = module.buffer_bytes // COPIES, byte_size(element, SHAPE)
    layout = BufferLayout(module.views, COPIES, stride)
    text = comparison_module(module)
    assert text is not None
    comparer = ResultComparer(device, str(compiled(text, tmp_path / "compare.vmfb")), layout)
    rng, count = np.random.default_rng(0), size * 8 // kind.bits
    is_float = kind.kind == "float"
    stored = (rng.standard_normal(count) if is_float else rng.integers(-99, 99, count)).astype(kind.dtype)
    if is_float:
        stored[[3, 50]] = [np.nan, np.inf]
    values = to_array(as_bytes(stored), element, SHAPE)
    tolerance = tolerance_for(element, "f64" if element == "f64" else "f32", 500).stored_as(element)
    if not is_float:
        tolerance = Tolerance(0.0, 0.0, steps=0.001)
    scale = magnitude(values) if is_float else 0.0
    image = BufferImage(layout, InputData(1))
    verdicts = set()
    for finite_only in (False, True):
        scales = np.full(count, -scale if finite_only else scale, np.float32) if is_float else None
        expected = Expected(Output(element, SHAPE, as_bytes(stored)), tolerance, scales)
        staged = comparer.stage([expected], image)
        assert comparer.is_trusted(staged, [expected], image)
        for fault in range(8):
            host = image.host.copy()
            copies = host.reshape(COPIES, stride)
            copies[:, START : START + size] = as_bytes(stored)
            last = copies[-1, START : START + size].view(kind.dtype)
            with np.errstate(all="ignore"):
                if fault == 1:  # One element, by far.
                    last[-1] = -last[-1] - 3
                elif fault == 2:  # NaN in place of a number.
                    last[7] = np.nan if is_float else 100
                elif fault == 3:  # A number in place of a NaN.
                    last[3] = 1
                elif fault == 4:  # All elements, by half of what is allowed, or few by one.
                    part = 0.5 if is_float else 0
                    near = np.abs(last) * tolerance.rtol + scale * tolerance.atol_scale + smallest_step(element)
                    last[:] = (last + part * near).astype(kind.dtype)
                elif fault == 5:  # A few by a rounding, or by one.
                    last[:20] = last[:20] * (1 + 1.5 * tolerance.stored) if is_float else last[:20] + 1
                elif fault == 6:  # All by a rounding, or by one.
                    last[:] = last * (1 + 1.5 * tolerance.stored + 9 * tolerance.rtol) if is_float else last + 1
                elif fault == 7:  # A byte outside the outputs.
                    copies[-1, 10] ^= 1
            found = to_array(as_bytes(last).copy(), element, SHAPE)
            check = check_output(
                values, found, tolerance, scale=scale, floor=smallest_step(element), finite_only=finite_only
            )
            is_right = check.ok and fault != 7
            assert (comparer.counts_of_right(device.allocate(host), staged, [expected]) is not None) == is_right, fault
            verdicts.add(is_right)
    assert verdicts == {True, False}


def test_a_module_that_finds_no_errors_is_not_trusted(tmp_path: Path) -> None:
    """As one that a compiler got wrong, so that it calls everything right."""
    module, device = benchmark("i8"), HalDevice("local-task")
    layout = BufferLayout(module.views, COPIES, module.buffer_bytes // COPIES)
    text = comparison_module(module)
    assert text is not None
    blind = text.replace("%bad = arith.andi %differs, %no_step : i1", "%bad = arith.andi %differs, %step : i1")
    assert blind != text
    mark = tmp_path / "mark"
    comparer = ResultComparer(device, str(compiled(blind, tmp_path / "blind.vmfb")), layout, str(mark))
    expected = Expected(Output("i8", SHAPE, np.zeros(byte_size("i8", SHAPE), np.uint8)), Tolerance(0.0, 0.0), None)
    image = BufferImage(layout, InputData(1))
    assert not comparer.is_trusted(comparer.stage([expected], image), [expected], image)
    assert not mark.exists()


def test_types_that_only_the_host_compares_have_no_module() -> None:
    assert comparison_module(benchmark("f8E4M3FN")) is None
    assert comparison_module(benchmark("i4")) is None
