"""A machine without the compiler: stand-ins for the bindings, so that what only handles plain data still imports.

Our modules hold what reads and writes MLIR beside the plain types that a run with a bundle works with. There the
bindings are never called: a stand-in is imported in their place, and refuses any call.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec

from pytest_shark_tune.errors import NoCompiler

__all__ = ["has_compiler", "stand_in", "text_if_possible"]

_Parameters = ParamSpec("_Parameters")

_BINDINGS = "iree.compiler"
_MODULES = ("", ".dialects", ".ir", ".passmanager", ".version")


class _Absent:
    """Something of the bindings: whatever it has is absent as well."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self._name}.{name}")

    def __int__(self) -> int:
        """Enumerators are keys of our tables."""
        return hash(self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NoCompiler(
            f"this takes the IREE compiler ({self._name}), which is not installed here: python -m pip install "
            "iree-base-compiler, or leave it to a machine that has it (shark-tune merge-records)"
        )


class _AbsentModule(types.ModuleType):
    """A module of the bindings that can be imported from, and nothing more."""

    __path__: list[str] = []  # noqa: RUF012 - without one it would be no package

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")


def has_compiler() -> bool:
    """Whether the compiler's bindings are installed; stand-ins do not count."""
    loaded = sys.modules.get(_BINDINGS)
    if loaded is not None:
        return not isinstance(loaded, _AbsentModule)
    try:
        return importlib.util.find_spec(_BINDINGS) is not None
    except ModuleNotFoundError:
        return False


def stand_in() -> None:
    """Let this process import from the compiler's bindings where they are not installed."""
    if has_compiler():
        return
    for name in _MODULES:
        sys.modules[f"{_BINDINGS}{name}"] = _AbsentModule(f"{_BINDINGS}{name}")


def text_if_possible(build: Callable[_Parameters, str]) -> Callable[_Parameters, str]:
    """``build`` with an empty text in place of what it cannot build without the compiler.

    A suite names its ops by building them. With a bundle their text is never asked for.
    """

    @functools.wraps(build)
    def built(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> str:
        try:
            return build(*args, **kwargs)
        except NoCompiler:
            return ""

    return built
