"""The module that compares results where they are: its text, for any target.

It belongs to the layout of a benchmark's buffer. The function ``compare_N`` counts the elements of output N that are
wrong by the formula of docs/measurement.md, and ``stray_N`` the words that differ outside the outputs, N bytes each.
Both answer with partial results, by position in a row of elements, for the caller to add up:

- ``compare_N(buffer, expected, scale, rtol, atol, floor, jump_rtol, jump_atol)`` of floats: tensors of wrong elements,
  elements that are off by a rounding, largest errors and largest errors as a part of the tolerance. They repeat where
  the elements do not fill whole rows. ``scale`` has the magnitude for each element. A negative one marks an element
  that is compared only where both are finite.
- ``compare_N(buffer, expected)`` of integers: tensors of wrong elements and of elements that are off by one.
- ``stray_N(buffer, image)``: tensors of words.

A row is long and the sum runs over rows, so that neighbouring threads of a GPU read neighbouring elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pytest_shark_tune.dispatch.types import BenchmarkModule, BufferView

__all__ = ["comparison_module"]

_ROW = 1 << 16
_WORDS = (4, 2, 1)
_FLOATS = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8}
_INTEGERS = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "index": 8}
_STORED = {"i1": "i8", "index": "i64"}
_LIMITS = ("rtol", "atol", "floor", "jump_rtol", "jump_atol")
_PARTS_OF_COMPLEX = {"complex<f32>": "f32", "complex<f64>": "f64"}


class _Stored(NamedTuple):
    """The elements of an output as they lie in the buffer. A complex number is two floats."""

    element: str
    size: int
    """The bytes of an element."""
    start: int
    """The first element, counted from the start of a copy."""
    elements: int

    @property
    def is_float(self) -> bool:
        """Whether the elements are floats."""
        return self.element in _FLOATS


class _Rows(NamedTuple):
    """A part of an output or region as rows of equal length."""

    start: int
    rows: int
    length: int


def comparison_module(module: BenchmarkModule) -> str | None:
    """Write the module that compares the outputs of a benchmark module.

    Returns:
        The text; ``None`` if an output has a type or a place that only the host compares.
    """
    stride = module.buffer_bytes // module.copies
    written = [view for view in module.views if view.writes]
    outputs = [_stored(view) for view in written]
    functions = []
    for number, output in enumerate(outputs):
        if output is None or not output.elements or (module.copies > 1 and stride % output.size):
            return None
        write = _float_function if output.is_float else _integer_function
        functions.append(write(f"compare_{number}", output, module.copies, stride // output.size))
    if not functions:
        return None
    regions = list(_outside(written, stride))
    if regions:
        # In the buffer of one copy, bytes behind the last whole word lie behind all views.
        word = next(size for size in _WORDS if not any(start % size or end % size for start, end in regions))
        functions.append(_stray_function(word, regions, module.copies, stride // word))
    return _MAPS + "\n".join(functions)


def _stored(view: BufferView) -> _Stored | None:
    count = math.prod(view.shape)
    element = view.element
    if element in _PARTS_OF_COMPLEX:
        element, count = _PARTS_OF_COMPLEX[element], 2 * count
    if element[:2] in ("si", "ui"):
        element = element[1:]
    size = _FLOATS.get(element) or _INTEGERS.get(element)
    if size is None or view.offset_bytes % size:
        return None
    return _Stored(element, size, view.offset_bytes // size, count)


def _outside(written: Sequence[BufferView], stride: int) -> Iterator[tuple[int, int]]:
    """The parts of a copy outside the outputs: start and end in bytes."""
    position = 0
    for start, end in sorted((view.offset_bytes, _end_of(view)) for view in written):
        if start > position:
            yield position, start
        position = max(position, end)
    if stride > position:
        yield position, stride


def _end_of(view: BufferView) -> int:
    output = _stored(view)
    assert output is not None
    return (output.start + output.elements) * output.size


def _in_rows(start: int, count: int) -> Iterator[_Rows]:
    """Divide elements into whole rows and a rest."""
    rows, rest = divmod(count, _ROW)
    if rows:
        yield _Rows(start, rows, _ROW)
    if rest:
        yield _Rows(start + rows * _ROW, 1, rest)


_MAPS = """\
#both = affine_map<(copy, row, place) -> (copy, row, place)>
#one = affine_map<(copy, row, place) -> (row, place)>
#sums = affine_map<(copy, row, place) -> (copy, place)>
"""


class _Function:
    """The text of a function under construction, and the names and types of its results."""

    def __init__(self, name: str, copies: int, parameters: Sequence[str]) -> None:
        self._head = f"func.func @{name}({', '.join(parameters)})"
        self._copies = copies
        self._lines: list[str] = []
        self._results: list[tuple[str, str]] = []
        self._count = 0

    def sums(
        self,
        rows: _Rows,
        buffer: tuple[str, int, str],
        others: Sequence[tuple[str, int, int, str]],
        totals: Sequence[str],
        body: str,
    ) -> None:
        """Sum up a part of the buffer beside the same part of other tensors.

        Args:
            rows: The part, by its place in the buffer.
            buffer: The name of the buffer, its elements in a copy, and their type.
            others: The same of the other tensors, with the place of the part in them before their types.
            totals: The types of the sums, which begin at 0.
            body: The text of the loop's body. Its arguments have to be named by the caller.
        """
        number, copies = self._count, self._copies
        self._count += 1
        name, whole, element = buffer
        flat, shaped = rows.rows * rows.length, f"{rows.rows}x{rows.length}x"
        inputs, kinds = [f"%in_{number}"], [f"tensor<{copies}x{shaped}{element}>"]
        self._lines += [
            (
                f"%cut_{number} = tensor.extract_slice {name}[0, {rows.start}][{copies}, {flat}][1, 1] : "
                f"tensor<{copies}x{whole}x{element}> to tensor<{copies}x{flat}x{element}>"
            ),
            (
                f"%in_{number} = tensor.expand_shape %cut_{number} [[0], [1, 2]] "
                f"output_shape [{copies}, {rows.rows}, {rows.length}] : "
                f"tensor<{copies}x{flat}x{element}> into tensor<{copies}x{shaped}{element}>"
            ),
        ]
        for position, (other, size, start, kind) in enumerate(others):
            label = f"{number}_{position}"
            self._lines += [
                (
                    f"%cut_{label} = tensor.extract_slice {other}[{start}][{flat}][1] : "
                    f"tensor<{size}x{kind}> to tensor<{flat}x{kind}>"
                ),
                (
                    f"%in_{label} = tensor.expand_shape %cut_{label} [[0, 1]] "
                    f"output_shape [{rows.rows}, {rows.length}] : tensor<{flat}x{kind}> into tensor<{shaped}{kind}>"
                ),
            ]
            inputs.append(f"%in_{label}")
            kinds.append(f"tensor<{shaped}{kind}>")
        zeros, results = [], []
        for position, kind in enumerate(totals):
            result = f"tensor<{copies}x{rows.length}x{kind}>"
            label = f"{number}_{position}"
            self._lines += [
                f"%empty_{label} = tensor.empty() : {result}",
                f"%none_{label} = arith.constant {_zero(kind)} : {kind}",
                f"%zero_{label} = linalg.fill ins(%none_{label} : {kind}) outs(%empty_{label} : {result}) -> {result}",
            ]
            zeros.append(f"%zero_{label}")
            results.append(result)
        maps = ", ".join(["#both", *["#one"] * len(others), *["#sums"] * len(totals)])
        of = f"%sum_{number}:{len(totals)}" if len(totals) > 1 else f"%sum_{number}"
        self._lines += [
            f"{of} = linalg.generic {{indexing_maps = [{maps}],",
            'iterator_types = ["parallel", "reduction", "parallel"]}',
            f"ins({', '.join(inputs)} : {', '.join(kinds)}) outs({', '.join(zeros)} : {', '.join(results)}) {{",
            body,
            f"}} -> ({', '.join(results)})" if len(totals) > 1 else f"}} -> {results[0]}",
        ]
        names = [f"%sum_{number}#{place}" for place in range(len(totals))] if len(totals) > 1 else [f"%sum_{number}"]
        self._results += zip(names, results, strict=True)

    def text(self) -> str:
        """The whole function."""
        names, kinds = zip(*self._results, strict=True)
        end = f"return {', '.join(names)} : {', '.join(kinds)}"
        return "\n".join([f"{self._head} -> ({', '.join(kinds)}) {{", *self._lines, end, "}"])


def _zero(kind: str) -> str:
    return "0.0" if kind.startswith("f") else "0"


def _float_function(name: str, output: _Stored, copies: int, whole: int) -> str:
    element, wide = output.element, "f64" if output.element == "f64" else "f32"
    function = _Function(
        name,
        copies,
        [
            f"%buffer: tensor<{copies}x{whole}x{element}>",
            f"%expected: tensor<{output.elements}x{element}>",
            f"%scale: tensor<{output.elements}xf32>",
            *(f"%{_given(limit, 'f32', wide)}: f32" for limit in _LIMITS),
        ],
    )
    for rows in _in_rows(output.start, output.elements):
        place = rows.start - output.start
        others = [("%expected", output.elements, place, element), ("%scale", output.elements, place, "f32")]
        function.sums(rows, ("%buffer", whole, element), others, ["i32", "i32", wide, wide], _float_body(element, wide))
    return function.text()


def _float_body(element: str, wide: str) -> str:
    """The comparison of one element, as `measurement.correctness` makes it of arrays."""
    types = {"a": element, "e": element, "s": "f32", **dict.fromkeys(_LIMITS, "f32")}
    widened = [f"%{name} = arith.extf %{name}_given : {kind} to {wide}" for name, kind in types.items() if kind != wide]
    arguments = ", ".join(f"%{_given(name, types[name], wide)}: {types[name]}" for name in ("a", "e", "s"))
    infinity = "0x7FF0000000000000" if wide == "f64" else "0x7F800000"
    body = _FLOAT_BODY.replace("INFINITY", infinity).replace("WIDE", wide)
    return "\n".join(
        [
            f"^bb0({arguments}, %wrong: i32, %jumped: i32, %largest: {wide}, %worst: {wide}):",
            *widened,
            f"%bits = arith.bitcast %{_given('s', 'f32', wide)} : f32 to i32",
            f"{body}linalg.yield %wrongs, %jumps, %most, %worse : i32, i32, {wide}, {wide}",
        ]
    )


def _given(name: str, kind: str, wide: str) -> str:
    """The name of a value before it is widened, if it is."""
    return name if kind == wide else f"{name}_given"


_FLOAT_BODY = """\
%true = arith.constant true
%no = arith.constant 0 : i32
%zero = arith.constant 0.0 : WIDE
%infinity = arith.constant INFINITY : WIDE
%finite_only = arith.cmpi slt, %bits, %no : i32
%magnitude = math.absf %s : WIDE
%difference = arith.subf %a, %e : WIDE
%error = math.absf %difference : WIDE
%e_size = math.absf %e : WIDE
%a_size = math.absf %a : WIDE
%near_0 = arith.mulf %e_size, %rtol : WIDE
%near_1 = arith.mulf %magnitude, %atol : WIDE
%near_2 = arith.addf %near_0, %near_1 : WIDE
%near = arith.addf %near_2, %floor : WIDE
%jump_0 = arith.mulf %e_size, %jump_rtol : WIDE
%jump_1 = arith.mulf %magnitude, %jump_atol : WIDE
%jump_2 = arith.addf %near, %jump_0 : WIDE
%allowed = arith.addf %jump_2, %jump_1 : WIDE
%is_near = arith.cmpf ole, %error, %near : WIDE
%is_finite = arith.cmpf olt, %error, %infinity : WIDE
%close = arith.andi %is_near, %is_finite : i1
%equal = arith.cmpf oeq, %a, %e : WIDE
%a_nan = arith.cmpf uno, %a, %a : WIDE
%e_nan = arith.cmpf uno, %e, %e : WIDE
%both_nan = arith.andi %a_nan, %e_nan : i1
%a_finite = arith.cmpf olt, %a_size, %infinity : WIDE
%e_finite = arith.cmpf olt, %e_size, %infinity : WIDE
%both_finite = arith.andi %a_finite, %e_finite : i1
%one_is_not = arith.xori %both_finite, %true : i1
%not_compared = arith.andi %one_is_not, %finite_only : i1
%good_0 = arith.ori %close, %equal : i1
%good_1 = arith.ori %good_0, %both_nan : i1
%good = arith.ori %good_1, %not_compared : i1
%not_good = arith.xori %good, %true : i1
%is_allowed = arith.cmpf ole, %error, %allowed : WIDE
%jump_3 = arith.andi %is_allowed, %is_finite : i1
%jump = arith.andi %jump_3, %not_good : i1
%no_jump = arith.xori %jump, %true : i1
%bad = arith.andi %not_good, %no_jump : i1
%one_wrong = arith.extui %bad : i1 to i32
%one_jump = arith.extui %jump : i1 to i32
%wrongs = arith.addi %wrong, %one_wrong : i32
%jumps = arith.addi %jumped, %one_jump : i32
%error_0 = arith.select %is_finite, %error, %zero : WIDE
%most = arith.maximumf %largest, %error_0 : WIDE
%part_0 = arith.divf %error_0, %allowed : WIDE
%part_finite = arith.cmpf olt, %part_0, %infinity : WIDE
%part = arith.select %part_finite, %part_0, %zero : WIDE
%worse = arith.maximumf %worst, %part : WIDE
"""


def _integer_function(name: str, output: _Stored, copies: int, whole: int) -> str:
    element = _STORED.get(output.element, output.element)
    parameters = [f"%buffer: tensor<{copies}x{whole}x{element}>", f"%expected: tensor<{output.elements}x{element}>"]
    function = _Function(name, copies, parameters)
    body = _INTEGER_BODY.replace("ELEMENT", element)
    for rows in _in_rows(output.start, output.elements):
        others = [("%expected", output.elements, rows.start - output.start, element)]
        function.sums(rows, ("%buffer", whole, element), others, ["i32", "i32"], body)
    return function.text()


_INTEGER_BODY = """\
^bb0(%a: ELEMENT, %e: ELEMENT, %wrong: i32, %jumped: i32):
%true = arith.constant true
%one = arith.constant 1 : ELEMENT
%above = arith.cmpi sgt, %a, %e : ELEMENT
%below = arith.cmpi slt, %a, %e : ELEMENT
%more = arith.subi %a, %e : ELEMENT
%less = arith.subi %e, %a : ELEMENT
%one_more = arith.cmpi eq, %more, %one : ELEMENT
%one_less = arith.cmpi eq, %less, %one : ELEMENT
%step_0 = arith.andi %above, %one_more : i1
%step_1 = arith.andi %below, %one_less : i1
%step = arith.ori %step_0, %step_1 : i1
%differs = arith.ori %above, %below : i1
%no_step = arith.xori %step, %true : i1
%bad = arith.andi %differs, %no_step : i1
%one_wrong = arith.extui %bad : i1 to i32
%one_step = arith.extui %step : i1 to i32
%wrongs = arith.addi %wrong, %one_wrong : i32
%steps = arith.addi %jumped, %one_step : i32
linalg.yield %wrongs, %steps : i32, i32"""


def _stray_function(word: int, regions: Sequence[tuple[int, int]], copies: int, whole: int) -> str:
    element = f"i{8 * word}"
    function = _Function(
        f"stray_{word}", copies, [f"%buffer: tensor<{copies}x{whole}x{element}>", f"%image: tensor<{whole}x{element}>"]
    )
    body = _STRAY_BODY.replace("ELEMENT", element)
    for start, end in regions:
        for rows in _in_rows(start // word, (end - start) // word):
            function.sums(rows, ("%buffer", whole, element), [("%image", whole, rows.start, element)], ["i32"], body)
    return function.text()


_STRAY_BODY = """\
^bb0(%a: ELEMENT, %e: ELEMENT, %count: i32):
%differs = arith.cmpi ne, %a, %e : ELEMENT
%one = arith.extui %differs : i1 to i32
%sum = arith.addi %count, %one : i32
linalg.yield %sum : i32"""
