"""A whole model by IREE's default, by a tuning spec and by ONNX Runtime, interleaved in one run.

``python benchmarks/models.py MODEL.onnx --spec SPEC.mlir --input-shape x=1x3x48x320``
``python benchmarks/models.py MODEL.onnx --run .tune --input-shape x=1x3x48x320``

With ``--run`` the tuned model is made by the commands in the record of its form, as a user would run them.

Each round has fresh processes, one for IREE's two and one for ONNX Runtime, and blocks in which all take turns, each
time in another order (docs/measurement.md). All run on the same random inputs with as many threads as there are
processors, and their outputs are compared. A ratio's interval holds what one more round would measure. Figures are
worth keeping only from a machine that does nothing else: look at the load that is printed.

ONNX Runtime is left out, with a note, where MODEL is no ONNX model, the target is no CPU, or the python that
``--onnxruntime-python`` names has no onnxruntime.
"""

from __future__ import annotations

import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
import ml_dtypes
import msgspec
import numpy as np

from pytest_shark_tune.compiler.compiler import Compiler, compiler_version, first_error
from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.compiler.onnx import import_onnx
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.device.onnx_engine import run_onnx
from pytest_shark_tune.device.protocol import TensorData
from pytest_shark_tune.dispatch.flow import function_inputs
from pytest_shark_tune.dispatch.types import Tensor
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.measurement.rounds import combine_rounds
from pytest_shark_tune.measurement.timing import FINAL, FINAL_ROUNDS, Measurement, Run, compare_finalists
from pytest_shark_tune.plan.source import Source, read_source
from pytest_shark_tune.records.form import FormRecord
from pytest_shark_tune.records.form_files import read_form
from pytest_shark_tune.records.snapshot import read_spec_file
from pytest_shark_tune.spec.apply import apply_spec
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.system.units import format_us

_IDLE_LOAD = 0.5
_DEFAULT, _TUNED, _OTHER = "IREE default", "IREE tuned", "ONNX Runtime"
_DTYPES = {"f16": np.float16, "f32": np.float32, "f64": np.float64, "bf16": ml_dtypes.bfloat16}


class Difference(msgspec.Struct, frozen=True):
    """How far outputs lie from others: the largest error of an element, and as a part of their largest element."""

    largest: float
    relative: float

    def __str__(self) -> str:
        return f"{self.largest:.2e} ({self.relative:.1e} of the largest element)"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """How one runs the model: the median over rounds of their medians, the rounds' range, and the default's by its own.

    ``from_default`` and ``from_onnxruntime`` say how its outputs differ from theirs.
    """

    name: str
    median_us: float
    fastest_round_us: float
    slowest_round_us: float
    ratio: float
    ratio_low: float
    ratio_high: float
    from_default: Difference | None = None
    from_onnxruntime: Difference | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What ``--json`` writes; ``load`` is before and after, ``notes`` say what was left out or looks wrong."""

    model: str
    function: str
    inputs: list[str]
    target: str
    device: str
    processors: int
    iree: str
    onnxruntime: str
    rounds: int
    load: tuple[float, float]
    entries: list[str]
    rows: list[Row]
    notes: list[str]


class _Round(msgspec.Struct, frozen=True):
    """One round's measurements by name, the default's beside itself, and what each computed."""

    measured: dict[str, Measurement]
    outputs: dict[str, list[Any]]
    onnxruntime: str = ""


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--spec", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The tuning spec.")
@click.option(
    "--run",
    "run_directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The output directory of a run: what it kept for MODEL, its form included.",
)
@click.option("--input-shape", "shapes", multiple=True, metavar="NAME=1x3x48x320", help="Of an ONNX model's input.")
@click.option("--function", default="", help="The function to run, where MODEL has several.")
@click.option("--target", default="llvm-cpu", show_default=True, help="What to compile for.")
@click.option("--device", default="", help="IREE's URI of the device to run on; the target's driver unless given.")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=FINAL_ROUNDS, show_default=True, help="Fresh processes of each."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the inputs.")
@click.option(
    "--onnxruntime-python",
    "python",
    default=sys.executable,
    help="A python that has onnxruntime; this one unless given.",
)
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there, too.")
def main(
    path: Path,
    spec: Path | None,
    run_directory: Path | None,
    shapes: tuple[str, ...],
    function: str,
    target: str,
    device: str,
    rounds: int,
    seed: int,
    python: str,
    out: Path | None,
) -> None:
    """Compare MODEL by IREE's default, with a tuning spec, and by ONNX Runtime."""
    before = os.getloadavg()[0]
    notes = [] if before < _IDLE_LOAD else [f"the load was {before:.2f} before the run: nothing else should run"]
    with tempfile.TemporaryDirectory(prefix="models-") as directory:
        try:
            compiler = Compiler(Target.parse(target)).for_models
            source = _read(path, shapes)
            function, inputs = _function(source, function, compiler)
            record = _form_record(path, run_directory) if run_directory is not None else None
            if run_directory is not None and record is None and (run_directory / "spec.mlir").exists():
                spec = spec or run_directory / "spec.mlir"
            built, entries = _compile(source, spec, compiler, Path(directory), notes)
            if record is not None and run_directory is not None:
                built[_TUNED], entries = _by_its_commands(record, path, run_directory, Path(directory) / "run")
                notes.append(f"form {record.form.name}: {'; '.join(record.commands)}")
        except (InputError, CommandFailed) as error:
            raise click.ClickException(
                first_error(error) if isinstance(error, CommandFailed) else str(error)
            ) from error
        if why_not := _why_no_onnxruntime(path, compiler.target, python):
            notes.append(f"no ONNX Runtime: {why_not}")
            python = ""
        uri = device or compiler.target.driver
        with DeviceChild(uri) as child:
            device_name = f"{child.info().name} ({uri})"
        done = []
        leases = DeviceLeases([uri])
        for number in range(rounds):
            with leases.acquire(click.echo):
                done.append(_round(built, function, inputs, uri, python, path, seed + number))
            click.echo(f"round {number + 1}: {_in_words(done[-1].measured)}")
    report = Report(
        model=path.name,
        function=function,
        inputs=[f"{'x'.join(map(str, each.shape))}x{each.element}" for each in inputs],
        target=str(compiler.target),
        device=device_name,
        processors=processors(),
        iree=compiler_version(),
        onnxruntime=done[0].onnxruntime,
        rounds=rounds,
        load=(round(before, 2), round(os.getloadavg()[0], 2)),
        entries=entries,
        rows=_rows(done),
        notes=notes,
    )
    click.echo(_table(report))
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


def _read(path: Path, shapes: Sequence[str]) -> Source:
    if path.suffix != ".onnx":
        return read_source(path.absolute(), Path())
    given = {}
    for each in shapes:
        name, _, sizes = each.rpartition("=")
        if not name or not all(size.isdecimal() for size in sizes.split("x")):
            raise InputError(f"--input-shape {each}: it reads NAME=1x3x48x320")
        given[name] = [int(size) for size in sizes.split("x")]
    return Source(name=path.stem, text=import_onnx(path.absolute(), given), is_benchmark=False)


def _function(source: Source, name: str, compiler: Compiler) -> tuple[str, tuple[Tensor, ...]]:
    """The function to run, and what it takes."""
    functions = function_inputs(compiler.lower(source.text, to="input", name=source.name))
    chosen = [name] if name else list(functions)
    if len(chosen) != 1 or chosen[0] not in functions:
        raise InputError(f"{source.name} has {', '.join(functions) or 'none'}: choose a function with --function")
    return chosen[0], functions[chosen[0]]


def _compile(
    source: Source, spec: Path | None, compiler: Compiler, directory: Path, notes: list[str]
) -> tuple[dict[str, Path], list[str]]:
    """The binaries by name, and the placements of the spec, one line for each executable."""
    default = directory / "default.vmfb"
    if spec is None:
        compiler.compile_sources(compiler.lower(source.text, to="executable-sources"), default, source.name)
        return {_DEFAULT: default}, []
    application = apply_spec(source, read_spec_file(spec), compiler)
    compiler.compile_sources(strip(application.sources), default, source.name)
    tuned = directory / "tuned.vmfb"
    compiler.compile_sources(application.text, tuned, source.name)
    notes += [f"{entry} is applied nowhere" for entry in application.unmatched]
    return {_DEFAULT: default, _TUNED: tuned}, [f"{each.symbol}: {each.entry}" for each in application.placements]


def _form_record(path: Path, run: Path) -> FormRecord | None:
    """The record of the model's form that a run wrote, if its forms were compared."""
    records = (read_form(found) for found in sorted(run.glob("*.form.json")))
    return next((record for record in records if record.file == path.name), None)


def _by_its_commands(record: FormRecord, path: Path, run: Path, directory: Path) -> tuple[Path, list[str]]:
    """Compile the model by the commands in the record of its form, in a copy of the run's directory.

    Returns:
        The binary, and the placements that shark-tune prints. Those of plain iree-compile are not known.
    """
    shutil.copytree(run, directory)
    (directory / record.file).symlink_to(path.absolute())
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    placed: list[str] = []
    for command in record.commands:
        done = subprocess.run(
            shlex.split(command),
            cwd=directory,
            env={**os.environ, "PATH": tools},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CommandFailed(f"{command} ended with status {done.returncode}", stderr=done.stderr)
        placed += [line for line in done.stdout.splitlines() if ": match_" in line]
    (vmfb,) = directory.glob("*.vmfb")
    return vmfb, placed


def _why_no_onnxruntime(path: Path, target: Target, python: str) -> str:
    """Why it is left out; empty where it is not."""
    if path.suffix != ".onnx":
        return f"{path.name} is no ONNX model"
    if not target.shares_processor:
        return f"it would run on the CPU, not on {target}"
    found = subprocess.run([python, "-c", "import numpy, onnxruntime"], capture_output=True, check=False)
    return "" if found.returncode == 0 else f"{python} has no onnxruntime: see --onnxruntime-python"


def _round(
    built: Mapping[str, Path],
    function: str,
    inputs: Sequence[Tensor],
    device: str,
    python: str,
    model: Path,
    seed: int,
) -> _Round:
    """One round in fresh processes; each runs once at first, for its outputs. ONNX Runtime only with ``python``."""
    outputs: dict[str, list[Any]] = {}
    runs: dict[str, Run] = {}
    version = ""
    with ExitStack() as stack:
        child = stack.enter_context(DeviceChild(device))
        for name, path in built.items():
            child.load_function(name, path, function, inputs)
            child.fill(name, seed)
            child.run(name, 1)
            tensors = [_array(each) for each in child.read(name)]
            arguments, outputs[name] = tensors[: len(inputs)], tensors[len(inputs) :]
            runs[name] = partial(child.run, name)
        if python:
            theirs = stack.enter_context(run_onnx(model, arguments, python, is_timed=True))
            version, runs[_OTHER], outputs[_OTHER] = theirs.name.rpartition(" ")[2], theirs.run, theirs.outputs
        measured = compare_finalists(runs, runs[_DEFAULT], FINAL, seed=seed)
    return _Round(measured, outputs, version)


def _array(tensor: TensorData) -> Any:
    """A tensor of floats or of whole bytes as an array."""
    dtype = _DTYPES.get(tensor.element) or np.dtype(tensor.element.replace("i", "int").replace("int1", "bool"))
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


def _rows(rounds: Sequence[_Round]) -> list[Row]:
    """The rows in the order they were measured; differences are of the first round's inputs."""
    outputs = rounds[0].outputs
    rows = []
    for name in rounds[0].measured:
        joined = combine_rounds([each.measured[name] for each in rounds])
        medians = [each.measured[name].median_us for each in rounds]
        is_default = name == _DEFAULT
        rows.append(
            Row(
                name=name,
                median_us=round(statistics.median(medians), 1),
                fastest_round_us=round(min(medians), 1),
                slowest_round_us=round(max(medians), 1),
                ratio=1.0 if is_default else round(joined.ratio, 4),
                ratio_low=1.0 if is_default else round(joined.ratio_low, 4),
                ratio_high=1.0 if is_default else round(joined.ratio_high, 4),
                from_default=None if is_default else _difference(outputs[name], outputs[_DEFAULT]),
                from_onnxruntime=None if name == _OTHER else _difference(outputs[name], outputs.get(_OTHER)),
            )
        )
    return rows


def _difference(ours: Sequence[Any], theirs: Sequence[Any] | None) -> Difference | None:
    if theirs is None:
        return None
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(ours, theirs, strict=True)]
    largest = max(float(np.max(np.abs(a - b), initial=0.0)) for a, b in pairs)
    scale = max(float(np.max(np.abs(b), initial=0.0)) for _, b in pairs)
    return Difference(largest, largest / scale if scale else 0.0)


def _in_words(measured: Mapping[str, Measurement]) -> str:
    return ", ".join(f"{name} {format_us(each.median_us)}" for name, each in measured.items())


def _table(report: Report) -> str:
    lines = [
        "",
        f"{report.model} ({report.function}; {', '.join(report.inputs)}) for {report.target} on {report.device}, "
        f"{report.processors} processors, load {report.load[0]} to {report.load[1]}; IREE {report.iree}"
        + (f", ONNX Runtime {report.onnxruntime}" if report.onnxruntime else ""),
        f"{len(report.entries)} executables have a config of the spec; {report.rounds} rounds",
        "",
    ]
    for row in report.rows:
        times = f"{format_us(row.median_us)} ({format_us(row.fastest_round_us)} to {format_us(row.slowest_round_us)})"
        ratio = f"{row.ratio:.3f} times the default's speed ({row.ratio_low:.3f} to {row.ratio_high:.3f})"
        lines.append(f"{row.name:<13} {times:<32} {ratio if row.name != _DEFAULT else ''}".rstrip())
        for what, difference in (("IREE's default", row.from_default), ("ONNX Runtime", row.from_onnxruntime)):
            lines += [f"{'':<13}   differs from {what} by {difference}"] if difference is not None else []
    return "\n".join([*lines, *(f"note: {each}" for each in report.notes)])


if __name__ == "__main__":
    main()
