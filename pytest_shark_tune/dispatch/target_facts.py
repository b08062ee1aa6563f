"""The properties of a target, read from the executables that are compiled for it."""

from __future__ import annotations

from typing import Any

from iree.compiler import ir
from iree.compiler.dialects import iree_gpu

from pytest_shark_tune.dispatch.mlir import ops_named, parse_module, shared_context
from pytest_shark_tune.dispatch.types import Intrinsic, TargetFacts

__all__ = ["cpu_of", "target_facts"]

_GPU_FACTS = "iree_codegen.target_info"
_OF_CPU = ("cpu", "cpu_features")


def target_facts(variant: ir.Operation, processors: int) -> TargetFacts:
    """Read ``#hal.executable.target``. IREE has no bindings for it, so its dictionary is sliced out and parsed."""
    text = str(variant.attributes["target"])
    config = _config(text)
    backend = ir.StringAttr(ir.Attribute.parse(text[text.index("<") + 1 : text.index(",")])).value

    def integer(name: str, default: int) -> int:
        return ir.IntegerAttr(config[name]).value if name in config else default

    triple = ir.StringAttr(config["target_triple"]).value if "target_triple" in config else ""
    return TargetFacts(
        backend=backend,
        architecture=triple.partition("-")[0],
        native_vector_bytes=integer("native_vector_size", 16),
        max_stack_bytes=integer("max_stack_allocation_size", 32768),
        processors=processors,
        **(_gpu_facts(variant.attributes["target"]) if _GPU_FACTS in config else {}),
    )


def cpu_of(sources: str) -> tuple[str, str]:
    """Return the CPU and its features that a module at ``executable-sources`` is compiled for; both empty on a GPU."""
    with shared_context():
        variant = ops_named(parse_module(sources).operation, "hal.executable.variant")[0]
        config = _config(str(variant.attributes["target"]))
        cpu, features = (ir.StringAttr(config[name]).value if name in config else "" for name in _OF_CPU)
    return cpu, features


def _config(target: str) -> ir.DictAttr:
    head, tail = target.find("{"), target.rfind("}")
    return ir.DictAttr(ir.Attribute.parse(target[head : tail + 1])) if head >= 0 else ir.DictAttr.get({})


def _gpu_facts(target: ir.Attribute) -> dict[str, Any]:
    """Return the fields of ``TargetFacts`` that only GPUs have."""
    info = iree_gpu.TargetInfo.get_gpu_target_info(target)
    return {
        "subgroup_sizes": tuple(info.subgroup_size_choices),
        "max_workgroup_sizes": tuple(info.max_workgroup_sizes),
        "max_threads": info.max_thread_count_per_workgroup,
        "shared_memory_bytes": info.max_workgroup_memory_bytes,
        "intrinsics": tuple(
            _intrinsic(iree_gpu.MMAAttr.get(intrinsic))
            for intrinsic in info.mma_intrinsics
            if isinstance(intrinsic, iree_gpu.MMAIntrinsic)
        ),
    }


def _intrinsic(attribute: Any) -> Intrinsic:
    lhs, rhs, result = attribute.abc_element_types
    return Intrinsic(
        attribute=str(attribute),
        shape=tuple(attribute.mnk_shape),
        elements=(str(lhs), str(rhs), str(result)),
    )
