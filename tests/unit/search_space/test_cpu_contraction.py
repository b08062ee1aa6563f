from __future__ import annotations

import math
import random

import msgspec
import pytest

from pytest_shark_tune.dispatch.types import RootOp, TargetFacts, Tensor
from pytest_shark_tune.search_space import NoSpace, SearchSpace, spaces_for
from tests.factories import solutions

AVX512 = TargetFacts(backend="llvm-cpu", architecture="x86_64", native_vector_bytes=64, processors=2)
AVX2 = TargetFacts(backend="llvm-cpu", architecture="x86_64", native_vector_bytes=32, processors=16)
NEON = TargetFacts(backend="llvm-cpu", architecture="aarch64", native_vector_bytes=16, processors=96)


def contraction(
    sizes: dict[str, int], lhs: str, rhs: str, out: str, element: str = "f32", accumulator: str = "f32"
) -> RootOp:
    """A contraction in the notation of einsum: sizes by letter in loop order, and the letters of each operand."""
    letters = list(sizes)
    dims = ", ".join(f"d{index}" for index in range(len(letters)))

    def affine_map(operand: str) -> str:
        return f"affine_map<({dims}) -> ({', '.join(f'd{letters.index(letter)}' for letter in operand)})>"

    def tensor(operand: str, kind: str) -> Tensor:
        return Tensor(tuple(sizes[letter] for letter in operand), kind)

    def positions(test: set[str]) -> tuple[int, ...]:
        return tuple(index for index, letter in enumerate(letters) if letter in test)

    left, right, result = set(lhs), set(rhs), set(out)
    return RootOp(
        op="linalg.generic",
        kind="contraction",
        loops=tuple(sizes.values()),
        iterators=tuple("parallel" if letter in out else "reduction" for letter in letters),
        maps=(affine_map(lhs), affine_map(rhs), affine_map(out)),
        inputs=(tensor(lhs, element), tensor(rhs, element)),
        outputs=(tensor(out, accumulator),),
        batch=positions(left & right & result),
        m=positions((left & result) - right),
        n=positions((right & result) - left),
        k=positions((left & right) - result),
    )


def matmul(m: int, n: int, k: int, element: str = "f32", accumulator: str = "f32") -> RootOp:
    return contraction({"m": m, "n": n, "k": k}, "mk", "kn", "mn", element, accumulator)


def space_of(root: RootOp, target: TargetFacts = AVX512) -> SearchSpace:
    (space,) = spaces_for(root, target)
    return space


def domains(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    return {knob.name: knob.domain for knob in space.knobs}


SHAPES = {
    "matmul": matmul(512, 512, 512),
    "transposed": contraction({"m": 512, "n": 512, "k": 512}, "km", "nk", "mn"),
    "primes": matmul(127, 131, 61),
    "batch": contraction({"b": 12, "m": 128, "n": 128, "k": 64}, "bmk", "bkn", "bmn"),
    "outer": contraction({"m": 480, "n": 6, "o": 80, "k": 480}, "mk", "nko", "mno"),
    "two reductions": contraction({"m": 64, "n": 96, "k": 9, "l": 32}, "mkl", "kln", "mn"),
    "wide sums": matmul(512, 512, 512, "i8", "i32"),
    "half": matmul(256, 256, 256, "f16", "f16"),
    "row": matmul(1, 1000, 2048),
    "column": matmul(1000, 1, 2048),
    "tiny": matmul(3, 5, 7),
    "one": matmul(1, 1, 1),
    "dot": contraction({"k": 4096}, "k", "k", ""),
}


@pytest.mark.parametrize("target", [AVX512, AVX2, NEON], ids=["avx512", "avx2", "neon"])
@pytest.mark.parametrize("root", SHAPES.values(), ids=SHAPES)
def test_every_contraction_has_a_space_whose_samples_are_members(root: RootOp, target: TargetFacts) -> None:
    space = space_of(root, target)
    assert space.pipeline == "DoubleTilingExpert"
    assert all(constraint.message for constraint in space.constraints)
    assert all(space.violated(knobs) == () for knobs in space.sample(10, 0))


def test_shapes_drawn_at_random_have_spaces() -> None:
    rng = random.Random(5)
    for _ in range(40):
        m, n, k = (rng.choice([1, 2, 3, 5, 7, 16, 31, 64, 97, 250, 1009, 4096]) for _ in range(3))
        target = TargetFacts(
            backend="llvm-cpu",
            architecture=rng.choice(["x86_64", "aarch64"]),
            native_vector_bytes=rng.choice([16, 32, 64]),
            max_stack_bytes=rng.choice([8192, 32768]),
            processors=rng.choice([1, 2, 8, 128]),
        )
        element, sums = rng.choice([("f32", "f32"), ("f16", "f32"), ("bf16", "bf16"), ("i8", "i32"), ("f64", "f64")])
        assert space_of(matmul(m, n, k, element, sums), target), (m, n, k, element, target)


@pytest.mark.parametrize("root", [matmul(6, 20, 3), matmul(1, 40, 8), SHAPES["tiny"]], ids=["flat", "row", "tiny"])
def test_enumeration_equals_z3_with_blocking_clauses(root: RootOp) -> None:
    space = space_of(root)
    assert solutions(space) == {tuple(row) for row in space.members().tolist()}


def test_what_no_vector_can_hold_is_kept_out() -> None:
    space = space_of(SHAPES["matmul"])
    knobs = {"dist_0": 64, "dist_1": 128, "vec_0": 8, "vec_1": 32, "vec_2": 4, "peel": 0}
    assert space.violated(knobs) == ()
    assert space.violated(knobs | {"vec_0": 16, "vec_1": 64}) == (
        "the product of the parallel vector tiles (1024) must be at most 512, which fills the vector registers",
    )
    assert any("or it does not compile" in reason for reason in space.violated(knobs | {"vec_0": 16, "vec_2": 16}))
    assert max(math.prod((row["vec_0"], row["vec_1"], row["vec_2"])) for row in space) * 4 < 32768


def test_a_smaller_stack_allows_smaller_vectors() -> None:
    small = TargetFacts(backend="llvm-cpu", native_vector_bytes=64, max_stack_bytes=4096, processors=2)
    space = space_of(SHAPES["matmul"], small)
    assert max(math.prod((row["vec_0"], row["vec_1"], row["vec_2"])) for row in space) * 4 < 4096


def test_every_processor_gets_work() -> None:
    for knobs in space_of(SHAPES["matmul"], AVX2):
        assert math.ceil(512 / knobs["dist_0"]) * math.ceil(512 / knobs["dist_1"]) >= 16
    knobs = {"dist_0": 512, "dist_1": 512, "vec_0": 8, "vec_1": 32, "vec_2": 4, "peel": 0}
    reasons = space_of(SHAPES["matmul"]).violated(knobs)
    assert reasons[0] == "there must be at least 2 workgroups, not 1, for the 2 processors"


def test_vectors_run_along_the_contiguous_dimension_of_the_result() -> None:
    assert domains(space_of(SHAPES["matmul"]))["vec_1"] == (16, 32, 64, 128)
    turned = contraction({"m": 512, "n": 512, "k": 512}, "km", "kn", "nm")
    assert domains(space_of(turned))["vec_0"] == (16, 32, 64, 128)
    strided = space_of(SHAPES["transposed"])
    assert "vec_1" not in strided.names
    assert "16, 0]" in strided.knob_dictionary
    assert domains(space_of(SHAPES["half"]))["vec_1"] == (32, 64, 128, 256)


def test_tiles_need_not_divide_odd_dimensions_and_are_then_peeled() -> None:
    space = space_of(SHAPES["primes"])
    assert {knobs["peel"] for knobs in space} == {1}
    assert len({knobs["vec_1"] for knobs in space}) > 1
    even = space_of(SHAPES["matmul"])
    assert {knobs["peel"] for knobs in even} == {0, 1}
    for knobs in even.sample(200, 3):
        divides = [
            512 % knobs["dist_0"], 512 % knobs["dist_1"], 512 % knobs["vec_2"],
            knobs["dist_0"] % knobs["vec_0"], knobs["dist_1"] % knobs["vec_1"],
        ]  # fmt: skip
        assert knobs["peel"] == int(any(divides))


def test_a_dimension_without_a_choice_has_no_knob() -> None:
    space = space_of(SHAPES["row"])
    assert "dist_0" not in space.names
    assert "vec_0" not in space.names
    assert "distribution = [1, #iree_codegen.smt.int_knob<" in space.knob_dictionary


@pytest.mark.parametrize(
    ("root", "target", "reason"),
    [
        (matmul(-1, 8, 8), AVX512, "dimension 0 of linalg.generic is dynamic"),
        (matmul(8, 0, 8), AVX512, "dimension 1 of linalg.generic has size zero"),
        (matmul(8, 8, 8, "f8E4M3FN"), AVX512, "elements of type f8E4M3FN"),
        (matmul(8, 8, 8), TargetFacts(backend="vmvx"), "on vmvx, which has no op"),
        (matmul(8, 8, 8), TargetFacts(backend="llvm-cpu", max_stack_bytes=2), "fits the limits of the target"),
        (
            msgspec.structs.replace(matmul(8, 8, 8), op="linalg.softmax", kind="unheard"),
            AVX512,
            r"no search space covers linalg.softmax \(unheard\) on llvm-cpu, which has attention, contraction",
        ),
    ],
)
def test_why_there_is_no_space_is_told(root: RootOp, target: TargetFacts, reason: str) -> None:
    with pytest.raises(NoSpace, match=reason):
        spaces_for(root, target)
