"""Bundles of strangers: nothing is written outside of the run's own directory, and nothing of them is kept."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from click.testing import CliRunner

from pytest_shark_tune.cli import main
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.tuning.bundle import BUNDLE, read_bundle
from tests.models import suite_text
from tests.thinned import thinned

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSuite, Suite

SUITE = suite_text('ops.matmul(m=32, n=32, k=32, lhs="f32")')
Manifest = dict[str, Any]
Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture(scope="module")
def suite(make_suite: MakeSuite) -> Suite:
    suite = make_suite({"test_suite.py": SUITE})
    made = suite.tune("--tune-stop-after=compile", "--tune-trials=1", out="compiled")
    assert made.status == 0, made.text
    return suite


@pytest.fixture(scope="module")
def bundle(suite: Suite) -> Path:
    return suite.directory / "compiled" / BUNDLE


def changed(bundle: Path, out: Path, change: Callable[[Manifest, Members], None]) -> Path:
    """A copy of a bundle with another manifest, and other files; digests are as in the original."""
    members: Members = []
    with tarfile.open(bundle) as tar:
        for each in tar.getmembers():
            file = tar.extractfile(each)
            assert file is not None
            members.append((each, file.read()))
    manifest: Manifest = msgspec.json.decode(members.pop(0)[1])
    change(manifest, members)
    content = msgspec.json.encode(manifest)
    header = tarfile.TarInfo("bundle.json")
    header.size = len(content)
    with tarfile.open(out, "w") as tar:
        for info, data in [(header, content), *members]:
            tar.addfile(info, io.BytesIO(data))
    return out


def renamed_key(key: str) -> Callable[[Manifest, Members], None]:
    """All that stands under one artifact's key stands under another one, consistently."""

    def change(manifest: Manifest, members: Members) -> None:
        old = next(iter(manifest["builds"]))
        artifact = manifest["builds"].pop(old)
        manifest["builds"][key] = {**artifact, "vmfb": f"{key}.vmfb"}
        manifest["digests"][f"{key}.vmfb"] = manifest["digests"].pop(f"{old}.vmfb")
        for info, _ in members:
            if info.name == f"{old}.vmfb":
                info.name = f"{key}.vmfb"

    return change


def renamed_plan(key: str) -> Callable[[Manifest, Members], None]:
    def change(manifest: Manifest, members: Members) -> None:
        ((old, plan),) = manifest["plans"].items()
        manifest["plans"] = {key: plan}
        manifest["tests"] = {test: key if at == old else at for test, at in manifest["tests"].items()}

    return change


def special(kind: bytes, name: str = "", target: str = "/etc/passwd") -> Callable[[Manifest, Members], None]:
    """A member of another kind in place of a binary, or besides all."""

    def change(manifest: Manifest, members: Members) -> None:
        info = tarfile.TarInfo(name or members[0][0].name)
        info.type, info.linkname = kind, target
        if not name:
            members.pop(0)
        members.append((info, b""))

    return change


def extra(name: str) -> Callable[[Manifest, Members], None]:
    def change(manifest: Manifest, members: Members) -> None:
        info = tarfile.TarInfo(name)
        info.size = 4
        members.append((info, b"evil"))

    return change


def other_binary(manifest: Manifest, members: Members) -> None:
    info, content = members[0]
    members[0] = info, bytes([content[0] ^ 1]) + content[1:]


def other_digest(manifest: Manifest, members: Members) -> None:
    artifact = next(each for each in manifest["builds"].values() if each["vmfb"])
    artifact["sha256"] = "../" * 8 + "claimed"


def other_yardstick(manifest: Manifest, members: Members) -> None:
    manifest["yardsticks"][0]["vmfb"] = "/outside.vmfb"


def other_yardsticks_key(manifest: Manifest, members: Members) -> None:
    manifest["yardsticks_key"] = "../../../outside"


def no_binary(manifest: Manifest, members: Members) -> None:
    next(iter(manifest["builds"].values()))["vmfb"] = None


def no_version(manifest: Manifest, members: Members) -> None:
    del manifest["versions"]["iree-base-compiler"]


def other_target(manifest: Manifest, members: Members) -> None:
    manifest["target"]["backend"] = "--iree-hal-dump-executable-files-to=/"


def twice(manifest: Manifest, members: Members) -> None:
    members.append(members[0])


HOSTILE = {
    "key leads up": renamed_key("../../../outside"),
    "key is absolute": renamed_key("/outside"),
    "key is short": renamed_key("ab"),
    "key of a plan leads up": renamed_plan("../../../outside"),
    "key of the microbenchmarks leads up": other_yardsticks_key,
    "binary of a microbenchmark is absolute": other_yardstick,
    "member leads up": extra("../outside"),
    "member is absolute": extra("/outside"),
    "member is unknown": extra("notes.txt"),
    "member is in no manifest": extra(f"{content_key('x')}.vmfb"),
    "member is a link": special(tarfile.SYMTYPE),
    "member is a hard link": special(tarfile.LNKTYPE, target="bundle.json"),
    "member is a device": special(tarfile.CHRTYPE, "console"),
    "member is a fifo": special(tarfile.FIFOTYPE, f"{content_key('y')}.vmfb"),
    "member is a directory": special(tarfile.DIRTYPE, "directory"),
    "member is there twice": twice,
    "binary is another": other_binary,
    "digest is a path": other_digest,
    "compiled without a binary": no_binary,
    "version is not told": no_version,
    "target is a flag": other_target,
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_bundle_that_was_changed_is_refused(
    bundle: Path, tmp_path: Path, change: Callable[[Manifest, Members], None]
) -> None:
    bad = changed(bundle, tmp_path / BUNDLE, change)
    inside = tmp_path / "a/b/c/cache"
    with pytest.raises(InputError, match=re.escape(str(bad))):
        read_bundle(bad).unpack(bad, Cache(inside))
    written = {path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(inside)}
    assert written == {bad}
    assert not Path("/outside.vmfb").exists()


def test_an_archive_that_is_compressed_or_deep_is_refused(tmp_path: Path) -> None:
    packed, deep = tmp_path / "packed.tar", tmp_path / "deep.tar"
    with tarfile.open(packed, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("bundle.json"))
    nested = b"[" * 200_000
    header = tarfile.TarInfo("bundle.json")
    header.size = len(nested)
    with tarfile.open(deep, "w") as tar:
        tar.addfile(header, io.BytesIO(nested))
    for path in (packed, deep):
        with pytest.raises(InputError, match="bundle"):
            read_bundle(path)


def poisoned(manifest: Manifest, members: Members) -> None:
    """Each candidate's key gets the default's binary, and a digest that fits: nobody can tell by the bundle alone."""
    contents = {info.name: data for info, data in members}
    default = next(each for each in manifest["builds"].values() if each["candidate"] == "default")
    for place, (info, _) in enumerate(members):
        if info.name.removesuffix(".vmfb") in manifest["builds"]:
            data = contents[default["vmfb"]]
            info.size = len(data)
            members[place] = info, data
            manifest["digests"][info.name] = hashlib.sha256(data).hexdigest()
            manifest["builds"][info.name.removesuffix(".vmfb")]["sha256"] = manifest["digests"][info.name]


def files_in(directory: Path) -> list[Path]:
    return sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())


@pytest.mark.slow
def test_nothing_of_a_bundle_is_kept_where_another_run_would_take_it(
    suite: Suite, bundle: Path, tmp_path: Path
) -> None:
    bad, cache = changed(bundle, tmp_path / BUNDLE, poisoned), tmp_path / "cache"
    options = (f"--tune-cache={cache}", "-k", "not final")
    again = ("-o", "tune_fresh=false")
    suite.habits, before = tuple(each for each in suite.habits if each != "--tune-fresh"), suite.habits
    try:
        measured = suite.tune(f"--tune-bundle={bad}", *options, *again, out="poisoned")
        assert measured.status == 0, measured.text
        assert {each["state"] for each in measured.records} == {"measured", "duplicate"}
        assert files_in(cache) == []
        # The same command again measures nothing, since its own output directory knows.
        recalled = suite.tune(f"--tune-bundle={bad}", *options, *again, out="poisoned")
        assert recalled.status == 0, recalled.text
        assert "2 results of earlier runs are taken from" in recalled.text
        # Another bundle is not taken for the first one.
        honest = suite.tune(f"--tune-bundle={bundle}", *options, *again, out="poisoned")
        assert honest.status == 0, honest.text
        assert "results of earlier runs" not in honest.text
        assert files_in(cache) == []
        # Neither does this machine's compiler find anything under its keys.
        own = suite.tune("--tune-trials=1", *options, *again, "-k", "not final and not spec", out="own")
        assert own.status == 0, own.text
        assert "results of earlier runs" not in own.text
        assert "duplicate" not in {each["state"] for each in own.records}
    finally:
        suite.habits = before


@pytest.mark.parametrize(
    ("flag", "refusal"),
    thinned(
        [
            ("--iree-hal-dump-executable-files-to={}", "--bundle is refused: it brings the flag"),
            (
                "--iree-opt-level=O2",
                "--bundle: it was made with --iree-compile-flag=--iree-opt-level=O2: give just that",
            ),
        ],
        every=2,
        ids=["writes-files", "plain"],
    ),
)
def test_flags_of_a_strangers_bundle_are_not_given_to_the_compiler(
    suite: Suite, bundle: Path, tmp_path: Path, flag: str, refusal: str
) -> None:
    dump = tmp_path / "dumped"

    def with_flag(manifest: Manifest, members: Members) -> None:
        manifest["flags"] = [flag.format(dump)]

    bad = changed(bundle, tmp_path / BUNDLE, with_flag)
    measured = suite.tune(f"--tune-bundle={bundle}", "-k", "not final", out="for-merge")
    assert measured.status == 0, measured.text
    command = ["merge-records", str(measured.out), "-o", str(tmp_path / "out"), "--bundle"]
    done = CliRunner().invoke(main, [*command, str(bad)], catch_exceptions=False)
    assert done.exit_code == 2
    assert refusal in done.output
    assert not dump.exists()
    assert CliRunner().invoke(main, [*command, str(bundle)], catch_exceptions=False).exit_code == 0


LOOKING = """
import pytest
from pytest_shark_tune import ops

@pytest.mark.tune(ops.matmul(m=32, n=32, k=32, lhs="f32"))
def test_dispatch(candidate, artifact, measurement, tune_session):
    directory = tune_session.cache.directory
    assert {oct(each.stat().st_mode & 0o77) for each in (directory.parent, directory)} == {"0o0"}
"""


def test_what_a_run_unpacks_is_for_its_owner_alone(make_suite: MakeSuite, bundle: Path) -> None:
    suite = make_suite({"test_suite.py": LOOKING})
    before = os.umask(0)
    try:
        outcome = suite.tune(f"--tune-bundle={bundle}", "-k", "default")
    finally:
        os.umask(before)
    assert outcome.status == 0, outcome.text
