"""Whether the check of results tells wrong modules from right ones.

Wrong modules are made from right ones by the edits of `wrong_modules`: for each kind of op that is tuned and each type.
One counts as wrong if it changes an element by more than four roundings of the stored type against a reference in
f64, on the inputs of any of three seeds. Right ones compute the same products in another order. The last line says how
many wrong ones passed and how many right comparisons were refused; the exit status is 1 if a wrong one passed, or more
than one right comparison of a thousand was refused.

    python benchmarks/sensitivity.py
    python benchmarks/sensitivity.py --model rec.onnx --input-shape x=1x3x48x320
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from whole_models import check_whole_models
from wrong_modules import RIGHT, WRONG, NotApplicable, edited

from pytest_shark_tune.compiler.compiler import Compiler
from pytest_shark_tune.compiler.target import Target
from pytest_shark_tune.device.client import DeviceChild
from pytest_shark_tune.device.protocol import TensorData
from pytest_shark_tune.dispatch.comparison import comparison_module
from pytest_shark_tune.dispatch.elements import unit_roundoff
from pytest_shark_tune.dispatch.types import BenchmarkModule, Dispatch
from pytest_shark_tune.errors import CommandFailed
from pytest_shark_tune.ops import OpSource
from pytest_shark_tune.plan.extract import extract_dispatches
from pytest_shark_tune.plan.source import read_source
from pytest_shark_tune.tuning.acceptance import acceptance_of
from pytest_shark_tune.tuning.ahead.comparers import COMPARER_FLAGS

Array = NDArray[Any]
Reference = Callable[[Sequence[Array]], Array]

DTYPES: dict[str, Any] = {
    "f32": np.float32,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "f8E4M3FN": ml_dtypes.float8_e4m3fn,
    "i8": np.int8,
    "i32": np.int32,
}
TYPES = (
    # inputs, sums, results
    ("f32", "f32", "f32"),
    ("f16", "f32", "f32"),
    ("f16", "f32", "f16"),
    ("bf16", "f32", "bf16"),
    ("f16", "f16", "f16"),
    ("bf16", "bf16", "bf16"),
    ("i8", "i32", "i32"),
    ("f8E4M3FN", "f32", "f32"),
    ("f8E4M3FN", "f32", "f16"),
)


@dataclass(frozen=True)
class Case:
    """An op: its name and MLIR, and what it computes, in f64 from the tensors that it takes."""

    name: str
    text: str
    reference: Reference
    stored: str


def product(name: str, types: tuple[str, str, str], maps: Sequence[str], loops: Sequence[int], tail: str = "") -> Case:
    """A sum of products by the indexing maps of its two inputs and its result, such as ``mk``, ``kn`` and ``mn``.

    A dimension such as ``h+p`` is indexed by the sum of two loops. ``tail`` follows on the sum.
    """
    taken, kept, stored = types
    letters = sorted({letter for text in maps for letter in text if letter.isalpha()})
    sizes = dict(zip(letters, loops, strict=True))
    indices = [text.split(",") for text in maps]
    shapes = [[sum(sizes[letter] - 1 for letter in index.split("+")) + 1 for index in one] for one in indices]
    tensors = [
        f"tensor<{'x'.join(map(str, shape))}x{kind}>" for shape, kind in zip(shapes, (taken, taken, kept), strict=True)
    ]
    spelled = ", ".join(
        f"affine_map<({', '.join(letters)}) -> ({', '.join(one).replace('+', ' + ')})>" for one in indices
    )
    iterators = ", ".join('"parallel"' if letter in indices[2] else '"reduction"' for letter in letters)
    is_float = kept not in ("i32",)
    casts = _cast("l", taken, kept) + _cast("r", taken, kept)
    add, mul = ("arith.addf", "arith.mulf") if is_float else ("arith.addi", "arith.muli")
    left, right = ("l", "r") if taken == kept else ("lw", "rw")
    result = tensors[2].replace(kept, stored)
    identity = f"affine_map<({', '.join(indices[2])}) -> ({', '.join(indices[2])})>"
    parallel = ", ".join(['"parallel"'] * len(indices[2]))
    body, used = _tail(tail, kept, stored)
    after = (
        f"""
  %e2 = tensor.empty() : {result}
  %1 = linalg.generic {{indexing_maps = [{identity}, {identity}], iterator_types = [{parallel}]}}
      ins(%0 : {tensors[2]}) outs(%e2 : {result}) {{
  ^bb0(%s: {kept}, %old: {stored}):
{body}
    linalg.yield %{used} : {stored}
  }} -> {result}
  return %1 : {result}
}}"""
        if body
        else f"\n  return %0 : {tensors[2]}\n}}"
    )
    text = f"""
func.func @main(%a: {tensors[0]}, %b: {tensors[1]}) -> {result} {{
  %zero = arith.constant {"0.0" if is_float else "0"} : {kept}
  %e = tensor.empty() : {tensors[2]}
  %f = linalg.fill ins(%zero : {kept}) outs(%e : {tensors[2]}) -> {tensors[2]}
  %0 = linalg.generic {{indexing_maps = [{spelled}], iterator_types = [{iterators}]}}
      ins(%a, %b : {tensors[0]}, {tensors[1]}) outs(%f : {tensors[2]}) {{
  ^bb0(%l: {taken}, %r: {taken}, %sum: {kept}):
{casts}
    %p = {mul} %{left}, %{right} : {kept}
    %n = {add} %sum, %p : {kept}
    linalg.yield %n : {kept}
  }} -> {tensors[2]}{after}
"""

    def reference(tensors: Sequence[Array]) -> Array:
        wide = [part.astype(np.float64).reshape(shape) for part, shape in zip(tensors, shapes, strict=False)]
        return _TAILS[tail](_sum_of_products(wide, indices, sizes))

    return Case(f"{name} {taken}*{taken}->{kept}->{stored}{' ' + tail if tail else ''}", text, reference, stored)


def _sum_of_products(operands: Sequence[Array], indices: Sequence[Sequence[str]], sizes: Mapping[str, int]) -> Array:
    """By windows: each dimension with two loops becomes two dimensions of a strided view."""
    views = []
    for part, names in zip(operands, indices[:2], strict=True):
        view, letters = part, ""
        strides, shape = [], []
        for stride, name in zip(part.strides, names, strict=True):
            for letter in name.split("+"):
                strides.append(stride)
                shape.append(sizes[letter])
                letters += letter
        view = np.lib.stride_tricks.as_strided(part, shape, strides)
        views.append((view, letters))
    return np.asarray(
        np.einsum(f"{views[0][1]},{views[1][1]}->{''.join(indices[2])}", views[0][0], views[1][0], optimize=True)
    )


def _cast(name: str, taken: str, kept: str) -> str:
    if taken == kept:
        return ""
    return f"    %{name}w = arith.{'extsi' if kept == 'i32' else 'extf'} %{name} : {taken} to {kept}\n"


def _tail(tail: str, kept: str, stored: str) -> tuple[str, str]:
    """The ops that follow on ``%s``, and the name of what they come to; nothing where the sum is stored as it is."""
    lines, last = [], "s"
    if tail in ("sigmoid", "silu"):
        lines += [
            f"%one = arith.constant 1.0 : {kept}",
            f"%neg = arith.negf %s : {kept}",
            f"%pow = math.exp %neg : {kept}",
            f"%more = arith.addf %pow, %one : {kept}",
            f"%share = arith.divf %one, %more : {kept}",
        ]
        last = "share"
        if tail == "silu":
            lines.append(f"%gated = arith.mulf %share, %s : {kept}")
            last = "gated"
    elif tail == "exp":
        lines.append(f"%power = math.exp %s : {kept}")
        last = "power"
    elif tail == "relu":
        lines += [f"%none = arith.constant 0.0 : {kept}", f"%positive = arith.maximumf %s, %none : {kept}"]
        last = "positive"
    elif tail == "rounded sigmoid":  # In the coarser type, rounded at every step.
        lines += [
            f"%t = arith.truncf %s : {kept} to {stored}",
            f"%one = arith.constant 1.0 : {stored}",
            f"%neg = arith.negf %t : {stored}",
            f"%pow = math.exp %neg : {stored}",
            f"%more = arith.addf %pow, %one : {stored}",
            f"%share = arith.divf %one, %more : {stored}",
        ]
        return "\n".join(f"    {line}" for line in lines), "share"
    if kept != stored:
        lines.append(f"%cut = arith.truncf %{last} : {kept} to {stored}")
        last = "cut"
    return "\n".join(f"    {line}" for line in lines), last


def _sigmoid(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-values)))


_TAILS: dict[str, Callable[[Array], Array]] = {
    "": lambda values: values,
    "relu": lambda values: np.maximum(values, 0),
    "exp": np.exp,
    "sigmoid": _sigmoid,
    "rounded sigmoid": _sigmoid,
    "silu": lambda values: values * _sigmoid(values),
}


def attention(taken: str) -> Case:
    """An attention of 2 heads with 64 queries, 128 keys and 32 wide."""
    shapes = {"q": (2, 64, 32), "k": (2, 128, 32), "v": (2, 128, 32), "o": (2, 64, 32)}
    tensors = {name: f"tensor<{'x'.join(map(str, shape))}x{taken}>" for name, shape in shapes.items()}
    text = f"""
func.func @main(%q: {tensors["q"]}, %k: {tensors["k"]}, %v: {tensors["v"]}) -> {tensors["o"]} {{
  %scale = arith.constant 0.5 : {taken}
  %e = tensor.empty() : {tensors["o"]}
  %0 = iree_linalg_ext.attention <{{indexing_maps = [
      affine_map<(b, m, n, k, s) -> (b, m, k)>, affine_map<(b, m, n, k, s) -> (b, s, k)>,
      affine_map<(b, m, n, k, s) -> (b, s, n)>, affine_map<(b, m, n, k, s) -> ()>,
      affine_map<(b, m, n, k, s) -> (b, m, n)>]}}>
      ins(%q, %k, %v, %scale : {tensors["q"]}, {tensors["k"]}, {tensors["v"]}, {taken}) outs(%e : {tensors["o"]}) {{
  ^bb0(%score: f32):
    iree_linalg_ext.yield %score : f32
  }} -> {tensors["o"]}
  return %0 : {tensors["o"]}
}}
"""

    def reference(tensors: Sequence[Array]) -> Array:
        query, key, value = (
            part.astype(np.float64).reshape(shapes[name]) for name, part in zip("qkv", tensors, strict=False)
        )
        scores = np.einsum("bmk,bsk->bms", query, key) * 0.5
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(np.einsum("bms,bsn->bmn", weights / weights.sum(axis=-1, keepdims=True), value))

    return Case(f"attention {taken}", text, reference, taken)


def row_sums(taken: str, kept: str) -> Case:
    """Sums of the rows of a matrix."""
    text = f"""
func.func @main(%a: tensor<128x512x{taken}>) -> tensor<128x{kept}> {{
  %zero = arith.constant 0.0 : {kept}
  %e = tensor.empty() : tensor<128x{kept}>
  %f = linalg.fill ins(%zero : {kept}) outs(%e : tensor<128x{kept}>) -> tensor<128x{kept}>
  %0 = linalg.generic {{indexing_maps = [affine_map<(m, k) -> (m, k)>, affine_map<(m, k) -> (m)>],
      iterator_types = ["parallel", "reduction"]}}
      ins(%a : tensor<128x512x{taken}>) outs(%f : tensor<128x{kept}>) {{
  ^bb0(%x: {taken}, %sum: {kept}):
{_cast("x", taken, kept)}
    %n = arith.addf %sum, %{"x" if taken == kept else "xw"} : {kept}
    linalg.yield %n : {kept}
  }} -> tensor<128x{kept}>
  return %0 : tensor<128x{kept}>
}}
"""
    return Case(
        f"row sums {taken}->{kept}",
        text,
        lambda tensors: np.asarray(tensors[0].astype(np.float64).reshape(128, 512).sum(axis=1)),
        kept,
    )


def softmax(taken: str) -> Case:
    """A softmax over the rows of a matrix."""
    kind = f"tensor<64x256x{taken}>"
    text = f"""
func.func @main(%a: {kind}) -> {kind} {{
  %e = tensor.empty() : {kind}
  %0 = linalg.softmax dimension(1) ins(%a : {kind}) outs(%e : {kind}) -> {kind}
  return %0 : {kind}
}}
"""

    def reference(tensors: Sequence[Array]) -> Array:
        values = tensors[0].astype(np.float64).reshape(64, 256)
        weights = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    return Case(f"softmax {taken}", text, reference, taken)


def cases() -> Iterator[Case]:
    """All ops of the battery."""
    for types in TYPES:
        yield product("matmul", types, ("m,k", "k,n", "m,n"), (512, 64, 64))
        yield product("square matmul", types, ("m,k", "k,n", "m,n"), (48, 48, 48))
        yield product("batch matmul", types, ("b,m,k", "b,k,n", "b,m,n"), (3, 96, 24, 32))
        yield product("convolution", types, ("h+p,w+q,c", "p,q,c,f", "h,w,f"), (16, 16, 12, 3, 3, 12))
    for types in (("f32", "f32", "f32"), ("bf16", "f32", "bf16"), ("f16", "f32", "f16")):
        yield product("long matmul", types, ("m,k", "k,n", "m,n"), (4096, 32, 32))
        yield product("vector times matrix", types, ("m,k", "k,n", "m,n"), (1024, 1, 256))
        yield product("1-d convolution", types, ("w+q,c", "q,c,f", "w,f"), (64, 32, 5, 40))
        yield product("depthwise convolution", types, ("h+p,w+q,c", "p,q,c", "h,w,c"), (16, 14, 5, 5, 14))
        yield product("matmul", types, ("m,k", "k,n", "m,n"), (768, 64, 64), "sigmoid")
        yield product("matmul", types, ("m,k", "k,n", "m,n"), (768, 64, 64), "silu")
        yield product("matmul", types, ("m,k", "k,n", "m,n"), (768, 64, 64), "exp")
        yield product("matmul", types, ("m,k", "k,n", "m,n"), (768, 64, 64), "relu")
        yield attention(types[0])
        yield row_sums(types[0], types[1])
        yield softmax(types[0])
    for types in (("bf16", "f32", "bf16"), ("f16", "f32", "f16")):
        yield product("matmul", types, ("m,k", "k,n", "m,n"), (768, 64, 64), "rounded sigmoid")


@dataclass
class Tally:
    """What came of the battery."""

    wrong_modules: int = 0
    passed: list[str] = field(default_factory=list)
    right_modules: int = 0
    right_comparisons: int = 0
    refused: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the bars are reached."""
        return not self.passed and len(self.refused) <= max(1, self.right_comparisons // 1000)


def run_case(
    case: Case, compiler: Compiler, seeds: int, tally: Tally, jobs: int, uri: str, *, on_device: bool = False
) -> None:
    """Compile every edit of an op and check it, its results compared by the host or on the device."""
    found = extract_dispatches([read_source(OpSource("main", case.text), Path())], compiler, 2)
    if len(found.dispatches) != 1:
        tally.left_out.append(f"{case.name}: {[left.reason for left in found.untunable]}")
        return
    (dispatch,) = found.dispatches
    module = dispatch.members[0].module
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(jobs) as pool, DeviceChild(uri) as child:
        directory = Path(name)

        def build(number: int, edit: Any) -> Path | str:
            out = directory / f"{number}.vmfb"
            try:
                compiler.compile_sources(module.text if edit is None else edited(module.text, edit), out)
            except NotApplicable as reason:
                return f"does not apply: {reason}"
            except CommandFailed as error:
                return f"does not compile: {error.args[0] if error.args else error}"[:200]
            return out

        names = ["default", *RIGHT, *WRONG]
        built = dict(
            zip(names, pool.map(build, range(len(names)), [None, *RIGHT.values(), *WRONG.values()]), strict=True)
        )
        default = built.pop("default")
        if isinstance(default, str):
            tally.left_out.append(f"{case.name}: {default}")
            return
        comparer = _comparer(compiler, module, directory) if on_device else None
        child.load_benchmark("default", default, module, comparer=comparer)
        for what, path in built.items():
            if isinstance(path, str):
                if "compile" in path:
                    tally.left_out.append(f"{case.name}, {what}: {path}")
                continue
            child.load_benchmark("edited", path, module, comparer=comparer)
            _judge(case, what, dispatch, child, seeds, tally)


def _comparer(compiler: Compiler, module: BenchmarkModule, directory: Path) -> Path | None:
    """The module that compares the results of a benchmark on the device; ``None`` if only the host can."""
    text = comparison_module(module)
    if text is None:
        return None
    out = directory / "compare.vmfb"
    compiler.compile_module(text, out, "comparison", COMPARER_FLAGS)
    return out


def _judge(case: Case, what: str, dispatch: Dispatch, child: DeviceChild, seeds: int, tally: Tally) -> None:
    """Check a module on each seed, or until it is found to be wrong."""
    acceptance = acceptance_of(dispatch, dispatch.members[0])
    is_right = what in RIGHT
    tally.right_modules += is_right
    is_wrong, caught = False, False
    for seed in range(seeds if is_right else 3):
        child.store_reference("default", "reference", seed)
        checks = [child.check("edited", "reference", acceptance)]
        if not is_right:
            default, tensors = (results_of(child, key, seed) for key in ("default", "edited"))
            # Where the compiler undoes an edit, a long sum is as far from the reference as that of the default.
            is_wrong = is_wrong or (tensors != default and changes_more_than_roundings(case, tensors))
        checks.append(child.check("edited", "reference", acceptance, edges=True))
        bad = next((check for check in checks if not check.ok), None)
        if is_right:
            tally.right_comparisons += 1
            if bad is not None:
                tally.refused.append(f"{case.name}, {what}, seed {seed}: {bad.reason}")
        else:
            caught = caught or bad is not None
            if seed == 0 and is_wrong and not caught:
                break
    if is_wrong:
        tally.wrong_modules += 1
        if not caught:
            tally.passed.append(f"{case.name}: {what}")


def results_of(child: DeviceChild, key: str, seed: int) -> tuple[TensorData, ...]:
    """The tensors of a benchmark module after one run on random inputs."""
    child.fill(key, seed)
    child.run(key, 1)
    return child.read(key)


def changes_more_than_roundings(case: Case, tensors: Sequence[TensorData]) -> bool:
    """Whether an element is off by more than four roundings of the stored type from the reference in f64."""
    arrays = [np.frombuffer(part.data, DTYPES[part.element]) for part in tensors]
    expected = case.reference(arrays[:-1]).reshape(-1)
    actual = arrays[-1].astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.abs(actual - expected)
    return bool((~(error <= 4 * unit_roundoff(case.stored) * np.abs(expected))).any())


@click.command()
@click.option("--target", default="llvm-cpu", show_default=True, help="The target to compile for.")
@click.option("--device", default="", help="The device's URI (default: that of the target's driver).")
@click.option("--seeds", default=8, show_default=True, help="Inputs for each right module.")
@click.option("--only", default="", help="Only ops whose name holds this.")
@click.option("--jobs", default=2, show_default=True, help="Compilations at a time.")
@click.option("--on-device", is_flag=True, help="Compare results on the device, as on GPUs, where the host need not.")
@click.option("--models/--no-models", default=True, show_default=True, help="Check whole models as well.")
@click.option("--model", "files", multiple=True, type=click.Path(path_type=Path), help="A further model to check.")
@click.option("--input-shape", "shapes", multiple=True, help="NAME=SHAPE of an input of those models.")
def main(
    target: str,
    device: str,
    seeds: int,
    only: str,
    jobs: int,
    on_device: bool,
    models: bool,
    files: Sequence[Path],
    shapes: Sequence[str],
) -> None:
    """Check every wrong and every right module."""
    compiler = Compiler(Target.parse(target))
    tally = Tally()
    for case in cases():
        if only in case.name:
            before = (tally.wrong_modules, len(tally.passed), tally.right_comparisons, len(tally.refused))
            uri = device or compiler.target.driver
            run_case(case, compiler, seeds, tally, jobs, uri, on_device=on_device)
            after = (tally.wrong_modules, len(tally.passed), tally.right_comparisons, len(tally.refused))
            wrong, passed, right, refused = (new - old for new, old in zip(after, before, strict=True))
            click.echo(f"{case.name}: {passed} of {wrong} wrong passed, {refused} of {right} right refused")
    if models:
        check_whole_models(compiler, device or compiler.target.driver, tally, only, files, shapes, seeds)
    for title, rows in (("passed", tally.passed), ("refused", tally.refused), ("left out", tally.left_out)):
        for row in rows:
            click.echo(f"{title}: {row}")
    click.echo(
        f"{len(tally.passed)} of {tally.wrong_modules} wrong modules passed; "
        f"{len(tally.refused)} of {tally.right_comparisons} right comparisons ({tally.right_modules} modules) refused"
    )
    sys.exit(not tally.kept)


if __name__ == "__main__":
    main()
