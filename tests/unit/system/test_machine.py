"""What Linux tells of the machine in files: its caches, and the drivers of its GPUs."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from pytest_shark_tune.system.machine import driver_version, last_level_cache_bytes


def cache(cpus: Path, cpu: int, index: int, level: int, kind: str, size: str, shared: str) -> None:
    directory = cpus / f"cpu{cpu}" / "cache" / f"index{index}"
    directory.mkdir(parents=True)
    for name, value in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
        (directory / name).write_text(f"{value}\n")


def test_each_last_level_cache_counts_once(tmp_path: Path) -> None:
    for cpu, shared in enumerate(("0-1", "0-1", "2-3", "2-3")):
        cache(tmp_path, cpu, 0, 1, "Data", "32K", str(cpu))
        cache(tmp_path, cpu, 1, 1, "Instruction", "32K", str(cpu))
        cache(tmp_path, cpu, 2, 3, "Unified", "16M", shared)
    (tmp_path / "cpufreq").mkdir()
    assert last_level_cache_bytes(tmp_path) == 32 << 20


def test_a_cache_of_instructions_alone_does_not_count(tmp_path: Path) -> None:
    cache(tmp_path, 0, 0, 1, "Data", "48K", "0")
    cache(tmp_path, 0, 1, 2, "Instruction", "512K", "0")
    assert last_level_cache_bytes(tmp_path) == 48 << 10


def test_what_is_not_told_counts_nothing(tmp_path: Path) -> None:
    assert last_level_cache_bytes(tmp_path / "absent") == 0
    cache(tmp_path, 0, 0, 3, "Unified", "", "0")
    cache(tmp_path, 1, 0, 3, "Unified", "many", "1")
    assert last_level_cache_bytes(tmp_path) == 0


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


NVIDIA, AMDGPU, MANIFEST = "proc/driver/nvidia/version", "sys/module/amdgpu/version", "usr/share/vulkan/icd.d/icd.json"


@pytest.mark.parametrize(("driver", "file"), [("cuda", NVIDIA), ("hip", AMDGPU)])
def test_a_driver_is_known_by_its_version_else_by_the_kernels(tmp_path: Path, driver: str, file: str) -> None:
    assert driver_version(driver, root=tmp_path) == platform.release()
    put(tmp_path / file, "6.12.12\n")
    assert driver_version(driver, root=tmp_path) == "6.12.12"


def test_a_processor_has_no_driver(tmp_path: Path) -> None:
    assert driver_version("local-task", root=tmp_path) == ""


def manifest_of(library: object) -> str:
    return json.dumps({"ICD": {"api_version": "1.3.289", "library_path": library}})


def test_vulkans_drivers_are_known_by_all_that_tells_of_them(tmp_path: Path) -> None:
    library = tmp_path / "libvulkan.so"
    told = []
    for path, text in [
        (tmp_path / "nothing", ""),
        (tmp_path / NVIDIA, "570.1"),
        (tmp_path / AMDGPU, "6.12.12"),
        (tmp_path / MANIFEST, manifest_of("libvulkan.so")),
        (tmp_path / MANIFEST, manifest_of(str(library))),
        (library, "one"),
        (library, "other one"),
    ]:
        put(path, text)
        told.append(driver_version("vulkan", root=tmp_path, env={}))
        assert driver_version("vulkan", root=tmp_path, env={}) == told[-1]
    assert len(set(told)) == len(told)
    assert all(platform.release() in each for each in told)
    named = put(tmp_path / "named.json", manifest_of("libother.so"))
    assert driver_version("vulkan", root=tmp_path, env={"VK_DRIVER_FILES": str(named)}) not in told


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ICD": []}', '{"ICD": {}}', manifest_of(5)])
def test_a_manifest_that_names_no_library_counts_as_it_stands(tmp_path: Path, text: str) -> None:
    put(tmp_path / MANIFEST, text)
    assert driver_version("vulkan", root=tmp_path, env={}) == f"{platform.release()}\n{text}"
