"""Old paths of public names, for one release: a module here warns and becomes the module that it moved to."""

import sys
import warnings
from types import ModuleType


def redirect(old: str, module: ModuleType) -> None:
    """Warn that ``old`` is deprecated, and make it another name of ``module``."""
    warnings.warn(
        f"{old} is {module.__name__} now; the old path goes with the next release", DeprecationWarning, stacklevel=3
    )
    sys.modules[old] = module
