"""Names and texts of strangers in tune, guard and each command: terminals and CI systems obey nothing in them."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner, Result

from pytest_shark_tune import ops
from pytest_shark_tune.cli import main
from pytest_shark_tune.device.identity import device_slug
from pytest_shark_tune.device.lease import Holder
from pytest_shark_tune.records.snapshot import snapshot_path, write_spec
from pytest_shark_tune.records.types import State
from pytest_shark_tune.results.replay import Landscape, LandscapeCandidate
from pytest_shark_tune.system.lock import FileLock
from pytest_shark_tune.tuning.bundle import BUNDLE
from tests.integration.commands.test_merge import winner
from tests.models import suite_text
from tests.thinned import thinned

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

EVIL = (
    "x\x1b[2J\x1b]0;t\x07\x9b1m\r\u202e\u200b\n::error::pwned\n  ::add-mask::a\n##[error]b [bold]c[/bold] "
    "[link=http://e]d[/link]"
)
SHOWN = r"x\x1b[2J\x1b]0;t\x07\x9b1m\r\u202e\u200b"
SUITE = suite_text('ops.matmul(m=32, n=32, k=32, lhs="f32")')
# A client's stages that say what a compiler and a device might: in failures, warnings, and on stderr.
STAGES = f"""
import logging
import sys
import pytest
from pytest_shark_tune import CandidateFailed

EVIL = {EVIL!r}

@pytest.fixture
def artifact(candidate, artifact):
    sys.stderr.write(EVIL)
    logging.getLogger("pytest_shark_tune.client").warning(EVIL)
    if candidate.config is not None and candidate.config.id != "default":
        raise CandidateFailed("compile_failed", EVIL)
    if candidate.role == "final":
        raise RuntimeError(EVIL)
    return artifact
"""


def assert_harmless(text: str) -> None:
    """Nothing in ``text`` is obeyed by a terminal or a CI system."""
    bad = [each for each in text if unicodedata.category(each) in {"Cc", "Cf", "Zl", "Zp"} and each not in "\n\t"]
    assert bad == [], text
    assert not re.search(r"^\s*::", text, re.MULTILINE), text
    assert "##[" not in text


def mlir_name(name: str) -> str:
    """``name`` as MLIR quotes it."""
    return '"' + "".join(c if c.isalnum() else "".join(f"\\{byte:02X}" for byte in c.encode()) for c in name) + '"'


def evil_spec(directory: Path) -> Path:
    """A spec whose matcher, dispatch and device have hostile names, with records of the same dispatch."""
    directory.mkdir(exist_ok=True)
    path = directory / "evil.mlir"
    write_spec(path, [msgspec.structs.replace(winner(64), dispatch="matmul_64x32x16_f32", device=EVIL, iree=EVIL)])
    quoted = mlir_name(EVIL)
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"@match_matmul_64x32x16_f32\b", f"@{quoted}".replace("\\", r"\\"), text)
    path.write_text(text, encoding="utf-8")
    return path


def evil_model(directory: Path) -> Path:
    """A model whose function and file have hostile names, and whose op can be tuned."""
    name = EVIL.replace("/", "")  # IREE makes file names of functions' names.
    path = directory / f"{name[:40]}.mlir"
    source = ops.matmul(m=32, n=32, k=32).text
    path.write_text(re.sub(r"@\w+", f"@{mlir_name(name)}".replace("\\", r"\\"), source, count=1), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments], env={"COLUMNS": "300"}, catch_exceptions=False)
    assert_harmless(result.stdout)
    assert_harmless(result.stderr)
    return result


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return f"--tune-cache={tmp_path / EVIL[:8]}"


def test_show(tmp_path: Path) -> None:
    spec = evil_spec(tmp_path)
    shown = run("show", spec)
    assert (shown.exit_code, SHOWN in shown.stdout, "[bold]c[/bold]" in shown.stdout) == (0, True, True)
    (row,) = json.loads(run("show", "--json", spec).stdout)
    assert row["matcher"] == row["device"] == row["iree"] == EVIL


def test_show_of_what_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mlir"
    broken.write_text(f"module {{ {EVIL}", encoding="utf-8")
    assert run("show", broken).exit_code == 2
    assert run("show", tmp_path / EVIL).exit_code == 2
    broken.with_suffix(".jsonl").write_text(f"{EVIL}\n{{}}\n", encoding="utf-8")
    assert run("show", broken).exit_code == 2


def test_diff_and_merge(tmp_path: Path) -> None:
    spec, other = evil_spec(tmp_path / "a"), tmp_path / "other.mlir"
    write_spec(other, [winner(64, tile=32)])
    told = run("diff", spec, other)
    assert told.exit_code == 1
    assert SHOWN in told.stdout
    assert json.loads(run("diff", "--json", spec, other).stdout)
    out = tmp_path / "out.mlir"
    assert SHOWN in run("merge", spec, other, "-o", out).stdout
    (result,) = json.loads(run("merge", "--json", spec, other, "-o", out).stdout)["findings"]
    assert result["other"] == EVIL
    assert run("merge", spec, other, "-o", tmp_path / EVIL / "x").exit_code == 2


@pytest.mark.slow
def test_compile_and_space_and_profile(tmp_path: Path, cache: str) -> None:
    model, spec = evil_model(tmp_path), evil_spec(tmp_path)
    assert run("compile", model, "--spec", spec, "-o", tmp_path / "out.vmfb").exit_code in (1, 2)
    assert run("compile", model, "--spec", tmp_path / EVIL, "-o", tmp_path / "out.vmfb").exit_code == 2
    assert run("space", model).exit_code == 0
    assert run("space", "--json", model).exit_code == 0
    assert run("space", "--tune-target", EVIL, model).exit_code == 2
    assert run("profile", model, cache, "--tune-device=local-sync").exit_code == 0
    broken = tmp_path / f"{EVIL[:4]}broken.mlir"
    broken.write_text(f"func.func @{mlir_name(EVIL)}() {{ {EVIL}", encoding="utf-8")
    for command in ("space", "profile"):
        assert run(command, broken).exit_code == 2
    assert run(EVIL).exit_code == 2
    assert run("space", f"--{EVIL}").exit_code == 2


@pytest.mark.slow
def test_port(tmp_path: Path, cache: str) -> None:
    spec = evil_spec(tmp_path)
    assert run("port", spec, "-o", tmp_path / "new.mlir", "--static", cache).exit_code in (0, 1, 2)
    assert run("port", spec, "-o", tmp_path / "new.mlir", "--static", "--json", cache).exit_code in (0, 1, 2)


def test_replay_and_cache(tmp_path: Path, cache: str) -> None:
    path = tmp_path / "landscape.json"
    candidates = tuple(
        LandscapeCandidate(pipeline=EVIL, knobs={"x": place}, state=State.MEASURED, samples_us=(1.0 + place,))
        for place in range(3)
    )
    landscape = Landscape(
        dispatch=EVIL, device=EVIL, target=EVIL, iree=EVIL, baseline_samples_us=((2.0,),), candidates=candidates
    )
    path.write_bytes(msgspec.json.encode(landscape))
    told = run("replay", path, "--seeds=1", "--strategy=random")
    assert (told.exit_code, SHOWN in told.stdout) == (0, True)
    assert run("replay", tmp_path / EVIL).exit_code == 2
    assert run("cache", cache).exit_code == 0
    assert run("cache", cache, "--clear").exit_code == 0


def test_tune(make_suite: MakeSuite) -> None:
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": STAGES})
    for verbosity in ("-v", "-rA"):
        outcome = suite.tune("--tune-trials=2", verbosity, "--benchmark-columns=median")
        assert_harmless(outcome.text)
        assert SHOWN in outcome.text
    (suite.directory / "test_suite.py").write_text(
        SUITE.replace('ops.matmul(m=32, n=32, k=32, lhs="f32")', f"{EVIL + '.mlir'!r}"), encoding="utf-8"
    )
    outcome = suite.tune()
    assert outcome.status == 1
    assert_harmless(outcome.text)


def test_an_internal_error(make_suite: MakeSuite) -> None:
    suite = make_suite(
        {"test_suite.py": SUITE, "conftest.py": f"def pytest_collection(): raise RuntimeError({EVIL!r})\n"}
    )
    outcome = suite.run()
    assert outcome.status == pytest.ExitCode.INTERNAL_ERROR
    assert_harmless(outcome.text)
    assert SHOWN in outcome.text


def test_a_model_whose_name_is_hidden_is_refused(make_suite: MakeSuite) -> None:
    suite = make_suite()
    model = evil_model(suite.directory)
    for arguments in (("--tune", model.name), (model.name, "--tune-guard=x.mlir")):
        outcome = suite.run(*arguments)
        assert outcome.status == pytest.ExitCode.USAGE_ERROR
        assert_harmless(outcome.text)
        assert SHOWN in outcome.text


@pytest.mark.parametrize(
    "option",
    thinned(
        ["--tune-starter-spec", "--tune-bundle", "--tune-target", "--tune-device", "--tune-cache", "--tune-guard"],
        every=3,
    ),
)
def test_options_and_files_that_cannot_be_used(make_suite: MakeSuite, option: str) -> None:
    suite = make_suite({"test_suite.py": SUITE, "evil\x1b[1m": f"module {{ {EVIL}"})
    mode = () if option == "--tune-guard" else ("--tune",)
    for value in ("evil\x1b[1m", f"pytest.ini/{EVIL}"):
        outcome = suite.run(*mode, f"{option}={value}")
        assert outcome.status, outcome.text
        assert_harmless(outcome.text)
        assert r"\x1b[" in outcome.text


@pytest.mark.slow
def test_a_model_with_a_hostile_function_is_tuned(make_suite: MakeSuite) -> None:
    suite = make_suite()
    evil_model(suite.directory).rename(suite.directory / "model.mlir")
    outcome = suite.tune("model.mlir", "--tune-trials=1", "-v", "-k", "default or end-to-end")
    assert_harmless(outcome.text)


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n2", marks=pytest.mark.slow)])
def test_guard(make_suite: MakeSuite, monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    suite = make_suite({"test_suite.py": SUITE, "conftest.py": STAGES})
    suite.habits = ()
    snapshot = snapshot_path(suite.directory, "llvm-cpu", device_slug("local-task"))
    snapshot.parent.mkdir()
    spec = evil_spec(suite.directory)
    snapshot.write_bytes(spec.read_bytes())
    snapshot.with_suffix(".jsonl").write_text(f"{EVIL}\n", encoding="utf-8")
    outcome = suite.run("-v", "-rA", workers, "--tune-report-md=report.md")
    assert outcome.status == 1
    assert_harmless(outcome.text)
    assert "pwned" in outcome.text
    report = (suite.directory / "report.md").read_text(encoding="utf-8")
    assert "\x1b" not in report
    assert "\u202e" not in report
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    annotated = suite.run(workers).text
    ours = [line for line in annotated.splitlines() if line.startswith("::")]
    assert ours
    assert all(line.startswith("::error file=") and "shark-tune" in line for line in ours)
    assert_harmless("\n".join(line.lstrip(":") for line in annotated.splitlines()))


def test_the_note_of_who_holds_a_device(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    out = suite.directory / ".tune"
    out.mkdir()
    lock = FileLock(out / ".shark-tune.lock")
    assert lock.try_acquire(msgspec.json.encode(Holder(os.getpid(), EVIL, "", 0.0)))
    try:
        outcome = suite.tune()
    finally:
        lock.release()
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert_harmless(outcome.text)
    assert SHOWN in outcome.text


@pytest.mark.slow
def test_merge_records_of_what_others_measured(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite({"test_suite.py": SUITE})
    made = suite.tune("--tune-trials=1", "-k", "not spec and not final")
    assert made.status == 0, made.text
    for name in ("summary.json", "records.jsonl"):
        text = (made.out / name).read_text(encoding="utf-8")
        (dispatch,) = {each["dispatch"] for each in made.records}
        evil = json.dumps(EVIL, ensure_ascii=False)[1:-1]
        (made.out / name).write_text(text.replace(dispatch, evil).replace("llvm-cpu", evil), encoding="utf-8")
    told = run("merge-records", made.out, "-o", tmp_path / "out")
    assert SHOWN in told.stdout
    assert run("merge-records", made.out, "-o", tmp_path / "out", "--bundle", tmp_path / EVIL / BUNDLE).exit_code == 2
    assert run("merge-records", tmp_path / EVIL, "-o", tmp_path / "out").exit_code == 2
