"""Reading the facts of a dispatch from its description in a landscape that recorded no facts."""

from __future__ import annotations

import re

from pytest_shark_tune.search import ProblemFacts

__all__ = ["facts_of_text"]

_PRODUCT = re.compile(r"A\[(\d+)x(\d+)\](\w+) x B(\^T)?\[(\d+)x(\d+)\](\w+)")
_CONTRACTION = re.compile(
    r"^(?:batch_)?matmul(?:_transpose_[ab])?(?:_like)?_(?P<sizes>\d+(?:x\d+)+)_(?P<types>[a-z]\w*)"
)
_CONVOLUTION = re.compile(
    r"^conv_\dd_(?P<image>[nhwdcf]+)_(?P<filter>[hwdcf]+)_(?P<result>\d+(?:x\d+)+)_(?P<rest>\d+(?:x\d+)+)"
    r"(?:_s[\dx]+)?(?:_d[\dx]+)?_(?P<types>[a-z]\w*)"
)
_ATTENTION = re.compile(r"^(?:masked_)?attention_(?P<sizes>\d+(?:x\d+)+)(?:_k(?P<keys>\d+x\d+))?_(?P<types>[a-z]\w*)")
_TYPE = re.compile(r"(?:bf|f|i|tf)(\d+)|index")


def facts_of_text(text: str, processors: int) -> ProblemFacts:
    """Return the facts of a dispatch by its name, or by a product written ``A[MxK]f16 x B^T[NxK]f16``.

    Names are those of `dispatch.grouping`. A name tells neither the roles of more than three loops of a contraction nor
    the layout of every convolution. Where the text tells nothing, only the processors are known.
    """
    for read in (_product, _contraction, _convolution, _attention):
        if (facts := read(text, processors)) is not None:
            return facts
    return ProblemFacts(processors=processors)


def _product(text: str, processors: int) -> ProblemFacts | None:
    if not (found := _PRODUCT.search(text)):
        return None
    m, k = int(found[1]), int(found[2])
    n, depth = int(found[5 if found[4] else 6]), int(found[6 if found[4] else 5])
    if depth != k:
        return None
    bytes_a, bytes_b = (int(re.sub(r"\D", "", element) or 64) / 8 for element in (found[3], found[7]))
    return _of_product((m, n, k), bytes_a, bytes_b, processors)


def _contraction(text: str, processors: int) -> ProblemFacts | None:
    if not (found := _CONTRACTION.match(text)):
        return None
    loops, (bytes_a, bytes_b) = _sizes(found["sizes"]), _types(found["types"])
    if len(loops) == 3:
        return _of_product(loops, bytes_a, bytes_b, processors)
    if len(loops) == 4 and text.startswith("batch_"):
        return ProblemFacts(
            loops=loops,
            reductions=(3,),
            operands=(((0, 1, 3), bytes_a), ((0, 2, 3), bytes_b)),
            dims={"m": 1, "n": 2, "k": 3},
            processors=processors,
        )
    return ProblemFacts(loops=loops, reductions=(len(loops) - 1,), processors=processors)


def _convolution(text: str, processors: int) -> ProblemFacts | None:
    """Return the facts of a convolution whose loops are in the order of linalg's named ops."""
    if not (found := _CONVOLUTION.match(text)):
        return None
    image, result, rest = found["image"], _sizes(found["result"]), _sizes(found["rest"])
    dims = len(result) - 2
    letters = "dhw"[-dims:]
    if image not in (f"n{letters}c", f"nc{letters}") or len(rest) != dims + 1:
        return None
    channels_last = image.endswith("c")
    size = dict(zip("nxyz"[: dims + 1] + "f" if channels_last else "nf" + "xyz"[:dims], result, strict=True))
    # The loops are those of the result, then the channels of an image in front, or after the filter's.
    parallel = [*size]
    reduced = ["k", "l", "m"][:dims]
    order = [*parallel, *reduced, "c"] if channels_last else [*parallel, "c", *reduced]
    size |= dict(zip([*reduced, "c"], rest, strict=True))
    place = {letter: index for index, letter in enumerate(order)}
    bytes_image, bytes_filter = _types(found["types"])
    spatial = "xyz"[:dims]
    return ProblemFacts(
        loops=tuple(size[letter] for letter in order),
        reductions=tuple(sorted(place[letter] for letter in (*reduced, "c"))),
        operands=(
            (tuple(sorted(place[letter] for letter in ("n", *spatial, *reduced, "c"))), bytes_image),
            (tuple(sorted(place[letter] for letter in ("f", *reduced, "c"))), bytes_filter),
        ),
        processors=processors,
    )


def _attention(text: str, processors: int) -> ProblemFacts | None:
    if not (found := _ATTENTION.match(text)):
        return None
    *batch, m, n = _sizes(found["sizes"])
    k2, k1 = _sizes(found["keys"]) if found["keys"] else (m, n)
    size = _types(found["types"])[0]
    count = len(batch)
    at = {name: count + offset for offset, name in enumerate(("m", "n", "k1", "k2"))}
    shared = tuple(range(count))
    return ProblemFacts(
        loops=(*batch, m, n, k1, k2),
        reductions=(at["k1"], at["k2"]),
        operands=(
            ((*shared, at["m"], at["k1"]), size),
            ((*shared, at["k1"], at["k2"]), size),
            ((*shared, at["n"], at["k2"]), size),
        ),
        dims={"m": at["m"], "n": at["n"], "k1": at["k1"], "k2": at["k2"]},
        processors=processors,
    )


def _of_product(loops: tuple[int, ...], bytes_a: float, bytes_b: float, processors: int) -> ProblemFacts:
    return ProblemFacts(
        loops=loops,
        reductions=(2,),
        operands=(((0, 2), bytes_a), ((1, 2), bytes_b)),
        dims={"m": 0, "n": 1, "k": 2},
        processors=processors,
    )


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def _types(text: str) -> tuple[float, float]:
    """Return the bytes of the first two of the types ``f16xf16xf32``; a single one stands for all."""
    sizes = [int(found[1] or 64) / 8 for found in _TYPE.finditer(text)] or [8.0]
    return sizes[0], sizes[min(1, len(sizes) - 1)]
