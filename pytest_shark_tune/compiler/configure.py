"""Configuring: applies a tuning spec to a module.

There is one way to apply a config, to a dispatch or a whole model and on any backend: drop all configs, run a tuning
spec over the module, and read the configs of the ops. It happens in this process, with no threads inside the compiler:
with threads, IREE's pipeline deadlocks on several executables.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from iree.compiler import ir, passmanager
from iree.compiler.dialects import iree_codegen

from pytest_shark_tune.dispatch.extraction import drop_configs, sink_constants
from pytest_shark_tune.dispatch.foreign.trust import check_spec
from pytest_shark_tune.dispatch.mlir import walk
from pytest_shark_tune.dispatch.types import INCIDENTAL_ATTRIBUTES
from pytest_shark_tune.errors import InputError, SharkTuneError
from pytest_shark_tune.system.files import read_plain

__all__ = [
    "ARTIFACT_VERSION",
    "MARK",
    "Applied",
    "ConfigureFailed",
    "Configured",
    "compiler_context",
    "configure",
    "configure_with",
    "error_text",
    "executables_alone",
    "read_configs",
    "replace_executables",
    "strip",
    "why_not_applied",
]

ARTIFACT_VERSION: Final = 1
"""The version of configuring and of the `Artifact` in the cache.

Raise it with a change that makes another module of the same module and config. Everything is then compiled and measured
again.
"""

_APPLY = (
    "builtin.module(hal.executable(hal.executable.variant(builtin.module("
    'iree-codegen-materialize-tuning-specs{{tuning-spec-path="{path}"}},'
    "iree-codegen-materialize-user-configs))))"
)
MARK = "shark_tune.entry"
"""The attribute with the entry of a spec that matched an op."""

_COMPARISONS = {"transform.iree.match.regions", "transform.iree.match.cast_compatible_dag_from_root"}
_kept = threading.local()


class ConfigureFailed(SharkTuneError):
    """The compiler refused to run a spec over a module. The message has its diagnostics."""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """One op with a lowering config."""

    symbol: str
    """The name of its executable; empty outside one."""
    function: str
    """The name of its function."""
    op: str
    """The name of the op."""
    config: str
    """The text of the lowering config."""
    translation: str
    """The text of the function's translation info; empty if it has none."""
    compilation_info: str
    """The text of both together, as in a spec; empty without translation info."""
    entry: str = ""
    """The matcher that set the config, if the spec marks its entries (``mark_entries``)."""


class Configured(msgspec.Struct, frozen=True, kw_only=True):
    """A module after a spec ran over it."""

    text: str
    applied: tuple[Applied, ...]
    """The ops that have a config, in order."""


def strip(text: str) -> str:
    """Remove lowering configs, compilation infos and translation infos from a module. ``root_op`` marks stay.

    Raises:
        InputError: the text is not MLIR that this IREE parses.
    """
    with compiler_context():
        module = _parse(text, "the module")
        drop_configs(module)
        return str(module)


def configure(module_text: str, spec_path: Path | str) -> Configured:
    """Drop all configs in a module, then apply the tuning spec in the file ``spec_path``.

    The module must hold its executables' sources: a benchmark module, or a model at ``executable-sources``. If nothing
    in the module matches the spec, ``applied`` is empty.

    Raises:
        InputError: the spec cannot be read or is refused (`trust`), or it or the module is not MLIR that this IREE
            parses.
        ConfigureFailed: the compiler refuses the spec or one of its configs.
    """
    try:
        spec = read_plain(Path(spec_path))
    except OSError as error:
        raise InputError(f"tuning spec {spec_path} cannot be read: {error.strerror}") from error
    return _configure(module_text, spec, f"tuning spec {spec_path}")


def configure_with(module_text: str, spec: str) -> Configured:
    """Do the same as ``configure`` with the text of a spec, so that a candidate needs no file.

    Raises:
        InputError: the spec or the module is not MLIR that this IREE parses, or the spec is refused (`trust`).
        ConfigureFailed: the compiler refuses the spec or one of its configs.
    """
    return _configure(module_text, spec.encode(), "the tuning spec")


def read_configs(text: str) -> tuple[Applied, ...]:
    """List the ops with a lowering config, in the order of the text.

    They include ops around the root op that the compiler configures as well (a ``linalg.fill``). The text is a
    benchmark module or a model at ``executable-configurations``, and needs no ``root_op`` marks.

    Raises:
        InputError: the text is not MLIR that this IREE parses.
    """
    with compiler_context():
        return _read_applied(_parse(text, "the module"))


def replace_executables(text: str, source: str, symbols: Iterable[str]) -> str:
    """Replace executables of a model by those of the same model in another phase.

    The two texts are one model before and after executables were configured. The compiler changes nothing else between
    the phases, and a configured executable may be compiled from its sources' phase again.

    Args:
        text: The module.
        source: The module that has the other executables.
        symbols: The names of the executables.

    Raises:
        InputError: one of the texts is not MLIR that this IREE parses.
    """
    with compiler_context():
        module, other = _parse(text, "the module"), _parse(source, "the other module")
        replacements = _executables(other)
        executables = _executables(module)
        for symbol in symbols:
            old = executables[symbol]
            replacements[symbol].clone(ip=ir.InsertionPoint(old))
            old.erase()
        return str(module)


def executables_alone(text: str) -> str:
    """Reduce a module to its executables. Weights are most of a model's text, and configs do not depend on them.

    Raises:
        InputError: the text is not MLIR that this IREE parses.
    """
    with compiler_context():
        module = _parse(text, "the module")
        for op in list(module.body.operations):
            if op.operation.name != "hal.executable":
                op.operation.erase()
        return str(module)


def _executables(module: ir.Module) -> dict[str, ir.Operation]:
    return {
        _symbol(op.operation): op.operation for op in module.body.operations if op.operation.name == "hal.executable"
    }


def why_not_applied(configured: Configured, compilation_info: str) -> str | None:
    """Explain why no op has a config.

    Attributes are compared, so the text may have any spelling that this IREE parses.

    Args:
        configured: The configured module.
        compilation_info: The text of the config.

    Returns:
        The reason; ``None`` if an op has the config.

    Raises:
        InputError: ``compilation_info`` is not the text of such an attribute.
    """
    present = {applied.compilation_info for applied in configured.applied}
    if compilation_info in present or _canonical_info(compilation_info) in present:
        return None
    if not configured.applied:
        return "no op took the config: the spec's matcher matches none of the module's ops"
    there = "; ".join(
        f"{applied.op} in {applied.function} has {applied.compilation_info or applied.config}"
        for applied in configured.applied
    )
    return f"no op took the config, and another config is there: {there}"


def error_text(error: ir.MLIRError) -> str:
    """The compiler's errors, one per line, without the notes that print whole ops."""
    lines = [f"{_location_prefix(diagnostic.location)}{diagnostic.message}" for diagnostic in error.error_diagnostics]
    return "\n".join(lines) or str(error)


@contextmanager
def compiler_context(*, keep: bool = False) -> Iterator[None]:
    """Enter an MLIR context without threads, which IREE's bindings use until the end.

    A context takes 10 ms to make, which is most of the time of a candidate here. It never forgets text that it parsed,
    nor files that a pass loaded, so modules get new contexts.

    Args:
        keep: Use one context per thread, for attributes and specs, which are small.
    """
    context = getattr(_kept, "context", None) if keep else None
    if context is None:
        context = ir.Context()
        context.enable_multithreading(False)
        # Otherwise IREE's remarks and warnings would go to this process's stderr.
        context.attach_diagnostic_handler(lambda _: True)
        if keep:
            _kept.context = context
    with context, ir.Location.unknown():
        yield


def _configure(module_text: str, spec: bytes, spec_name: str) -> Configured:
    with compiler_context():
        module = _parse(module_text, "the module")
        library = _parse(spec, spec_name)
        check_spec(library, spec_name)
        if "sym_name" not in library.operation.attributes:
            # IREE reads the name of a spec that it links, so there must be one.
            library.operation.attributes["sym_name"] = ir.StringAttr.get("tuning_spec")
        drop_configs(module)
        _make_comparable(module, library)
        with _scratch_file(str(library)) as path:
            try:
                passmanager.PassManager.parse(_APPLY.format(path=path)).run(module.operation)
            except ir.MLIRError as error:
                said = error_text(error).replace(str(path), spec_name)
                raise ConfigureFailed(f"{spec_name} cannot be applied: {said}") from error
        applied = _read_applied(module)
        _drop_op_marks(module)
        return Configured(text=str(module), applied=applied)


def _drop_op_marks(module: ir.Module) -> None:
    for op in walk(module.operation):
        if MARK in op.attributes:
            del op.attributes[MARK]


def _make_comparable(module: ir.Module, library: ir.Module) -> None:
    """Bring the ops of a module into the form of the patterns that a spec compares them with, if it has any.

    Matchers compare all attributes and the ops inside of a body. So attributes without an influence on the result go,
    and constants move into the bodies that use them. The compiler moves them back.
    """
    patterns = [
        pattern.operation
        for comparison in walk(library.operation)
        if comparison.name in _COMPARISONS
        for pattern in comparison.regions[0].blocks[0].operations
    ]
    names = {pattern.name for pattern in patterns}
    inner = (op for pattern in patterns for region in pattern.regions for block in region for op in block)
    sunk = any(op.operation.name == "arith.constant" for op in inner)
    for op in [op for op in walk(module.operation) if op.name in names]:
        for name in INCIDENTAL_ATTRIBUTES:
            if name in op.attributes:
                del op.attributes[name]
        if sunk:
            sink_constants(op)


@contextmanager
def _scratch_file(text: str) -> Iterator[Path]:
    # The path goes into the text of a pass pipeline, which has no escapes inside quotes, so its characters matter. It
    # must be new each time: IREE keeps the libraries that it loaded by path.
    with tempfile.TemporaryDirectory(prefix="shark-tune-") as directory:
        path = Path(directory, "spec.mlir")
        if set('"{}') & set(str(path)):
            raise InputError(
                f'the temporary directory {directory} has one of the characters " {{ }} in its path: set TMPDIR'
            )
        path.write_text(text, encoding="utf-8")
        yield path


def _parse(source: str | bytes, name: str) -> ir.Module:
    try:
        return ir.Module.parse(source)
    except ir.MLIRError as error:
        raise InputError(f"{name} is not MLIR that this IREE parses: {error_text(error)}") from error


def _canonical_info(compilation_info: str) -> str:
    if not compilation_info:
        raise InputError("not a compilation_info: the text is empty")  # IREE would crash on it
    with compiler_context(keep=True):
        try:
            return str(iree_codegen.CompilationInfoAttr(ir.Attribute.parse(compilation_info)))
        except (ir.MLIRError, ValueError) as error:
            message = error_text(error) if isinstance(error, ir.MLIRError) else str(error)
            raise InputError(f"not a compilation_info that this IREE parses: {compilation_info}: {message}") from error


def _read_applied(module: ir.Module) -> tuple[Applied, ...]:
    return tuple(_applied(op) for op in walk(module.operation) if "lowering_config" in op.attributes)


def _applied(op: ir.Operation) -> Applied:
    parents = _parents(op)
    # The function is the op directly inside the innermost module. It is a func.func in benchmark modules only.
    depth = next(index for index, parent in enumerate(parents) if parent.name == "builtin.module")
    function = parents[depth - 1] if depth else op
    executable = next((parent for parent in parents if parent.name == "hal.executable"), None)
    config = op.attributes["lowering_config"]
    translation = function.attributes.get("translation_info", None)
    return Applied(
        symbol="" if executable is None else _symbol(executable),
        function=_symbol(function),
        op=op.name,
        config=str(config),
        translation="" if translation is None else str(translation),
        compilation_info=""
        if translation is None
        else str(iree_codegen.CompilationInfoAttr.get(config, iree_codegen.TranslationInfoAttr(translation))),
        entry=ir.StringAttr(op.attributes[MARK]).value if MARK in op.attributes else "",
    )


def _parents(op: ir.Operation) -> Sequence[ir.Operation]:
    parents = []
    parent = op.parent
    while parent is not None:
        parents.append(parent.operation)
        parent = parent.operation.parent
    return parents


def _symbol(op: ir.Operation) -> str:
    return ir.StringAttr(op.attributes["sym_name"]).value if "sym_name" in op.attributes else ""


def _location_prefix(location: ir.Location) -> str:
    """The place of an error before a message, as MLIR writes it (``loc("-":12:7)``); empty if it is unknown."""
    return "" if location == ir.Location.unknown(location.context) else f"{location}: "
