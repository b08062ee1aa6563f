"""``shark-tune compile``: a model compiled with a tuning spec, on any target."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_shark_tune.commands.inputs import read_model, read_whole_spec
from pytest_shark_tune.commands.options import (
    Command,
    dim_option,
    flags_option,
    shape_option,
    target_option,
    trust_option,
)
from pytest_shark_tune.commands.output import check_output_path
from pytest_shark_tune.compiler.compiler import Compiler, first_error
from pytest_shark_tune.compiler.flags import SPEC_FLAG
from pytest_shark_tune.device.driver.architecture import resolve_target
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.forms.form import Form
from pytest_shark_tune.plan.forms import form_source
from pytest_shark_tune.plan.source import Source
from pytest_shark_tune.records.form_files import read_form
from pytest_shark_tune.spec.apply import Application, apply_spec

__all__ = ["compile_model"]


@click.command(name="compile", cls=Command, short_help="Compile a model with a spec.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--spec", type=click.Path(path_type=Path), help="The tuning spec to apply (default: the form's).")
@click.option(
    "--form",
    "form_file",
    type=click.Path(path_type=Path),
    help="A form's record, MODEL-TARGET.form.json: its target, flags, rewrites, and the spec beside it.",
)
@target_option
@shape_option
@dim_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The .vmfb file to write.")
@flags_option
@trust_option
@click.option("--allow-unmatched", is_flag=True, help="Succeed even if an entry of the spec applies nowhere.")
def compile_model(
    model: Path,
    spec: Path | None,
    form_file: Path | None,
    tune_target: str,
    shapes: tuple[str, ...],
    dims: tuple[str, ...],
    output: Path,
    flags: tuple[str, ...],
    allow_unmatched: bool,
) -> None:
    """Compile MODEL, a .mlir, .mlirbc or .onnx file, with a tuning spec or in a form, on any target.

    IREE itself loads specs on llvm-cpu and ROCm only, and misses ops that it rewrites later. The report is read from
    the configured module: it names the entry that is applied to each executable. If an entry is applied nowhere, the
    exit status is 1, but OUTPUT is still written.
    """
    _check_flags(flags)
    named_by = ""
    record = read_form(form_file) if form_file is not None else None
    if record is not None and form_file is not None:
        tune_target, flags = record.target, (*record.compile_flags, *flags)
        shapes = shapes or record.shape_lines
        if spec is None and record.spec:
            spec, named_by = form_file.parent / record.spec, f"--form {form_file}: "
    if record is None and spec is None:
        raise InputError("give a spec with --spec, or the record of a form with --form")
    compiler = Compiler(resolve_target(tune_target), flags).for_models
    check_output_path(output, replaces=False)
    try:
        text = read_whole_spec(spec) if spec is not None else ""
    except InputError as error:
        raise InputError(f"{named_by}{error}") from error
    source = read_model(model, shapes, dims)
    if record is not None and not record.form.is_default:
        source = _in_form(source, record.form)
    compiler.check()
    with_form = compiler.with_flags(source.form.flags)
    if spec is None:
        lowered = with_form.lower(source.text, to="executable-sources", name=source.name)
        with_form.compile_sources(lowered, output, source.name)
        click.echo(f"{output} is written in the form {source.form.name}; no spec goes with this form")
        return
    application = apply_spec(source, text, compiler)
    try:
        with_form.compile_sources(application.text, output, source.name)
    except CommandFailed as error:
        raise click.ClickException(f"{model}: a config of {spec} cannot be compiled: {first_error(error)}") from error
    _print_application(application, flag_works=compiler.target.loads_specs)
    if application.unmatched and not allow_unmatched:
        raise SystemExit(1)


def _in_form(source: Source, form: Form) -> Source:
    """The model in a form.

    Raises:
        InputError: the form's rewrites change nothing in the model.
    """
    formed = form_source(source, form)
    if formed is None:
        raise InputError(f"--form: the rewrites of the form {form.name} change nothing in {source.name}")
    return formed


def _check_flags(flags: tuple[str, ...]) -> None:
    for flag in flags:
        if flag.partition("=")[0] == SPEC_FLAG:
            raise InputError(f"--iree-compile-flag={flag}: give the spec with --spec instead")
        if flag.startswith(("--compile-to", "--compile-from", "-o")):
            raise InputError(f"--iree-compile-flag={flag}: leave it out, shark-tune compile sets this flag itself")


def _print_application(application: Application, *, flag_works: bool) -> None:
    """Print a line for each executable that a spec touched. Lines that need attention go to stderr."""
    for placed in application.placements:
        notes = [placed.op] + ["late"] * placed.late
        if flag_works and not placed.by_flag:
            notes.append(f"{SPEC_FLAG} does not apply it")
        click.echo(f"{placed.symbol}: {placed.entry} ({', '.join(notes)})")
    for lost in application.dropped:
        click.echo(f"{lost.symbol}: {lost.entry} matches, but the compiler drops its config: default config", err=True)
    for entry in application.unmatched:
        click.echo(f"{entry} is applied nowhere", err=True)
