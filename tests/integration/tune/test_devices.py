"""Runs and workers that share a device: they take turns, and say for whom they wait."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pytest_shark_tune
from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

NAME = "matmul_53x59x61_f32"
# IREE's default for prime sizes is many times slower than nearly any other config.
SUITE = suite_text("ops.matmul(m=53, n=59, k=61)")
SCALING = Path(__file__).parents[3] / "benchmarks" / "scaling.py"
HOLDER = """
import sys
from pytest_shark_tune.device.lease import DeviceLeases

with DeviceLeases(["local-sync"]).acquire():
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Another process that holds this host's processor."""
    env = {**os.environ, "PYTHONPATH": os.fspath(Path(pytest_shark_tune.__file__).parent.parent)}
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_wait_for_another_process_is_told_and_ends_when_it_is_killed(
    make_suite: MakeSuite, holder: subprocess.Popen[str], workers: str
) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    suite.plugins = ()
    running = suite.start("--tune", workers, "--tune-trials=1", "-k", "default")
    assert running.process.stdout is not None
    said = ""
    # Should it never tell, it would wait for ever.
    give_up = threading.Timer(60, running.process.kill)
    give_up.start()
    for line in running.process.stdout:
        said += line
        if "waiting for local-task" in line:
            holder.send_signal(signal.SIGKILL)
            break
    give_up.cancel()
    outcome = running.finish()
    assert outcome.status == 0, said + outcome.text
    who = rf"held by process {holder.pid} \({re.escape(shlex.quote(sys.executable))} -c .*\) for [0-9]+ s"
    assert re.search(rf"shark-tune: waiting for local-task: {who}", said), said
    assert re.search(r"\b1 passed", outcome.text)
    assert [each["id"] for each in outcome.records] == ["default"]
    share = "shark-tune: 2 workers share 1 device (local-task) and measure in turns"
    assert (said + outcome.text).count(share) == (workers == "-n2")


@pytest.mark.slow
def test_two_runs_at_once_never_hold_the_device_together_and_both_are_right(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    suite.plugins = ()
    logs = [suite.directory / "first.log", suite.directory / "second.log"]
    runs = [
        suite.start(
            *("--tune", "-n0", "--tune-trials=6", f"--tune-seed={seed}"),
            *(f"--log-file={log}", "--log-file-level=DEBUG", "--log-file-format=%(created)f %(name)s %(message)s"),
            out=log.stem,
        )
        for seed, log in enumerate(logs)
    ]
    for run in runs:
        outcome = run.finish()
        assert outcome.status == 0, outcome.text
        assert outcome.summary["run"]["complete"] is True
        assert outcome.dispatch(NAME)["winner"], outcome.text
    first, second = (leases(log) for log in logs)
    # Each candidate, the default and five rounds of the final.
    assert min(len(first), len(second)) > 6
    assert max(first[0][0], second[0][0]) < min(first[-1][1], second[-1][1]), "they ran at the same time"
    assert [(one, other) for one in first for other in second if one[0] < other[1] and other[0] < one[1]] == []


def leases(log: Path) -> list[tuple[float, float]]:
    """When a run held the device, from its log: (from, to) in seconds."""
    events = re.findall(
        r"^(\S+) pytest_shark_tune\.device\.lease (holds|lets go of) local-task$", log.read_text(), re.M
    )
    assert [what for _, what in events] == ["holds", "lets go of"] * (len(events) // 2)
    times = [float(when) for when, _ in events]
    return list(zip(times[::2], times[1::2], strict=True))


@pytest.mark.slow
def test_the_benchmark_of_workers_counts_candidates_and_compares_winners(make_suite: MakeSuite) -> None:
    suite = make_suite({"suite/test_suite.py": SUITE})
    command = [sys.executable, os.fspath(SCALING), "--suite=suite", "--devices=local-task", "--candidates=2"]
    done = subprocess.run(
        [*command, "--rounds=1", "--json=out.json"], cwd=suite.directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((suite.directory / "out.json").read_text())
    one, two = metrics["runs"]
    assert (one["workers"], two["workers"]) == (1, 2)
    assert one["candidates"] == two["candidates"] == 2
    assert 0 < one["screening_s"] < one["whole_s"]
    assert metrics["screening_ratio"] == pytest.approx(one["screening_s"] / two["screening_s"], rel=1e-2)
    assert one["winners"][NAME]["id"] is not None, "nearly every config beats the default"
    assert metrics["agree"].keys() == {NAME}
    assert f"{NAME}: the winners " in done.stdout
    assert not list(suite.directory.rglob("__specs__"))
