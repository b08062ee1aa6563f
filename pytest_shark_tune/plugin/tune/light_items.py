"""Light items: of a hundred thousand collected tests most are never run, so each holds only its own name and case.

Pytest gives an item containers for its marks, keywords, fixtures and more. Here they are removed as soon as the item is
made, and made again, with the same content, when somebody asks for them.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from _pytest import fixtures

from pytest_shark_tune.plugin.cases import TuningCase

__all__ = ["LightCallSpec", "LightFunction", "LightItems"]


class LightItems:
    """Makes the items of marked tests light, and keeps pytest and the garbage collector from looking at them all."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        """Collect tests without looking for garbage: the more items there are, the longer that would take."""
        was_on = gc.isenabled()
        gc.disable()
        try:
            with _reordering_only_where_needed():
                return (yield)
        finally:
            gc.freeze()
            if was_on:
                gc.enable()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_generate_tests(self, metafunc: Any) -> Generator[None, object, object]:
        """Make the parameters of tests light before the items are made of them."""
        result = yield
        calls: list[Any] = getattr(metafunc, "_calls", [])
        if calls and _is_known(type(calls[0])) and all(map(_is_of_case, calls)):
            scopes = calls[0]._arg2scope
            calls[:] = [LightCallSpec(call, scopes) for call in calls]
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(self, collector: Any, name: str, obj: object) -> list[pytest.Item] | None:
        """Make the items of a marked function as pytest does, and light. Anything unusual is left to pytest."""
        if not inspect.isfunction(obj) or inspect.isgeneratorfunction(obj) or not getattr(obj, "__test__", True):
            return None
        if not hasattr(collector, "_genfunctions") or not collector.istestfunction(obj, name):
            return None
        if not any(mark.name == "tune" for mark in (*_marks_of(obj), *collector.iter_markers("tune"))):
            return None
        return list(map(_light, collector._genfunctions(name, obj)))

    def pytest_unconfigure(self) -> None:
        """Let the garbage collector have everything again: IREE's bindings warn of what is left at the end."""
        gc.unfreeze()


@contextmanager
def _reordering_only_where_needed() -> Iterator[None]:
    """Spare pytest a fourth of the time of collecting: looking at each item for parameters to be set up once for many.

    Pytest puts tests side by side that share such a parameter. Our tests have a parameter of their own.
    """
    reorder = getattr(fixtures, "reorder_items", None)
    if reorder is None:  # Another release of pytest may call it something else.
        yield
        return

    def reorder_if_needed(items: Sequence[pytest.Item]) -> list[pytest.Item]:
        if all(map(_shares_no_parameter, items)):
            return list(dict.fromkeys(items))
        reordered: list[pytest.Item] = reorder(items)
        return reordered

    fixtures.reorder_items = reorder_if_needed
    try:
        yield
    finally:
        fixtures.reorder_items = reorder


def _shares_no_parameter(item: pytest.Item) -> bool:
    """Whether the parameters of a test are made for it alone."""
    call = getattr(item, "callspec", None)
    return call is None or (isinstance(call, LightCallSpec) and call.is_of_function)


class LightCallSpec:
    """The parameters of a test whose only parameter is its case, as pytest reads them from its own class."""

    __slots__ = ("_arg2scope", "_case", "_index", "id")

    def __init__(self, call: Any, scopes: Mapping[str, object]) -> None:
        self._arg2scope = scopes
        self.id: str = call.id
        self._case: TuningCase = call.params[_PARAMETER]
        self._index: int = call.indices[_PARAMETER]

    @property
    def is_of_function(self) -> bool:
        """Whether the case is made for each test, as by our own fixture."""
        return str(getattr(self._arg2scope.get(_PARAMETER), "value", "")) == "function"

    @property
    def params(self) -> dict[str, object]:
        """The value of each parameter."""
        return {_PARAMETER: self._case}

    @property
    def indices(self) -> dict[str, int]:
        """The position of each value among those of its parameter."""
        return {_PARAMETER: self._index}

    @property
    def _idlist(self) -> list[str]:
        return [self.id]

    @property
    def marks(self) -> list[pytest.Mark]:
        """The marks of the parameters; they have none."""
        return []

    def getparam(self, name: str) -> object:
        """Return the value of a parameter.

        Raises:
            ValueError: there is no such parameter.
        """
        if name != _PARAMETER:
            raise ValueError(name)
        return self._case


_PARAMETER = "candidate"
_FIELDS = {"params", "indices", "_arg2scope", "_idlist", "marks"}


def _is_known(kind: type) -> bool:
    """Whether pytest's class for the parameters of a test is as this module knows it."""
    return getattr(kind, "__dataclass_fields__", {}).keys() == _FIELDS


def _is_of_case(call: Any) -> bool:
    """Whether the parameters of a test are a case and nothing else."""
    return (
        len(call.params) == len(call.indices) == len(call._idlist) == 1
        and isinstance(call.params.get(_PARAMETER), TuningCase)
        and not call.marks
    )


class LightFunction(pytest.Function):
    """A test function of which pytest's containers are made when they are used."""

    def __repr__(self) -> str:
        """Return what pytest shows of its own class."""
        return f"<Function {self.name}>"

    def __getattr__(self, name: str) -> Any:
        """Make a container that was removed."""
        match name:
            case "extra_keyword_matches":
                made: object = set()
            case "user_properties" | "_report_sections":
                made = []
            case "stash":
                made = pytest.Stash()
            case "_store":
                made = self.stash
            case "own_markers":
                made = [*_marks_of(self.obj), *self.callspec.marks]
            case "keywords":
                made = self._made_keywords()
            case "funcargs" | "_request":
                self._initrequest()
                return self.__dict__[name]
            case _:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        setattr(self, name, made)
        return made

    def _made_keywords(self) -> Any:
        assert self.parent is not None, "a function has a module"
        keywords: Any = type(self.parent.keywords)(self)  # type: ignore[call-arg]
        keywords.update((mark.name, mark) for mark in self.own_markers)
        keywords.update(self.obj.__dict__)
        keywords.update({self.callspec.id: True})
        return keywords


_CONTAINERS = (
    "_request",
    "funcargs",
    "keywords",
    "own_markers",
    "extra_keyword_matches",
    "user_properties",
    "_report_sections",
    "stash",
    "_store",
)


def _light(item: pytest.Item) -> pytest.Item:
    """Remove the containers of an item that has been made just now."""
    if type(item) is not pytest.Function or not hasattr(item, "callspec"):
        return item
    try:
        item.__class__ = LightFunction
    except TypeError:  # Another release of pytest may lay its items out in another way.
        return item
    for name in _CONTAINERS:
        try:
            delattr(item, name)
        except AttributeError:
            continue
    return item


def _marks_of(function: object) -> list[pytest.Mark]:
    """Return the marks of a function itself, as pytest keeps them."""
    found = getattr(function, "pytestmark", ())
    marks: list[Any] = [*found] if isinstance(found, list | tuple) else [found]
    return [getattr(mark, "mark", mark) for mark in marks]
