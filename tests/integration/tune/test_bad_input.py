"""What a user gets wrong is told in one paragraph, before anything is written; never as a traceback."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_shark_tune import ops
from tests.models import TOTAL, suite_text

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Outcome, Suite

# Pytester forgets the modules that a run in this process loads, and IREE's bindings cannot be loaded twice.
import_module("pytest_shark_tune.plugin.tune.plugin")
import_module("iree.runtime")

MATMUL = suite_text("ops.matmul(m=32, n=32, k=32)")

MARKERS = """
import pytest
from pytest_shark_tune import ops

tune = pytest.mark.tune

@tune("absent.mlir")
def test_absent(candidate): pass

@tune("unparsable.mlir")
def test_unparsable(candidate): pass

@tune("invalid.mlir")
def test_invalid(candidate): pass

@tune("no text.mlir")
def test_no_text(candidate): pass

@tune("broken.mlirbc")
def test_bytecode(candidate): pass

@tune("broken.onnx")
def test_onnx(candidate): pass

@tune("empty.mlir")
def test_empty(candidate): pass

@tune("module.mlir")
def test_module(candidate): pass

@tune("total.mlir")
def test_untunable(candidate): pass

@tune("dynamic.mlir")
def test_dynamic(candidate): pass

@tune("directory.mlir")
def test_directory(candidate): pass

@tune("notes.txt")
def test_suffix(candidate): pass

@tune(ops.matmul(m=32, n=32, k=32), candidates=3)
def test_keyword(candidate): pass

@tune()
def test_nothing(candidate): pass

@tune
def test_bare(candidate): pass

@tune(42)
def test_number(candidate): pass

@tune(["absent.mlir"])
def test_list(candidate): pass

def test_ordinary(): pass
"""

FILES = {
    "unparsable.mlir": b"func.func @f(",
    "invalid.mlir": b"func.func @f(%a: tensor<4xf32>) -> tensor<5xf32> {\n  return %a : tensor<4xf32>\n}\n",
    "no text.mlir": b"caf\xe9",
    "broken.mlirbc": b"ML\xefRnonsense",
    "broken.onnx": b"nonsense",
    "empty.mlir": b"",
    "module.mlir": b"module {}",
    "total.mlir": TOTAL.encode(),
    "dynamic.mlir": b"""
func.func @f(%a: tensor<?x32xf32>, %b: tensor<32x32xf32>, %c: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %0 = linalg.matmul ins(%a, %b : tensor<?x32xf32>, tensor<32x32xf32>) outs(%c : tensor<?x32xf32>) -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}
""",
    "directory.mlir/inside": b"",
    "notes.txt": b"",
}

MESSAGES = {
    "absent": "there is no file */absent.mlir",
    "unparsable": "unparsable.mlir: iree-compile rejects it: unparsable:1:* error: expected non-function type*",
    "invalid": "invalid.mlir: iree-compile rejects it: invalid:2:3: error: *",
    "no_text": "*/no text.mlir: it is neither MLIR text nor MLIR bytecode: *",
    "bytecode": "*/broken.mlirbc: it is not MLIR that this IREE parses: *",
    "onnx": "/*/broken.onnx: not an ONNX model, or one that was cut short: *",
    "empty": "there is nothing to tune in empty: it has no dispatch",
    "module": "there is nothing to tune in module: it has no dispatch",
    "untunable": "there is nothing to tune in total: f_dispatch_0: linalg.generic has no parallel loop*",
    "dynamic": "there is nothing to tune in dynamic: *its sizes depend on dimension 0 of input 0 of f *",
    "directory": "*/directory.mlir cannot be read: Is a directory",
    "suffix": "*/notes.txt is not one of .mlir, .mlirbc, .onnx",
    "keyword": "the marker tune knows no option 'candidates': it takes sources only, as in *",
    "nothing": "the marker tune needs at least one source: an op or a path to a model",
    "bare": "the marker tune needs at least one source: an op or a path to a model",
    "number": "42 is not a source: give a path to .mlir, .mlirbc, .onnx, an op such as ops.matmul(m=512, n=512, k=512) "
    "or a CustomTask",
    "list": "*absent.mlir'] is not a source: give a path to *",
}


@pytest.fixture(scope="module")
def suite(make_suite: MakeSuite) -> Suite:
    suite = make_suite({"test_suite.py": MATMUL})
    for name, content in FILES.items():
        suite.write(name, content)
    return suite


@pytest.fixture(scope="module")
def marked(make_suite: MakeSuite) -> Outcome:
    """A suite each of whose markers is wrong in its own way."""
    suite = make_suite({"test_markers.py": MARKERS})
    for name, content in FILES.items():
        suite.write(name, content)
    return suite.tune()


def test_bad_markers_fail_their_own_test_only(marked: Outcome) -> None:
    assert marked.status == 1
    marked.lines.fnmatch_lines([f"*1 passed, {len(MESSAGES)} errors in *"])


@pytest.mark.parametrize("name", MESSAGES)
def test_a_bad_marker_is_told(marked: Outcome, name: str) -> None:
    marked.lines.fnmatch_lines([f"*ERROR at setup of test_{name}[[]input[]]*", MESSAGES[name]], consecutive=True)


def test_bad_markers_print_no_traceback_and_write_nothing(marked: Outcome) -> None:
    assert "Traceback" not in marked.text
    assert "fixtures.py" not in marked.text
    assert not marked.out.exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--tune-trials=0", "--tune-trials: '0' is not a whole number of at least 1"),
        ("--tune-trials=-1", "--tune-trials: '-1' is not a whole number of at least 1"),
        ("--tune-trials=abc", "--tune-trials: 'abc' is not a whole number of at least 1"),
        ("--tune-jobs=0", "--tune-jobs: '0' is not a whole number of at least 1"),
        ("--tune-seed=x", "--tune-seed: 'x' is not a whole number *"),
        ("--tune-time=soon", "--tune-time: 'soon' is not a duration; give for example 90s, 30m or 1h"),
        ("--tune-time=0s", "--tune-time: '0s' is not a duration; give for example 90s, 30m or 1h"),
        ("--tune-strategy=magic", "--tune-strategy: 'magic' is not known; there is model, random, exhaustive*"),
        ("--tune-target=vax", "--tune-target: unknown target 'vax': give one of llvm-cpu *, cuda:sm_89, *"),
        (
            "--tune-target=cuda",
            "--tune-target: target 'cuda' names no architecture: give for example cuda:sm_89; no device here *",
        ),
        ("--tune-target=llvm-cpu:i80", "--tune-target: iree-compile does not take target llvm-cpu:i80: *"),
        ("--tune-device=warp", "--tune-device: there is no driver 'warp' for 'warp'; this runtime has *local-task*"),
        ("--tune-device=cuda", "--tune-device: code for llvm-cpu runs on local-task or local-sync, not on 'cuda'"),
        ("--tune-device=local-task://5", "--tune-device: there is no device 'local-task://5': *"),
        ("--tune-starter-spec=absent.mlir", "--tune-starter-spec: there is no file */absent.mlir"),
        (
            "--tune-starter-spec=module.mlir",
            "--tune-starter-spec: */module.mlir is no tuning spec: it has no entrypoint, *",
        ),
        (
            "--tune-starter-spec=unparsable.mlir",
            "--tune-starter-spec: */unparsable.mlir is not MLIR that this IREE parses: *",
        ),
        ("--tune-starter-spec=no text.mlir", "--tune-starter-spec: *"),
        ("--iree-compile-flag=--nonsense", "--iree-compile-flag: * does not take * --nonsense: *--nonsense*"),
        ("--iree-compile-flag='open", "--iree-compile-flag: iree-compile does not take * with *open*: *"),
        ("--tune-out=notes.txt/results", "--tune-out: cannot write to */notes.txt/results: Not a directory"),
        ("--tune-cache-size=10GB", "--tune-cache-size: '10GB' is not a size; give for example 500M or 20G"),
        ("--tune-cache=notes.txt/cache", "--tune-cache: cannot write to */notes.txt/cache: Not a directory"),
    ],
    ids=lambda value: value.removeprefix("--").partition(":")[0] if value.startswith("--") and "=" in value else "",
)
def test_a_bad_option_is_a_usage_error(pytester: pytest.Pytester, option: str, message: str) -> None:
    pytester.makepyfile(MATMUL)
    for name in ("module.mlir", "unparsable.mlir", "no text.mlir", "notes.txt"):
        pytester.path.joinpath(name).write_bytes(FILES[name])
    before = sorted(pytester.path.iterdir())
    # In this process, since nothing of a run is begun.
    result = pytester.runpytest_inprocess("--tune", "--tune-cache=cache", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    result.stderr.no_fnmatch_line("*Traceback*")
    assert [path for path in sorted(pytester.path.iterdir()) if path.name != "cache"] == before


def test_a_model_that_is_not_there_is_a_usage_error(suite: Suite) -> None:
    outcome = suite.tune("absent.mlir", out="refused")
    assert outcome.status == 4
    outcome.lines.fnmatch_lines(["ERROR: file or directory not found: absent.mlir"])
    assert not outcome.out.exists()


def test_a_device_that_no_driver_finds_is_a_usage_error(suite: Suite) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("there is a GPU")
    outcome = suite.tune("--tune-target=cuda:sm_80", "test_suite.py", out="refused")
    assert outcome.status == 4
    outcome.lines.fnmatch_lines(["ERROR: --tune-device: driver cuda finds no device here: *"])
    assert not outcome.out.exists()


@pytest.mark.slow
def test_bad_model_files_fail_with_workers_too(suite: Suite) -> None:
    outcome = suite.tune("-n2", "unparsable.mlir", "broken.onnx", "module.mlir", out="refused")
    assert outcome.status == 1, outcome.text
    outcome.lines.fnmatch_lines(["*3 errors in *"])
    for name in ("unparsable", "onnx", "module"):
        outcome.lines.fnmatch_lines([MESSAGES[name]])
    assert "Traceback" not in outcome.text
    assert not outcome.out.exists()


def test_a_marked_test_that_takes_no_stage_is_an_error(make_suite: MakeSuite) -> None:
    outcome = make_suite({"test_suite.py": MATMUL.replace("candidate, artifact, measurement", "")}).tune()
    assert outcome.status == 2
    outcome.lines.fnmatch_lines(["test_dispatch is marked tune and takes none of the fixtures *"])
    assert "Traceback" not in outcome.text


def test_an_error_in_the_suite_itself_is_told_as_ever(make_suite: MakeSuite) -> None:
    outcome = make_suite({"test_suite.py": MATMUL.replace("m=32", "m=0")}).tune("-n0")
    assert outcome.status == 2
    outcome.lines.fnmatch_lines(["*InputError: m=0: a size is an integer from 1 to *", "*1 error in *"])
    assert "INTERNALERROR" not in outcome.text


def test_two_models_of_one_name_in_a_suite_are_refused(make_suite: MakeSuite) -> None:
    test = "@pytest.mark.tune({})\ndef test_{}(candidate, artifact, measurement): pass\n"
    given = {"one": '"a/model.mlir"', "again": '"a/model.mlir"', "other": '"b/model.mlir"'}
    tests = "".join(test.format(source, name) for name, source in given.items())
    suite = make_suite({"test_suite.py": f"import pytest\n{tests}"})
    for directory, size in (("a", 32), ("b", 48)):
        suite.write(f"{directory}/model.mlir", ops.matmul(m=size, n=32, k=32).text)
    outcome = suite.tune("-k", "input")
    assert outcome.status == 1
    message = "model is the name of two different models of this suite, whose snapshot tells models by their names: *"
    outcome.lines.fnmatch_lines(["*ERROR at setup of test_other[[]input[]]*", message, "*deselected, 1 error in *"])
