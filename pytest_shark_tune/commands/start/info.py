"""``shark-tune info``: the versions, drivers and devices of this machine, and the targets that can be tuned on it."""

from __future__ import annotations

from typing import Any

import click

from pytest_shark_tune import __version__
from pytest_shark_tune.commands.options import Command, json_option
from pytest_shark_tune.commands.output import print_json, print_table
from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.driver.architecture import GPU_DRIVERS, architecture_of, describe_driver_error
from pytest_shark_tune.device.identity import available_drivers, cpu_name, list_devices, runtime_version
from pytest_shark_tune.errors import CommandFailed, DeviceChildDied, DeviceRequestFailed, InputError
from pytest_shark_tune.system.machine import driver_version, processors

__all__ = ["info"]


@click.command(cls=Command, short_help="Print the devices and targets of this machine.")
@json_option
def info(as_json: bool) -> None:
    """Print the versions, drivers and devices of this machine, and the targets that can be tuned here."""
    cpu = Target.parse("llvm-cpu")
    versions = {
        "pytest-shark-tune": __version__,
        "iree-base-compiler": Compiler(cpu).version,
        "iree-base-runtime": runtime_version(),
    }
    rows = [{"device": f"{cpu_name()}, {processors()} processors", "uri": cpu.driver, "target": str(cpu), "note": ""}]
    for driver in GPU_DRIVERS:
        rows += _devices_of(driver) if driver in available_drivers() else [_nothing(driver, "not in this IREE runtime")]
    if as_json:
        print_json({"versions": versions, "devices": rows})
        return
    for name, version in versions.items():
        click.echo(f"{name} {version}")
    print_table(
        ("URI", "device", "--tune-target", ""),
        ((row["uri"], row["device"], row["target"], row["note"]) for row in rows),
    )
    click.echo("To tune a model here: pytest MODEL --tune --tune-target TARGET")
    click.echo("A target without a device here can be compiled for (--tune-stop-after compile),")
    click.echo("and guarded in part.")


def _devices_of(driver: str) -> list[dict[str, Any]]:
    """A row for each device of a driver, or one that says why there is none."""
    try:
        entries = list_devices(driver)
        if not entries:
            return [_nothing(driver, "no device")]
    except (DeviceRequestFailed, DeviceChildDied) as error:
        return [_nothing(driver, describe_driver_error(error))]
    version = driver_version(driver)
    rows = []
    for entry in entries:
        try:
            target, note = f"{driver}:{architecture_of(driver, [entry])}", f"driver {version}" if version else ""
        except (CommandFailed, InputError) as error:
            target, note = "", f"give the architecture: {describe_driver_error(error)}"
        rows.append({"device": entry.name, "uri": entry.uri, "target": target, "note": note})
    return rows


def _nothing(driver: str, why: str) -> dict[str, Any]:
    return {"device": "none", "uri": driver, "target": "", "note": why}
