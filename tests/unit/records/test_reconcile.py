"""Which entries of a snapshot still hold, why others do not, and what becomes of them; without pytest's hooks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.dispatch.types import Untunable
from pytest_shark_tune.plan.profile import Profile, Share
from pytest_shark_tune.plan.roles import Role
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.plugin.cases import TuningCase
from pytest_shark_tune.plugin.coverage import whole_suites
from pytest_shark_tune.records.reconcile import (
    Requirements,
    Subject,
    Update,
    content_of,
    is_gone,
    ops_of,
    reconcile,
    updated,
)
from pytest_shark_tune.records.snapshot import find_snapshots, read_records, write_spec
from pytest_shark_tune.records.types import RecordedOp, WinnerRecord
from pytest_shark_tune.tuning.run_directory import RunDirectory
from tests.factories import make_task, make_winner
from tests.unit.results.test_store import ONE, PLAN, TWO

REQUIREMENTS = Requirements(target="llvm-cpu", fingerprint="setting", iree="3.13.0", device="Some CPU", candidates=2)


def record_of(task: Task, identity: str = "aaaaaa", **changes: object) -> WinnerRecord:
    candidate = task.candidate(identity)
    fields = {
        "dispatch": task.name,
        "knobs": candidate.knobs,
        "config": candidate.config,
        "ratio": 2.0,
        "root": task.dispatch.root,
        "weight": task.weight,
        "compilation_info": candidate.compilation_info,
        "ops": ops_of(task),
        "fingerprint": "setting",
        "content": content_of(task),
        "candidates": 2,
    }
    return make_winner(identity, **(fields | changes))


class Suite:
    """A directory with snapshots of this device and of others."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = self.path_of("some-cpu")

    def path_of(self, device: str) -> Path:
        return self.directory / "__specs__" / f"llvm-cpu-{device}.mlir"

    def reconcile(self, *tasks: Task, required: Requirements = REQUIREMENTS, is_ours: bool = True) -> Update:
        subjects = [Subject(task, str(self.directory), is_ours) for task in tasks]
        return reconcile(subjects, required, lambda suite: Path(suite) / "__specs__" / "llvm-cpu-some-cpu.mlir")


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(tmp_path)


def test_an_entry_of_which_nothing_changed_is_kept(suite: Suite) -> None:
    write_spec(suite.path, [record_of(ONE)])
    update = suite.reconcile(ONE, TWO)
    assert update.kept == {"one": record_of(ONE)}
    assert (update.stale, update.first, update.incumbents) == ({}, {}, {})
    assert list(update.describe()) == [
        "1 dispatch is kept: nothing changed since the snapshot was tuned (--tune-fresh tunes everything again)"
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iree": "3.12.0", "fingerprint": "other"}, "tuned with IREE 3.12.0"),
        ({"device": "Other CPU"}, "tuned for another device, Other CPU"),
        ({"fingerprint": ""}, "its record does not say how it was tuned"),
        ({"fingerprint": "other"}, "flags, driver, the choice of configs or the way of measuring changed"),
        ({"root": TWO.dispatch.root}, "its dispatch changed"),
        ({"ops": (RecordedOp("model", "one_1"),)}, "its dispatch changed"),
        ({"content": "other"}, "its dispatch changed around its root op"),
        ({"candidates": 1}, "only 1 candidate was tried"),
    ],
)
def test_an_entry_of_which_something_changed_is_not(suite: Suite, changes: dict[str, object], reason: str) -> None:
    write_spec(suite.path, [record_of(ONE, "bbbbbb", **changes)])
    update = suite.reconcile(ONE)
    assert update.kept == {}
    assert update.stale == {"one": reason}
    assert list(update.describe()) == [f"retuning one: {reason}"]
    assert update.first == {"one": ("bbbbbb",)}, "its own config is tried first all the same"
    assert update.incumbents == {"one": "bbbbbb"}


def test_no_more_candidates_are_asked_for_than_there_are(suite: Suite) -> None:
    write_spec(suite.path, [record_of(ONE)])
    assert suite.reconcile(ONE, required=asking(candidates=60)).kept
    more = msgspec.structs.replace(ONE, candidates=(*ONE.candidates, TWO.candidates[0]))
    assert suite.reconcile(more, required=asking(candidates=60)).stale == {"one": "only 2 candidates were tried"}


def asking(*, candidates: int = 2, fresh: bool = False) -> Requirements:
    return replace(REQUIREMENTS, candidates=candidates, fresh=fresh)


def test_what_matters_not_may_change(suite: Suite) -> None:
    write_spec(suite.path, [record_of(ONE, dispatch="of_old", weight=1, content="")])
    (kept,) = suite.reconcile(ONE).kept.values()
    assert (kept.dispatch, kept.weight, kept.ratio) == ("one", 3, 2.0)


def test_a_fresh_run_keeps_nothing_and_begins_with_what_it_has(suite: Suite) -> None:
    write_spec(suite.path, [record_of(ONE)])
    update = suite.reconcile(ONE, required=asking(fresh=True))
    assert (update.kept, update.stale) == ({}, {})
    assert update.incumbents == {"one": "aaaaaa"}


def test_what_a_suites_own_stages_found_is_not_kept(suite: Suite) -> None:
    write_spec(suite.path, [record_of(ONE)])
    assert suite.reconcile(ONE, is_ours=False).stale["one"].startswith("its suite has stages of its own")


def test_a_dispatch_of_two_suites_is_kept_only_where_it_holds_in_both(tmp_path: Path) -> None:
    one, two = Suite(tmp_path / "a"), Suite(tmp_path / "b")

    def look() -> Update:
        subjects = [Subject(ONE, str(each.directory)) for each in (one, two)]
        return reconcile(subjects, REQUIREMENTS, lambda suite: Path(suite) / "__specs__" / "llvm-cpu-some-cpu.mlir")

    write_spec(one.path, [record_of(ONE)])
    assert look().stale == {"one": f"{two.directory} has it too, and no entry for it"}
    write_spec(two.path, [record_of(ONE, "bbbbbb")])
    update = look()
    assert update.kept == {}
    assert update.stale == {"one": f"{one.directory}, {two.directory} have different configs for it"}
    assert update.first == {"one": ("aaaaaa", "bbbbbb")}
    assert update.incumbents == {"one": "aaaaaa"}
    write_spec(two.path, [record_of(ONE, content="other")])
    assert look().stale == {"one": "its dispatch changed around its root op"}
    write_spec(two.path, [record_of(ONE)])
    assert look().kept == {"one": record_of(ONE)}


def test_a_snapshot_that_cannot_be_written_is_told_before_the_run(suite: Suite) -> None:
    write_spec(suite.path, [record_of(ONE)])
    with suite.path.with_suffix(".jsonl").open("a", encoding="utf-8") as records:
        records.write("<<<<<<< ours\n")
    (_, told) = suite.reconcile(ONE).describe()
    assert told.startswith(f"{suite.path} will not be updated: llvm-cpu-some-cpu.jsonl:2 is no record, ")


def test_what_won_on_another_device_is_tried_first_and_is_no_incumbent(suite: Suite) -> None:
    write_spec(suite.path, [record_of(ONE, iree="3.12.0")])
    write_spec(suite.path_of("other"), [record_of(ONE, "bbbbbb"), record_of(TWO, "bbbbbb")])
    update = suite.reconcile(ONE, TWO)
    assert update.first == {"one": ("aaaaaa", "bbbbbb"), "two": ("bbbbbb",)}
    assert update.incumbents == {"one": "aaaaaa"}
    assert list(update.describe())[-1] == (
        "what llvm-cpu-other.mlir, of another device, has for 2 dispatches is tried first"
    )


def test_what_is_of_a_target_whose_name_begins_alike_is_another_targets(suite: Suite) -> None:
    write_spec(suite.path_of("x86-64-v3-some-cpu"), [record_of(ONE, "bbbbbb", target="llvm-cpu:x86-64-v3")])
    write_spec(suite.path_of("some-cpu-2"), [record_of(ONE)])
    bare = suite.path_of("x")
    bare.write_text("module {}", encoding="utf-8")
    assert find_snapshots(suite.directory, "llvm-cpu") == (suite.path_of("some-cpu-2"), bare)
    assert find_snapshots(suite.directory, "llvm-cpu:x86-64-v3") == (suite.path_of("x86-64-v3-some-cpu"),)
    assert suite.reconcile(ONE).first == {"one": ("aaaaaa",)}


def test_a_config_that_is_no_candidate_any_more_is_not_tried(suite: Suite) -> None:
    write_spec(suite.path, [record_of(ONE, knobs={"dist_0": 7}, iree="3.12.0")])
    update = suite.reconcile(ONE)
    assert (update.first, update.incumbents) == ({}, {})


def test_incumbents_are_told_from_process_to_process(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.incumbent("one") == ""
    run.write_incumbents({"one": "aaaaaa"}, {})
    assert (run.incumbent("one"), run.incumbent("two")) == ("aaaaaa", "")


THREE = make_task("three", 16)


def test_winners_take_the_places_of_what_they_replace() -> None:
    old = [record_of(TWO), record_of(ONE), record_of(THREE)]
    new = record_of(ONE, "bbbbbb")
    assert updated(old, [(ONE, new)]) == [old[0], new, old[2]]
    assert updated(old, [(ONE, None), (TWO, old[0])]) == [old[0], old[2]]
    assert updated(old[:1], [(ONE, new), (THREE, old[2])]) == [old[0], new, old[2]]
    renamed = [record_of(ONE, dispatch="of_old"), record_of(TWO, dispatch="one")]
    assert updated(renamed, [(ONE, new)]) == [new], "a name stands for one entry"


def test_what_is_in_no_plan_is_gone_unless_it_cannot_be_tuned_now() -> None:
    plan = Plan(sources=(), tasks=(ONE,), untunable=())
    assert not is_gone(record_of(ONE, dispatch="of_old"), [plan])
    assert not is_gone(record_of(TWO, dispatch="one"), [plan])
    assert is_gone(record_of(TWO), [plan])
    untunable = Plan(sources=(), tasks=(), untunable=(Untunable("two_0", "model", "why"),))
    assert not is_gone(record_of(TWO), [plan, untunable])
    cold = Share(dispatch="two", calls=1, time_us=1.0, share=0.1)
    profile = Profile(source="model", function="main", model_us=None, shares=(cold,), measured="")
    assert not is_gone(record_of(TWO), [msgspec.structs.replace(plan, profiles=(profile,))])


def test_a_snapshot_that_would_not_change_is_not_touched(suite: Suite) -> None:
    write_spec(suite.path, [record_of(ONE)])
    before = [path.stat().st_ino for path in sorted(suite.path.parent.iterdir())]
    write_spec(suite.path, read_records(suite.path))
    assert [path.stat().st_ino for path in sorted(suite.path.parent.iterdir())] == before
    write_spec(suite.path, [record_of(ONE, "bbbbbb")])
    assert [path.stat().st_ino for path in sorted(suite.path.parent.iterdir())] != before


def test_a_suite_is_whole_where_every_test_that_tunes_was_generated(tmp_path: Path) -> None:
    first, second = tmp_path / "test_first.py", tmp_path / "test_second.py"
    for path in (first, second, tmp_path / "conftest.py"):
        path.touch()
    case = TuningCase(Role.SPEC, PLAN, "plan", "suite")
    unread = TuningCase(Role.INPUT, PLAN, problem="there is no file")
    patterns = ["test_*.py", "*_test.py"]
    assert whole_suites({first: [case], second: []}, patterns) == (tmp_path,)
    assert whole_suites({first: [case]}, patterns) == ()
    assert whole_suites({first: [case], second: [unread]}, patterns) == ()
    model = TuningCase(Role.SPEC, PLAN, "plan", "")
    assert whole_suites({tmp_path / "model.mlir": [model]}, patterns) == ()
