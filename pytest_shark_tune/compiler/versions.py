"""Other releases of IREE beside the installed one: where they are, and how they differ.

An installation is a directory of packages. Its compiler runs from there, and a process that has the directory first on
its path runs its runtime. Every difference between releases that this package meets is listed here:

- the maps of an attention, before 3.13: below, and `ops.sdpa` writes the form that all releases read;
- the spelling of pipelines, ordinals and root ops before 3.12, and the flag that marks root ops before 3.11: below;
- pipelines whose names begin with the backend, before 3.12: below, `dispatch.mlir.pipeline_name`, and
  `dispatch.foreign.trust`, which knows their class;
- bindings of linalg and of GPUs that cannot be imported together, before 3.12: `dispatch.mlir`;
- no attributes for knobs and no constraints ops, before 3.12: `search_space.constraints.knob`. Spaces on GPUs need the
  compiler's help, and are not there;
- no passes for pipelines written as text: `search_space.cpu.register_tiling` asks the compiler.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from pytest_shark_tune.compiler.compiler import Compiler, compiler_version
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import CommandFailed, InputError, UntestedReleaseWarning
from pytest_shark_tune.system import journal, process
from pytest_shark_tune.system.cache import file_digest
from pytest_shark_tune.system.cleanup import scratch_directory
from pytest_shark_tune.system.lock import hold_directory

__all__ = [
    "SUPPORTED",
    "Installation",
    "OtherCompiler",
    "as_installed",
    "child_environment",
    "find_installation",
    "release_of",
    "why_untested",
]

SUPPORTED: Final = ((3, 10), (3, 11), (3, 12), (3, 13))
"""The minor releases that are tested."""
_PACKAGES = ("iree-base-compiler", "iree-base-runtime")
_INSTALL_TIMEOUT_S, _ASK_TIMEOUT_S = 1800.0, 60.0
_SAME_ATTENTION = (3, 13)
"""Releases before write the maps of an attention among its other attributes."""
_SAME_SPELLING = (3, 12)
"""From this release on benchmark modules are written as here. See `_as_here` and `_as_there` for those before."""
_SAME_MARKS = (3, 11)
"""Releases before mark root ops by another flag, and the mark has no value."""
_MARK_FLAG = "--iree-config-add-tuner-attributes"
_MARK, _MARK_HERE = re.compile(r"(?<=[{ ,])root_op(?=[,}])"), "root_op = #iree_codegen.root_op<set = 0>"
_PIPELINE = re.compile(r"(?<=\bpipeline = )(?:(CPU|LLVMGPU|SPIRV)(\w+)|(Mmt4dTilingExpert)\b)")
_PIPELINE_HERE = re.compile(r"#iree_(cpu|gpu|spirv)\.pipeline<(\w+)>")
_LISTS = {"CPU": "cpu", "LLVMGPU": "gpu", "SPIRV": "spirv"}
"""How the names of pipelines begin, and the dialect that has lists them since."""
_ATTENTION = re.compile(r"(iree_linalg_ext\.(?:online_)?attention) \{([^\n]*?)(indexing_maps = \[[^\]\n]*\])(, |\})")
_ATTENTION_HERE = re.compile(r"(iree_linalg_ext\.(?:online_)?attention) <(indexing_maps = \[[^\]\n]*\])>( \{)?")
_ORDINAL = re.compile(r"(?P<name>%[\w$.-]+) = hal\.executable\.export\.ordinal target\((?P<symbol>[^)]*)\) : index")
_ORDINAL_HERE = re.compile(r"(?P<name>%[\w$.-]+) = arith\.constant \{shark_tune\.ordinal = (?P<symbol>[^}]*)\} 0 : i64")
_ASK = """
import importlib.metadata, json, os, sys
import iree.compiler, iree.runtime
root = lambda module: os.path.dirname(os.path.dirname(list(module.__path__)[0]))
print(json.dumps({
    "version": importlib.metadata.version("iree-base-compiler"),
    "compiler": root(iree.compiler), "runtime": root(iree.runtime), "python": list(sys.version_info[:2]),
}))
"""


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """A release of IREE in a directory: the compiler and its runtime."""

    name: str
    """The name that the user gave: ``iree==3.12.0``, the name of a wheel, or the path of a Python."""
    version: str
    directory: str
    """The directory that has the package ``iree``."""

    @property
    def release(self) -> tuple[int, int]:
        """The minor release."""
        return release_of(self.version)

    def tool(self, name: str) -> str:
        """Return the path of one of the compiler's commands.

        Raises:
            InputError: it has none of that name.
        """
        path = Path(self.directory, "iree", "compiler", "_mlir_libs", name)
        if not path.exists():
            raise InputError(f"{self.name} has no {name} in {path.parent}: install iree-base-compiler there again")
        return os.fspath(path)


class _Asked(msgspec.Struct, frozen=True):
    """The answer of another Python."""

    version: str
    compiler: str
    runtime: str
    python: tuple[int, int]


def release_of(version: str) -> tuple[int, int]:
    """Return the minor release of a version such as ``3.12.0`` or ``3.14.0rc20261101``.

    Raises:
        InputError: it is no version.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise InputError(f"{version!r} is no version of IREE, such as 3.12.0")
    return int(found[1]), int(found[2])


def find_installation(given: str, directory: Path) -> Installation:
    """Find or install a release of IREE.

    Args:
        given: ``iree==VERSION``, the path of a wheel of the compiler with the runtime's beside it, or the path of a
            Python that has both.
        directory: releases that pip installs are kept here.

    Raises:
        InputError: there is no such release, or it cannot be used here.
    """
    name, _, version = given.partition("==")
    if version and name in ("iree", *_PACKAGES):
        release_of(version)
        packages = [f"{package}=={version}" for package in _PACKAGES]
        found = _installed(given, version, packages, directory / version)
    elif given.endswith(".whl"):
        found = _from_wheels(given, directory)
    else:
        found = _from_python(given)
    if why := why_untested(found.version):
        warnings.warn(UntestedReleaseWarning(why), stacklevel=2)
    return found


def why_untested(version: str) -> str:
    """Return the message about a release that is not tested, and is tried all the same; empty for the others."""
    if release_of(version) in SUPPORTED:
        return ""
    tested = ", ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
    return f"IREE {version} is tried, but only {tested} are tested"


def _from_wheels(given: str, directory: Path) -> Installation:
    wheel = Path(given)
    if not wheel.is_file():
        raise InputError(f"there is no wheel {given}")
    _, _, rest = wheel.name.partition("-")
    version = rest.partition("-")[0]
    release_of(version)
    beside = sorted(wheel.parent.glob(f"iree_base_runtime-{version}-*.whl"))
    if not beside:
        raise InputError(
            f"{given}: put iree-base-runtime's wheel of version {version} beside it, since both belong together"
        )
    digest = "-".join(file_digest(path)[:12] for path in (wheel, beside[0]))
    return _installed(wheel.name, version, [os.fspath(wheel), os.fspath(beside[0])], directory / f"{version}-{digest}")


def _from_python(given: str) -> Installation:
    try:
        done = process.run([given, "-c", _ASK], timeout_s=_ASK_TIMEOUT_S)
        asked = msgspec.json.decode(done.stdout, type=_Asked)
    except CommandFailed as error:
        why = error.stderr.strip().splitlines()[-1:] or [str(error)]
        raise InputError(
            f"{given} is neither iree==VERSION, a wheel nor a Python with iree-base-compiler and iree-base-runtime: "
            f"{why[0]}"
        ) from error
    except msgspec.DecodeError as error:
        raise InputError(f"{given}: its answer is not understood: {error}") from error
    if asked.python != sys.version_info[:2]:
        own, other = (".".join(map(str, version)) for version in (sys.version_info[:2], asked.python))
        raise InputError(f"{given} is Python {other}, and this is Python {own}: make the environment with Python {own}")
    if asked.compiler != asked.runtime:
        raise InputError(
            f"{given}: its compiler lies in {asked.compiler} and its runtime in {asked.runtime}: install both in one "
            "environment"
        )
    return Installation(name=given, version=asked.version, directory=asked.compiler)


def _installed(name: str, version: str, packages: Sequence[str], directory: Path) -> Installation:
    """The installation of packages in a directory; pip makes it if it is not there.

    This process holds the directory until it ends, so that no other one removes it from the cache.
    """
    while not hold_directory(directory):
        made = directory.with_name(f".{directory.name}.{os.getpid()}")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        hold_directory(made)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        try:
            process.run([*command, os.fspath(made), *packages], timeout_s=_INSTALL_TIMEOUT_S)
        except CommandFailed as error:
            shutil.rmtree(made, ignore_errors=True)
            why = [line for line in error.stderr.splitlines() if line.startswith("ERROR")] or [str(error)]
            raise InputError(f"{name} cannot be installed: {why[-1]}") from error
        try:
            made.rename(directory)
        except OSError:  # Another run was faster.
            shutil.rmtree(made, ignore_errors=True)
    with suppress(OSError):  # It belongs to another user.
        os.utime(directory)
    return Installation(name=name, version=version, directory=os.fspath(directory))


def child_environment(installation: Installation, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment in which a child of this Python runs the runtime of an installation."""
    inherited = env.get("PYTHONPATH")
    return {**env, "PYTHONPATH": os.pathsep.join(filter(None, (installation.directory, inherited)))}


class OtherCompiler(Compiler):
    """The compiler of another release, as far as models are compiled untuned and their dispatches are found."""

    def __init__(self, installation: Installation, target: Target, flags: Sequence[str] = ()) -> None:
        super().__init__(target, flags, tool=installation.tool("iree-compile"))
        self.installation = installation
        self._tools = installation.tool
        if installation.release < _SAME_MARKS:
            self._mark_roots = _MARK_FLAG

    @property
    def version(self) -> str:
        """The version of the compiler's package."""
        return self.installation.version

    @property
    def identity(self) -> tuple[str, ...]:
        """Everything that determines the code beside the source."""
        library = Path(self.installation.tool("libIREECompiler.so")).stat()
        return (*super().identity, self.version, self.installation.directory, str(library.st_mtime_ns))

    def as_written(self, text: str) -> str:
        """Return the text of a module as the other release writes it, so that its iree-compile takes it."""
        return _as_there(_as_here(text, release_of(compiler_version())), self.installation.release)

    def lower(self, source: str, *, to: str, since: str = "", name: str = "module", flags: Sequence[str] = ()) -> str:
        """Compile to a phase, as `Compiler.lower` does. Both texts are as the installed release writes them."""
        made = super().lower(self.as_written(source), to=to, since=since, name=name, flags=flags)
        return self._as_installed(made)

    def compile_sources(self, text: str, out: Path, name: str = "dispatch") -> float:
        """Compile a module, as `Compiler.compile_sources` does. The text is as the installed release writes it."""
        return super().compile_sources(self.as_written(text), out, name)

    def _dump_benchmarks(self, directory: Path, source: str, name: str, flags: Sequence[str]) -> list[str]:
        texts = super()._dump_benchmarks(directory, self.as_written(source), name, flags)
        return [self._as_installed(text) for text in texts]

    def _as_installed(self, text: str) -> str:
        return as_installed(_as_here(text, self.installation.release))

    def compile_model(self, text: str, out: Path, name: str) -> None:
        """Compile a whole model as it is.

        Raises:
            CommandFailed: the compiler fails.
        """
        with scratch_directory() as directory:
            made, _ = self._compile(directory, text, name, [])
            journal.replace_file(out, made.read_bytes())


def as_installed(text: str) -> str:
    """Return the text of an attribute or a spec, in this package's spelling, as the installed release writes it."""
    return _as_there(text, release_of(compiler_version()))


def _as_here(text: str, release: tuple[int, int]) -> str:
    """Return the text of another release's module as the newest supported release writes it.

    Since 3.12 a function is looked up where an ordinal was. A constant stands for that until `_as_there` puts it back.
    Since then the backends have lists of pipelines of their own, too.
    """
    if release >= _SAME_ATTENTION:
        return text
    text = _ATTENTION.sub(_attention_here, text)
    if release >= _SAME_SPELLING:
        return text
    text = _ORDINAL.sub(r"\g<name> = arith.constant {shark_tune.ordinal = \g<symbol>} 0 : i64", text)
    text = _PIPELINE.sub(lambda found: f"#iree_{_LISTS[found[1] or 'CPU']}.pipeline<{found[2] or found[3]}>", text)
    return _MARK.sub(_MARK_HERE, text) if release < _SAME_MARKS else text


def _as_there(text: str, release: tuple[int, int]) -> str:
    """Return the text of a module as another release writes it: the inverse of `_as_here`."""
    if release >= _SAME_ATTENTION:
        return text
    text = _ATTENTION_HERE.sub(lambda found: f"{found[1]} {{{found[2]}{', ' if found[3] else '}'}", text)
    if release >= _SAME_SPELLING:
        return text
    text = _ORDINAL_HERE.sub(r"\g<name> = hal.executable.export.ordinal target(\g<symbol>) : index", text)
    text = _PIPELINE_HERE.sub(lambda found: _old_pipeline(*found.groups()), text)
    return text.replace(_MARK_HERE, "root_op") if release < _SAME_MARKS else text


def _attention_here(found: re.Match[str]) -> str:
    op, before, maps, after = found.groups()
    rest = before.removesuffix(", ") if after == "}" else before
    return f"{op} <{maps}> {{{rest}{'}' if after == '}' else ''}"


def _old_pipeline(dialect: str, name: str) -> str:
    prefix = next(prefix for prefix, known in _LISTS.items() if known == dialect)
    return name if name.startswith("Mmt4d") else f"{prefix}{name}"
