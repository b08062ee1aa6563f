"""The help of ``shark-tune``, as a terminal of 80 columns shows it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main


def _help(*command: str) -> str:
    result = CliRunner().invoke(main, [*command, "--help"], env={"COLUMNS": "80"}, catch_exceptions=False)
    assert result.exit_code == 0
    return str(result.stdout)


def test_the_list_of_commands_is_whole() -> None:
    shown = _help()
    assert "..." not in shown.split("Commands:")[1]
    assert max(map(len, shown.splitlines())) <= 80
    assert "pytest MODEL --tune" in shown


def test_the_first_commands_come_first() -> None:
    listed = [line.split()[0] for line in _help().split("Commands:")[1].split("\n\n")[0].split("\n") if line]
    assert listed[:2] == ["info", "init"]
    assert sorted(listed) == sorted(main.commands)


@pytest.mark.parametrize("command", list(main.commands))
def test_the_help_of_a_command_fits(command: str) -> None:
    assert max(map(len, _help(command).splitlines())) <= 80
