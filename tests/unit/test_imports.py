"""The flow goes one way: this reads every import of the package and fails on an arrow that points back."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_shark_tune

PACKAGE = "pytest_shark_tune"
FLOW = (
    "dispatch",
    "check",
    "product",
    "mlir",
    "numerics",
    "passes",
    "trust",
    "buffers",
    "extraction",
    "grouping",
    "rotation",
    "space",
    "candidate",
    "artifact",
    "disturbance",
    "measurement",
    "limits",
    "record",
    "search",
    "winner",
    "matcher",
    "spec",
    "question",
    "guard",
)
# What holds plain types that a door to the outside may take and give.
PLAIN_STAGES = ("check", "dispatch", "measurement", "product")
# Imported by pytest and by the console script, never by a module of the package.
ENTRY_POINTS = ("plugin", "cli")
# Stages are functions of values: they do not know pytest and start nothing.
CLOSED_TO_STAGES = ("_pytest", "pluggy", "pytest", "pytest_benchmark", "xdist", "subprocess", "multiprocessing")


def imports(module: str, source: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Each import in ``source`` with its line, as the dotted name it reaches: ``from a.b import c`` is ``a.b.c``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")
            base = parents[: len(parents) - node.level + is_package] if node.level else []
            for alias in node.names:
                yield node.lineno, ".".join([*base, *([node.module] if node.module else []), alias.name])


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """The imports of ``module`` that point back in the flow, each as a sentence; empty where all is well."""
    found = []
    for line, target in imports(module, source, is_package=is_package):
        reason = _objection(tuple(module.split(".")), tuple(target.split(".")))
        if reason:
            found.append(f"{module}:{line} imports {target}: {reason}")
    return found


def _objection(module: tuple[str, ...], target: tuple[str, ...]) -> str | None:
    layer = module[1] if len(module) > 1 else ""
    if target[0] != PACKAGE:
        if layer == "stages" and target[0] in CLOSED_TO_STAGES:
            return "a stage knows neither pytest nor processes"
        return None
    part, inner = (*target[1:3], "", "")[:2]
    if part in ENTRY_POINTS:
        return f"nobody imports {part}"
    if layer == "stages":
        return _stage_objection(module[2] if len(module) > 2 else "", part, inner)
    if layer == "tools" and part not in ("errors", "tools") and not (part == "stages" and inner in PLAIN_STAGES):
        return f"a tool imports errors, tools and the types of stages.{' and stages.'.join(PLAIN_STAGES)}"
    if layer == "errors":
        return "errors stand before everything"
    return None


def _stage_objection(stage: str, part: str, inner: str) -> str | None:
    if not stage:
        return "the package of the stages imports none of them"
    if stage not in FLOW:
        return f"{stage} has no place in the flow {' -> '.join(FLOW)}"
    if part == "errors":
        return None
    if part != "stages" or inner not in FLOW:
        return "a stage imports errors and the stages before it, each by name"
    if FLOW.index(inner) > FLOW.index(stage):
        return f"{inner} comes after {stage}"
    return None


def package_files() -> list[Path]:
    return sorted(Path(pytest_shark_tune.__file__).parent.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(Path(pytest_shark_tune.__file__).parent.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", [pytest.param(path, id=module_name(path)) for path in package_files()])
def test_no_arrow_points_back(path: Path) -> None:
    found = violations(module_name(path), path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py")
    assert not found, "\n".join(found)


def test_the_whole_package_is_read() -> None:
    names = {module_name(path) for path in package_files()}
    assert {PACKAGE, f"{PACKAGE}.errors", f"{PACKAGE}.stages.dispatch", f"{PACKAGE}.tools.process"} <= names


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stages.artifact", "from pytest_shark_tune.spec.build import SpecEntry"),
        ("stages.artifact", "from pytest_shark_tune.spec import build as spec"),
        ("stages.artifact", "import pytest_shark_tune.spec.build as spec"),
        ("stages.artifact", "from . import spec"),
        ("stages.artifact", "from .spec import SpecEntry"),
        ("stages.space.contraction", "from ..candidate import Candidate"),
        ("stages.space.contraction", "def late():\n    from pytest_shark_tune.records.types import Record"),
        ("stages.dispatch", "if TYPE_CHECKING:\n    from pytest_shark_tune.guard.speed import Promise"),
        ("stages.winner", "from pytest_shark_tune.tools import process"),
        ("stages.winner", "from pytest_shark_tune.tuning import session"),
        ("stages.winner", "from pytest_shark_tune.plugin.options import Options"),
        ("stages.winner", "import pytest_shark_tune"),
        ("stages.winner", "from pytest_shark_tune import stages"),
        ("stages.guard", "import pytest"),
        ("stages.guard", "from _pytest.config import Config"),
        ("stages.guard", "import subprocess as sp"),
        ("stages.helpers", "from pytest_shark_tune.dispatch.types import Dispatch"),
        ("tools.compiler", "from pytest_shark_tune.spec.build import SpecEntry"),
        ("tools.compiler", "from ..stages.candidate import Candidate"),
        ("tools.compiler", "from pytest_shark_tune.tuning.session import Session"),
        ("session", "from pytest_shark_tune.plugin import pytest_configure"),
        ("session", "from pytest_shark_tune import cli"),
        ("errors", "from pytest_shark_tune.plugin import options"),
    ],
)
def test_a_bad_arrow_is_found(module: str, source: str) -> None:
    (found,) = violations(f"{PACKAGE}.{module}", source)
    assert found.startswith(f"{PACKAGE}.{module}:")


def test_a_bad_arrow_of_a_package_is_found() -> None:
    assert violations(f"{PACKAGE}.stages", "from .dispatch import Dispatch", is_package=True)
    assert violations(f"{PACKAGE}.stages.space", "from ..record import Record", is_package=True)
    assert not violations(f"{PACKAGE}.stages.space", "from .contraction import space", is_package=True)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stages.spec", "from pytest_shark_tune.dispatch.types import Dispatch, RootOp"),
        ("stages.spec", "from pytest_shark_tune.search_space import candidate, winner"),
        ("stages.space.contraction", "from pytest_shark_tune.stages.space.knobs import Knob"),
        (
            "stages.guard",
            "import msgspec\nfrom iree.compiler import ir\nfrom pytest_shark_tune.errors import InputError",
        ),
        ("tools.runtime", "from pytest_shark_tune.measurement.timing import Measurement"),
        ("tools.compiler", "import subprocess\nfrom pytest_shark_tune.tools import process"),
        ("session", "import pytest\nfrom pytest_shark_tune.guard.speed import Promise"),
    ],
)
def test_a_good_arrow_passes(module: str, source: str) -> None:
    assert violations(f"{PACKAGE}.{module}", source) == []


def test_a_run_that_does_not_tune_loads_nothing_heavy() -> None:
    code = "import sys, pytest_shark_tune.plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "pytest_shark_tune" in loaded
    assert not loaded & {"iree", "numpy", "onnx", "pygal", "pytest_benchmark", "rich", "scipy", "sklearn", "z3"}
