"""Parameters: the files that a user gives for models whose weights are not part of their modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from pytest_shark_tune.device.parameters import list_parameters, split_argument
from pytest_shark_tune.errors import DeviceChildDied, DeviceRequestFailed, InputError
from pytest_shark_tune.system.cache import file_digest
from pytest_shark_tune.system.files import check_plain

__all__ = ["PARAMETERS", "ParameterFile", "match_parameters", "stray_parameters"]

PARAMETERS = "--tune-parameters"
"""The option that gives such a file."""
_SUFFIXES = (".irpa", ".gguf", ".safetensors")
_MOST_SHOWN = 3
_MOST_BYTES = 1 << 50
"""The largest file: a regular one of any size that there is."""


class ParameterFile(msgspec.Struct, frozen=True):
    """An archive of parameters."""

    scope: str
    """The scope by which models refer to it; may be empty."""
    path: str
    sha256: str
    """The digest of the file."""
    sizes: dict[str, int]
    """The numbers of bytes of its parameters, by key."""

    @classmethod
    def parse(cls, line: str, base: Path) -> ParameterFile:
        """Read the directory of the archive in a line ``SCOPE=FILE``, or ``FILE`` for the empty scope.

        Raises:
            InputError: the line has another form, or IREE's runtime does not read the file. The message names the
                option.
        """
        scope, name = split_argument(line)
        if not name or not name.endswith(_SUFFIXES):
            raise InputError(f"{PARAMETERS}: {line!r} is not SCOPE=FILE with a file of {', '.join(_SUFFIXES)}")
        path = (base / name).absolute()
        try:
            check_plain(path, _MOST_BYTES)
            digest = file_digest(path)
            sizes = list_parameters(path)
        except OSError as error:
            raise InputError(f"{PARAMETERS}: {path} cannot be read: {error.strerror or error}") from error
        except (DeviceRequestFailed, DeviceChildDied) as error:
            raise InputError(f"{PARAMETERS}: {path} is not read by IREE's runtime: {error}") from error
        return cls(scope, str(path), digest, sizes)

    @property
    def argument(self) -> str:
        """The file as IREE's tools take it."""
        return f"{self.scope}={self.path}"

    @property
    def content(self) -> tuple[str, str]:
        """The file for content keys, without its path."""
        return self.scope, self.sha256


def match_parameters(
    name: str, wanted: Mapping[str, Mapping[str, int]], files: Sequence[ParameterFile]
) -> tuple[tuple[ParameterFile, ...], str]:
    """Find the files that hold the parameters of the model ``name``.

    Args:
        name: The name of the model.
        wanted: Its parameters by scope and key, with the least number of bytes of each.
        files: The files that the user gave, of whatever models.

    Returns:
        The files of its scopes, and the reason why the model cannot be run: scopes without a file, if there are any.

    Raises:
        InputError: the files of a scope lack a parameter, or hold too little of it.
    """
    absent = []
    for scope, keys in wanted.items():
        of_scope = [file for file in files if file.scope == scope]
        if of_scope:
            _check_keys(name, scope, keys, of_scope)
        else:
            absent.append(f"{_example(scope)} with {_shown(keys)}")
    why = f"its parameters are in other files: give {' and '.join(absent)}, so that it is run whole" if absent else ""
    return tuple(file for file in files if file.scope in wanted), why


def stray_parameters(files: Iterable[ParameterFile], taken: Iterable[ParameterFile]) -> str:
    """Report a file of a scope that no model takes. The text is empty if all is well."""
    scopes = {file.scope for file in taken}
    for file in files:
        if file.scope not in scopes:
            of_scope = f"of scope {file.scope!r}" if file.scope else "without a scope"
            return f"{PARAMETERS} {file.argument}: no model of the run takes parameters {of_scope}"
    return ""


def _check_keys(name: str, scope: str, keys: Mapping[str, int], files: Sequence[ParameterFile]) -> None:
    held: dict[str, int] = {}
    for file in files:
        held = {**file.sizes, **held}
    paths = ", ".join(file.path for file in files)
    missing = [key for key in keys if key not in held]
    if missing:
        raise InputError(
            f"{PARAMETERS}: {name} takes {_shown(missing)} of scope {scope!r}, and {paths} has {_shown(held)}"
        )
    for key, least in sorted(keys.items()):
        if held[key] < least:
            raise InputError(
                f"{PARAMETERS}: {name} takes {least} bytes of {key!r}, and {paths} has {held[key]}: it was made for "
                "another model"
            )


def _example(scope: str) -> str:
    return f"{PARAMETERS} {scope}=FILE" if scope else f"{PARAMETERS} FILE"


def _shown(keys: Iterable[str]) -> str:
    names = sorted(keys)
    others = len(names) - _MOST_SHOWN
    listed = ", ".join(map(repr, names[:_MOST_SHOWN])) or "nothing"
    return f"{listed} and {others} others" if others > 0 else listed
