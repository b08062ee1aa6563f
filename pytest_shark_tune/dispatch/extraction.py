"""Extraction: reads dispatches from the benchmark modules that iree-compile dumps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from iree.compiler import ir, passmanager
from iree.compiler.dialects import func, iree_codegen, iree_gpu, linalg
from msgspec.structs import replace

from pytest_shark_tune.dispatch import mlir
from pytest_shark_tune.dispatch.buffers import benchmark_module
from pytest_shark_tune.dispatch.bytecode import bytecode_text
from pytest_shark_tune.dispatch.reasons import (
    CannotTune,
    CopiesBuffers,
    NoRootOp,
    PinnedConfig,
    SeveralRootOps,
    UnknownDimensions,
    UnmarkedBenchmark,
    ValueFromOutside,
)
from pytest_shark_tune.dispatch.types import (
    ATTENTION,
    INCIDENTAL_ATTRIBUTES,
    ONLINE_ATTENTION,
    FoundDispatch,
    Intrinsic,
    RootOp,
    TargetFacts,
    Tensor,
    Untunable,
)
from pytest_shark_tune.errors import InputError

__all__ = [
    "EXTRACTION_VERSION",
    "Flow",
    "drop_configs",
    "function_inputs",
    "is_benchmark_module",
    "read_benchmark",
    "read_flow",
    "read_module",
    "sink_constants",
]

EXTRACTION_VERSION: Final = 3
"""The version of extraction, naming, grouping and rotation (with `grouping` and `rotation`).

Raise it if the same source yields another dispatch, name, root or benchmark. Plans are then made again.
"""

_CONVOLUTION_CLASSES = (
    "batch",
    "output_image",
    "output_channel",
    "filter_loop",
    "input_channel",
    "depth",
    "strides",
    "dilations",
)
_GPU_FACTS = "iree_codegen.target_info"
_BYTECODE_MAGIC = b"ML\xefR"
_BUFFER_VIEW = "!hal.buffer_view"
_CONSTANTS = {"util.global": "initial_value", "flow.tensor.constant": "value"}
"""Ops that hold data, each with the attribute that holds it."""
_PARAMETERS = tuple(f'#{dialect}.parameter.named<"scope"::"key"> : tensor<1xf32>' for dialect in ("flow", "stream"))
"""Attributes that refer to data in another file by its name."""


def read_module(content: bytes) -> str:
    """Return the text of a module that is stored as text or as bytecode.

    Raises:
        InputError: The content is neither.
        SpecRefused: Ops are nested too deeply in the bytecode to be printed safely.
    """
    if not content.startswith(_BYTECODE_MAGIC):
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"it is neither MLIR text nor MLIR bytecode: {error}") from error
    return bytecode_text(content)


def is_benchmark_module(text: str) -> bool:
    """Return whether ``text`` is an executable benchmark module that iree-compile dumped.

    A text that does not parse is none: it may use a dialect that only iree-compile knows.
    """
    with ir.Context() as context:
        context.allow_unregistered_dialects = True
        try:
            module = mlir.parse_module(text)
        except InputError:
            return False
        return any(
            "iree.benchmark" in ir.DictAttr(op.attributes["iree.reflection"])
            for op in module.body.operations
            if op.name == "util.func" and "iree.reflection" in op.attributes
        )


def read_benchmark(
    text: str, source: str, *, processors: int, flags: Sequence[str] = (), has_configs: bool = False
) -> FoundDispatch | Untunable:
    """Read a dumped executable benchmark module.

    Args:
        text: The text of the module.
        source: The name of the source that the dispatch belongs to.
        processors: The number of workers that share a dispatch on the target.
        flags: The flags of its model's form on which its code depends.
        has_configs: Whether the source has configs of its own.

    Returns:
        The dispatch, with a module without configs and with a function that returns its buffer; or the reason why the
        dispatch cannot be tuned.

    Raises:
        InputError: The text is no MLIR that this IREE parses.
    """
    with mlir.shared_context():
        module = mlir.parse_module(text)
        symbol = next(mlir.string_of(op, "sym_name") for op in module.body.operations if op.name == "hal.executable")
        try:
            found = _read_dispatch(module, symbol, source, processors, has_configs=has_configs)
        except CannotTune as reason:
            return Untunable.of(symbol, source, reason)
    return replace(found, module=replace(found.module, flags=tuple(flags)))


def drop_configs(module: ir.Module) -> None:
    """Remove every lowering config, compilation info and translation info from a module; ``root_op`` marks stay.

    IREE's pass removes them from linalg and attention ops only, so packing, sorting and scanning ops would keep theirs.
    """
    passmanager.PassManager.parse("builtin.module(iree-codegen-strip-compilation-info)").run(module.operation)
    for op in mlir.walk(module.operation):
        for name in ("lowering_config", "compilation_info"):
            if name in op.attributes:
                del op.attributes[name]


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """The executables of a module at phase ``flow``, and how they are called."""

    calls: dict[str, int] = {}
    """The number of calls of each executable; a call in a loop counts once."""
    called: dict[str, tuple[str, ...]] = {}
    """The executables that each function calls, itself or through another function."""
    parameters: dict[str, dict[str, int]] = {}
    """The parameters that it takes from other files by scope and key, with the least number of bytes of each."""


def read_flow(flow_text: str) -> Flow:
    """Read a module at phase ``flow``.

    Raises:
        InputError: The text is no MLIR that this IREE parses.
    """
    with mlir.shared_context():
        module = mlir.parse_module(flow_text)
        functions = _functions(module)
        own = {name: _dispatched(op) for name, op in functions.items()}
        callees = {name: [_callee(call) for call in mlir.ops_named(op, "util.call")] for name, op in functions.items()}
        called = {
            name: {symbol for function in _call_closure(name, callees) for symbol in own[function]} for name in own
        }
        return Flow(
            calls=dict(Counter(_dispatched(module.operation))),
            called={name: tuple(sorted(symbols)) for name, symbols in called.items()},
            parameters=_parameters(module),
        )


def _functions(module: ir.Module) -> dict[str, ir.Operation]:
    """Return the functions of a module that have a body, by name."""
    operations = (op.operation for op in module.body.operations)
    return {
        mlir.string_of(op, "sym_name"): op
        for op in operations
        if op.name in {"func.func", "util.func"} and op.regions[0].blocks
    }


def _dispatched(op: ir.Operation) -> list[str]:
    """Return the executables that are called inside ``op``, one element per call."""
    calls = mlir.ops_named(op, "flow.dispatch")
    entry_points = [entry for call in calls for entry in ir.ArrayAttr(call.attributes["entry_points"])]
    return [ir.SymbolRefAttr(entry).value[0] for entry in entry_points]


def _callee(call: ir.Operation) -> str:
    return str(ir.FlatSymbolRefAttr(call.attributes["callee"]).value)


def _call_closure(name: str, callees: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a function and all functions with a body that it calls, directly or not."""
    reached = [name]
    for function in reached:  # The list grows during the loop.
        reached += [
            callee for callee in dict.fromkeys(callees[function]) if callee in callees and callee not in reached
        ]
    return reached


def _parameters(module: ir.Module) -> dict[str, dict[str, int]]:
    """Return the data in other files that constants of the module refer to, by scope and key."""
    kinds = {ir.Attribute.parse(text).typeid for text in _PARAMETERS}
    constants = [
        (op, name)
        for kind, name in _CONSTANTS.items()
        for op in mlir.ops_named(module.operation, kind)
        if name in op.attributes
    ]
    found: dict[str, dict[str, int]] = {}
    for op, name in constants:
        try:
            constant = op.attributes[name]
        except TypeError:  # The bindings cannot return constants of complex numbers, which are in the module itself.
            continue
        if constant.typeid in kinds:
            scope, key = _parameter_name(constant)
            of_scope = found.setdefault(scope, {})
            of_scope[key] = max(of_scope.get(key, 0), mlir.least_bytes(constant.type))
    return found


def _parameter_name(parameter: ir.Attribute) -> tuple[str, str]:
    """Return the scope and the key of ``#flow.parameter.named<"scope"::"key">``, of which IREE has no bindings.

    IREE prints both as they are, without escapes, so neither can hold a quotation mark. The scope may be left out.
    """
    _, first, between, *rest = str(parameter).split('"')
    return (first, rest[0]) if between == "::" else ("", first)


def function_inputs(input_text: str) -> dict[str, tuple[Tensor, ...]]:
    """Return the public functions of a module at phase ``input``, each with the tensors that it takes.

    Functions with other arguments than statically shaped tensors are left out: no data can be made for them. A function
    from ONNX takes buffer views at this phase. It imports them as tensors, itself or in a function that it calls.
    """
    functions = {}
    with mlir.shared_context():
        module = mlir.parse_module(input_text)
        defined = _functions(module)
        for name, op in defined.items():
            if "sym_visibility" in op.attributes and mlir.string_of(op, "sym_visibility") != "public":
                continue
            arguments = op.regions[0].blocks[0].arguments
            try:
                functions[name] = tuple(mlir.tensor_of(_imported_type(argument, defined)) for argument in arguments)
            except CannotTune:
                continue
    return functions


def _imported_type(argument: ir.Value, defined: Mapping[str, ir.Operation]) -> ir.Type:
    """Return the type of an argument; of a buffer view, that of the imported tensor, any type if it is unused."""
    if argument.type != ir.Type.parse(_BUFFER_VIEW):
        return argument.type
    if not list(argument.uses):
        return ir.Type.parse("tensor<1xf32>")
    for use in argument.uses:
        user = use.owner.operation  # The ``name`` of a view may be an attribute of that name.
        if user.name == "hal.tensor.import":
            return user.results[0].type
        if user.name == "util.call" and (callee := _callee(user)) in defined:
            return _imported_type(defined[callee].regions[0].blocks[0].arguments[use.operand_number], defined)
    return argument.type


def _read_dispatch(module: ir.Module, symbol: str, source: str, processors: int, *, has_configs: bool) -> FoundDispatch:
    roots = iree_codegen.get_tuner_root_ops(module)
    if not roots:
        configured = [op.name for op in mlir.walk(module.operation) if "lowering_config" in op.attributes]
        if has_configs and configured:
            raise PinnedConfig(f"the model pins its config: {configured[0]} carries a compilation_info of its own")
        computes = any(op.name.startswith(("linalg.", "iree_linalg_ext.")) for op in mlir.walk(module.operation))
        raise (NoRootOp if computes else UnmarkedBenchmark)("the compiler marks no root op in it")
    if len(roots) > 1:
        raise SeveralRootOps(f"it has {len(roots)} root ops, and a config is for one")
    root = roots[0]
    root_op = _root_op(root)
    function = mlir.parent_named(root, "func.func")
    default_config = str(root.attributes["lowering_config"]) if "lowering_config" in root.attributes else ""
    default_pipeline, default_info = _pipeline_of(function), _info_of(root, function)
    target = _target_facts(mlir.parent_named(root, "hal.executable.variant"), processors)
    drop_configs(module)
    (root,) = iree_codegen.get_tuner_root_ops(module)
    return FoundDispatch(
        symbol=symbol,
        source=source,
        root=root_op if root_op.kind == "contraction" else msgspec.structs.replace(root_op, pattern=_pattern(root)),
        target=target,
        default_pipeline=default_pipeline,
        default_config=default_config,
        default_info=default_info,
        module=benchmark_module(module, function, root),
    )


def _root_op(op: ir.Operation) -> RootOp:
    if not op.results:
        raise CopiesBuffers(f"its root op {op.name} copies between buffers, and specs are for ops on tensors")
    operands = [mlir.tensor_of(value.type, scalars=True) for value in op.operands]
    results = tuple(mlir.tensor_of(value.type) for value in op.results)
    maps = _indexing_maps(op)
    affine = [attribute.value for attribute in maps]
    loops, iterators = _loop_nest(op, affine, operands)
    kind, classes = _dimension_classes(op, affine)
    root = RootOp(
        op=op.name,
        kind=kind,
        loops=loops,
        iterators=iterators,
        maps=tuple(str(attribute) for attribute in maps),
        inputs=tuple(operands[: len(operands) - len(results)]),
        outputs=results,
    )
    return msgspec.structs.replace(root, **classes)


def _indexing_maps(op: ir.Operation) -> list[Any]:
    is_linalg = op.name.startswith("linalg.")
    maps = (linalg.get_indexing_maps(op) or ()) if is_linalg else op.attributes.get("indexing_maps", ())
    return [ir.AffineMapAttr(attribute) for attribute in maps]


def _dimension_classes(op: ir.Operation, maps: Sequence[ir.AffineMap]) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return the op's kind and the compiler's classes of its dimensions, by field of ``RootOp``."""
    names: Sequence[str]
    if linalg.isa_contraction_op(op):
        kind, names, suffix = "contraction", ("batch", "m", "n", "k"), ""
        dimensions = linalg.infer_contraction_dimensions(op)
    elif linalg.isa_convolution_op(op):
        # IREE counts a pooling as a convolution, though it only looks at the size of its window.
        window = op.regions[0].blocks[0].arguments[1]
        kind, names, suffix = "convolution" if any(True for _ in window.uses) else "pooling", _CONVOLUTION_CLASSES, ""
        dimensions = linalg.infer_convolution_dimensions(op)
    elif op.name.startswith("linalg.") and iree_codegen.isa_scaled_contraction_op(op):
        scaled = iree_codegen.infer_scaled_contraction_dimensions(op)
        # The blocks that share a scale, and the elements of a block, are both summed.
        classes = {"batch": scaled.batch, "m": scaled.m, "n": scaled.n, "k": [*scaled.k, *scaled.kB]}
        return "scaled_contraction", {name: tuple(dims) for name, dims in classes.items()}
    elif op.name in (ATTENTION, ONLINE_ATTENTION):
        kind, names, suffix = "attention", ("batch", "m", "n", "k1", "k2"), "_dims"
        dimensions = iree_codegen.get_attention_op_detail(*maps[:3], maps[len(maps) - len(op.results)])
        if dimensions is None:
            raise UnknownDimensions("IREE cannot tell its dimensions from its indexing maps")
    else:
        return "other", {}
    return kind, {name: tuple(getattr(dimensions, f"{name}{suffix}")) for name in names}


def _loop_nest(
    op: ir.Operation, maps: Sequence[ir.AffineMap], operands: Sequence[Tensor]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the trip count and the kind of each loop.

    A loop's trip count is read from an operand with a dimension that the loop alone indexes. IREE has no op with a loop
    that never indexes a dimension alone: its verifier requires maps from shapes to loops.
    """
    if not maps:
        return (), ()
    sizes: dict[int, int] = {}
    for affine, operand in zip(maps, operands, strict=True):
        for expression, size in zip(affine.results, operand.shape, strict=True):
            if isinstance(expression, ir.AffineDimExpr):
                sizes.setdefault(expression.position, size)
    if len(sizes) != maps[0].n_dims:
        raise UnknownDimensions("the size of one of its loops cannot be read off its operands")
    outputs = len(op.results)
    parallel = {
        expression.position
        for affine in maps[len(maps) - outputs :]
        for expression in affine.results
        if isinstance(expression, ir.AffineDimExpr)
    }
    loops = tuple(sizes[position] for position in range(len(sizes)))
    return loops, tuple("parallel" if position in parallel else "reduction" for position in range(len(loops)))


def _pattern(root: ir.Operation) -> str:
    """Return the text of a module that holds a copy of the op, without attributes that only tell its origin."""
    module = ir.Module.create()
    with ir.InsertionPoint(module.body):
        function = func.FuncOp("pattern", ir.FunctionType.get([value.type for value in root.operands], []))
    with ir.InsertionPoint(function.add_entry_block()):
        copy = root.clone().operation
        func.ReturnOp([])
    for name in INCIDENTAL_ATTRIBUTES:
        if name in copy.attributes:
            del copy.attributes[name]
    for position, argument in enumerate(function.arguments):
        copy.operands[position] = argument
    sink_constants(copy)
    if any(_is_from_outside(value, copy) for inner in mlir.ops_inside(copy) for value in inner.operands):
        raise ValueFromOutside("its body uses a value from outside that is no constant, and no matcher can follow it")
    return str(module)


def sink_constants(op: ir.Operation) -> None:
    """Copy the constants that an op's body takes from outside into the body, in order of use.

    No matcher compares ops outside of a body. The meaning of the program does not change, and the compiler moves
    constants out again.
    """
    for region in op.regions:
        for block in region.blocks:
            _sink_into(block, op)


def _sink_into(block: ir.Block, op: ir.Operation) -> None:
    copies: dict[ir.Value, ir.Value] = {}
    outside = [
        (inner, position, value)
        for outer in block.operations
        for inner in mlir.walk(outer.operation)
        for position, value in enumerate(inner.operands)
        if _is_from_outside(value, op)
        and not isinstance(value.owner, ir.Block)
        and value.owner.name == "arith.constant"
    ]
    for inner, position, value in outside:
        if value not in copies:
            copies[value] = value.owner.clone(ip=ir.InsertionPoint(block.operations[len(copies)])).results[0]
        inner.operands[position] = copies[value]


def _is_from_outside(value: ir.Value, op: ir.Operation) -> bool:
    """Return whether a value that is used inside ``op`` is defined outside of it."""
    parent = value.owner.owner if isinstance(value.owner, ir.Block) else value.owner.parent
    while parent is not None:
        if parent.operation == op:
            return False
        parent = parent.operation.parent
    return True


def _pipeline_of(function: ir.Operation) -> str:
    """Return the name of the function's pipeline (``DoubleTilingExpert``), empty if it has none."""
    if "translation_info" not in function.attributes:
        return ""
    return mlir.pipeline_name(iree_codegen.TranslationInfoAttr(function.attributes["translation_info"]).pass_pipeline)


def _info_of(root: ir.Operation, function: ir.Operation) -> str:
    """Return the text of the ``compilation_info`` with the config and the pipeline of an op, empty if it lacks one."""
    if "lowering_config" not in root.attributes or "translation_info" not in function.attributes:
        return ""
    config, translation = root.attributes["lowering_config"], function.attributes["translation_info"]
    return str(iree_codegen.CompilationInfoAttr.get(config, iree_codegen.TranslationInfoAttr(translation)))


def _target_facts(variant: ir.Operation, processors: int) -> TargetFacts:
    """Read ``#hal.executable.target``. IREE has no bindings for it, so its dictionary is sliced out and parsed."""
    text = str(variant.attributes["target"])
    head, tail = text.find("{"), text.rfind("}")
    config = ir.DictAttr(ir.Attribute.parse(text[head : tail + 1])) if head >= 0 else ir.DictAttr.get({})
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
