"""Reads a tuning spec with the release of IREE that wrote it: a script for the interpreter of another environment.

It stands alone: it imports nothing but ``iree.compiler`` of that environment, of any release from 3.0 on, and its
syntax is that of Python 3.9. It reads a spec from stdin and writes one JSON object to stdout:

- ``iree``: the version of that environment's compiler.
- ``spec``: the spec in MLIR's generic form, which other releases parse too, with a name in place of each config.
- ``configs``: for each of these names the config as data, ``{"pipeline": ..., "tree": ...}``, just as
  ``search_space.config_reader.ReadConfig`` has it, with today's names of pipelines and options.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from iree.compiler import ir, version
from iree.compiler.dialects import iree_codegen, iree_gpu

PLACEHOLDER = "shark_tune.config"
"""The prefix of the names that stand for configs."""

_PIPELINE_PREFIXES = ("LLVMGPU", "CPU", "SPIRV")
"""Until IREE 3.10 there was one list of pipelines for all backends."""
_PREFETCH_STAGES = "prefetch_num_stages"
_PREFETCH = "prefetch_shared_memory"
"""A bool until the number of stages took its place; true meant two stages."""
_OPTIONS = (
    "use_igemm_convolution",
    "reorder_workgroups_strategy",
    "no_reduce_shared_memory_bank_conflicts",
    _PREFETCH_STAGES,
    _PREFETCH,
)
_LLVM_ATTRIBUTES = "llvm_func_attrs"
_DECOMPOSITION = "decomposition_config"


def read(text: str) -> dict[str, Any]:
    """Return the object to write for a spec's text."""
    configs: dict[str, Any] = {}
    with ir.Context():
        module = ir.Module.parse(text)

        def visit(op: Any) -> Any:
            op = getattr(op, "operation", op)
            if op.name == "transform.yield":
                _take_configs(op, configs)
            return ir.WalkResult.ADVANCE

        module.operation.walk(visit)
        spec = module.operation.get_asm(print_generic_op_form=True)
    return {"iree": version.VERSION, "spec": spec, "configs": configs}


def _take_configs(matcher_yield: Any, configs: dict[str, Any]) -> None:
    """Put names in place of the config that a matcher yields to its action, and of a decomposition beside it."""
    constants = [operand.owner for operand in matcher_yield.operands if not isinstance(operand.owner, ir.Block)]
    constants = [getattr(op, "operation", op) for op in constants]
    constants = [op for op in constants if op.name == "transform.param.constant"]
    infos = [op for op in constants if iree_codegen.CompilationInfoAttr.isinstance(op.attributes["value"])]
    if not infos:
        return
    config = _config_tree(infos[-1].attributes["value"])
    for op in constants:
        value = op.attributes["value"]
        if op not in infos and _is_decomposition(value):
            config["tree"][_DECOMPOSITION] = _tree(value)
    name = f"{PLACEHOLDER}:{len(configs)}"
    configs[name] = config
    for op in constants:
        value = op.attributes["value"]
        if op in infos or _is_decomposition(value):
            op.attributes["value"] = ir.StringAttr.get(name)


def _is_decomposition(value: Any) -> bool:
    return isinstance(value, ir.DictAttr) and ("qk_attrs" in value or "pv_attrs" in value)


def _config_tree(info: Any) -> dict[str, Any]:
    translation = info.translation_info
    tree = _levels(info.lowering_config)
    if translation.workgroup_size:
        tree["workgroup_size"] = list(translation.workgroup_size)
    if translation.subgroup_size:
        tree["subgroup_size"] = translation.subgroup_size
    for entry in translation.configuration or ():
        tree.update(_option(entry.name, entry.attr))
    return {"pipeline": _pipeline(translation.pass_pipeline), "tree": tree}


def _pipeline(attribute: Any) -> str:
    name = str(attribute).partition("<")[2].removesuffix(">").strip()
    if str(attribute).startswith("#iree_codegen<"):
        for prefix in _PIPELINE_PREFIXES:
            name = name.removeprefix(prefix)
    return name


def _levels(config: Any) -> dict[str, Any]:
    if isinstance(config, iree_gpu.LoweringConfigAttr):
        return {entry.name: _tree(entry.attr) for entry in config.attributes}
    # Configs of other dialects have no bindings. The text between their brackets is the inside of a dictionary.
    inner = str(config).partition("<")[2].removesuffix(">")
    return {entry.name: _tree(entry.attr) for entry in ir.DictAttr(ir.Attribute.parse("{" + inner + "}"))}


def _option(name: str, attribute: Any) -> dict[str, Any]:
    if name == _LLVM_ATTRIBUTES:
        others = {entry.name: _tree(entry.attr) for entry in attribute}
        waves = others.pop("amdgpu-waves-per-eu", "")
        options: dict[str, Any] = {name: others} if others else {}
        if waves:
            options["waves_per_eu"] = int(waves)
        return options
    if name == "iree_codegen.denormal_fp_math_f32":
        return {"flush_denormals": int("preserve-sign" in str(attribute))}
    return {name: _tree(attribute)}


def _tree(attribute: Any) -> Any:
    if isinstance(attribute, ir.DictAttr):
        return {entry.name: _tree(entry.attr) for entry in attribute}
    if isinstance(attribute, (ir.ArrayAttr, ir.DenseI64ArrayAttr)):
        return [value if isinstance(value, int) else _tree(value) for value in attribute]
    if isinstance(attribute, iree_gpu.LoweringConfigAttr):
        return _tree(attribute.attributes)
    if isinstance(attribute, iree_gpu.PipelineOptionsAttr):
        return _options(attribute)
    if isinstance(attribute, (ir.BoolAttr, ir.IntegerAttr)):
        return int(attribute.value)
    if isinstance(attribute, ir.StringAttr):
        return str(attribute.value)
    return 1 if isinstance(attribute, ir.UnitAttr) else str(attribute)


def _options(attribute: Any) -> dict[str, Any]:
    given = {name: getattr(attribute, name, None) for name in _OPTIONS}
    prefetch = given.pop(_PREFETCH)
    if prefetch is not None and given[_PREFETCH_STAGES] is None:
        given[_PREFETCH_STAGES] = 2 if prefetch else 0
    return {
        name: int(value) if isinstance(value, int) else str(value) for name, value in given.items() if value is not None
    }


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(read(sys.stdin.read())))
    except (ir.MLIRError, ValueError) as error:
        sys.exit(str(error))
