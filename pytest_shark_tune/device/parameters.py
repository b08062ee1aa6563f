"""Parameter files: archives in which models find weights that are not part of their modules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import iree.runtime as rt

from pytest_shark_tune.device.protocol import CHILD_COMMAND, ListParameters, ask
from pytest_shark_tune.system.child import Child

__all__ = ["ParameterProviders", "list_parameters", "load_seconds", "parameter_sizes", "split_argument"]

_SLOWEST_BYTES_PER_S = 64 << 20
"""The rate at which parameters reach a device at least, from a disk."""


class ParameterProviders:
    """Gives the contents of parameter files to modules of one process. Each set of files is mapped once."""

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self._modules: dict[tuple[str, ...], Any] = {}

    def module(self, arguments: Sequence[str]) -> Any:
        """The module of the runtime from which a program reads the parameters in these files.

        Args:
            arguments: The files in the form ``SCOPE=FILE``. Files of one scope are joined.

        Raises:
            ValueError: a file is absent or damaged.
        """
        key = tuple(arguments)
        if key not in self._modules:
            indices: dict[str, Any] = {}
            for scope, path in map(split_argument, key):
                indices.setdefault(scope, rt.ParameterIndex()).load(path)
            providers = [index.create_provider(scope) for scope, index in indices.items()]
            self._modules[key] = rt.create_io_parameters_module(self._instance, *providers)
        return self._modules[key]


def split_argument(argument: str) -> tuple[str, str]:
    """Split ``SCOPE=FILE`` at the first equals sign, as IREE's tools do. A file alone has the empty scope."""
    scope, equals, path = argument.partition("=")
    return (scope, path) if equals else ("", argument)


def parameter_sizes(path: str) -> dict[str, int]:
    """The numbers of bytes of the parameters in a file by key.

    Raises:
        ValueError: the file is absent or damaged.
        NotImplementedError: its name does not end in the name of a known format.
    """
    index = rt.ParameterIndex()
    index.load(path)
    return {str(key): int(entry.length) for key, entry in index.items()}


def list_parameters(path: Path, *, timeout_s: float = 60.0) -> dict[str, int]:
    """The numbers of bytes of the parameters in a file by key, read in a child: the file may be damaged.

    Raises:
        DeviceRequestFailed: the runtime does not read the file. The message is the runtime's.
        DeviceChildDied: the runtime crashed or hung.
    """
    with Child(CHILD_COMMAND) as child:
        return ask(child, ListParameters(str(path)), dict[str, int], timeout_s)


def load_seconds(arguments: Sequence[str]) -> float:
    """The number of seconds that the parameters in these files may take to reach a device."""
    return sum(Path(split_argument(argument)[1]).stat().st_size for argument in arguments) / _SLOWEST_BYTES_PER_S
