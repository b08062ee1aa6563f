"""How this package was installed, so that another machine can install it in the same way."""

from __future__ import annotations

import json
import os
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["PACKAGE", "install_command"]

PACKAGE = "pytest-shark-tune"


def install_command(root: Path, extras: str) -> str:
    """Return what `pip install` takes on a machine with a checkout of the repository at ``root``.

    The file ``direct_url.json`` of an installed package says where it came from (PEP 610).

    Args:
        root: the root of the repository.
        extras: the extras, in brackets; empty for none.

    Returns:
        The arguments; empty if the package was installed from a directory or file that only this machine has.
    """
    origin = _origin()
    if origin is None:  # From an index.
        return shlex.quote(f"{PACKAGE}{extras}")
    url = origin["url"]
    if version_control := origin.get("vcs_info"):
        url = f"{version_control['vcs']}+{url}@{version_control['commit_id']}"
    elif urlsplit(url).scheme == "file":
        path = Path(unquote(urlsplit(url).path))
        if not path.is_relative_to(root):
            return ""
        relative = "." if path == root else f"./{os.path.relpath(path, root)}"
        return shlex.quote(f"{relative}{extras}")
    return shlex.quote(f"{PACKAGE}{extras} @ {url}")


def _origin() -> Any:
    """Where the package came from, if not from an index."""
    try:
        text = metadata.distribution(PACKAGE).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return json.loads(text) if text else None
