from __future__ import annotations

import pytest

from pytest_shark_tune.compiler.configure import compiler_context
from pytest_shark_tune.dispatch.foreign.nesting import why_too_deep
from pytest_shark_tune.dispatch.mlir import parse_attribute, parse_module
from pytest_shark_tune.errors import InputError
from tests.models import MODEL

ALIASES = "#a0 = [1]\n" + "".join(f"#a{number} = [#a{number - 1}]\n" for number in range(1, 500))
BOMB = "#a0 = [1, 1]\n" + "".join(f"#a{number} = [#a{number - 1}, #a{number - 1}]\n" for number in range(1, 40))
# Each of these ends the process, or never ends, where IREE 3.13 parses it.
DEEP = {
    "brackets": "[" * 20_000,
    "mixed brackets": "tensor<(" * 20_000,
    "regions": "module {\n" * 20_000,
    "minus signs": f"#m = affine_map<(d0) -> ({'-' * 20_000}d0)>",
    "minus signs apart": f"#m = affine_map<(d0) -> ({'- ' * 20_000}d0)>",
    "aliases": f"{ALIASES}module attributes {{a.b = #a499}} {{}}",
    "aliases that double": f"{BOMB}module attributes {{a.b = #a39}} {{}}",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_what_would_end_the_process_is_refused(text: str) -> None:
    assert why_too_deep(text)
    with compiler_context():
        with pytest.raises(InputError, match=r"nested more than 200 deep in line|aliases stand for too much in line"):
            parse_module(text)
        with pytest.raises(InputError, match="in line"):
            parse_attribute(text)


@pytest.mark.parametrize(
    "text",
    [
        MODEL,
        "(" * 150 + ")" * 150,
        "[0, -1, -2]" * 1000,
        "() -> i1\n" * 1000,
        "// (((\n" * 1000,
        '"(((" ' * 1000,
        "#set = affine_set<(d0) : (d0 >= 0, d0 <= 3)>\n" * 1000,
        "#a = [1]\n" + "x = #a\n" * 10_000,
        "]" * 1000,
    ],
)
def test_what_is_flat_is_not(text: str) -> None:
    assert why_too_deep(text) == ""


def test_an_empty_attribute_is_refused() -> None:
    with compiler_context(), pytest.raises(InputError, match="the text is empty"):
        parse_attribute(" ")
