"""A client's own compile step: it changes every configured module before the module is compiled."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from pytest_shark_tune.compiler.configure import Configured, read_configs, why_not_applied
from pytest_shark_tune.errors import CandidateFailed, CommandFailed, InputError
from pytest_shark_tune.records.types import State

__all__ = ["CompileStep", "command_failure"]


@dataclass(frozen=True)
class CompileStep:
    """A step between configuring and compiling."""

    key: str
    """Names the step in the keys of compiled modules, so it has to change if the step does."""
    run: Callable[[str], str]
    """Takes the text of a module at phase ``executable-sources`` and returns it changed, at the same phase."""

    def applied_to(self, text: str, compilation_info: str = "") -> str:
        """The module after the step. If ``compilation_info`` is given, it has to be applied still.

        Raises:
            CandidateFailed: the step fails, gives no module, or loses the config.
        """
        try:
            changed = self.run(text)
        except (CommandFailed, subprocess.SubprocessError, OSError) as error:
            raise command_failure(error, State.COMPILE_FAILED, State.COMPILE_TIMEOUT) from error
        if not compilation_info:
            return changed
        try:
            configured = Configured(text=changed, applied=read_configs(changed))
        except InputError as error:
            raise CandidateFailed(State.COMPILE_FAILED, f"the compile step {self.key} gave {error}") from error
        if missed := why_not_applied(configured, compilation_info):
            raise CandidateFailed(State.NOT_APPLIED, f"after the compile step {self.key} {missed}")
        return changed


def command_failure(error: Exception, failed: State, timed_out: State) -> CandidateFailed:
    """Turn the failure, or the time-out, of a client's command into a failure of its candidate."""
    is_late = isinstance(error, subprocess.TimeoutExpired) or (isinstance(error, CommandFailed) and error.timed_out)
    stderr = getattr(error, "stderr", None) or ""
    said = stderr.decode(errors="replace") if isinstance(stderr, bytes) else str(stderr)
    reason = f"{error}: {said.strip()}" if said.strip() else str(error)
    return CandidateFailed(timed_out if is_late else failed, reason)
