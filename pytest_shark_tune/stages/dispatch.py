"""Dispatches: what a model is made of, read from the benchmark modules that iree-compile dumps."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from iree.compiler import ir, passmanager
from iree.compiler.dialects import arith, func, hal, iree_codegen, iree_gpu, linalg, util

from pytest_shark_tune.errors import InputError

__all__ = [
    "ATTENTION",
    "INCIDENTAL_ATTRIBUTES",
    "ONLINE_ATTENTION",
    "BenchmarkModule",
    "BufferView",
    "Dispatch",
    "FoundDispatch",
    "Intrinsic",
    "Member",
    "RootOp",
    "TargetFacts",
    "Tensor",
    "Untunable",
    "count_calls",
    "drop_configs",
    "function_inputs",
    "group_dispatches",
    "is_benchmark_module",
    "ops_named",
    "pipeline_name",
    "read_benchmark",
    "read_module",
    "sink_constants",
]

ATTENTION = "iree_linalg_ext.attention"
ONLINE_ATTENTION = "iree_linalg_ext.online_attention"
INCIDENTAL_ATTRIBUTES = ("root_op", "linalg.memoized_indexing_maps")
"""Attributes that say nothing of what an op computes: the tuner's mark and a cache of IREE's."""

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
_LOADS = {"iree_codegen.load_from_buffer", "iree_tensor_ext.dispatch.tensor.load"}
_STORES = {"iree_codegen.store_to_buffer", "iree_tensor_ext.dispatch.tensor.store"}
_CASTS = {"amdgpu.fat_raw_buffer_cast", "memref.assume_alignment", "memref.cast"}
_GPU_FACTS = "iree_codegen.target_info"
_BYTECODE_MAGIC = b"ML\xefR"
_BUFFER_VIEW = "!hal.buffer_view"
_BUFFER_FUNCTION = "shark_tune_buffer"


class Tensor(msgspec.Struct, frozen=True):
    """A statically shaped tensor type: ``shape`` in elements, ``element`` as MLIR spells it (``f32``).

    A scalar operand, as attention's scale is one, has the shape ``()``.
    """

    shape: tuple[int, ...]
    element: str


class RootOp(msgspec.Struct, frozen=True, kw_only=True):
    """The op whose lowering config decides how its dispatch is compiled, as plain data.

    ``kind`` is ``contraction``, ``convolution``, ``pooling``, ``attention`` or ``other``. ``loops`` holds the static
    trip count of each iteration dimension, ``iterators`` its kind (``parallel`` or ``reduction``). ``maps`` are the
    texts of the indexing maps, inputs first, then outputs. All three are empty for ops without indexing maps (packing,
    sorting).

    The classes of dimensions are positions in ``loops``: ``batch``, ``m``, ``n`` and ``k`` of a contraction; ``batch``,
    ``output_image``, ``output_channel``, ``filter_loop``, ``input_channel`` and ``depth`` (channels or groups that
    input, filter and output share) of a convolution or pooling, whose ``strides`` and ``dilations`` are numbers, one
    for each image dimension; ``batch``, ``m``, ``n``, ``k1`` (which query and key share) and ``k2`` (which key and
    value share) of attention.

    ``pattern`` is the text of a module whose one function holds a copy of the op, with its operands as arguments and
    constants that its body takes from outside moved into the body; it is empty for contractions, which are known by
    what else stands here.
    """

    op: str
    kind: str
    loops: tuple[int, ...]
    iterators: tuple[str, ...]
    maps: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: tuple[int, ...] = ()
    m: tuple[int, ...] = ()
    n: tuple[int, ...] = ()
    k: tuple[int, ...] = ()
    k1: tuple[int, ...] = ()
    k2: tuple[int, ...] = ()
    output_image: tuple[int, ...] = ()
    output_channel: tuple[int, ...] = ()
    filter_loop: tuple[int, ...] = ()
    input_channel: tuple[int, ...] = ()
    depth: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pattern: str = ""

    @property
    def key(self) -> str:
        """A hash of all that a matcher sees: ops of equal key need but one spec entry."""
        return hashlib.sha256(_structure(self)).hexdigest()[:16]

    @property
    def reduction_length(self) -> int:
        """How many terms each element of the result is made of: at least 1."""
        return math.prod(
            size for size, iterator in zip(self.loops, self.iterators, strict=True) if iterator == "reduction"
        )


class Intrinsic(msgspec.Struct, frozen=True, kw_only=True):
    """A matrix instruction of a GPU: the text of its attribute, the sizes M, N and K, and the types of A, B and C."""

    attribute: str
    shape: tuple[int, int, int]
    elements: tuple[str, str, str]


class TargetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a space needs to know of the target, read from ``#hal.executable.target``.

    ``native_vector_bytes`` is the width of a vector register, ``max_stack_bytes`` the compiler's limit on
    stack allocations of one dispatch, ``processors`` the number of workers that share a dispatch.

    A GPU has a number of threads that run in step (``subgroup_sizes``, the compiler's choice first), limits on the
    threads of a workgroup along x, y and z (``max_workgroup_sizes``) and in all (``max_threads``), so much memory that
    they share, and perhaps matrix instructions. These are empty or 0 on a CPU.
    """

    backend: str
    architecture: str = ""
    native_vector_bytes: int = 16
    max_stack_bytes: int = 32768
    processors: int = 1
    subgroup_sizes: tuple[int, ...] = ()
    max_workgroup_sizes: tuple[int, ...] = ()
    max_threads: int = 0
    shared_memory_bytes: int = 0
    intrinsics: tuple[Intrinsic, ...] = ()


class BufferView(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor inside the benchmark's buffer, as the dispatch sees it.

    ``offset_bytes`` counts from the start of the whole buffer. A view that is read holds input data, one
    that is written holds a result, and one that is both accumulates.
    """

    offset_bytes: int
    shape: tuple[int, ...]
    element: str
    reads: bool
    writes: bool


class BenchmarkModule(msgspec.Struct, frozen=True, kw_only=True):
    """A stripped executable benchmark module with a function added that returns its buffer.

    ``run_function`` takes an i32 batch size and runs the dispatch that many times; ``buffer_function`` takes
    nothing and returns the buffer of ``buffer_bytes`` bytes as a ``!hal.buffer_view`` of i8.

    The buffer holds ``copies`` of the views at equal distances, of which ``views`` are the first; dispatches take turns
    through them (see `rotation`).
    """

    text: str
    run_function: str
    buffer_function: str
    buffer_bytes: int
    views: tuple[BufferView, ...]
    copies: int = 1


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One dispatch of a group: ``symbol`` is its executable's name in ``source``, ``calls`` how often it is called."""

    symbol: str
    source: str
    calls: int
    module: BenchmarkModule
    element_ops: int = 0


class Dispatch(msgspec.Struct, frozen=True, kw_only=True):
    """A tuning task: every dispatch that one matcher matches. The first member is the one measured.

    ``default_pipeline`` (``DoubleTilingExpert``), ``default_config`` (the text of the lowering config
    attribute) and ``default_info`` (that of a ``compilation_info`` for both) are what the compiler chooses without a
    spec; empty where it chooses none.
    """

    name: str
    root: RootOp
    target: TargetFacts
    default_pipeline: str
    default_config: str
    default_info: str = ""
    members: tuple[Member, ...]

    @property
    def key(self) -> str:
        """That of its root op: two dispatches of equal key need but one spec entry."""
        return self.root.key

    @property
    def weight(self) -> int:
        """How many calls, over all members, an entry for this dispatch makes faster."""
        return sum(member.calls for member in self.members)


class Untunable(msgspec.Struct, frozen=True):
    """A dispatch that cannot be tuned, with the reason in words, and its share of its model's time if that is known."""

    name: str
    source: str
    reason: str
    share: float | None = None


class FoundDispatch(msgspec.Struct, frozen=True, kw_only=True):
    """A tunable dispatch of one benchmark module, before dispatches that look alike are grouped."""

    symbol: str
    source: str
    root: RootOp
    target: TargetFacts
    default_pipeline: str
    default_config: str
    default_info: str = ""
    module: BenchmarkModule


class _CannotTune(Exception):
    """Why a benchmark module holds nothing to tune, in words."""


def read_module(content: bytes) -> str:
    """The text of a module that is stored as text or as bytecode.

    Raises:
        InputError: the content is neither.
    """
    if not content.startswith(_BYTECODE_MAGIC):
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"it is neither MLIR text nor MLIR bytecode: {error}") from error
    with ir.Context() as context:
        context.allow_unregistered_dialects = True
        return str(_parse(content))


def is_benchmark_module(text: str) -> bool:
    """Whether ``text`` is an executable benchmark module that iree-compile dumped.

    A text that does not parse here is none: it may hold a dialect that only iree-compile knows.
    """
    with ir.Context() as context:
        context.allow_unregistered_dialects = True
        try:
            module = _parse(text)
        except InputError:
            return False
        return any(
            "iree.benchmark" in ir.DictAttr(op.attributes["iree.reflection"])
            for op in module.body.operations
            if op.name == "util.func" and "iree.reflection" in op.attributes
        )


def read_benchmark(text: str, source: str, *, processors: int) -> FoundDispatch | Untunable:
    """Read a dumped executable benchmark module; ``processors`` share one dispatch on the target.

    The module that comes back is stripped of every config and has a function that returns its buffer.

    Raises:
        InputError: the text is no MLIR that this IREE parses.
    """
    with ir.Context() as context, ir.Location.unknown():
        context.enable_multithreading(False)
        module = _parse(text)
        symbol = next(_string(op, "sym_name") for op in module.body.operations if op.name == "hal.executable")
        try:
            return _read(module, symbol, source, processors)
        except _CannotTune as reason:
            return Untunable(symbol, source, str(reason))


def drop_configs(module: ir.Module) -> None:
    """Take every lowering config, compilation info and translation info off a module; ``root_op`` marks stay.

    IREE's pass drops them from linalg and attention ops alone, so packing, sorting and scanning ops would keep theirs.
    """
    passmanager.PassManager.parse("builtin.module(iree-codegen-strip-compilation-info)").run(module.operation)

    def visit(op: ir.Operation) -> ir.WalkResult:
        for name in ("lowering_config", "compilation_info"):
            if name in op.attributes:
                del op.attributes[name]
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)


def group_dispatches(found: Iterable[FoundDispatch], calls: Mapping[tuple[str, str], int]) -> tuple[Dispatch, ...]:
    """Make one task of the dispatches that no matcher can tell apart, in the order in which they were found.

    A matcher sees the root op alone: its kind, layout, element types and sizes. ``calls`` counts the calls
    by (source, symbol); a dispatch that is missing there is called once. Where two tasks would share a name,
    each gets a short hash of its structure at the end.
    """
    groups: defaultdict[bytes, list[FoundDispatch]] = defaultdict(list)
    for dispatch in found:
        groups[_structure(dispatch.root)].append(dispatch)
    with ir.Context():
        plain_names = [_name(members[0].root) for members in groups.values()]
    names = Counter(plain_names)
    dispatches = []
    for name, (structure, members) in zip(plain_names, groups.items(), strict=True):
        if names[name] > 1:
            name = f"{name}_{hashlib.sha256(structure).hexdigest()[:4]}"
        first = members[0]
        dispatches.append(
            Dispatch(
                name=name,
                root=first.root,
                target=first.target,
                default_pipeline=first.default_pipeline,
                default_config=first.default_config,
                default_info=first.default_info,
                members=tuple(
                    Member(
                        symbol=member.symbol,
                        source=member.source,
                        calls=calls.get((member.source, member.symbol), 1),
                        module=member.module,
                    )
                    for member in members
                ),
            )
        )
    return tuple(dispatches)


def count_calls(flow_text: str) -> dict[str, int]:
    """How often each executable is called in a module at phase ``flow``; a call in a loop counts once."""
    calls: Counter[str] = Counter()

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name == "flow.dispatch":
            for entry_point in ir.ArrayAttr(op.attributes["entry_points"]):
                calls[ir.SymbolRefAttr(entry_point).value[0]] += 1
        return ir.WalkResult.ADVANCE

    with ir.Context():
        _parse(flow_text).operation.walk(visit)
    return dict(calls)


def function_inputs(input_text: str) -> dict[str, tuple[Tensor, ...]]:
    """The public functions of a module at phase ``input`` and the tensors that each takes.

    Functions that take anything but statically shaped tensors are left out: nothing can be fed to them. What was
    imported from ONNX takes buffer views by then, which it imports as tensors, itself or in a function that it calls.
    """
    functions = {}
    with ir.Context():
        module = _parse(input_text)
        defined = {
            _string(op, "sym_name"): op
            for op in module.body.operations
            if op.name in {"func.func", "util.func"} and op.regions[0].blocks
        }
        for name, op in defined.items():
            if "sym_visibility" in op.attributes and _string(op, "sym_visibility") != "public":
                continue
            arguments = op.regions[0].blocks[0].arguments
            try:
                functions[name] = tuple(_tensor(_fed(argument, defined)) for argument in arguments)
            except _CannotTune:
                continue
    return functions


def _fed(argument: ir.Value, defined: Mapping[str, ir.Operation]) -> ir.Type:
    """The type of an argument, or that of the tensor that a buffer view is imported as: any where nothing uses it."""
    if argument.type != ir.Type.parse(_BUFFER_VIEW):
        return argument.type
    if not list(argument.uses):
        return ir.Type.parse("tensor<1xf32>")
    for use in argument.uses:
        user = use.owner.operation  # As a view its ``name`` may be an attribute of that name.
        if user.name == "hal.tensor.import":
            return user.results[0].type
        if user.name == "util.call":
            callee = ir.FlatSymbolRefAttr(user.attributes["callee"]).value
            if callee in defined:
                return _fed(defined[callee].regions[0].blocks[0].arguments[use.operand_number], defined)
    return argument.type


def _read(module: ir.Module, symbol: str, source: str, processors: int) -> FoundDispatch:
    roots = iree_codegen.get_tuner_root_ops(module)
    if not roots:
        raise _CannotTune(
            "the compiler marks no root op in it (a benchmark file needs "
            "--iree-codegen-add-tuner-attributes when it is dumped)"
            if not _has_compute(module)
            else "the compiler marks no root op in it"
        )
    if len(roots) > 1:
        raise _CannotTune(f"it has {len(roots)} root ops, and a config is for one")
    root = roots[0]
    facts = _root_op(root)
    function = _parent(root, "func.func")
    default_config = str(root.attributes["lowering_config"]) if "lowering_config" in root.attributes else ""
    default_pipeline, default_info = _pipeline(function), _compilation_info(root, function)
    target = _target_facts(_parent(root, "hal.executable.variant"), processors)
    drop_configs(module)
    (root,) = iree_codegen.get_tuner_root_ops(module)
    return FoundDispatch(
        symbol=symbol,
        source=source,
        root=facts if facts.kind == "contraction" else msgspec.structs.replace(facts, pattern=_pattern(root)),
        target=target,
        default_pipeline=default_pipeline,
        default_config=default_config,
        default_info=default_info,
        module=_benchmark_module(module, function),
    )


def _has_compute(module: ir.Module) -> bool:
    found = False

    def visit(op: ir.Operation) -> ir.WalkResult:
        nonlocal found
        found = found or op.name.startswith(("linalg.", "iree_linalg_ext."))
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found


def _root_op(op: ir.Operation) -> RootOp:
    if not op.results:
        raise _CannotTune(f"its root op {op.name} copies between buffers, and specs are for ops on tensors")
    operands = [_tensor(value.type, scalars=True) for value in op.operands]
    results = tuple(_tensor(value.type) for value in op.results)
    maps = _indexing_maps(op)
    affine = [attribute.value for attribute in maps]
    loops, iterators = _loops(op, affine, operands)
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
    """The op's kind and, by ``RootOp``'s field, what the compiler says of its dimensions."""
    if linalg.isa_contraction_op(op):
        return "contraction", _plain(linalg.infer_contraction_dimensions(op), ("batch", "m", "n", "k"))
    if linalg.isa_convolution_op(op):
        # A pooling counts as a convolution in IREE, though it only looks at the size of its window.
        window = op.regions[0].blocks[0].arguments[1]
        kind = "convolution" if any(True for _ in window.uses) else "pooling"
        return kind, _plain(linalg.infer_convolution_dimensions(op), _CONVOLUTION_CLASSES)
    if op.name in (ATTENTION, ONLINE_ATTENTION):
        query, key, value = maps[:3]
        detail = iree_codegen.get_attention_op_detail(query, key, value, maps[len(maps) - len(op.results)])
        if detail is None:
            raise _CannotTune("IREE cannot tell its dimensions from its indexing maps")
        names = ("batch", "m", "n", "k1", "k2")
        return "attention", {name: tuple(getattr(detail, f"{name}_dims")) for name in names}
    return "other", {}


def _plain(dimensions: Any, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(dimensions, name)) for name in names}


def _loops(
    op: ir.Operation, maps: Sequence[ir.AffineMap], operands: Sequence[Tensor]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Trip count and kind of each loop: a dimension's size is read off an operand that it indexes alone.

    IREE has no op where a dimension is never alone: its verifier asks for maps from shapes to loops.
    """
    if not maps:
        return (), ()
    sizes: dict[int, int] = {}
    for affine, operand in zip(maps, operands, strict=True):
        for expression, size in zip(affine.results, operand.shape, strict=True):
            if isinstance(expression, ir.AffineDimExpr):
                sizes.setdefault(expression.position, size)
    if len(sizes) != maps[0].n_dims:
        raise _CannotTune("the size of one of its loops cannot be read off its operands")
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
    """The text of a module that holds a copy of the op, and nothing that it does not need.

    Attributes that only say how the op came about are left out.
    """
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
    if any(_is_from_outside(value, copy) for inner in _inner(copy) for value in inner.operands):
        raise _CannotTune("its body uses a value from outside that is no constant, and no matcher can follow it")
    return str(module)


def sink_constants(op: ir.Operation) -> None:
    """Move copies of the constants that an op's body takes from outside into the body, one for each, in order of use.

    No matcher compares what lies outside a body. The program means the same, and the compiler moves them out again.
    """
    for region in op.regions:
        for block in region.blocks:
            _sink_into(block, op)


def _sink_into(block: ir.Block, op: ir.Operation) -> None:
    copies: dict[ir.Value, ir.Value] = {}
    outside = [
        (inner, position, value)
        for outer in block.operations
        for inner in (outer.operation, *_inner(outer.operation))
        for position, value in enumerate(inner.operands)
        if _is_from_outside(value, op) and _defined_by(value) == "arith.constant"
    ]
    for inner, position, value in outside:
        if value not in copies:
            copies[value] = value.owner.clone(ip=ir.InsertionPoint(block.operations[len(copies)])).results[0]
        inner.operands[position] = copies[value]


def _is_from_outside(value: ir.Value, op: ir.Operation) -> bool:
    """Whether a value that is used inside ``op`` is defined outside it."""
    parent = value.owner.owner if isinstance(value.owner, ir.Block) else value.owner.parent
    while parent is not None:
        if parent.operation == op:
            return False
        parent = parent.operation.parent
    return True


def _defined_by(value: ir.Value) -> str:
    return "" if isinstance(value.owner, ir.Block) else str(value.owner.name)


def _inner(op: ir.Operation) -> list[ir.Operation]:
    """All ops inside ``op``, itself left out, in order."""
    found: list[ir.Operation] = []

    def visit(inner: ir.Operation) -> ir.WalkResult:
        if inner != op:
            found.append(inner)
        return ir.WalkResult.ADVANCE

    op.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found


def _tensor(kind: ir.Type, *, scalars: bool = False) -> Tensor:
    if scalars and isinstance(kind, ir.FloatType | ir.IntegerType | ir.IndexType):
        return Tensor((), str(kind))
    try:
        shaped = ir.ShapedType(kind)
    except ValueError:
        raise _CannotTune(f"it has an operand of type {kind}, and only tensors can be filled with data") from None
    if not shaped.has_static_shape:
        raise _CannotTune(f"it has dynamic dimensions ({kind}): fix the input shapes")
    if 0 in shaped.shape:
        raise _CannotTune(f"it has a dimension of size 0 ({kind})")
    return Tensor(tuple(shaped.shape), str(shaped.element_type))


def _pipeline(function: ir.Operation) -> str:
    """The name of the function's pipeline (``DoubleTilingExpert``), empty where it has none."""
    if "translation_info" not in function.attributes:
        return ""
    return pipeline_name(iree_codegen.TranslationInfoAttr(function.attributes["translation_info"]))


def pipeline_name(translation_info: Any) -> str:
    """The name of the pipeline in a ``TranslationInfoAttr`` (``DoubleTilingExpert``)."""
    attribute = str(translation_info.pass_pipeline)
    return attribute[attribute.find("<") + 1 : attribute.rfind(">")] if "<" in attribute else attribute


def _compilation_info(root: ir.Operation, function: ir.Operation) -> str:
    """The text of the attribute that would apply what is in force, empty where there is none."""
    if "lowering_config" not in root.attributes or "translation_info" not in function.attributes:
        return ""
    config, translation = root.attributes["lowering_config"], function.attributes["translation_info"]
    return str(iree_codegen.CompilationInfoAttr.get(config, iree_codegen.TranslationInfoAttr(translation)))


def _target_facts(variant: ir.Operation, processors: int) -> TargetFacts:
    """Read ``#hal.executable.target``, for which IREE has no bindings: its dictionary is sliced out and parsed."""
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
    """What ``TargetFacts`` says of GPUs alone."""
    info = iree_gpu.TargetInfo.get_gpu_target_info(target)
    return {
        "subgroup_sizes": tuple(info.subgroup_size_choices),
        "max_workgroup_sizes": tuple(info.max_workgroup_sizes),
        "max_threads": info.max_thread_count_per_workgroup,
        "shared_memory_bytes": info.max_workgroup_memory_bytes,
        "intrinsics": tuple(
            _intrinsic(iree_gpu.MMAAttr.get(each))
            for each in info.mma_intrinsics
            if isinstance(each, iree_gpu.MMAIntrinsic)
        ),
    }


def _intrinsic(attribute: Any) -> Intrinsic:
    lhs, rhs, result = attribute.abc_element_types
    return Intrinsic(
        attribute=str(attribute),
        shape=tuple(attribute.mnk_shape),
        elements=(str(lhs), str(rhs), str(result)),
    )


def _benchmark_module(module: ir.Module, function: ir.Operation) -> BenchmarkModule:
    runner = next(op for op in module.body.operations if op.name == "util.func" and "iree.reflection" in op.attributes)
    call = _only(runner, "hal.command_buffer.dispatch").opview
    buffer_name = ir.FlatSymbolRefAttr(_only(runner, "util.global.load").attributes["global"]).value
    constants = [_constant(value) for value in call.constants]
    offsets = [_constant(value) for value in call.binding_offsets]
    lengths = [_constant(value) for value in call.binding_lengths]
    views = []
    for subspan in ops_named(function, "hal.interface.binding.subspan"):
        binding = ir.IntegerAttr(subspan.attributes["binding"]).value
        offset = subspan.operands[0]
        views.append(_view(subspan, offsets[binding] + _evaluate(offset, constants)))
    total = max(offset + length for offset, length in zip(offsets, lengths, strict=True))
    _add_buffer_function(module, buffer_name, total)
    return BenchmarkModule(
        text=str(module),
        run_function=_string(runner, "sym_name"),
        buffer_function=_BUFFER_FUNCTION,
        buffer_bytes=total,
        views=tuple(views),
    )


def _view(subspan: ir.Operation, offset_bytes: int) -> BufferView:
    users = _users(subspan.results[0])
    memref = _tensor(_buffer_type(subspan.results[0].type))
    known = users <= _LOADS | _STORES
    return BufferView(
        offset_bytes=offset_bytes,
        shape=memref.shape,
        element=memref.element,
        # What only a part is written of keeps the rest, which must be the same before each run.
        reads=not known or bool(users & _LOADS) or _is_written_in_part(subspan.results[0], memref),
        writes=not known or bool(users & _STORES),
    )


def _buffer_type(kind: ir.Type) -> ir.Type:
    """What a binding holds: backends that keep ``!iree_tensor_ext.dispatch.tensor<readonly:TYPE>`` name it inside.

    IREE has no bindings for that type, so its text is sliced and parsed.
    """
    text = str(kind)
    if not text.startswith("!iree_tensor_ext.dispatch.tensor<"):
        return kind
    return ir.Type.parse(text[text.index(":") + 1 : -1])


def _users(value: ir.Value) -> set[str]:
    """The names of the ops that read or write a buffer, directly, cast, or through a view of a part of it."""
    names: set[str] = set()
    for use in value.uses:
        names |= _users(use.owner.results[0]) if use.owner.name in {*_CASTS, "memref.subview"} else {use.owner.name}
    return names


def _is_written_in_part(value: ir.Value, whole: Tensor) -> bool:
    for use in value.uses:
        if use.owner.name in _CASTS:
            if _is_written_in_part(use.owner.results[0], whole):
                return True
        elif use.owner.name == "memref.subview":
            return True
        elif use.owner.name == "iree_tensor_ext.dispatch.tensor.store":
            stored = ir.ShapedType(use.owner.operands[0].type)
            if not stored.has_static_shape or tuple(stored.shape) != whole.shape:
                return True
    return False


def _add_buffer_function(module: ir.Module, buffer_name: str, total: int) -> None:
    view_type = ir.Type.parse("!hal.buffer_view")
    signature = ir.TypeAttr.get(ir.FunctionType.get([], [view_type]))
    with ir.InsertionPoint(module.body):
        function = util.FuncOp(_BUFFER_FUNCTION, signature, sym_visibility="public")
    function.attributes["iree.abi.stub"] = ir.UnitAttr.get()
    with ir.InsertionPoint(function.regions[0].blocks.append()):
        buffer = util.GlobalLoadOp(ir.Type.parse("!hal.buffer"), ir.FlatSymbolRefAttr.get(buffer_name)).result
        start, length = (arith.constant(ir.IndexType.get(), value) for value in (0, total))
        element = hal.ElementTypeOp(ir.TypeAttr.get(ir.IntegerType.get_signless(8))).result
        encoding = hal.EncodingTypeOp().result
        view = hal.BufferViewCreateOp(buffer, start, length, element, encoding, [length]).result
        util.ReturnOp([view])


def _evaluate(value: ir.Value, constants: Sequence[int]) -> int:
    """The value of an index that a dispatch computes from the constants that it is called with.

    Offsets are passed as one or two i32 constants; the ops below are those that put them together again.
    """
    op = value.owner
    if isinstance(op, ir.Block):
        raise _CannotTune("an offset into its buffer is not a constant")
    if isinstance(op, ir.OpView):
        op = op.operation
    match op.name:
        case "arith.constant":
            return int(ir.IntegerAttr(op.attributes["value"]).value)
        case "hal.interface.constant.load":
            return constants[int(ir.IntegerAttr(op.attributes["ordinal"]).value)]
        case "arith.index_cast" | "arith.index_castui" | "arith.extui" | "arith.extsi":
            return _evaluate(op.operands[0], constants)
        case "arith.shli":
            return _evaluate(op.operands[0], constants) << _evaluate(op.operands[1], constants)
        case "arith.ori":
            return _evaluate(op.operands[0], constants) | _evaluate(op.operands[1], constants)
        case "util.assume.int":
            return _evaluate(op.operands[ir.OpResult(value).result_number], constants)
        case _:
            raise _CannotTune(f"an offset into its buffer comes from {op.name}, which is not followed")


def _constant(value: ir.Value) -> int:
    return _evaluate(value, ())


def _structure(root: RootOp) -> bytes:
    """What a matcher sees of a dispatch; dispatches that agree in it are one task.

    A contraction is matched by its maps, sizes and types, however its op is spelled.
    """
    return msgspec.json.encode(msgspec.structs.replace(root, op="") if root.kind == "contraction" else root)


def _name(root: RootOp) -> str:
    """The dispatch's name: op, sizes, element types, in the manner of IREE's own names."""
    elements = [tensor.element for tensor in (*root.inputs[:2], root.outputs[0])]
    if root.kind in {"attention", "pooling"}:
        elements = elements[:1]  # Online attention sums in f32 whatever it is given; a window has no type of interest.
    types = elements[0] if len(set(elements)) == 1 else "x".join(elements)
    return f"{_NAMERS.get(root.kind, _other_name)(root)}_{types}"


def _contraction_name(root: RootOp) -> str:
    op = root.op.rpartition(".")[2]
    if op == "generic":
        op = "batch_matmul_like" if root.batch else "matmul_like"
    return f"{op}_{_by(root.loops)}"


def _other_name(root: RootOp) -> str:
    """Say what a generic does, as far as its loops tell."""
    op = root.op.rpartition(".")[2]
    if op == "generic":
        plain = len(root.inputs) == 1 and len(set(root.maps)) > 1
        op = "reduction" if "reduction" in root.iterators else "transpose" if plain else "elementwise"
    return f"{op}_{_by(root.loops or root.outputs[0].shape)}"


def _convolution_name(root: RootOp) -> str:
    """``conv_2d_nhwc_hwcf_2x32x32x1280_3x3x1280``: layouts, the result's shape, the filter's and its input channels.

    A class of several dimensions repeats its letter, so that a blocked layout shows.
    """
    spatial = "dhw"[-len(root.output_image) :] if 0 < len(root.output_image) <= len("dhw") else ""
    shared = "g" if root.input_channel or root.output_channel else "c"
    letters = {
        **dict.fromkeys(root.batch, "n"),
        **dict.fromkeys(root.output_channel, "f"),
        **dict.fromkeys(root.input_channel, "c"),
        **dict.fromkeys(root.depth, shared),
    }
    for dims in (root.output_image, root.filter_loop):
        letters |= dict(zip(dims, spatial or "x" * len(dims), strict=False))
    kind = {"c": "depthwise_conv", "g": "grouped_conv"}[shared] if root.depth else "conv"
    image, kernel = (_layout(text, letters) for text in root.maps[:2])
    sizes = _by([root.loops[dim] for dim in (*root.filter_loop, *root.input_channel)])
    name = f"{kind}_{len(root.output_image)}d_{image}_{kernel}_{_by(root.outputs[0].shape)}_{sizes}"
    return name + _moves(root)


def _pooling_name(root: RootOp) -> str:
    window = _by([root.loops[dim] for dim in root.filter_loop])
    return f"pooling_{len(root.output_image)}d_{_by(root.outputs[0].shape)}_{window}{_moves(root)}"


def _moves(root: RootOp) -> str:
    """Strides and dilations where they are not all 1."""
    named = (("s", root.strides), ("d", root.dilations))
    return "".join(f"_{letter}{_by(steps)}" for letter, steps in named if set(steps) - {1})


def _attention_name(root: RootOp) -> str:
    """``attention_20x1024x64``: batches, queries, a value's width; the keys' number and width where they differ."""
    sizes = {name: [root.loops[dim] for dim in getattr(root, name)] for name in ("batch", "m", "n", "k1", "k2")}
    masked = "masked_" if len(root.inputs) > len(("query", "key", "value", "scale")) else ""
    same = sizes["k1"] == sizes["n"] and sizes["k2"] == sizes["m"]
    keys = "" if same else f"_k{_by([*sizes['k2'], *sizes['k1']])}"
    return f"{masked}attention_{_by([*sizes['batch'], *sizes['m'], *sizes['n']])}{keys}"


def _layout(text: str, letters: Mapping[int, str]) -> str:
    """One letter for each dimension of an operand, by the first class that its index belongs to."""
    results = ir.AffineMapAttr(ir.Attribute.parse(text)).value.results
    return "".join(next((letters[dim] for dim in _dims(result) if dim in letters), "x") for result in results)


def _dims(expression: ir.AffineExpr) -> list[int]:
    if isinstance(expression, ir.AffineDimExpr):
        return [expression.position]
    if isinstance(expression, ir.AffineBinaryExpr):
        return [*_dims(expression.lhs), *_dims(expression.rhs)]
    return []


def _by(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))


_NAMERS: Mapping[str, Callable[[RootOp], str]] = {
    "contraction": _contraction_name,
    "convolution": _convolution_name,
    "pooling": _pooling_name,
    "attention": _attention_name,
}


def _parse(text: str | bytes) -> ir.Module:
    try:
        return ir.Module.parse(text)
    except ir.MLIRError as error:
        first = error.error_diagnostics[0] if error.error_diagnostics else None
        where = f"{first.location}: {first.message}" if first else str(error)
        raise InputError(f"it is not MLIR that this IREE parses: {where}") from error


def _parent(op: ir.Operation, name: str) -> ir.Operation:
    while op.name != name:
        op = op.parent
    return op


def ops_named(op: ir.Operation, name: str) -> list[ir.Operation]:
    """The ops of that name inside ``op``, in the order of a walk."""
    found: list[ir.Operation] = []

    def visit(inner: ir.Operation) -> ir.WalkResult:
        if inner.name == name:
            found.append(inner)
        return ir.WalkResult.ADVANCE

    op.walk(visit)
    return found


def _only(op: ir.Operation, name: str) -> ir.Operation:
    found = ops_named(op, name)
    if len(found) != 1:
        raise _CannotTune(f"its benchmark has {len(found)} {name} ops instead of one")
    return found[0]


def _string(op: ir.Operation, name: str) -> str:
    return str(ir.StringAttr(op.attributes[name]).value)
