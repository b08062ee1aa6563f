"""Candidates, compilers, workers and disks that fail: what is lost, what is told, and how the run goes on or ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler, environment
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.spec.read import read_spec
from pytest_shark_tune.system import process
from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

TOOL = shutil.which("iree-compile", path=sysconfig.get_path("scripts")) or "iree-compile"
NAME = "matmul_32x32x32_f32"
SUITE = suite_text("ops.matmul(m=32, n=32, k=32)")
TWO = SUITE.replace("k=32)", "k=32), ops.matmul(m=16, n=16, k=16)")

# Modules with the functions of a benchmark module that do something else.
BUFFER = """
func.func @"{buffer}"() -> tensor<{size}xi8> {{
  %one = util.unfoldable_constant 1 : i8
  %all = flow.tensor.splat %one : tensor<{size}xi8>
  return %all : tensor<{size}xi8>
}}
"""
IDLE = 'func.func @"{run}"(%batch: i32) {{ return }}' + BUFFER
ENDLESS = (
    """
func.func @"{run}"(%batch: i32) -> tensor<4xi32> {{
  %start = flow.tensor.splat %batch : tensor<4xi32>
  %zero = arith.constant 0 : i32
  %first = arith.constant 0 : index
  %ones = arith.constant dense<1> : tensor<4xi32>
  %end = scf.while (%at = %start) : (tensor<4xi32>) -> tensor<4xi32> {{
    %value = tensor.extract %at[%first] : tensor<4xi32>
    %more = arith.cmpi sge, %value, %zero : i32
    scf.condition(%more) %at : tensor<4xi32>
  }} do {{
  ^bb0(%at: tensor<4xi32>):
    %next = arith.xori %at, %ones : tensor<4xi32>
    scf.yield %next : tensor<4xi32>
  }}
  return %end : tensor<4xi32>
}}
"""
    + BUFFER
)
WILD = (
    """
func.func @"{run}"(%batch: i32) -> tensor<4xi32> {{
  %far = arith.constant 70368744177664 : index
  %count = arith.index_cast %batch : i32 to index
  %at = arith.muli %count, %far : index
  %ones = util.unfoldable_constant dense<1> : tensor<4xi32>
  %empty = tensor.empty() : tensor<4xi32>
  %sum = linalg.generic {{
    indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>], iterator_types = ["parallel"]
  }} ins(%ones : tensor<4xi32>) outs(%empty : tensor<4xi32>) {{
  ^bb0(%a: i32, %unused: i32):
    %b = tensor.extract %ones[%at] : tensor<4xi32>
    %c = arith.addi %a, %b : i32
    linalg.yield %c : i32
  }} -> tensor<4xi32>
  return %sum : tensor<4xi32>
}}
"""
    + BUFFER
)
ENOUGH, TOO_MUCH = 1 << 20, 1 << 46

FAULTY = """
import os
import msgspec
import pytest
from pathlib import Path
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.device.lease import DeviceLeases

DIRECTORY = Path({directory!r})
FAULTS = ["endless", "wild", "greedy", "crashing", "hanging", "aborting"]

def build_with(tool, session, task, candidate):
    compiler = Compiler(session.compiler.target, tool=str(DIRECTORY / tool), timeout_s=1.0)
    leases = DeviceLeases(session.settings.devices)
    builder = Builder(compiler, Cache(DIRECTORY / "cache"), leases, jobs=1, report=print)
    try:
        return builder.artifact(msgspec.structs.replace(task, candidates=(candidate,)), candidate)
    finally:
        builder.close()

@pytest.fixture
def artifact(candidate, artifact, tune_session):
    task = candidate.known_task
    if candidate.config not in task.candidates[:len(FAULTS)]:
        return artifact
    fault = FAULTS[task.candidates.index(candidate.config)]
    if fault in ("crashing", "hanging"):
        return build_with(fault, tune_session, task, candidate.config)
    if fault == "aborting":
        if "PYTEST_XDIST_WORKER" in os.environ:
            os.abort()
        return artifact
    return msgspec.structs.replace(artifact, vmfb=str(DIRECTORY / fault) + ".vmfb", sha256=fault)
"""


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with compiled modules and compilers that fail, each in its way."""
    directory = tmp_path_factory.mktemp("faults")
    compiler = Compiler(Target.parse("llvm-cpu"))
    plan = make_plan([read_source(ops.matmul(m=32, n=32, k=32), Path())], compiler, processors=1, count=1, seed=0)
    module = plan.tasks[0].dispatch.members[0].module
    for name, text, size in (("endless", ENDLESS, ENOUGH), ("wild", WILD, ENOUGH), ("greedy", IDLE, TOO_MUCH)):
        source = text.format(run=module.run_function, buffer=module.buffer_function, size=size)
        command = [TOOL, "-", *compiler.target.flags, "-o", str(directory / f"{name}.vmfb")]
        process.run(command, timeout_s=120, stdin=source, env=environment())
    for name, line in (("crashing", "kill -SEGV $$"), ("hanging", "sleep 1000")):
        (directory / name).write_text(f"#!/bin/sh\n{line}\n")
        (directory / name).chmod(0o755)
    return directory


@pytest.mark.slow  # It waits for the watchdog of the device.
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_each_fault_costs_its_candidate_and_no_other(make_suite: MakeSuite, faults: Path, workers: str) -> None:
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": FAULTY.format(directory=str(faults))})
    running = suite.start("--tune", "-v", "-rs", workers, "--tune-trials=8", "-k", "not final and not spec")
    outcome = running.finish()
    assert outcome.status == 0, outcome.text
    tested = [line.rpartition("-")[2].rstrip("]") for line in suite.collect("--tune-trials=8")][1:7]
    by_id = {each["id"]: each for each in outcome.records}
    assert len(by_id) == 9
    found = [(by_id[name]["state"], by_id[name]["reason"]) for name in tested]
    expected = [
        ("run_timeout", "gave no answer within"),
        ("run_failed", "SIGSEGV"),
        ("run_failed", "RESOURCE_EXHAUSTED"),
        ("compile_failed", "crashing was ended by SIGSEGV"),
        ("compile_timeout", "hanging ran longer than 1 s"),
    ]
    if workers == "-n2":
        expected.append(("run_failed", "that ran it crashed (SIGABRT)"))
    for (state, reason), (wanted_state, wanted_reason) in zip(found, expected, strict=False):
        assert state == wanted_state
        assert wanted_reason in reason
    others = [each["state"] for name, each in by_id.items() if name not in tested[: len(expected)]]
    assert set(others) <= {"measured", "duplicate"}
    assert "Traceback" not in outcome.text
    assert outcome.summary["run"]["complete"] is True
    assert running.survivors() == []
    assert running.litter() == []


CRASHES = """
import os
import pytest

@pytest.fixture
def artifact(candidate, artifact):
    if candidate.config and (candidate.known_task.name == "matmul_16x16x16_f32") == (candidate.role == "default"):
        if candidate.config in (candidate.known_task.default, candidate.known_task.candidates[0]):
            os.abort()
    return artifact
"""


@pytest.mark.slow
def test_a_worker_that_crashes_costs_a_candidate_and_fails_a_default(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": TWO, "conftest.py": CRASHES})
    outcome = suite.tune("-n2", "-rfs", "--tune-trials=2", "-k", "not final and not spec")
    assert outcome.status == 1
    states = {(each["dispatch"], each["id"]): each["state"] for each in outcome.records}
    # Of the dispatch whose default is lost, those are tried that were handed out before.
    assert 4 <= len(states) == len(outcome.records) <= 6
    assert sum(name == NAME for name, _ in states) == 3
    assert states["matmul_16x16x16_f32", "default"] == "run_failed"
    assert [state for (name, _), state in states.items() if name == NAME].count("run_failed") == 1
    crashed = "run_failed: the worker gw* that ran it crashed (SIGABRT)"
    outcome.lines.fnmatch_lines_random(
        [
            f"SKIPPED [[]1[]] test_suite.py: {crashed}",
            "FAILED test_suite.py::test_dispatch[[]matmul_16x16x16_f32-default[]]*",
            "matmul_16x16x16_f32: the default config failed: run_failed: the worker gw* that ran it crashed*",
            "*1 failed, * 1 skipped*",
        ]
    )
    assert outcome.summary["run"]["complete"] is True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--max-worker-restart=0"], "* crashed, and --max-worker-restart=0 lets no more be replaced*"),
        (["-x"], "stopping after 1 failures*"),
    ],
    ids=["limit", "x"],
)
def test_a_run_that_crashes_cut_short_says_why(make_suite: MakeSuite, arguments: list[str], why: str) -> None:
    conftest = CRASHES.replace('== (candidate.role == "default")', "!= None")
    suite = make_suite({"test_suite.py": TWO, "conftest.py": conftest})
    outcome = suite.tune("-n2", "--tune-trials=6", *arguments)
    assert outcome.status != 0
    outcome.lines.fnmatch_lines([f"the run ended early: {why}; * of its tests were not run to their end"])
    assert 0 < outcome.unfinished <= 2 * (6 + 2) + 1, (
        "two dispatches of 6 candidates, a default and a final each, and a spec"
    )
    assert outcome.summary["run"]["complete"] is False


@pytest.mark.slow
def test_workers_that_crash_before_any_test_are_not_replaced_for_ever(make_suite: MakeSuite) -> None:
    conftest = "import os\ndef pytest_collection_modifyitems(items):\n    os.abort()\n"
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": conftest})
    outcome = suite.tune("-n1", "--tune-trials=1")
    assert outcome.status == 1
    outcome.lines.fnmatch_lines(
        ["the run ended early: 5 workers in a row were lost before they had run a test*SIGABRT*"]
    )


@pytest.mark.slow
def test_a_second_run_in_one_directory_is_refused_until_the_first_is_gone(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    running = suite.start("--tune", "--tune-trials=60")
    running.wait_for_records(2)
    refused = suite.tune("--tune-trials=1")
    assert refused.status == 4, refused.text
    who = f"held by process {running.process.pid} (*pytest*) for * s"
    refused.lines.fnmatch_lines([f"ERROR: --tune-out: another run writes to {refused.out}, {who}, *"])
    assert "Traceback" not in refused.text
    assert suite.collect(), "what writes nothing is not refused"
    assert len(refused.records) >= 2, "they are as the first one left them"
    os.killpg(running.process.pid, signal.SIGKILL)
    running.finish()
    outcome = suite.tune("--tune-trials=1", "-k", "default")
    assert outcome.status == 0, outcome.text
    assert [record["id"] for record in outcome.records] == ["default"]
    assert not (outcome.out / ".shark-tune.lock").exists()


# From the third report on the process may make no file longer than what the records have by then.
FULL = """
import os
import resource
from pathlib import Path
seen = []
def pytest_runtest_logreport(report):
    records = Path(".tune/records.jsonl")
    if "PYTEST_XDIST_WORKER" in os.environ or not records.exists():
        return
    if len(records.read_bytes().splitlines()) >= 2 and not seen:
        seen.append(report)
        resource.setrlimit(resource.RLIMIT_FSIZE, (records.stat().st_size + 20, resource.RLIM_INFINITY))
"""


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_records_that_cannot_be_kept_end_the_run_in_words(make_suite: MakeSuite, workers: str) -> None:
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": FULL})
    suite.write(".tune/spec.mlir", "// of a run long ago, which is longer than what may be written\n" * 500)
    spec = (suite.directory / ".tune" / "spec.mlir").read_bytes()
    outcome = suite.tune(workers, "--tune-trials=4", "-k", "not final and not spec")
    assert outcome.status == 1, outcome.text
    assert "Traceback" not in outcome.text
    outcome.lines.fnmatch_lines(
        [
            (
                "--tune-out: cannot write to *records.jsonl: File too large; make room in *.tune, or name another "
                "directory"
            ),
            "the run ended early: results cannot be written; * of its tests were not run to their end",
        ]
    )
    # Of the default and four candidates two have ended, or are about to: a worker tells so after its record.
    assert outcome.unfinished == 3 if workers == "-n0" else 3 <= outcome.unfinished <= 5
    lines = (outcome.out / "records.jsonl").read_bytes().split(b"\n")
    assert all(line.startswith(b"{") and line.endswith(b"}") for line in lines[:2])
    assert len(lines[2]) == 20
    path = outcome.out / "spec.mlir"
    if path.exists() and path.read_bytes() != spec:
        assert [each.matcher for each in read_spec(path.read_text())] == [f"match_{NAME}"]
    assert not list(outcome.out.glob(".*.part"))


# The disk of TMPDIR takes no file in which the controller says what comes next.
FULL_TMPDIR = """
import errno
import os
import sys

def hear(event, arguments):
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_WRONLY
    if writes and "/prefetch/" in str(arguments[0]):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

sys.addaudithook(hear)
"""


@pytest.mark.slow
def test_what_comes_next_need_not_be_told(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": FULL_TMPDIR})
    outcome = suite.tune("--tune-trials=2", "-k", "not final and not spec")
    assert outcome.status == 0, outcome.text
    assert len(outcome.records) == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory that takes 64 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", directory], check=False)
    if mounted.returncode:
        pytest.skip("a small disk takes the right to mount one")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_full_cache_ends_the_run_in_words(make_suite: MakeSuite, small_disk: Path, workers: str) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    suite.cache = small_disk
    outcome = suite.tune(workers, "--tune-trials=30")
    assert outcome.status != 0
    assert "Traceback" not in outcome.text
    assert "INTERNALERROR" not in outcome.text
    outcome.lines.fnmatch_lines(
        [f"*--tune-cache: cannot write to {small_disk}*: No space left on device; make room in {small_disk}, or name*"]
    )
