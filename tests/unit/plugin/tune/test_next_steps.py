"""The commands that follow a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pytest_shark_tune.forms.form import DEFAULT_FORM, Form
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.plugin.option_table import OPTIONS
from pytest_shark_tune.plugin.tune.next_steps import next_steps
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.results.summary import Summary

RUN = Path(__file__).parents[3] / "golden" / "runs" / "one_dispatch"


@pytest.fixture(scope="module")
def won() -> Summary:
    return msgspec.json.decode((RUN / "summary.json").read_bytes(), type=Summary)


def steps(
    directory: Path,
    summary: Summary,
    sources: list[Source],
    *,
    time_s: float | None = None,
    forms: tuple[Path, ...] = (),
    **given: Any,
) -> Any:
    options = dict.fromkeys(option.dest for option in OPTIONS) | given
    config: Any = SimpleNamespace(
        invocation_params=SimpleNamespace(dir=directory),
        args=["suite"],
        args_source=pytest.Config.ArgsSource.ARGS,
        getoption=options.get,
    )
    spec = directory / ".tune" / "spec.mlir"
    spec.parent.mkdir(exist_ok=True)
    spec.touch()
    snapshots = [directory / "suite" / "__specs__" / "x.mlir"]
    tuned: Any = SimpleNamespace(candidates=60, time_s=time_s)
    return list(next_steps(config, tuned, summary, sources, spec=spec, snapshots=snapshots, forms=forms))


def test_a_winner_is_used_kept_and_guarded(tmp_path: Path, won: Summary) -> None:
    model = Source(name="net", text="", is_benchmark=False, path=str(tmp_path / "a net.onnx"))
    shared = "--tune-input-shape=x=1x3 --tune-target=hip:gfx942"
    given: dict[str, Any] = {"tune_target": "hip:gfx942", "tune_input_shape": ["x=1x3"], "tune_trials": "8"}
    assert steps(tmp_path, won, [model], **given) == [
        ("to use it", f"shark-tune compile 'a net.onnx' --spec .tune/spec.mlir {shared} -o 'a net.vmfb'"),
        ("to keep it", "git add suite/__specs__"),
        ("to guard it", f"pytest suite {shared}"),
    ]


def test_a_model_is_compiled_in_the_form_that_won(tmp_path: Path, won: Summary) -> None:
    model = Source(name="net", text="", is_benchmark=False, path=str(tmp_path / "net.onnx"))
    form = Form(name="mine", flags=("--iree-opt-level=O3",))
    record = FormRecord(model="net", form=form, target="llvm-cpu", device="", iree="")
    rows = tuple(msgspec.structs.replace(row, winner=None) for row in won.dispatches)
    alone = msgspec.structs.replace(won, dispatches=rows, forms=(record,))
    command = "shark-tune compile net.onnx --form .tune/net-llvm-cpu.form.json -o net.vmfb"
    assert steps(tmp_path, alone, [model])[0] == ("to use it", command)
    no_form = msgspec.structs.replace(record, form=DEFAULT_FORM)
    assert steps(tmp_path, msgspec.structs.replace(alone, forms=(no_form,)), [model])[0][0] == "to try more"


@pytest.mark.parametrize(("time_s", "more"), [(None, "--tune-trials=240"), (90.0, "--tune-time=360s")])
def test_without_a_winner_the_next_run_tries_more(
    tmp_path: Path, won: Summary, time_s: float | None, more: str
) -> None:
    rows = tuple(msgspec.structs.replace(row, winner=None) for row in won.dispatches)
    lost = msgspec.structs.replace(won, dispatches=rows)
    assert steps(tmp_path, lost, [], time_s=time_s) == [("to try more", f"pytest suite --tune {more}")]
    all_tried = tuple(msgspec.structs.replace(row, tried=row.generated) for row in rows)
    assert steps(tmp_path, msgspec.structs.replace(won, dispatches=all_tried), []) == []
    written = (tmp_path / ".tune" / "net.flags", tmp_path / "suite" / "__specs__" / "net.flags")
    kept = [("to keep it", "git add suite/__specs__")]
    assert steps(tmp_path, msgspec.structs.replace(won, dispatches=all_tried), [], forms=written) == kept
