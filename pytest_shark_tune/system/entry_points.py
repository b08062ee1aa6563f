"""Entry points of other packages, loaded with errors that name them."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from pytest_shark_tune.errors import InputError

__all__ = ["describe_entry", "load_entry"]


def describe_entry(entry: EntryPoint) -> str:
    """Return the name, the object and the group of an entry point, for messages."""
    return f"the entry point {entry.name} = {entry.value!r} of {entry.group}"


def load_entry(entry: EntryPoint) -> Any:
    """Load the object of an entry point.

    Raises:
        InputError: It cannot be loaded.
    """
    try:
        return entry.load()
    except Exception as error:  # Another package may raise anything while it is imported.
        described = describe_entry(entry)
        raise InputError(f"{described} cannot be loaded: {type(error).__name__}: {error}") from error
