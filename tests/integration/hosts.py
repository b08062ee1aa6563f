"""Another host, as far as one machine can be one: sshd on 127.0.0.1 with a name, a Python and mounts of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import PLUGINS

__all__ = ["NAME", "USER", "Host", "connections", "why_no_host"]

NAME = "shark-tune-host"
USER = "nobody"
"""An account without a password. On the host, and there alone, it has a shell."""
_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_PROJECT = Path(__file__).parents[2]
_ROOT = "/mnt"
"""The directory of the host in which its Python, its packages and its checkout lie."""
_START_S = 20.0

# All mounts are in a namespace of the host's own, and end with its last process.
_START = """
set -e
mount -t tmpfs -o mode=755 tmpfs {root}
cd {root}
mkdir python packages project checkout site site/iree
mount --bind {python} python
mount --bind {packages} packages
mount --bind {project} project
ln -s {root}/packages/* site/ 2>/dev/null || true
rm -rf site/iree/iree
for name in packages/iree/*; do ln -s {root}/$name site/iree/; done
rm -rf {lacking}
cp -r {checkout}/. checkout
chown -R {user} checkout
cp {directory}/key.pub .
printf '%s\\n' '#!/bin/sh' 'export PYTHONPATH={path}' 'exec {root}/python/bin/{executable} "$@"' >python3
chmod +x python3
mount --bind {passwd} /etc/passwd
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
hostname {name}
{hidden}
exec {sshd} -D -e -f {config}
"""
_SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey "{directory}/host-key"
AuthorizedKeysFile {root}/key.pub
PidFile none
StrictModes no
UsePAM no
MaxStartups 100
"""
_CLIENT = """
Host {name}
  HostName 127.0.0.1
  Port {port}
  IdentityFile "{directory}/key"
  IdentitiesOnly yes
  UserKnownHostsFile "{directory}/known-hosts"
  StrictHostKeyChecking no
  LogLevel ERROR
  ServerAliveInterval 1
  ServerAliveCountMax 3
"""


def why_no_host() -> str:
    """Return the reason why this machine cannot stand for another host; empty if it can."""
    if _SSHD is None or shutil.which("ssh") is None:
        return "sshd or ssh is not installed"
    if os.geteuid():
        return "sshd lets in other users only if root starts it"
    tried = subprocess.run(
        ["unshare", "--mount", "--uts", "sh", "-c", f"mount -t tmpfs tmpfs {_ROOT} && hostname {NAME}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespace of its own for a host: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True)
class Host:
    """A host that lets this user in."""

    directory: Path
    """Keys, configuration and log; nothing of it is the host's."""
    checkout: Path
    """A directory that the host has a copy of, in another place."""
    lacks: tuple[str, ...] = ()
    """Packages that are not installed on it."""
    hides: tuple[Path, ...] = ()
    """Directories of this machine in which the host sees nothing."""

    @contextmanager
    def running(self) -> Iterator[int]:
        """Let users in; yield the id of the server's process."""
        assert _SSHD is not None
        port = self._prepare()
        start = self._script()
        with (self.directory / "log").open("wb") as log:
            command = ["unshare", "--mount", "--uts", "sh", "-c", start]
            process = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            end = time.monotonic() + _START_S
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail(f"sshd did not start: {(self.directory / 'log').read_text(encoding='utf-8')}")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.kill()
            process.wait()

    def _prepare(self) -> int:
        """Write keys and configuration; return the port."""
        self.directory.mkdir()
        for key in ("key", "host-key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", os.fspath(self.directory / key)]
            subprocess.run(command, check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        names = {"directory": self.directory, "port": port, "name": NAME, "root": _ROOT}
        (self.directory / "sshd_config").write_text(_SERVER.format(**names), encoding="utf-8")
        (self.directory / "ssh_config").write_text(_CLIENT.format(**names), encoding="utf-8")
        (self.directory / "passwd").write_text(_accounts(), encoding="utf-8")
        return port

    def _script(self) -> str:
        return _START.format(
            root=_ROOT,
            directory=_quoted(self.directory),
            python=_quoted(sys.base_prefix),
            packages=_quoted(sysconfig.get_path("purelib")),
            project=_quoted(_PROJECT),
            checkout=_quoted(self.checkout),
            lacking=" ".join(f"site/{name}" for name in self.lacks) or "none",
            user=USER,
            path=f"{_ROOT}/project:{_ROOT}/site:{_ROOT}/project/{PLUGINS.relative_to(_PROJECT)}",
            executable=f"python{sys.version_info.major}.{sys.version_info.minor}",
            passwd=_quoted(self.directory / "passwd"),
            name=NAME,
            hidden="\n".join(f"mount -t tmpfs -o mode=777 tmpfs {_quoted(hidden)}" for hidden in self.hides),
            sshd=_SSHD,
            config=_quoted(self.directory / "sshd_config"),
        )

    def workers(self, count: int = 2, user: str = "root") -> list[str]:
        """The options that start workers on this host."""
        spec = f"ssh={user}@{NAME}//ssh_config={self.directory / 'ssh_config'}//python={_ROOT}/python3"
        return ["--dist=load", *[f"--tx={spec}//chdir={_ROOT}/checkout"] * count]


def connections(server: int) -> list[int]:
    """The processes that hold the connections of a server."""
    text = Path(f"/proc/{server}/task/{server}/children").read_text(encoding="utf-8")
    return [int(child) for child in text.split()]


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _accounts() -> str:
    lines = Path("/etc/passwd").read_text(encoding="utf-8").splitlines()
    return "".join(
        f"{line.rpartition(':')[0]}:/bin/sh\n" if line.startswith(f"{USER}:") else f"{line}\n" for line in lines
    )


def _quoted(path: str | os.PathLike[str]) -> str:
    """A path for a shell: checkouts and environments may lie in directories with a blank."""
    return shlex.quote(os.fspath(path))
