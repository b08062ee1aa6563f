"""Hostile specs, as somebody else might send them: each makes the compiler run a command or write a file."""

from __future__ import annotations

from pathlib import Path

from tests.models import matmuls

__all__ = ["CONFIG", "MODEL", "hostile_config", "hostile_specs", "spec"]

MODEL = matmuls("main", 48, 56, 80)
_LOWERING = (
    "#iree_cpu.lowering_config<distribution = [24, 80, 0], vector_common_parallel = [12, 16, 0], "
    "vector_reduction = [0, 0, 8]{more}>"
)
_CONFIG = (
    "#iree_codegen.compilation_info<lowering_config = {lowering}, "
    "translation_info = #iree_codegen.translation_info<pipeline = {pipeline}{options}>>"
)
_NAMED = "#iree_cpu.pipeline<DoubleTilingExpert>"
CONFIG = _CONFIG.format(lowering=_LOWERING.format(more=""), pipeline=_NAMED, options="")
_SPEC = """
module @spec attributes {{iree_codegen.tuning_spec_with_default_entrypoint, transform.with_named_sequence{module}}} {{
  {sequences}
  transform.named_sequence @apply(%op: !transform.any_op {{transform.readonly}}, %c: !transform.any_param {{transform.readonly}}) {{
    transform.annotate %op "compilation_info" = %c : !transform.any_op, !transform.any_param
    {action}
    transform.yield
  }}
  transform.named_sequence @match_mm(%op: !transform.any_op {{transform.readonly}}) -> (!transform.any_op, !transform.any_param) {{
    %b, %m, %n, %k = transform.iree.match.contraction %op, lhs_type = f32, rhs_type = f32, output_type = f32, indexing_maps = [affine_map<(d0, d1, d2) -> (d0, d2)>, affine_map<(d0, d1, d2) -> (d2, d1)>, affine_map<(d0, d1, d2) -> (d0, d1)>] : !transform.any_op -> !transform.param<i64>
    transform.iree.match.dims_equal %m, [48] : !transform.param<i64>
    transform.iree.match.dims_equal %n, [80] : !transform.param<i64>
    transform.iree.match.dims_equal %k, [56] : !transform.param<i64>
    {matcher}
    %c = transform.param.constant {config} -> !transform.any_param
    transform.yield %op, %c : !transform.any_op, !transform.any_param
  }}
  transform.named_sequence @__kernel_config(%v: !transform.any_op {{transform.consumed}}) -> !transform.any_op attributes {{iree_codegen.tuning_spec_entrypoint}} {{
    %r = transform.foreach_match in %v @match_mm -> @apply : (!transform.any_op) -> !transform.any_op
    transform.yield %r : !transform.any_op
  }}
}}
"""  # noqa: E501 - as IREE prints it


def spec(*, config: str = CONFIG, action: str = "", matcher: str = "", sequences: str = "", module: str = "") -> str:
    """A spec for the matmul of `MODEL`, with more in its parts."""
    return _SPEC.format(config=config, action=action, matcher=matcher, sequences=sequences, module=module)


def hostile_config(pipeline: str = _NAMED, *, lowering: str = "", options: str = "") -> str:
    """A compilation info with this pipeline, more in its lowering config, or options of its translation info."""
    return _CONFIG.format(
        lowering=_LOWERING.format(more=f", {lowering}" if lowering else ""),
        pipeline=pipeline,
        options=f", {{{options}}}" if options else "",
    )


def _text(pipeline: str) -> str:
    return hostile_config(f'#iree_codegen.pass_pipeline<"{pipeline}">')


def hostile_specs(marker: Path) -> dict[str, tuple[str, str]]:
    """Specs by what is hostile in them, each with what a refusal must name; those that run anything make ``marker``."""
    run = f"""
    %p = transform.get_parent_op %op <{{op_name = "hal.executable"}}> : (!transform.any_op) -> !transform.any_op
    %q = transform.apply_registered_pass "iree-hal-preprocess-executables-with-tool"
        with options = {{ "command" = "'touch {marker}'" }} to %p : (!transform.any_op) -> !transform.any_op"""
    write = f'''
    %f = transform.get_parent_op %op <{{op_name = "func.func"}}> : (!transform.any_op) -> !transform.any_op
    %q = transform.apply_registered_pass "snapshot-op-locations"
        with options = {{ "filename" = "{marker}" }} to %f : (!transform.any_op) -> !transform.any_op'''
    included = f"""
    transform.named_sequence @helper(%op: !transform.any_op {{transform.readonly}}) {{{write}
      transform.yield
    }}"""
    include = "transform.include @helper failures(propagate) (%op) : (!transform.any_op) -> ()"
    sequence = f"""
    transform.sequence %op : !transform.any_op failures(propagate) {{
    ^bb0(%arg: !transform.any_op):{write.replace("%op", "%arg")}
    }}"""
    inner = spec(action=run).replace("module @spec", "module @inner")
    op, in_apply = "transform.apply_registered_pass", "the op transform.apply_registered_pass in @apply"
    snapshot = f"snapshot-op-locations{{filename={marker}}}"
    written = '#hal.executable.object<{path = "x.o"}>'
    return {
        "action runs": (spec(action=run), in_apply),
        "action writes": (spec(action=write), in_apply),
        "matcher": (spec(matcher=write), "the op transform.apply_registered_pass in @match_mm"),
        "include": (spec(sequences=included, action=include), f"the op {op} in @helper"),
        "sequence": (spec(action=sequence), in_apply),
        "nested module": (f"module attributes {{transform.with_named_sequence}} {{{inner}}}", in_apply),
        "pipeline": (spec(config=_text(f"cse,{snapshot}")), "the pass snapshot-op-locations in a pass_pipeline"),
        "nested pipeline": (
            spec(config=_text(f"builtin.module(func.func({snapshot}))")),
            "the pass snapshot-op-locations in a pass_pipeline",
        ),
        "command in a pipeline": (
            spec(config=_text(f"hal.executable(iree-hal-preprocess-executables-with-tool{{command=touch={marker}}})")),
            "the pass iree-hal-preprocess-executables-with-tool in a pass_pipeline",
        ),
        "pipeline in an option": (
            spec(config=_text(f"inline{{default-pipeline={snapshot}}}")),
            "the pass inline in a pass_pipeline",
        ),
        "option of a good pass": (
            spec(config=_text(f"iree-codegen-gpu-pipelining{{transform-file-name={marker}}}")),
            "the option transform-file-name of the pass iree-codegen-gpu-pipelining",
        ),
        "pipeline deep in a config": (
            spec(config=hostile_config(options=f'a = [{{b = #iree_codegen.pass_pipeline<"{snapshot}">}}]')),
            "the pass snapshot-op-locations in a pass_pipeline",
        ),
        "strategy": (
            spec(config=hostile_config("#iree_codegen.transform_dialect_codegen codegen_spec = @apply")),
            "an attribute #iree_codegen.transform_dialect_codegen",
        ),
        "object file": (
            spec(config=hostile_config(options=f"objects = [{written}]")),
            "an attribute #hal.executable.object",
        ),
        "object file as a parameter": (
            spec(
                matcher=f"%x = transform.param.constant [{written}] -> !transform.any_param",
            ),
            "an attribute #hal.executable.object in @match_mm",
        ),
        "another annotation": (
            spec(
                action='transform.annotate %op "hal.executable.objects" = %c : !transform.any_op, !transform.any_param'
            ),
            "an annotation named 'hal.executable.objects' in @apply",
        ),
        "serialized spec": (
            spec(matcher="%x = transform.param.constant dense<0> : tensor<4xi8> -> !transform.any_param"),
            "an attribute of the kind DenseIntElementsAttr in @match_mm",
        ),
        "attribute of the module": (
            spec(module=f', spec.x = #iree_codegen.pass_pipeline<"{snapshot}">'),
            "the pass snapshot-op-locations in a pass_pipeline",
        ),
        "op in a pattern": (
            spec(
                matcher="%ins, %outs = transform.iree.match.cast_compatible_dag_from_root %op {\n"
                "^bb0(%x: tensor<4xf32>):\n"
                "%y = memref.alloc() : memref<4xf32>\n"
                "} : (!transform.any_op) -> (!transform.any_value, !transform.any_value)"
            ),
            "the op memref.alloc in @match_mm",
        ),
    }
