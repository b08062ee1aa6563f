"""The package has one order: this reads every import and fails on an arrow that points back."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_shark_tune

PACKAGE = "pytest_shark_tune"
ROOT = Path(pytest_shark_tune.__file__).parent
ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"
BESIDE = {
    "testing": ("compiler", "dispatch", "forms", "search_space"),
    "stages": ("measurement", "search", "search_space"),
    "__init__": (),
}
"""What stands beside the order, and what it may import of it; the root's lazy exports import nothing at once."""
OUTSIDE = {
    "pytest": ("plugin", "plugin/", "commands/", "testing/"),
    "_pytest": ("plugin", "plugin/"),
    "pluggy": ("plugin", "plugin/"),
    "pytest_benchmark": ("plugin/",),
    "xdist": ("plugin/",),
    "iree.runtime": ("device/",),
}
"""Who may import what is not ours."""

MOST_MODULES, MOST_LINES, MOST_METHODS, MOST_IMPORTS = 17, 500, 20, 15


def order() -> tuple[str, ...]:
    found = re.search(r"```order\n(.*?)```", ARCHITECTURE.read_text(encoding="utf-8"), re.S)
    assert found is not None
    return tuple(found[1].split())


def package_files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    """Every module by its place in the package: ``tuning/runner``, ``plugin/tune`` for a package's own."""
    found = {}
    for path in package_files():
        place = path.relative_to(ROOT).with_suffix("")
        found[(place.parent if place.name == "__init__" and place.parent != Path() else place).as_posix()] = path
    return found


MODULES = modules()


def imports(source: str) -> Iterator[str]:
    """The dotted name of each module that is imported, or of a name in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place_of(target: str) -> str:
    """The place of the module that a dotted name is, or is in."""
    parts = target.split(".")[1:]
    while parts and "/".join(parts) not in MODULES:
        parts.pop()
    return "/".join(parts) or "__init__"


def objections(module: str, source: str) -> list[str]:
    """The imports of a module that are against the order, in words."""
    ranks = {name: rank for rank, name in enumerate(order())}
    own = module.partition("/")[0]
    found = []
    for target in imports(source):
        if target.partition(".")[0] != PACKAGE:
            for outside, allowed in OUTSIDE.items():
                if (target == outside or target.startswith(f"{outside}.")) and not any(
                    module == who or (who.endswith("/") and module.startswith(who)) for who in allowed
                ):
                    found.append(f"{module} imports {target}: only {' and '.join(allowed)} may")
            continue
        place = place_of(target)
        other = place.partition("/")[0]
        if other == own or place == "__init__":
            continue
        if own in BESIDE:
            if other not in (*BESIDE[own], "errors", "dispatch") and own != "__init__":
                found.append(f"{module} imports {place}: it stands beside the order")
        elif ranks[other] > ranks[own]:
            found.append(f"{module} imports {place}: {other} comes after {own}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_arrow_points_back(module: str) -> None:
    assert objections(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_the_order_is_of_what_there_is() -> None:
    there = {module.partition("/")[0] for module in MODULES} - BESIDE.keys()
    assert there == set(order())


@pytest.mark.parametrize(
    ("module", "line", "reason"),
    [
        ("dispatch/types", "from pytest_shark_tune.tuning.runner import Runner", "tuning comes after dispatch"),
        ("tuning/runner", "import pytest", "only plugin"),
        ("search/cost", "from iree.runtime import VmModule", "only device/ may"),
        ("testing/space_contract", "from pytest_shark_tune.plan.make import make_plan", "beside the order"),
    ],
)
def test_an_arrow_that_points_back_is_seen(module: str, line: str, reason: str) -> None:
    (told,) = objections(module, line)
    assert reason in told


def test_nothing_grows_beyond_the_limits() -> None:
    directories = Counter(
        path.parent.relative_to(ROOT).as_posix() for path in MODULES.values() if path.name != "__init__.py"
    )
    assert {name: count for name, count in directories.items() if count > MOST_MODULES} == {}
    assert directories["."] <= 3
    lines, methods, fans = {}, {}, {}
    for module, path in MODULES.items():
        source = path.read_text(encoding="utf-8")
        lines[module] = source.count("\n")
        fans[module] = len({place_of(target) for target in imports(source) if target.startswith(f"{PACKAGE}.")})
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                count = sum(isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) for inner in node.body)
                methods[f"{module}:{node.name}"] = count
    for found, limit in ((lines, MOST_LINES), (methods, MOST_METHODS), (fans, MOST_IMPORTS)):
        assert {name: count for name, count in found.items() if count > limit} == {}


def test_the_architecture_page_lists_the_modules() -> None:
    listed = {}
    for path in package_files():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if text is not None and path.parent not in (ROOT, ROOT / "stages"):
            first = re.match(r".*?\.(?= [A-Z`]|$)", " ".join(text.split("\n\n")[0].split()))
            assert first is not None
            listed[path.relative_to(ROOT).as_posix()] = first[0]
    page = dict(re.findall(r"^- `(\S+\.py)`: (.*)$", ARCHITECTURE.read_text(encoding="utf-8"), re.M))
    assert page == listed


@pytest.mark.parametrize("module", ["dispatch.types", "measurement.timing", "measurement.correctness", "records.types"])
def test_plain_types_load_no_bindings(module: str) -> None:
    code = f"import sys, {PACKAGE}.{module}; sys.exit(any(name.startswith('iree') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_device_child_loads_neither_the_compiler_nor_pytest() -> None:
    code = (
        f"import sys, {PACKAGE}.device.server; "
        "sys.exit(' '.join(name for name in ('iree.compiler', 'pytest', 'z3', 'sklearn') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_a_run_that_does_not_tune_loads_nothing_heavy() -> None:
    code = "import sys, pytest_shark_tune.plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "pytest_shark_tune" in loaded
    assert not loaded & {
        "iree",
        "jinja2",
        "numpy",
        "onnx",
        "pygal",
        "pytest_benchmark",
        "rich",
        "scipy",
        "sklearn",
        "z3",
    }
