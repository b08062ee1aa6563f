"""Old paths of public names, for one release: a module here warns, and has the names of the modules that replace it."""

import sys
import warnings
from types import ModuleType
from typing import Any


def redirect(old: str, *modules: ModuleType) -> None:
    """Warn that the module ``old`` is deprecated, and give it the names of ``modules``."""

    def attribute(name: str) -> Any:
        for module in modules:
            if not name.startswith("__") and hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    now = " and ".join(module.__name__ for module in modules)
    warnings.warn(f"{old} is {now} now; the old path goes with the next release", DeprecationWarning, stacklevel=3)
    vars(sys.modules[old])["__getattr__"] = attribute
