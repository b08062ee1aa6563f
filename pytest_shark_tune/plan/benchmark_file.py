"""Benchmark files: dumped dispatches, and whether they are for the target and the release of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iree.compiler import ir

from pytest_shark_tune.compiler.compiler import compiler_version
from pytest_shark_tune.dispatch import mlir
from pytest_shark_tune.dispatch.extraction import is_benchmark_module
from pytest_shark_tune.errors import InputError

if TYPE_CHECKING:
    from pytest_shark_tune.compiler.compiler import Compiler

__all__ = ["IsSpec", "check_benchmark_target", "is_benchmark_file"]

_DUMP = "--iree-hal-dump-executable-benchmarks-to=DIR"
_BENCHMARK = "iree.benchmark"
"""The key with which every release marks the function of a benchmark."""
_EXECUTABLES = ("hal.executable", "hal.executable.source")
_FUNCTIONS = ("func.func", "util.func")
_SPECS = ("transform.with_named_sequence", "iree_codegen.tuning_spec_with_default_entrypoint")
_GPU = "iree_codegen.target_info"
_PARTS = ("cpu", "target_triple", "cpu_features")
"""The properties of a CPU target on which code depends, the most telling first."""


class IsSpec(InputError):
    """A file that is read as a model is a tuning spec."""


def is_benchmark_file(text: str) -> bool:
    """Return whether a module is a dispatch that iree-compile dumped with a function that runs it.

    A model, even one that this IREE does not parse, is none.

    Raises:
        InputError: Another release of IREE dumped it, or it is no dispatch with such a function, nor a model.
    """
    if is_benchmark_module(text):
        return True
    with ir.Context() as context:
        context.allow_unregistered_dialects = True
        try:
            module = mlir.parse_module(text)
        except InputError as error:
            if _BENCHMARK in text and "hal.executable" in text:
                raise InputError(
                    f"it is a dispatch that another release of IREE dumped, and IREE {compiler_version()} does not "
                    f"read it ({error}): dump it again with this release's iree-compile and {_DUMP}, or tune its model"
                ) from error
            return False
        names = [op.operation.name for op in module.body.operations]
        if any(name in _EXECUTABLES for name in names) and not any(name in _FUNCTIONS for name in names):
            raise InputError(
                "it holds dispatches and no function that runs them, so it cannot be measured: "
                f"dump it with {_DUMP}, or tune its model"
            )
        is_spec = any(name in module.operation.attributes for name in _SPECS)
        if is_spec and not any(name in _FUNCTIONS for name in names):
            raise IsSpec("it is a tuning spec and no model: `shark-tune show` prints its entries")
    return False


def check_benchmark_target(text: str, compiler: Compiler) -> None:
    """Check that a benchmark file is for the target of a run.

    Raises:
        InputError: It is for another one.
        CommandFailed: iree-compile does not take the target.
    """
    own = compiler.lower("func.func @f() { return }", to="executable-targets")
    with mlir.shared_context():
        found, wanted = _target_in(text), _target_in(own)
    if found is None or wanted is None or not (difference := _difference(found, wanted)):
        return
    raise InputError(
        f"it was dumped for another target than {compiler.target}: {difference}. Give the target that it is for with "
        f"--tune-target, or dump it again with the flags {' '.join(compiler.target.flags)} and {_DUMP}"
    )


def _target_in(text: str) -> tuple[str, ir.DictAttr] | None:
    """Return the format and the properties of the first target that a module names; ``None`` if there is none."""
    for op in mlir.parse_module(text).body.operations:
        if op.operation.name == "util.global" and "initial_value" in op.attributes:
            printed = str(op.attributes["initial_value"])
            start = printed.find("#hal.executable.target<")
            if start >= 0:
                return _parts_of(printed[start : printed.rindex("]")])
    return None


def _parts_of(target: str) -> tuple[str, ir.DictAttr]:
    """Read ``#hal.executable.target``. IREE has no bindings for it, so its dictionary is sliced out and parsed."""
    head, tail = target.find("{"), target.rfind("}")
    named = target[:head] if head >= 0 else target
    format_name = named.split('"')[3]
    return format_name, ir.DictAttr(ir.Attribute.parse(target[head : tail + 1] if head >= 0 else "{}"))


def _difference(found: tuple[str, ir.DictAttr], wanted: tuple[str, ir.DictAttr]) -> str:
    """Return how a file's target differs from a run's in a property on which its code depends."""
    if found[0] != wanted[0]:
        return f"its code is {found[0]}, and that of this target is {wanted[0]}"
    for name in _PARTS:
        old, new = (str(part[1][name]) if name in part[1] else '""' for part in (found, wanted))
        if old != new:
            return f"its {name} is {old}, and that of this target is {new}"
    old, new = (_architecture(part[1]) for part in (found, wanted))
    return f"it is for {old}, and this target is {new}" if old != new else ""


def _architecture(properties: ir.DictAttr) -> str:
    """Return the name of a GPU's architecture; empty for CPUs."""
    if _GPU not in properties:
        return ""
    _, _, after = str(properties[_GPU]).partition('arch = "')
    return after.partition('"')[0]
