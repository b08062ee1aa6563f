"""Bundles: compiled candidates in one file, so that they can be measured on a machine without the compiler."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from pytest_shark_tune import __version__
from pytest_shark_tune.compiler.artifact import Artifact
from pytest_shark_tune.compiler.compiler import COMPILE_TIMEOUT_S, Compiler, host_processor
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.identity import runtime_version
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.plan.types import Plan, Task
from pytest_shark_tune.search.facts import facts_of
from pytest_shark_tune.search_space.candidate import Candidate
from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import Cache, Kind, content_key, is_key
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.bundle_file import BINARY, BundleFile, open_bundle, write_bundle
from pytest_shark_tune.tuning.microbenchmarks import Microbenchmark
from pytest_shark_tune.tuning.session import Session

__all__ = ["BUNDLE", "Bundle", "Packed", "PackedCompiler", "check_machine", "pack", "read_bundle"]

BUNDLE = "bundle.tar"
"""The name of a bundle in the output directory."""
_SCHEMA: Final = 2


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of a bundle. The bundle's file has the binaries beside it, each under its key in the cache."""

    schema: Literal[2] = _SCHEMA
    versions: dict[str, str]
    """The versions of this package and of IREE."""
    target: Target
    """The target."""
    flags: tuple[str, ...]
    """The user's flags for the compiler."""
    identity: tuple[str, ...]
    """The compiler's identity."""
    rotate_bytes: int
    """Data is rotated through that much memory."""
    tests: dict[str, str]
    """The key of the plan of each test function, by the function's id."""
    plans: dict[str, Plan]
    """The plans by key, with the candidates that were compiled, or that the compiler refused."""
    builds: dict[str, Artifact]
    """The artifacts of these candidates, by key; ``vmfb`` is a name in the file."""
    microbenchmarks: tuple[Microbenchmark, ...] = msgspec.field(name="yardsticks")
    """The microbenchmarks; ``vmfb`` is a name in the file."""
    microbenchmarks_key: str = msgspec.field(name="yardsticks_key")
    """The key of the microbenchmarks in the cache."""
    digests: dict[str, str]
    """The SHA-256 of each binary, by its name in the file."""

    def plan_of(self, test: str) -> str:
        """The key of the plan of a test function. Directories above its file may have been renamed.

        Raises:
            InputError: the bundle was made without the test.
        """
        if test in self.tests:
            return self.tests[test]
        alike = {key for name, key in self.tests.items() if _ends_alike(name, test)}
        if len(alike) != 1:
            raise InputError(
                f"--tune-bundle: the bundle has nothing for {test}, only for {', '.join(sorted(self.tests))}: make one "
                "of this suite with --tune-stop-after compile"
            )
        return alike.pop()

    @property
    def digest(self) -> str:
        """A hash of everything in the bundle: the manifest has the digests of the binaries."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    def unpack(self, path: Path, cache: Cache) -> None:
        """Put the plans, and the binaries of the bundle's file at ``path``, into a cache of this run alone.

        The maker of the bundle chose the content of every key, so no other run may read it from a cache.

        Raises:
            InputError: the file is not whole, or a binary is not the one that was put into it.
        """
        with open_bundle(path) as file:
            for key, artifact in self.builds.items():
                unpacked = artifact
                if artifact.vmfb is not None:
                    binary = self._unpack(file, cache, "artifacts", artifact.vmfb)
                    unpacked = msgspec.structs.replace(artifact, vmfb=binary)
                cache.put("artifacts", key, unpacked)
            microbenchmarks = [
                msgspec.structs.replace(packed, vmfb=self._unpack(file, cache, "yardsticks", packed.vmfb))
                for packed in self.microbenchmarks
            ]
        if microbenchmarks:
            cache.put("yardsticks", self.microbenchmarks_key, microbenchmarks)
        for key, plan in self.plans.items():
            cache.put("plans", key, plan)

    def _unpack(self, file: BundleFile, cache: Cache, kind: Kind, name: str) -> str:
        binary = cache.file(kind, name.removesuffix(BINARY), BINARY)
        journal.replace_file(binary, file.binary(name, self.digests[name]))
        return os.fspath(binary)

    def why_refused(self, binaries: Collection[str]) -> str:
        """The reason for refusing the manifest as not one of ours; empty without one.

        ``binaries`` are the names of the binaries in the bundle's file.
        """
        keys = {*self.builds, *self.plans, *self.tests.values(), self.microbenchmarks_key}
        if bad := sorted(key for key in keys if not is_key(key)):
            return f"{bad[0]!r} is no key"
        for key, artifact in self.builds.items():
            if (artifact.vmfb is not None) != (artifact.state == "compiled"):
                return f"{key} is {artifact.state} and has {'a' if artifact.vmfb else 'no'} binary"
            if artifact.vmfb is not None and artifact.vmfb != f"{key}{BINARY}":
                return f"the binary of {key} is called {artifact.vmfb!r}"
            if artifact.vmfb is not None and artifact.sha256 != self.digests.get(artifact.vmfb):
                return f"{key} has two digests"
        named = {made.vmfb for made in self.builds.values() if made.vmfb is not None}
        named |= {packed.vmfb for packed in self.microbenchmarks}
        if not named == set(binaries) == set(self.digests):
            return "its file has other binaries than its manifest"
        if {"pytest-shark-tune", "iree-base-compiler"} - self.versions.keys() or not self.identity:
            return "it does not say which versions made it"
        if self.rotate_bytes < 0 or set(self.tests.values()) - self.plans.keys():
            return "its manifest contradicts itself"
        return ""


class PackedCompiler(Compiler):
    """Stands for the compiler that a bundle was made with, in names and keys; it compiles nothing."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.target, bundle.flags, timeout_s=COMPILE_TIMEOUT_S, tool="")
        self._bundle = bundle

    @property
    def version(self) -> str:
        """The version of the compiler that the bundle was made with."""
        return self._bundle.versions["iree-base-compiler"]

    @property
    def identity(self) -> tuple[str, ...]:
        """The identity of the compiler that the bundle was made with, so that its modules have the same keys here."""
        return self._bundle.identity

    def _compile(self, directory: Path, source: str, name: str, flags: Sequence[str]) -> tuple[Path, float]:
        raise CommandFailed(f"{name} is not in the bundle, and a run with --tune-bundle compiles nothing")


@dataclass(frozen=True)
class Packed:
    """The content of a bundle that was written."""

    path: Path
    """The path of its file."""
    dispatches: int
    """How many dispatches it has."""
    compiled: int
    """How many candidates with a binary it has."""
    failed: int
    """How many candidates that failed it has."""
    bytes: int
    """The size of its file."""

    def describe(self) -> str:
        """One line for the end of a run."""
        dispatches = "1 dispatch" if self.dispatches == 1 else f"{self.dispatches} dispatches"
        failed = f", {self.failed} that failed," if self.failed else ""
        return (
            f"bundle: {self.path}: {self.compiled} compiled candidates{failed} of {dispatches}, defaults included, "
            f"{self.bytes / 1e6:.1f} MB"
        )


def pack(
    path: Path,
    session: Session,
    plans: Mapping[str, Plan],
    *,
    tests: Mapping[str, str],
    tried: Collection[tuple[str, str]],
) -> Packed | None:
    """Write compiled candidates to a bundle.

    If the device's microbenchmarks cannot be compiled they are left out, and nothing is called impossible.

    Args:
        path: where the bundle goes.
        session: the session that compiled the candidates.
        plans: the plans, by key.
        tests: the key of each test function's plan.
        tried: the candidates that go in, as pairs of a dispatch's name and a candidate's id.

    Returns:
        The content of the bundle; ``None``, and no file, if no default is compiled.
    """
    packing = _Packing(session.builder, frozenset(tried))
    trimmed = {key: packing.trim(plan) for key, plan in plans.items()}
    new_keys = {key: content_key("packed", key, sorted(packing.artifacts)) for key in plans}
    path.unlink(missing_ok=True)
    if not packing.dispatches:
        return None
    compiler, microbenchmarks = session.compiler, session.microbenchmarks
    measures: list[Microbenchmark] = []
    with suppress(CommandFailed):
        measures = microbenchmarks.built()
    files = {f"{key}{BINARY}": Path(made.vmfb) for key, made in packing.artifacts.items() if made.vmfb is not None}
    files |= {Path(built.vmfb).name: Path(built.vmfb) for built in measures}
    bundle = Bundle(
        versions={
            "pytest-shark-tune": __version__,
            "iree-base-compiler": compiler.version,
            "iree-base-runtime": runtime_version(),
        },
        target=compiler.target,
        flags=compiler.flags,
        identity=compiler.identity,
        rotate_bytes=session.settings.rotate_bytes,
        tests={test: new_keys[key] for test, key in tests.items() if trimmed[key].tasks},
        plans={new_keys[key]: plan for key, plan in trimmed.items() if plan.tasks},
        builds={key: _as_member(key, artifact) for key, artifact in packing.artifacts.items()},
        microbenchmarks=tuple(msgspec.structs.replace(built, vmfb=Path(built.vmfb).name) for built in measures),
        microbenchmarks_key=microbenchmarks.built_key,
        digests={name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()},
    )
    write_bundle(path, msgspec.json.encode(bundle), files)
    made = [artifact for artifact in packing.candidates if artifact.vmfb is not None]
    return Packed(path, packing.dispatches, len(made), len(packing.candidates) - len(made), bytes=path.stat().st_size)


def read_bundle(path: Path) -> Bundle:
    """Read the manifest of the bundle at ``path``.

    Raises:
        InputError: it is no bundle, or this version of the package cannot use it.
    """
    with open_bundle(path) as file:
        binaries = file.binaries
        try:
            bundle = file.manifest(Bundle)
        except InputError as error:
            raise InputError(f"{path} is no bundle of this version of pytest-shark-tune: {error}") from error
    made_by = bundle.versions.get("pytest-shark-tune")
    if made_by != __version__:
        raise InputError(f"{path} was made by pytest-shark-tune {made_by}, this is {__version__}: make it anew")
    if why := bundle.why_refused(binaries):
        raise InputError(f"{path} is no bundle, or was changed: {why}")
    try:
        Target.parse(str(bundle.target))
    except InputError as error:
        raise InputError(f"{path} is no bundle: {error}") from error
    return bundle


def check_machine(bundle: Bundle) -> None:
    """Check that the bundle's binaries can run on this machine.

    Raises:
        InputError: the runtime is of another release than the compiler, or the processor is another one.
    """
    compiler = bundle.versions["iree-base-compiler"]
    if _release(compiler) != _release(runtime_version()):
        raise InputError(
            f"it was compiled by IREE {compiler} and the runtime here is {runtime_version()}: install "
            f"iree-base-runtime=={compiler}"
        )
    if bundle.target.architecture == "host" and bundle.identity[-1] != host_processor():
        raise InputError(
            f"it was compiled for the processor of the machine that made it ({bundle.target}), which is another than "
            "this one: name the processor of the machine that measures, as in --tune-target llvm-cpu:znver4"
        )


class _Packing:
    """Collects the content of a bundle."""

    def __init__(self, builder: Builder, tried: Collection[tuple[str, str]]) -> None:
        self._builder = builder
        self._tried = tried
        self.artifacts: dict[str, Artifact] = {}
        self.candidates: list[Artifact] = []
        self.dispatches = 0

    def trim(self, plan: Plan) -> Plan:
        """The plan with just the candidates that were compiled, and with the facts that a search needs."""
        tasks = tuple(found for task in plan.tasks if (found := self._trim_task(task)) is not None)
        self.dispatches += len(tasks)
        return msgspec.structs.replace(plan, tasks=tasks, kernels=())

    def _trim_task(self, task: Task) -> Task | None:
        default = self._artifacts(task, task.default)
        if not default or any(artifact.vmfb is None for artifact in default.values()):
            return None
        kept = []
        self._take(default)
        for candidate in task.candidates:
            tried = (task.name, candidate.id) in self._tried
            if tried and (found := self._artifacts(task, candidate)):
                self._take(found)
                kept.append(candidate)
        facts = facts_of(task.dispatch.root, task.dispatch.target, "")
        return msgspec.structs.replace(task, candidates=tuple(kept), facts=facts)

    def _artifacts(self, task: Task, candidate: Candidate) -> dict[str, Artifact]:
        """The candidate's artifacts by key, for each dispatch of the group; none if one of them is not known."""
        found = {}
        for member in task.dispatch.members:
            artifact = self._builder.known(member.module, candidate)
            if artifact is None:
                return {}
            found[self._builder.key(member.module, candidate)] = artifact
            if artifact.vmfb is None:  # A candidate that fails in one dispatch of the group is not tried in the others.
                break
        return found

    def _take(self, artifacts: Mapping[str, Artifact]) -> None:
        self.artifacts |= artifacts
        self.candidates.append(list(artifacts.values())[-1])


def _as_member(key: str, artifact: Artifact) -> Artifact:
    return artifact if artifact.vmfb is None else msgspec.structs.replace(artifact, vmfb=f"{key}{BINARY}")


def _ends_alike(one: str, other: str) -> bool:
    """Whether two ids of tests differ only in leading directories that one of them lacks."""
    shorter, longer = sorted((one, other), key=len)
    return longer.endswith(f"/{shorter}")


def _release(version: str) -> list[str]:
    return version.split(".")[:2]
