"""Defaults that are prepared on a device: which one a dispatch gets, and how many stay."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_shark_tune.tuning.ahead import prepared
from pytest_shark_tune.tuning.ahead.prepared import PreparedDefaults


class Child:
    """A device child that remembers its requests."""

    generation = 1

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {}

    def load_benchmark(self, key: str, path: Path, module: Any, **_: Any) -> None:
        self.loaded[key] = module.text

    def store_reference(self, *_: Any, **__: Any) -> None:
        pass

    def unload(self, key: str) -> None:
        self.loaded.pop(key, None)

    def run(self, key: str, batch: int) -> float:
        return 0.01 * batch


def task(text: str, buffer_bytes: int = 1) -> Any:
    """A dispatch whose benchmark has this text. All have the same root op."""
    member = SimpleNamespace(module=SimpleNamespace(text=text, buffer_bytes=buffer_bytes))
    return SimpleNamespace(dispatch=SimpleNamespace(key="root", screened=(member,)), default=None)


@pytest.fixture
def defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedDefaults:
    monkeypatch.setattr(prepared, "check_result", lambda *_, bitwise: None)
    builder: Any = SimpleNamespace(
        comparers=SimpleNamespace(path=lambda module: None),
        key=lambda module, candidate: module.text,
        compiler=SimpleNamespace(target=SimpleNamespace(shares_processor=False)),
    )
    return PreparedDefaults(builder, 0, tmp_path)


def test_two_dispatches_with_one_root_have_defaults_of_their_own(defaults: PreparedDefaults) -> None:
    """As where two forms of a model fuse other ops into the same product."""
    child: Any = Child()
    artifact: Any = SimpleNamespace(vmfb="default.vmfb")
    first = defaults.prepare(child, task("one"), artifact)
    second = defaults.prepare(child, task("other"), artifact)
    assert first.default(0) != second.default(0)
    assert first.reference(0) != second.reference(0)
    assert child.loaded == {first.default(0): "one", second.default(0): "other"}
    assert defaults.prepare(child, task("one"), artifact) is first


def test_the_one_that_was_not_used_for_longest_makes_room(defaults: PreparedDefaults) -> None:
    child: Any = Child()
    artifact: Any = SimpleNamespace(vmfb="default.vmfb")
    for number in range(prepared._MOST):
        defaults.prepare(child, task(str(number)), artifact)
    defaults.prepare(child, task("0"), artifact)
    defaults.prepare(child, task("more"), artifact)
    assert set(child.loaded.values()) == {"more", "0", *map(str, range(2, prepared._MOST))}
    defaults.prepare(child, task("large", buffer_bytes=prepared._MOST_BYTES), artifact)
    assert set(child.loaded.values()) == {"large"}
