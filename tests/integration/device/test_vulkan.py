"""Vulkan for real, without a GPU: Debian's mesa-vulkan-drivers brings lavapipe, a driver that runs on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import read_configs
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.identity import find_device, list_devices
from pytest_shark_tune.device.protocol import DeviceEntry
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.errors import DeviceChildDied, DeviceRequestFailed
from pytest_shark_tune.measurement.correctness import tolerance_for
from pytest_shark_tune.measurement.timing import SCREENING, compare
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.search_space import NoSpace, spaces_for

TARGET = "vulkan:vp_android_baseline_2022"
MATMUL = ops.matmul(m=64, n=64, k=64, lhs="f32")
CONVOLUTION = ops.conv_2d(batch=1, height=8, width=8, channels=8, filters=16, kernel_height=3, kernel_width=3)
OPS = pytest.mark.parametrize("op", [MATMUL, CONVOLUTION], ids=lambda op: op.name)


@pytest.fixture(scope="module")
def devices() -> tuple[DeviceEntry, ...]:
    """Vulkan's devices on this machine."""
    try:
        found = tuple(list_devices("vulkan"))
    except (DeviceRequestFailed, DeviceChildDied) as error:
        reason = str(error).strip().splitlines()[0]
        pytest.skip(f"no Vulkan driver here, as of Debian's mesa-vulkan-drivers: {reason}")
    if not found:
        pytest.skip("the Vulkan loader finds no device here: install a driver, such as Debian's mesa-vulkan-drivers")
    return found


@pytest.fixture(scope="module")
def compiler(devices: tuple[DeviceEntry, ...]) -> Compiler:
    return Compiler(Target.parse(TARGET))


def dispatch_of(op: OpSource, compiler: Compiler) -> Dispatch:
    extracted = extract_dispatches([Source(name=op.name, text=op.text, is_benchmark=False)], compiler, 2)
    if extracted.untunable:
        pytest.skip(f"it is not tuned yet: {extracted.untunable[0].reason}")
    (dispatch,) = extracted.dispatches
    return dispatch


def test_a_device_is_found_by_its_uri(devices: tuple[DeviceEntry, ...]) -> None:
    for device in devices:
        assert device.uri.startswith("vulkan://")
        assert device.name
        assert find_device(device.uri, devices) == device
    assert find_device("vulkan", devices) is not None


@OPS
def test_the_default_is_loaded_checked_and_measured(
    op: OpSource, compiler: Compiler, devices: tuple[DeviceEntry, ...], tmp_path: Path
) -> None:
    dispatch = dispatch_of(op, compiler)
    module = dispatch.members[0].module
    compiler.compile_sources(module.text, tmp_path / "default.vmfb")
    child = DeviceChild(devices[0].uri)
    try:
        child.load_benchmark("default", tmp_path / "default.vmfb", module)
        child.store_reference("default", "reference", 0)
        assert child.check("default", "reference", tolerance_for("f32", "f32", 64)).ok
        measured = compare(lambda n: child.run("default", n), lambda n: child.run("default", n), SCREENING)
    finally:
        child.close()
    assert measured.median_us > 0
    assert measured.ratio_low < measured.ratio_high


def test_the_default_config_can_be_read(compiler: Compiler) -> None:
    dispatch = dispatch_of(MATMUL, compiler)
    text = compiler.lower(
        dispatch.members[0].module.text, since="executable-sources", to="executable-configurations", name="matmul"
    )
    assert dispatch.default_config in {applied.config for applied in read_configs(text)}


@pytest.mark.slow
@pytest.mark.parametrize("op", [MATMUL, CONVOLUTION], ids=[MATMUL.name, CONVOLUTION.name])
def test_a_small_op_is_tuned_and_verified(pytester: pytest.Pytester, compiler: Compiler, op: OpSource) -> None:
    dispatch = dispatch_of(op, compiler)
    try:
        spaces_for(dispatch.root, dispatch.target)
    except NoSpace as reason:
        pytest.skip(f"there is no space for it yet: {reason}")
    model = pytester.path / "op.mlir"
    model.write_text(op.text, encoding="utf-8")
    result = pytester.runpytest_subprocess(
        "op.mlir",
        "--tune",
        f"--tune-target={TARGET}",
        "--tune-device=vulkan",
        "--tune-trials=2",
        "--tune-cache=cache",
    )
    assert result.ret == 0
    lines = (pytester.path / ".tune" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    states = [json.loads(line)["state"] for line in lines]
    assert states.count("measured") >= 2
    assert "wrong_result" not in states
    assert "not_applied" not in states
    summary = json.loads((pytester.path / ".tune" / "summary.json").read_text(encoding="utf-8"))
    assert summary["run"]["complete"]
    assert summary["run"]["target"] == TARGET
