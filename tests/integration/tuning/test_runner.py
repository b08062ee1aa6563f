"""The bench with real candidates: what a finalist has to reach, and the checks and rounds that guarding takes."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.dispatch.types import Tensor
from pytest_shark_tune.errors import CandidateFailed
from pytest_shark_tune.measurement.correctness import EXACT, tolerance_for
from pytest_shark_tune.measurement.timing import GUARD_ROUND, Measurement
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import Source, read_source
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.types import State
from pytest_shark_tune.records.winner import FINALISTS
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.acceptance import model_tolerance
from pytest_shark_tune.tuning.model.runner import ModelFunction, ModelRunner
from pytest_shark_tune.tuning.runner import Entrants, RoundResult, Runner
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings
from tests.thinned import thinned


@pytest.fixture(scope="module")
def task() -> Task:
    source = read_source(ops.matmul(m=64, n=64, k=64), Path())
    (task,) = make_plan([source], Compiler(Target.parse("llvm-cpu")), processors=2, count=4, seed=0).tasks
    return task


@pytest.fixture
def session(tmp_path: Path, tune_cache: Path) -> Iterator[Session]:
    with closing(session_in(tmp_path, tune_cache)) as session:
        yield session


def session_in(directory: Path, cache: Path) -> Session:
    settings = RunSettings.in_directory(directory, ["local-task"], "cpu", jobs=2)
    return Session(settings, Compiler(Target.parse("llvm-cpu")), Cache(cache))


def measure_all(session: Session, task: Task) -> list[Measurement]:
    measured = []
    for candidate in (task.default, *task.candidates):
        try:
            measured.append(session.runner.measure(task, candidate, session.builder.artifact(task, candidate)))
        except CandidateFailed:
            assert candidate is not task.default
    return measured


def test_candidates_raise_the_bar_and_whoever_stays_below_is_dropped(session: Session, task: Task) -> None:
    thresholds = session.settings.run_directory / "thresholds" / f"{task.dispatch.key}.jsonl"
    default, *candidates = measure_all(session, task)
    assert len(candidates) >= 2
    told = [round(each.ratio_low, 5) for each in candidates if not each.cut_short and each.ratio_low > 1]
    assert journal.read(thresholds, float) == told
    # As if another process had found four that are out of reach; the default is measured all the same.
    thresholds.parent.mkdir(exist_ok=True)
    for _ in range(FINALISTS):
        journal.append(thresholds, 1000.0)
    default, *candidates = measure_all(session, task)
    assert default.ratio_high != 1000.0
    assert all(each.cut_short and each.ratio_high in (1.0, 1000.0) for each in candidates)
    assert any(each.ratio_high == 1000.0 for each in candidates)
    assert journal.read(thresholds, float) == [*told, *[1000.0] * FINALISTS]


@pytest.mark.slow
def test_a_final_is_among_the_candidates_that_its_own_test_has(session: Session, task: Task) -> None:
    ours = session.runner.record(task, task.candidates[0], CandidateFailed(State.RUN_FAILED, ""))
    for name, ratio in ((ours.id, 1.5), ("elsewhere", 2.0)):
        told = {"id": name, "state": State.MEASURED, "ratio": ratio, "ratio_high": ratio}
        journal.append(session.run.records, msgspec.structs.replace(ours, **told))
    assert session.finals.finalists(task) == (ours.id,)


def test_the_next_candidates_take_the_places_of_finalists_that_all_failed(session: Session) -> None:
    source = read_source(ops.matmul(m=64, n=64, k=64), Path())
    (task,) = make_plan([source], session.compiler, processors=2, count=10, seed=0).tasks
    found = [session.runner.record(task, one, CandidateFailed(State.RUN_FAILED, "")) for one in task.candidates]
    for place, record in enumerate(found):
        told = {"state": State.MEASURED, "ratio": 9.0 - place / 10, "ratio_high": 9.5}
        journal.append(session.run.records, msgspec.structs.replace(record, **told))
    ranked = [record.id for record in found]
    rounds: list[tuple[int, list[str]]] = []

    def play(names: Sequence[str], number: int) -> RoundResult:
        rounds.append((number, [*names]))
        if ranked[0] in names:
            failure = CandidateFailed(State.RUN_FAILED, "not in this dispatch of the group")
            return RoundResult({}, dict.fromkeys(names, failure))
        samples = [10.0 + 0.01 * (number + place) for place in range(4)]
        return RoundResult({name: Measurement.of_samples(samples, [20.0] * 4) for name in names}, {})

    final = session.finals.hold_by(task, play)
    assert rounds[:2] == [(0, ranked[:FINALISTS]), (0, ranked[FINALISTS : 2 * FINALISTS])]
    assert final.winner in ranked[FINALISTS : 2 * FINALISTS]
    assert [finalist.state for finalist in final.finalists[:FINALISTS]] == [State.RUN_FAILED] * FINALISTS


def test_a_final_says_why_all_finalists_failed(session: Session, task: Task) -> None:
    record = session.runner.record(task, task.candidates[0], CandidateFailed(State.RUN_FAILED, ""))
    told = {"state": State.MEASURED, "ratio": 2.0, "ratio_high": 2.5}
    journal.append(session.run.records, msgspec.structs.replace(record, **told))
    failure = CandidateFailed(State.RUN_FAILED, "no loader\nwith more")
    final = session.finals.hold_by(task, lambda names, number: RoundResult({}, dict.fromkeys(names, failure)))
    assert (final.winner, final.reason, final.is_provisional) == (None, "its finalists failed: no loader", False)


@pytest.mark.slow
def test_a_finalist_that_ends_its_process_ends_no_final(
    session: Session, task: Task, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_source(ops.matmul(m=96, n=64, k=64), Path())
    (other,) = make_plan([source], session.compiler, processors=2, count=4, seed=0).tasks
    names = {known.name: [one.id for one in runnable(session, known)[:2]] for known in (task, other)}
    bad = names[other.name][0]
    load, children = DeviceChild.load_benchmark, set[int]()

    def die_of_one(child: DeviceChild, key: str, *rest: Any, **options: Any) -> None:
        children.add(child.generation)
        if key.startswith(bad):
            child.close()
        load(child, key, *rest, **options)

    monkeypatch.setattr(DeviceChild, "load_benchmark", die_of_one)
    played = runner.round_of_all([Entrants(known, names[known.name]) for known in (task, other)], 0, GUARD_ROUND)
    assert len(children) == 2, "the rest was measured in a second process"
    for known, failed in ((task, set[str]()), (other, {bad})):
        result = played[known.name]
        assert isinstance(result, RoundResult)
        assert set(result.failed) == failed
        assert set(result.measured) == set(names[known.name]) - failed


def test_nothing_is_left_in_the_exchange_of_a_run_that_is_over(session: Session, task: Task) -> None:
    """As for a worker whose controller was killed, and whose directories are gone."""
    session.settings.run_directory.rmdir()
    with pytest.raises(FileNotFoundError):
        measure_all(session, task)
    assert not session.settings.run_directory.exists()


@pytest.fixture
def runner(session: Session) -> Runner:
    return session.runner


def measure(session: Session, task: Task, candidate: Candidate) -> Measurement:
    return session.runner.measure(task, candidate, session.builder.artifact(task, candidate))


def runnable(session: Session, task: Task) -> list[Candidate]:
    """The candidates that compile, each to a binary of its own."""
    found: dict[str | None, Candidate] = {}
    for candidate in task.candidates:
        with suppress(CandidateFailed):
            found.setdefault(session.builder.artifact(task, candidate).sha256, candidate)
    return list(found.values())


LIMIT = pytest.fail.Exception("a time limit, as pytest-timeout raises it")


def interrupt_within(child: DeviceChild, request: str, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Raise ``error`` in the middle of the next ``request``, as a signal's handler does."""
    real, poll = getattr(child, request), select.poll

    def interrupted(*args: Any, **options: Any) -> Any:
        class Poller:
            def __init__(self) -> None:
                raise error

        monkeypatch.setattr(child, request, real)
        monkeypatch.setattr(select, "poll", Poller)
        try:
            return real(*args, **options)
        finally:
            monkeypatch.setattr(select, "poll", poll)

    monkeypatch.setattr(child, request, interrupted)


def test_an_idle_child_that_is_killed_costs_no_candidate(session: Session, task: Task, runner: Runner) -> None:
    for candidate in (task.default, *runnable(session, task)):
        assert measure(session, task, candidate).samples_us
        (child,) = session.children._children.values()
        os.kill(child.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_child_that_was_started_anew_is_prepared_anew(session: Session, task: Task, runner: Runner) -> None:
    for candidate in (task.default, *runnable(session, task)):
        assert measure(session, task, candidate).samples_us
        (child,) = session.children._children.values()
        child.restart()


@pytest.mark.parametrize(
    ("request_", "error"),
    thinned(
        [
            ("load_benchmark", KeyboardInterrupt()),
            ("store_reference", LIMIT),
            ("check", LIMIT),
            ("run", KeyboardInterrupt()),
            ("unload", LIMIT),
        ],
        every=3,
    ),
)
def test_a_request_that_is_interrupted_costs_no_other_candidate(
    session: Session, task: Task, runner: Runner, monkeypatch: pytest.MonkeyPatch, request_: str, error: BaseException
) -> None:
    first, *others = runnable(session, task)
    measure(session, task, task.default)
    (child,) = session.children._children.values()
    if request_ == "store_reference":  # As where another dispatch was measured in between.
        runner._defaults._held.clear()
    interrupt_within(child, request_, monkeypatch, error)
    with pytest.raises(type(error)):
        measure(session, task, first)
    assert not child.alive, "its answer may still come"
    # The interrupted candidate, too: its binary is nobody's duplicate.
    for candidate in (*others, first):
        assert measure(session, task, candidate).samples_us


def test_a_binary_whose_measurement_was_interrupted_is_measured_for_another(
    session: Session, task: Task, monkeypatch: pytest.MonkeyPatch, runner: Runner
) -> None:
    measure(session, task, task.default)
    first, second, *_ = runnable(session, task)
    (child,) = session.children._children.values()
    interrupt_within(child, "check", monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        measure(session, task, first)
    artifact = session.builder.artifact(task, first)
    assert session.runner.measure(task, second, msgspec.structs.replace(artifact, candidate=second.id)).samples_us
    with pytest.raises(CandidateFailed, match=f"its binary equals that of candidate {second.id}"):
        session.runner.measure(task, first, artifact)


@pytest.mark.slow
def test_a_default_that_could_not_be_prepared_leaves_nothing_of_itself(
    session: Session, task: Task, runner: Runner, tmp_path: Path
) -> None:
    """The child lives on, and holds a part of the other dispatch's default."""
    source = read_source(ops.matmul(m=32, n=32, k=32), Path())
    (other,) = make_plan([source], session.compiler, processors=2, count=1, seed=0).tasks
    measure(session, task, task.default)
    broken = tmp_path / "broken.vmfb"
    broken.write_bytes(b"no module")
    with pytest.raises(CandidateFailed, match="run_failed"):
        session.runner.measure(
            other,
            other.default,
            msgspec.structs.replace(session.builder.artifact(other, other.default), vmfb=str(broken)),
        )
    for candidate in runnable(session, task):
        assert measure(session, task, candidate).samples_us


@pytest.fixture
def wrong(session: Session, task: Task, tmp_path: Path, starting_at_one: Callable[[str], str]) -> Artifact:
    vmfb = tmp_path / "wrong.vmfb"
    session.compiler.compile_sources(starting_at_one(task.dispatch.members[0].module.text), vmfb)
    return Artifact(candidate="wrong", state="compiled", vmfb=str(vmfb), sha256="0")


def a_candidate(session: Session, task: Task) -> Candidate:
    """The first that compiles."""
    for candidate in task.candidates:
        with suppress(CandidateFailed):
            session.builder.artifact(task, candidate)
            return candidate
    raise AssertionError


@pytest.mark.slow
def test_what_an_earlier_run_measured_stands_for_its_binary(session: Session, task: Task, tmp_path: Path) -> None:
    one = a_candidate(session, task)
    other = next(each for each in task.candidates if each is not one)
    artifact = session.builder.artifact(task, one)
    known = session.runner.record(task, one, session.runner.measure(task, one, artifact), artifact=artifact)
    (tmp_path / "later").mkdir()
    with closing(session_in(tmp_path / "later", session.cache.directory)) as later:
        later.runner.reserve(task, [known])
        with pytest.raises(CandidateFailed, match=f"its binary equals that of candidate {one.id}") as raised:
            later.runner.measure(task, other, msgspec.structs.replace(artifact, candidate=other.id))
    assert (raised.value.state, raised.value.detail) == (State.DUPLICATE, one.id)


def test_guarding_checks_and_times_a_config(session: Session, task: Task, runner: Runner) -> None:
    candidate = a_candidate(session, task)
    runner.check_members(task, candidate)
    first, second = (runner.guard_round(task, candidate, number) for number in range(2))
    assert first.ratio > 0
    assert first.blocks >= GUARD_ROUND.min_blocks
    assert first.samples_us != second.samples_us
    # What was loaded for guarding is in no later measurement's way.
    assert session.runner.measure(task, candidate, session.builder.artifact(task, candidate)).samples_us


def test_a_wrong_result_is_found_in_what_a_client_compiled(
    session: Session, task: Task, runner: Runner, wrong: Artifact
) -> None:
    candidate = a_candidate(session, task)
    for look in (runner.check_members, partial(runner.guard_round, number=0)):
        with pytest.raises(CandidateFailed, match="wrong_result") as raised:
            look(task, candidate, artifact=wrong)
        assert raised.value.state == State.WRONG_RESULT


def test_a_default_that_fails_is_not_the_entrys_fault(task: Task, tmp_path: Path) -> None:
    with closing(session_in(tmp_path, tmp_path / "cache")) as session:
        runner = session.runner
        candidate = a_candidate(session, task)
        default = session.builder.artifact(task, task.default)
        assert default.vmfb is not None
        Path(default.vmfb).write_bytes(b"no module")
        for look in (runner.check_members, partial(runner.guard_round, number=0)):
            with pytest.raises(CandidateFailed, match="the default config to compare with failed: run_failed"):
                look(task, candidate)


def compile_model(compiler: Compiler, text: str, out: Path) -> None:
    compiler.compile_sources(compiler.lower(text, to="executable-sources"), out)


def test_whole_models_are_compared_on_what_files_hold(session: Session, runner: Runner, tmp_path: Path) -> None:
    """Rounding off changes what is random, and not whole numbers."""
    paths = {}
    for name, result in (("default", "%a"), ("tuned", "%0")):
        text = f"""func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {{
          %0 = math.floor %a : tensor<4xf32>
          %1 = arith.addf {result}, %a : tensor<4xf32>
          return %1 : tensor<4xf32>
        }}"""
        paths[name] = tmp_path / f"{name}.vmfb"
        compile_model(session.compiler, text, paths[name])
    np.save(tmp_path / "whole.npy", np.arange(4, dtype=np.float32))
    pair, inputs = (paths["default"], paths["tuned"]), (Tensor((4,), "f32"),)
    tolerance, models = tolerance_for("f32", "f32", 1), ModelRunner(session.children, seed=0)
    models.check(ModelFunction("main", inputs, tolerance, {0: str(tmp_path / "whole.npy")}), *pair)
    with pytest.raises(CandidateFailed, match="wrong_result"):
        models.check(ModelFunction("main", inputs, tolerance), *pair)


# As language models do, it takes whole numbers first: places in a table.
EMBEDDED = """
#id = affine_map<(i, j) -> (i, j)>
func.func @main(%ids: tensor<32x256xi64>, %table: tensor<8xf32>, %w: tensor<256x64xf32>) -> tensor<32x64xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<32x256xf32>
  %x = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
      ins(%ids : tensor<32x256xi64>) outs(%e : tensor<32x256xf32>) {
  ^bb0(%id: i64, %unused: f32):
    %place = arith.index_cast %id : i64 to index
    %value = tensor.extract %table[%place] : tensor<8xf32>
    linalg.yield %value : f32
  } -> tensor<32x256xf32>
  %e0 = tensor.empty() : tensor<32x64xf32>
  %f0 = linalg.fill ins(%zero : f32) outs(%e0 : tensor<32x64xf32>) -> tensor<32x64xf32>
  PRODUCT
  return %0 : tensor<32x64xf32>
}
"""
AT_ONCE = """
  %0 = linalg.matmul ins(%x, %w : tensor<32x256xf32>, tensor<256x64xf32>)
      outs(%f0 : tensor<32x64xf32>) -> tensor<32x64xf32>
"""
IN_HALVES = """
  %x0 = tensor.extract_slice %x[0, 0] [32, 128] [1, 1] : tensor<32x256xf32> to tensor<32x128xf32>
  %x1 = tensor.extract_slice %x[0, 128] [32, 128] [1, 1] : tensor<32x256xf32> to tensor<32x128xf32>
  %w0 = tensor.extract_slice %w[0, 0] [128, 64] [1, 1] : tensor<256x64xf32> to tensor<128x64xf32>
  %w1 = tensor.extract_slice %w[128, 0] [128, 64] [1, 1] : tensor<256x64xf32> to tensor<128x64xf32>
  %half = linalg.matmul ins(%x0, %w0 : tensor<32x128xf32>, tensor<128x64xf32>)
      outs(%f0 : tensor<32x64xf32>) -> tensor<32x64xf32>
  %0 = linalg.matmul ins(%x1, %w1 : tensor<32x128xf32>, tensor<128x64xf32>)
      outs(%half : tensor<32x64xf32>) -> tensor<32x64xf32>
"""


@pytest.mark.slow
def test_a_model_whose_first_input_is_of_integers_may_sum_in_another_order(
    session: Session, runner: Runner, tmp_path: Path
) -> None:
    texts = [EMBEDDED.replace("PRODUCT", product) for product in (AT_ONCE, IN_HALVES)]
    pair = tmp_path / "default", tmp_path / "tuned"
    for text, path in zip(texts, pair, strict=True):
        compile_model(session.compiler, text, path)
    source = Source(name="embedded", text=texts[0], is_benchmark=False)
    plan = make_plan([source], session.compiler, processors=2, count=1, seed=0)
    inputs = plan.sources[0].functions["main"]
    assert inputs[0].element == "i64"
    symbols = [member.symbol for task in plan.tasks for member in task.dispatch.members]
    tolerance, models = model_tolerance(plan.sources[0], "main", plan.tasks, symbols), ModelRunner(session.children, 0)
    models.check(ModelFunction("main", inputs, tolerance), *pair)
    with pytest.raises(CandidateFailed, match="wrong_result"):
        models.check(ModelFunction("main", inputs, EXACT), *pair)
