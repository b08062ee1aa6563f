"""The command line ``shark-tune``, for work that is not a test."""

from __future__ import annotations

import sys
from typing import Any

import click

from pytest_shark_tune.commands import landscapes, start, timing
from pytest_shark_tune.commands.cache import cache
from pytest_shark_tune.commands.compile import compile_model
from pytest_shark_tune.commands.diff import diff_specs
from pytest_shark_tune.commands.merge import merge_files
from pytest_shark_tune.commands.merge_records import merge_records
from pytest_shark_tune.commands.port import port_spec
from pytest_shark_tune.commands.report import report_runs
from pytest_shark_tune.commands.rewrite import rewrite_model
from pytest_shark_tune.commands.show import show
from pytest_shark_tune.commands.space import space
from pytest_shark_tune.errors import OutputError
from pytest_shark_tune.system.terminal import escaping_streams

__all__ = ["main"]


class _Commands(click.Group):
    """Commands whose output to a terminal is escaped by `system.terminal`, errors of click's own included."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command as click does. If its output cannot be written, the exit status is 1."""
        try:
            with escaping_streams():
                return super().main(*args, **kwargs)
        except OutputError as error:
            sys.exit(f"shark-tune: {error}")

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a user comes to them, which is that of the code."""
        del ctx
        return list(self.commands)


# With color, click leaves escape sequences in its output, so that they are shown escaped.
@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "color": True},
    epilog="Models and suites are tuned with pytest: pytest MODEL --tune.",
)
@click.version_option(package_name="pytest-shark-tune", prog_name="shark-tune")
def main() -> None:
    """Work with tuning specs, and look into the inputs and the cache of pytest --tune."""


for _command in (
    start.info,
    start.init,
    space,
    timing.profile_model,
    compile_model,
    report_runs,
    show,
    diff_specs,
    merge_files,
    merge_records,
    port_spec,
    rewrite_model,
    timing.bisect_model,
    cache,
    landscapes.replay,
    landscapes.prior,
):
    main.add_command(_command)

if __name__ == "__main__":
    main()
