"""Dispatches: what a model is made of, and what each is benchmarked in. Plain data, for which no compiler is needed."""

from __future__ import annotations

import hashlib
import math
from typing import TypeAlias

import msgspec

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
    "Numerics",
    "Product",
    "RootOp",
    "Sum",
    "TargetFacts",
    "Tensor",
    "Untunable",
]

ATTENTION = "iree_linalg_ext.attention"
ONLINE_ATTENTION = "iree_linalg_ext.online_attention"
INCIDENTAL_ATTRIBUTES = ("root_op", "linalg.memoized_indexing_maps")
"""Attributes that say nothing of what an op computes: the tuner's mark and a cache of IREE's."""


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
        return hashlib.sha256(self.structure).hexdigest()[:16]

    @property
    def structure(self) -> bytes:
        """All that a matcher sees of a dispatch; dispatches that agree in it are one task.

        A contraction is matched by its maps, sizes and types, however its op is spelled.
        """
        return msgspec.json.encode(msgspec.structs.replace(self, op="") if self.kind == "contraction" else self)

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


class Sum(msgspec.Struct, frozen=True):
    """A sum that a dispatch computes: ``length`` terms, kept in the type ``element``."""

    element: str
    length: int


class Numerics(msgspec.Struct, frozen=True, kw_only=True):
    """What a dispatch's rounding errors depend on, apart from the types of its outputs."""

    sums: tuple[Sum, ...] = ()
    """Every reduction in the dispatch."""
    widest: str = ""
    """The finest float type that it computes in; empty where it computes no floats."""
    rounded: tuple[str, ...] = ()
    """The types of less than 32 bits that a value is rounded to after a sum and before more is computed from it."""
    spread: tuple[str, ...] = ()
    """Those that a value is rounded to between two sums."""
    exact: bool = False
    """Whether small integers as inputs make all of its sums exact: only moves, casts, sums and products come before."""
    switched: bool = False
    """Whether zeros and large negative numbers do: sums of exponentials of differences to the largest input."""
    to_integers: bool = False
    """Whether floats that come of a sum are turned into integers, which may then fall either way."""
    products: bool = False
    """Whether its sums are of products of two inputs, which have either sign if the inputs have."""


Index: TypeAlias = tuple[tuple[int, int], ...]
"""The index of one dimension of a tensor: a sum of loops, each with its factor."""


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A sum of products that reads its operands as they are stored, and stores its result rounded and no more.

    ``views`` are the positions of the views of its two operands and of its result. ``shapes`` are their shapes in the
    op, ``indices`` how the ``loops`` index each of them.
    """

    views: tuple[int, int, int]
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    loops: tuple[int, ...]
    indices: tuple[tuple[Index, ...], tuple[Index, ...], tuple[Index, ...]]


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
    scale: float = 1.0
    """What makes sums of products of such inputs come to about 1: random values below it in magnitude."""
    wide: bool = False
    """Integers of 32 bits and more may have any value: they index nothing, and no sum of floats takes them."""


class BenchmarkModule(msgspec.Struct, frozen=True, kw_only=True):
    """A stripped executable benchmark module with a function added that returns its buffer.

    ``run_function`` takes an i32 batch size and runs the dispatch that many times; ``buffer_function`` takes
    nothing and returns the buffer of ``buffer_bytes`` bytes as a ``!hal.buffer_view`` of i8.

    The buffer holds ``copies`` of the views at equal distances, of which ``views`` are the first; dispatches take turns
    through them (see `rotation`). ``numerics`` is ``None`` where nobody read the dispatch,
    and ``product`` where it computes more than one product of stored tensors.
    """

    text: str
    run_function: str
    buffer_function: str
    buffer_bytes: int
    views: tuple[BufferView, ...]
    copies: int = 1
    numerics: Numerics | None = None
    product: Product | None = None


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
