"""Dispatches: what a model is made of, read from the benchmark modules that iree-compile dumps."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from iree.compiler import ir, passmanager
from iree.compiler.dialects import arith, hal, iree_codegen, linalg, util

from pytest_shark_tune.errors import InputError

__all__ = [
    "BenchmarkModule",
    "BufferView",
    "Dispatch",
    "FoundDispatch",
    "Member",
    "RootOp",
    "TargetFacts",
    "Tensor",
    "Untunable",
    "count_calls",
    "function_inputs",
    "group_dispatches",
    "is_benchmark_module",
    "read_benchmark",
    "read_module",
]

_BYTECODE_MAGIC = b"ML\xefR"
_BUFFER_FUNCTION = "shark_tune_buffer"


class Tensor(msgspec.Struct, frozen=True):
    """A statically shaped tensor type: ``shape`` in elements, ``element`` as MLIR spells it (``f32``)."""

    shape: tuple[int, ...]
    element: str


class RootOp(msgspec.Struct, frozen=True, kw_only=True):
    """The op whose lowering config decides how its dispatch is compiled, as plain data.

    ``loops`` holds the static trip count of each iteration dimension, ``iterators`` its kind (``parallel``
    or ``reduction``). ``batch``, ``m``, ``n`` and ``k`` are positions in ``loops``, filled for contractions.
    ``maps`` are the texts of the indexing maps, inputs first, then outputs.
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


class TargetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a space needs to know of the target, read from ``#hal.executable.target``.

    ``native_vector_bytes`` is the width of a vector register, ``max_stack_bytes`` the compiler's limit on
    stack allocations of one dispatch, ``processors`` the number of workers that share a dispatch.
    """

    backend: str
    architecture: str = ""
    native_vector_bytes: int = 16
    max_stack_bytes: int = 32768
    processors: int = 1


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
    """

    text: str
    run_function: str
    buffer_function: str
    buffer_bytes: int
    views: tuple[BufferView, ...]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One dispatch of a group: ``symbol`` is its executable's name in ``source``, ``calls`` how often it is called."""

    symbol: str
    source: str
    calls: int
    module: BenchmarkModule
    element_ops: int = 0


class Dispatch(msgspec.Struct, frozen=True, kw_only=True):
    """A tuning task: every dispatch that one matcher matches. The first member is the one measured.

    ``default_pipeline`` (``DoubleTilingExpert``) and ``default_config`` (the text of the lowering config
    attribute) are what the compiler chooses without a spec.
    """

    name: str
    root: RootOp
    target: TargetFacts
    default_pipeline: str
    default_config: str
    members: tuple[Member, ...]

    @property
    def key(self) -> str:
        """A hash of all that a matcher sees: two dispatches of equal key need but one spec entry."""
        return hashlib.sha256(_structure(self.root)).hexdigest()[:16]

    @property
    def weight(self) -> int:
        """How many calls, over all members, an entry for this dispatch makes faster."""
        return sum(member.calls for member in self.members)


class Untunable(msgspec.Struct, frozen=True):
    """A dispatch that cannot be tuned, with the reason in words."""

    name: str
    source: str
    reason: str


class FoundDispatch(msgspec.Struct, frozen=True, kw_only=True):
    """A tunable dispatch of one benchmark module, before dispatches that look alike are grouped."""

    symbol: str
    source: str
    root: RootOp
    target: TargetFacts
    default_pipeline: str
    default_config: str
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


def group_dispatches(found: Iterable[FoundDispatch], calls: Mapping[tuple[str, str], int]) -> tuple[Dispatch, ...]:
    """Make one task of the dispatches that no matcher can tell apart, in the order in which they were found.

    A matcher sees the root op alone: its kind, layout, element types and sizes. ``calls`` counts the calls
    by (source, symbol); a dispatch that is missing there is called once. Where two tasks would share a name,
    each gets a short hash of its structure at the end.
    """
    groups: defaultdict[bytes, list[FoundDispatch]] = defaultdict(list)
    for dispatch in found:
        groups[_structure(dispatch.root)].append(dispatch)
    names = Counter(_name(members[0].root) for members in groups.values())
    dispatches = []
    for structure, members in groups.items():
        name = _name(members[0].root)
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

    Functions that take anything but statically shaped tensors are left out: nothing can be fed to them.
    """
    functions = {}
    with ir.Context():
        for op in _parse(input_text).body.operations:
            if op.name not in {"func.func", "util.func"} or not op.regions[0].blocks:
                continue
            if "sym_visibility" in op.attributes and _string(op, "sym_visibility") != "public":
                continue
            kind = ir.FunctionType(ir.TypeAttr(op.attributes["function_type"]).value)
            try:
                functions[_string(op, "sym_name")] = tuple(_tensor(tensor) for tensor in kind.inputs)
            except _CannotTune:
                continue
    return functions


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
    default_pipeline = _pipeline(function)
    target = _target_facts(_parent(root, "hal.executable.variant"), processors)
    passmanager.PassManager.parse("builtin.module(iree-codegen-strip-compilation-info)").run(module.operation)
    return FoundDispatch(
        symbol=symbol,
        source=source,
        root=facts,
        target=target,
        default_pipeline=default_pipeline,
        default_config=default_config,
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
    operands = [_tensor(value.type) for value in op.operands]
    results = tuple(_tensor(value.type) for value in op.results)
    if linalg.isa_contraction_op(op):
        kind = "contraction"
    elif linalg.isa_convolution_op(op):
        kind = "convolution"
    elif op.name.startswith("iree_linalg_ext.") and "attention" in op.name:
        kind = "attention"
    else:
        kind = "other"
    maps: Sequence[Any] = linalg.get_indexing_maps(op) or () if op.name.startswith("linalg.") else ()
    affine = [ir.AffineMapAttr(attribute).value for attribute in maps]
    loops, iterators = _loops(op, affine, operands)
    dims = linalg.infer_contraction_dimensions(op) if kind == "contraction" else None
    return RootOp(
        op=op.name,
        kind=kind,
        loops=loops,
        iterators=iterators,
        maps=tuple(str(attribute) for attribute in maps),
        inputs=tuple(operands[: len(operands) - len(results)]),
        outputs=results,
        batch=tuple(dims.batch) if dims else (),
        m=tuple(dims.m) if dims else (),
        n=tuple(dims.n) if dims else (),
        k=tuple(dims.k) if dims else (),
    )


def _loops(
    op: ir.Operation, maps: Sequence[ir.AffineMap], operands: Sequence[Tensor]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Trip count and kind of each loop: a dimension's size is read off an operand that it indexes alone."""
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


def _tensor(kind: ir.Type) -> Tensor:
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
    info = iree_codegen.TranslationInfoAttr(function.attributes["translation_info"])
    attribute = str(info.pass_pipeline)
    return attribute[attribute.find("<") + 1 : attribute.rfind(">")] if "<" in attribute else attribute


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
    )


def _benchmark_module(module: ir.Module, function: ir.Operation) -> BenchmarkModule:
    runner = next(op for op in module.body.operations if op.name == "util.func" and "iree.reflection" in op.attributes)
    call = _only(runner, "hal.command_buffer.dispatch").opview
    buffer_name = ir.FlatSymbolRefAttr(_only(runner, "util.global.load").attributes["global"]).value
    constants = [_constant(value) for value in call.constants]
    offsets = [_constant(value) for value in call.binding_offsets]
    lengths = [_constant(value) for value in call.binding_lengths]
    views = []
    for subspan in _all(function, "hal.interface.binding.subspan"):
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
    memref = _tensor(subspan.results[0].type)
    known = users <= {"iree_codegen.load_from_buffer", "iree_codegen.store_to_buffer"}
    return BufferView(
        offset_bytes=offset_bytes,
        shape=memref.shape,
        element=memref.element,
        # What only a part is written of keeps the rest, which must be the same before each run.
        reads=not known or "iree_codegen.load_from_buffer" in users or _is_written_in_part(subspan.results[0]),
        writes=not known or "iree_codegen.store_to_buffer" in users,
    )


def _users(value: ir.Value) -> set[str]:
    """The names of the ops that read or write a buffer, directly or through a view of a part of it."""
    names: set[str] = set()
    for use in value.uses:
        names |= _users(use.owner.results[0]) if use.owner.name == "memref.subview" else {use.owner.name}
    return names


def _is_written_in_part(value: ir.Value) -> bool:
    return any(use.owner.name == "memref.subview" for use in value.uses)


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
    op = root.op.rpartition(".")[2]
    if root.kind == "contraction" and op == "generic":
        op = "batch_matmul_like" if root.batch else "matmul_like"
    sizes = root.loops or root.outputs[0].shape
    elements = [tensor.element for tensor in (*root.inputs[:2], root.outputs[0])]
    types = elements[0] if len(set(elements)) == 1 else "x".join(elements)
    return f"{op}_{'x'.join(map(str, sizes))}_{types}"


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


def _all(op: ir.Operation, name: str) -> list[ir.Operation]:
    found: list[ir.Operation] = []

    def visit(inner: ir.Operation) -> ir.WalkResult:
        if inner.name == name:
            found.append(inner)
        return ir.WalkResult.ADVANCE

    op.walk(visit)
    return found


def _only(op: ir.Operation, name: str) -> ir.Operation:
    found = _all(op, name)
    if len(found) != 1:
        raise _CannotTune(f"its benchmark has {len(found)} {name} ops instead of one")
    return found[0]


def _string(op: ir.Operation, name: str) -> str:
    return str(ir.StringAttr(op.attributes[name]).value)
