"""Forms of a model, from the race to the response file and the guard."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import environment
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.form_files import find_forms, read_form, record_path, response_path, write_form
from tests.integration.conftest import MakeSuite, Outcome, Suite
from tests.models import CONVOLUTIONS
from tests.thinned import thinned

TEST = "model.mlir::test_dispatch[model-"


@pytest.fixture(scope="module")
def suite(make_suite: MakeSuite) -> Suite:
    return make_suite({"model.mlir": CONVOLUTIONS, "pytest.ini": "[pytest]\n"})


@pytest.fixture(scope="module")
def tuned(suite: Suite) -> Outcome:
    """A run with a known form, one that changes nothing, and one that the compiler refuses."""
    forms = ["im2col", "nothing=--iree-opt-const-eval=true", "unknown=--iree-no-such-flag"]
    return suite.tune("model.mlir", "-v", "--tune-trials=4", *(f"--tune-form={form}" for form in forms))


@pytest.mark.slow
def test_each_form_is_a_test(tuned: Outcome) -> None:
    assert tuned.status == 0, tuned.text
    tuned.lines.fnmatch_lines_random(
        [
            "*[[]model-form-default[]] PASSED*",
            "*[[]model-form-im2col[]] *",
            "*[[]model-form-nothing[]] SKIPPED*",
            "*[[]model-form-unknown[]] SKIPPED*",
            "*[[]model-form-final[]] *",
        ]
    )
    summary = json.loads((tuned.out / "summary.json").read_text())
    tried = {result["form"]["name"]: result for result in summary["tried_forms"]}
    assert tried["default"]["state"] == tried["im2col"]["state"] == "measured"
    assert tried["im2col"]["measurement"]["rounds"] >= 3
    assert (tried["nothing"]["state"], tried["nothing"]["duplicate_of"]) == ("duplicate", "default")
    assert tried["unknown"]["state"] == "compile_failed"
    assert "--iree-no-such-flag" in tried["unknown"]["reason"]


@pytest.mark.slow
def test_the_form_of_a_snapshot_is_compared_again(make_suite: MakeSuite) -> None:
    marked = "import pytest\n\n@pytest.mark.tune('model.mlir')\ndef test_model(measurement):\n    pass\n"
    suite = make_suite({"model.mlir": CONVOLUTIONS, "test_model.py": marked})
    kept = Form(name="kept", flags=("--iree-opt-level=O1",))
    snapshots = suite.directory / "__specs__"
    snapshots.mkdir()
    write_form(snapshots, FormRecord(model="model", form=kept, target="llvm-cpu", device="", iree=""), "old", None)
    for target, name in (("cuda:sm_89", "model"), ("llvm-cpu", "another")):
        other = FormRecord(model=name, form=Form(name="other", flags=kept.flags), target=target, device="", iree="")
        write_form(snapshots, other, f"old-{name}", None)
    tuned = suite.tune("test_model.py", "--tune-trials=2", "--tune-form=im2col")
    assert tuned.status == 0, tuned.text
    summary = json.loads((tuned.out / "summary.json").read_text())
    tried = {result["form"]["name"]: result["form"]["flags"] for result in summary["tried_forms"]}
    assert tried["kept"] == list(kept.flags)
    assert "im2col" in tried
    assert "other" not in tried


@pytest.mark.slow
def test_the_response_file_compiles_the_model(tuned: Outcome, suite: Suite, tmp_path: Path) -> None:
    (record,) = [read_form(path) for path in tuned.out.glob("*.form.json")]
    path = response_path(record_path(tuned.out, "model", "llvm-cpu"))
    assert path.name == "model-llvm-cpu.flags"
    assert record.form.name in ("default", "im2col")
    assert record.file == "model.mlir"
    out = tmp_path / "model.vmfb"
    command = [sys.executable, "-m", "iree.compiler.tools.scripts.iree_compile", f"@{path.name}"]
    subprocess.run([*command, suite.directory / "model.mlir", "-o", out], cwd=tuned.out, check=True, env=environment())
    assert out.stat().st_size > 1000


@pytest.mark.slow
def test_a_form_is_guarded_like_an_entry(tuned: Outcome, suite: Suite) -> None:
    spec = tuned.out / "spec.mlir"
    if not spec.exists():
        pytest.skip("nothing won on this machine")
    suite.habits = ()
    kept = suite.run("model.mlir", "-v", f"--tune-guard={spec}")
    kept.lines.fnmatch_lines_random(
        ["*[[]model-form-compiles[]] PASSED*", "*[[]model-form-correct[]] PASSED*", "*[[]model-form-fast[]] *"]
    )
    path = response_path(record_path(tuned.out, "model", "llvm-cpu"))
    text = path.read_text()
    path.write_text(text + "--iree-opt-level=O3\n")
    try:
        edited = suite.run("model.mlir", "-v", f"--tune-guard={spec}", "-k", "form")
    finally:
        path.write_text(text)
    assert edited.status == 1
    edited.lines.fnmatch_lines(["*model-llvm-cpu.flags has other flags than its record*"])


@pytest.mark.parametrize(
    ("forms", "problem"),
    thinned(
        [
            (["nowhere"], "there is no form 'nowhere' for llvm-cpu: choose from products, strides, im2col"),
            (["none", "im2col"], "none excludes all other forms"),
            (["im2col=--iree-opt-level=O3"], "there is a form 'im2col' already"),
            (["a b=--iree-opt-level=O3"], "'a b' is no name of a form"),
            (["mine=O3"], "form mine: 'O3' is not a flag"),
        ],
        every=2,
    ),
)
def test_a_bad_form_is_a_usage_error(make_suite: MakeSuite, forms: list[str], problem: str) -> None:
    suite = make_suite({"model.mlir": CONVOLUTIONS})
    refused = suite.tune("model.mlir", *(f"--tune-form={form}" for form in forms))
    assert refused.status == 4
    assert f"--tune-form: {problem}" in refused.text


HOSTILE = [
    "--iree-hal-preprocess-executables-with=sh -c 'touch /tmp/x'",
    "--iree-llvmcpu-system-linker-path=/tmp/linker",
    "--iree-hal-dump-executable-files-to=/tmp",
    "--iree-plugin=/tmp/plugin.so",
    "--iree-preprocessing-pass-pipeline=builtin.module(iree-preprocessing-apply-spec{path=/tmp/spec.mlir})",
    "--mlir-print-ir-tree-dir=/tmp",
    "--iree-codegen-tuning-spec-path=/etc/passwd",
]


@pytest.mark.parametrize("flag", HOSTILE)
def test_a_strangers_flags_are_refused(tmp_path: Path, flag: str) -> None:
    record = FormRecord(model="model", form=Form(name="theirs", flags=(flag,)), target="llvm-cpu", device="", iree="")
    write_form(tmp_path, record, "llvm-cpu", None)
    with pytest.raises(InputError, match=r"is refused: it brings the flag"):
        read_form(record_path(tmp_path, "model", "llvm-cpu"))


@pytest.mark.parametrize(
    "change",
    [
        {"spec": "../elsewhere.mlir"},
        {"spec": "/etc/passwd"},
        {"stem": "../up"},
        {"target": "nowhere"},
        {"form": {"name": "../up", "flags": [], "rewrites": []}},
        {"form": {"name": "mine", "flags": ["@/etc/passwd"], "rewrites": []}},
        {"compile_flags": ["--iree-plugin=/tmp/x.so"]},
    ],
)
def test_a_strangers_record_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    record = FormRecord(model="model", target="llvm-cpu", device="", iree="")
    write_form(tmp_path, record, "llvm-cpu", None)
    path = record_path(tmp_path, "model", "llvm-cpu")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=r"model-llvm-cpu\.form\.json (is|cannot)|unknown target"):
        read_form(path)


def test_a_name_from_a_model_stays_in_its_directory(tmp_path: Path) -> None:
    spec = tmp_path / "spec.mlir"
    record = FormRecord(model="../a b/ü", target="cuda:sm_89", device="", iree="")
    response = write_form(tmp_path, record, "cuda:sm_89", spec)
    assert response.parent == tmp_path
    assert response.read_text().splitlines() == list(Target.parse("cuda:sm_89").flags)
    assert [found.model for found in find_forms(spec)] == [record.model]
