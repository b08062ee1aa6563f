"""What commands that take a spec ask about it: whether the user vouches for it, as pytest's option does."""

from __future__ import annotations

import click

from pytest_shark_tune.commands.output import tell
from pytest_shark_tune.dispatch.trust import trusting_specs
from pytest_shark_tune.spec.read import dropped_prints

__all__ = ["tell_dropped", "trust_option"]


def _trust(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    del parameter
    if given:
        context.with_resource(trusting_specs())


trust_option = click.option(
    "--trust-spec",
    "--tune-trust-spec",
    is_flag=True,
    expose_value=False,
    callback=_trust,
    help="Let the compiler interpret whatever a spec holds: it can run commands and write files.",
)


def tell_dropped(name: object, text: str) -> None:
    """Say which ops of a spec that parses are left out, since they only print."""
    for sentence in dropped_prints(text):
        tell(f"{name}: {sentence}")
