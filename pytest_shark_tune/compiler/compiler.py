"""The one door to the IREE compiler's commands, for every target."""

from __future__ import annotations

import atexit
import copy
import errno
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path

from pytest_shark_tune.compiler.flag_files import FlagFile, changed_files, flag_files
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.system import journal, process
from pytest_shark_tune.system.cleanup import scratch_folder
from pytest_shark_tune.system.cpu import cpu_identity, is_model_name
from pytest_shark_tune.system.folders import HeldFolder

__all__ = [
    "COMPILE_TIMEOUT_S",
    "MODEL_TIMEOUT_S",
    "Compiler",
    "compiler_version",
    "describe_host",
    "environment",
    "first_error",
    "host_processor",
    "why_rejected",
]

_CRASH = "Please report issues"
"""What the compiler's stderr begins with, before the stack, where it crashed."""
COMPILE_TIMEOUT_S = 120.0
"""The most time that the compiler may take for a candidate, unless the user says more or less."""
MODEL_TIMEOUT_S = 1800.0
"""The least that it may take for a whole model, of which there is one, where candidates are many."""
_LINKER_VARIABLE = "IREE_LLVM_EMBEDDED_LINKER_PATH"
_MEMORY_BYTES = 16 << 30
_MODEL_NAME = "model name"
_PLAIN_FOLDER = "/tmp"  # noqa: S108 - where a folder of our own is made
_SMALLEST = """
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = math.absf %x : tensor<4xf32>
  return %y : tensor<4xf32>
}
"""


@cache  # Looking it up takes milliseconds, and every record and key has it.
def compiler_version() -> str:
    """The version of the installed compiler package (``3.13.0``)."""
    return importlib.metadata.version("iree-base-compiler")


class Compiler:
    """iree-compile and iree-opt for one target, with the user's flags, a time-out and a memory limit.

    ``timeout_option`` is what a user gives a model more time with, if there is such an option.
    """

    def __init__(
        self,
        target: Target,
        flags: Sequence[str] = (),
        *,
        timeout_s: float = COMPILE_TIMEOUT_S,
        memory_bytes: int | None = _MEMORY_BYTES,
        timeout_option: str = "",
        tool: str | None = None,
    ) -> None:
        self.target = target
        self.flags = tuple(flags)
        self.timeout_s = timeout_s
        self.memory_bytes = memory_bytes
        self._timeout_option = timeout_option
        self._remedy = ""
        self._iree_compile = tool if tool is not None else _find_tool("iree-compile")

    @property
    def version(self) -> str:
        """The version of the compiler's package."""
        return compiler_version()

    @property
    def identity(self) -> tuple[str, ...]:
        """All that decides, beside the source, what code comes out: two equal ones make equal code."""
        # Late, because every run of pytest imports this module with the options, and the bindings come with it.
        from iree.compiler.version import REVISIONS

        host = host_processor() if self.target.architecture == "host" else ""
        read = [f"{file.name}={file.sha256}" for file in self.flag_files]
        return (compiler_version(), REVISIONS["IREE"], *self.target.flags, *self.flags, *read, host)

    @cached_property
    def flag_files(self) -> tuple[FlagFile, ...]:
        """The files that the user's flags name, as they were when this was first asked for."""
        return flag_files(self.flags)

    @cached_property
    def for_models(self) -> Compiler:
        """The same for whole models: they take longer than a dispatch of theirs, and as much memory as they need."""
        whole = copy.copy(self)
        whole.timeout_s = max(self.timeout_s, MODEL_TIMEOUT_S)
        whole.memory_bytes = None
        if self._timeout_option:
            whole._remedy = f"{self._timeout_option} gives it more than that"
        return whole

    def check(self) -> None:
        """Compile an empty module, so that a wrong target or flag is told before anything else is done.

        Raises:
            InputError: iree-compile refuses the target or one of the user's flags.
        """
        try:
            self.lower(_SMALLEST, to="executable-targets")
        except CommandFailed as error:
            flags = f" with {shlex.join(self.flags)}" if self.flags else ""
            raise InputError(f"iree-compile does not take target {self.target}{flags}: {first_error(error)}") from error

    def dump_benchmarks(self, source: str, name: str) -> list[str]:
        """Return the executable benchmark modules of ``source``, each with ``root_op`` marked.

        They are dumped once configs are chosen, and are the same whether or not code is made of them afterwards.

        Raises:
            CommandFailed: iree-compile rejects the source, which messages call ``name``.
        """
        with scratch_folder() as folder:
            dump = folder / "benchmarks"
            dump.mkdir()
            self._compile(
                folder,
                source,
                name,
                [
                    "--compile-to=executable-configurations",
                    "--iree-codegen-add-tuner-attributes",
                    f"--iree-hal-dump-executable-benchmarks-to={dump}",
                ],
            )
            return [path.read_text(encoding="utf-8") for path in sorted(dump.glob("*.mlir"), key=_natural_order)]

    def lower(self, source: str, *, to: str, since: str = "", name: str = "module", flags: Sequence[str] = ()) -> str:
        """Return the text of ``source`` compiled to phase ``to`` (``flow``, ``executable-sources``, …).

        ``since`` is the phase that ``source`` already went through.

        Raises:
            CommandFailed: iree-compile rejects the source, which messages call ``name``.
        """
        phases = [f"--compile-to={to}", *([f"--compile-from={since}"] if since else [])]
        with scratch_folder() as folder:
            out, _ = self._compile(folder, source, name, [*phases, *flags])
            return out.read_text(encoding="utf-8")

    def opt(self, text: str, *flags: str, name: str = "module") -> str:
        """Return what iree-opt makes of a module with these flags (``--pass-pipeline=builtin.module(...)``, ...).

        Raises:
            CommandFailed: iree-opt rejects a flag or the module, which messages call ``name``, or runs out of time.
        """
        try:
            # With threads IREE's pipelines now and then wait for themselves on several executables.
            return process.run(
                [_find_tool("iree-opt"), "-", "--mlir-disable-threading", *flags],
                timeout_s=self.timeout_s,
                stdin=text,
                memory_bytes=self.memory_bytes,
                env=environment(),
            ).stdout
        except CommandFailed as error:
            error.stderr = error.stderr.replace("<stdin>:", f"{name}:")
            raise

    def configure_by_flag(self, sources: str, spec: str, *, name: str = "module") -> str:
        """Return a module at ``executable-sources`` configured, with iree-compile itself loading the spec.

        Only llvm-cpu and ROCm load specs (``target.loads_specs``); elsewhere the configs are the defaults.

        Raises:
            CommandFailed: iree-compile rejects the module, which messages call ``name``, or the spec.
        """
        with scratch_folder() as folder:
            path = folder / "spec.mlir"
            path.write_text(spec, encoding="utf-8")
            # With threads the compiler now and then waits for itself while it loads a spec, and never ends.
            flags = [f"--iree-codegen-tuning-spec-path={path}", "--mlir-disable-threading"]
            return self.lower(
                sources, to="executable-configurations", since="executable-sources", name=name, flags=flags
            )

    def compile_sources(self, text: str, out: Path, name: str = "dispatch") -> float:
        """Compile a module that went through ``executable-sources`` to ``out``; return the seconds it took.

        Benchmark modules enter here too: entering earlier creates their dispatches again, and convolutions
        with a unit dimension then lose ``root_op`` and their config without a word.

        Raises:
            CommandFailed: iree-compile fails, runs out of time or of memory.
            InputError: a file that the user's flags name changed meanwhile.
        """
        with scratch_folder() as folder:
            made, seconds = self._compile(folder, text, name, ["--compile-from=executable-sources"])
            journal.replace_file(out, made.read_bytes())
            return seconds

    def _compile(self, folder: Path, source: str, name: str, flags: Sequence[str]) -> tuple[Path, float]:
        # The source goes in by stdin: a path would be kept in the binary, and equal code would differ.
        out = folder / "out"
        read = self.flag_files
        try:
            done = process.run(
                [self._iree_compile, "-", *flags, *self.target.flags, *self.flags, "-o", os.fspath(out)],
                timeout_s=self.timeout_s,
                stdin=source,
                memory_bytes=self.memory_bytes,
                env=environment(),
            )
        except CommandFailed as error:
            _refuse_changed(read)
            if (full := os.strerror(errno.ENOSPC)) in error.stderr:  # Which says nothing of the source.
                raise OSError(errno.ENOSPC, full, os.fspath(folder)) from error
            error.stderr = error.stderr.replace("<stdin>:", f"{name}:")
            if error.timed_out and self._remedy:
                raise CommandFailed(f"{error}: {self._remedy}", stderr=error.stderr, timed_out=True) from error
            raise
        _refuse_changed(read)
        return out, done.seconds


def _refuse_changed(files: Sequence[FlagFile]) -> None:
    """Refuse what was made of another content than its key says.

    Raises:
        InputError: one of ``files`` was changed.
    """
    if changed := changed_files(files):
        raise InputError(
            f"{', '.join(changed)}, which --iree-compile-flag names, changed while this run was at work: start it again"
        )


def first_error(error: CommandFailed) -> str:
    """The line of the compiler's stderr that tells what is wrong, else the exception's message."""
    if line := next((line for line in error.lines if "error:" in line), ""):
        return line
    return str(error) if error.timed_out or error.lines[0].startswith(_CRASH) else error.lines[0]


def why_rejected(error: CommandFailed) -> str:
    """Why iree-compile does not compile a source, in words."""
    return str(error) if error.timed_out else f"iree-compile rejects it: {first_error(error)}"


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """Sorts ``dispatch_2`` before ``dispatch_10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


@cache
def host_processor() -> str:
    """What ``host`` stands for: the processor's model and features."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return describe_host(text)


def describe_host(cpuinfo: str) -> str:
    """The lines of ``/proc/cpuinfo`` that tell what code for ``host`` may use.

    Where none of them names a model, what else identifies it is added.
    """
    lines = {line for line in cpuinfo.splitlines() if line.startswith((_MODEL_NAME, "flags", "Features"))}
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(_MODEL_NAME)]
    if not names or not all(map(is_model_name, names)):
        lines.add(cpu_identity(cpuinfo))
    return "\n".join(sorted(lines))


@cache
def environment() -> Mapping[str, str]:
    """The environment for IREE's compiler, with no path in it that its linker's command line breaks on.

    IREE 3.13 hands the paths of its linker and of temporary files to a shell without quotes, so that nothing links
    for llvm-cpu in an environment, or with a TMPDIR, whose path has a blank in it.
    """
    env = dict(os.environ)
    linker = Path(_find_tool("iree-lld"))
    if _needs_quotes(linker) and _LINKER_VARIABLE not in env:
        folder = HeldFolder(_PLAIN_FOLDER)
        atexit.register(folder.remove)
        link = folder.path / linker.name
        link.symlink_to(linker)
        env[_LINKER_VARIABLE] = os.fspath(link)
    if _needs_quotes(Path(tempfile.gettempdir())):
        env["TMPDIR"] = _PLAIN_FOLDER
    return env


def _needs_quotes(path: Path) -> bool:
    return shlex.quote(os.fspath(path)) != os.fspath(path)


def _find_tool(name: str) -> str:
    """The command inside the installed ``iree.compiler``: its console scripts need not be on PATH."""
    spec = importlib.util.find_spec("iree.compiler")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the IREE compiler is not installed: python -m pip install iree-base-compiler")
    for root in spec.submodule_search_locations:
        path = Path(root, "_mlir_libs", name)
        if path.exists():
            return os.fspath(path)
    raise InputError(f"the installed iree.compiler has no {name}: install iree-base-compiler again")
