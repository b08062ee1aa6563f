"""``shark-tune port``: specs of other releases, with records and without, and what becomes of each entry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from pytest_shark_tune import ops
from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.compiler import Compiler, compiler_version
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.dispatch.types import Dispatch
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.plan.spaces import search_spaces
from pytest_shark_tune.port import old_iree_script
from pytest_shark_tune.records.snapshot import read_records, records_path, write_spec
from pytest_shark_tune.records.types import WinnerRecord
from pytest_shark_tune.search_space import SearchSpace
from pytest_shark_tune.search_space.candidate import make_candidates
from pytest_shark_tune.spec.read import read_spec
from pytest_shark_tune.system.machine import processors
from tests.factories import make_winner

TARGET = "llvm-cpu:x86-64-v3"
OLD = Path(__file__).parents[2] / "golden" / "old_specs"
MODELS = {
    "matmul": ops.matmul(m=256, n=256, k=256, lhs="f16"),
    "conv": ops.conv_2d(
        batch=2, height=16, width=16, channels=64, filters=64, kernel_height=3, kernel_width=3, lhs="f16"
    ),
    "small": ops.matmul(m=64, n=64, k=64, lhs="f32"),
}
OLD_TARGETS = {"gfx942": ("hip:gfx942", ("matmul", "conv")), "llvm-cpu": (TARGET, ("small",))}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("models")
    paths = {name: directory / f"{name}.mlir" for name in MODELS}
    for name, path in paths.items():
        path.write_text(MODELS[name].text, encoding="utf-8")
    return paths


@pytest.fixture(scope="module")
def small() -> tuple[Dispatch, SearchSpace]:
    """The small matmul's dispatch and its space."""
    compiler = Compiler(Target.parse(TARGET))
    (dispatch,) = extract_dispatches([read_source(MODELS["small"], Path())], compiler, processors()).dispatches
    (space,) = search_spaces(dispatch, compiler)
    return dispatch, space


@pytest.fixture
def record(small: tuple[Dispatch, SearchSpace]) -> WinnerRecord:
    """The record of a winner of an older release."""
    dispatch, space = small
    wanted = {"peel": 0, "vec_0": 4, "vec_1": 16, "vec_2": 4}
    knobs = next(knobs for knobs in space if wanted.items() <= knobs.items())
    (candidate,) = make_candidates(dispatch.name, dispatch.root, space, [knobs])
    return make_winner(
        candidate.id,
        dispatch=dispatch.name,
        pipeline=candidate.pipeline,
        knobs=knobs,
        config=candidate.config,
        samples_us=(2.0,),
        baseline_samples_us=(3.0,),
        ratio=1.5,
        ratio_low=1.4,
        ratio_high=1.6,
        device="a processor",
        target=TARGET,
        iree="3.12.0",
        root=dispatch.root,
        compilation_info=candidate.compilation_info,
    )


def keep(directory: Path, record: WinnerRecord, *, is_readable: bool) -> Path:
    """A spec that this IREE parses or does not, and its record."""
    path = directory / "old.mlir"
    write_spec(path, [record])
    if not is_readable:
        spoil(path)
    return path


def spoil(path: Path) -> None:
    """Make a spec and its records those of a release whose configs this one does not parse."""
    path.write_text(path.read_text().replace("#iree_cpu.pipeline<", "CPU<"), encoding="utf-8")
    records = [
        msgspec.structs.replace(each, compilation_info="what no release parses any more") for each in read_records(path)
    ]
    records_path(path).write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in records))


def port(tmp_path: Path, *arguments: str | Path) -> Result:
    command = ["port", "-o", str(tmp_path / "new.mlir"), f"--tune-cache={tmp_path / 'cache'}", *map(str, arguments)]
    return CliRunner().invoke(main, command, env={"COLUMNS": "300"}, catch_exceptions=False)


def test_records_are_ported_by_their_knobs_alone(tmp_path: Path, record: WinnerRecord) -> None:
    result = port(tmp_path, keep(tmp_path, record, is_readable=False))
    assert result.exit_code == 0, result.output
    assert "same config" in result.stdout
    (row,) = read_spec((tmp_path / "new.mlir").read_text())
    assert row.compilation_info == record.compilation_info
    (ported,) = read_records(tmp_path / "new.mlir")
    # What was measured is still true of the release that it was measured with.
    assert ported == record


def test_knobs_that_are_none_any_more_get_the_nearest_config(tmp_path: Path, record: WinnerRecord) -> None:
    wild = msgspec.structs.replace(record, knobs=record.knobs | {"vec_1": 17})
    result = port(tmp_path, keep(tmp_path, wild, is_readable=False))
    assert result.exit_code == 0, result.output
    assert "nearest config" in result.stdout
    assert "vec_1: 17 -> 16, because vec_1" in result.stdout
    (ported,) = read_records(tmp_path / "new.mlir")
    assert ported.knobs == record.knobs
    assert (ported.samples_us, ported.ratio, ported.iree) == ((), None, compiler_version())
    (row,) = read_spec((tmp_path / "new.mlir").read_text())
    assert "speedup" not in row.provenance


def test_a_pipeline_that_is_gone_is_listed(tmp_path: Path, record: WinnerRecord) -> None:
    gone = msgspec.structs.replace(record, pipeline="TripleTilingExpert")
    result = port(tmp_path, keep(tmp_path, gone, is_readable=False))
    assert result.exit_code == 1
    assert "there is no pipeline TripleTilingExpert for" in result.stdout
    assert not (tmp_path / "new.mlir").exists()


@pytest.mark.slow
def test_what_is_lost_is_tuned_anew_and_nothing_else(
    tmp_path: Path, record: WinnerRecord, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # This CPU's default for prime sizes is so slow that some candidate wins, whatever the machine does.
    target = "llvm-cpu"
    record = msgspec.structs.replace(record, target=target)
    prime = tmp_path / "prime.mlir"
    prime.write_text(ops.matmul(m=53, n=59, k=61, lhs="f32").text, encoding="utf-8")
    (dispatch,) = extract_dispatches(
        [read_source(prime, Path())], Compiler(Target.parse(target)), processors()
    ).dispatches
    lost = msgspec.structs.replace(record, dispatch=dispatch.name, root=dispatch.root, pipeline="TripleTilingExpert")
    old = tmp_path / "old.mlir"
    write_spec(old, [record, lost])
    spoil(old)
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("PYTEST_ADDOPTS", "--tune-trials=4")
    result = port(tmp_path, old, models["small"], prime, "--static", "--retune", f"--tune-target={target}")
    assert result.exit_code == 0, result.output
    assert f"tuning {dispatch.name} anew" in result.stderr
    assert "tuned anew" in result.stdout
    kept, tuned = read_records(tmp_path / "new.mlir")
    assert (kept.dispatch, kept.id == tuned.id) == (record.dispatch, False)
    assert (tuned.dispatch, tuned.iree) == (dispatch.name, compiler_version())
    assert tuned.ratio_low is not None
    assert tuned.ratio_low > 1
    assert [row.matcher for row in read_spec((tmp_path / "new.mlir").read_text())] == [
        f"match_{record.dispatch}",
        f"match_{dispatch.name}",
    ]


def test_an_old_spec_of_which_nothing_is_left_is_not_removed(tmp_path: Path, record: WinnerRecord) -> None:
    gone = msgspec.structs.replace(record, pipeline="TripleTilingExpert")
    path = keep(tmp_path, gone, is_readable=False)
    before = path.read_bytes(), records_path(path).read_bytes()
    result = port(tmp_path, path, "-o", path)
    assert result.exit_code == 1
    assert f"no entry is left: {path} stays as it was" in result.stderr
    assert (path.read_bytes(), records_path(path).read_bytes()) == before


def test_what_matches_nothing_is_lost(tmp_path: Path, record: WinnerRecord, models: dict[str, Path]) -> None:
    path = keep(tmp_path, record, is_readable=True)
    records_path(path).unlink()
    other = tmp_path / "other.mlir"
    other.write_text(ops.matmul(m=32, n=64, k=64, lhs="f32").text, encoding="utf-8")
    result = port(tmp_path, path, other, f"--tune-target={TARGET}", "--static")
    assert result.exit_code == 1
    assert "it matches no dispatch of the models" in result.stdout


def test_a_spec_that_parses_needs_no_model(tmp_path: Path) -> None:
    result = port(tmp_path, OLD / "llvm-cpu_3.12.mlir", f"--tune-target={TARGET}")
    assert result.exit_code == 0, result.output
    assert "kept as it is" in result.stdout
    before, after = (read_spec(path.read_text()) for path in (OLD / "llvm-cpu_3.12.mlir", tmp_path / "new.mlir"))
    assert before == after


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([OLD / "llvm-cpu_3.9.mlir"], "give --from-python /path/to/python of an environment with the IREE that wrote"),
        ([OLD / "llvm-cpu_3.9.mlir", "--from-python", sys.executable], "it cannot read"),
        ([OLD / "llvm-cpu_3.9.mlir", "--from-python", "no-python"], "could not be started"),
        ([OLD / "llvm-cpu_3.12.mlir", "--retune"], "--retune needs the MODEL"),
        ([OLD / "absent.mlir"], "cannot be read"),
        ([OLD / "llvm-cpu_3.12.mlir", "--tune-target", "vax"], "unknown target 'vax'"),
    ],
)
def test_bad_input_is_a_usage_error(tmp_path: Path, arguments: list[str | Path], message: str) -> None:
    result = port(tmp_path, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert "must be ported first" not in result.stderr, "that is what is being done"


@pytest.mark.slow
def test_a_port_that_cannot_be_written_is_a_usage_error(tmp_path: Path, record: WinnerRecord) -> None:
    records = tmp_path / "new.jsonl"
    records.mkdir()
    result = port(tmp_path, keep(tmp_path, record, is_readable=False))
    assert result.exit_code == 2
    assert f"-o {tmp_path / 'new.mlir'}: {records} cannot be written: Is a directory" in result.stderr


def fake_python(directory: Path, answer: Path) -> Path:
    """An interpreter that answers what the reader answered under the release that wrote the spec."""
    path = directory / "python"
    path.write_text(f'#!/bin/sh\ncat > /dev/null\ncat "{answer}"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def check_applies(new: Path, target: str, sources: list[Path], directory: Path) -> None:
    """``shark-tune compile`` applies every entry to the models."""
    matchers = {row.matcher for row in read_spec(new.read_text())}
    assert matchers == {f"match_{source.stem}" for source in sources}
    for source in sources:
        command = ["compile", str(source), "--spec", str(new), f"--tune-target={target}", "--allow-unmatched"]
        result = CliRunner().invoke(main, [*command, "-o", str(directory / "out.vmfb")], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert f": match_{source.stem} (" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gfx942", "llvm-cpu"])
def test_a_spec_of_39_is_ported_with_what_39_reads_in_it(tmp_path: Path, models: dict[str, Path], name: str) -> None:
    target, names = OLD_TARGETS[name]
    sources = [models[each] for each in names]
    python = fake_python(tmp_path, OLD / f"{name}_3.9.json")
    result = port(
        tmp_path,
        OLD / f"{name}_3.9.mlir",
        *sources,
        f"--tune-target={target}",
        "--static",
        f"--from-python={python}",
    )
    assert result.exit_code == 0, result.output
    assert ("kept as it is" if name == "llvm-cpu" else "same config") in result.stdout
    check_applies(tmp_path / "new.mlir", target, sources, tmp_path)


@pytest.fixture(scope="module", params=["3.9", "3.12"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A release of IREE and the Python of an environment with it."""
    version: str = request.param
    directory = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    python = directory / "bin" / "python"
    install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", f"iree-base-compiler=={version}.*"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"iree-base-compiler {version} cannot be installed here: {done.stderr.strip()[-300:]}")
    return version, python


@pytest.mark.slow
@pytest.mark.parametrize("name", OLD_TARGETS)
def test_a_spec_arrives_from_the_release_that_wrote_it(
    tmp_path: Path, release: tuple[str, Path], models: dict[str, Path], name: str
) -> None:
    version, python = release
    target, names = OLD_TARGETS[name]
    sources = [models[each] for each in names]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    script: list[str | Path] = [python, OLD / "write_spec.py", name, *sources]
    written = subprocess.run(script, env=env, capture_output=True, text=True, check=True).stdout
    old = tmp_path / "old.mlir"
    old.write_text(written, encoding="utf-8")
    # What the plain tests port is what the release writes, and what is read in it there.
    assert written == (OLD / f"{name}_{version}.mlir").read_text()
    if version == "3.9":
        reader: list[str | Path] = [python, Path(old_iree_script.__file__)]
        read = subprocess.run(reader, env=env, input=written, capture_output=True, text=True, check=True).stdout
        assert msgspec.json.decode(read) == msgspec.json.decode((OLD / f"{name}_3.9.json").read_bytes())
    result = port(tmp_path, old, *sources, f"--tune-target={target}", "--static", f"--from-python={python}")
    assert result.exit_code == 0, result.output
    check_applies(tmp_path / "new.mlir", target, sources, tmp_path)
