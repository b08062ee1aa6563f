"""Sets one process of a tuning run up: its options, its session, and the directories that it shares with the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.errors import SharkTuneError
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.plugin.interrupts import Interrupts
from pytest_shark_tune.plugin.options import TuneOptions, is_dry
from pytest_shark_tune.plugin.preflight import check_bundle, check_inputs, claim_output, unpack_bundle
from pytest_shark_tune.plugin.xdist.messages import progress_callback
from pytest_shark_tune.plugin.xdist.remote import (
    ProcessShare,
    end_with_run,
    is_remote,
    paths_of_worker,
    refuse_each,
    share_of_worker,
    shared_directory,
)
from pytest_shark_tune.system import cleanup
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.system.directories import temporary_directory
from pytest_shark_tune.system.disk_errors import Storage
from pytest_shark_tune.tuning.bundle import Bundle, PackedCompiler
from pytest_shark_tune.tuning.session import Session
from pytest_shark_tune.tuning.settings import RunSettings

__all__ = ["Setup", "set_up"]

_RESULTS = "results"
"""The directory in the output directory with the results for a bundle, so that no later run measures them again."""


@dataclass(frozen=True)
class Setup:
    """One process's share of a tuning run."""

    options: TuneOptions
    session: Session
    bundle: Bundle | None
    """The bundle that is measured, if any."""
    storage: Storage
    interrupts: Interrupts
    root: Path
    """The root directory of pytest, to which directories of suites are relative."""
    report: Callable[[str], None]
    """Shows the user a message."""
    is_dry: bool
    """Whether nothing may be written, since pytest only shows something."""
    is_remote: bool
    """Whether workers run in other directories or on other hosts."""

    @property
    def settings(self) -> RunSettings:
        """The settings of the session."""
        return self.session.settings

    @property
    def stops_after_compile(self) -> bool:
        """Whether nothing is measured, and the compiled candidates become a bundle."""
        return self.settings.stops_after_compile

    def load_plan(self, key: str) -> Plan:
        """Read the plan with the key ``key`` from the cache.

        Raises:
            SharkTuneError: it is not there any more.
        """
        cache = self.session.cache
        plan = cache.get("plans", key, Plan)
        if plan is None:
            raise SharkTuneError(
                f"the plan {key} is gone from the cache {cache.directory}: was it cleared during the run?"
            )
        return plan


def set_up(config: pytest.Config) -> Setup:
    """Check the options and start a session.

    Raises:
        pytest.UsageError: an option cannot be met; the message names it.
    """
    worker = getattr(config, "workerinput", None)
    options = TuneOptions.from_pytest_config(config)
    if worker is not None:
        options = replace(options, **paths_of_worker(worker))
    bundle: Bundle | None = None
    if options.bundle is None:
        compiler = options.compiler
    else:
        bundle = check_bundle(options, options.bundle)
        compiler = PackedCompiler(bundle)
        options = replace(options, target=bundle.target, rotate_bytes=bundle.rotate_bytes)
    share = share_of_worker(worker, options) if worker is not None else _first_share(config, options, compiler)
    if worker is not None and share.is_remote:
        end_with_run(share.run_directory, worker["workerid"])
    report = progress_callback(config)
    cache, results = _caches(options, share, report)
    if worker is None:
        if options.clears_cache and not is_dry(config):
            Cache(options.cache).clear()
            results.clear()
        if bundle is not None and options.bundle is not None:
            unpack_bundle(bundle, options.bundle, cache)
    settings = _settings(options, share, worker, bundle)
    return Setup(
        options=options,
        session=Session(settings, compiler, cache, report=report, results=results),
        bundle=bundle,
        storage=_storage_of(options, share.run_directory),
        interrupts=Interrupts(terminate=worker is None),
        root=config.rootpath,
        report=report,
        is_dry=is_dry(config),
        is_remote=share.is_remote,
    )


def _first_share(config: pytest.Config, options: TuneOptions, compiler: Compiler) -> ProcessShare:
    """The share of the process that controls the run, which checks the inputs and makes the shared directories."""
    refuse_each(config)
    cleanup.remove_abandoned()
    remote = is_remote(config)
    try:
        devices = check_inputs(options, compiler, writes=not is_dry(config))
        if not is_dry(config):
            claim_output(config, options.out)
        run_directory = _shared_directory(config, options.cache) if remote else cleanup.new_directory("run")
    except OSError as error:
        raise pytest.UsageError(_storage_of(options, temporary_directory()).explain(error) or str(error)) from error
    return ProcessShare(devices, run_directory, options.jobs, remote, options.budget_from_now())


def _shared_directory(config: pytest.Config, cache: Path) -> Path:
    """The directory of the run in the cache, until the end of pytest."""
    held = shared_directory(cache)
    config.add_cleanup(held.remove)
    return held.path


def _caches(options: TuneOptions, share: ProcessShare, report: Callable[[str], None]) -> tuple[Cache, Cache]:
    """The cache of the run, and the cache of its results.

    The content of a bundle, and results for it, are kept where no other run looks.
    """
    if options.bundle is None:
        cache = Cache(options.cache, report)
        return cache, cache
    cache = Cache(share.run_directory, report)
    return cache, cache if share.is_remote else Cache(options.out / _RESULTS, report)


def _settings(
    options: TuneOptions, share: ProcessShare, worker: dict[str, Any] | None, bundle: Bundle | None
) -> RunSettings:
    return RunSettings(
        devices=tuple(share.devices["uris"]),
        device_name=share.devices["name"],
        jobs=share.jobs,
        seed=options.seed,
        run_directory=share.run_directory,
        request=options.request,
        rotate_bytes=options.rotate_bytes,
        share=options.share,
        fresh=options.fresh,
        bitwise=options.bitwise,
        models=options.models,
        forms=options.forms,
        reference=options.reference,
        compare=options.compare,
        budget=share.budget,
        stops_after_compile=options.stop_after == "compile",
        bundle=bundle.digest if bundle is not None else "",
        starter=options.starter_text,
    )


def _storage_of(options: TuneOptions, temporary: Path) -> Storage:
    directories = {"--tune-out": options.out, "--tune-cache": options.cache, "TMPDIR": temporary}
    # Last: it may lie in any of the others, or around them.
    return Storage(directories | ({"--tune-record-landscape": options.landscape.parent} if options.landscape else {}))
