"""Findings as benchmarks: which test becomes one, with whose samples, under which name."""

from __future__ import annotations

import json

import pytest
from pytest_benchmark.stats import Metadata

from pytest_shark_tune.plugin.benchmark import Benchmark, benchmarks_of
from pytest_shark_tune.records.types import Finalist, SpecRecord, State
from pytest_shark_tune.results.result import TestResult
from tests.factories import make_final, make_record

PLACE = "odd[1]/test_ops.py::TestOps::test_dispatch"
DEFAULT, CANDIDATE, FINAL = f"{PLACE}[mm-default]", f"{PLACE}[mm-Expert-abc123]", f"{PLACE}[mm-final]"


def tried(identifier: str, *samples_us: float, state: State = State.MEASURED, failed: str = "") -> TestResult:
    record = make_record(
        identifier,
        dispatch="mm",
        pipeline="Expert",
        knobs={} if identifier == "default" else {"m": 8},
        state=state,
        reason=failed,
        samples_us=samples_us,
        baseline_samples_us=(10.0, 11.0) if samples_us else (),
        ratio=2.0 if samples_us else None,
        ratio_low=1.9 if samples_us else None,
        ratio_high=2.1 if samples_us else None,
    )
    return TestResult(plan="plan", suite="", record=record)


def final(winner: str | None, *, baseline_us: tuple[float, ...] = (9.0, 9.5)) -> TestResult:
    finalist = Finalist(
        id="abc123", state=State.MEASURED, samples_us=(4.0, 4.5), ratio=2.2, ratio_low=2.1, ratio_high=2.3
    )
    finalists = (finalist,) if baseline_us else ()
    record = make_final(*finalists, dispatch="mm", baseline_samples_us=baseline_us, winner=winner)
    return TestResult(plan="plan", suite="", final=record)


def one(benchmarks: list[Benchmark], name: str) -> Benchmark:
    (found,) = [each for each in benchmarks if each.fullname == name]
    return found


def us(benchmark: Benchmark) -> tuple[float, ...]:
    return tuple(round(sample * 1e6, 3) for sample in benchmark.samples_s)


def test_a_benchmark_tells_what_was_tried_and_where() -> None:
    (found,) = benchmarks_of({CANDIDATE: tried("abc123", 5.0, 6.0)})
    assert (found.fullname, found.name) == (CANDIDATE, "test_dispatch[mm-Expert-abc123]")
    assert (found.group, found.param, found.params) == ("mm", "mm-Expert-abc123", {"candidate": "mm-Expert-abc123"})
    assert us(found) == (5.0, 6.0)
    assert found.extra_info == {
        "dispatch": "mm",
        "candidate": "abc123",
        "pipeline": "Expert",
        "knobs": {"m": 8},
        "ratio": 2.0,
        "ratio_low": 1.9,
        "ratio_high": 2.1,
        "device": "Some CPU",
        "target": "llvm-cpu",
        "iree": "3.13.0",
    }


def test_the_default_has_both_halves_of_its_comparison_with_itself() -> None:
    (found,) = benchmarks_of({DEFAULT: tried("default", 12.0)})
    assert us(found) == (12.0, 10.0, 11.0)


def test_what_failed_is_no_benchmark() -> None:
    assert not benchmarks_of(
        {
            CANDIDATE: tried("abc123", state=State.RUN_FAILED, failed="launch failed"),
            FINAL: final(None, baseline_us=()),
            f"{PLACE}[spec]": TestResult(plan="plan", suite="", spec=SpecRecord(sources=(), dropped={})),
        }
    )


@pytest.mark.parametrize(
    ("found", "samples_us", "facts"),
    [
        (final("abc123"), (4.0, 4.5), {"candidate": "abc123", "knobs": {"m": 8}, "ratio": 2.2, "ratio_low": 2.1}),
        (final(None), (9.0, 9.5), {"candidate": "default", "knobs": {}, "ratio": None, "ratio_low": None}),
        (final(None, baseline_us=()), (12.0, 10.0, 11.0), {"candidate": "default", "ratio": None}),
    ],
    ids=["the winner's", "the default's where nothing won", "the default's own where nothing came to the final"],
)
def test_a_final_is_what_the_dispatch_comes_to(
    found: TestResult, samples_us: tuple[float, ...], facts: dict[str, object]
) -> None:
    # With workers a final's report may come in whatever order.
    results = {FINAL: found, CANDIDATE: tried("abc123", 5.0), DEFAULT: tried("default", 12.0)}
    benchmark = one(benchmarks_of(results), FINAL)
    assert us(benchmark) == samples_us
    assert {name: benchmark.extra_info[name] for name in facts} == facts


def test_a_winner_whose_record_is_lost_is_still_named() -> None:
    (found,) = benchmarks_of({FINAL: final("abc123")})
    assert found.extra_info["candidate"] == "abc123"
    assert "knobs" not in found.extra_info


@pytest.mark.parametrize("samples_us", [(5.0,), (5.0, 6.0, 7.0)])
def test_pytest_benchmark_takes_one_for_its_own(samples_us: tuple[float, ...]) -> None:
    (found,) = benchmarks_of({CANDIDATE: tried("abc123", *samples_us)})
    metadata = Metadata(found, iterations=1, options={})
    for seconds in found.samples_s:
        metadata.update(seconds)
    told = json.loads(json.dumps(metadata.as_dict()))
    assert not metadata.has_error
    assert told["stats"]["rounds"] == len(samples_us)
    assert told["stats"]["median"] == pytest.approx(sorted(samples_us)[len(samples_us) // 2] * 1e-6)
    assert told["stats"]["data"] == list(found.samples_s)
