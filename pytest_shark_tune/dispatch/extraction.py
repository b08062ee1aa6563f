"""Extraction: reads dispatches from the benchmark modules that iree-compile dumps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from iree.compiler import ir, passmanager
from iree.compiler.dialects import func, iree_codegen, linalg
from msgspec.structs import replace

from pytest_shark_tune.dispatch import mlir
from pytest_shark_tune.dispatch.buffers import Run, add_buffer_functions, benchmark_module, runs_in
from pytest_shark_tune.dispatch.foreign.bytecode import bytecode_text
from pytest_shark_tune.dispatch.open_sizes import SizedCall, freeze_sizes
from pytest_shark_tune.dispatch.reasons import (
    CannotTune,
    CopiesBuffers,
    NoRootOp,
    PinnedConfig,
    SeveralRootOps,
    UnknownDimensions,
    ValueFromOutside,
)
from pytest_shark_tune.dispatch.target_facts import target_facts
from pytest_shark_tune.dispatch.types import (
    ATTENTION,
    INCIDENTAL_ATTRIBUTES,
    ONLINE_ATTENTION,
    BenchmarkModule,
    FoundDispatch,
    RootOp,
    SizedModule,
    SizePoint,
    Tensor,
    Untunable,
)
from pytest_shark_tune.errors import InputError

__all__ = [
    "EXTRACTION_VERSION",
    "benchmarked_symbol",
    "drop_configs",
    "is_benchmark_module",
    "read_benchmark",
    "read_module",
    "sink_constants",
]

EXTRACTION_VERSION: Final = 4
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
_BYTECODE_MAGIC = b"ML\xefR"


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
    text: str,
    source: str,
    *,
    processors: int,
    flags: Sequence[str] = (),
    has_configs: bool = False,
    sized: Sequence[tuple[SizePoint, SizedCall]] = (),
) -> FoundDispatch | Untunable:
    """Read a dumped executable benchmark module.

    Args:
        text: The text of the module.
        source: The name of the source that the dispatch belongs to.
        processors: The number of workers that share a dispatch on the target.
        flags: The flags of its model's form on which its code depends.
        has_configs: Whether the source has configs of its own.
        sized: Of a dispatch with open sizes: the sizes at which it is measured, with its call at each of them.

    Returns:
        The dispatch, with a module without configs and with a function that returns its buffer; or the reason why the
        dispatch cannot be tuned.

    Raises:
        InputError: The text is no MLIR that this IREE parses.
    """
    with mlir.shared_context():
        module = mlir.parse_module(text)
        symbol = _executable_name(module)
        try:
            found = _read_dispatch(module, symbol, source, processors, sized, has_configs=has_configs)
        except CannotTune as reason:
            return Untunable.of(symbol, source, reason)
    return replace(
        found,
        module=replace(found.module, flags=tuple(flags)),
        sized=tuple(replace(part, module=replace(part.module, flags=tuple(flags))) for part in found.sized),
    )


def benchmarked_symbol(text: str) -> str:
    """Return the name of the executable in a dumped benchmark module.

    Raises:
        InputError: The text is no MLIR that this IREE parses.
    """
    with mlir.shared_context():
        return _executable_name(mlir.parse_module(text))


def _executable_name(module: ir.Module) -> str:
    return next(mlir.string_of(op, "sym_name") for op in module.body.operations if op.name == "hal.executable")


def drop_configs(module: ir.Module) -> None:
    """Remove every lowering config, compilation info and translation info from a module; ``root_op`` marks stay.

    IREE's pass removes them from linalg and attention ops only, so packing, sorting and scanning ops would keep theirs.
    """
    passmanager.PassManager.parse("builtin.module(iree-codegen-strip-compilation-info)").run(module.operation)
    for op in mlir.walk(module.operation):
        for name in ("lowering_config", "compilation_info"):
            if name in op.attributes:
                del op.attributes[name]


def _read_dispatch(
    module: ir.Module,
    symbol: str,
    source: str,
    processors: int,
    sized: Sequence[tuple[SizePoint, SizedCall]],
    *,
    has_configs: bool,
) -> FoundDispatch:
    roots = iree_codegen.get_tuner_root_ops(module)
    if not roots:
        configured = [op.name for op in mlir.walk(module.operation) if "lowering_config" in op.attributes]
        if has_configs and configured:
            # On GPUs the op that fills the result has a config too, which the compiler derives from the other's.
            pinned = next((name for name in configured if name != "linalg.fill"), configured[0])
            raise PinnedConfig(f"the model pins its config: {pinned} carries a compilation_info of its own")
        raise NoRootOp("the compiler marks no root op in it")
    if len(roots) > 1:
        raise SeveralRootOps(f"it has {len(roots)} root ops, and a config is for one")
    root = roots[0]
    function = mlir.parent_named(root, "func.func")
    default_config = str(root.attributes["lowering_config"]) if "lowering_config" in root.attributes else ""
    default_pipeline, default_info = _pipeline_of(function), _info_of(root, function)
    target = target_facts(mlir.parent_named(root, "hal.executable.variant"), processors)
    drop_configs(module)
    (root,) = iree_codegen.get_tuner_root_ops(module)
    runs = list(runs_in(module))
    if sized:
        of_call = {(run.constants, run.lengths): run for run in runs}
        runs = [of_call[call.constants, call.lengths] for _, call in sized]
    else:
        runs = runs[:1]
    buffers = add_buffer_functions(module, runs)
    text = str(module)
    if sized:
        read = [_read_run(text, run, buffers[run.name]) for run in runs]
    else:
        read = [(_root_op(root), benchmark_module(text, function, root, runs[0], buffers[runs[0].name]))]
    root_op = max((found for found, _ in read), key=lambda found: math.prod(found.loops))
    if sized:
        root_op = replace(root_op, open=_open_loops(root))
    return FoundDispatch(
        symbol=symbol,
        source=source,
        root=root_op if root_op.kind == "contraction" else replace(root_op, pattern=_pattern(root)),
        target=target,
        default_pipeline=default_pipeline,
        default_config=default_config,
        default_info=default_info,
        module=read[0][1],
        sized=tuple(
            SizedModule(point=point, module=found) for (point, _), (_, found) in zip(sized, read, strict=False)
        ),
    )


def _read_run(text: str, run: Run, buffer: str) -> tuple[RootOp, BenchmarkModule]:
    """Read the root op of a module with open sizes, and the module itself, at the sizes of one of its runs."""
    module = mlir.parse_module(text)
    (root,) = iree_codegen.get_tuner_root_ops(module)
    function = mlir.parent_named(root, "func.func")
    freeze_sizes(function, run.constants)
    return _root_op(root), benchmark_module(text, function, root, run, buffer)


def _open_loops(root: ir.Operation) -> tuple[int, ...]:
    """Return the loops whose trip count no operand shows: the first that a loop indexes alone counts."""
    sizes: dict[int, bool] = {}
    for affine, operand in zip(_indexing_maps(root), root.operands, strict=True):
        for dimension, index in enumerate(affine.value.results):
            if isinstance(index, ir.AffineDimExpr):
                sizes.setdefault(index.position, ir.ShapedType(operand.type).is_dynamic_dim(dimension))
    return tuple(sorted(position for position, is_open in sizes.items() if is_open))


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
