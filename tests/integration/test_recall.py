"""What an earlier run measured is not measured again: the same command, more candidates, a run that was killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune.stages.spec import read_spec

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Outcome, Suite

SUITE = """
import pytest
from pytest_shark_tune import ops

@pytest.mark.tune(ops.matmul(m=32, n=48, k=40))
def test_dispatch(candidate, artifact, measurement):
    pass
"""
NAME = "matmul_32x48x40_f32"


NO_FINALS = ("-k", "not final and not spec")


def fresh_suite(make_suite: MakeSuite, cache: Path) -> Suite:
    """A suite with a cache of its own, so that nothing is known yet."""
    suite = make_suite({"test_suite.py": SUITE})
    suite.cache, suite.habits = cache, ("--tune-search=exhaustive", "-v")
    return suite


@pytest.fixture
def suite(make_suite: MakeSuite, tmp_path: Path) -> Suite:
    return fresh_suite(make_suite, tmp_path / "cache")


@pytest.fixture(scope="module")
def known(make_suite: MakeSuite, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """A suite of which one candidate and its final are known."""
    return fresh_suite(make_suite, tmp_path_factory.mktemp("known"))


@pytest.fixture(scope="module")
def twice(known: Suite) -> tuple[Outcome, Outcome]:
    """The run that made it known, and the same command again, before any other run adds to what is known."""
    first = known.tune("--tune-candidates=1", out="first")
    # What a snapshot holds would not be looked up at all.
    shutil.rmtree(known.folder / "__specs__", ignore_errors=True)
    return first, known.tune("--tune-candidates=1", out="again")


@pytest.fixture
def first(twice: tuple[Outcome, Outcome]) -> Outcome:
    return twice[0]


def tried(verdicts: dict[str, str]) -> set[str]:
    """The ids of the candidates, the default among them, whose tests were run."""
    ids = {place.rpartition("-")[2] for place in verdicts if f"[{NAME}-" in place}
    return ids - {"final"}


def journals(suite: Suite) -> list[Path]:
    """Where records are kept; beside them lies an index of the dispatches."""
    return [path for path in (suite.cache / "records").rglob("*.jsonl") if b'"samples_us"' in path.read_bytes()]


def test_the_same_command_again_measures_nothing(twice: tuple[Outcome, Outcome]) -> None:
    first, again = twice
    assert first.status == 0, first.text
    assert len(tried(first.verdicts)) == 2
    assert again.status == 0, again.text
    assert tried(again.verdicts) == set()
    again.lines.fnmatch_lines(["shark-tune: 2 results of earlier runs are taken from *"])
    assert again.records == sorted(first.records, key=lambda record: record["id"] != "default")
    assert (again.out / "finals.jsonl").read_bytes() == (first.out / "finals.jsonl").read_bytes()
    assert again.dispatch(NAME) == first.dispatch(NAME)


def test_of_more_candidates_only_those_are_measured(known: Suite, first: Outcome) -> None:
    more = known.tune("--tune-candidates=3", *NO_FINALS, out="more")
    assert len(tried(more.verdicts)) == 2
    assert not tried(more.verdicts) & tried(first.verdicts)
    assert more.dispatch(NAME)["tried"] == 3


def test_what_another_compiler_made_is_not_taken_for_this_ones(known: Suite, first: Outcome) -> None:
    flag = "--iree-compile-flag=--iree-opt-level=O1"
    other = known.tune("--tune-candidates=1", *NO_FINALS, flag, out="other")
    assert tried(other.verdicts) == tried(first.verdicts)
    assert len(journals(known)) == 2


def test_what_pytest_benchmark_is_to_save_is_measured_anew(known: Suite, first: Outcome) -> None:
    saving = known.tune("--tune-candidates=1", *NO_FINALS, "--benchmark-json=bench.json", out="saving")
    assert tried(saving.verdicts) == tried(first.verdicts)
    saved = json.loads((known.folder / "bench.json").read_text(encoding="utf-8"))
    assert len(saved["benchmarks"]) == 2


def test_a_fresh_run_measures_anew(known: Suite, first: Outcome) -> None:
    fresh = known.tune("--tune-candidates=1", "--tune-fresh", *NO_FINALS, out="fresh")
    assert tried(fresh.verdicts) == tried(first.verdicts)


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_where_it_was(suite: Suite, workers: str) -> None:
    running = suite.start("--tune", workers, "--tune-candidates=60", *NO_FINALS, "--tune-jobs=1")
    running.wait_for_records(3)
    os.killpg(running.process.pid, signal.SIGKILL)
    known = {str(record["id"]) for record in running.finish().records}
    (kept,) = journals(suite)
    whole = kept.read_bytes()
    kept.write_bytes(whole + b'{"config":"torn')
    outcome = suite.tune(workers, f"--tune-candidates={len(known) + 2}", *NO_FINALS, out="on")
    assert outcome.status == 0, outcome.text
    assert not tried(outcome.verdicts) & known
    assert known <= {record["id"] for record in outcome.records}
    assert len(outcome.records) >= len(known) + 2


def test_what_a_suites_own_stages_found_is_not_kept(suite: Suite) -> None:
    suite.write(
        "conftest.py",
        "import pytest\n\n@pytest.fixture\ndef artifact(artifact):\n    return artifact\n",
    )
    assert len(tried(suite.tune("--tune-candidates=1", *NO_FINALS).verdicts)) == 2
    assert journals(suite) == []


@pytest.mark.slow
def test_killed_at_ten_random_moments_nothing_is_measured_twice(suite: Suite) -> None:
    choose = random.Random(0)
    for _ in range(10):
        running = suite.start("--tune", "--tune-candidates=40", "--tune-jobs=1")
        time.sleep(choose.uniform(1.0, 6.0))
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        spec = running.finish().out / "spec.mlir"
        if spec.exists():
            assert read_spec(spec.read_text(encoding="utf-8"))
    outcome = suite.tune("--tune-candidates=40")
    assert outcome.status == 0, outcome.text
    (kept,) = journals(suite)
    lines = [json.loads(line) for line in kept.read_bytes().splitlines() if line.endswith(b"}")]
    measured = [line["config"] for line in lines]
    assert len(measured) == len(set(measured)) >= 41, "40 candidates and the default"
    assert len(outcome.records) == len(measured)
    if (spec := outcome.out / "spec.mlir").exists():
        assert read_spec(spec.read_text(encoding="utf-8"))
