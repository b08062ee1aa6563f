"""Workers' hosts that cannot be reached: they end no run that other workers can finish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from execnet import HostNotFound

from pytest_shark_tune.plugin.reporting import end_run

__all__ = ["survive_lost_hosts", "why_unreachable"]

_CONTINUE = "the same command continues, and needs no --tx of a host that stays away"


def survive_lost_hosts(
    controller: Any, report: Callable[[str], None], leave_out: Callable[[], None] | None = None
) -> None:
    """Have xdist leave out lost workers that cannot be replaced, since their host cannot be reached.

    Xdist lets the error out, which ends the run, and has no hook for it. So its controller's method that replaces a
    worker is replaced. A host that could not be reached is not tried again: each of its workers might take minutes.

    Args:
        controller: xdist's controller, the plugin ``dsession``.
        report: shows the user a message.
        leave_out: called for each worker that is left out, for a scheduler that waits until all workers have collected.
    """
    replace = controller._clone_node
    unreachable: dict[str, str] = {}

    def replace_if_reachable(lost: Any) -> Any:
        host = _host_of(lost.gateway.spec)
        if host not in unreachable:
            try:
                return replace(lost)
            except (HostNotFound, EOFError, OSError) as error:
                if not host:
                    raise
                unreachable[host] = why_unreachable(error, host) or f"--tx: {host} starts no worker: {error}"
        others = [node for node in controller._active_nodes if node is not lost and not node.shutting_down]
        if not others and not controller.sched.tests_finished:
            end_run(f"{unreachable[host]}; {_CONTINUE}", returncode=pytest.ExitCode.TESTS_FAILED)
        if others:
            left = "1 worker" if len(others) == 1 else f"{len(others)} workers"
            report(f"{unreachable[host]}; the run goes on without {lost.gateway.id}, with {left}")
        if leave_out is not None:
            leave_out()
        return None

    controller._clone_node = replace_if_reachable


def why_unreachable(error: Exception, host: str = "another host") -> str:
    """Return the reason why a worker on a host could not be started; empty for an error of another kind."""
    if isinstance(error, HostNotFound):
        return f"--tx: ssh gets no connection to {error}"
    # Execnet's own errors have no number.
    if isinstance(error, EOFError) or (isinstance(error, OSError) and error.errno is None):
        return f"--tx: a worker on {host} ended as it was started ({error}): does python= name a Python there?"
    return ""


def _host_of(spec: Any) -> str:
    """The host of a worker; empty for a process of this one."""
    return spec.ssh or spec.vagrant_ssh or spec.socket or ""
