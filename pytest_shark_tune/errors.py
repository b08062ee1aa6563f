"""The exceptions that the package raises on purpose, apart from ``pytest.UsageError``, and its warning.

Stages and tools know nothing of pytest, so they raise these; the plugin and the command line turn them
into the message a user sees.
"""

from __future__ import annotations

__all__ = [
    "CandidateFailed",
    "CommandFailed",
    "DeviceChildDied",
    "DeviceRequestFailed",
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
    """Something a user gave cannot be used; the message says what, why and what to do."""


class SpecNotParsed(InputError):
    """A text is no MLIR that this IREE parses; ``problem`` says why, without the advice to port it."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}. A spec that another release of IREE wrote must be ported first (`shark-tune port`)"
        )
        self.problem = problem


class SpecRefused(InputError):
    """A spec, or a config in a record, holds something that could do harm; nothing interpreted it."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(
            f"{name} is refused: it holds {what}, which no matcher or annotation needs. The compiler would interpret "
            "it, and it could run commands and write files. If you trust it, give --tune-trust-spec"
        )


class NoCompiler(SharkTuneError):
    """Something needs the compiler's bindings on a machine where they are not installed."""


class CommandFailed(SharkTuneError):
    """A command exited with an error, ran out of time or could not be started.

    ``timed_out`` tells a time-out from a failure, ``stopped`` that this process itself ended every command that ran;
    ``stderr`` is what the command wrote, whole.
    """

    def __init__(self, message: str, *, stderr: str = "", timed_out: bool = False, stopped: bool = False) -> None:
        super().__init__(message)
        self.stderr = stderr
        self.stopped = stopped
        self.timed_out = timed_out

    @property
    def lines(self) -> list[str]:
        """The lines of ``stderr`` that say something; the message itself if there are none."""
        return [line.strip() for line in self.stderr.splitlines() if line.strip()] or [str(self)]


class DeviceChildDied(SharkTuneError):
    """The child process that holds a device ended, or was ended by the watchdog, during a request.

    ``timed_out`` is true when the watchdog ended it.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class DeviceRequestFailed(SharkTuneError):
    """The device child answered with an error and goes on: a bad artifact, a missing function, a failed run."""


class CandidateFailed(SharkTuneError):
    """A candidate got no number; ``state`` is one of the record's states and ``reason`` says why in words.

    ``detail`` is what there is to keep besides: the `Check` of a result that was wrong.
    """

    def __init__(self, state: str, reason: str, detail: object = None) -> None:
        super().__init__(f"{state}: {reason}")
        self.state = state
        self.reason = reason
        self.detail = detail


class UndecidedWarning(UserWarning):
    """A guarded entry whose speed could not be told from what it promises within the time for it."""


class PromiseBroken(SharkTuneError):
    """An entry of a spec does not keep a promise; the message says why and what to do."""


class PromiseUntold(SharkTuneError):
    """A promise cannot be looked at here; the message says why."""
