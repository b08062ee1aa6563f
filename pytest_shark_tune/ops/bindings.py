"""The compiler's bindings on a machine without the compiler, such as one that measures a bundle.

A suite names its ops by building them, also there. Their texts are then empty, and `stand_in` lets modules that also
read and write MLIR be imported.
"""

from __future__ import annotations

import functools
import importlib.util
import platform
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec

from pytest_shark_tune.errors import NoCompiler

__all__ = ["check_installed", "stand_in", "text_if_possible"]

_Parameters = ParamSpec("_Parameters")

_BINDINGS = "iree.compiler"


class _Absent(types.ModuleType):
    """Something of the bindings on a machine without the compiler: it has everything and refuses any call."""

    __path__: list[str] = []  # noqa: RUF012 - a module without a path is no package.

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self.__name__}.{name}")

    def __int__(self) -> int:
        """Return a number, since tables have enumerators as keys."""
        return hash(self.__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NoCompiler(
            f"this takes the IREE compiler ({self.__name__}), which is not installed here: python -m pip install "
            "iree-base-compiler, or leave it to a machine that has it (shark-tune merge-records)"
        )


def check_installed() -> None:
    """Make sure that the compiler's bindings are installed.

    Raises:
        NoCompiler: they are not.
    """
    if not _are_installed():
        raise NoCompiler(
            f"the IREE compiler is not installed on {platform.node()}: python -m pip install iree-base-compiler"
        )


def _are_installed() -> bool:
    if _BINDINGS in sys.modules:
        return not isinstance(sys.modules[_BINDINGS], _Absent)
    try:
        return importlib.util.find_spec(_BINDINGS) is not None
    except ModuleNotFoundError:
        return False


def stand_in() -> None:
    """Let this process import from the compiler's bindings even if they are not installed."""
    if not _are_installed():
        for name in ("", ".dialects", ".ir", ".passmanager", ".version"):
            sys.modules[f"{_BINDINGS}{name}"] = _Absent(f"{_BINDINGS}{name}")


def text_if_possible(build: Callable[_Parameters, str]) -> Callable[_Parameters, str]:
    """Let ``build`` return an empty text instead of failing without the compiler."""

    @functools.wraps(build)
    def built(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> str:
        try:
            return build(*args, **kwargs)
        except NoCompiler:
            return ""

    return built
