"""``shark-tune port``: a spec of another IREE release, made anew for this one."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands import options
from pytest_shark_tune.commands.inputs import report_dropped
from pytest_shark_tune.commands.output import check_spec_output, print_json, print_table, report, writing
from pytest_shark_tune.commands.session import open_session
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.device.discovery import FoundDevices, devices_for
from pytest_shark_tune.device.driver.architecture import resolve_target
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.source import ModelInput
from pytest_shark_tune.port.fit import PortedEntry, PortStatus
from pytest_shark_tune.port.forms import port_forms
from pytest_shark_tune.port.port import port, tune_lost
from pytest_shark_tune.port.read_old import read_old, target_of
from pytest_shark_tune.system.machine import processors

__all__ = ["port_spec"]


@click.command(name="port", cls=options.Command, short_help="Bring a spec to this release of IREE.")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The spec to write.")
@click.option("--tune-target", help="As pytest's option (default: the records' target, else llvm-cpu).")
@click.option(
    "--from-python",
    metavar="PYTHON",
    type=click.Path(path_type=Path),
    help="The Python of an environment with the IREE that wrote OLD, if this release does not parse it.",
)
@options.shape_option
@options.dim_option
@options.parameters_option
@click.option("--static", is_flag=True, help="Skip the checks that need a device.")
@click.option("--retune", is_flag=True, help="Tune the dispatches whose entries cannot be ported; needs a MODEL.")
@options.flags_option
@options.trust_option
@options.json_option
@options.cache_option
@options.device_option
def port_spec(
    old: Path,
    models: tuple[Path, ...],
    output: Path,
    tune_target: str | None,
    from_python: Path | None,
    shapes: tuple[str, ...],
    dims: tuple[str, ...],
    parameters: tuple[str, ...],
    static: bool,
    retune: bool,
    flags: tuple[str, ...],
    as_json: bool,
    cache_directory: Path | None,
    devices: tuple[str, ...],
) -> None:
    """Make the spec OLD anew for this release of IREE.

    An entry keeps the knobs of its config if the compiler's constraints still allow them, and otherwise gets the
    nearest config that they allow. The record beside OLD names the dispatch of its entry. Without a record the entry
    needs the MODEL, a .mlir, .mlirbc or .onnx file. The new spec is checked like a guarded one; results and speed are
    checked if there are a MODEL and a device. The forms beside OLD are written beside the new spec, without figures. If
    an entry or a form could not be ported, the exit status is 1, but the others are still written.
    """
    if retune and not models:
        raise InputError("--retune needs the MODEL to tune")
    check_spec_output(output)
    target = resolve_target(tune_target or target_of(old) or "llvm-cpu")
    spec = read_old(old, from_python)
    if spec.text:
        report_dropped(old, spec.text)
    asked = ModelInput.parse(shapes, parameters=parameters, dims=dims)
    compiler = Compiler(target, flags)
    compiler.check()
    found_devices = FoundDevices(uris=[], name="")
    if models and not static:
        try:
            found_devices = devices_for(target, devices)
        except InputError as error:
            report(f"results and speed are not checked: {error}")
    with writing(output):
        with open_session(compiler, found_devices, asked, cache_directory) as session:
            ported = port(spec, output, models, session, processors=processors(), report=report)
        if retune:
            # All lost dispatches of a model are tuned, even those with a small share of its time.
            further = ["--tune-coverage=1", *(f"--iree-compile-flag={flag}" for flag in flags)]
            further += [f"--tune-cache={cache_directory}"] if cache_directory else []
            further += [f"--tune-device={','.join(devices)}"] if devices else []
            further += [f"--tune-input-shape={shape}" for shape in shapes]
            further += [f"--tune-dim={dim}" for dim in dims]
            further += [f"--tune-parameters={file}" for file in parameters]
            ported = tune_lost(ported, output, spec, models, str(target), further, report)
    forms = tuple(port_forms(old, output, compiler))
    _print_port(ported, output, as_json=as_json)
    for form in forms:
        what = f"the form {form.record.form.name} of {form.record.model}"
        report(f"{what} is in {form.response}" if form.response else f"{what} could not be ported: {form.reason}")
    is_lost = any(form.response is None for form in forms)
    if is_lost or any(entry.status is PortStatus.NOT_PORTED for entry in ported):
        raise SystemExit(1)


def _print_port(ported: tuple[PortedEntry, ...], output: Path, *, as_json: bool) -> None:
    written = sum(entry.status is not PortStatus.NOT_PORTED for entry in ported)
    left = f"{output} stays as it was" if output.exists() else f"no {output}"
    report(
        f"{written} of {len(ported)} entries are in {output}" if written or not ported else f"no entry is left: {left}"
    )
    if as_json:
        keys = ("entry", "fate", "dispatch", "changes", "reason", "compilation_info")
        rows = [(row.name, row.status, row.dispatch, row.changes, row.reason, row.compilation_info) for row in ported]
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    print_table(
        ("entry", "what became of it", "changes"),
        ((entry.name, entry.status, entry.reason or "\n".join(entry.changes)) for entry in ported),
    )
