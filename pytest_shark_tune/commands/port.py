"""``shark-tune port``: a spec of another release of IREE made anew for this one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from pytest_shark_tune.commands.model_options import shape_option
from pytest_shark_tune.commands.output import check_spec_output, print_json, print_table, tell, writing
from pytest_shark_tune.commands.trust_option import tell_dropped, trust_option
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.discovery import FoundDevices, devices_for
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plan.model_input import ModelInput
from pytest_shark_tune.plugin.options import default_cache
from pytest_shark_tune.port.fit import Fate, PortedEntry
from pytest_shark_tune.port.port import port, retuned
from pytest_shark_tune.port.read_old import OldSpec, read_old, target_of
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.cleanup import scratch_folder
from pytest_shark_tune.system.machine import processors
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["port_spec"]


@click.command(name="port")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The spec to write.")
@click.option("--tune-target", help="As pytest's option of that name (default: that of the records, else llvm-cpu).")
@click.option(
    "--from-python",
    metavar="PYTHON",
    type=click.Path(path_type=Path),
    help="The Python of an environment with the IREE that wrote OLD, where this one does not parse it.",
)
@shape_option
@click.option("--static", is_flag=True, help="Check nothing that takes a device.")
@click.option("--retune", is_flag=True, help="Tune what cannot be ported; needs a MODEL.")
@click.option(
    "--iree-compile-flag", "flags", multiple=True, metavar="FLAG", help="A flag for iree-compile; repeatable."
)
@trust_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--tune-cache",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="As pytest's option of that name (default: your cache folder).",
)
def port_spec(
    old: Path,
    models: tuple[Path, ...],
    output: Path,
    tune_target: str | None,
    from_python: Path | None,
    shapes: tuple[str, ...],
    static: bool,
    retune: bool,
    flags: tuple[str, ...],
    as_json: bool,
    folder: Path | None,
) -> None:
    """Make the spec OLD anew for this release of IREE.

    Its entries keep the knobs of their configs where the compiler's constraints still allow them, and get the nearest
    config that they do allow where not. A record beside OLD tells what its entry is for; without one that takes the
    MODEL, a .mlir, .mlirbc or .onnx file. What comes out is checked like a guarded spec, with results and speed where
    a MODEL and a device are there. The exit status is 1, and the rest is written all the same, if an entry could not be
    ported.
    """
    try:
        if retune and not models:
            raise InputError("--retune needs the MODEL to tune")
        check_spec_output(output)
        target = Target.parse(tune_target or target_of(old) or "llvm-cpu")
        spec = read_old(old, from_python)
        if spec.text:
            tell_dropped(old, spec.text)
        compiler = Compiler(target, flags)
        compiler.check()
        devices = _devices(target) if models and not static else FoundDevices(uris=[], name="")
        cache = Cache(folder or default_cache())
        asked = ModelInput.parse(shapes)
        with writing(output):
            ported = _ported(spec, models, asked, output, compiler, devices, cache)
            if retune:
                # Of a model all that was lost is tuned, however small its share.
                options = ["--tune-share=1", *(f"--iree-compile-flag={flag}" for flag in flags)]
                options += [f"--tune-cache={folder}"] if folder else []
                options += [f"--tune-input-shape={each}" for each in shapes]
                ported = retuned(ported, output, spec, models, str(target), options, tell)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    _report(ported, output, as_json=as_json)
    if any(each.fate is Fate.LOST for each in ported):
        raise SystemExit(1)


def _ported(
    spec: OldSpec,
    models: tuple[Path, ...],
    asked: ModelInput,
    output: Path,
    compiler: Compiler,
    devices: FoundDevices,
    cache: Cache,
) -> tuple[PortedEntry, ...]:
    with scratch_folder() as scratch:
        settings = RunSettings.in_folder(scratch, devices["uris"], devices["name"], jobs=processors())
        session = Session(replace(settings, models=asked), compiler, cache, tell=tell)
        try:
            return port(spec, output, models, session, processors=processors(), tell=tell)
        finally:
            session.close()


def _devices(target: Target) -> FoundDevices:
    try:
        return devices_for(target)
    except InputError as error:
        tell(f"results and speed are not checked: {error}")
        return FoundDevices(uris=[], name="")


def _report(ported: tuple[PortedEntry, ...], output: Path, *, as_json: bool) -> None:
    written = sum(each.fate is not Fate.LOST for each in ported)
    left = f"{output} stays as it was" if output.exists() else f"no {output}"
    tell(f"{written} of {len(ported)} entries are in {output}" if written else f"no entry is left: {left}")
    if as_json:
        rows = [
            {
                "entry": each.name,
                "fate": each.fate,
                "dispatch": each.dispatch,
                "changes": each.changes,
                "reason": each.reason,
                "compilation_info": each.compilation_info,
            }
            for each in ported
        ]
        print_json(rows)
        return
    print_table(
        ("entry", "what became of it", "changes"),
        ((each.name, each.fate, each.reason or "\n".join(each.changes)) for each in ported),
    )
