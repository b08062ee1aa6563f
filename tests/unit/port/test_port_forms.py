"""Forms beside a spec of another release: what this release knows is kept, and the rest is named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.port.forms import port_forms
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.form_files import read_form, record_path, write_form

RECORD = FormRecord(
    model="model", form=Form(name="O3", flags=("--iree-opt-level=O3",)), target="llvm-cpu", device="a", iree="3.12.0"
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    (tmp_path / "old").mkdir()
    path = tmp_path / "old" / "spec.mlir"
    path.write_text("module {}")
    return path


def test_a_form_keeps_its_flags_and_loses_its_figures(old: Path, tmp_path: Path, compiler: Compiler) -> None:
    write_form(old.parent, msgspec.structs.replace(RECORD, ratio=2.0, tuned_us=3.0), "llvm-cpu", old)
    write_form(old.parent, msgspec.structs.replace(RECORD, model="another"), "llvm-cpu", old.with_name("other.mlir"))
    new = tmp_path / "new.mlir"
    new.write_text("module {}")
    (ported,) = port_forms(old, new, compiler)
    assert ported.response == tmp_path / "model-llvm-cpu.flags"
    assert ported.response.read_text().splitlines()[-2:] == [
        "--iree-opt-level=O3",
        "--iree-codegen-tuning-spec-path=new.mlir",
    ]
    record = read_form(record_path(tmp_path, "model", "llvm-cpu"))
    assert (record.form, record.iree, record.spec) == (RECORD.form, compiler.version, "new.mlir")
    assert (record.ratio, record.tuned_us) == (None, None)
    assert record.note == "ported from IREE 3.12.0, and not measured by this release"


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (Form(name="gone", flags=("--iree-opt-level=O9",)), "--iree-opt-level"),
        (Form(name="gone", rewrites=("of-the-past",)), "there is no rewrite 'of-the-past'"),
    ],
)
def test_what_this_release_does_not_know_is_lost_with_the_reason(
    old: Path, tmp_path: Path, compiler: Compiler, form: Form, reason: str
) -> None:
    write_form(old.parent, msgspec.structs.replace(RECORD, form=form), "llvm-cpu", old)
    (ported,) = port_forms(old, tmp_path / "new.mlir", compiler)
    assert ported.response is None
    assert reason in ported.reason
    assert not list(tmp_path.glob("*.form.json"))


def test_a_strangers_form_is_refused(old: Path, tmp_path: Path, compiler: Compiler) -> None:
    hostile = Form(name="theirs", flags=("--iree-hal-dump-executable-files-to=/tmp",))
    write_form(old.parent, msgspec.structs.replace(RECORD, form=hostile), "llvm-cpu", old)
    with pytest.raises(InputError, match="it brings the flag"):
        tuple(port_forms(old, tmp_path / "new.mlir", compiler))


@pytest.fixture
def compiler() -> Compiler:
    return Compiler(Target.parse("llvm-cpu"))
