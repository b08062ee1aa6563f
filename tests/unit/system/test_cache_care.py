"""The cache over time: what counts as used, what is removed and when, and what is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_shark_tune.system import journal
from pytest_shark_tune.system.cache import KINDS, RELEASES, Cache, Kind, Removed, content_key
from pytest_shark_tune.system.lock import hold_directory

HOUR_S = 3600.0
SIZE = 1000
SEAL = len('{"sha256":"","value":""}') + 64
"""What is written around a text."""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def keep(cache: Cache, name: str, *, hours: float, kind: Kind = "artifacts", file: bool = True) -> list[Path]:
    """A value of 500 bytes, and with ``file`` a file of as many, last used ``hours`` ago."""
    key = content_key(name)
    cache.put(kind, key, "x" * (SIZE // 2 - SEAL))
    paths = [cache.file(kind, key, ".json")]
    if file:
        paths.append(cache.file(kind, key, ".vmfb"))
        paths[-1].write_bytes(bytes(SIZE // 2))
    for path in paths:
        age(path, hours)
    return paths


def age(path: Path, hours: float) -> None:
    then_s = time.time() - hours * HOUR_S
    os.utime(path, (then_s, then_s))


def there(paths: list[Path]) -> list[bool]:
    return [path.exists() for path in paths]


def all_files(cache: Cache) -> list[Path]:
    return [path for path in cache.directory.rglob("*") if path.is_file()]


def test_what_was_not_used_for_longest_goes_first_a_value_with_its_file(cache: Cache) -> None:
    second, fourth, first, third = (keep(cache, str(hours), hours=hours) for hours in (40, 20, 50, 30))
    assert cache.evict(2 * SIZE) == Removed(number=2, bytes=2 * SIZE)
    assert there(first + second) == [False] * 4
    assert there(third + fourth) == [True] * 4
    assert cache.evict(2 * SIZE) == Removed()
    assert cache.evict(2 * SIZE - 1).number == 1
    assert there(third + fourth) == [False, False, True, True]


def test_a_file_that_is_used_keeps_its_value_and_the_other_way_round(cache: Cache) -> None:
    by_value, by_file, unused = (keep(cache, name, hours=9) for name in ("value", "file", "unused"))
    assert cache.get("artifacts", content_key("value"), str)
    assert cache.touch(by_file[1])
    assert cache.evict(0) == Removed(number=1, bytes=SIZE)
    assert there(by_value + by_file) == [True] * 4
    assert there(unused) == [False] * 2


def test_a_journal_that_is_read_or_written_is_used(cache: Cache) -> None:
    path = cache.file("records", content_key("a task"), ".jsonl")
    journal.append(path, 1)
    age(path, 9)
    assert journal.read(cache.file("records", content_key("a task"), ".jsonl"), int) == [1]
    assert cache.evict(0) == Removed()
    age(path, 9)
    journal.append(path, 2)
    assert cache.evict(0) == Removed()
    age(path, 9)
    assert cache.evict(0).number == 1


@pytest.mark.parametrize(("hours", "stays"), [(-5, True), (0, True), (0.98, True), (1.02, False)])
def test_what_was_used_within_an_hour_stays(cache: Cache, hours: float, *, stays: bool) -> None:
    paths = keep(cache, "a", hours=hours)
    cache.evict(0)
    assert there(paths) == [stays] * 2


def test_kinds_are_weighed_together(cache: Cache) -> None:
    kinds = [kind for kind in KINDS if kind != RELEASES]
    kept = {kind: keep(cache, kind, hours=10 + at, kind=kind, file=False) for at, kind in enumerate(kinds)}
    cache.evict(3 * SIZE // 2)
    assert [kind for kind, paths in kept.items() if all(there(paths))] == kinds[:3]


def test_what_vanishes_meanwhile_is_no_error(cache: Cache) -> None:
    """Several runs end at the same time: each of them finds that some files are gone already."""
    old = [path for number in range(100) for path in keep(cache, str(number), hours=9)]
    new = keep(cache, "new", hours=0)
    with ThreadPoolExecutor(4) as runs:
        ends = [runs.submit(Cache(cache.directory).evict, SIZE) for _ in range(4)]
        assert all(end.result().busy == 0 for end in ends)
    assert sorted(all_files(cache)) == sorted(new)
    assert not any(there(old))
    assert not cache.touch(old[0])


def test_what_is_being_made_stays_and_a_left_lock_goes(cache: Cache) -> None:
    compiled, left = (keep(cache, name, hours=9) for name in ("compiled", "left"))
    making = cache.lock("artifacts", content_key("compiled"))
    stale = cache.file("artifacts", content_key("left"), ".making")
    stale.touch()
    with making.held():
        for path in (making.path, stale):
            age(path, 9)
        assert cache.evict(0) == Removed(number=1, bytes=SIZE, busy=1)
        assert cache.clear() == Removed(busy=1)
        assert there([*compiled, making.path]) == [True] * 3
        assert there([*left, stale]) == [False] * 3
    assert cache.clear().number == 1
    assert all_files(cache) == []


def test_a_file_that_is_being_written_stays_and_a_torn_one_goes(cache: Cache) -> None:
    path = cache.file("plans", content_key("a"), ".json")
    partial = path.with_name(f".{path.name}.123.part")
    partial.write_bytes(b"{")
    assert cache.clear() == Removed(busy=1)
    age(partial, 0.1)
    assert cache.clear() == Removed(number=1, bytes=1)


def test_only_what_is_ours_is_removed(cache: Cache) -> None:
    key = content_key("a")
    others = [
        cache.directory / "notes.txt",
        cache.directory / "pictures" / key[:2] / f"{key}.json",
        cache.directory / "plans" / "notes.txt",
        cache.directory / "plans" / f"{key}.json",
        cache.directory / "plans" / key[:2] / "notes.txt",
        cache.directory / "plans" / key[:2] / f"{key}0.json",
        cache.directory / "plans" / ("aa" if key[:2] != "aa" else "bb") / f"{key}.json",
        cache.directory / "plans" / key[:2] / f"{key}.json.d" / "inside",
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(9))
        age(path, 9)
    elsewhere = cache.directory.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / f"{content_key('b')}.json").touch()
    (cache.directory / "plans" / content_key("b")[:2]).symlink_to(elsewhere)
    keep(cache, "mine", hours=9, kind="plans")
    assert cache.evict(0).number == 1
    assert cache.clear() == Removed()
    assert all(there([*others, *elsewhere.iterdir()]))


def test_one_kind_is_cleared_alone_and_directories_stay(cache: Cache) -> None:
    plan, artifact = keep(cache, "a", hours=0, kind="plans"), keep(cache, "a", hours=0)
    assert cache.clear(["plans"]) == Removed(number=1, bytes=SIZE)
    assert there(plan + artifact) == [False, False, True, True]
    assert plan[0].parent.is_dir()


def test_usage_counts_keys_bytes_and_times(cache: Cache) -> None:
    assert all(each.number == 0 and each.oldest_s is None for each in cache.usage())
    for hours in (5, 3, 4):
        keep(cache, str(hours), hours=hours)
    used = {each.kind: each for each in cache.usage()}
    assert tuple(used) == KINDS
    assert (used["artifacts"].number, used["artifacts"].bytes) == (3, 3 * SIZE)
    assert used["artifacts"].oldest_s == pytest.approx(time.time() - 5 * HOUR_S, abs=60)
    assert used["artifacts"].newest_s == pytest.approx(time.time() - 3 * HOUR_S, abs=60)
    assert used["plans"].number == 0


def test_a_release_stays_while_another_process_uses_it(cache: Cache) -> None:
    release, unfinished = cache.directory / "releases" / "3.12.0", cache.directory / "releases" / ".3.11.0.17"
    for directory in (release, unfinished, cache.directory / "releases" / "notes"):
        directory.mkdir(parents=True)
        (directory / "code").write_bytes(bytes(SIZE))
        os.utime(directory, (1, 1))
    program = "import sys; from pathlib import Path; from pytest_shark_tune.system.lock import hold_directory; "
    program += "print(hold_directory(Path(sys.argv[1])), flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(release)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "True\n"
        assert cache.evict(0) == Removed(number=1, bytes=SIZE, busy=1)
        assert not unfinished.exists()
        user.communicate()
    assert cache.evict(0) == Removed(number=1, bytes=SIZE)
    assert sorted(path.name for path in (cache.directory / "releases").iterdir()) == ["notes"]
    assert not hold_directory(release)
