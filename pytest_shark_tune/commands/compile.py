"""``shark-tune compile``: a model compiled with a tuning spec, on any target."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.inputs import read_model, read_whole_spec
from pytest_shark_tune.commands.options import Command, flags_option, shape_option, target_option, trust_option
from pytest_shark_tune.commands.output import check_output_path
from pytest_shark_tune.compiler.compiler import Compiler, first_error
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.spec.apply import Application, apply_spec

__all__ = ["compile_model"]

_SPEC_FLAG = "--iree-codegen-tuning-spec-path"


@click.command(name="compile", cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--spec", required=True, type=click.Path(path_type=Path), help="The tuning spec to apply.")
@target_option
@shape_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The .vmfb file to write.")
@flags_option
@trust_option
@click.option("--allow-unmatched", is_flag=True, help="Succeed even if an entry of the spec applies nowhere.")
def compile_model(
    model: Path,
    spec: Path,
    tune_target: str,
    shapes: tuple[str, ...],
    output: Path,
    flags: tuple[str, ...],
    allow_unmatched: bool,
) -> None:
    """Compile MODEL, a .mlir, .mlirbc or .onnx file, with a tuning spec, on any target.

    IREE itself loads specs on llvm-cpu and ROCm only, and misses ops that it rewrites later. The report is read from
    the configured module: it names the entry that is applied to each executable. If an entry is applied nowhere, the
    exit status is 1, but OUTPUT is still written.
    """
    _check_flags(flags)
    compiler = Compiler(Target.parse(tune_target), flags).for_models
    check_output_path(output)
    text = read_whole_spec(spec)
    source = read_model(model, shapes)
    compiler.check()
    application = apply_spec(source, text, compiler)
    try:
        compiler.compile_sources(application.text, output, source.name)
    except CommandFailed as error:
        raise click.ClickException(f"{model}: a config of {spec} cannot be compiled: {first_error(error)}") from error
    _print_application(application, flag_works=compiler.target.loads_specs)
    if application.unmatched and not allow_unmatched:
        raise SystemExit(1)


def _check_flags(flags: tuple[str, ...]) -> None:
    for flag in flags:
        if flag.partition("=")[0] == _SPEC_FLAG:
            raise InputError(f"--iree-compile-flag={flag}: give the spec with --spec instead")
        if flag.startswith(("--compile-to", "--compile-from", "-o")):
            raise InputError(f"--iree-compile-flag={flag}: leave it out, shark-tune compile sets this flag itself")


def _print_application(application: Application, *, flag_works: bool) -> None:
    """Print a line for each executable that a spec touched. Lines that need attention go to stderr."""
    for placed in application.placements:
        notes = [placed.op] + ["late"] * placed.late
        if flag_works and not placed.by_flag:
            notes.append(f"{_SPEC_FLAG} does not apply it")
        click.echo(f"{placed.symbol}: {placed.entry} ({', '.join(notes)})")
    for lost in application.dropped:
        click.echo(f"{lost.symbol}: {lost.entry} matches, but the compiler drops its config: default config", err=True)
    for entry in application.unmatched:
        click.echo(f"{entry} is applied nowhere", err=True)
