"""Directories of our own: whom they may belong to, and by what they are known again."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pytest_shark_tune.errors import InputError
from pytest_shark_tune.plugin.preflight import check_cache
from pytest_shark_tune.system.cache import Cache, content_key
from pytest_shark_tune.system.directories import HeldDirectory, check_owner, is_marked, make_marked, remove_if_free

STRANGER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")


def test_a_directory_of_ours_is_for_its_owner_alone_and_known_by_its_mark(tmp_path: Path) -> None:
    made = make_marked("shark-tune-", tmp_path)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert is_marked(made)
    remove_if_free(made)
    assert not made.exists()


def test_a_directory_is_announced_before_it_is_made(tmp_path: Path) -> None:
    seen = []
    made = make_marked("shark-tune-", tmp_path, announce=lambda path: seen.append((path, path.exists())))
    assert seen == [(made, False)]


def test_a_directory_that_is_held_is_not_removed(tmp_path: Path) -> None:
    held = HeldDirectory(tmp_path)
    remove_if_free(held.path)
    assert held.path.exists()
    held.remove()
    held.remove()
    assert not held.path.exists()


def test_a_name_or_a_mark_of_another_directory_is_no_mark(tmp_path: Path) -> None:
    own = tmp_path / "shark-tune-results"
    own.mkdir()
    made = make_marked("shark-tune-", tmp_path)
    link = tmp_path / "shark-tune-link"
    link.symlink_to(made)
    (mark,) = made.iterdir()
    (own / mark.name).write_bytes(mark.read_bytes())
    linked = tmp_path / "shark-tune-linked"
    linked.mkdir()
    (linked / mark.name).symlink_to(mark)
    for directory in (own, link, linked, tmp_path / "absent", mark):
        assert not is_marked(directory)
        remove_if_free(directory)
    assert own.is_dir()
    assert made.is_dir()
    os.mkfifo(linked / "fifo")
    (linked / mark.name).unlink()
    (linked / "fifo").rename(linked / mark.name)
    assert not is_marked(linked)


@needs_root
@pytest.mark.parametrize("part", ["directory", "mark"])
def test_a_mark_that_another_user_left_is_none(tmp_path: Path, part: str) -> None:
    made = make_marked("shark-tune-", tmp_path)
    (mark,) = made.iterdir()
    os.chown(made if part == "directory" else mark, STRANGER, STRANGER)
    assert not is_marked(made)


def foreign(directory: Path) -> None:
    os.chown(directory, STRANGER, STRANGER)


def open_to_all(directory: Path) -> None:
    directory.chmod(0o777)


def sticky(directory: Path) -> None:
    directory.chmod(0o1777)


def linked_by_a_stranger(directory: Path) -> None:
    target = directory.with_name("target")
    directory.rename(target)
    directory.symlink_to(target)
    os.chown(directory, STRANGER, STRANGER, follow_symlinks=False)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(foreign, r"another user's \(id 12345\)", marks=needs_root),
        pytest.param(linked_by_a_stranger, r"the link .* is another user's", marks=needs_root),
        (open_to_all, "every user may write to .*chmod o-w"),
        (sticky, "every user may write to"),
    ],
)
def test_code_is_not_loaded_from_where_a_stranger_may_have_put_it(tmp_path: Path, spoil: object, message: str) -> None:
    directory = tmp_path / "cache"
    key = content_key("a")
    Cache(directory).put("artifacts", key, "theirs")
    assert callable(spoil)
    spoil(directory)
    with pytest.raises(InputError, match=message):
        check_owner(directory)
    with pytest.raises(InputError, match=message):
        Cache(directory).get("artifacts", key, str)
    with pytest.raises(pytest.UsageError, match=f"^--tune-cache: .*{message}"):
        check_cache(directory)


def test_a_cache_is_made_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Cache(tmp_path / "one").put("plans", content_key("a"), 1)
        check_cache(tmp_path / "two")
    finally:
        os.umask(before)
    for name in ("one", "two"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700


def test_a_link_of_ones_own_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    check_owner(tmp_path / "cache")
    check_owner(tmp_path / "absent")


def test_the_mark_is_that_of_earlier_versions(tmp_path: Path) -> None:
    made = make_marked("shark-tune-", tmp_path)
    (mark,) = made.iterdir()
    assert mark.name == ".pytest-shark-tune"
    assert mark.read_text().startswith("pytest-shark-tune made this folder, and removes it with all that is in it: ")
