"""The exceptions that the package raises on purpose, apart from ``pytest.UsageError``, and its warning.

Stages and tools do not depend on pytest, so they raise these. The plugin and the command line turn them into messages.
"""

from __future__ import annotations

__all__ = [
    "CandidateFailed",
    "CommandFailed",
    "DeviceChildDied",
    "InputError",
    "NoCompiler",
    "PromiseBroken",
    "PromiseUntold",
    "SharkTuneError",
    "SpecNotParsed",
    "SpecRefused",
    "UndecidedWarning",
]


class SharkTuneError(Exception):
    """The base of every error that the package raises on purpose."""


class InputError(SharkTuneError):
    """An input of the user cannot be used. The message names the input, the reason and the remedy."""


class SpecNotParsed(InputError):
    """A text is not MLIR that this IREE parses. ``problem`` is the reason, without the advice to port the spec."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}. A spec that another release of IREE wrote must be ported first (`shark-tune port`)"
        )
        self.problem = problem


class SpecRefused(InputError):
    """A spec, or a config in a record, holds something that could do harm. Nothing has interpreted it."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(
            f"{name} is refused: it holds {what}, which no matcher or annotation needs. The compiler would interpret "
            "it, and it could run commands and write files. If you trust it, give --tune-trust-spec"
        )


class NoCompiler(SharkTuneError):
    """A function needs the compiler's bindings, which are not installed here."""


class CommandFailed(SharkTuneError):
    """A command exited with an error, ran out of time or could not be started.

    Args:
        message: The text for the user.
        stderr: The whole text that the command wrote there.
        timed_out: Whether the command ran out of time.
        stopped: Whether this process ended the command together with all others.
    """

    def __init__(self, message: str, *, stderr: str = "", timed_out: bool = False, stopped: bool = False) -> None:
        super().__init__(message)
        self.stderr = stderr
        self.stopped = stopped
        self.timed_out = timed_out


class DeviceChildDied(SharkTuneError):
    """The child process that holds a device ended during a request. With ``timed_out`` the watchdog ended it."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class CandidateFailed(SharkTuneError):
    """A candidate could not be measured.

    Args:
        state: One of the record's states.
        reason: The reason as text.
        detail: The `Check` of a wrong result.
    """

    def __init__(self, state: str, reason: str, detail: object = None) -> None:
        super().__init__(f"{state}: {reason}")
        self.state = state
        self.reason = reason
        self.detail = detail


class UndecidedWarning(UserWarning):
    """The speed check of a guarded entry was not decided within its time."""


class PromiseBroken(SharkTuneError):
    """An entry of a spec fails a check. The message has the reason and the remedy."""


class PromiseUntold(SharkTuneError):
    """A check cannot run here. The message has the reason."""
