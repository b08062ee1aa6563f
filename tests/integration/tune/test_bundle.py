"""``--tune-stop-after compile``, ``--tune-bundle`` and ``shark-tune merge-records``: one job for several machines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.plan.types import Task
from pytest_shark_tune.records.snapshot import read_records
from pytest_shark_tune.records.types import Finalist, FinalRecord, Record, State
from pytest_shark_tune.results.summary import Summary
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.bundle import BUNDLE, PackedCompiler, read_bundle
from pytest_shark_tune.tuning.microbenchmarks import Microbenchmarks
from tests.factories import make_final, make_record

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Outcome, Suite

TEST = "test_suite.py::test_dispatch"
SUITE = """
import pytest
from pytest_shark_tune import ops

@pytest.mark.tune(ops.matmul(m=64, n=64, k=64, lhs="f32"))
def test_dispatch(candidate, artifact, measurement):
    assert measurement is not None, "a run that stops after compiling runs no test's own lines"

def test_the_compiler_is_absent():
    from iree.compiler import ir
    with pytest.raises(Exception, match="takes the IREE compiler"):
        ir.Context()
"""
# What stands for a machine without the compiler; a run that is forked has imported it.
FORBID = """
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("iree.compiler"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Forbid())
"""
WITHOUT_COMPILER = ("-p", "forbid_compiler")


@pytest.fixture(scope="module")
def suite(make_suite: MakeSuite) -> Suite:
    return make_suite({"test_suite.py": SUITE, "forbid_compiler.py": FORBID})


@pytest.fixture(scope="module")
def compiled(suite: Suite) -> Outcome:
    """A run that left a bundle with two candidates and the default; to ask for its device would be an error."""
    options = ("--tune-stop-after=compile", "--tune-trials=2", "--tune-device=local-task://nowhere")
    return suite.tune(*options, "-k", "dispatch", out="compiled")


@pytest.fixture(scope="module")
def measured(suite: Suite, compiled: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run on what stands for another machine: it has a cache of its own, and no compiler."""
    assert compiled.status == 0, compiled.text
    cache = tmp_path_factory.mktemp("elsewhere")
    options = (*WITHOUT_COMPILER, f"--tune-bundle=compiled/{BUNDLE}", f"--tune-cache={cache}")
    return suite.start("--tune", *options, "-k", "not final", out="measured").finish()


def test_what_is_compiled_is_left_in_a_bundle_and_nothing_is_measured(compiled: Outcome) -> None:
    assert compiled.status == 0, compiled.text
    assert {path.name for path in compiled.out.iterdir()} == {".gitignore", BUNDLE}
    compiled.lines.fnmatch_lines(
        [f"bundle: *{BUNDLE}: 3 compiled candidates of 1 dispatch, defaults included, *MB", "*3 passed, 1 deselected*"]
    )
    bundle = read_bundle(compiled.out / BUNDLE)
    assert list(bundle.tests) == [TEST]
    (plan,) = bundle.plans.values()
    assert len(plan.tasks[0].candidates) == 2
    assert len(bundle.builds) == 3


def test_what_a_bundle_holds_is_not_compiled_again(compiled: Outcome, tmp_path: Path) -> None:
    bundle, cache = read_bundle(compiled.out / BUNDLE), Cache(tmp_path)
    bundle.unpack(compiled.out / BUNDLE, cache)
    compiler = PackedCompiler(bundle)
    microbenchmarks = Microbenchmarks(compiler, cache, "a device").built()
    assert len({each.vmfb for each in microbenchmarks}) == 5
    (task,) = next(iter(bundle.plans.values())).tasks
    builds = Builder(compiler, cache, DeviceLeases(()), jobs=1, report=print)
    try:
        made = [builds.artifact(task, candidate).vmfb for candidate in (task.default, *task.candidates)]
        assert {Path(each or "").read_bytes()[4:8] for each in made} == {
            Path(microbenchmarks[0].vmfb).read_bytes()[4:8]
        }
        with pytest.raises(CommandFailed, match="a run with --tune-bundle compiles nothing"):
            compiler.lower("", to="flow")
    finally:
        builds.close()


def test_what_failed_where_a_bundle_was_made_has_failed_in_its_run(compiled: Outcome, tmp_path: Path) -> None:
    bundle, cache = read_bundle(compiled.out / BUNDLE), Cache(tmp_path)
    late = Artifact(candidate="late", state="compile_timeout", reason="iree-compile ran longer than 120 s")
    bad = Artifact(candidate="bad", state="compile_failed", reason="dispatch:1:1: error: too large")
    failed = {content_key(each.candidate): each for each in (late, bad)}
    msgspec.structs.replace(bundle, builds=bundle.builds | failed).unpack(compiled.out / BUNDLE, cache)
    assert [cache.get("artifacts", key, Artifact) for key in failed] == [late, bad]


def test_a_bundle_that_is_cut_is_refused(compiled: Outcome, tmp_path: Path) -> None:
    cut = tmp_path / BUNDLE
    cut.write_bytes((compiled.out / BUNDLE).read_bytes()[:-40_000])
    with pytest.raises(InputError, match=r"not a whole one|cannot be read as a bundle"):
        read_bundle(cut).unpack(cut, Cache(tmp_path / "cache"))


@pytest.mark.slow
def test_a_bundle_is_made_for_a_device_that_is_not_here(suite: Suite) -> None:
    # Without a GPU to ask, and with no test but the default's.
    outcome = suite.tune("--tune-stop-after=compile", "--tune-target=vulkan:rdna3", "-k", "default", out="gpu")
    assert outcome.status == 0, outcome.text
    assert str(read_bundle(outcome.out / BUNDLE).target) == "vulkan:rdna3"


def test_a_bundle_is_measured_without_the_compiler(compiled: Outcome, measured: Outcome) -> None:
    assert measured.status == 0, measured.text
    (plan,) = read_bundle(compiled.out / BUNDLE).plans.values()
    tried = {each["id"]: each["state"] for each in measured.records}
    assert set(tried) == {"default", *(each.id for each in plan.tasks[0].candidates)}
    assert set(tried.values()) <= {"measured", "duplicate"}
    assert all(each["iree"] and each["compile_s"] for each in measured.records)
    assert not (measured.out / "spec.mlir").exists()
    said = " ".join(measured.text.split())  # The line is wrapped, and a path in it may be long.
    assert re.search(r"no spec yet, .* shark-tune merge-records \S*measured --bundle ", said)


def write_findings(directory: Path, summary: Summary, task: Task, candidate: Candidate, ratio: float) -> None:
    """What a run leaves in whose final ``candidate`` won."""
    directory.mkdir(exist_ok=True)
    finalist = Finalist(
        id=candidate.id,
        state=State.MEASURED,
        samples_us=(10 / ratio,),
        ratio=ratio,
        ratio_low=ratio - 0.1,
        ratio_high=ratio + 0.1,
    )
    where = {"dispatch": task.name, "device": summary.run.device}
    tried = {"pipeline": candidate.pipeline, "knobs": candidate.knobs, "config": candidate.config}
    record = make_record(candidate.id, **where, **tried, samples_us=(10 / ratio,))
    won = {"root": task.dispatch.root, "winner": candidate.id, "compilation_info": candidate.compilation_info}
    final = make_final(finalist, **where, **won)
    (directory / "summary.json").write_bytes(msgspec.json.encode(summary))
    journal.append(directory / "records.jsonl", record)
    journal.append(directory / "finals.jsonl", final)


def test_the_records_of_two_runs_become_a_spec(compiled: Outcome, measured: Outcome, tmp_path: Path) -> None:
    bundle = compiled.out / BUNDLE
    (plan,) = read_bundle(bundle).plans.values()
    (task,) = plan.tasks
    directories = [tmp_path / name for name in ("one", "two")]
    summary = msgspec.convert(measured.summary, Summary)
    for directory, candidate, ratio in zip(directories, task.candidates, (1.5, 2.0), strict=True):
        write_findings(directory, summary, task, candidate, ratio)
    out = tmp_path / "merged"
    arguments = ["merge-records", *map(str, directories), "-o", str(out), "--bundle", str(bundle)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert f"{task.name}: 2 finals were held; the best of their winners wins" in done.output
    assert "not run as a whole, as there is no device here" in done.output
    best = task.candidates[1]
    assert json.loads((out / "summary.json").read_bytes())["dispatches"][0]["winner"] == best.id
    (entry,) = read_records(out / "spec.mlir")
    assert (entry.id, entry.compilation_info) == (best.id, best.compilation_info)
    assert [op.symbol for op in entry.ops] == [member.symbol for member in task.dispatch.members]
    assert len(journal.read(out / "records.jsonl", Record)) == 2
    # An entry whose op is another matches nothing in the sources, and is left out.
    (final,) = journal.read(directories[1] / "finals.jsonl", FinalRecord)
    assert final.root is not None
    other = msgspec.structs.replace(final.root, loops=(32, 64, 64))
    (directories[1] / "finals.jsonl").write_bytes(msgspec.json.encode(msgspec.structs.replace(final, root=other)))
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1, done.output
    assert not (out / "spec.mlir").exists()


def test_what_a_run_dropped_is_left_out(compiled: Outcome, measured: Outcome, tmp_path: Path) -> None:
    (plan,) = read_bundle(compiled.out / BUNDLE).plans.values()
    (task,) = plan.tasks
    good, best = task.candidates
    summary = msgspec.convert(measured.summary, Summary)
    one, two, out = (tmp_path / name for name in ("one", "two", "merged"))
    spoiled = msgspec.structs.replace(summary, dropped={task.name: "the whole is no faster with it"})
    write_findings(one, spoiled, task, best, 2.0)
    write_findings(two, summary, task, good, 1.5)

    def merge(*directories: Path) -> tuple[int, Summary]:
        done = CliRunner().invoke(main, ["merge-records", *map(str, directories), "-o", str(out)])
        return done.exit_code, msgspec.json.decode((out / "summary.json").read_bytes(), type=Summary)

    status, merged = merge(one, two)
    assert (status, merged.dispatches[0].winner, merged.dropped) == (0, good.id, {}), "another run's winner counts"
    assert [each.id for each in read_records(out / "spec.mlir")] == [good.id]
    status, merged = merge(one)
    assert (status, merged.dispatches[0].winner) == (1, None)
    assert merged.dropped == {task.name: f"{one} left it out: the whole is no faster with it"}
    assert not (out / "spec.mlir").exists()
    # As of one that was kept from a snapshot.
    (two / "records.jsonl").unlink()
    status, merged = merge(two)
    assert (status, merged.dispatches[0].winner) == (1, None)
    assert merged.dropped[task.name].startswith(f"records.jsonl has no line for {good.id}")


@pytest.mark.slow
def test_a_whole_job_on_two_machines_with_workers(suite: Suite, tmp_path: Path) -> None:
    made = suite.tune("--tune-stop-after=compile", "--tune-trials=3", "-n2", "-k", "dispatch", out="whole")
    assert made.status == 0, made.text
    bundle = made.out / BUNDLE
    options = (*WITHOUT_COMPILER, f"--tune-bundle={bundle}", f"--tune-cache={tmp_path / 'cache'}", "-n2")
    measured = suite.start("--tune", *options, out="whole-measured").finish()
    assert measured.status == 0, measured.text
    assert (measured.out / "finals.jsonl").exists()
    arguments = ["merge-records", str(measured.out), "-o", str(tmp_path / "out"), "--bundle", str(bundle)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    row = json.loads((tmp_path / "out/summary.json").read_bytes())["dispatches"][0]
    assert row["measured"] + row["tried"] >= 3
    assert (tmp_path / "out/spec.mlir").exists() == bool(row["winner"])


@pytest.mark.slow
def test_another_suite_than_the_bundle_was_made_of_is_told(make_suite: MakeSuite, compiled: Outcome) -> None:
    suite = make_suite({"test_other.py": SUITE})
    outcome = suite.tune(f"--tune-bundle={compiled.out / BUNDLE}", "-k", "dispatch")
    assert outcome.status == 1
    outcome.lines.fnmatch_lines([f"*--tune-bundle: the bundle has nothing for test_other.py*only for {TEST}*"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tune-stop-after=run"], "--tune-stop-after: unknown stage 'run'; there is compile"),
        (["--tune-bundle=pytest.ini"], "--tune-bundle: *pytest.ini cannot be read as a bundle*"),
        (["--tune-bundle=absent"], "--tune-bundle: *absent cannot be read as a bundle*"),
        (["--tune-bundle=compiled/bundle.tar", "--tune-restrict=a > 1"], "--tune-bundle measures *so --tune-restrict*"),
        (["--tune-bundle=compiled/bundle.tar", "--tune-stop-after=compile"], "--tune-bundle *--tune-stop-after would*"),
        (
            ["--tune-bundle=compiled/bundle.tar", "--tune-target=vulkan:rdna3"],
            "--tune-target: the bundle *is for llvm*",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    suite: Suite, compiled: Outcome, options: list[str], message: str
) -> None:
    assert compiled.status == 0, compiled.text
    outcome = suite.tune(*options, out="refused")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    outcome.lines.fnmatch_lines([f"ERROR: {message}"])
