"""The cache: values by content, made once however many ask for them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.system.cache import BINARY, Cache, content_key
from pytest_shark_tune.system.journal import replace_file


class Value(msgspec.Struct):
    number: int


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_a_value_comes_back_by_kind_and_key(cache: Cache) -> None:
    key = content_key("a")
    cache.put("plans", key, Value(1))
    assert cache.get("plans", key, Value) == Value(1)
    assert cache.get("artifacts", key, Value) is None
    assert cache.get("plans", content_key("b"), Value) is None
    cache.put("plans", key, Value(2))
    assert cache.get("plans", key, Value) == Value(2)


def test_another_run_finds_what_one_kept(cache: Cache) -> None:
    cache.put("plans", content_key("a"), Value(1))
    assert Cache(cache.directory).get("plans", content_key("a"), Value) == Value(1)


def sealed(content: bytes, digest: str = "") -> bytes:
    digest = digest or hashlib.sha256(content).hexdigest()
    return b'{"sha256":"%s","value":%s}' % (digest.encode(), content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"number": ',
        b'{"number": 1}',
        b"\xff",
        b'{"other": "\xff"}',
        sealed(b'{"number":1}')[:-4],
        sealed(b'{"number":"one"}'),
        sealed(b'{"number":1}', digest="0" * 64),
        sealed(b'{"number":1}').replace(b":1}", b":3}"),
        sealed(b'{"number":1}').replace(b"number", b"numbed"),
    ],
)
def test_what_is_damaged_is_told_of_once_and_made_anew(tmp_path: Path, content: bytes) -> None:
    told: list[str] = []
    cache, key = Cache(tmp_path / "cache", told.append), content_key("a")
    path = cache.file("plans", key, ".json")
    path.write_bytes(content)
    assert cache.get_or_make("plans", key, Value, lambda: Value(3)) == Value(3)
    assert cache.get("plans", key, Value) == Value(3)
    (line,) = told
    assert line.startswith(f"{path} is damaged, and is left out and made anew: ")


def test_a_binary_is_read_once_and_only_the_one_of_its_digest_is_given(tmp_path: Path) -> None:
    told: list[str] = []
    cache, key, digest = Cache(tmp_path / "cache", told.append), content_key("a"), hashlib.sha256(b"code").hexdigest()
    assert cache.binary("artifacts", key, digest) is None, "there is none"
    path = cache.file("artifacts", key, BINARY)
    path.write_bytes(b"codE")
    assert cache.binary("artifacts", key, digest) is None
    assert not path.exists(), "it is thrown away"
    assert len(told) == 1
    assert "is damaged" in told[0]
    path.write_bytes(b"code")
    assert cache.binary("artifacts", key, digest) == path
    path.write_bytes(b"codE")
    assert cache.binary("artifacts", key, digest) == path, "this process has seen it whole"
    assert Cache(cache.directory, told.append).binary("artifacts", key, digest) is None
    assert len(told) == 2


def test_a_damaged_file_that_is_replaced_meanwhile_stays(tmp_path: Path) -> None:
    key, digest = content_key("a"), hashlib.sha256(b"code").hexdigest()
    path = Cache(tmp_path).file("artifacts", key, BINARY)

    def made_by_another(message: str) -> None:
        replace_file(path, b"code")

    path.write_bytes(b"codE")
    assert Cache(tmp_path, made_by_another).binary("artifacts", key, digest) is None
    assert Cache(tmp_path).binary("artifacts", key, digest) == path


def test_a_cache_may_be_moved(cache: Cache, tmp_path: Path) -> None:
    key, digest = content_key("a"), hashlib.sha256(b"code").hexdigest()
    cache.put("plans", key, Value(1))
    cache.file("artifacts", key, BINARY).write_bytes(b"code")
    moved = Cache(cache.directory.rename(tmp_path / "elsewhere"))
    assert moved.get("plans", key, Value) == Value(1)
    assert moved.binary("artifacts", key, digest) == moved.file("artifacts", key, BINARY)


def test_content_is_on_disk_before_it_takes_the_place_of_another(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(Path(f"/proc/self/fd/{descriptor}").read_bytes()))
    path = cache.file("artifacts", content_key("a"), BINARY)
    path.write_bytes(b"old")
    replace = Path.replace

    def replaced(partial: Path, target: Path) -> Path:
        assert seen == [b"new"]
        return replace(partial, target)

    monkeypatch.setattr(Path, "replace", replaced)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_value_is_made_once(cache: Cache) -> None:
    made: list[int] = []

    def make() -> Value:
        made.append(1)
        return Value(len(made))

    assert [cache.get_or_make("plans", content_key("a"), Value, make) for _ in range(3)] == [Value(1)] * 3
    assert cache.get_or_make("plans", content_key("b"), Value, make) == Value(2)


def test_a_value_that_could_not_be_made_is_tried_again(cache: Cache) -> None:
    def fail() -> Value:
        raise LookupError

    with pytest.raises(LookupError):
        cache.get_or_make("plans", content_key("a"), Value, fail)
    assert cache.get_or_make("plans", content_key("a"), Value, lambda: Value(1)) == Value(1)


def test_a_value_that_does_not_last_is_made_again(cache: Cache) -> None:
    values = iter([Value(1), Value(2), Value(3)])

    def ask() -> Value:
        return cache.get_or_make(
            "plans", content_key("a"), Value, lambda: next(values), lasts=lambda value: value != Value(1)
        )

    assert [ask(), ask(), ask()] == [Value(1), Value(2), Value(2)]


def test_a_value_is_made_where_the_file_system_knows_no_locks(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    key = content_key("a")
    made = iter((1, 2))
    assert [cache.get_or_make("plans", key, int, lambda: next(made)) for _ in range(2)] == [1, 1]
    assert [path.name for path in cache.directory.rglob("*") if path.is_file()] == [f"{key}.json"]


def test_processes_that_ask_at_the_same_time_make_it_once(cache: Cache, child_env: dict[str, str]) -> None:
    code = """
import os, sys, time
from pathlib import Path
from pytest_shark_tune.system.cache import Cache, content_key

def make():
    time.sleep(0.2)
    return os.getpid()

sys.stdin.readline()
print(Cache(Path(sys.argv[1])).get_or_make("plans", content_key("a"), int, make))
"""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(cache.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_env,
            text=True,
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    made = {int(child.communicate(timeout=60)[0]) for child in children}
    assert len(made) == 1
    assert made <= {child.pid for child in children}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a", "b"), ("ab",)),
        (("a", "b"), ("b", "a")),
        (("1",), (1,)),
        ((None,), ("",)),
        ((["a"], "b"), ("a", ["b"])),
        (({"a": 1},), ({"a": 2},)),
    ],
)
def test_different_parts_have_different_keys(first: tuple[object, ...], second: tuple[object, ...]) -> None:
    assert content_key(*first) != content_key(*second)


def test_equal_parts_have_equal_keys_in_every_process(child_env: dict[str, str]) -> None:
    code = """
from pytest_shark_tune.system.cache import content_key
print(content_key("plan", {"b": 1, "a": [1, 2.5, None]}, {"x", "y", "z"}))
"""
    keys = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**child_env, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert keys == {content_key("plan", {"a": [1, 2.5, None], "b": 1}, {"z", "y", "x"})}


def test_the_directory_of_a_file_exists(cache: Cache) -> None:
    path = cache.file("artifacts", content_key("a"), ".vmfb")
    assert path.parent.is_dir()
    assert not path.exists()
    assert path == cache.file("artifacts", content_key("a"), ".vmfb")


@pytest.mark.parametrize(
    "key",
    [
        "../" * 3 + "outside",
        "/tmp/outside",
        "..",
        "",
        "a" * 63,
        "A" * 64,
        "a" * 65,
        "a" * 64 + "\n",
        "a" * 62 + "/b",
        "\0" * 64,
    ],
)
def test_only_a_key_becomes_a_path(tmp_path: Path, key: str) -> None:
    cache = Cache(tmp_path / "cache")
    for use in (
        lambda: cache.file("artifacts", key, ".vmfb"),
        lambda: cache.put("plans", key, 1),
        lambda: cache.get("plans", key, int),
        lambda: cache.lock("plans", key),
    ):
        with pytest.raises(InputError, match="is no key of"):
            use()
    assert list(tmp_path.iterdir()) == []
