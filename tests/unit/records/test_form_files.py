"""The files of forms beside specs."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.forms.form import DEFAULT_FORM, Form
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.form_files import find_forms, read_form, record_path, write_form

STEM = "llvm-cpu-some-cpu"
O3 = Form(name="O3", flags=("--iree-opt-level=O3",))


def record_of(model: str, form: Form = O3) -> FormRecord:
    return FormRecord(model=model, form=form, target="llvm-cpu", device="Some CPU", iree="3.13.0")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"spec": "../spec.mlir"}, "the spec of a form lies beside it, and it names '../spec.mlir'"),
        ({"stem": "a/b"}, "its stem 'a/b' is no part of a file's name"),
    ],
)
def test_a_record_that_names_files_elsewhere_is_refused(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    write_form(tmp_path, record_of("net"), STEM, None)
    path = record_path(tmp_path, "net", STEM)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=reason):
        read_form(path)


def test_the_forms_of_a_spec_name_it_or_the_name_that_it_would_have(tmp_path: Path) -> None:
    spec = tmp_path / f"{STEM}.mlir"
    write_form(tmp_path, record_of("alone"), STEM, None)
    write_form(tmp_path, record_of("default", DEFAULT_FORM), STEM, None)
    write_form(tmp_path, record_of("elsewhere"), "llvm-cpu-other", None)
    write_form(tmp_path, record_of("with-spec"), STEM, spec)
    assert [record.model for record in find_forms(spec)] == ["alone", "with-spec"]
    spec.touch()
    assert [record.model for record in find_forms(spec)] == ["with-spec"]


def test_a_damaged_record_is_refused_with_its_path(tmp_path: Path) -> None:
    path = record_path(tmp_path, "net", STEM)
    path.write_bytes(msgspec.json.encode({"model": 1}))
    with pytest.raises(InputError, match=f"{path.name} is no record of a form"):
        read_form(path)
