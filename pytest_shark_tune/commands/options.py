"""The options that several commands share, and the class of all commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pytest_shark_tune.dispatch.foreign.trust import trusting_specs
from pytest_shark_tune.errors import InputError, SharkTuneError
from pytest_shark_tune.system.directories import temporary_directory
from pytest_shark_tune.system.disk_errors import Storage

__all__ = [
    "Command",
    "cache_option",
    "device_option",
    "dim_option",
    "flags_option",
    "json_option",
    "parameters_option",
    "shape_option",
    "starter_option",
    "target_option",
    "trust_option",
]


class Command(click.Command):
    """A command that reports the errors of this package as click reports its own.

    Every command takes the options about the compiler, the cache and the devices, so that one list of options serves
    for all. A command that needs none of them ignores them, and its help does not show them.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        known = {name for parameter in self.params for name in parameter.opts}
        for name in ("--iree-compile-flag", "--tune-cache", "--tune-device"):
            if name not in known:
                repeats = name != "--tune-cache"
                self.params.append(click.Option([name], expose_value=False, hidden=True, multiple=repeats))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            click.UsageError: the user gave something that cannot be used.
            click.ClickException: anything else that the package raises on purpose.
        """
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise click.UsageError(str(error), ctx) from error
        except SharkTuneError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            raise
        except OSError as error:  # A file or a disk that fails where no command expects it.
            if error.filename is None:
                raise
            told = Storage({"TMPDIR": temporary_directory()}).explain(error)
            raise click.ClickException(told or f"{error.filename}: {error.strerror}") from error


def _trust(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    del parameter
    if given:
        context.with_resource(trusting_specs())


cache_option = click.option(
    "--tune-cache",
    "cache_directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="As pytest's option (default: your user cache).",
)
device_option = click.option(
    "--tune-device",
    "devices",
    multiple=True,
    metavar="URI",
    callback=lambda context, parameter, lines: tuple(
        uri for line in lines for uri in (part.strip() for part in line.split(",")) if uri
    ),
    help="IREE device URIs, comma-separated; repeatable. The first free one is used.",
)
dim_option = click.option(
    "--tune-dim",
    "dims",
    multiple=True,
    metavar="INPUT.DIM=SIZES",
    help="The sizes of an open dimension, by the input's name or number, as in x.0=1,16,128; repeatable.",
)
flags_option = click.option(
    "--iree-compile-flag",
    "flags",
    multiple=True,
    metavar="FLAG",
    help="A flag for iree-compile, which gets it as it is given here, with blanks; repeatable.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
shape_option = click.option(
    "--tune-input-shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZES",
    help="The sizes of an ONNX model's input, as in x=1x3x224x224; repeatable.",
)
parameters_option = click.option(
    "--tune-parameters",
    "parameters",
    multiple=True,
    metavar="SCOPE=FILE",
    help="A file with a model's parameters (.irpa, .gguf, .safetensors), by the scope that it takes them from; "
    "repeatable.",
)
starter_option = click.option(
    "--starter", type=click.Path(path_type=Path), help="A spec whose entries are tried after all others."
)
target_option = click.option("--tune-target", default="llvm-cpu", show_default=True, help="As pytest's option.")
trust_option = click.option(
    "--trust-spec",
    "--tune-trust-spec",
    is_flag=True,
    expose_value=False,
    callback=_trust,
    help="Let the compiler interpret everything in a spec. It can then run commands and write files.",
)
