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

import msgspec
import pytest

from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.spec.read import read_spec
from pytest_shark_tune.system.cache import BINARY, Cache
from tests.models import suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Outcome, Suite

SUITE = suite_text("ops.matmul(m=32, n=48, k=40)")
NAME = "matmul_32x48x40_f32"


NO_FINALS = ("-k", "not final and not spec")


def fresh_suite(make_suite: MakeSuite, cache: Path) -> Suite:
    """A suite with a cache of its own, so that nothing is known yet."""
    suite = make_suite({"test_suite.py": SUITE})
    suite.cache, suite.habits = cache, ("--tune-strategy=exhaustive", "-v")
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
    first = known.tune("--tune-trials=1", out="first")
    # What a snapshot holds would not be looked up at all.
    shutil.rmtree(known.directory / "__specs__", ignore_errors=True)
    return first, known.tune("--tune-trials=1", out="again")


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


@pytest.mark.slow
def test_of_more_candidates_only_those_are_measured(known: Suite, first: Outcome) -> None:
    more = known.tune("--tune-trials=3", *NO_FINALS, out="more")
    assert len(tried(more.verdicts)) == 2
    assert not tried(more.verdicts) & tried(first.verdicts)
    assert more.dispatch(NAME)["tried"] == 3


@pytest.mark.slow
def test_what_another_compiler_made_is_not_taken_for_this_ones(known: Suite, first: Outcome) -> None:
    flag = "--iree-compile-flag=--iree-opt-level=O1"
    other = known.tune("--tune-trials=1", *NO_FINALS, flag, out="other")
    assert tried(other.verdicts) == tried(first.verdicts)
    assert len(journals(known)) == 2


@pytest.mark.slow
def test_an_edited_file_of_flags_is_another_compiler_and_a_damaged_binary_is_made_anew(
    make_suite: MakeSuite, tmp_path: Path
) -> None:
    suite = fresh_suite(make_suite, tmp_path / "cache")
    command = ("--tune-trials=1", *NO_FINALS, "--iree-compile-flag=@flags.txt")
    suite.write("flags.txt", "--iree-llvmcpu-debug-symbols=true")
    first = suite.tune(*command)
    assert first.status == 0, first.text
    suite.write("flags.txt", "--iree-llvmcpu-debug-symbols=false")
    edited = suite.tune(*command)
    assert edited.status == 0, edited.text
    assert tried(edited.verdicts) == tried(first.verdicts) != set()
    # As on a disk that runs full: the next run is to measure what it finds in the cache.
    for path in (suite.cache / "artifacts").rglob("*.vmfb"):
        path.write_bytes(path.read_bytes()[:1000])
    for path in journals(suite):
        path.unlink()
    again = suite.tune(*command)
    assert again.status == 0, again.text
    assert again.records
    assert {record["state"] for record in again.records} == {record["state"] for record in edited.records}
    again.lines.fnmatch_lines(["shark-tune: *.vmfb is damaged, and is left*"])


@pytest.mark.slow
def test_what_pytest_benchmark_is_to_save_is_measured_anew(known: Suite, first: Outcome) -> None:
    saving = known.tune("--tune-trials=1", *NO_FINALS, "--benchmark-json=bench.json", out="saving")
    assert tried(saving.verdicts) == tried(first.verdicts)
    saved = json.loads((known.directory / "bench.json").read_text(encoding="utf-8"))
    assert len(saved["benchmarks"]) == 2


@pytest.mark.slow
def test_a_fresh_run_measures_anew(known: Suite, first: Outcome) -> None:
    fresh = known.tune("--tune-trials=1", "--tune-fresh", *NO_FINALS, out="fresh")
    assert tried(fresh.verdicts) == tried(first.verdicts)


# Kills the run where the third record is in one of the two journals that it goes to, and not yet in the other.
KILLED = """
import os
import signal
import sys
opened = []

def hear(event, arguments):
    if event != "open" or not isinstance(arguments[2], int) or not arguments[2] & os.O_APPEND:
        return
    path = str(arguments[0])
    if path.endswith(".jsonl") and ("/records/" in path or path.endswith("/records.jsonl")):
        opened.extend([path] if ".dispatches." not in path else [])
        if len(opened) == 6:
            os.killpg(os.getpgrp(), signal.SIGKILL)

if "PYTEST_XDIST_WORKER" not in os.environ:
    sys.addaudithook(hear)
"""


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_where_it_was(suite: Suite, workers: str) -> None:
    suite.write("conftest.py", KILLED)
    running = suite.start("--tune", workers, "--tune-trials=60", *NO_FINALS, "--tune-jobs=1")
    known = {str(record["id"]) for record in running.finish().records}
    (suite.directory / "conftest.py").unlink()
    (kept,) = journals(suite)
    whole = kept.read_bytes()
    kept.write_bytes(whole + b'{"config":"torn')
    outcome = suite.tune(workers, f"--tune-trials={len(known) + 2}", *NO_FINALS, out="on")
    assert outcome.status == 0, outcome.text
    assert not tried(outcome.verdicts) & known
    torn = f"1 line is damaged, as where a run was killed, and left out: {kept}:{len(whole.splitlines()) + 1}"
    assert f"shark-tune: of the results of earlier runs {torn}" in " ".join(outcome.text.split())
    assert known <= {record["id"] for record in outcome.records}
    assert len(outcome.records) >= len(known) + 2


@pytest.mark.slow
def test_a_binary_that_an_earlier_run_measured_is_measured_for_no_other(suite: Suite) -> None:
    first = suite.tune("--tune-trials=4", *NO_FINALS, out="first")
    one, other, *_ = [each["id"] for each in first.records if each["state"] == "measured" and each["id"] != "default"]
    # As if both had the same binary, and the run had been killed before the other one's turn came.
    cache = Cache(suite.cache)
    keys = {path.stem for path in (suite.cache / "artifacts").rglob("*.json")}
    artifacts = {key: artifact for key in keys if (artifact := cache.get("artifacts", key, Artifact))}
    ((measured, digest),) = [(key, each.sha256) for key, each in artifacts.items() if each.candidate == one]
    (key,) = [key for key, each in artifacts.items() if each.candidate == other]
    cache.file("artifacts", key, BINARY).write_bytes(cache.file("artifacts", measured, BINARY).read_bytes())
    cache.put("artifacts", key, msgspec.structs.replace(artifacts[key], sha256=digest))
    (kept,) = journals(suite)
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join(line for line in lines if json.loads(line)["record"]["id"] != other))
    again = suite.tune("--tune-trials=4", *NO_FINALS, out="again")
    assert tried(again.verdicts) == {other}
    (record,) = [each for each in again.records if each["id"] == other]
    assert (record["state"], record["duplicate_of"]) == ("duplicate", one)


@pytest.mark.slow
def test_what_a_suites_own_stages_found_is_not_kept(suite: Suite) -> None:
    suite.write(
        "conftest.py",
        "import pytest\n\n@pytest.fixture\ndef artifact(artifact):\n    return artifact\n",
    )
    assert len(tried(suite.tune("--tune-trials=1", *NO_FINALS).verdicts)) == 2
    assert journals(suite) == []


def whole_lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines() if line.endswith(b"}")] if path.exists() else []


@pytest.mark.slow
def test_killed_at_ten_random_moments_nothing_is_measured_twice(suite: Suite) -> None:
    choose = random.Random(0)
    lines: set[bytes] = set()
    for _ in range(10):
        running = suite.start("--tune", "--tune-trials=40", "--tune-jobs=1")
        time.sleep(choose.uniform(1.0, 6.0))
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        out = running.finish().out
        lines.update(whole_lines(out / "records.jsonl"))
        spec = out / "spec.mlir"
        if spec.exists():
            assert read_spec(spec.read_text(encoding="utf-8"))
    outcome = suite.tune("--tune-trials=40")
    assert outcome.status == 0, outcome.text
    (kept,) = journals(suite)
    measured = [json.loads(line)["config"] for line in whole_lines(kept)]
    assert len(measured) == len(set(measured)) >= 41, "40 candidates and the default"
    lines.update(whole_lines(outcome.out / "records.jsonl"))
    assert len(lines) == len(outcome.records) == len(measured), "of no candidate are there two records"
    if (spec := outcome.out / "spec.mlir").exists():
        assert read_spec(spec.read_text(encoding="utf-8"))
