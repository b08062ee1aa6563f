"""The run directory: what the processes of a run share."""

from __future__ import annotations

from pathlib import Path

from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.results.coverage import Collected
from pytest_shark_tune.system.lock import FileLock
from pytest_shark_tune.tuning.manifest import TestEntry, TestManifest
from pytest_shark_tune.tuning.run_directory import RunDirectory


def test_one_worker_makes_the_manifest_of_all(tmp_path: Path) -> None:
    manifest = TestManifest({"test[a]": TestEntry(Role.SPEC, "plan", "suite")}, Collected())
    made: list[TestManifest] = []

    def make() -> TestManifest:
        made.append(manifest)
        return manifest

    lock = FileLock(tmp_path / "manifest.json.lock")
    assert lock.try_acquire()
    RunDirectory(tmp_path).write_manifest(make)
    assert not made, "another worker is at it"
    lock.release()
    for _ in range(2):
        RunDirectory(tmp_path).write_manifest(make)
    assert len(made) == 1
    assert RunDirectory(tmp_path).read_manifest() == manifest
