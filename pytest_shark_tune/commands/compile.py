"""``shark-tune compile``: a model compiled with a tuning spec, on any target."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.model_options import read_model, shape_option
from pytest_shark_tune.commands.output import check_output
from pytest_shark_tune.commands.trust_option import tell_dropped, trust_option
from pytest_shark_tune.compiler.compiler import Compiler, first_error
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.records.snapshot import read_spec_file
from pytest_shark_tune.spec.apply import Application, apply_spec

__all__ = ["compile_model"]

_SPEC_FLAG = "--iree-codegen-tuning-spec-path"


@click.command(name="compile")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--spec", required=True, type=click.Path(path_type=Path), help="The tuning spec to apply.")
@click.option("--tune-target", default="llvm-cpu", show_default=True, help="As pytest's option of that name.")
@shape_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The .vmfb file to write.")
@click.option(
    "--iree-compile-flag", "flags", multiple=True, metavar="FLAG", help="A flag for iree-compile; repeatable."
)
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

    IREE itself loads specs on llvm-cpu and ROCm only, and misses ops that it rewrites later. What is printed is read
    from the configured module: for each executable the entry in force. The exit status is 1, and OUTPUT is written all
    the same, if an entry is in force nowhere.
    """
    try:
        _check_flags(flags)
        compiler = Compiler(Target.parse(tune_target), flags).for_models
        check_output(output)
        text = read_spec_file(spec)
        tell_dropped(spec, text)
        source = read_model(model, shapes)
        compiler.check()
        application = apply_spec(source, text, compiler)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    try:
        compiler.compile_sources(application.text, output, source.name)
    except CommandFailed as error:
        raise click.ClickException(f"{model}: a config of {spec} cannot be compiled: {first_error(error)}") from error
    _report(application, flag_works=compiler.target.loads_specs)
    if application.unmatched and not allow_unmatched:
        raise SystemExit(1)


def _check_flags(flags: tuple[str, ...]) -> None:
    for flag in flags:
        if flag.partition("=")[0] == _SPEC_FLAG:
            raise InputError(f"--iree-compile-flag={flag}: the spec is given with --spec")
        if flag.startswith(("--compile-to", "--compile-from", "-o")):
            raise InputError(f"--iree-compile-flag={flag}: shark-tune compile sets this one itself")


def _report(application: Application, *, flag_works: bool) -> None:
    """Print a line for each executable that a spec touched; what needs attention goes to stderr."""
    for each in application.placed:
        notes = [each.op] + ["late"] * each.late
        if flag_works and not each.by_flag:
            notes.append(f"{_SPEC_FLAG} does not apply it")
        click.echo(f"{each.symbol}: {each.entry} ({', '.join(notes)})")
    for each in application.lost:
        click.echo(f"{each.symbol}: {each.entry} matches, but the compiler drops its config: default config", err=True)
    for entry in application.unmatched:
        click.echo(f"{entry} is in force nowhere", err=True)
