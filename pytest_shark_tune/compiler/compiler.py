"""The only module that calls the IREE compiler's commands, for every target."""

from __future__ import annotations

import atexit
import copy
import errno
import importlib.metadata
import importlib.util
import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path

from pytest_shark_tune.compiler.flag_files import FlagFile, changed_files, flag_files
from pytest_shark_tune.compiler.flags import SPEC_FLAG
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.errors import CommandFailed, InputError
from pytest_shark_tune.system import journal, process
from pytest_shark_tune.system.cleanup import scratch_directory
from pytest_shark_tune.system.cpu import cpu_identity, is_model_name
from pytest_shark_tune.system.directories import HeldDirectory, temporary_directory
from pytest_shark_tune.system.files import MODEL_BYTES, read_plain

__all__ = [
    "COMPILE_TIMEOUT_S",
    "MODEL_TIMEOUT_S",
    "Compiler",
    "compiler_version",
    "describe_host",
    "environment",
    "first_error",
    "host_processor",
    "installation_of",
]

_CRASH = "Please report issues"
"""The beginning of the line in the compiler's stderr after a crash that stands before the stack."""
_OUT = "out"
"""The name of the file that the compiler writes."""
COMPILE_TIMEOUT_S = 120.0
"""The time that the compiler may take for a candidate by default."""
MODEL_TIMEOUT_S = 1800.0
"""The time that it may take for a whole model, at least: there is one model, but many candidates."""
_FEATURES_FLAG = "--iree-llvmcpu-target-cpu-features"
_KILLED = frozenset({"SIGHUP", "SIGINT", "SIGKILL", "SIGTERM", "SIGXCPU"})
"""Signals that come from outside: a compiler that crashes ends by others."""
_LINKER_VARIABLE = "IREE_LLVM_EMBEDDED_LINKER_PATH"
_MEMORY_BYTES = 16 << 30
_MODEL_NAME = "model name"
_PLAIN_DIRECTORY = "/tmp"  # noqa: S108 - a directory of our own is made in it
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
    """iree-compile and iree-opt for one target.

    Args:
        target: The target.
        flags: The user's flags for iree-compile.
        timeout_s: The number of seconds that a command may take.
        memory_bytes: The memory that a command may take.
        timeout_option: The option that gives a model more time, if there is one, for messages.
        tool: The path of another iree-compile.
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
        self._with_flags: dict[tuple[str, ...], Compiler] = {}
        self._tools: Callable[[str], str] = _find_tool
        self.tool = tool if tool is not None else _find_tool("iree-compile")
        """The path of iree-compile."""
        self._mark_roots = "--iree-codegen-add-tuner-attributes"

    @property
    def version(self) -> str:
        """The version of the compiler's package."""
        return compiler_version()

    @property
    def identity(self) -> tuple[str, ...]:
        """Everything that determines the code beside the source. Equal identities make equal code."""
        # Late: every run of pytest imports this module with the options, and the bindings would come with it.
        from iree.compiler.version import REVISIONS

        host = host_processor() if self.target.architecture == "host" else ""
        read = [f"{file.name}={file.sha256}" for file in self.flag_files]
        return (compiler_version(), REVISIONS["IREE"], *self.target.flags, *self.flags, *read, host)

    @cached_property
    def flag_files(self) -> tuple[FlagFile, ...]:
        """The files that the user's flags name, with their state at the first use."""
        return flag_files(self.flags)

    @cached_property
    def for_models(self) -> Compiler:
        """The same compiler for whole models, which may take more time than a dispatch, and any memory."""
        whole = copy.copy(self)
        whole._with_flags = {}
        whole.timeout_s = max(self.timeout_s, MODEL_TIMEOUT_S)
        whole.memory_bytes = None
        if self._timeout_option:
            whole._remedy = f"{self._timeout_option} gives it more than that"
        return whole

    def with_flags(self, flags: Sequence[str]) -> Compiler:
        """The same compiler with more flags, before the user's; one object for equal flags."""
        if not flags:
            return self
        key = tuple(flags)
        if key not in self._with_flags:
            self._with_flags[key] = self._retargeted(self.target, (*key, *self.flags))
        return self._with_flags[key]

    @cached_property
    def host_cpu(self) -> tuple[str, str]:
        """The CPU that ``host`` stands for, and its features; both empty if the target names one, or is a GPU.

        Raises:
            CommandFailed: the compiler fails.
        """
        if self.target.architecture != "host":
            return "", ""
        from pytest_shark_tune.dispatch.target_facts import cpu_of

        return cpu_of(self.lower(_SMALLEST, to="executable-sources"))

    def for_cpu(self, cpu: str, features: str) -> Compiler:
        """The same compiler for a CPU by name in place of ``host``, with which no flag may choose features."""
        return self._retargeted(Target("llvm-cpu", cpu), (*self.flags, f"{_FEATURES_FLAG}={features}"))

    def _retargeted(self, target: Target, flags: Sequence[str]) -> Compiler:
        """The same compiler for another target, with other flags of the user's."""
        other = copy.copy(self)
        for name in ("for_models", "flag_files", "host_cpu"):
            other.__dict__.pop(name, None)
        other.target, other.flags, other._with_flags = target, tuple(flags), {}
        return other

    def check(self) -> None:
        """Compile an empty module, so that a wrong target or flag is reported before all other work.

        Raises:
            InputError: iree-compile refuses the target or one of the user's flags, or something ended it.
        """
        try:
            self.lower(_SMALLEST, to="executable-targets")
        except CommandFailed as error:
            if error.ended_by in _KILLED:
                raise InputError(
                    f"iree-compile was ended by {error.ended_by} when it was tried on an empty module: something else "
                    "than the compiler ended it, for example the system for lack of memory; start the run again"
                ) from error
            flags = f" with {shlex.join(self.flags)}" if self.flags else ""
            raise InputError(f"iree-compile does not take target {self.target}{flags}: {first_error(error)}") from error

    def dump_benchmarks(self, source: str, name: str, *, since: str = "") -> list[str]:
        """Dump the executable benchmark modules of ``source``, with ``root_op`` marks.

        The compiler dumps them when it has chosen configs. They do not depend on the code that it makes afterwards. It
        would name files after functions of the model, which may have any name, so it prints them.

        Args:
            source: The text of the model.
            name: Its name in messages.
            since: The phase that ``source`` has gone through.

        Raises:
            CommandFailed: iree-compile rejects the source.
        """
        with scratch_directory() as directory:
            from_phase = [f"--compile-from={since}"] if since else []
            return self._dump_benchmarks(directory, source, name, from_phase)

    def dump_phases(self, source: str, name: str, *phases: str) -> tuple[list[str], list[str]]:
        """Dump the executable benchmark modules of ``source``, and its text after each of some phases.

        One command for all of them is cheaper than one for each, as long as the source is small: the compiler writes
        the text of every phase.

        Args:
            source: The text of the model.
            name: Its name in messages.
            phases: The phases, as for `lower`.

        Raises:
            CommandFailed: iree-compile rejects the source.
        """
        with scratch_directory() as directory:
            dump = directory / "phases"
            dump.mkdir()
            benchmarks = self._dump_benchmarks(directory, source, name, [f"--dump-compilation-phases-to={dump}"])
            return benchmarks, [_made(path).decode() for phase in phases for path in dump.glob(f"*.{phase}.mlir")]

    def _dump_benchmarks(self, directory: Path, source: str, name: str, flags: Sequence[str]) -> list[str]:
        options = [self._mark_roots, "--iree-hal-dump-executable-benchmarks-to=-", *flags]
        done = self._run(directory, source, name, ["--compile-to=executable-configurations", *options])
        return _modules_in(done.stdout)

    def lower(self, source: str, *, to: str, since: str = "", name: str = "module", flags: Sequence[str] = ()) -> str:
        """Compile ``source`` to a phase, and return the text.

        Args:
            source: The text of the module.
            to: The phase (``flow``, ``executable-sources``, …).
            since: The phase that ``source`` has gone through.
            name: The name of the module in messages.
            flags: More flags.

        Raises:
            CommandFailed: iree-compile rejects the source.
        """
        phases = [f"--compile-to={to}", *([f"--compile-from={since}"] if since else [])]
        with scratch_directory() as directory:
            out, _ = self._compile(directory, source, name, [*phases, *flags])
            return _made(out).decode()

    def opt(self, text: str, *flags: str, name: str = "module") -> str:
        """Run iree-opt with some flags (``--pass-pipeline=builtin.module(...)``, ...) on a module.

        Returns:
            The text of the new module.

        Raises:
            CommandFailed: iree-opt rejects a flag or the module, or runs out of time. Messages call the module
                ``name``.
        """
        try:
            # With threads, IREE's pipelines sometimes deadlock on several executables.
            return process.run(
                [self._tools("iree-opt"), "-", "--mlir-disable-threading", *flags],
                timeout_s=self.timeout_s,
                stdin=text,
                memory_bytes=self.memory_bytes,
                env=environment(),
            ).stdout
        except CommandFailed as error:
            error.stderr = error.stderr.replace("<stdin>:", f"{name}:")
            raise

    def configure_by_flag(self, sources: str, spec: str, *, name: str = "module") -> str:
        """Configure a module at ``executable-sources`` by iree-compile's own flag for specs.

        Only llvm-cpu and ROCm load specs (``target.loads_specs``). On other targets all configs are the defaults.

        Returns:
            The text of the configured module.

        Raises:
            CommandFailed: iree-compile rejects the module or the spec. Messages call the module ``name``.
        """
        with scratch_directory() as directory:
            path = directory / "spec.mlir"
            path.write_text(spec, encoding="utf-8")
            # With threads, the compiler sometimes deadlocks while it loads a spec.
            flags = [f"{SPEC_FLAG}={path}", "--mlir-disable-threading"]
            return self.lower(
                sources, to="executable-configurations", since="executable-sources", name=name, flags=flags
            )

    def compile_sources(self, text: str, out: Path, name: str = "dispatch") -> float:
        """Compile a module that has gone through ``executable-sources``.

        Benchmark modules start here too. An earlier phase would create their dispatches again, and convolutions with a
        unit dimension would then lose ``root_op`` and their config without a message.

        Args:
            text: The text of the module.
            out: The path of the binary.
            name: The name of the module in messages.

        Returns:
            The seconds that it took.

        Raises:
            CommandFailed: iree-compile fails, or runs out of time or memory.
            InputError: a file that the user's flags name changed meanwhile.
        """
        with scratch_directory() as directory:
            made, seconds = self._compile(directory, text, name, ["--compile-from=executable-sources"])
            journal.replace_file(out, _made(made))
            return seconds

    def compile_module(self, text: str, out: Path, name: str, flags: Sequence[str] = ()) -> None:
        """Compile a module of functions on tensors.

        Args:
            text: The text of the module.
            out: The path of the binary.
            name: The name of the module in messages.
            flags: More flags.

        Raises:
            CommandFailed: iree-compile fails, or runs out of time or memory.
        """
        with scratch_directory() as directory:
            made, _ = self._compile(directory, text, name, flags)
            journal.replace_file(out, _made(made))

    def _compile(self, directory: Path, source: str, name: str, flags: Sequence[str]) -> tuple[Path, float]:
        done = self._run(directory, source, name, flags)
        return directory / _OUT, done.seconds

    def _run(self, directory: Path, source: str, name: str, flags: Sequence[str]) -> process.Completed:
        # The source goes in by stdin, as the binary would hold its path, and equal code would differ.
        out = directory / _OUT
        read = self.flag_files
        # A compiler that is killed leaves the files that it was linking, so these lie where they are removed.
        env = environment() if _needs_quotes(directory) else {**environment(), "TMPDIR": os.fspath(directory)}
        try:
            done = process.run(
                [self.tool, "-", *flags, *self.target.flags, *self.flags, "-o", os.fspath(out)],
                timeout_s=self.timeout_s,
                stdin=source,
                memory_bytes=self.memory_bytes,
                env=env,
            )
        except CommandFailed as error:
            _refuse_changed(read)
            if (full := os.strerror(errno.ENOSPC)) in error.stderr:  # The source is not the reason.
                raise OSError(errno.ENOSPC, full, os.fspath(directory)) from error
            error.stderr = error.stderr.replace("<stdin>:", f"{name}:")
            if error.timed_out and self._remedy:
                raise CommandFailed(f"{error}: {self._remedy}", stderr=error.stderr, timed_out=True) from error
            raise
        _refuse_changed(read)
        return done


def _made(path: Path) -> bytes:
    """The content of a file that the compiler made.

    Raises:
        CommandFailed: it is missing, empty or no file.
    """
    try:
        content = read_plain(path, MODEL_BYTES)
        problem = "" if content else "is empty"
    except FileNotFoundError:
        problem = "is missing"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    if problem:
        raise CommandFailed(f"iree-compile exited with status 0, and its output {problem}")
    return content


def _refuse_changed(files: Sequence[FlagFile]) -> None:
    """Refuse a binary if files of the flags changed, as its key is made of their earlier content.

    Raises:
        InputError: one of ``files`` changed.
    """
    if changed := changed_files(files):
        raise InputError(
            f"{', '.join(changed)}, which --iree-compile-flag names, changed while this run was at work: start it again"
        )


def installation_of(compiler: Compiler) -> tuple[str | int | float | None, ...]:
    """Return everything that determines whether `Compiler.check` passes: the identity, the program and the limits.

    Raises:
        InputError: a file that a flag names cannot be read.
        OSError: there is no such program.
    """
    found = Path(compiler.tool).stat()
    limits = compiler.timeout_s, compiler.memory_bytes
    return (*compiler.identity, compiler.tool, found.st_size, found.st_mtime_ns, *limits)


def first_error(error: CommandFailed) -> str:
    """The first error in the compiler's stderr; the exception's message if the compiler crashed or ran out of time."""
    if error.timed_out or any(line.startswith(_CRASH) for line in error.lines):
        return str(error)
    return next((line for line in error.lines if "error:" in line), error.lines[0])


def _modules_in(printed: str) -> list[str]:
    """Split modules that the compiler printed one after the other. Only the end of a module is a brace on its own line.

    The aliases of a module stand before it, and the data of its constants after it.
    """
    modules: list[list[str]] = [[]]
    is_over = in_data = False
    for line in printed.splitlines(keepends=True):
        in_data = in_data or line.startswith("{-#")
        if is_over and not in_data and line.strip():
            modules.append([])
            is_over = False
        modules[-1].append(line)
        is_over = is_over or line.rstrip() == "}"
        in_data = in_data and not line.startswith("#-}")
    return [text for text in map("".join, modules) if text.strip()]


@cache
def host_processor() -> str:
    """The processor that ``host`` stands for: its model and features."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return describe_host(text)


def describe_host(cpuinfo: str) -> str:
    """The lines of ``/proc/cpuinfo`` that determine the code for ``host``.

    If none of them names a model, the identity of the processor is added.
    """
    lines = {line for line in cpuinfo.splitlines() if line.startswith((_MODEL_NAME, "flags", "Features"))}
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(_MODEL_NAME)]
    if not names or not all(map(is_model_name, names)):
        lines.add(cpu_identity(cpuinfo))
    return "\n".join(sorted(lines))


@cache
def environment() -> Mapping[str, str]:
    """The environment for IREE's compiler, without paths that break its linker's command line.

    IREE 3.13 passes the paths of its linker and of temporary files to a shell without quotes. If the environment or
    TMPDIR lies at a path with a blank, nothing links for llvm-cpu.
    """
    env = dict(os.environ)
    linker = Path(_find_tool("iree-lld"))
    if _needs_quotes(linker) and _LINKER_VARIABLE not in env:
        directory = HeldDirectory(_PLAIN_DIRECTORY)
        atexit.register(directory.remove)
        link = directory.path / linker.name
        link.symlink_to(linker)
        env[_LINKER_VARIABLE] = os.fspath(link)
    if _needs_quotes(temporary_directory()):
        env["TMPDIR"] = _PLAIN_DIRECTORY
    return env


def _needs_quotes(path: Path) -> bool:
    return shlex.quote(os.fspath(path)) != os.fspath(path)


def _find_tool(name: str) -> str:
    """Find a command inside the installed ``iree.compiler``, as its console scripts need not be on PATH."""
    spec = None
    with suppress(ValueError):  # The stand-in of `ops.bindings` has no spec.
        spec = importlib.util.find_spec("iree.compiler")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the IREE compiler is not installed: python -m pip install iree-base-compiler")
    for root in spec.submodule_search_locations:
        path = Path(root, "_mlir_libs", name)
        if path.exists():
            return os.fspath(path)
    raise InputError(f"the installed iree.compiler has no {name}: install iree-base-compiler again")
