"""Records as lines of JSON: what goes in comes out, and what another version wrote is not taken for ours."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.measurement.correctness import Check
from pytest_shark_tune.records.types import (
    SCHEMA,
    Finalist,
    FinalRecord,
    Record,
    SourceCheck,
    SpecRecord,
    State,
    WinnerRecord,
    lasts,
)
from pytest_shark_tune.system import journal
from tests.factories import matmul_root

ROOT = matmul_root(64, 96, 128)
RECORD = Record(
    id="3f9a1c",
    dispatch="matmul_64x96x128_f32",
    pipeline="DoubleTilingExpert",
    knobs={"m": 8, "n": 16},
    config="#iree_cpu.lowering_config<distribution = [8, 16, 0]>",
    state=State.MEASURED,
    compile_s=0.5,
    samples_us=(1.5, 1.25),
    baseline_samples_us=(3.0, 2.5),
    ratio=2.0,
    ratio_low=1.9,
    ratio_high=2.1,
    device="AMD EPYC",
    target="llvm-cpu",
    iree="3.13.0",
)
FAILED = msgspec.structs.replace(
    RECORD,
    state=State.WRONG_RESULT,
    reason="7 of 9 elements are wrong",
    check=Check(ok=False, seed=4, first_bad=(2, 1), expected="nan", actual="-inf", wrong=7, compared=9, magnitude=0.5),
    samples_us=(),
    ratio=None,
)
WINNER = WinnerRecord(
    **{field: getattr(RECORD, field) for field in RECORD.__struct_fields__},
    root=ROOT,
    weight=3,
    compilation_info="#iree_codegen.compilation_info<>",
)
FINAL = FinalRecord(
    dispatch="matmul_64x96x128_f32",
    root=ROOT,
    weight=3,
    finalists=(
        Finalist(id="3f9a1c", state=State.MEASURED, samples_us=(1.5,), ratio=2.0, ratio_low=1.9, ratio_high=2.1),
        Finalist(id="000000", state=State.RUN_FAILED, reason="it crashed"),
    ),
    baseline_samples_us=(3.0,),
    winner="3f9a1c",
    device="AMD EPYC",
    target="llvm-cpu",
    iree="3.13.0",
)
SPEC = SpecRecord(
    sources=(SourceCheck(source="model", applied=2, ratio=1.5, ratio_low=1.4, ratio_high=1.6),),
    dropped={"matmul": "it is slower"},
)
EVERY = [
    pytest.param(value, id=name)
    for name, value in (("record", RECORD), ("failed", FAILED), ("winner", WINNER), ("final", FINAL), ("spec", SPEC))
]


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({"compile_s": 2.0, "samples_us": (), "baseline_samples_us": (), "batch": None}, 0.6),
        ({"compile_s": None, "samples_us": (1e3, 1e3), "baseline_samples_us": (2e3, 2e3), "batch": 100}, 0.7),
        ({"compile_s": 4.0, "samples_us": (), "baseline_samples_us": (), "state": State.RUN_TIMEOUT}, 11.1),
    ],
)
def test_a_record_tells_what_the_candidate_cost(changes: dict[str, object], seconds: float) -> None:
    assert msgspec.structs.replace(RECORD, **changes).cost_s(4) == pytest.approx(seconds)


@pytest.mark.parametrize("value", EVERY)
def test_what_is_appended_is_read_back(value: Record | FinalRecord | SpecRecord, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    journal.append(path, value)
    assert journal.read(path, type(value)) == [value]


@pytest.mark.parametrize("value", EVERY)
def test_a_line_of_another_schema_is_refused(
    value: Record | FinalRecord | SpecRecord, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records.jsonl"
    fields = json.loads(msgspec.json.encode(value))
    assert fields["schema"] == SCHEMA == 1
    path.write_text(json.dumps(fields | {"schema": 2}) + "\n", encoding="utf-8")
    assert journal.read(path, type(value)) == []
    assert "$.schema" in caplog.text


def test_a_record_has_the_fields_that_are_promised() -> None:
    promised = (
        "schema id dispatch pipeline knobs config state reason compile_s samples_us baseline_samples_us ratio device "
        "target iree"
    )
    assert set(promised.split()) <= set(json.loads(msgspec.json.encode(RECORD)))


def test_states_are_the_ones_that_are_promised() -> None:
    promised = "compile_failed compile_timeout not_applied duplicate run_failed run_timeout wrong_result measured"
    assert {str(state) for state in State} == set(promised.split())


def test_a_winner_is_a_record_that_other_tools_read(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    journal.append(path, WINNER)
    assert journal.read(path, Record) == [RECORD]


@pytest.mark.parametrize("field", ["id", "dispatch", "knobs", "state", "device"])
def test_a_record_that_lacks_a_field_is_refused(field: str) -> None:
    fields = json.loads(msgspec.json.encode(RECORD))
    del fields[field]
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.json.decode(json.dumps(fields), type=Record)


def test_an_unknown_state_is_refused() -> None:
    fields = json.loads(msgspec.json.encode(RECORD)) | {"state": "lucky"}
    with pytest.raises(msgspec.ValidationError, match=r"\$\.state"):
        msgspec.json.decode(json.dumps(fields), type=Record)


def test_a_finalist_is_found_by_its_id() -> None:
    assert FINAL.finalist("000000").reason == "it crashed"


@pytest.mark.parametrize(
    ("state", "reason", "stays"),
    [
        (State.WRONG_RESULT, "7 of 9 elements are wrong", True),
        (State.WRONG_RESULT, "impossibly fast: 3 us a dispatch, where ...", False),
        (State.COMPILE_FAILED, "error: no registers", True),
        (State.COMPILE_FAILED, "iree-compile exited with status 0, and its output is missing", False),
        (State.RUN_FAILED, "launch failed", False),
    ],
)
def test_what_tells_of_one_moment_does_not_last(state: State, reason: str, stays: bool) -> None:
    assert lasts(state, reason) is stays
