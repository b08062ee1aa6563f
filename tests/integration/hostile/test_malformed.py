"""Mutations of every format that is read, for every command: no traceback, no hang, no signal, and each error names
the file.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.form_files import write_form
from pytest_shark_tune.records.snapshot import write_spec
from pytest_shark_tune.search_space.candidate import applied_candidate
from tests import hostile
from tests.factories import make_winner, matmul_root
from tests.malformed import Commands, mutations, restore
from tests.models import suite_text
from tests.parameters import parameter_model, random_parameters, write_parameters

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite

onnx: Any = pytest.importorskip("onnx")

_SUITE = suite_text('ops.matmul(m=32, n=32, k=32, lhs="f32")')
_COMMANDS = "convbfp16 -n 16 -c 32 -H 12 -W 12 -k 64 -y 1 -x 1\nmatmul -M 64 -N 96 -K 32 --a_type bf16 --out_type f32\n"
_CHEAP, _COSTLY = 300, 60
_MODEL_FORM = "model-llvm-cpu"
_PARAMETERS = "pytest --tune --collect-only -q net.mlir --tune-parameters=w=w."
_ARCHIVES = ("irpa", "gguf", "safetensors")

CASES: dict[str, tuple[str, str, int]] = {
    "show": ("spec.mlir", "show spec.mlir", _CHEAP),
    "show records": ("spec.jsonl", "show spec.mlir --json", _CHEAP),
    "diff": ("spec.mlir", "diff other.mlir spec.mlir", _CHEAP),
    "diff records": ("spec.jsonl", "diff spec.mlir other.mlir", _CHEAP),
    "merge": ("spec.mlir", "merge other.mlir spec.mlir -o new.mlir", _CHEAP),
    "merge records": ("spec.jsonl", "merge spec.mlir other.mlir --prefer faster -o new.mlir", _CHEAP),
    "merge starter": ("other.mlir", "merge spec.mlir --starter other.mlir -o new.mlir", _COSTLY),
    "port": ("spec.mlir", "port spec.mlir --static -o new.mlir", _COSTLY),
    "port records": ("spec.jsonl", "port spec.mlir --static -o new.mlir", _CHEAP),
    "port model": ("model.mlir", "port spec.mlir model.mlir --static -o new.mlir", _COSTLY),
    "compile spec": ("spec.mlir", "compile model.mlir --spec spec.mlir -o new.vmfb", _COSTLY),
    "compile model": ("model.mlir", "compile model.mlir --spec spec.mlir -o new.vmfb", _COSTLY),
    "compile form": (f"{_MODEL_FORM}.form.json", f"compile model.mlir --form {_MODEL_FORM}.form.json -o x", _CHEAP),
    "space": ("model.mlir", "space model.mlir", _CHEAP),
    "space bytecode": ("code.mlirbc", "space code.mlirbc", _CHEAP),
    "space onnx": ("tiny.onnx", "space tiny.onnx", _COSTLY),
    "rewrite": ("tiny.onnx", "rewrite tiny.onnx -o new.onnx", _CHEAP),
    "profile": ("model.mlir", "profile model.mlir", _COSTLY),
    "profile data": ("x.npy", "profile model.mlir --tune-input 0=x.npy", _COSTLY),
    "merge-records records": ("out/records.jsonl", "merge-records out -o new", _CHEAP),
    "merge-records finals": ("out/finals.jsonl", "merge-records out -o new", _CHEAP),
    "merge-records summary": ("out/summary.json", "merge-records out -o new", _CHEAP),
    "merge-records bundle": ("bundle.tar", "merge-records out --bundle bundle.tar -o new", _CHEAP),
    "replay": ("landscape.json", "replay landscape.json --seeds 1", _CHEAP),
    "replay kernel tuner": ("kernel_tuner.json", "replay kernel_tuner.json --seeds 1", _CHEAP),
    "replay t4": ("t4.json", "replay t4.json --seeds 1", _CHEAP),
    "replay prior": ("prior.json", "replay landscape.json --seeds 1 --tune-prior prior.json", _CHEAP),
    "prior": ("landscape.json", "prior train landscape.json kernel.json --seeds 0 -o new.json", _CHEAP),
    "report records": ("out/records.jsonl", "report out -o new.html", _CHEAP),
    "report finals": ("out/finals.jsonl", "report out -o new.html", _CHEAP),
    "report summary": ("out/summary.json", "report out -o new.html", _CHEAP),
    "tune prior": ("prior.json", "pytest --tune --collect-only -q suite --tune-prior=prior.json", _COSTLY),
    **{f"tune {suffix}": (f"w.{suffix}", f"{_PARAMETERS}{suffix}", _COSTLY) for suffix in _ARCHIVES},
    "tune model": ("model.mlir", "pytest --tune --collect-only -q model.mlir", _COSTLY),
    "tune commands": ("commands.txt", "pytest --tune --collect-only -q --tune-commands=commands.txt", _CHEAP),
    "tune bundle": ("bundle.tar", "pytest --tune --collect-only -q suite --tune-bundle=bundle.tar", _CHEAP),
    "tune starter": ("spec.mlir", "pytest --tune --collect-only -q suite --tune-starter-spec=spec.mlir", _COSTLY),
    "tune data": ("x.npy", "pytest --tune --collect-only -q model.mlir --tune-input=0=x.npy", _CHEAP),
    "guard spec": ("spec.mlir", "pytest -q model.mlir --tune-guard=spec.mlir -k parses", _COSTLY),
    "guard records": ("spec.jsonl", "pytest -q model.mlir --tune-guard=spec.mlir -k parses", _COSTLY),
    "guard form": (f"{_MODEL_FORM}.form.json", "pytest -q model.mlir --tune-guard=spec.mlir -k parses", _COSTLY),
    "guard flags": (f"{_MODEL_FORM}.flags", "pytest -q model.mlir --tune-guard=spec.mlir -k parses", _COSTLY),
}
"""By name: the file that is mutated, the command that reads it, and the number of mutations."""


_KERNEL_TUNER = {
    "schema_version": "1.0.0",
    "device_name": "NVIDIA A100-PCIE-40GB",
    "kernel_name": "convolution_kernel",
    "problem_size": [4096, 4096],
    "tune_params_keys": ["x", "mode"],
    "tune_params": {"x": [16, 32, 64], "mode": ["fast", "slow"]},
    "objective": "time",
    "cache": {
        name: {"x": x, "mode": mode, "time": time, "times": [1.0], "compile_time": 600.5}
        for name, x, mode, time in (("a", 16, "slow", 2.0), ("b", 32, "fast", 0.5), ("c", 64, "fast", "InvalidConfig"))
    },
}
_T4 = {
    "schema_version": "1.0.0",
    "results": [
        {
            "configuration": {"x": x, "padded": x == 16},
            "times": {"compilation": 661.5, "runtimes": [1.0]},
            "invalidity": "correct",
            "correctness": 1,
            "measurements": [{"name": "time", "value": value, "unit": "ms"}],
            "objectives": ["time"],
        }
        for x, value in ((16, 3.0), (32, 1.0))
    ],
}


@pytest.fixture(scope="module")
def corpus(make_suite: MakeSuite) -> Path:
    """A directory with a whole file of each format."""
    files = {"suite/test_suite.py": _SUITE, "pytest.ini": "[pytest]\ntune_form = none\n", "model.mlir": hostile.MODEL}
    suite = make_suite({**files, "other.mlir": hostile.spec(), "commands.txt": _COMMANDS})
    directory = suite.directory
    tuned = suite.tune("suite", "--tune-trials=3", "--tune-record-landscape=landscape.json", out="out")
    assert tuned.status == 0, tuned.text
    packed = suite.tune("suite", "--tune-stop-after=compile", "--tune-trials=1", out="packed")
    assert packed.status == 0, packed.text
    shutil.move(directory / "packed" / "bundle.tar", directory / "bundle.tar")
    shutil.rmtree(directory / "suite" / "__specs__", ignore_errors=True)
    config = applied_candidate("", hostile.CONFIG, identifier="", knobs={})
    winner = make_winner(
        "abcdef",
        dispatch="main_dispatch_0",
        root=matmul_root(48, 80, 56),
        compilation_info=config.compilation_info,
        config=config.config,
        samples_us=(8.0, 9.0),
        baseline_samples_us=(10.0, 11.0),
        ratio=1.25,
        ratio_low=1.2,
        ratio_high=1.3,
    )
    write_spec(directory / "spec.mlir", [winner])
    form = Form(name="fast", flags=("--iree-opt-level=O2",))
    record = FormRecord(model="model", form=form, target="llvm-cpu", device="", iree="3.13.0", ratio=1.5)
    write_form(directory, record, "llvm-cpu", directory / "spec.mlir")
    np.save(directory / "x.npy", np.ones((48, 56), np.float32))
    (directory / "net.mlir").write_text(parameter_model(16, 24, 8, scope="w"), encoding="utf-8")
    for suffix in _ARCHIVES:
        write_parameters(directory / f"w.{suffix}", random_parameters(16, 24, 8))
    shutil.copy(directory / "landscape.json", directory / "kernel.json")
    (directory / "kernel_tuner.json").write_text(json.dumps(_KERNEL_TUNER), encoding="utf-8")
    (directory / "t4.json").write_text(json.dumps(_T4), encoding="utf-8")
    train = ["prior", "train", "landscape.json", "--seeds", "0", "-o", "prior.json"]
    trained = Commands(directory, directory).run(train)
    assert trained.status == 0, trained
    _write_bytecode(directory / "code.mlirbc")
    _write_onnx(directory / "tiny.onnx")
    return directory


def _write_bytecode(path: Path) -> None:
    from iree.compiler import ir

    with ir.Context(), path.open("wb") as file:
        ir.Module.parse(hostile.MODEL).operation.write_bytecode(file)


def _write_onnx(path: Path) -> None:
    f32 = onnx.TensorProto.FLOAT
    weight = onnx.helper.make_tensor("w", f32, (3, 4), [0.5] * 12)
    values = [onnx.helper.make_tensor_value_info(name, f32, shape) for name, shape in (("x", (2, 3)), ("y", (2, 4)))]
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "tiny", values[:1], values[1:])
    graph.initializer.append(weight)
    opsets = [onnx.helper.make_opsetid("", 17)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


@pytest.fixture(scope="module")
def commands(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    commands = Commands(corpus, tmp_path_factory.mktemp("cache"))
    yield commands
    commands.close()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_malformed_file_ends_no_command(case: str, corpus: Path, commands: Commands) -> None:
    name, line, examples = CASES[case]
    examples = int(os.environ.get("SHARK_TUNE_TEST_MUTATIONS", examples))
    path = corpus / name
    content = path.read_bytes()
    whole = commands.run(line.split())
    assert not whole.problem
    assert whole.status in (0, 1, 5), whole.output
    failures: dict[str, str] = {}

    # All failures are collected, since each has its own cause: the search for the smallest would hide the others.
    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def mutate(data: st.DataObject) -> None:
        mutation = data.draw(mutations(path, content))
        try:
            mutation.apply(path)
            ended = commands.run(line.split())
        finally:
            restore(path, content)
        place = ended.problem or "\n".join(ended.traceback.strip().splitlines()[-7:])
        if not place and ended.status in (2, 4) and Path(name).name not in ended.output:
            place = f"the error does not name the file: {ended.output}"
        if place:
            failures.setdefault(place, mutation.name)

    mutate()
    assert not failures, "\n\n".join(f"{shown}: {place}" for place, shown in failures.items())
