"""Targets without an architecture: which one the devices here have."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.driver.architecture import (
    amd_architectures,
    architecture_of,
    cuda_architecture,
    resolve_target,
    unused_gpu,
    vulkan_architecture,
)
from pytest_shark_tune.device.protocol import DeviceEntry
from pytest_shark_tune.errors import InputError

CPU = Target("llvm-cpu", "host")


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [("6.0", "sm_60"), ("8.0", "sm_80"), ("8.6", "sm_86"), ("9.0", "sm_89"), ("10.0", "sm_89"), ("12.0", "sm_120")],
)
def test_a_gpu_gets_the_largest_target_that_it_runs(capability: str, architecture: str) -> None:
    assert cuda_architecture(f"GPU-1234, {capability}\n", ["GPU-1234"]) == architecture


def test_only_visible_gpus_count_and_the_oldest_decides() -> None:
    text = "GPU-a, 7.5\nGPU-b, 8.9\nGPU-c, 8.0\n"
    assert cuda_architecture(text, ["GPU-b", "GPU-c"]) == "sm_80"
    assert cuda_architecture(text, ["unknown"]) == "sm_75"


@pytest.mark.parametrize("text", ["", "GPU-a, [N/A]", "GPU-a, 3.5", "Failed to initialize NVML"])
def test_without_a_capability_there_is_no_target(text: str) -> None:
    with pytest.raises(InputError, match="names no compute capability"):
        cuda_architecture(text, [])


def test_the_kernels_version_of_an_amd_gpu_is_in_hexadecimal_places() -> None:
    nodes = ["simd_count 0\ngfx_target_version 0\n", "gfx_target_version 90010\n", "gfx_target_version 90402\n"]
    assert amd_architectures([*nodes, "gfx_target_version 110000\nname x\n"]) == ["gfx90a", "gfx942", "gfx1100"]


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "rdna3"),
        ("NVIDIA GeForce RTX 4090", "ada"),
        ("NVIDIA A100-SXM4-80GB", "ampere"),
        ("Tesla T4", "turing"),
        ("Adreno (TM) 740", "adreno"),
        ("Mali-G715", "valhall"),
        ("llvmpipe (LLVM 15.0.6, 256 bits)", "vp_android_baseline_2022"),
        ("NVIDIA H100 PCIe", "vp_android_baseline_2022"),
    ],
)
def test_a_vulkan_device_is_known_by_its_name(name: str, architecture: str) -> None:
    assert vulkan_architecture(name) == architecture


def test_the_driver_of_a_gpu_is_asked() -> None:
    entry = DeviceEntry("cuda://GPU-a", "NVIDIA L4", "GPU-a", 0)
    assert architecture_of("cuda", [entry], lambda command: "GPU-a, 8.9\n") == "sm_89"
    with pytest.raises(InputError, match="driver cuda has no device here"):
        architecture_of("cuda", [])


def test_aliases_and_whole_targets_ask_no_device() -> None:
    assert resolve_target("cpu") == CPU
    assert resolve_target("cpu:znver4") == Target("llvm-cpu", "znver4")
    assert resolve_target("rocm:gfx942") == Target("hip", "gfx942")
    with pytest.raises(InputError, match="unknown target 'gpu'"):
        resolve_target("gpu")


def test_a_gpu_that_is_here_and_not_used_is_named(tmp_path: Path) -> None:
    present = {"cuda": tmp_path / "nvidia0", "hip": tmp_path / "kfd"}
    assert unused_gpu(CPU, present) == ""
    present["hip"].touch()
    assert unused_gpu(CPU, present) == "hip"
    assert unused_gpu(Target("cuda", "sm_80"), present) == ""
