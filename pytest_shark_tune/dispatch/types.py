"""Dispatches as plain data: the ops that a model consists of and the modules that benchmark them.

No compiler is needed for these types.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from pytest_shark_tune.dispatch.reasons import CannotTune

__all__ = [
    "ANY",
    "ATTENTION",
    "INCIDENTAL_ATTRIBUTES",
    "ONLINE_ATTENTION",
    "OPEN",
    "Argument",
    "BenchmarkModule",
    "BufferView",
    "Dispatch",
    "FoundDispatch",
    "Intrinsic",
    "LoopRange",
    "Member",
    "Numerics",
    "Product",
    "RootOp",
    "SizePoint",
    "SizedModule",
    "Sum",
    "TargetFacts",
    "Tensor",
    "Untunable",
    "joined_sizes",
]

ATTENTION = "iree_linalg_ext.attention"
ONLINE_ATTENTION = "iree_linalg_ext.online_attention"
OPEN: Final = -(2**63)
"""The size of an open dimension in types and matchers, as MLIR has it."""
ANY: Final = -1
"""The size in a matcher that stands for every size."""
INCIDENTAL_ATTRIBUTES = ("root_op", "linalg.memoized_indexing_maps")
"""Attributes that do not change the result of an op: the tuner's mark and a cache of IREE's."""


def joined_sizes(sizes: Iterable[int]) -> str:
    """Return sizes as names and messages show them: ``3x3x64``."""
    return "x".join(map(str, sizes))


_ELEMENT = re.compile(r"[A-Za-z!][\w<>.:, ]{0,99}", re.ASCII)
_LONGEST = 60
_LARGEST_SIZE = (1 << 63) - 1
_FEWEST_INPUTS = {"contraction": 2, "convolution": 2, "pooling": 1, "attention": 3}


def _check_sizes(sizes: Iterable[int]) -> None:
    if any(not -1 <= size <= _LARGEST_SIZE for size in sizes):  # -1 stands for a dynamic size.
        raise ValueError(f"sizes {joined_sizes(sizes)[:_LONGEST]} are not from 0 to {_LARGEST_SIZE}")


class Tensor(msgspec.Struct, frozen=True):
    """A statically shaped tensor type."""

    shape: tuple[int, ...]
    """The size of each dimension, in elements; ``()`` for a scalar operand such as attention's scale."""
    element: str
    """The element type as MLIR spells it (``f32``)."""

    def __post_init__(self) -> None:
        """Check what the text of a type is made of."""
        _check_sizes(self.shape)
        if not _ELEMENT.fullmatch(self.element):
            raise ValueError(f"{self.element[:_LONGEST]!r} is no element type")


class Argument(Tensor, frozen=True):
    """The type of an argument of a function: a tensor, or a number."""

    is_scalar: bool = False
    """Whether the function takes a number and not a tensor."""


class LoopRange(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a loop that an entry of a spec is for, where it is for more than one."""

    loop: int
    """The position of the loop."""
    low: int
    """The smallest size."""
    high: int
    """The largest size."""
    multiple: int = 1
    """The number that divides every size."""

    def __post_init__(self) -> None:
        """Check that the fields, which may come from a record, fit each other."""
        _check_sizes((self.loop, self.low, self.high))
        if not 0 < self.low <= self.high or self.multiple < 1:
            raise ValueError(f"there is no multiple of {self.multiple} from {self.low} to {self.high}")


class RootOp(msgspec.Struct, frozen=True, kw_only=True):
    """The op that decides by its lowering config how its dispatch is compiled, as plain data.

    The classes of dimensions (``batch`` to ``depth``) are positions in ``loops``. Contractions have ``batch``, ``m``,
    ``n`` and ``k``, and so have scaled contractions, the products of blocks of numbers with a scale each (mxfp4).
    Convolutions and poolings have ``batch``, ``output_image``, ``output_channel``, ``filter_loop``,
    ``input_channel`` and ``depth``. Attention has ``batch``, ``m``, ``n``, ``k1`` and ``k2``.
    """

    op: str
    """The name of the op (``linalg.matmul``)."""
    kind: str
    """One of ``contraction``, ``scaled_contraction``, ``convolution``, ``pooling``, ``attention`` and ``other``."""
    loops: tuple[int, ...]
    """The trip count of each loop; empty for ops without indexing maps (packing, sorting).

    An open loop has the largest of the counts that it is tuned for.
    """
    iterators: tuple[str, ...]
    """The kind of each loop, ``parallel`` or ``reduction``; empty for ops without indexing maps."""
    maps: tuple[str, ...]
    """The texts of the indexing maps, inputs first, then outputs; empty for ops without indexing maps."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: tuple[int, ...] = ()
    m: tuple[int, ...] = ()
    n: tuple[int, ...] = ()
    k: tuple[int, ...] = ()
    k1: tuple[int, ...] = ()
    """Of attention: the loops that query and key share."""
    k2: tuple[int, ...] = ()
    """Of attention: the loops that key and value share."""
    output_image: tuple[int, ...] = ()
    output_channel: tuple[int, ...] = ()
    filter_loop: tuple[int, ...] = ()
    input_channel: tuple[int, ...] = ()
    depth: tuple[int, ...] = ()
    """Of convolutions: channels or groups that input, filter and output share."""
    strides: tuple[int, ...] = ()
    """Of convolutions: one number for each image dimension."""
    dilations: tuple[int, ...] = ()
    """Of convolutions: one number for each image dimension."""
    pattern: str = ""
    """The text of a module with one function that holds a copy of the op.

    The op's operands are the function's arguments, and constants that its body takes from outside are moved into the
    body. Contractions have none, since the other fields describe them completely.
    """
    open: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET
    """The loops whose trip count is known only at run time.

    Without any it is not set, so that keys and ids of ops with fixed sizes do not depend on it.
    """
    ranges: tuple[LoopRange, ...] | msgspec.UnsetType = msgspec.UNSET
    """The loops of which an entry matches several sizes; ``loops`` has one of them. Only ops in records have any."""

    @property
    def loop_ranges(self) -> tuple[LoopRange, ...]:
        """The loops of which an entry matches several sizes."""
        return () if isinstance(self.ranges, msgspec.UnsetType) else self.ranges

    @property
    def open_loops(self) -> tuple[int, ...]:
        """The loops whose trip count is known only at run time."""
        return () if isinstance(self.open, msgspec.UnsetType) else self.open

    @property
    def matched_loops(self) -> tuple[int, ...]:
        """The trip counts as a matcher sees them: `OPEN` for those of open loops, `ANY` for those with a range."""
        sizes = dict(enumerate(self.loops)) | dict.fromkeys(self.open_loops, OPEN)
        return tuple((sizes | {span.loop: ANY for span in self.loop_ranges}).values())

    @property
    def loops_of_many_sizes(self) -> tuple[int, ...]:
        """The loops of which a matcher takes more than one size."""
        return (*self.open_loops, *(span.loop for span in self.loop_ranges))

    def __post_init__(self) -> None:
        """Check that the fields, which may come from a record, fit each other."""
        _check_sizes(self.loops)
        if len(self.iterators) != len(self.loops):
            raise ValueError(f"{len(self.loops)} loops have {len(self.iterators)} iterators")
        if self.maps and len(self.maps) != len(self.inputs) + len(self.outputs):
            raise ValueError(f"{len(self.inputs) + len(self.outputs)} operands have {len(self.maps)} maps")
        fewest = _FEWEST_INPUTS.get(self.kind, 0)
        if len(self.inputs) < fewest or (fewest and not self.outputs):
            raise ValueError(f"{self.kind} with {len(self.inputs)} inputs and {len(self.outputs)} outputs")
        if any(not 0 <= place < len(self.loops) for places in self._dims() for place in places):
            raise ValueError("a dimension is none of the loops")
        if any(span.loop >= len(self.loops) for span in self.loop_ranges):
            raise ValueError("a range is of none of the loops")

    def _dims(self) -> tuple[tuple[int, ...], ...]:
        own = (self.batch, self.m, self.n, self.k, self.k1, self.k2, self.output_image, self.output_channel)
        return (*own, self.filter_loop, self.input_channel, self.depth)

    @property
    def key(self) -> str:
        """A hash of the structure: ops of equal key need only one spec entry."""
        return hashlib.sha256(self.structure).hexdigest()[:16]

    @property
    def structure(self) -> bytes:
        """Everything that a matcher sees of a dispatch; dispatches of equal structure are one task.

        A contraction is matched by its maps, sizes and types, regardless of the op's name.
        """
        return msgspec.json.encode(msgspec.structs.replace(self, op="") if self.kind == "contraction" else self)

    @property
    def reduction_length(self) -> int:
        """The number of terms of each element of the result, at least 1."""
        return math.prod(
            size for size, iterator in zip(self.loops, self.iterators, strict=True) if iterator == "reduction"
        )


class Intrinsic(msgspec.Struct, frozen=True, kw_only=True):
    """A matrix instruction of a GPU."""

    attribute: str
    """The text of its attribute."""
    shape: tuple[int, int, int]
    """The sizes M, N and K."""
    elements: tuple[str, str, str]
    """The element types of A, B and C."""


class TargetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a target that search spaces use, read from ``#hal.executable.target``.

    The fields from ``subgroup_sizes`` on are properties of GPUs, and empty or 0 on a CPU.
    """

    backend: str
    architecture: str = ""
    native_vector_bytes: int = 16
    """The width of a vector register."""
    max_stack_bytes: int = 32768
    """The compiler's limit on stack allocations of one dispatch."""
    processors: int = 1
    """The number of workers that share a dispatch."""
    subgroup_sizes: tuple[int, ...] = ()
    """The numbers of threads that can run in step, the compiler's choice first."""
    max_workgroup_sizes: tuple[int, ...] = ()
    """The most threads of a workgroup along x, y and z."""
    max_threads: int = 0
    """The most threads of a workgroup in total."""
    shared_memory_bytes: int = 0
    """The memory that the threads of a workgroup share."""
    intrinsics: tuple[Intrinsic, ...] = ()
    """The matrix instructions."""

    @property
    def cpu_vector_bytes(self) -> int:
        """The width of a CPU's vector register; 0 on a GPU."""
        return 0 if self.subgroup_sizes else self.native_vector_bytes


class Sum(msgspec.Struct, frozen=True):
    """A sum that a dispatch computes."""

    element: str
    """The type in which it is accumulated."""
    length: int
    """The number of terms."""


class Numerics(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a dispatch that determine its rounding errors, besides the types of its outputs."""

    sums: tuple[Sum, ...] = ()
    """Every reduction in the dispatch."""
    widest: str = ""
    """The finest float type that it computes in; empty if it computes no floats."""
    rounded: tuple[str, ...] = ()
    """The types of less than 32 bits that a value is rounded to after a sum and before more is computed from it."""
    spread: tuple[str, ...] = ()
    """The types of less than 32 bits that a value is rounded to between two sums."""
    exact: bool = False
    """Whether small integers as inputs make all of its sums exact: only moves, casts, sums and products come before."""
    switched: bool = False
    """Whether zeros and large negative numbers do: sums of exponentials of differences to the largest input."""
    to_integers: bool = False
    """Whether floats that come from a sum are converted to integers, which may then round either way."""
    products: bool = False
    """Whether its sums are of products of two inputs, which have either sign if the inputs have."""


Index: TypeAlias = tuple[tuple[int, int], ...]
"""The index of one dimension of a tensor: a sum of loops, each with its factor."""


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A sum of products that reads its operands as they are stored, and only rounds its result before storing it."""

    views: tuple[int, int, int]
    """The positions of the views of its two operands and of its result."""
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """The shapes of operands and result in the op."""
    loops: tuple[int, ...]
    """The trip count of each loop."""
    indices: tuple[tuple[Index, ...], tuple[Index, ...], tuple[Index, ...]]
    """How the loops index operands and result."""


class BufferView(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor inside the benchmark's buffer, as the dispatch sees it.

    A view that is read holds input data, a view that is written holds a result. A view that is both accumulates.
    """

    offset_bytes: int
    """The offset from the start of the whole buffer."""
    shape: tuple[int, ...]
    element: str
    reads: bool
    writes: bool
    scale: float = 1.0
    """Random values below this magnitude make sums of products of such inputs about 1."""
    wide: bool = False
    """Whether integers of 32 bits and more may have any value: they index nothing, and no sum of floats takes them."""


class BenchmarkModule(msgspec.Struct, frozen=True, kw_only=True):
    """An executable benchmark module without configs, and with a function that returns its buffer.

    The buffer holds ``copies`` of the views at equal distances, and dispatches take turns through them (see
    `rotation`).
    """

    text: str
    run_function: str
    """The name of a function that takes an i32 batch size and runs the dispatch that many times."""
    buffer_function: str
    """The name of a function without arguments that returns the buffer as a ``!hal.buffer_view`` of i8."""
    buffer_bytes: int
    """The size of the buffer."""
    views: tuple[BufferView, ...]
    """The views of the first copy."""
    copies: int = 1
    numerics: Numerics | None = None
    """The numerics, ``None`` if they were not read."""
    product: Product | None = None
    """The product that the dispatch computes, ``None`` if it computes more than one product of stored tensors."""
    flags: tuple[str, ...] = ()
    """The flags of its model's form on which its code depends."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One dispatch of a group."""

    symbol: str
    """The name of its executable in ``source``."""
    source: str
    calls: int
    """The number of calls."""
    module: BenchmarkModule
    size: str = ""
    """Of a dispatch with open sizes: the sizes of this member, such as ``0.0=16``."""
    size_weight: int = 1
    """How often these sizes were given: they count as often in the mean over the sizes."""
    element_ops: int = 0


class Dispatch(msgspec.Struct, frozen=True, kw_only=True):
    """A tuning task: all dispatches that one matcher matches. The first member is measured.

    The defaults are the compiler's choice without a spec, and empty if it chooses none.
    """

    name: str
    root: RootOp
    target: TargetFacts
    default_pipeline: str
    """The name of the default pipeline (``DoubleTilingExpert``)."""
    default_config: str
    """The text of the default lowering config."""
    default_info: str = ""
    """The text of a ``compilation_info`` with both."""
    members: tuple[Member, ...]

    @property
    def key(self) -> str:
        """The key of the root op: two dispatches of equal key need only one spec entry."""
        return self.root.key

    @property
    def weight(self) -> int:
        """The number of calls, over all members, that an entry for this dispatch makes faster."""
        calls = {(member.source, member.symbol): member.calls for member in self.members}
        return sum(calls.values())

    @property
    def screened(self) -> tuple[Member, ...]:
        """The members on which candidates are tried: the first dispatch, at all its sizes if they are open."""
        first = self.members[0]
        return tuple(
            member for member in self.members if (member.source, member.symbol) == (first.source, first.symbol)
        )


class Untunable(msgspec.Struct, frozen=True):
    """A dispatch that cannot be tuned."""

    name: str
    source: str
    reason: str
    """The reason, with its remedy, for people."""
    share: float | None = None
    """Its share of its model's time, if that is known."""
    kind: str = ""
    """The name of the reason's class, see `dispatch.reasons`; empty in results of older versions."""

    @classmethod
    def of(cls, name: str, source: str, reason: CannotTune) -> Untunable:
        """Return the dispatch with a reason."""
        return cls(name, source, reason.advice, kind=reason.kind)


class SizePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes for the open dimensions of a model's inputs."""

    label: str
    """The sizes as the user gave them, such as ``x.0=16``."""
    sizes: tuple[tuple[int, int, int], ...]
    """The position of an input, that of its dimension, and the size, for each dimension."""
    weight: int = 1
    """How often they were given."""

    @property
    def by_dimension(self) -> dict[tuple[int, int], int]:
        """The sizes by input and dimension."""
        return {(number, dimension): size for number, dimension, size in self.sizes}


class SizedModule(msgspec.Struct, frozen=True, kw_only=True):
    """A dispatch with open sizes at one choice of them."""

    point: SizePoint
    module: BenchmarkModule
    """The module; all sizes have the same text, each with other functions and views."""


class FoundDispatch(msgspec.Struct, frozen=True, kw_only=True):
    """A tunable dispatch of one benchmark module, before similar dispatches are grouped."""

    symbol: str
    source: str
    root: RootOp
    target: TargetFacts
    default_pipeline: str
    default_config: str
    default_info: str = ""
    module: BenchmarkModule
    sized: tuple[SizedModule, ...] = ()
    """Of a dispatch with open sizes: its modules, by size. ``module`` is the first."""
