"""A hostile spec in every place that takes one: nothing in it runs, and the message names the file, the op and the
option.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.device.identity import device_slug
from pytest_shark_tune.records.snapshot import snapshot_path
from pytest_shark_tune.spec.link import link_spec
from tests.hostile import MODEL, hostile_specs, spec

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Suite

OP = "transform.apply_registered_pass in @apply"
OPTION = "--tune-trust-spec"
SUITE = """
import pytest

@pytest.mark.tune("model.mlir")
def test_dispatch(candidate, artifact, measurement):
    pass
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "RAN"


@pytest.fixture
def suite(make_suite: MakeSuite, marker: Path) -> Suite:
    files = {"model.mlir": MODEL, "hostile.mlir": hostile_specs(marker)["action writes"][0], "good.mlir": spec()}
    return make_suite(files)


COMMANDS = {
    "compile": ["compile", "model.mlir", "--spec", "hostile.mlir", "-o", "out"],
    "merge": ["merge", "good.mlir", "hostile.mlir", "-o", "out"],
    "merge --starter": ["merge", "good.mlir", "--starter", "hostile.mlir", "-o", "out"],
    "port": ["port", "hostile.mlir", "-o", "out"],
    "show": ["show", "hostile.mlir"],
    "diff": ["diff", "good.mlir", "hostile.mlir"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_it(command: str, suite: Suite, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(suite.directory)
    done = CliRunner().invoke(main, COMMANDS[command])
    assert done.exit_code == 2, done.output
    for named in ("hostile.mlir", OP, OPTION):
        assert named in done.output
    assert not marker.exists()
    assert not Path("out").exists()


def test_compile_interprets_it_for_those_who_trust_it(
    suite: Suite, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(suite.directory)
    done = CliRunner().invoke(main, [*COMMANDS["compile"], "--trust-spec"])
    assert done.exit_code == 0, done.output
    assert marker.exists()
    marker.unlink()
    assert CliRunner().invoke(main, COMMANDS["compile"]).exit_code == 2
    assert not marker.exists()


def test_the_guard_refuses_the_entry(suite: Suite, marker: Path) -> None:
    done = suite.run("-v", "model.mlir", "--tune-guard=hostile.mlir")
    assert done.status == 1
    assert done.verdicts["model.mlir::test_dispatch[match_mm-parses"].startswith("FAILED"), done.text
    assert done.text.count("FAILED model.mlir::") == 1
    for named in ("match_mm of ", "hostile.mlir", OP, OPTION):
        assert named in done.text
    assert not marker.exists()
    trusting = suite.run("model.mlir", "--tune-guard=hostile.mlir", "--tune-trust-spec", "-k", "parses or applies")
    assert trusting.status == 0, trusting.text
    assert marker.exists()
    marker.unlink()
    again = suite.run("model.mlir", "--tune-guard=hostile.mlir", "-k", "parses or applies")
    assert again.status == 1  # What a trusting run found out is not taken over.
    assert not marker.exists()


def test_a_snapshot_is_refused(suite: Suite, marker: Path) -> None:
    suite.write("test_suite.py", SUITE)
    path = snapshot_path(suite.directory, "llvm-cpu", device_slug("local-task"))
    suite.write(str(path.relative_to(suite.directory)), hostile_specs(marker)["action runs"][0])
    guarded, tuned = suite.run("test_suite.py"), suite.tune("test_suite.py", "--tune-trials=1")
    for done in (guarded, tuned):
        assert done.status == 1, done.text
        for named in (path.name, OP, OPTION):
            assert named in done.text
    assert "match_mm-parses" in guarded.text
    assert not marker.exists()


def test_a_starter_is_refused(suite: Suite, marker: Path) -> None:
    done = suite.tune("model.mlir", "--tune-starter-spec=hostile.mlir")
    assert done.status == pytest.ExitCode.USAGE_ERROR, done.text
    for named in ("--tune-starter-spec", "hostile.mlir", OP, OPTION):
        assert named in done.text
    assert not marker.exists()


def test_an_ini_file_may_trust(suite: Suite, marker: Path) -> None:
    suite.write("pytest.ini", "[pytest]\ntune_trust_spec = true\n")
    done = suite.run("model.mlir", "--tune-guard=hostile.mlir", "-k", "parses or applies")
    assert done.status == 0, done.text
    assert marker.exists()


def test_what_prints_is_left_out_with_a_line(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.write("printing.mlir", spec(action="transform.print %op : !transform.any_op"))
    line = "transform.print in @apply is left out: it only prints"
    done = suite.run("model.mlir", "--tune-guard=printing.mlir", "-k", "parses or applies")
    assert done.status == 0, done.text
    assert line in done.text
    monkeypatch.chdir(suite.directory)
    for command in (["show", "printing.mlir"], ["merge", "printing.mlir", "-o", "merged.mlir"]):
        shown = CliRunner().invoke(main, command)
        assert shown.exit_code == 0, shown.output
        assert f"printing.mlir: {line}" in shown.output
    assert Path("merged.mlir").read_text(encoding="utf-8") == link_spec(spec())
