"""Checks the options and the directories of a run before anything else is done."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_shark_tune.compiler.compiler import Compiler, installation_of
from pytest_shark_tune.device.discovery import FoundDevices, devices_for
from pytest_shark_tune.device.lease import signature, who_holds
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.plugin.options import TuneOptions, named_here
from pytest_shark_tune.plugin.parse import naming
from pytest_shark_tune.results.prior_training import load_prior
from pytest_shark_tune.spec.link import check_starter
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.system.cleanup import scratch_directory
from pytest_shark_tune.system.directories import check_owner, temporary_directory
from pytest_shark_tune.system.disk_errors import Storage
from pytest_shark_tune.system.lock import FileLock, NoLocks
from pytest_shark_tune.tuning.bundle import Bundle, check_machine, read_bundle
from pytest_shark_tune.tuning.session import Session

__all__ = [
    "check_bundle",
    "check_cache",
    "check_compiler",
    "check_directory",
    "check_inputs",
    "check_temporary",
    "claim_output",
    "find_devices",
    "hold_directory",
    "refuse_strays",
    "unpack_bundle",
]

_LOCK, _IGNORED = ".shark-tune.lock", ".gitignore"


def check_inputs(options: TuneOptions, compiler: Compiler, *, writes: bool) -> FoundDevices:
    """Refuse options that cannot be met, before anything is done.

    Args:
        options: the options of the run.
        compiler: the compiler of the run, which is not called if a bundle is measured.
        writes: whether the run writes anything: otherwise it needs no directory but the cache.

    Returns:
        The devices to measure on; none if the run stops after compiling.

    Raises:
        pytest.UsageError: an option cannot be met; the message names it.
    """
    if options.bundle is None:
        check_compiler(options, compiler)
    if options.starter is not None:
        with naming("--tune-starter-spec"):
            check_starter(options.starter_text, str(options.starter))
    with naming("--tune-prior"):
        load_prior(options.prior, "")
    devices: FoundDevices = {"uris": [], "name": ""} if options.stop_after else find_devices(options)
    # Last, so that a run that is refused leaves no directory behind.
    check_cache(options.cache)
    if writes:
        check_directory("--tune-out", options.out)
        if options.landscape is not None:
            check_directory("--tune-record-landscape", options.landscape.parent)
    return devices


def find_devices(options: TuneOptions) -> FoundDevices:
    """Find the devices to measure on.

    Raises:
        pytest.UsageError: there is no such device, or the devices differ, or they cannot be locked.
    """
    try:
        return devices_for(options.target, options.devices)
    except InputError as error:
        raise pytest.UsageError(str(error)) from error


def check_temporary() -> None:
    """Make sure that the temporary directory takes files.

    Raises:
        pytest.UsageError: it does not; the message names it.
    """
    try:
        with scratch_directory():
            pass
    except OSError as error:
        raise pytest.UsageError(Storage({"TMPDIR": temporary_directory()}).explain(error) or str(error)) from error


def check_compiler(options: TuneOptions, compiler: Compiler) -> None:
    """Make sure that the compiler accepts the target and the flags, unless it did in an earlier run.

    Raises:
        pytest.UsageError: it does not; the message names the option.
    """
    key = ""
    with suppress(InputError, OSError):  # The cache, and the files that flags name, are checked by others.
        key = content_key("compiler", installation_of(compiler)) if options.cache.is_dir() else ""
        passed = Cache(options.cache).get("checks", key, bool) if key else None
        if passed:
            return
    try:
        compiler.check()
    except InputError as error:
        option = "--iree-compile-flag: " if options.compile_flags else "--tune-target: "
        if isinstance(error.__cause__, CommandFailed):
            option = "--tune-compile-timeout: " if error.__cause__.timed_out else option
            option = "" if error.__cause__.ended_by else option
        raise pytest.UsageError(f"{option}{error}") from error
    with suppress(InputError, OSError):
        if key:
            Cache(options.cache).put("checks", key, True)


def check_bundle(options: TuneOptions, path: Path) -> Bundle:
    """Read a bundle, and make sure that it fits this machine and the options.

    Raises:
        pytest.UsageError: it cannot be read, or it does not fit; the message names the option.
    """
    with naming("--tune-bundle"):
        bundle = read_bundle(path)
        check_machine(bundle)
    if options.target_is_given and options.target != bundle.target:
        raise pytest.UsageError(f"--tune-target: the bundle {path} is for {bundle.target}: leave it out")
    return bundle


def unpack_bundle(bundle: Bundle, path: Path, cache: Cache) -> None:
    """Add the content of the bundle at ``path`` to ``cache``.

    Raises:
        pytest.UsageError: the file is damaged, or there is no space for its content.
    """
    try:
        with naming("--tune-bundle"):
            bundle.unpack(path, cache)
    except OSError as error:
        raise pytest.UsageError(f"--tune-bundle: {path} cannot be unpacked into {cache.directory}: {error}") from error


def check_cache(directory: Path) -> None:
    """Make sure that the cache can be written to and belongs to this user; make it if it does not exist.

    Raises:
        pytest.UsageError: it cannot be written to, or it belongs to someone else.
    """
    with naming("--tune-cache"), suppress(OSError):  # The check below reports it.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owner(directory)
    check_directory("--tune-cache", directory)


def check_directory(option: str, directory: Path) -> None:
    """Make sure that the directory in an option can be written to; make it if it does not exist.

    Raises:
        pytest.UsageError: it cannot be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise pytest.UsageError(f"{option}: cannot write to {directory}: {error.strerror}") from error


def hold_directory(option: str, directory: Path) -> FileLock:
    """Keep other runs out of the directory in an option until the lock is released or this process has ended.

    A directory on a file system without locks counts as held.

    Raises:
        pytest.UsageError: another run holds it, or it cannot be written to.
    """
    lock = FileLock(directory / _LOCK, mode=0o666, remove=True)
    try:
        held = lock.try_acquire(signature())
    except NoLocks:
        held = True
    except OSError as error:
        raise pytest.UsageError(f"{option}: cannot write to {lock.path}: {error.strerror}") from error
    if not held:
        raise pytest.UsageError(
            f"{option}: another run writes to {directory}, {who_holds(lock.note())}, and the two would overwrite each "
            f"other's files: name another directory with {option}, or wait until that run has ended"
        )
    return lock


def claim_output(config: pytest.Config, out: Path) -> None:
    """Keep other runs out of the output directory until this run is over.

    Raises:
        pytest.UsageError: another run holds it, or it cannot be written to.
    """
    lock = hold_directory("--tune-out", out)
    _ignore_in_git(out)

    def release() -> None:
        lock.release()
        with suppress(OSError):  # It stays unless it is empty.
            if [path.name for path in out.iterdir()] == [_IGNORED]:
                (out / _IGNORED).unlink()
            out.rmdir()

    config.add_cleanup(release)


def _ignore_in_git(out: Path) -> None:
    """Keep results out of git, if the directory is ours alone: a user's own directory has other files."""
    lines = out / _IGNORED
    with suppress(OSError):
        if {path.name for path in out.iterdir()} <= {_LOCK}:
            lines.write_text(
                "# Results of pytest --tune. Commit the snapshots in __specs__ instead.\n*\n", encoding="utf-8"
            )


def refuse_strays(config: pytest.Config, session: Session, items: list[pytest.Item]) -> None:
    """Empty ``items`` if an option on the command line is about a model that no test takes.

    The models are known only once all tests are collected. By then xdist lets no worker refuse its command line, so
    the problem is reported as a collection error.
    """
    problem = named_here(config, session.settings.models).stray(session.planner.models)
    if problem:
        items.clear()
        report = pytest.CollectReport(nodeid="", outcome="failed", longrepr=problem, result=[])
        config.hook.pytest_collectreport(report=report)
