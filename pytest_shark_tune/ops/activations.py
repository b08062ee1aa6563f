"""Activations: the functions that kernel libraries apply to the sums of a convolution."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["Activation", "activated"]

Activation = Literal["", "relu", "gelu", "logistic", "tanh", "abs", "softrelu"]
"""An activation, none if it is empty; ``softrelu`` is ``log(1 + exp(x))``, and ``gelu`` is by the error function."""


def activated(activation: Activation, value: Any) -> Any:
    """Apply an activation to a number, at the current insertion point."""
    from iree.compiler import ir
    from iree.compiler.dialects import arith
    from iree.compiler.dialects import math as floats

    def constant(number: float) -> Any:
        return arith.ConstantOp(value.type, ir.FloatAttr.get(value.type, number)).result

    match activation:
        case "relu":
            return arith.MaximumFOp(value, constant(0.0)).result
        case "gelu":
            turned = floats.ErfOp(arith.MulFOp(value, constant(0.5**0.5)).result).result
            return arith.MulFOp(
                arith.MulFOp(value, constant(0.5)).result, arith.AddFOp(constant(1.0), turned).result
            ).result
        case "logistic":
            falling = floats.ExpOp(arith.NegFOp(value).result).result
            return arith.DivFOp(constant(1.0), arith.AddFOp(constant(1.0), falling).result).result
        case "tanh":
            return floats.TanhOp(value).result
        case "abs":
            return floats.AbsFOp(value).result
        case "softrelu":
            return floats.Log1pOp(floats.ExpOp(value).result).result
        case "":
            return value
