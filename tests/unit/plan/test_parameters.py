"""Files of parameters: what is read of them, and what is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune import ops
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.make import make_plan, plan_key
from pytest_shark_tune.plan.parameters import ParameterFile, match_parameters, stray_parameters
from pytest_shark_tune.plan.source import ModelInput, Source, read_source
from pytest_shark_tune.plan.types import with_data_of
from tests.parameters import parameter_model, random_parameters, write_parameters

W = ParameterFile("model", "/w.irpa", "0" * 64, {"w0": 1024, "w1": 64})
OTHER = msgspec.structs.replace(W, scope="other", path="/other.gguf")


@pytest.mark.parametrize("suffix", [".irpa", ".gguf", ".safetensors"])
def test_every_format_that_iree_reads_is_listed(tmp_path: Path, suffix: str) -> None:
    write_parameters(tmp_path / f"a=b{suffix}", random_parameters(16, 24, 8))
    file = ParameterFile.parse(f"model=a=b{suffix}", tmp_path)
    assert (file.scope, file.sizes) == ("model", {"w0": 16 * 24 * 4, "w1": 24 * 8 * 4})
    assert file.argument == f"model={tmp_path}/a=b{suffix}"


def test_a_file_alone_has_no_scope(tmp_path: Path) -> None:
    path = write_parameters(tmp_path / "w.irpa", random_parameters(16, 24))
    assert ParameterFile.parse("w.irpa", tmp_path).argument == f"={path}"
    assert ParameterFile.parse(f"={path}", Path()) == ParameterFile.parse("w.irpa", tmp_path)


@pytest.mark.parametrize(
    ("line", "content", "why"),
    [
        ("model=w.irpa", None, "w.irpa cannot be read: No such file or directory"),
        ("model=w.irpa", b"nothing", "w.irpa is not read by IREE's runtime: .*not enough bytes"),
        ("model=w.safetensors", b"\xff" * 64, "w.safetensors is not read by IREE's runtime"),
        ("model=w.gguf", b"GGUF\3\0\0\0" + b"\xff" * 32, "w.gguf is not read by IREE's runtime"),
        ("model=w.npy", b"", "'model=w.npy' is not SCOPE=FILE with a file of .irpa, .gguf, .safetensors"),
        ("model=", None, "'model=' is not SCOPE=FILE"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, line: str, content: bytes | None, why: str) -> None:
    if content is not None:
        (tmp_path / line.partition("=")[2]).write_bytes(content)
    with pytest.raises(InputError, match=f"^--tune-parameters: .*{why}"):
        ModelInput.parse(parameters=[line], base=tmp_path)


@pytest.mark.parametrize("kind", ["endless device", "pipe"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.irpa"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"^--tune-parameters: .*/w.irpa cannot be read: it is no regular file"):
        ParameterFile.parse("model=w.irpa", tmp_path)


def test_the_files_of_a_model_are_those_of_its_scopes() -> None:
    assert match_parameters("net", {}, [W, OTHER]) == ((), "")
    assert match_parameters("net", {"model": {"w0": 1024}}, [W, OTHER]) == ((W,), "")
    more = msgspec.structs.replace(W, path="/more.irpa", sizes={"w2": 4})
    assert match_parameters("net", {"model": {"w1": 64, "w2": 4}}, [W, more]) == ((W, more), "")


def test_scopes_without_a_file_are_a_reason_with_its_remedy() -> None:
    wanted = {"model": {"w0": 1024}, "a": {f"k{number}": 1 for number in range(5)}, "": {"w": 4}}
    files, why = match_parameters("net", wanted, [W])
    assert files == (W,)
    assert why == (
        "its parameters are in other files: give --tune-parameters a=FILE with 'k0', 'k1', 'k2' and 2 others and "
        "--tune-parameters FILE with 'w', so that it is run whole"
    )


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"w0": 1024, "b0": 4}, "net takes 'b0' of scope 'model', and /w.irpa has 'w0', 'w1'"),
        ({"w1": 65}, "net takes 65 bytes of 'w1', and /w.irpa has 64: it was made for another model"),
    ],
)
def test_a_file_of_another_model_is_refused(wanted: dict[str, int], why: str) -> None:
    with pytest.raises(InputError, match=f"^--tune-parameters: {why}$"):
        match_parameters("net", {"model": wanted}, [W])


def test_a_scope_that_no_model_takes_is_told() -> None:
    model = Source(name="net", text="", is_benchmark=False, parameters=(W,))
    assert not ModelInput(parameters=(W,)).stray([model])
    assert not ModelInput(parameters=(OTHER,)).stray([])
    assert ModelInput(parameters=(W, OTHER)).stray([model]) == (
        "--tune-parameters other=/other.gguf: no model of the run takes parameters of scope 'other'"
    )
    told = stray_parameters([msgspec.structs.replace(W, scope="")], [W])
    assert told == "--tune-parameters =/w.irpa: no model of the run takes parameters without a scope"


def test_a_model_with_its_parameters_is_run(compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / "net.mlir").write_text(parameter_model(16, 16, 24, 8), encoding="utf-8")
    write_parameters(tmp_path / "w.irpa", random_parameters(16, 24, 8))

    def read(*lines: str) -> tuple[Source, Source]:
        asked = ModelInput.parse(parameters=lines, base=tmp_path)
        sources = [read_source(given, tmp_path, asked) for given in ("net.mlir", ops.matmul(m=8, n=8, k=8))]
        model, op = extract_dispatches(sources, compiler, processors=2).sources
        return model, op

    bare, _ = read()
    assert (bare.run_whole, list(bare.functions)) == ((), ["main"])
    assert "give --tune-parameters model=FILE with 'w0', 'w1', so that" in bare.why_not_run
    model, op = read("model=w.irpa", "other=w.irpa")
    assert (model.run_whole, model.why_not_run) == (("main",), "")
    assert [file.scope for file in model.parameters] == ["model"]
    assert op.parameters == ()


def test_the_contents_of_parameters_are_part_of_the_key_and_their_path_is_not(
    compiler: Compiler, tmp_path: Path
) -> None:
    (tmp_path / "net.mlir").write_text(parameter_model(16, 16, 24), encoding="utf-8")
    arrays = random_parameters(16, 24)
    for name in ("a.irpa", "b.irpa"):
        write_parameters(tmp_path / name, arrays)
    write_parameters(tmp_path / "c.irpa", {"w0": arrays["w0"] + 1})

    def read(*lines: str) -> Source:
        return read_source("net.mlir", tmp_path, ModelInput.parse(parameters=lines, base=tmp_path))

    sources = [read(), read("model=a.irpa"), read("model=b.irpa"), read("model=c.irpa"), read("other=a.irpa")]
    none, first, same, changed, elsewhere = (plan_key([source], compiler) for source in sources)
    assert first == same
    assert len({none, first, changed, elsewhere}) == 4
    plan = make_plan([sources[1]], compiler, processors=2, count=1, seed=0)
    (moved,) = with_data_of(plan, [read("unused=c.irpa", "model=b.irpa")]).sources
    assert moved.parameter_arguments == (f"model={tmp_path / 'b.irpa'}",)
