"""Files that are tuned without a suite: models, and a list of driver commands."""

from __future__ import annotations

import os
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin.options import commands_file, tuning_is_on
from pytest_shark_tune.plugin.reporting import section, write_line
from pytest_shark_tune.system.files import read_text
from pytest_shark_tune.system.terminal import escaped_line

if TYPE_CHECKING:
    from pytest_shark_tune.ops.driver_commands import CommandList

__all__ = ["collect_file", "named_path", "read_commands_file", "refuse_hidden_characters"]

_COMMANDS = pytest.StashKey[tuple[Path, "CommandList"]]()
"""The list of commands that this run takes, with its path."""
_MODELS = (".mlir", ".mlirbc", ".onnx")


def refuse_hidden_characters(config: pytest.Config) -> None:
    """Refuse a path that pytest, in ids and its progress, would show as another one.

    A run that does not tune refuses models only: other tests are not ours.

    Raises:
        pytest.UsageError: a path has characters that are not printed, or a form that a CI system obeys.
    """
    for argument in config.args:
        is_ours = tuning_is_on(config) or any(suffix in argument for suffix in _MODELS)
        if is_ours and escaped_line(argument) != argument:
            raise pytest.UsageError(
                f"{escaped_line(argument)}: this name has characters that are not shown: rename the file"
            )


def read_commands_file(config: pytest.Config) -> None:
    """Read the list of commands and have it collected: alone, or besides the paths on the command line.

    A list in the ini file is collected besides the default paths of pytest, but not if the command line has paths.

    The lines that cannot be read are shown when the run begins and when it ends.

    Raises:
        pytest.UsageError: it cannot be read, or none of its lines can be expressed.
    """
    path = commands_file(config)
    if path is None:
        return
    names = [Path(os.path.abspath(named_path(config, argument))) for argument in config.args]  # noqa: PTH100
    if path not in names:
        is_named = config.args_source is pytest.Config.ArgsSource.ARGS
        is_asked = bool(config.getoption("tune_commands"))
        if is_named and not is_asked:
            return
        config.args[:] = [*(config.args if is_named or not is_asked else ()), str(path)]
    from pytest_shark_tune.ops.driver_commands import read_commands

    try:
        commands = read_commands(read_text(path), str(path))
    except InputError as error:
        raise pytest.UsageError(f"--tune-commands: {error}") from error
    config.stash[_COMMANDS] = path, commands
    if commands.problems and not hasattr(config, "workerinput"):
        config.pluginmanager.register(UnreadLines(config, commands.describe_problems(path.name)), "shark-tune-commands")


class UnreadLines:
    """Shows the lines of a list of commands that could not be read."""

    def __init__(self, config: pytest.Config, text: str) -> None:
        self._config = config
        self._text = text

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """Show them before anything is tuned: the user may want to mend them first."""
        if reporter := self._config.pluginmanager.get_plugin("terminalreporter"):
            write_line(reporter, self._text, yellow=True)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show them again at the end, where they are not lost among the messages of the run."""
        section(terminalreporter, "commands that were not read")
        write_line(terminalreporter, self._text)


def named_path(config: pytest.Config, argument: str) -> Path:
    """Return the file or directory that an argument of the command line names."""
    return Path(config.invocation_params.dir, argument.partition("::")[0])


def collect_file(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a model that is named on the command line, or the list of commands of this run.

    Models that pytest finds on the way are left alone, and so are other files with the name of the list.
    """
    commands = parent.config.stash.get(_COMMANDS, None)
    if commands is not None and path == commands[0]:
        return CommandsFile.from_parent(parent, path=path)
    if path.suffix not in _MODELS or not _is_named(path, parent):
        return None
    return ModelFile.from_parent(parent, path=path)


def _is_named(path: Path, parent: pytest.Collector) -> bool:
    """Whether the command line names a file. pytest itself forgets it beside a directory that the file is in."""
    if parent.session.isinitpath(path):
        return True
    names = (named_path(parent.config, argument) for argument in parent.config.args)
    return any(os.path.normpath(name) == str(path) for name in names)


class ModelFile(pytest.Module):
    """A model file as a module with one test function that is marked to tune it."""

    def _sources(self) -> Sequence[object]:
        return [self.path]

    def _getobj(self) -> types.ModuleType:
        @pytest.mark.tune(*self._sources())
        def test_dispatch(tuned: Any) -> None:
            """One test per pair of a dispatch of the file and a candidate."""

        module = types.ModuleType(self.path.stem)
        module.__file__ = str(self.path)
        module.test_dispatch = test_dispatch  # type: ignore[attr-defined]
        return module


class CommandsFile(ModelFile):
    """A list of commands as such a module: its function is marked to tune the ops in the list."""

    def _sources(self) -> Sequence[object]:
        return self.config.stash[_COMMANDS][1].sources
