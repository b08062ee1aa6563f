"""Artifacts: compiled candidates."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Artifact"]


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """The result of compiling one candidate."""

    candidate: str
    """The candidate's id."""
    state: Literal["compiled", "compile_failed", "compile_timeout", "not_applied"]
    reason: str = ""
    """The reason of a failure; empty for ``compiled``."""
    vmfb: str | None = None
    """The path of the binary; ``None`` after a failure."""
    sha256: str | None = None
    """The hash of the binary."""
    compile_s: float = 0.0
    """The wall-clock seconds."""
    stderr: str = ""
    """The whole stderr of the compiler."""
