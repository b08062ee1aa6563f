"""Times that a device cannot reach: one is provoked, and the fastest real ones are not taken for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.roofline import Limits, Work, work_of
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.children import DeviceChildren
from pytest_shark_tune.tuning.microbenchmarks import Microbenchmarks
from pytest_shark_tune.tuning.runner import Runner
from pytest_shark_tune.tuning.settings import RunSettings
from tests.factories import running

URI = "local-task"
COMPILER = Compiler(Target.parse("llvm-cpu"))


def silent(message: str) -> None:
    pass


@pytest.fixture(scope="module")
def cache(tune_cache: Path) -> Cache:
    return Cache(tune_cache)


@pytest.fixture(scope="module")
def microbenchmarks(cache: Cache) -> Microbenchmarks:
    return Microbenchmarks(COMPILER, cache, "the CPU of these tests")


def planned(size: int, count: int) -> Task:
    source = read_source(ops.matmul(m=size, n=size, k=size, lhs="f32"), Path())
    (task,) = make_plan([source], COMPILER, processors=2, count=count, seed=0).tasks
    return task


@pytest.fixture
def builder(cache: Cache, tmp_path: Path) -> Iterator[Builder]:
    builder = Builder(COMPILER, cache, DeviceLeases([URI], directory=tmp_path / "locks"), jobs=2, report=silent)
    yield builder
    builder.close()


@pytest.fixture
def runner(builder: Builder, microbenchmarks: Microbenchmarks, tmp_path: Path) -> Iterator[Runner]:
    settings = RunSettings.in_directory(tmp_path, [URI], "the CPU of these tests", jobs=2)
    children = DeviceChildren(DeviceLeases([URI], directory=tmp_path / "locks"), silent)
    yield Runner(settings, builder, children, microbenchmarks=microbenchmarks)
    children.close()


@pytest.mark.slow
def test_a_batch_that_is_not_run_is_impossibly_fast(runner: Runner, tmp_path: Path) -> None:
    task = planned(64, 1)
    vmfb = tmp_path / "once.vmfb"
    # Its result is right, and it is timed as if it had run all dispatches.
    COMPILER.compile_sources(running(task.dispatch.members[0].module.text, 1), vmfb)
    (candidate,) = task.candidates
    digest = hashlib.sha256(vmfb.read_bytes()).hexdigest()
    artifact = Artifact(candidate=candidate.id, state="compiled", vmfb=str(vmfb), sha256=digest)

    def measure() -> None:
        # Waking sleeping threads is part of a sample, and on a busy machine at times as long as the work left out.
        for _ in range(10):
            runner.measure(task, candidate, artifact)

    with pytest.raises(CandidateFailed, match=r"wrong_result: impossibly fast: .* us a dispatch, where") as raised:
        measure()
    assert raised.value.detail is None, "its result was right"


# The default of a prime size is many times slower than the others, which then get a closer look.
@pytest.mark.parametrize("size", [pytest.param(64, marks=pytest.mark.slow), pytest.param(61, marks=pytest.mark.slow)])
def test_the_fastest_real_configs_are_possible(
    runner: Runner, builder: Builder, microbenchmarks: Microbenchmarks, size: int
) -> None:
    task = planned(size, 8)
    work = work_of(task.dispatch.root, task.dispatch.members[0].module)
    samples_us: list[float] = []
    failures = []
    for candidate in task.candidates:
        try:
            samples_us += runner.measure(task, candidate, builder.artifact(task, candidate)).samples_us
        except CandidateFailed as failure:
            failures.append(failure.state)
    assert "wrong_result" not in failures
    with DeviceChild(URI) as child:  # Also where the default is so fast that nobody would have looked.
        assert microbenchmarks.why_impossible(min(samples_us), work, child) == ""
        assert microbenchmarks.why_impossible(min(samples_us) / 200, work, child) != ""


def test_limits_of_a_busy_machine_are_measured_again(cache: Cache) -> None:
    microbenchmarks = Microbenchmarks(COMPILER, cache, "a CPU that was busy")
    ours = Work(bytes=3 * 64 * 64 * 4, operations=2 * 64**3)
    cache.put("limits", microbenchmarks.key, Limits(bytes_per_s=1.0, operations_per_s=1.0, launch_us=1e6))
    with DeviceChild(URI) as child:
        assert microbenchmarks.why_impossible(1000.0, ours, child) == ""
    kept = cache.get("limits", microbenchmarks.key, Limits)
    assert kept is not None
    assert kept.bytes_per_s > 1e8
    assert kept.launch_us < 1000


def test_limits_are_known_by_how_the_device_is_driven(cache: Cache) -> None:
    given = ((), ("local-task",), ("local-sync",))
    plain, same, other = (Microbenchmarks(COMPILER, cache, "a CPU", uris=uris).key for uris in given)
    assert plain == same != other


def test_that_limits_cannot_be_measured_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    broken = Compiler(Target.parse("llvm-cpu"), tool="false")
    microbenchmarks = Microbenchmarks(broken, Cache(tmp_path), "a CPU", told.append)
    with DeviceChild(URI) as child:
        for _ in range(2):
            assert microbenchmarks.why_impossible(1e-6, Work(bytes=1, operations=1), child) == ""
    (line,) = told
    assert line.startswith("the limits of the device cannot be measured, so no result is called impossible: ")


@pytest.mark.slow
def test_damaged_yardsticks_are_compiled_anew_and_a_moved_cache_has_whole_ones(tmp_path: Path) -> None:
    told: list[str] = []
    built = Microbenchmarks(COMPILER, Cache(tmp_path / "cache"), "a CPU").built()
    whole = {each.sha256 for each in built}
    Path(built[0].vmfb).write_bytes(b"half")
    again = Microbenchmarks(COMPILER, Cache(tmp_path / "cache", told.append), "a CPU").built()
    assert {each.sha256 for each in again} == whole
    assert len(told) == 1
    (tmp_path / "cache").rename(tmp_path / "moved")
    nothing = Compiler(Target.parse("llvm-cpu"), tool="false")
    moved = Microbenchmarks(nothing, Cache(tmp_path / "moved", told.append), "a CPU").built()
    assert all(Path(each.vmfb).is_relative_to(tmp_path / "moved") for each in moved)
    assert len(told) == 1


@pytest.mark.slow
def test_a_product_is_measured_without_the_packing_that_flags_put_before_it(tmp_path: Path) -> None:
    tiling = Compiler(Target.parse("llvm-cpu"), ["--iree-opt-data-tiling"])
    built = Microbenchmarks(tiling, Cache(tmp_path), "a CPU").built()
    products = [each for each in built if each.operations]
    assert products
    assert all("linalg.mmt4d" in each.module.text for each in products)
    assert not any("linalg.pack" in each.module.text for each in built)
