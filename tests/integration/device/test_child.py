"""The device child for real: compiled kernels on the CPU, and children that hang, crash or lose their parent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from iree.compiler import ir
from numpy.typing import NDArray

from pytest_shark_tune.compiler.compiler import environment
from pytest_shark_tune.device import identity
from pytest_shark_tune.device.client import DeviceChild, Timeouts
from pytest_shark_tune.device.protocol import DeviceEntry, TensorData
from pytest_shark_tune.dispatch.types import BenchmarkModule, BufferView, Tensor
from pytest_shark_tune.errors import DeviceChildDied, DeviceRequestFailed, SharkTuneError
from pytest_shark_tune.measurement.correctness import EXACT, tolerance_for
from pytest_shark_tune.measurement.timing import SCREENING, compare
from pytest_shark_tune.system.child import Child

CPU = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
)
M, N, K = 32, 48, 64
DTYPES: dict[str, Any] = {
    "f32": np.float32,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "i8": np.int8,
    "i32": np.int32,
}
KERNELS = {"f32": "f32", "f16": "f32", "bf16": "f32", "i8": "i32"}


class Kernel(msgspec.Struct, frozen=True):
    """A compiled benchmark module, the model that it came from and its function there."""

    benchmark: Path
    model: Path
    function: str
    module: BenchmarkModule


def matmul(element_in: str, element_out: str) -> str:
    lhs, rhs, out = f"tensor<{M}x{K}x{element_in}>", f"tensor<{K}x{N}x{element_in}>", f"tensor<{M}x{N}x{element_out}>"
    zero = "0" if element_out.startswith("i") else "0.0"
    return textwrap.dedent(f"""
        func.func @matmul_{element_in}(%lhs: {lhs}, %rhs: {rhs}) -> {out} {{
          %zero = arith.constant {zero} : {element_out}
          %empty = tensor.empty() : {out}
          %fill = linalg.fill ins(%zero : {element_out}) outs(%empty : {out}) -> {out}
          %out = linalg.matmul ins(%lhs, %rhs : {lhs}, {rhs}) outs(%fill : {out}) -> {out}
          return %out : {out}
        }}
    """)


# The child of a test is forever at it: its numbers change in each step, so nothing folds the loop away.
ENDLESS = textwrap.dedent("""
    func.func @endless(%start: tensor<4xi32>) -> tensor<4xi32> {
      %zero = arith.constant 0 : i32
      %first = arith.constant 0 : index
      %ones = arith.constant dense<1> : tensor<4xi32>
      %end = scf.while (%at = %start) : (tensor<4xi32>) -> tensor<4xi32> {
        %value = tensor.extract %at[%first] : tensor<4xi32>
        %more = arith.cmpi sge, %value, %zero : i32
        scf.condition(%more) %at : tensor<4xi32>
      } do {
      ^bb0(%at: tensor<4xi32>):
        %next = arith.xori %at, %ones : tensor<4xi32>
        scf.yield %next : tensor<4xi32>
      }
      return %end : tensor<4xi32>
    }
""")


def iree_compile(source: Path, out: Path, *flags: str) -> None:
    tool = shutil.which("iree-compile", path=sysconfig.get_path("scripts")) or "iree-compile"
    subprocess.run([tool, str(source), *CPU, *flags, "-o", str(out)], check=True, timeout=120, env=environment())


def with_buffer_function(text: str) -> tuple[str, str]:
    """The benchmark module with functions added that return its buffer and do nothing, and its own function's name."""
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.parse(text)
        names = {}
        for op in module.body.operations:
            if op.operation.name == "util.func" or "!hal.buffer" in str(op.operation.attributes.get("type", "")):
                names[op.operation.name] = ir.StringAttr(op.operation.attributes["sym_name"]).value
        added = ir.Module.parse(f"""
            util.global private mutable @{names["util.global"]} : !hal.buffer
            util.func public @the_buffer() -> !hal.buffer_view attributes {{iree.abi.stub}} {{
              %buffer = util.global.load @{names["util.global"]} : !hal.buffer
              %size = hal.buffer.length<%buffer : !hal.buffer> : index
              %start = arith.constant 0 : index
              %type = hal.element_type<i8> : i32
              %encoding = hal.encoding_type<dense_row_major> : i32
              %view = hal.buffer_view.create buffer(%buffer : !hal.buffer)[%start, %size] shape([%size])
                  type(%type) encoding(%encoding) : !hal.buffer_view
              util.return %view : !hal.buffer_view
            }}
            util.func public @nothing(%batch: i32) attributes {{iree.abi.stub}} {{
              util.return
            }}
        """)
        with ir.InsertionPoint(module.body):
            for function in list(added.body.operations)[1:]:
                function.operation.clone()
        return str(module), names["util.func"]


def build(directory: Path) -> dict[str, Kernel]:
    source, model, dump = directory / "model.mlir", directory / "model.vmfb", directory / "dump"
    source.write_text("".join(matmul(*elements) for elements in KERNELS.items()))
    tuner = "--iree-codegen-add-tuner-attributes"
    iree_compile(source, model, tuner, f"--iree-hal-dump-executable-benchmarks-to={dump}")
    return {element_in: build_benchmark(directory, model, element_in) for element_in in KERNELS}


def build_benchmark(directory: Path, model: Path, element_in: str) -> Kernel:
    function = f"matmul_{element_in}"
    (dumped,) = (directory / "dump").glob(f"*{function}_*")
    text, run_function = with_buffer_function(dumped.read_text())
    instrumented, benchmark = directory / f"{function}.mlir", directory / f"{function}.vmfb"
    instrumented.write_text(text)
    iree_compile(instrumented, benchmark, "--compile-from=executable-sources")
    element_out = KERNELS[element_in]
    width_in, width_out = np.dtype(DTYPES[element_in]).itemsize, np.dtype(DTYPES[element_out]).itemsize
    rhs, out = M * K * width_in, (M * K + K * N) * width_in
    module = BenchmarkModule(
        text=text,
        run_function=run_function,
        buffer_function="the_buffer",
        buffer_bytes=out + M * N * width_out,
        views=(
            BufferView(offset_bytes=0, shape=(M, K), element=element_in, reads=True, writes=False),
            BufferView(offset_bytes=rhs, shape=(K, N), element=element_in, reads=True, writes=False),
            BufferView(offset_bytes=out, shape=(M, N), element=element_out, reads=False, writes=True),
        ),
    )
    return Kernel(benchmark, model, function, module)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kernel]:
    return build(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def kernel(kernels: dict[str, Kernel]) -> Kernel:
    return kernels["f32"]


@pytest.fixture(scope="module")
def child() -> Iterator[DeviceChild]:
    with DeviceChild("local-task") as child:
        yield child


def array(tensor: TensorData) -> NDArray[Any]:
    return np.frombuffer(tensor.data, DTYPES[tensor.element]).reshape(tensor.shape)


def product(lhs: TensorData, rhs: TensorData) -> NDArray[Any]:
    wide = np.int64 if lhs.element == "i8" else np.float64
    return np.asarray(array(lhs).astype(wide) @ array(rhs).astype(wide))


def replaced(module: BenchmarkModule, **changes: Any) -> BenchmarkModule:
    return msgspec.structs.replace(module, **changes)


@pytest.mark.parametrize("element", KERNELS)
def test_a_benchmark_computes_what_numpy_computes(child: DeviceChild, kernels: dict[str, Kernel], element: str) -> None:
    kernel = kernels[element]
    child.load_benchmark("it", kernel.benchmark, kernel.module)
    child.fill("it", 3)
    assert child.run("it", 2) > 0
    lhs, rhs, out = child.read("it")
    assert np.abs(array(lhs).astype(np.float64)).max() > 0.9
    np.testing.assert_allclose(array(out), product(lhs, rhs), rtol=1e-5, atol=1e-5)
    child.store_reference("it", "matmul", 3)
    check = child.check("it", "matmul", tolerance_for(element, KERNELS[element], K))
    assert check.ok, check.reason
    assert (check.seed, check.compared, check.poison_left, check.stray_bytes) == (3, M * N, 0, 0)


@pytest.mark.parametrize("element", KERNELS)
def test_what_was_never_written_is_seen(child: DeviceChild, kernels: dict[str, Kernel], element: str) -> None:
    kernel = kernels[element]
    child.load_benchmark("right", kernel.benchmark, kernel.module)
    child.load_benchmark("idle", kernel.benchmark, replaced(kernel.module, run_function="nothing"))
    child.store_reference("right", "poison", 3)
    check = child.check("idle", "poison", tolerance_for(element, KERNELS[element], K))
    assert not check.ok
    assert check.poison_left == check.wrong == M * N
    assert check.first_bad == (0, 0)
    assert check.nans == (0 if element == "i8" else M * N)
    assert "never written" in check.reason


def test_what_is_written_outside_the_outputs_is_seen(child: DeviceChild, kernel: Kernel) -> None:
    lhs, rhs, out = kernel.module.views
    short = replaced(kernel.module, views=(lhs, rhs, msgspec.structs.replace(out, shape=(M - 1, N))))
    child.load_benchmark("idle", kernel.benchmark, replaced(short, run_function="nothing"))
    child.load_benchmark("stray", kernel.benchmark, short)
    child.store_reference("idle", "idle", 3)
    check = child.check("stray", "idle", EXACT)
    assert not check.ok
    # The last row's floats replace zeroes, and may hold a zero in any of their bytes.
    assert 3 * N < check.stray_bytes <= 4 * N
    assert "bytes changed outside the outputs" in check.reason
    child.store_reference("stray", "stray", 3)
    assert child.check("stray", "stray", EXACT).ok


def test_inputs_are_the_same_for_a_seed_and_differ_between_seeds(child: DeviceChild, kernel: Kernel) -> None:
    for key in ("one", "other"):
        child.load_benchmark(key, kernel.benchmark, kernel.module)
    child.fill("one", 3)
    child.fill("other", 3)
    assert child.read("one") == child.read("other")
    child.fill("other", 4)
    assert child.read("one")[:2] != child.read("other")[:2]
    with DeviceChild("local-sync") as elsewhere:
        elsewhere.load_benchmark("one", kernel.benchmark, kernel.module)
        elsewhere.fill("one", 3)
        assert elsewhere.read("one") == child.read("one")


def test_a_view_that_is_read_and_written_gets_data(child: DeviceChild, kernel: Kernel) -> None:
    lhs, rhs, out = kernel.module.views
    module = replaced(kernel.module, views=(lhs, rhs, msgspec.structs.replace(out, reads=True)))
    child.load_benchmark("it", kernel.benchmark, module)
    child.fill("it", 3)
    assert np.isfinite(array(child.read("it")[2])).all()


def test_what_is_added_to_and_was_never_written_is_seen(child: DeviceChild, kernel: Kernel) -> None:
    lhs, rhs, out = kernel.module.views
    module = replaced(kernel.module, views=(lhs, rhs, msgspec.structs.replace(out, reads=True)))
    child.load_benchmark("right", kernel.benchmark, module)
    child.load_benchmark("idle", kernel.benchmark, replaced(module, run_function="nothing"))
    child.store_reference("right", "in place", 3)
    check = child.check("idle", "in place", tolerance_for("f32", "f32", K))
    assert not check.ok
    assert check.poison_left == M * N
    assert (check.nans, check.magnitude > 0.5) == (0, True)


ELEMENTS = ["f64", "f32", "f16", "bf16", "f8E4M3FN", "f8E4M3FNUZ", "f8E5M2", "f8E5M2FNUZ", "f8E8M0FNU", "f4E2M1FN"]
ELEMENTS += ["i1", "i4", "i8", "i16", "i32", "i64", "ui8", "index", "complex<f32>"]


@pytest.mark.parametrize("element", ELEMENTS)
def test_every_element_type_can_be_filled_and_compared(child: DeviceChild, kernel: Kernel, element: str) -> None:
    read = BufferView(offset_bytes=0, shape=(15, 17), element=element, reads=True, writes=False)
    written = msgspec.structs.replace(read, offset_bytes=M * K * 4, reads=False, writes=True)
    module = replaced(kernel.module, run_function="nothing", views=(read, written))
    child.load_benchmark("it", kernel.benchmark, module)
    child.store_reference("it", "types", 5)
    values, poison = child.read("it")
    assert len(set(values.data)) > 1
    assert len(set(poison.data)) == 1
    assert child.check("it", "types", EXACT).ok


@pytest.mark.parametrize("element", ELEMENTS)
def test_poison_of_every_element_type_is_seen(child: DeviceChild, kernel: Kernel, element: str) -> None:
    read = BufferView(offset_bytes=0, shape=(15, 17), element=element, reads=True, writes=False)
    written = msgspec.structs.replace(read, reads=False, writes=True)
    module = replaced(kernel.module, run_function="nothing", views=(read, written))
    child.load_benchmark("data", kernel.benchmark, module)  # Its output lies where its input's data is.
    apart = msgspec.structs.replace(written, offset_bytes=M * K * 4)
    child.load_benchmark("poison", kernel.benchmark, replaced(module, views=(read, apart)))
    child.store_reference("data", "data", 5)
    assert child.check("data", "data", EXACT).ok
    check = child.check("poison", "data", EXACT)
    assert not check.ok
    # Of 16 patterns of four bits some look like poison, and as floats others are within their rounding of it.
    assert 0.6 * check.compared < check.wrong <= check.poison_left


def test_a_function_is_called_on_its_inputs(child: DeviceChild, kernels: dict[str, Kernel]) -> None:
    for element in ("f32", "i8"):
        inputs = (Tensor((M, K), element), Tensor((K, N), element))
        child.load_function("model", kernels[element].model, kernels[element].function, inputs)
        assert child.run("model", 3) > 0
        lhs, rhs, out = child.read("model")
        assert (out.shape, out.element) == ((M, N), KERNELS[element])
        np.testing.assert_allclose(array(out), product(lhs, rhs), rtol=1e-5, atol=1e-5)
        child.store_reference("model", "model", 7)
        assert child.check("model", "model", EXACT).ok


# Sums of 1024 products, as one and as two halves, and a sigmoid of what lies far below 0: it amplifies their errors.
TAIL = textwrap.dedent("""
    #same = affine_map<(m, n) -> (m, n)>
    func.func private @tail(%sums: tensor<16x16xf32>, %by: f32) -> tensor<16x16xf32> {
      %one = arith.constant 1.0 : f32
      %empty = tensor.empty() : tensor<16x16xf32>
      %out = linalg.generic {indexing_maps = [#same, #same], iterator_types = ["parallel", "parallel"]}
          ins(%sums : tensor<16x16xf32>) outs(%empty : tensor<16x16xf32>) {
      ^bb0(%sum: f32, %old: f32):
        %four = arith.constant 4.0 : f32
        %wide = arith.mulf %sum, %four : f32
        %far = arith.addf %wide, %by : f32
        %turned = arith.negf %far : f32
        %power = math.exp %turned : f32
        %more = arith.addf %power, %one : f32
        %share = arith.divf %one, %more : f32
        linalg.yield %share : f32
      } -> tensor<16x16xf32>
      return %out : tensor<16x16xf32>
    }
    func.func @whole(%lhs: tensor<16x1024xf32>, %rhs: tensor<1024x16xf32>) -> tensor<16x16xf32> {
      %away = arith.constant -120.0 : f32
      %zero = arith.constant dense<0.0> : tensor<16x16xf32>
      %sums = linalg.matmul ins(%lhs, %rhs : tensor<16x1024xf32>, tensor<1024x16xf32>)
          outs(%zero : tensor<16x16xf32>) -> tensor<16x16xf32>
      %out = func.call @tail(%sums, %away) : (tensor<16x16xf32>, f32) -> tensor<16x16xf32>
      return %out : tensor<16x16xf32>
    }
    func.func @halves(%lhs: tensor<16x1024xf32>, %rhs: tensor<1024x16xf32>) -> tensor<16x16xf32> {
      %away = arith.constant -120.0 : f32
      %out = func.call @in_halves(%lhs, %rhs, %away) : (tensor<16x1024xf32>, tensor<1024x16xf32>, f32)
          -> tensor<16x16xf32>
      return %out : tensor<16x16xf32>
    }
    func.func @halves_too_near(%lhs: tensor<16x1024xf32>, %rhs: tensor<1024x16xf32>) -> tensor<16x16xf32> {
      %away = arith.constant -119.99 : f32
      %out = func.call @in_halves(%lhs, %rhs, %away) : (tensor<16x1024xf32>, tensor<1024x16xf32>, f32)
          -> tensor<16x16xf32>
      return %out : tensor<16x16xf32>
    }
    func.func private @in_halves(%lhs: tensor<16x1024xf32>, %rhs: tensor<1024x16xf32>, %by: f32)
        -> tensor<16x16xf32> {
      %zero = arith.constant dense<0.0> : tensor<16x16xf32>
      %l0 = tensor.extract_slice %lhs[0, 0] [16, 500] [1, 1] : tensor<16x1024xf32> to tensor<16x500xf32>
      %l1 = tensor.extract_slice %lhs[0, 500] [16, 524] [1, 1] : tensor<16x1024xf32> to tensor<16x524xf32>
      %r0 = tensor.extract_slice %rhs[0, 0] [500, 16] [1, 1] : tensor<1024x16xf32> to tensor<500x16xf32>
      %r1 = tensor.extract_slice %rhs[500, 0] [524, 16] [1, 1] : tensor<1024x16xf32> to tensor<524x16xf32>
      %s1 = linalg.matmul ins(%l1, %r1 : tensor<16x524xf32>, tensor<524x16xf32>)
          outs(%zero : tensor<16x16xf32>) -> tensor<16x16xf32>
      %s0 = linalg.matmul ins(%l0, %r0 : tensor<16x500xf32>, tensor<500x16xf32>)
          outs(%s1 : tensor<16x16xf32>) -> tensor<16x16xf32>
      %out = func.call @tail(%s0, %by) : (tensor<16x16xf32>, f32) -> tensor<16x16xf32>
      return %out : tensor<16x16xf32>
    }
""")


def test_a_tail_that_amplifies_is_allowed_what_it_makes_of_rounding(child: DeviceChild, tmp_path: Path) -> None:
    source, model = tmp_path / "tail.mlir", tmp_path / "tail.vmfb"
    source.write_text(TAIL)
    iree_compile(source, model)
    inputs = (Tensor((16, 1024), "f32"), Tensor((1024, 16), "f32"))
    for function in ("whole", "halves", "halves_too_near"):
        child.load_function(function, model, function, inputs)
    tolerance = tolerance_for("f32", "f32", 1024)
    child.store_reference("whole", "kept", 3)
    assert child.check("halves", "kept", tolerance).ok
    assert not child.check("halves_too_near", "kept", tolerance).ok
    # Nobody knows how the reference answers once it is gone.
    child.store_reference("whole", "kept", 3)
    child.unload("whole")
    assert not child.check("halves", "kept", tolerance).ok


def test_references_of_other_shapes_are_refused(child: DeviceChild, kernels: dict[str, Kernel]) -> None:
    child.load_benchmark("f32", kernels["f32"].benchmark, kernels["f32"].module)
    child.load_benchmark("i8", kernels["i8"].benchmark, kernels["i8"].module)
    child.store_reference("f32", "floats", 1)
    with pytest.raises(DeviceRequestFailed, match="cannot be compared with reference 'floats'"):
        child.check("i8", "floats", EXACT)
    with pytest.raises(DeviceRequestFailed, match="no reference 'nobody'"):
        child.check("i8", "nobody", EXACT)


def test_errors_of_the_runtime_are_answers(child: DeviceChild, kernel: Kernel, tmp_path: Path) -> None:
    junk = tmp_path / "junk.vmfb"
    junk.write_bytes(b"not a module" * 100)
    with pytest.raises(DeviceRequestFailed, match="INVALID_ARGUMENT"):
        child.load_benchmark("it", junk, kernel.module)
    with pytest.raises(DeviceRequestFailed, match="No such file"):
        child.load_benchmark("it", tmp_path / "absent.vmfb", kernel.module)
    with pytest.raises(DeviceRequestFailed, match="has no function 'absent'; it has"):
        child.load_benchmark("it", kernel.benchmark, replaced(kernel.module, run_function="absent"))
    with pytest.raises(DeviceRequestFailed, match="does not lie in the buffer"):
        child.load_benchmark("it", kernel.benchmark, replaced(kernel.module, buffer_bytes=64))
    child.load_function("it", kernel.model, kernel.function, (Tensor((M, K), "f16"), Tensor((K, N), "f16")))
    with pytest.raises(DeviceRequestFailed, match="element type mismatch"):
        child.run("it", 1)
    child.unload("it")
    with pytest.raises(DeviceRequestFailed, match="nothing is loaded under 'it'"):
        child.run("it", 1)
    child.load_benchmark("it", kernel.benchmark, kernel.module)
    with pytest.raises(DeviceRequestFailed, match="at least one dispatch"):
        child.run("it", 0)
    assert child.alive
    assert child.run("it", 1) > 0


def test_a_kernel_compared_with_itself(child: DeviceChild, kernel: Kernel) -> None:
    for key in ("a", "b"):
        child.load_benchmark(key, kernel.benchmark, kernel.module)
        child.fill(key, 1)
    policy = msgspec.structs.replace(SCREENING, sample_s=0.001, cutoff=1000.0)
    measurement = compare(lambda batch: child.run("a", batch), lambda batch: child.run("b", batch), policy)
    assert measurement.ratio_low <= measurement.ratio <= measurement.ratio_high
    assert measurement.batch > 1
    assert min(measurement.samples_us) > 0


def test_a_device_child_says_what_it_holds(child: DeviceChild) -> None:
    info = child.info()
    assert (info.uri, info.driver, info.runtime_version) == ("local-task", "local-task", identity.runtime_version())
    assert info.slug == identity.slug(info.name) == identity.device_slug("local-task")


def test_drivers_and_devices_are_listed() -> None:
    assert {"local-sync", "local-task"} <= set(identity.available_drivers())
    assert [entry.index for entry in identity.list_devices("local-task")] == [0]
    with pytest.raises(DeviceRequestFailed, match="no driver 'absent'"):
        identity.list_devices("absent")


def test_a_child_loads_neither_the_compiler_nor_pytest() -> None:
    code = "import sys, pytest_shark_tune.device.server; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    modules = set(done.stdout.split())
    assert "iree.runtime" in modules
    assert not modules & {"iree.compiler", "_pytest", "pytest", "scipy"}


def test_an_absent_device_is_an_error() -> None:
    with pytest.raises(DeviceRequestFailed, match="no driver 'absent'"):
        DeviceChild("absent://0")


def test_a_uri_finds_its_entry() -> None:
    entries = [DeviceEntry("cuda://GPU-aa", "NVIDIA A", "GPU-aa", 0), DeviceEntry("cuda://GPU-bb", "B", "GPU-bb", 1)]
    assert identity.find_device("cuda", entries) is entries[0]
    assert identity.find_device("cuda://", entries) is entries[0]
    assert identity.find_device("cuda://1", entries) is entries[1]
    assert identity.find_device("cuda://GPU-bb", entries) is entries[1]
    assert identity.find_device("cuda://GPU-cc", entries) is None
    assert identity.find_device("cuda", []) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AMD EPYC", "amd-epyc"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c"),
        ("AMD Ryzen 9 7950X 16-Core Processor", "amd-ryzen-9-7950x"),
        ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "amd-radeon-rx-7900-xtx"),
        ("", "unknown"),
    ],
)
def test_a_slug_names_the_model(name: str, expected: str) -> None:
    assert identity.slug(name) == expected


def test_a_hung_kernel_is_stopped_and_a_new_child_goes_on(kernel: Kernel, tmp_path: Path) -> None:
    source, vmfb = tmp_path / "endless.mlir", tmp_path / "endless.vmfb"
    source.write_text(ENDLESS)
    iree_compile(source, vmfb)
    with DeviceChild("local-task") as child:
        child.load_function("endless", vmfb, "endless", (Tensor((4,), "i32"),))
        with pytest.raises(DeviceChildDied, match=r"no answer within 0\.5 s") as raised:
            child.run("endless", 1, timeout_s=0.5)
        assert raised.value.timed_out
        assert not child.alive
        with pytest.raises(DeviceChildDied, match="has been closed"):
            child.run("endless", 1)
        child.restart()
        child.load_benchmark("it", kernel.benchmark, kernel.module)
        assert child.run("it", 1) > 0
        with pytest.raises(DeviceRequestFailed, match="nothing is loaded under 'endless'"):
            child.run("endless", 1)


def server(tmp_path: Path, body: str) -> Sequence[str]:
    """A command whose device child answers ``run`` with ``body``."""
    script = tmp_path / "server.py"
    script.write_text(
        "import ctypes, os, signal, sys, time\n"
        "from pytest_shark_tune.device.server import DeviceServer, main\n"
        "class Broken(DeviceServer):\n"
        "    def run(self, key, batch):\n" + textwrap.indent(textwrap.dedent(body), " " * 8) + "\n"
        "main(Broken)\n"
    )
    return [sys.executable, str(script)]


def test_an_abort_names_the_signal_and_keeps_stderr(tmp_path: Path) -> None:
    command = server(tmp_path, "print('about to abort', file=sys.stderr, flush=True)\nos.abort()")
    with DeviceChild("local-sync", command=command) as child:
        with pytest.raises(DeviceChildDied, match="SIGABRT") as raised:
            child.run("it", 1)
        assert "about to abort" in str(raised.value)
        assert not raised.value.timed_out
        child.restart()
        assert child.info().uri == "local-sync"


def test_a_segmentation_fault_names_the_signal(tmp_path: Path) -> None:
    with (
        DeviceChild("local-sync", command=server(tmp_path, "ctypes.string_at(0)")) as child,
        pytest.raises(DeviceChildDied, match="SIGSEGV"),
    ):
        child.run("it", 1)


def test_an_exit_names_the_status(tmp_path: Path) -> None:
    with (
        DeviceChild("local-sync", command=server(tmp_path, "os._exit(3)")) as child,
        pytest.raises(DeviceChildDied, match="exited with status 3"),
    ):
        child.run("it", 1)


def test_a_lost_device_ends_the_child(tmp_path: Path) -> None:
    command = server(tmp_path, "self.works = lambda: False\nraise RuntimeError('CUDA_ERROR_ILLEGAL_ADDRESS')")
    with DeviceChild("local-sync", command=command) as child:
        with pytest.raises(DeviceChildDied, match="device is lost: RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS"):
            child.run("it", 1)
        assert not child.alive


def test_output_of_a_driver_does_not_end_up_among_the_answers(tmp_path: Path) -> None:
    command = server(tmp_path, "print('chatter')\nos.write(1, b'more chatter')\nreturn 0.25")
    with DeviceChild("local-sync", command=command) as child:
        assert child.run("it", 1) == 0.25
        child.close()
        assert "more chatter" in child.stderr


def test_ctrl_c_leaves_no_child_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with DeviceChild("local-sync", command=server(tmp_path, "time.sleep(60)")) as child:
        assert os.getsid(child.pid) != os.getsid(0)
        previous = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with pytest.raises(KeyboardInterrupt):
                child.run("it", 1)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        assert not child.alive


def process_runs(pid: int) -> bool:
    """Whether a process runs: one that has ended but that nobody waits for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("busy", [False, True])
def test_a_child_ends_with_its_parent(tmp_path: Path, busy: bool) -> None:
    command = server(tmp_path, "time.sleep(60)")
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import os, threading, time\n"
        "from pytest_shark_tune.device.client import DeviceChild\n"
        f"child = DeviceChild('local-sync', command={list(command)!r})\n"
        f"if {busy}:\n"
        "    threading.Thread(target=child.run, args=('it', 1), daemon=True).start()\n"
        "    time.sleep(0.3)\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(parent)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": root},
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while process_runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process_runs(pid)


ECHO = "from pytest_shark_tune.system.child import read_frame, write_frame\nimport sys\n"


def script(tmp_path: Path, text: str) -> Sequence[str]:
    path = tmp_path / "script.py"
    path.write_text(ECHO + textwrap.dedent(text))
    return [sys.executable, str(path)]


def test_frames_of_any_size_come_back(tmp_path: Path) -> None:
    echo = """
        while (payload := read_frame(sys.stdin.buffer)) is not None:
            write_frame(sys.stdout.buffer, payload)
    """
    with Child(script(tmp_path, echo)) as child:
        for payload in (b"", b"x", bytes(range(256)) * 20000):
            assert child.request(payload, timeout_s=20) == payload
        assert child.alive
    assert not child.alive


def test_a_child_that_reads_nothing_is_stopped(tmp_path: Path) -> None:
    with Child(script(tmp_path, "import time; time.sleep(60)")) as child:
        with pytest.raises(DeviceChildDied, match="no answer") as raised:
            child.request(bytes(1 << 20), timeout_s=0.5)
        assert raised.value.timed_out


def test_half_an_answer_is_no_answer(tmp_path: Path) -> None:
    half = "read_frame(sys.stdin.buffer)\nsys.stdout.buffer.write(bytes([9, 0, 0, 0, 1, 2]))\nsys.stdout.flush()\n"
    with (
        Child(script(tmp_path, half + "raise SystemExit('gave up')")) as child,
        pytest.raises(DeviceChildDied, match=r"exited with status 1(.|\n)*gave up"),
    ):
        child.request(b"", timeout_s=20)


def test_much_on_stderr_neither_blocks_nor_grows(tmp_path: Path) -> None:
    chatty = """
        read_frame(sys.stdin.buffer)
        for number in range(40000):
            print("line", number, file=sys.stderr)
        write_frame(sys.stdout.buffer, b"done")
    """
    with Child(script(tmp_path, chatty)) as child:
        assert child.request(b"", timeout_s=20) == b"done"
        child.close()
        assert child.stderr.endswith("line 39999\n")
        assert len(child.stderr) <= 65536


def test_the_whole_group_is_stopped(tmp_path: Path) -> None:
    grandchild = """
        import subprocess, time
        read_frame(sys.stdin.buffer)
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        write_frame(sys.stdout.buffer, str(other.pid).encode())
        time.sleep(60)
    """
    with Child(script(tmp_path, grandchild)) as child:
        pid = int(child.request(b"", timeout_s=20))
        with pytest.raises(DeviceChildDied):
            child.request(b"", timeout_s=0.2)
    deadline = time.monotonic() + 20
    while process_runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process_runs(pid)


def test_a_command_that_does_not_exist_is_named() -> None:
    with pytest.raises(DeviceChildDied, match="no-such-program could not be started"):
        Child(["no-such-program"])


def test_both_errors_are_the_packages_own() -> None:
    assert issubclass(DeviceRequestFailed, SharkTuneError)
    assert issubclass(DeviceChildDied, SharkTuneError)


def test_the_time_to_open_is_limited(tmp_path: Path) -> None:
    with pytest.raises(DeviceChildDied) as raised:
        DeviceChild(
            "local-task",
            command=script(tmp_path, "import time; time.sleep(60)"),
            timeouts=Timeouts(open_s=0.3),
        )
    assert raised.value.timed_out
