"""The machine's caches, as Linux tells of them in files."""

from __future__ import annotations

from pathlib import Path

from pytest_shark_tune.tools.machine import last_level_cache_bytes


def cache(cpus: Path, cpu: int, index: int, level: int, kind: str, size: str, shared: str) -> None:
    folder = cpus / f"cpu{cpu}" / "cache" / f"index{index}"
    folder.mkdir(parents=True)
    for name, value in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
        (folder / name).write_text(f"{value}\n")


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
