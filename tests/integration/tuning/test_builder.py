"""Compiling by several processes with one cache: each candidate once, whoever needs it. It takes no GPU to compile."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec
import pytest
from iree.compiler.tools.binaries import find_tool

import pytest_shark_tune
from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.spec.apply import apply_spec
from pytest_shark_tune.spec.build import SpecEntry, build_spec
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.ahead.comparers import COMPARER_FLAGS
from pytest_shark_tune.tuning.builder import Builder
from tests.thinned import thinned

GPU, CPU = "cuda:sm_89", "llvm-cpu:x86-64-v3"
COUNT = 3

# Asks for the artifacts of every STEPth test of a plan, as a worker does, and prints each with its state.
WORKER = """
import sys
from pathlib import Path
import msgspec
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.compiler.compiler import Compiler, Target
from pytest_shark_tune.device.lease import DeviceLeases

directory, plan, target, tool, first, step = sys.argv[1:]
(task,) = msgspec.json.decode(Path(plan).read_bytes(), type=Plan).tasks
leases = DeviceLeases(["local-task"], directory=Path(directory, "locks"))
compiler = Compiler(Target.parse(target), tool=tool)
builder = Builder(
    compiler, Cache(Path(directory, "cache")), leases, jobs=2, report=print, prefetch_queue=lambda task: task.candidates
)
print("ready", flush=True)
sys.stdin.readline()
for candidate in (task.default, *task.candidates)[int(first)::int(step)]:
    print(candidate.id, builder.artifact(task, candidate).state, flush=True)
print("done", flush=True)
sys.stdin.readline()
builder.close()
"""


@pytest.fixture(scope="module")
def plan_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the file of a plan for a target, once."""

    @cache
    def plan(target: str) -> Path:
        source = read_source(ops.matmul(m=64, n=64, k=64, lhs="f32"), Path())
        made = make_plan([source], Compiler(Target.parse(target)), processors=2, count=COUNT, seed=0)
        path = tmp_path_factory.mktemp("plan") / "plan.json"
        path.write_bytes(msgspec.json.encode(made))
        return path

    return plan


def task_of(plan: Path) -> Task:
    (task,) = msgspec.json.decode(plan.read_bytes(), type=Plan).tasks
    return task


def tool(directory: Path, name: str, *lines: str) -> Path:
    """A compiler that does ``lines`` of shell before it compiles."""
    path = directory / name
    path.write_text("\n".join(["#!/bin/sh", *lines, f'exec {shlex.quote(find_tool("iree-compile"))} "$@"', ""]))
    path.chmod(0o755)
    return path


def counting(directory: Path) -> Path:
    """A compiler that logs what it compiles, but for the modules that compare results, which have a flag of theirs."""
    log = shlex.quote(str(directory / "log"))
    return tool(directory, "counting", f'case "$*" in *{COMPARER_FLAGS[0]}*) ;; *) echo once >> {log} ;; esac')


def start(directory: Path, plan: Path, target: str, tool: Path, first: int, step: int) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, *map(str, (directory, plan, target, tool, first, step))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.fspath(Path(pytest_shark_tune.__file__).parent.parent)},
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def report(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()


def until_done(worker: subprocess.Popen[str]) -> list[str]:
    assert worker.stdout is not None
    lines = []
    while (line := worker.stdout.readline().strip()) not in ("", "done"):
        lines.append(line)
    return lines


def finish(workers: Sequence[subprocess.Popen[str]]) -> list[list[str]]:
    """What each worker printed; none ends before all are done, since it ends what it compiles for the others, too."""
    outputs = [until_done(worker) for worker in workers]
    for worker in workers:
        _, errors = worker.communicate("end\n", timeout=120)
        assert worker.returncode == 0, errors
    return outputs


def compilations(directory: Path) -> int:
    log = directory / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def litter(directory: Path) -> list[str]:
    return [path.name for path in (directory / "cache").rglob("*.making")]


@pytest.mark.parametrize("target", [pytest.param(GPU, marks=pytest.mark.slow), CPU])
def test_workers_compile_each_candidate_once(plan_for: Callable[[str], Path], target: str, tmp_path: Path) -> None:
    plan = plan_for(target)
    ids = [each.id for each in (task_of(plan).default, *task_of(plan).candidates)]
    compiler = counting(tmp_path)
    # The second asks for all of them: for those that the first is compiling it waits.
    workers = [start(tmp_path, plan, target, compiler, 0, 2), start(tmp_path, plan, target, compiler, 0, 1)]
    for worker in workers:
        report(worker)
    assert finish(workers) == [[f"{each} compiled" for each in ids[::2]], [f"{each} compiled" for each in ids]]
    assert compilations(tmp_path) == 1 + COUNT
    assert litter(tmp_path) == []


@pytest.mark.slow
def test_a_gpu_can_be_measured_on_while_what_follows_is_compiled(
    plan_for: Callable[[str], Path], tmp_path: Path
) -> None:
    task = task_of(plan_for(GPU))
    leases = DeviceLeases(["local-task"], directory=tmp_path / "locks")
    builder = Builder(
        Compiler(Target.parse(GPU), tool=str(counting(tmp_path))),
        Cache(tmp_path),
        leases,
        jobs=1,
        report=print,
        prefetch_queue=lambda task: tuple(task.candidates),
    )
    try:
        assert builder.artifact(task, task.default).state == "compiled"
        following = task.candidates[0]
        end = time.monotonic() + 60
        # Nobody asks for an artifact meanwhile, as while the default is measured.
        while not builder.known(task.dispatch.members[0].module, following):
            assert time.monotonic() < end
            time.sleep(0.02)
        before = compilations(tmp_path)
        assert builder.artifact(task, following).state == "compiled"
        assert before > 1
    finally:
        builder.close()
    assert list(tmp_path.rglob("*.making")) == [], "what was waiting is given up"


@pytest.mark.slow
@pytest.mark.parametrize("target", [GPU, pytest.param(CPU, marks=pytest.mark.slow)])
def test_who_waits_for_a_worker_that_is_killed_takes_over(
    plan_for: Callable[[str], Path], target: str, tmp_path: Path
) -> None:
    plan = plan_for(target)
    compiling = tmp_path / "compiling"
    hanging = tool(tmp_path, "hanging", f"echo $$ >> {shlex.quote(str(compiling))}", "exec sleep 300")
    killed = start(tmp_path, plan, target, hanging, 0, 1 + COUNT)
    try:
        report(killed)
        while not compiling.exists():
            time.sleep(0.02)
        waiting = start(tmp_path, plan, target, counting(tmp_path), 0, 1 + COUNT)
        report(waiting)
        time.sleep(0.5)
        assert compilations(tmp_path) == 0, "it waits for what is being compiled"
        killed.kill()
        killed.communicate()
        assert finish([waiting]) == [["default compiled"]]
    finally:
        killed.kill()
        killed.communicate()
        for pid in compiling.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


Make = Callable[..., Builder]


@pytest.fixture
def make_builds(tmp_path: Path) -> Iterator[Make]:
    """Makes the builds of another process of a run, all with one cache; ``run`` is the directory of the run alone."""
    made: list[Builder] = []

    def make(
        tool: Path, *, run: str = "run", timeout_s: float = 120.0, cache: str = "cache", told: list[str] | None = None
    ) -> Builder:
        compiler = Compiler(Target.parse(CPU), tool=str(tool), timeout_s=timeout_s)
        kept = Cache(tmp_path / cache, print if told is None else told.append)
        leases = DeviceLeases(["local-task"], directory=tmp_path / "locks")
        of_run = Cache(tmp_path / run)
        made.append(Builder(compiler, kept, leases, jobs=1, report=print, of_run=of_run))
        return made[-1]

    yield make
    for builder in made:
        builder.close()


@pytest.mark.parametrize(
    ("line", "state"),
    [("kill -SEGV $$", "compile_failed"), pytest.param("sleep 60", "compile_timeout", marks=pytest.mark.slow)],
)
def test_what_fails_in_one_process_of_a_run_is_not_tried_by_another(
    plan_for: Callable[[str], Path], make_builds: Make, tmp_path: Path, line: str, state: str
) -> None:
    task = task_of(plan_for(CPU))
    failing = tool(tmp_path, "failing", f"echo once >> {shlex.quote(str(tmp_path / 'log'))}", line)
    for run, compiled in [("run", 1), ("run", 1), ("next run", 2), ("next run", 2)]:
        (tmp_path / run).mkdir(exist_ok=True)
        with pytest.raises(CandidateFailed, match=state):
            make_builds(failing, run=run, timeout_s=2.0).artifact(task, task.default)
        assert compilations(tmp_path) == compiled


def test_what_fails_when_a_run_is_over_brings_nothing_of_it_back(
    plan_for: Callable[[str], Path], make_builds: Make, tmp_path: Path
) -> None:
    task = task_of(plan_for(CPU))
    with pytest.raises(CandidateFailed, match="SIGSEGV"):
        make_builds(tool(tmp_path, "failing", "kill -SEGV $$")).artifact(task, task.default)
    assert not (tmp_path / "run").exists()


def test_what_a_process_stops_as_it_closes_is_left_to_another(
    plan_for: Callable[[str], Path], make_builds: Make, tmp_path: Path
) -> None:
    task = task_of(plan_for(CPU))
    (tmp_path / "run").mkdir()
    compiling = tmp_path / "compiling"
    closing = make_builds(tool(tmp_path, "hanging", f"echo >> {shlex.quote(str(compiling))}", "exec sleep 300"))
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(closing.artifact, task, task.default)
        while not compiling.exists():
            time.sleep(0.02)
        closing.close()
        with pytest.raises(CandidateFailed, match="SIGKILL"):
            pending.result()
    assert make_builds(counting(tmp_path)).artifact(task, task.default).state == "compiled"


def test_a_cache_whose_file_system_knows_no_locks_takes_what_is_compiled(
    plan_for: Callable[[str], Path], make_builds: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, locked = task_of(plan_for(CPU)), fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(tmp_path / "cache"):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        locked(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert make_builds(counting(tmp_path)).artifact(task, task.default).state == "compiled"
    assert make_builds(counting(tmp_path)).artifact(task, task.default).state == "compiled"
    assert compilations(tmp_path) == 1
    assert litter(tmp_path) == []


def files(directory: Path, kind: str, ending: str) -> list[Path]:
    return sorted((directory / kind).rglob(f"*{ending}"))


@pytest.mark.parametrize("damage", thinned([None, b"", b"half"], every=3))
def test_a_damaged_binary_is_compiled_anew_with_a_line(
    plan_for: Callable[[str], Path], make_builds: Make, tmp_path: Path, damage: bytes | None
) -> None:
    task = task_of(plan_for(CPU))
    made = make_builds(counting(tmp_path)).artifact(task, task.default)
    (path,) = files(tmp_path / "cache", "artifacts", ".vmfb")
    whole = path.read_bytes()
    flipped = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
    path.write_bytes(flipped if damage is None else damage)
    told: list[str] = []
    for _ in range(2):
        assert make_builds(counting(tmp_path), told=told).artifact(task, task.default).sha256 == made.sha256
    assert path.read_bytes() == whole
    assert compilations(tmp_path) == 2
    (line,) = told
    assert line.startswith(f"{path} is damaged")


def test_a_damaged_record_of_a_compilation_is_no_news_of_the_candidate(
    plan_for: Callable[[str], Path], make_builds: Make, tmp_path: Path
) -> None:
    task = task_of(plan_for(CPU))
    made = make_builds(counting(tmp_path)).artifact(task, task.default)
    (record,) = files(tmp_path / "cache", "artifacts", ".json")
    record.write_bytes(record.read_bytes().replace(b'"state":"compiled"', b'"state":"not_applied"'))
    told: list[str] = []
    again = make_builds(counting(tmp_path), told=told).artifact(task, task.default)
    assert (again.state, again.sha256, len(told)) == ("compiled", made.sha256, 1)


def test_a_cache_that_was_moved_holds_what_it_held(
    plan_for: Callable[[str], Path], make_builds: Make, tmp_path: Path
) -> None:
    task = task_of(plan_for(CPU))
    made = make_builds(counting(tmp_path)).artifact(task, task.default)
    records = [path.read_text() for path in files(tmp_path / "cache", "", ".json")]
    assert records
    assert not [record for record in records if str(tmp_path) in record]
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    moved = make_builds(counting(tmp_path), cache="elsewhere").artifact(task, task.default)
    assert compilations(tmp_path) == 1
    assert moved.sha256 == made.sha256
    assert Path(moved.vmfb or "").is_relative_to(tmp_path / "elsewhere")


def test_a_damaged_model_is_compiled_anew(make_builds: Make, tmp_path: Path) -> None:
    builder = make_builds(counting(tmp_path))
    text = builder.compiler.lower(
        "func.func @f(%x: tensor<4xf32>) -> tensor<4xf32> {"
        " %y = math.absf %x : tensor<4xf32> return %y : tensor<4xf32> }",
        to="executable-sources",
    )
    before = compilations(tmp_path)
    path = builder.model(text)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    told: list[str] = []
    for _ in range(2):
        assert make_builds(counting(tmp_path), told=told).model(text).read_bytes() == whole
    assert compilations(tmp_path) - before == 2
    assert len(told) == 1


@pytest.mark.slow
def test_a_whole_model_has_more_time_and_memory_than_a_candidate(
    plan_for: Callable[[str], Path], tmp_path: Path
) -> None:
    plan = msgspec.json.decode(plan_for(CPU).read_bytes(), type=Plan)
    (task,), (source,) = plan.tasks, plan.sources
    hasty = Compiler(Target.parse(CPU), timeout_s=0.01, memory_bytes=64 << 20)
    leases = DeviceLeases(["local-task"], directory=tmp_path / "locks")
    builder = Builder(hasty, Cache(tmp_path / "cache"), leases, jobs=1, report=print)
    try:
        with pytest.raises(CandidateFailed, match="compile_"):  # Whichever limit it meets first.
            builder.artifact(task, task.default)
        info = task.candidates[0].compilation_info
        entry = SpecEntry(name=task.name, root=task.dispatch.root, compilation_info=info)
        application = apply_spec(source, link_spec(build_spec([entry])), hasty)
        assert len(application.placements) == 1
        assert builder.model(application.text).exists()
    finally:
        builder.close()
