"""What reaches a terminal: shown, and without effect; and no way past the modules that see to it."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_shark_tune.plugin.reporting import EscapedReports, escaping_errors
from pytest_shark_tune.system.terminal import EscapingStream, escaped, escaped_json, escaped_line
from tests.unit.test_imports import module_name, package_files

HOSTILE = (
    "\x1b]0;title\x07\x1b[2J\x9b1m\r\b\u202e\u2066\u200b\u2028::x\x7f\n::error::pwned\n \t::warning::x\n##[group]\ud800"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain — é 漢 ─\tx\ny", "plain — é 漢 ─\tx\ny"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\x9b31m\x85\x07\x00\x7f", r"a\x9b31m\x85\x07\x00\x7f"),
        ("100%\rdone\x0b\x0c\x1c", r"100%\rdone\x0b\x0c\x1c"),
        ("\u202egnp.exe\u2066\u200b\ufeff\u2028\u00ad", r"\u202egnp.exe\u2066\u200b\ufeff\u2028\xad"),
        ("\U000e0041\ud800", r"\U000e0041\ud800"),
        ("::error::x", r"\x3a:error::x"),
        ("y\n \u00a0\t::error file=a::x", "y\n \u00a0\t\\x3a:error file=a::x"),
        ("tests/a.py::test[x::y]", "tests/a.py::test[x::y]"),
        ("see ##[error]x, ##vso[task.x]y ##teamcity[z]", r"see \x23#[error]x, \x23#vso[task.x]y \x23#teamcity[z]"),
        ("## a heading [x]", "## a heading [x]"),
    ],
)
def test_what_is_not_printed_is_shown(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert escaped(shown) == shown


def test_one_line_stays_one() -> None:
    assert escaped_line("a\n::error::\tb") == r"a\n::error::\tb"


def test_json_keeps_its_values() -> None:
    value = {HOSTILE.replace("\ud800", ""): ["##[x]", "\U000e0041"]}
    shown = escaped_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(shown) == value
    assert escaped(shown) == shown


def test_a_stream_escapes_lines_that_come_in_parts() -> None:
    behind = io.StringIO()
    stream = EscapingStream(behind)
    for part in ("a\n", " ", ":", ":error::x\n", "y", "::ok\n", ":", ":no\nx\x1b[m", "\n::"):
        stream.write(part)
        stream.flush()
    assert behind.getvalue() == "a\n \\x3a:error::x\ny::ok\n\\x3a:no\nx\\x1b[m\n\\x3a:"


def test_a_stream_has_no_way_past_it() -> None:
    stream = EscapingStream(io.TextIOWrapper(io.BytesIO()))
    assert not stream.isatty()
    assert not hasattr(stream, "buffer")
    with pytest.raises(TypeError):
        stream.write(b"\x1b")  # type: ignore[arg-type]


def test_an_error_that_nobody_expects_is_escaped_as_well() -> None:
    code = "import sys; from pytest_shark_tune.cli import main; from pytest_shark_tune.commands import show as s\n"
    code += "def fail(spec): raise RuntimeError('a\\x1b[2J\\n::error::b')\ns.read_view = fail\nmain(['show', 'x'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "RuntimeError: a\\x1b[2J\n\\x3a:error::b" in done.stderr
    assert "\x1b" not in done.stderr


def report(longrepr: object, *keywords: str) -> pytest.TestReport:
    made = pytest.TestReport("a.py::t", ("a.py", 0, "t"), dict.fromkeys(keywords, 1), "failed", None, "call")
    made.longrepr = longrepr  # type: ignore[assignment]
    made.sections = [("Captured stderr call", HOSTILE)]
    return made


def test_reports_on_our_tests_are_escaped_and_others_are_not() -> None:
    ours, skipped, other = report(HOSTILE, "tune"), report(("a.py", 1, HOSTILE), "tune"), report(HOSTILE, "test_x")
    crashed, collected = report(HOSTILE), pytest.CollectReport("a.py", "failed", HOSTILE, [])
    for each in (ours, skipped, other, crashed):
        EscapedReports().pytest_runtest_logreport(each)
    EscapedReports().pytest_collectreport(collected)
    assert ours.longrepr == crashed.longrepr == collected.longrepr == escaped(HOSTILE)
    assert ours.sections == [("Captured stderr call", escaped(HOSTILE))]
    assert skipped.longrepr == ("a.py", 1, escaped(HOSTILE))
    assert other.longrepr == HOSTILE


def test_a_usage_error_is_escaped() -> None:
    with pytest.raises(pytest.UsageError) as caught, escaping_errors():
        raise pytest.UsageError(HOSTILE)
    assert caught.value.args == (escaped(HOSTILE),)


DOORS = {
    "write_line": ("plugin.reporting",),
    "section": ("plugin.reporting", "report.html.page"),  # The page has a macro of that name.
    "write_sep": (),
    "exit": ("plugin.reporting",),
    "Console": ("commands.output", "plugin.terminal.live_line"),
    "print": ("commands.output", "plugin.terminal.live_line"),
    "secho": (),
    "print_exc": (),
}
"""Who may call what writes to a terminal, or ends a run with a message; what `click.echo` writes to escapes."""


def calls_of(source: str) -> set[str]:
    """What is called in ``source``: plain names, and attributes by their last name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id="print" | "Console" as name):
                    found.add(name)
                case ast.Attribute(value=ast.Name(id="reporting" | "os" | "sys")):
                    pass
                case ast.Attribute(attr=name):
                    found.add(name)
                case _:
                    pass
    return found


@pytest.mark.parametrize("path", [pytest.param(path, id=module_name(path)) for path in package_files()])
def test_nobody_writes_past_the_doors(path: Path) -> None:
    module = module_name(path).removeprefix("pytest_shark_tune.")
    source = path.read_text(encoding="utf-8")
    wrong = {name for name in calls_of(source) & DOORS.keys() if module not in DOORS[name]}
    assert wrong == set()
    if not module.startswith("commands."):
        assert "click.echo" not in source
    scripts = ("port.old_iree_script", "device.onnx_child")  # Programs read what they write.
    assert "sys.stdout.write" not in source or module in scripts
