"""Models of random parameters: run, profiled, tuned and guarded whole with ``--tune-parameters``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.profiler import profile
from pytest_shark_tune.dispatch.types import Tensor
from tests.parameters import parameter_model, random_parameters, write_parameters
from tests.thinned import thinned

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Suite

WIDTHS = (64, 96, 32)
MODEL = parameter_model(48, *WIDTHS)
GIVEN = "--tune-parameters=model=w.irpa"
PRODUCT = "matmul_48x96x64_f32"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model by the scope of its parameters."""
    directory, compiler = tmp_path_factory.mktemp("parameters"), Compiler(Target.parse("llvm-cpu"))
    paths = {scope: directory / f"{scope or 'none'}.vmfb" for scope in ("model", "")}
    for scope, path in paths.items():
        text = parameter_model(48, *WIDTHS, scope=scope)
        compiler.compile_sources(compiler.lower(text, to="executable-sources"), path)
    return paths


@pytest.mark.parametrize("scope", thinned(["model", ""], every=2))
@pytest.mark.parametrize("suffix", thinned([".irpa", ".gguf", ".safetensors"], every=3))
def test_a_model_computes_with_its_parameters(
    compiled: dict[str, Path], tmp_path: Path, suffix: str, scope: str
) -> None:
    arrays = random_parameters(*WIDTHS)
    # One file for each parameter, of one scope.
    paths = [write_parameters(tmp_path / f"{key}{suffix}", {key: array}) for key, array in arrays.items()]
    given = [f"{scope}={path}" for path in paths]
    with DeviceChild("local-task") as child:
        child.load_function("net", compiled[scope], "main", [Tensor((48, 64), "f32")], parameters=given)
        child.fill("net", 1)
        child.run("net", 1)
        x, y = (np.frombuffer(tensor.data, np.float32).reshape(tensor.shape) for tensor in child.read("net"))
    np.testing.assert_allclose(y, x @ arrays["w0"] @ arrays["w1"], rtol=1e-3, atol=1e-3)
    assert profile(compiled[scope], "local-task", "main", ["48x64xf32=0.5"], given, seconds=0.01).model_us > 0


@pytest.fixture(scope="module")
def suite(make_suite: MakeSuite) -> Suite:
    suite = make_suite({"net.mlir": MODEL})
    write_parameters(suite.directory / "w.irpa", random_parameters(*WIDTHS))
    return suite


@pytest.mark.slow
def test_a_profile_runs_the_model_with_its_parameters(suite: Suite) -> None:
    command = ["profile", str(suite.directory / "net.mlir"), "--json", f"--tune-cache={suite.cache}"]
    path = suite.directory / "w.irpa"
    found = CliRunner().invoke(main, [*command, f"--tune-parameters=model={path}"])
    assert found.exit_code == 0, found.output
    measured = json.loads(found.stdout)
    assert (measured["measured"], measured["model_us"] > 0) == ("the running model", True)
    refused = CliRunner().invoke(main, [*command, f"--tune-parameters=mode={path}"])
    assert refused.exit_code == 2
    assert f"--tune-parameters mode={path}: no model of the run takes parameters of scope 'mode'" in refused.output


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_model_is_tuned_and_judged_whole_with_its_parameters(suite: Suite, workers: str) -> None:
    chosen = ("--tune-trials=1", "--tune-form=O3", "-v")
    outcome = suite.tune(workers, "net.mlir", GIVEN, *chosen, out=f"tuned{workers}")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines_random(["*net-form-O3*", "*net-end-to-end*", f"*{PRODUCT}-default*"])
    summary = json.loads((outcome.out / "summary.json").read_text())
    states = {form["form"]["name"]: form["state"] for form in summary["tried_forms"]}
    assert states["default"] == "measured"
    assert states["O3"] in ("measured", "duplicate")
    assert "its parameters are in other files" not in outcome.text


@pytest.mark.slow
def test_without_its_parameters_the_option_is_named(suite: Suite) -> None:
    outcome = suite.tune("net.mlir", "--tune-trials=1", "-k", "default or end-to-end", "-v", out="without")
    assert outcome.status == 0, outcome.text
    outcome.lines.fnmatch_lines(
        ["*net: its parameters are in other files: give --tune-parameters model=FILE with 'w0', 'w1', so that it is*"]
    )
    assert "end-to-end" not in "".join(line for line in outcome.text.splitlines() if "::" in line)


@pytest.mark.parametrize(
    ("given", "status", "why"),
    thinned(
        [
            ("model=gone.irpa", 4, "--tune-parameters: *gone.irpa cannot be read: No such file or directory"),
            (
                "model=w.irpa --tune-parameters=other=w.irpa",
                2,
                "*other=*: no model of the run takes parameters of scope*",
            ),
            (
                "model=short.irpa",
                1,
                "--tune-parameters: net takes 24576 bytes of 'w0', and *short.irpa has 96: it was *",
            ),
        ],
        every=2,
    ),
)
def test_wrong_files_are_told_before_anything_runs(suite: Suite, given: str, status: int, why: str) -> None:
    write_parameters(
        suite.directory / "short.irpa", {key: array[:1, :24] for key, array in random_parameters(*WIDTHS).items()}
    )
    outcome = suite.tune("net.mlir", *f"--tune-parameters={given}".split(), out="wrong")
    assert outcome.status == status, outcome.text
    outcome.lines.fnmatch_lines([f"*{why}"])
    assert not outcome.out.exists()


@pytest.mark.slow
def test_a_form_is_guarded_with_the_parameters_of_the_ini_file(make_suite: MakeSuite) -> None:
    marked = "import pytest\n\n@pytest.mark.tune('net.mlir')\ndef test_it(candidate, measurement):\n    pass\n"
    ini = "[pytest]\ntune_parameters =\n    model=w.irpa\ntune_form =\n    O3\n"
    # With it the default has far too many workgroups, so that an entry wins, and its form is kept beside the spec.
    flags = "iree_compile_flag =\n    --iree-llvmcpu-distribution-size=4\n"
    suite = make_suite(
        {"test_it.py": marked, "net.mlir": parameter_model(256, 256, 192, 128), "pytest.ini": ini + flags}
    )
    write_parameters(suite.directory / "w.irpa", random_parameters(256, 192, 128))
    tuned = suite.tune("--tune-trials=1")
    assert tuned.status == 0, tuned.text
    snapshots = suite.directory / "__specs__"
    assert list(snapshots.glob("*.form.json")), tuned.text
    if not list(snapshots.glob("*.mlir")):
        pytest.skip("nothing won on this machine")
    suite.habits = ()
    guarded = suite.run("-v", "-k", "form and correct")
    assert guarded.status == 0, guarded.text
    guarded.lines.fnmatch_lines(["*form-correct* PASSED*"])
    bare = suite.run("-v", "-rs", "-k", "form and correct", "-o", "tune_parameters=")
    bare.lines.fnmatch_lines(["*give --tune-parameters model=FILE with 'w0', 'w1', so that it is run whole*"])
