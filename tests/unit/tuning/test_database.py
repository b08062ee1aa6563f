"""What is kept of records for later runs, and what a search is told of other dispatches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import BenchmarkModule, Dispatch, Member, TargetFacts
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record, State
from pytest_shark_tune.search import PriorResult
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.database import TuningDatabase
from pytest_shark_tune.tuning.settings import RunSettings
from tests import factories
from tests.factories import matmul_root

pytestmark = pytest.mark.compiler


def make_task(size: int, *, count: int = 4, source: str = "model", kind: str = "contraction") -> Task:
    name = f"matmul_{size}"
    module = BenchmarkModule(
        text=f"{source} {kind} {size}", run_function="", buffer_function="", buffer_bytes=0, views=()
    )

    def candidate(identity: str, tile: int, space: int = 0) -> Candidate:
        return Candidate(
            id=identity,
            dispatch=name,
            pipeline="Tiled",
            knobs={"wg_0": tile} if tile else {},
            config=f"config {tile}",
            compilation_info=f"info {tile} of {space}" if tile else "",
            space=space,
        )

    return Task(
        dispatch=Dispatch(
            name=name,
            root=matmul_root(size, size, size, kind=kind),
            target=TargetFacts(backend="llvm-cpu", processors=2),
            default_pipeline="Tiled",
            default_config="config 0",
            members=(Member(symbol=name, source=source, calls=1, module=module),),
        ),
        default=candidate("default", 0),
        candidates=tuple(candidate(f"c{tile}", tile, tile % 2) for tile in range(1, count + 1)),
        space_size=count,
    )


def make_record(
    task: Task,
    identity: str,
    ratio: float | None = None,
    state: State = State.MEASURED,
    *,
    duplicate_of: str = "",
    reason: str = "",
) -> Record:
    candidate = task.candidate(identity)
    return factories.make_record(
        identity,
        dispatch=task.name,
        pipeline=candidate.pipeline,
        knobs=candidate.knobs,
        config=candidate.config,
        state=state,
        reason=reason,
        duplicate_of=duplicate_of,
        samples_us=(10 / ratio,) if ratio else (),
        baseline_samples_us=(10.0,) if ratio else (),
        ratio=ratio,
    )


class Runs:
    """Runs on one machine that share a cache, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.cache = Cache(directory)
        self.compiler = Compiler(Target.parse("llvm-cpu:x86-64-v3"), ())
        self.settings = RunSettings.in_directory(directory, ["local-task"], "Some CPU", jobs=1)

    def recall(self, **changes: Any) -> TuningDatabase:
        return TuningDatabase(self.cache, self.compiler, replace(self.settings, **changes))

    def add(self, task: Task, *records: Record) -> None:
        recall = self.recall()
        for record in records:
            recall.add(task, record)

    def similar(self, task: Task) -> list[PriorResult]:
        return self.recall().similar(task)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


ONE, TWO, THREE = make_task(32), make_task(64), make_task(128)
PASSING = {State.COMPILE_TIMEOUT, State.RUN_TIMEOUT, State.RUN_FAILED}


def test_nothing_is_known_at_first(runs: Runs) -> None:
    assert runs.similar(ONE) == []


def test_results_of_another_dispatch_come_with_its_facts_and_its_spaces_told_apart(runs: Runs) -> None:
    runs.add(ONE, make_record(ONE, "default", 1.0), make_record(ONE, "c1", 1.5), make_record(ONE, "c2", 0.5))
    first, second = runs.similar(TWO)
    assert (first.pipeline, first.knobs, first.ratio) == ("Tiled/1", {"wg_0": 1}, 1.5)
    assert (second.pipeline, second.knobs, second.ratio) == ("Tiled/0", {"wg_0": 2}, 0.5)
    assert first.facts.loops == (32, 32, 32)
    assert first.facts.dims == {"m": 0, "n": 1, "k": 2}
    assert first.facts.processors == 2


def test_its_own_results_are_recalled_instead(runs: Runs) -> None:
    runs.add(ONE, make_record(ONE, "c1", 1.5))
    assert runs.similar(ONE) == []
    assert [record.id for record in runs.recall().records(ONE)] == ["c1"]


def test_the_same_op_in_another_model_is_another_dispatch(runs: Runs) -> None:
    runs.add(ONE, make_record(ONE, "c1", 1.5))
    assert [each.ratio for each in runs.similar(make_task(32, source="other"))] == [1.5]


def test_another_kind_of_op_says_nothing(runs: Runs) -> None:
    runs.add(ONE, make_record(ONE, "c1", 1.5))
    assert runs.similar(make_task(64, kind="other")) == []


@pytest.mark.parametrize(
    "change",
    [
        {"device_name": "Other CPU"},
        {"rotate_bytes": 1 << 20},
        {"devices": ("local-sync",)},
        {"devices": ("local-task?task_topology_group_count=1",)},
    ],
)
def test_another_device_or_way_of_measuring_says_nothing(runs: Runs, change: dict[str, object]) -> None:
    runs.add(ONE, make_record(ONE, "c1", 1.5))
    assert runs.recall(**change).similar(TWO) == []


def test_failures_are_told_and_duplicates_are_as_fast_as_the_other(runs: Runs) -> None:
    runs.add(
        ONE,
        make_record(ONE, "c1", 1.5),
        make_record(ONE, "c2", state=State.DUPLICATE, duplicate_of="c1"),
        make_record(ONE, "c3", state=State.COMPILE_FAILED, reason="error: too large"),
        make_record(ONE, "c4", state=State.DUPLICATE, duplicate_of="default"),
    )
    assert [each.ratio for each in runs.similar(TWO)] == [1.5, 1.5, None, 1.0]


def test_a_duplicate_of_what_is_not_known_is_left_out(runs: Runs) -> None:
    runs.add(ONE, make_record(ONE, "c2", state=State.DUPLICATE, duplicate_of="c1"))
    assert runs.similar(TWO) == []


def test_what_a_later_run_found_out_takes_the_place_of_an_earlier_result(runs: Runs) -> None:
    runs.add(ONE, make_record(ONE, "c1", 1.5))
    runs.add(ONE, make_record(ONE, "c1", 1.6))
    assert [each.ratio for each in runs.similar(TWO)] == [1.6]


def test_dispatches_of_the_latest_runs_come_first(runs: Runs) -> None:
    runs.add(ONE, make_record(ONE, "c1", 1.5))
    runs.add(TWO, make_record(TWO, "c1", 1.6))
    assert [each.ratio for each in runs.similar(THREE)] == [1.6, 1.5]
    runs.add(ONE, make_record(ONE, "c2", 1.7))
    assert [each.ratio for each in runs.similar(THREE)] == [1.5, 1.7, 1.6]


def test_of_many_results_500_are_taken_all_over_the_course(runs: Runs) -> None:
    early, late = make_task(32, count=300), make_task(64, count=400)
    for task in (early, late):
        runs.add(task, *(make_record(task, each.id, 1 + each.knobs["wg_0"] / 1e3) for each in task.candidates))
    found = runs.similar(THREE)
    assert len(found) == 500
    assert [each.facts.loops[0] for each in found] == [64] * 400 + [32] * 100
    assert [each.knobs["wg_0"] for each in found[400:]] == list(range(1, 301, 3))


def test_a_torn_line_costs_that_line(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    runs.add(ONE, make_record(ONE, "c1", 1.5))
    runs.add(TWO, make_record(TWO, "c1", 1.6))
    (index,) = runs.cache.directory.rglob("*.dispatches.jsonl")
    first, second = index.read_bytes().splitlines()
    index.write_bytes(first + b"\n" + second[:40])
    assert [each.ratio for each in runs.similar(THREE)] == [1.5]
    assert "is left out" in caplog.text
    assert msgspec.json.decode(first)["key"]


@pytest.mark.parametrize("state", State)
def test_what_tells_of_the_machine_is_found_out_anew(runs: Runs, state: State) -> None:
    ratio = 1.5 if state is State.MEASURED else None
    record = make_record(ONE, "c1", ratio, state, reason="error: no", duplicate_of="default")
    runs.add(ONE, record)
    assert runs.recall().records(ONE) == ([] if state in PASSING else [record])
    assert len(runs.similar(TWO)) == (state not in PASSING)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("error: too large", 1), ("error: failed to link", 0), ("iree-compile was ended by SIGKILL", 0)],
)
def test_of_a_failed_compilation_what_the_compiler_says_is_kept(runs: Runs, reason: str, kept: int) -> None:
    runs.add(ONE, make_record(ONE, "c1", state=State.COMPILE_FAILED, reason=reason))
    assert len(runs.recall().records(ONE)) == kept


def test_a_duplicate_of_what_is_tried_again_is_tried_again(runs: Runs) -> None:
    runs.add(
        ONE,
        make_record(ONE, "c1", state=State.RUN_FAILED),
        make_record(ONE, "c2", state=State.DUPLICATE, duplicate_of="c1"),
        make_record(ONE, "c3", state=State.DUPLICATE, duplicate_of="default"),
    )
    assert [record.id for record in runs.recall().records(ONE)] == ["c3"]
    runs.add(ONE, make_record(ONE, "c1", 1.5))
    assert [record.id for record in runs.recall().records(ONE)] == ["c1", "c2", "c3"]


@pytest.mark.parametrize("state", State)
def test_a_final_is_held_again_where_the_machine_failed_a_finalist(runs: Runs, state: State) -> None:
    final = FinalRecord(
        dispatch=ONE.name,
        root=ONE.dispatch.root,
        weight=1,
        finalists=(Finalist(id="c1", state=State.MEASURED), Finalist(id="c2", state=state, reason="error: no")),
        baseline_samples_us=(10.0,),
        winner=None,
        device="Some CPU",
        target="llvm-cpu",
        iree="3.13.0",
    )
    again = msgspec.structs.replace(final, reason="held again")
    assert runs.recall().final(ONE, ["c1", "c2"], "", lambda: final) == final
    assert runs.recall().final(ONE, ["c1", "c2"], "", lambda: again) == (again if state in PASSING else final)
