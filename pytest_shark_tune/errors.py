"""The exceptions that the package raises on purpose, apart from ``pytest.UsageError``, and its warnings.

Modules that do not import pytest raise these. The plugin and the command line turn them into the message that a user
sees.
"""

from __future__ import annotations

__all__ = [
    "CandidateFailed",
    "CheckFailed",
    "CheckSkipped",
    "CommandFailed",
    "DeviceChildDied",
    "DeviceRequestFailed",
    "InputError",
    "NoCompiler",
    "OutputError",
    "SharkTuneError",
    "SpecNotParsed",
    "SpecRefused",
    "UndecidedWarning",
    "UntestedReleaseWarning",
]


class SharkTuneError(Exception):
    """The base of every error that the package raises on purpose."""


class InputError(SharkTuneError):
    """An input of the user cannot be used. The message names the input, the reason and the remedy."""


class SpecNotParsed(InputError):
    """A text is not MLIR that this IREE parses.

    Args:
        problem: The reason, without the advice to port the spec.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}. A spec that another release of IREE wrote must be ported first (`shark-tune port`)"
        )
        self.problem = problem


class SpecRefused(InputError):
    """A spec, or a config in a record, holds something that could do harm. Nothing has interpreted it.

    Args:
        name: The name of the spec or record in the message.
        content: The part that could do harm.
    """

    def __init__(self, name: str, content: str) -> None:
        super().__init__(
            f"{name} is refused: it holds {content}, which no matcher or annotation needs. The compiler would "
            "interpret it, and it could run commands and write files. If you trust it, give --tune-trust-spec"
        )


class NoCompiler(SharkTuneError):
    """The compiler's bindings are needed and are not installed on this machine."""


class OutputError(SharkTuneError):
    """Standard output or error takes no text, for example on a full disk. The message gives the reason."""


class CommandFailed(SharkTuneError):
    """A command exited with an error, ran out of time or could not be started.

    Args:
        message: The reason.
        stderr: The whole stderr of the command.
        timed_out: The command ran out of time.
        stopped: This process ended the command together with all others (`process.stop_all`).
        ended_by: The name of the signal that ended the command, if one did.
    """

    def __init__(
        self, message: str, *, stderr: str = "", timed_out: bool = False, stopped: bool = False, ended_by: str = ""
    ) -> None:
        super().__init__(message)
        self.ended_by = ended_by
        self.stderr = stderr
        self.stopped = stopped
        self.timed_out = timed_out

    @property
    def lines(self) -> list[str]:
        """The lines of ``stderr`` that are not blank, stripped. Without any, the message is the only line."""
        return [line.strip() for line in self.stderr.splitlines() if line.strip()] or [str(self)]


class DeviceChildDied(SharkTuneError):
    """The child process that holds a device ended during a request.

    Args:
        message: How it ended, with the end of its stderr.
        timed_out: The watchdog ended it, because it did not answer in time.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class DeviceRequestFailed(SharkTuneError):
    """The device child answered with an error and lives on: a bad artifact, a missing function, a failed run."""


class CandidateFailed(SharkTuneError):
    """A candidate was not measured.

    Args:
        state: One of the states of a record.
        reason: The reason, for people.
        detail: More to record: the `Check` of a wrong result.
    """

    def __init__(self, state: str, reason: str, detail: object = None) -> None:
        super().__init__(f"{state}: {reason}")
        self.state = state
        self.reason = reason
        self.detail = detail


class UndecidedWarning(UserWarning):
    """The speed check of a guarded entry was not decided within its time."""


class CheckFailed(SharkTuneError):
    """An entry of a spec fails a check. The message gives the reason and the remedy."""


class UntestedReleaseWarning(UserWarning):
    """A release of IREE is tried that is not tested."""


class CheckSkipped(SharkTuneError):
    """A check cannot run here. The message gives the reason."""
