"""Data in several copies: every dispatch works on the next one, and whatever it leaves undone there is seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.protocol import TensorData
from pytest_shark_tune.dispatch.extraction import read_benchmark
from pytest_shark_tune.dispatch.rotation import rotated
from pytest_shark_tune.dispatch.types import BenchmarkModule, FoundDispatch
from pytest_shark_tune.measurement.correctness import EXACT
from tests.factories import running

COMPILER = Compiler(Target.parse("llvm-cpu"))
COPIES = 5
# A right result that looks like poison: NaNs of 0/0, and -91, whose byte is A5.
SOURCES = {
    "sum": """
        func.func @main(%x: tensor<300xf32>, %y: tensor<300xf32>) -> tensor<300xf32> {
          %sum = arith.addf %x, %y : tensor<300xf32>
          return %sum : tensor<300xf32>
        }
    """,
    "nan": """
        func.func @main(%x: tensor<300xf16>) -> tensor<300xf16> {
          %zero = arith.subf %x, %x : tensor<300xf16>
          %nan = arith.divf %zero, %zero : tensor<300xf16>
          return %nan : tensor<300xf16>
        }
    """,
    "odd": """
        func.func @main(%x: tensor<300xi8>) -> tensor<300xi8> {
          %odd = arith.constant dense<-91> : tensor<300xi8>
          %zero = arith.constant dense<0> : tensor<300xi8>
          %low = arith.cmpi sge, %x, %zero : tensor<300xi8>
          %some = arith.select %low, %x, %odd : tensor<300xi1>, tensor<300xi8>
          return %some : tensor<300xi8>
        }
    """,
}


class Built(msgspec.Struct, frozen=True):
    module: BenchmarkModule
    vmfb: Path


def compiled(module: BenchmarkModule, vmfb: Path) -> Built:
    COMPILER.compile_sources(module.text, vmfb)
    return Built(module, vmfb)


@pytest.fixture(scope="module")
def plain() -> dict[str, BenchmarkModule]:
    """One benchmark for each source."""
    modules = {}
    for name, source in SOURCES.items():
        (text,) = COMPILER.dump_benchmarks(source, name)
        found = read_benchmark(text, name, processors=2)
        assert isinstance(found, FoundDispatch)
        modules[name] = found.module
    return modules


@pytest.fixture(scope="module")
def child() -> Iterator[DeviceChild]:
    with DeviceChild("local-task") as child:
        yield child


def load(child: DeviceChild, key: str, built: Built) -> None:
    child.load_benchmark(key, built.vmfb, built.module)


def floats(tensor: TensorData) -> NDArray[Any]:
    return np.frombuffer(tensor.data, np.float32)


def test_a_module_that_fills_the_size_is_left_alone(plain: dict[str, BenchmarkModule]) -> None:
    module = plain["sum"]
    assert rotated(module, 0) is module
    assert rotated(module, module.buffer_bytes) is module


def test_every_copy_takes_its_turn(child: DeviceChild, plain: dict[str, BenchmarkModule], tmp_path: Path) -> None:
    stride = -(-plain["sum"].buffer_bytes // 256) * 256
    module = rotated(plain["sum"], COPIES * stride - 1)
    assert (module.copies, module.buffer_bytes) == (COPIES, COPIES * stride)
    built = compiled(module, tmp_path / "sum.vmfb")
    load(child, "sum", built)
    child.fill("sum", 3)
    views = len(module.views)
    for done, batch in ((2, 2), (4, 2), (COPIES, 3)):  # Whose turn it is outlives a batch.
        child.run("sum", batch)
        tensors = child.read("sum")
        assert len(tensors) == COPIES * views
        for copy in range(COPIES):
            lhs, rhs, out = map(floats, tensors[copy * views : (copy + 1) * views])
            expected = lhs + rhs if copy < done else np.full_like(lhs, np.nan)
            np.testing.assert_array_equal(out, expected, err_msg=f"copy {copy} after {done} dispatches")
    child.store_reference("sum", "sum", 4)  # The next turn is the second copy's.
    check = child.check("sum", "sum", EXACT)
    assert check.ok, check.reason


@pytest.mark.parametrize("name", SOURCES)
def test_a_copy_that_nobody_writes_is_seen(
    child: DeviceChild, plain: dict[str, BenchmarkModule], tmp_path: Path, name: str
) -> None:
    module = rotated(plain[name], COPIES * plain[name].buffer_bytes)
    lazy = msgspec.structs.replace(module, text=running(module.text, module.copies - 1))
    load(child, "right", compiled(module, tmp_path / "right.vmfb"))
    load(child, "lazy", compiled(lazy, tmp_path / "lazy.vmfb"))
    child.store_reference("right", name, 3)
    assert child.check("right", name, EXACT).ok
    check = child.check("lazy", name, EXACT)
    assert not check.ok
    assert check.copy == module.copies - 1
    assert check.wrong == check.poison_left > 0
    assert f"of output 0 in copy {check.copy}: expected" in check.reason
    assert "never written" in check.reason
