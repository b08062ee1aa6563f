"""The ops of an imported ONNX model in MLIR: reading them, and building others in their place.

``iree-import-onnx`` writes a node as ``torch.operator "onnx.MatMul"``. The bindings have no classes for the torch
dialect, so ops are read and built by their generic form.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from iree.compiler import ir, passmanager
from iree.compiler.dialects import func

from pytest_shark_tune.dispatch.mlir import walk

__all__ = [
    "TensorType",
    "attribute_ints",
    "build_onnx",
    "build_torch",
    "erase_unused",
    "int64s",
    "is_onnx",
    "only_user",
    "scalar_of",
    "tensor_type",
]

_OPERATOR = "torch.operator"
_OPSET = "torch.onnx_meta.opset_version"
_READ_CONSTANTS = "builtin.module(func.func(convert-torch-onnx-to-torch))"
_FLOATS = ("f16", "bf16", "f32", "f64")


class TensorType(msgspec.Struct, frozen=True):
    """A tensor's type in the torch dialect."""

    shape: tuple[int, ...]
    element: str
    """The element type as the torch dialect spells it, such as ``f16`` or ``si64``."""

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether attention and products of it can be rewritten."""
        return self.element in _FLOATS

    def with_shape(self, shape: Sequence[int]) -> TensorType:
        """Return the type of another shape with the same element type."""
        return TensorType(tuple(shape), self.element)

    def to_mlir(self) -> ir.Type:
        """Return the type for an op in the current context."""
        return ir.Type.parse(f"!torch.vtensor<[{','.join(map(str, self.shape))}],{self.element}>")


def tensor_type(value: ir.Value) -> TensorType | None:
    """Read the type of a value; ``None`` if it is no tensor whose sizes are all known."""
    # The bindings cannot take a type of the torch dialect apart. The comparison proves that its text was understood.
    dims, _, element = str(value.type).removeprefix("!torch.vtensor<[").removesuffix(">").partition("],")
    sizes = dims.split(",") if dims else []
    if not element or not all(size.isdecimal() for size in sizes):
        return None
    kind = TensorType(tuple(map(int, sizes)), element)
    return kind if element.isalnum() and kind.to_mlir() == value.type else None


def is_onnx(op: object, *names: str) -> bool:
    """Whether an op is an ONNX node of one of these types. A block, which owns a function's arguments, is none."""
    if not isinstance(op, ir.OpView | ir.Operation) or op.name != _OPERATOR:
        return False
    name = ir.StringAttr(op.attributes["name"]).value.removeprefix("onnx.")
    return name in names


def only_user(value: ir.Value) -> ir.OpView | None:
    """Return the op that uses a value if there is only one such use."""
    uses = list(value.uses)
    return uses[0].owner if len(uses) == 1 else None


def erase_unused(module: ir.Module) -> None:
    """Erase the ONNX nodes of a module whose results nothing uses."""
    for op in reversed(walk(module.operation)):
        if op.name == _OPERATOR and not any(True for result in op.results for _ in result.uses):
            op.erase()


def attribute_ints(op: ir.OpView, name: str) -> list[int] | None:
    """Read an ONNX attribute that is an integer or a list of them; ``None`` if the node has none."""
    key = f"torch.onnx.{name}"
    if key not in op.attributes:
        return None
    value = op.attributes[key]
    entries = value if isinstance(value, ir.ArrayAttr) else [value]
    return [ir.IntegerAttr(entry).value for entry in entries]


def scalar_of(value: ir.Value) -> float | None:
    """Read a float constant of one element; ``None`` if the value is something else.

    The bindings cannot read the data of a ``dense_resource``. The compiler's own conversion turns it into an attribute
    that they can read.
    """
    op, kind = value.owner, tensor_type(value)
    if kind is None or not kind.is_float or any(size != 1 for size in kind.shape) or not is_onnx(op, "Constant"):
        return None
    module = ir.Module.create()
    with ir.InsertionPoint(module.body):
        holder = func.FuncOp("constant", ([], [value.type]))
    holder.attributes[_OPSET] = _opset_of(op)
    with ir.InsertionPoint(holder.add_entry_block()):
        func.ReturnOp([op.operation.clone().results[0]])
    try:
        passmanager.PassManager.parse(_READ_CONSTANTS).run(module.operation)
    except ir.MLIRError:
        return None
    literal = holder.entry_block.operations[0]
    if literal.name != "torch.vtensor.literal":
        return None
    data = ir.DenseElementsAttr(literal.attributes["value"])
    return float(ir.FloatAttr(data.get_splat_value()).value) if data.is_splat else None


def _opset_of(op: ir.OpView) -> ir.Attribute:
    parent = op.operation.parent
    if _OPSET in parent.attributes:
        return parent.attributes[_OPSET]
    return ir.IntegerAttr.get(ir.IntegerType.get_signed(64), 17)


def build_onnx(
    name: str,
    operands: Sequence[ir.Value],
    results: Sequence[TensorType],
    **attributes: int | Sequence[int] | ir.Attribute,
) -> list[ir.Value]:
    """Build an ONNX node at the current insertion point.

    Args:
        name: The node's type, such as ``MatMul``.
        operands: Its inputs.
        results: The types of its results.
        attributes: Its ONNX attributes: integers, lists of integers, or attributes of MLIR.

    Returns:
        Its results.
    """
    entries = {"name": ir.StringAttr.get(f"onnx.{name}")}
    entries |= {f"torch.onnx.{key}": _attribute(value) for key, value in attributes.items()}
    kinds = [kind.to_mlir() for kind in results]
    op = ir.Operation.create(_OPERATOR, results=kinds, operands=list(operands), attributes=entries, regions=0)
    return list(op.results)


def int64s(values: Sequence[int]) -> ir.Value:
    """Build a constant vector of integers, as ``Reshape`` and ``Split`` take it."""
    data = ir.Attribute.parse(f"dense<{list(values)}> : tensor<{len(values)}xsi64>")
    return build_onnx("Constant", [], [TensorType((len(values),), "si64")], value=data)[0]


def build_torch(
    name: str, operands: Sequence[ir.Value], result: ir.Type, attributes: dict[str, ir.Attribute] | None = None
) -> ir.Value:
    """Build an op of the torch dialect with one result at the current insertion point."""
    op = ir.Operation.create(f"torch.{name}", results=[result], operands=list(operands), attributes=attributes or {})
    return op.results[0]


def _attribute(value: int | Sequence[int] | ir.Attribute) -> ir.Attribute:
    if isinstance(value, ir.Attribute):
        return value
    kind = ir.IntegerType.get_signed(64)
    if isinstance(value, int):
        return ir.IntegerAttr.get(kind, value)
    return ir.ArrayAttr.get([ir.IntegerAttr.get(kind, entry) for entry in value])
