"""The devices of a run, as the options choose them."""

from __future__ import annotations

import pytest

from pytest_shark_tune.device.discovery import FoundDevices, devices_for
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin.options import TuneOptions

__all__ = ["find_devices"]


def find_devices(options: TuneOptions) -> FoundDevices:
    """Find the devices to measure on.

    Raises:
        pytest.UsageError: there is no such device, or the devices differ, or they cannot be locked.
    """
    try:
        return devices_for(options.target, options.devices)
    except InputError as error:
        raise pytest.UsageError(str(error)) from error
