from __future__ import annotations

import sys
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from pytest_shark_tune.dispatch.types import RootOp, TargetFacts, Tensor
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.search_space import NoSpace, SearchSpace
from pytest_shark_tune.search_space.registry import GROUP, provided_spaces

TARGET = TargetFacts(backend="llvm-cpu")
ROOT = RootOp(
    op="linalg.softmax",
    kind="softmax",
    loops=(8, 8),
    iterators=("parallel", "reduction"),
    maps=(),
    inputs=(Tensor((8, 8), "f32"),),
    outputs=(Tensor((8, 8), "f32"),),
)
SPACE = SearchSpace.of("Theirs", {"tile": (1, 2, 4)})


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[..., EntryPoint]:
    """Makes an entry point of a function, in a module of its own."""

    def make(name: str, provider: Any) -> EntryPoint:
        module = types.ModuleType(f"other_package_{name}")
        module.spaces = provider  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return EntryPoint(name, f"{module.__name__}:spaces", GROUP)

    return make


def test_the_first_that_covers_an_op_gives_its_spaces(register: Callable[..., EntryPoint]) -> None:
    empty = SPACE.where("tile > 4")
    entries = [register("none", lambda root, target: None), register("theirs", lambda root, target: [empty, SPACE])]
    assert provided_spaces(ROOT, TARGET, entries) == (SPACE,)
    assert provided_spaces(ROOT, TARGET, entries[:1]) is None


def test_the_op_and_the_target_are_handed_over(register: Callable[..., EntryPoint]) -> None:
    asked: list[tuple[object, object]] = []
    provided_spaces(ROOT, TARGET, [register("listening", lambda root, target: asked.append((root, target)))])
    assert asked == [(ROOT, TARGET)]


def _raising(root: object, target: object) -> None:
    raise KeyError("softmax")


@pytest.mark.parametrize(
    ("provider", "reason"),
    [
        (_raising, "failed for linalg.softmax: KeyError: 'softmax'"),
        (lambda root, target: 3, "failed for linalg.softmax: TypeError"),
        (lambda root, target: ["space"], "gave 'space' for linalg.softmax, which is no SearchSpace"),
        ("no function", "failed for linalg.softmax: TypeError"),
    ],
)
def test_a_broken_entry_point_is_told_by_name(
    register: Callable[..., EntryPoint], provider: object, reason: str
) -> None:
    with pytest.raises(InputError, match=f"entry point broken = 'other_package_broken:spaces' of {GROUP} .*{reason}"):
        provided_spaces(ROOT, TARGET, [register("broken", provider)])


@pytest.mark.parametrize("value", ["no_such_module_anywhere:spaces", "json:no_such_name"])
def test_an_entry_point_that_cannot_be_loaded_is_told_by_name(value: str) -> None:
    with pytest.raises(InputError, match=r"entry point broken = .* cannot be loaded"):
        provided_spaces(ROOT, TARGET, [EntryPoint("broken", value, GROUP)])


def test_an_entry_point_may_say_that_there_is_no_space(register: Callable[..., EntryPoint]) -> None:
    def refuse(root: RootOp, target: TargetFacts) -> None:
        raise NoSpace("a softmax this small is not worth it")

    with pytest.raises(NoSpace, match="not worth it"):
        provided_spaces(ROOT, TARGET, [register("picky", refuse)])
    with pytest.raises(NoSpace, match=r"the entry point empty .* offers no config"):
        provided_spaces(ROOT, TARGET, [register("empty", lambda root, target: ())])
