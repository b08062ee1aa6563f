"""Whole models with wrong and right edits in one of their dispatches: the second half of `sensitivity.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
from numpy.typing import NDArray
from wrong_modules import RIGHT, WRONG, NotApplicable, edited, sums_in

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.configure import strip
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.lease import DeviceLeases
from pytest_shark_tune.device.protocol import TensorData
from pytest_shark_tune.dispatch.elements import unit_roundoff
from pytest_shark_tune.errors import CandidateFailed, CommandFailed
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.make import make_plan
from pytest_shark_tune.plan.source import ModelInput, Source, read_source
from pytest_shark_tune.plan.types import Plan
from pytest_shark_tune.system.cache import Cache
from pytest_shark_tune.tuning.acceptance import model_tolerance
from pytest_shark_tune.tuning.builder import Builder
from pytest_shark_tune.tuning.children import DeviceChildren
from pytest_shark_tune.tuning.model.disturbed import disturbed_model
from pytest_shark_tune.tuning.model.runner import ModelFunction, ModelRunner

__all__ = ["Counts", "check_whole_models"]


class Counts(Protocol):
    """What the battery counts."""

    wrong_modules: int
    passed: list[str]
    right_modules: int
    right_comparisons: int
    refused: list[str]
    left_out: list[str]


def chain(kind: str, tail: str) -> OpSource:
    """Three products of matrices with a ReLU between, and ``tail`` behind the last: four dispatches at least.

    Weights come as arguments, so that nothing is folded. Sums are kept in f32, results between are stored in ``kind``.
    """
    text = [f"func.func @main(%x: tensor<32x256x{kind}>, %w0: tensor<256x192x{kind}>, %w1: tensor<192x160x{kind}>,"]
    text += [f"    %w2: tensor<160x64x{kind}>) -> tensor<32x64x{kind}> {{", "  %zero = arith.constant 0.0 : f32"]
    taken, rows = "x", 32
    for number, (k, n) in enumerate(((256, 192), (192, 160), (160, 64))):
        sums, stored = f"tensor<{rows}x{n}xf32>", f"tensor<{rows}x{n}x{kind}>"
        text += [
            f"  %e{number} = tensor.empty() : {sums}",
            f"  %f{number} = linalg.fill ins(%zero : f32) outs(%e{number} : {sums}) -> {sums}",
            f"  %s{number} = linalg.matmul",
            f"      ins(%{taken}, %w{number} : tensor<{rows}x{k}x{kind}>, tensor<{k}x{n}x{kind}>)",
            f"      outs(%f{number} : {sums}) -> {sums}",
        ]
        text += _follows(number, n, kind, "relu" if number < 2 else tail, sums, stored)
        taken = f"y{number}"
    if tail == "softmax":
        text += [
            f"  %o = tensor.empty() : tensor<32x64x{kind}>",
            f"  %p = linalg.softmax dimension(1) ins(%y2 : tensor<32x64x{kind}>)",
            f"      outs(%o : tensor<32x64x{kind}>) -> tensor<32x64x{kind}>",
        ]
    elif tail == "normalization":
        text += _normalization(kind)
    text += [f"  return %{'y2' if tail == 'sigmoid' else 'p'} : tensor<32x64x{kind}>", "}"]
    return OpSource(f"{tail}_{kind}", "\n".join(text))


def _follows(number: int, n: int, kind: str, tail: str, sums: str, stored: str) -> list[str]:
    """A scale that brings sums to about 1, the function that follows on it, and the rounding."""
    same = "affine_map<(i, j) -> (i, j)>"
    body = [f"    %by = arith.constant {4 / np.sqrt(n)} : f32", "    %a = arith.mulf %s, %by : f32"]
    last = "a"
    if tail == "relu":
        body.append("    %r = arith.maximumf %a, %zero : f32")
        last = "r"
    elif tail == "sigmoid":
        body += [
            "    %one = arith.constant 1.0 : f32",
            "    %neg = arith.negf %a : f32",
            "    %pow = math.exp %neg : f32",
            "    %more = arith.addf %pow, %one : f32",
            "    %r = arith.divf %one, %more : f32",
        ]
        last = "r"
    if kind != "f32":
        body.append(f"    %cut = arith.truncf %{last} : f32 to {kind}")
        last = "cut"
    return [
        f"  %n{number} = tensor.empty() : {stored}",
        f"  %y{number} = linalg.generic {{indexing_maps = [{same}, {same}], iterator_types = ['parallel', 'parallel']}}"
        f" ins(%s{number} : {sums}) outs(%n{number} : {stored}) {{".replace("'", '"'),
        f"  ^bb0(%s: f32, %old: {kind}):",
        *body,
        f"    linalg.yield %{last} : {kind}",
        f"  }} -> {stored}",
    ]


def _normalization(kind: str) -> list[str]:
    """Rows divided by the root of the mean of their squares."""
    same, row = "affine_map<(i, j) -> (i, j)>", "affine_map<(i, j) -> (i)>"
    wide = "" if kind == "f32" else f"    %vw = arith.extf %v : {kind} to f32\n"
    value = "v" if kind == "f32" else "vw"
    cut = "" if kind == "f32" else f"    %qc = arith.truncf %q : f32 to {kind}\n"
    quotient = "q" if kind == "f32" else "qc"
    return [
        "  %re = tensor.empty() : tensor<32xf32>",
        "  %rf = linalg.fill ins(%zero : f32) outs(%re : tensor<32xf32>) -> tensor<32xf32>",
        (
            f'  %sq = linalg.generic {{indexing_maps = [{same}, {row}], iterator_types = ["parallel", "reduction"]}}'
            f" ins(%y2 : tensor<32x64x{kind}>) outs(%rf : tensor<32xf32>) {{"
        ),
        f"  ^bb0(%v: {kind}, %sum: f32):",
        f"{wide}    %m = arith.mulf %{value}, %{value} : f32",
        "    %t = arith.addf %sum, %m : f32",
        "    linalg.yield %t : f32",
        "  } -> tensor<32xf32>",
        f"  %pe = tensor.empty() : tensor<32x64x{kind}>",
        (
            f"  %p = linalg.generic {{indexing_maps = [{same}, {row}, {same}],"
            ' iterator_types = ["parallel", "parallel"]}'
            f" ins(%y2, %sq : tensor<32x64x{kind}>, tensor<32xf32>) outs(%pe : tensor<32x64x{kind}>) {{"
        ),
        f"  ^bb0(%v: {kind}, %squares: f32, %old: {kind}):",
        f"{wide}    %size = arith.constant 64.0 : f32",
        "    %mean = arith.divf %squares, %size : f32",
        "    %root = math.sqrt %mean : f32",
        f"    %q = arith.divf %{value}, %root : f32",
        f"{cut}    linalg.yield %{quotient} : {kind}",
        f"  }} -> tensor<32x64x{kind}>",
    ]


def check_whole_models(
    compiler: Compiler,
    uri: str,
    tally: Counts,
    only: str,
    files: Sequence[Path],
    shapes: Sequence[str],
    seeds: int,
) -> None:
    """Check wrong and right edits of each made-up model and each file."""
    made = [chain(kind, tail) for kind in ("f32", "bf16", "f16") for tail in ("softmax", "sigmoid", "normalization")]
    sources = [read_source(op, Path()) for op in made if only in f"model {op.name}"]
    asked = ModelInput.parse(shapes)
    sources += [read_source(path, Path(), asked) for path in files]
    for source in sources:
        before = (tally.wrong_modules, len(tally.passed), tally.right_comparisons, len(tally.refused))
        with tempfile.TemporaryDirectory() as name:
            _Model(compiler, uri, source, Path(name)).check(tally, seeds)
        after = (tally.wrong_modules, len(tally.passed), tally.right_comparisons, len(tally.refused))
        wrong, passed, right, refused = (new - old for new, old in zip(after, before, strict=True))
        click.echo(f"model {source.name}: {passed} of {wrong} wrong passed, {refused} of {right} right refused")


_FEW_SUMS = 4
_INPUTS = 3
"""A run compares whole models on as many inputs at least, one for each round of their final."""


def _edited(edit: Any, place: int, text: str) -> str:
    return edited(text, edit, place)


class _Model:
    """A model with its default, and edits of it, checked as a run checks them."""

    def __init__(self, compiler: Compiler, uri: str, source: Source, directory: Path) -> None:
        self.compiler = compiler
        self.uri = uri
        self.directory = directory
        self.plan: Plan = make_plan([source], compiler, processors=2, count=1, seed=0)
        (self.source,) = self.plan.sources
        self.function = next(iter(self.source.functions))
        lowered = compiler.for_models.lower(self.source.text, to="executable-sources", name=self.source.name)
        self.sources = strip(lowered)
        self.sums = sums_in(self.sources)

    def check(self, tally: Counts, seeds: int) -> None:
        """Check each edit in a few of the sums."""
        leases = DeviceLeases((self.uri,))
        builder = Builder(self.compiler, Cache(self.directory / "cache"), leases, jobs=2, report=click.echo)
        try:
            default = self._built(builder, "the default", lambda text: text, tally)
            if default is None:
                return
            rights = self._rights(builder, tally)
            noise = self._largest(default, rights)
            for number, path in enumerate(rights):
                tally.right_modules += 1
                for seed in range(seeds):
                    tally.right_comparisons += 1
                    if failure := self._failure(builder, leases, default, path, self.sums, seed):
                        tally.refused.append(f"{self.source.name}, right {number}, seed {seed}: {failure}")
            for place, what, edit in self._edits():
                wrong = self._built(builder, what, partial(_edited, edit, place), tally)
                if wrong is None or not self._is_wrong(default, wrong, noise):
                    continue
                tally.wrong_modules += 1
                if not self._failure(builder, leases, default, wrong, [self.sums[place]], 0, inputs=_INPUTS):
                    tally.passed.append(f"{self.source.name}, sum {place}: {what}")
        finally:
            builder.close()

    def _edits(self) -> Iterator[tuple[int, str, Any]]:
        """Every wrong edit with the number of the sum to make it in: in all of a few sums, else in one of many."""
        count = len(self.sums)
        for number, (what, edit) in enumerate(WRONG.items()):
            places = range(count) if count <= _FEW_SUMS else [number * (count - 1) // (len(WRONG) - 1)]
            for place in places:
                yield place, what, edit

    def _rights(self, builder: Builder, tally: Counts) -> list[Path]:
        """The model with all of its sums in another order that can be."""
        found = []
        for what, edit in RIGHT.items():

            def reordered(text: str, edit: Any = edit) -> str:
                changed = 0
                for place in range(len(self.sums)):
                    try:
                        text, changed = edited(text, edit, place), changed + 1
                    except NotApplicable:
                        continue
                if not changed:
                    raise NotApplicable("no sum can be reordered")
                return text

            path = self._built(builder, what, reordered, tally)
            found += [path] if path is not None else []
        return found

    def _built(self, builder: Builder, what: str, change: Callable[[str], str], tally: Counts) -> Path | None:
        try:
            return builder.model(change(self.sources))
        except NotApplicable:
            return None
        except CommandFailed as error:
            tally.left_out.append(f"{self.source.name}, {what}: {str(error)[:200]}")
            return None

    def _outputs(self, path: Path) -> list[NDArray[Any]]:
        with DeviceChild(self.uri) as child:
            child.load_function("it", path, self.function, self.source.functions[self.function], self.source.files)
            child.fill("it", 0)
            child.run("it", 1)
            results: Sequence[TensorData] = child.read("it")[len(self.source.functions[self.function]) :]
        return [_floats(part) for part in results]

    def _largest(self, default: Path, rights: Sequence[Path]) -> list[NDArray[Any]]:
        """How far right results differ from the default's at most, for each output."""
        expected = self._outputs(default)
        others = [self._outputs(path) for path in rights]
        return [
            np.max([np.abs(other[number] - part).max() for other in others], axis=0, initial=0.0)
            for number, part in enumerate(expected)
        ]

    def _is_wrong(self, default: Path, path: Path, noise: Sequence[NDArray[Any]]) -> bool:
        """Whether results differ by more than four roundings, and four times as much as those of another order."""
        stored = [_ROUNDOFF.get(element, unit_roundoff("f32")) for element in self._stored(default)]
        pairs = zip(self._outputs(default), self._outputs(path), stored, noise, strict=True)
        return any(
            bool((~(np.abs(actual - expected) <= 4 * unit * np.abs(expected) + 4 * most)).any())
            for expected, actual, unit, most in pairs
        )

    def _stored(self, path: Path) -> list[str]:
        with DeviceChild(self.uri) as child:
            child.load_function("it", path, self.function, self.source.functions[self.function], self.source.files)
            child.run("it", 1)
            return [part.element for part in child.read("it")[len(self.source.functions[self.function]) :]]

    def _failure(
        self,
        builder: Builder,
        leases: DeviceLeases,
        default: Path,
        path: Path,
        changed: Sequence[str],
        seed: int,
        *,
        inputs: int = 1,
    ) -> str:
        children = DeviceChildren(leases, lambda _: None)
        tolerance = model_tolerance(self.source, self.function, self.plan.tasks, changed)
        tensors = self.source.functions[self.function]
        disturbed = partial(disturbed_model, builder, self.sources, changed)
        try:
            function = ModelFunction(self.function, tensors, tolerance, self.source.files, disturbed=disturbed)
            ModelRunner(children, seed).check(function, default, path, inputs=inputs)
        except CandidateFailed as failure:
            return str(failure)
        finally:
            children.close()
        return ""


_ROUNDOFF = {"f16": unit_roundoff("f16"), "bf16": unit_roundoff("bf16")}


def _floats(tensor: TensorData) -> NDArray[Any]:
    import ml_dtypes

    kinds: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16, "f64": np.float64}
    kinds |= {"i32": np.int32, "i64": np.int64, "i8": np.int8, "i1": np.uint8}
    return np.frombuffer(tensor.data, kinds[tensor.element]).astype(np.float64)
