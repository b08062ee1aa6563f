"""Layer and batch normalizations of tensors in any layout, as modules with a root op for each step."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from pytest_shark_tune.dispatch.types import joined_sizes
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.ops.bindings import text_if_possible
from pytest_shark_tune.ops.builders import OpSource, check_sizes, number_name

__all__ = ["Gradient", "Normalization", "normalization"]

Gradient: TypeAlias = Literal["input", "scale", "bias"]
"""The tensor whose gradient is computed."""

_ELEMENTS = ("f32", "f16", "bf16")


class Normalization(msgspec.Struct, frozen=True, kw_only=True):
    """A forward normalization: ``(x - mean) / sqrt(variance + epsilon)``, with statistics over some dimensions.

    All arithmetic is in f32.
    """

    kind: str
    """The beginning of the op's name: ``layernorm`` or ``bnorm``."""
    shape: tuple[int, ...]
    """The shape of the input and of the result, in the order in which they are stored."""
    layout: str = ""
    """A word for the order of the dimensions, for the op's name."""
    reduced: tuple[int, ...]
    """The dimensions over which mean and variance are taken."""
    scaled: tuple[int, ...] = ()
    """The dimensions of two more inputs, a scale and a bias; none without these inputs."""
    element: str
    """The type of the input and of the result: f32, f16 or bf16."""
    statistics: str
    """The type of mean, variance, scale and bias."""
    epsilon: float
    stored: bool = True
    """Whether the mean and ``1 / sqrt(variance + epsilon)`` are results, too."""
    running: float = 0.0
    """The part of the new statistics in the running mean and variance, which are two more inputs and results, if it is
    not 0. The running variance is that of a sample: the sum of squares is divided by the count less one."""
    gradient: Gradient | None = None
    """The gradient to compute instead of the normalization."""
    given: bool = False
    """Whether mean and variance are inputs, as in inference, and not taken of the tensor."""

    @property
    def name(self) -> str:
        """A name such as ``layernorm_2x3x128_over_1x2_f32``, to which other values than defaults are appended."""
        kept = [at for at in range(len(self.shape)) if at not in self.reduced]
        kind = f"{self.kind}_{self.gradient}_gradient" if self.gradient else self.kind
        parts = [kind, *([self.layout.lower()] if self.layout else []), joined_sizes(self.shape)]
        parts += [f"over_{joined_sizes(self.reduced)}" if kept else "over_all", self.element]
        parts += [f"scale_{joined_sizes(self.scaled)}"] if self.scaled else []
        parts += ["inference"] if self.given else []
        parts += ["running"] if self.running else []
        parts += [] if self.stored or self.given else ["result_only"]
        parts += [f"eps_{number_name(self.epsilon)}"] if self.epsilon != 1e-5 else []
        return "_".join(parts)


def normalization(op: Normalization) -> OpSource:
    """Build a normalization.

    The module's function takes the tensor, then scale and bias, then the mean and variance that are given or running.
    It returns the result, then mean and inverse deviation if they are stored, then the new running statistics. That of
    a gradient takes the gradient of the result and, except for that of the bias, the tensor, the scale for the gradient
    of the tensor if there is one, the mean and the inverse deviation.

    Raises:
        InputError: A size is no positive integer, or an element type is unknown.
    """
    check_sizes(**{f"size {at}": size for at, size in enumerate(op.shape)})
    for element in (op.element, op.statistics):
        if element not in _ELEMENTS:
            raise InputError(f"the element type {element} is none of {', '.join(_ELEMENTS)}")
    return OpSource(op.name, _text(op))


@functools.cache
@text_if_possible
def _text(op: Normalization) -> str:
    from iree.compiler import ir

    from pytest_shark_tune.dispatch.mlir import shared_context

    with shared_context():
        return str(ir.Module.parse(_Writer(op).text()))


class _Operand(NamedTuple):
    """A tensor in the module: its name, the dimensions of the normalized tensor that it has, and its element type."""

    name: str
    dims: tuple[int, ...]
    element: str = "f32"


class _Writer:
    """Writes a normalization as text: a few generic ops, each of which would take a page through the bindings."""

    def __init__(self, op: Normalization) -> None:
        self._op = op
        self._all = tuple(range(len(op.shape)))
        self._kept = tuple(at for at in self._all if at not in op.reduced)
        self._lines: list[str] = []

    def text(self) -> str:
        """Return the text of the module."""
        op = self._op
        x = _Operand("x", self._all, op.element)
        scaling = [_Operand(name, op.scaled, op.statistics) for name in ("scale", "bias") if op.scaled]
        old = [_Operand(f"old_{name}", self._kept, op.statistics) for name in ("mean", "variance")]
        count = math.prod(op.shape[at] for at in op.reduced)
        for name, value in {
            "zero": 0.0,
            "count": count,
            "degrees": max(count - 1, 1),
            "epsilon": op.epsilon,
            "new_part": op.running,
            "old_part": 1 - op.running,
        }.items():
            self._lines.append(f"%{name} = arith.constant {value:e} : f32")
        if op.gradient:
            return self._function(*self._gradient(x, scaling[:1]))
        if op.given:
            mean, inverse = old[0], self._inverse(old[1], [], "%x0")
            results = [self._result(x, mean, inverse, scaling)]
        else:
            sums = self._sum("sums", [x], [], "%x0")
            mean = self._map("mean", [sums], ["%r = arith.divf %x0, %count : f32"], "%r")
            centred = ["%d = arith.subf %x0, %x1 : f32", "%s = arith.mulf %d, %d : f32"]
            squares = self._sum("squares", [x, mean], centred, "%s")
            inverse = self._inverse(squares, ["%v = arith.divf %x0, %count : f32"], "%v")
            results = [self._result(x, mean, inverse, scaling)]
            if op.stored:
                results += [self._as_stored(each) for each in (mean, inverse)]
            if op.running:
                results.append(self._running("mean", [mean, old[0]], [], "%x0"))
                sample = ["%s = arith.divf %x0, %degrees : f32"]
                results.append(self._running("variance", [squares, old[1]], sample, "%s"))
        return self._function([x, *scaling, *(old if op.given or op.running else ())], results)

    def _function(self, arguments: Sequence[_Operand], results: Sequence[_Operand]) -> str:
        stated = ", ".join(f"%{each.name}: {self._type(each)}" for each in arguments)
        names = ", ".join(f"%{each.name}" for each in results)
        types = ", ".join(map(self._type, results))
        body = "\n  ".join(self._lines)
        return f"func.func @main({stated}) -> ({types}) {{\n  {body}\n  return {names} : {types}\n}}\n"

    def _gradient(self, x: _Operand, scale: Sequence[_Operand]) -> tuple[list[_Operand], list[_Operand]]:
        """Write a gradient, and return its operands and its result."""
        op = self._op
        slope = _Operand("slope", self._all, op.element)
        statistics = [_Operand(name, self._kept, op.statistics) for name in ("mean", "inverse")]
        norm = ["%d = arith.subf %x1, %x2 : f32", "%n = arith.mulf %d, %x3 : f32"]
        if op.gradient == "bias":
            total = self._sum("total", [slope], [], "%x0", over=self._kept)
            return [slope], [self._as_stored(total)]
        if op.gradient == "scale":
            steps = [*norm, "%p = arith.mulf %x0, %n : f32"]
            total = self._sum("total", [slope, x, *statistics], steps, "%p", over=self._kept)
            return [slope, x, *statistics], [self._as_stored(total)]
        operands = [slope, x, *statistics, *scale]
        scaled = ["%g = arith.mulf %x0, %x4 : f32"] if scale else []
        value = "%g" if scale else "%x0"
        sums = self._sum("slopes", operands, scaled, value)
        steps = [*scaled, *norm, f"%p = arith.mulf {value}, %n : f32"]
        products = self._sum("products", operands, steps, "%p")
        at = len(operands)
        steps = [
            *scaled,
            *norm,
            f"%a = arith.divf %x{at}, %count : f32",
            f"%b = arith.divf %x{at + 1}, %count : f32",
            "%c = arith.mulf %n, %b : f32",
            f"%e = arith.subf {value}, %a : f32",
            "%f = arith.subf %e, %c : f32",
            "%r = arith.mulf %f, %x3 : f32",
        ]
        result = self._map("result", [*operands, sums, products], steps, "%r", op.element)
        return [slope, x, *scale, *statistics], [result]

    def _as_stored(self, statistic: _Operand) -> _Operand:
        kind = self._op.statistics
        return statistic if kind == "f32" else self._map(f"stored_{statistic.name}", [statistic], [], "%x0", kind)

    def _inverse(self, variance: _Operand, steps: Sequence[str], value: str) -> _Operand:
        """Write ``1 / sqrt(variance + epsilon)``; ``steps`` make the variance, ``value``, of the operand."""
        inverse = [f"%e = arith.addf {value}, %epsilon : f32", "%r = math.rsqrt %e : f32"]
        return self._map("inverse", [variance], [*steps, *inverse], "%r")

    def _result(self, x: _Operand, mean: _Operand, inverse: _Operand, scaling: Sequence[_Operand]) -> _Operand:
        steps = ["%d = arith.subf %x0, %x1 : f32", "%n = arith.mulf %d, %x2 : f32"]
        if scaling:
            steps += ["%m = arith.mulf %n, %x3 : f32", "%r = arith.addf %m, %x4 : f32"]
        return self._map("y", [x, mean, inverse, *scaling], steps, "%r" if scaling else "%n", self._op.element)

    def _running(self, name: str, operands: Sequence[_Operand], steps: Sequence[str], value: str) -> _Operand:
        steps = [
            *steps,
            f"%p = arith.mulf {value}, %new_part : f32",
            "%q = arith.mulf %x1, %old_part : f32",
            "%r = arith.addf %p, %q : f32",
        ]
        return self._map(f"running_{name}", operands, steps, "%r", self._op.statistics)

    def _map(
        self, name: str, operands: Sequence[_Operand], steps: Sequence[str], value: str, element: str = "f32"
    ) -> _Operand:
        """Write an op that stores ``value``, which ``steps`` make of the operands' elements (``%x0``, ...)."""
        out = _Operand(name, operands[0].dims, element)
        self._lines.append(f"%{name}_init = tensor.empty() : {self._type(out)}")
        end = [f"%stored = arith.truncf {value} : f32 to {element}"] if element != "f32" else []
        self._generic(out, out.dims, operands, [*steps, *end], "%stored" if end else value)
        return out

    def _sum(
        self,
        name: str,
        operands: Sequence[_Operand],
        steps: Sequence[str],
        value: str,
        over: tuple[int, ...] | None = None,
    ) -> _Operand:
        """Write an op that adds ``value`` up over some dimensions, by default the reduced ones."""
        over = self._op.reduced if over is None else over
        out = _Operand(name, tuple(at for at in self._all if at not in over))
        kind = self._type(out)
        self._lines.append(f"%{name}_empty = tensor.empty() : {kind}")
        self._lines.append(f"%{name}_init = linalg.fill ins(%zero : f32) outs(%{name}_empty : {kind}) -> {kind}")
        self._generic(out, self._all, operands, [*steps, f"%total = arith.addf %out, {value} : f32"], "%total")
        return out

    def _generic(
        self, out: _Operand, loops: tuple[int, ...], operands: Sequence[_Operand], steps: Sequence[str], value: str
    ) -> None:
        """Write the op that makes ``out``. The elements of the operands are extended to f32 first."""
        narrow = [at for at, operand in enumerate(operands) if operand.element != "f32"]
        stated = [f"%{'n' if at in narrow else ''}x{at}: {operand.element}" for at, operand in enumerate(operands)]
        wide = [f"%x{at} = arith.extf %nx{at} : {operands[at].element} to f32" for at in narrow]
        maps = ", ".join(self._affine(loops, operand.dims) for operand in (*operands, out))
        kinds = ", ".join(f'"{"parallel" if loop in out.dims else "reduction"}"' for loop in loops)
        names = ", ".join(f"%{operand.name}" for operand in operands)
        types = ", ".join(map(self._type, operands))
        body = "\n    ".join([*wide, *steps, f"linalg.yield {value} : {out.element}"])
        self._lines.append(
            f"%{out.name} = linalg.generic {{indexing_maps = [{maps}], iterator_types = [{kinds}]}} "
            f"ins({names} : {types}) outs(%{out.name}_init : {self._type(out)}) {{\n"
            f"  ^bb0({', '.join([*stated, f'%out: {out.element}'])}):\n    {body}\n  }} -> {self._type(out)}"
        )

    def _affine(self, loops: tuple[int, ...], dims: tuple[int, ...]) -> str:
        return f"affine_map<({', '.join(f'd{at}' for at in loops)}) -> ({', '.join(f'd{at}' for at in dims)})>"

    def _type(self, operand: _Operand) -> str:
        return f"tensor<{''.join(f'{self._op.shape[at]}x' for at in operand.dims)}{operand.element}>"
