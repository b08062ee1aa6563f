"""Artifacts: what compiling a candidate gives."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Artifact"]


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """What compiling one candidate gave.

    ``candidate`` is its id, ``vmfb`` the path of the binary and ``sha256`` the binary's hash, both ``None`` unless the
    state is ``compiled``. ``reason`` is empty then, and otherwise says in words what went wrong; ``stderr`` is
    the compiler's, whole. ``compile_s`` counts wall-clock seconds.
    """

    candidate: str
    state: Literal["compiled", "compile_failed", "compile_timeout", "not_applied"]
    reason: str = ""
    vmfb: str | None = None
    sha256: str | None = None
    compile_s: float = 0.0
    stderr: str = ""
