"""Writes a tuning spec with the release of IREE that it runs under: ``python write_spec.py TARGET MODEL... > SPEC``.

Each MODEL has one op, a matmul or a 2-D convolution (nhwc), and its entry attaches the very config that this release
chooses for that op. Matchers are given in MLIR's generic form, which all releases read; they come out as this release
writes them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import iree.compiler
from iree.compiler import ir, version
from iree.compiler.dialects import iree_codegen

RELEASE = tuple(int(part) for part in version.VERSION.split(".")[:2])
ROCM_TARGET = "--iree-rocm-target" if RELEASE >= (3, 10) else "--iree-hip-target"
FLAGS = {
    "gfx942": ["--iree-hal-target-device=hip", f"{ROCM_TARGET}=gfx942"],
    "llvm-cpu": [
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-llvmcpu-target-cpu=x86-64-v3",
    ],
}
SPEC = """
"builtin.module"() <{{sym_name = "old_spec"}}> ({{
  "transform.named_sequence"() <{{arg_attrs = [{{transform.readonly}}, {{transform.readonly}}],
      function_type = (!transform.any_op, !transform.any_param) -> (), sym_name = "apply_op_config"}}> ({{
  ^bb0(%op: !transform.any_op, %config: !transform.any_param):
    "transform.annotate"(%op, %config) <{{name = "compilation_info"}}>
      : (!transform.any_op, !transform.any_param) -> ()
    "transform.yield"() : () -> ()
  }}) : () -> ()
  {matchers}
  "transform.named_sequence"() <{{arg_attrs = [{{transform.consumed}}],
      function_type = (!transform.any_op) -> !transform.any_op, sym_name = "__kernel_config"}}> ({{
  ^bb0(%variant: !transform.any_op):
    %0 = "transform.foreach_match"(%variant) <{{actions = [{actions}], matchers = [{names}]}}>
      : (!transform.any_op) -> !transform.any_op
    "transform.yield"(%0) : (!transform.any_op) -> ()
  }}) {{iree_codegen.tuning_spec_entrypoint}} : () -> ()
}}) {{iree_codegen.tuning_spec_with_default_entrypoint, transform.with_named_sequence}} : () -> ()
"""
MATCHER = """
  "transform.named_sequence"() <{{arg_attrs = [{{transform.readonly}}],
      function_type = (!transform.any_op) -> (!transform.any_op, !transform.any_param), sym_name = "{name}"}}> ({{
  ^bb0(%op: !transform.any_op):
    %dims:{count} = "transform.iree.match.{kind}"(%op)
      <{{indexing_maps = {maps}, lhs_type = {lhs}, output_type = {output}, rhs_type = {rhs}}}>
      : (!transform.any_op) -> ({results})
    {sizes}
    %config = "transform.param.constant"() <{{value = "config"}}> : () -> !transform.any_param
    "transform.yield"(%op, %config) : (!transform.any_op, !transform.any_param) -> ()
  }}) : () -> ()
"""
SIZES = """"transform.iree.match.dims_equal"(%dims#{position}) <{{expected_values = array<i64{sizes}>}}>
      : (!transform.param<i64>) -> ()
    """
# The bindings of linalg tell these too, but in 3.9 they cannot be loaded beside those of iree_gpu.
MAPS = {
    "contraction": """[
      affine_map<(m, n, k) -> (m, k)>,
      affine_map<(m, n, k) -> (k, n)>,
      affine_map<(m, n, k) -> (m, n)>
    ]""",
    "convolution": """[
      affine_map<(b, h, w, f, y, x, c) -> (b, h + y, w + x, c)>,
      affine_map<(b, h, w, f, y, x, c) -> (y, x, c, f)>,
      affine_map<(b, h, w, f, y, x, c) -> (b, h, w, f)>
    ]""",
}


def chosen(flags: list[str], model: str) -> tuple[Any, Any, Any]:
    """A module that ``model`` becomes, its contraction or convolution, and the config that this release gives that."""
    text = iree.compiler.compile_str(model, extra_args=[*flags, "--compile-to=executable-configurations"])
    module = ir.Module.parse(text)
    found = []

    def visit(op: Any) -> Any:
        if "lowering_config" in op.attributes and op.name.startswith("linalg.") and len(op.operands) == 3:
            found.append(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    (root,) = found
    function = root
    while function.name != "func.func":
        function = function.parent.operation
    translation = iree_codegen.TranslationInfoAttr(function.attributes["translation_info"])
    return module, root, iree_codegen.CompilationInfoAttr.get(root.attributes["lowering_config"], translation)


def matcher(name: str, root: Any) -> str:
    """The matcher of ops like ``root`` in the generic form; sizes are asked for class by class."""
    shapes = [ir.ShapedType(operand.type).shape for operand in root.operands]
    kind = "contraction" if len(shapes[0]) == 2 else "convolution"
    if kind == "contraction":
        (m, k), (_, n) = shapes[:2]
        classes = [[], [m], [n], [k]]
    else:
        (batch, *image, filters), (*window, channels, _) = shapes[2], shapes[1]
        classes = [[batch], image, [filters], window, [channels], [], [1, 1], [1, 1]]
    lhs, rhs, output = (ir.ShapedType(operand.type).element_type for operand in root.operands)
    return MATCHER.format(
        name=name,
        count=len(classes),
        kind=kind,
        maps=MAPS[kind],
        lhs=lhs,
        rhs=rhs,
        output=output,
        results=", ".join(["!transform.param<i64>"] * len(classes)),
        sizes="".join(SIZES.format(position=each, sizes=listed(sizes)) for each, sizes in enumerate(classes)),
    )


def listed(sizes: list[int]) -> str:
    return ": " + ", ".join(map(str, sizes)) if sizes else ""


def main(target: str, paths: list[str]) -> None:
    with ir.Context(), ir.Location.unknown():
        found = [(Path(path).stem, chosen(FLAGS[target], Path(path).read_text())) for path in paths]
        names = ["match_" + stem for stem, _ in found]
        matchers = [matcher(name, root) for name, (_, (_, root, _)) in zip(names, found, strict=True)]
        references = ["@" + name for name in names]
        text = SPEC.format(
            matchers="".join(matchers),
            names=", ".join(references),
            actions=", ".join(["@apply_op_config"] * len(names)),
        )
        module = ir.Module.parse(text)
        infos = iter([info for _, (_, _, info) in found])

        def visit(op: Any) -> Any:
            if op.name == "transform.param.constant":
                op.attributes["value"] = next(infos)
            return ir.WalkResult.ADVANCE

        module.operation.walk(visit, ir.WalkOrder.PRE_ORDER)
        module.operation.verify()
        sys.stdout.write(f"{module}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
