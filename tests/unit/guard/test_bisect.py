"""Bisection: the first bad version on quiet machines, and on noisy ones no answer in place of a wrong one."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

import pytest

from pytest_shark_tune.commands.timing.bisect import between
from pytest_shark_tune.errors import InputError
from pytest_shark_tune.guard.bisect import Judgement, find_first_bad, judge_side
from tests.thinned import thinned

VERSIONS = [f"3.{minor}.0" for minor in range(8)]
Noise = Callable[[random.Random], float]
QUIET: Noise = lambda chance: chance.gauss(0, 0.005)  # noqa: E731
NOISES: dict[str, Noise] = {
    "quiet": QUIET,
    "3%": lambda chance: chance.gauss(0, 0.03),
    "two speeds": lambda chance: chance.choice([-0.05, 0.05]) + chance.gauss(0, 0.01),
    "one in seven slow": lambda chance: chance.gauss(0, 0.005) - (0.11 if chance.random() < 1 / 7 else 0.0),
}


def found(seed: int, first_bad: int, loss: float, noise: Noise) -> str:
    """The first bad version by a bisection where the versions from ``first_bad`` on are slower."""
    chance = random.Random(seed)

    def play(version: str, _number: int) -> float:
        return noise(chance) - (loss if VERSIONS.index(version) >= first_bad else 0.0)

    return find_first_bad(VERSIONS, play).first_bad


@pytest.mark.parametrize("first_bad", [1, 4, 7])
def test_a_loss_of_four_percent_is_found_on_a_quiet_machine(first_bad: int) -> None:
    assert {found(seed, first_bad, 0.04, QUIET) for seed in range(50)} == {VERSIONS[first_bad]}


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_never_called_a_change(name: str) -> None:
    counts = Counter(found(seed, len(VERSIONS), 0.0, NOISES[name]) for seed in range(400))
    assert counts[""] >= 397, counts


@pytest.mark.parametrize("loss", thinned([0.06, 0.15], every=2))
@pytest.mark.parametrize("name", NOISES)
def test_a_wrong_version_is_rarer_than_one_in_a_hundred(name: str, loss: float) -> None:
    counts = Counter(found(seed, 5, loss, NOISES[name]) for seed in range(400))
    wrong = sum(count for version, count in counts.items() if version not in ("", VERSIONS[5]))
    assert wrong <= 4, counts
    assert counts[VERSIONS[5]] > 200 or loss < 0.15


def test_a_loss_little_larger_than_the_noise_is_found() -> None:
    counts = Counter(found(seed, 5, 0.06, NOISES["3%"]) for seed in range(100))
    assert counts[VERSIONS[5]] >= 90, counts


def test_a_version_on_the_border_is_undecided_and_so_is_the_bisection() -> None:
    chance = random.Random(0)
    judgement, rounds = judge_side(lambda _: chance.gauss(0, 0.01), 0.0, 0.001)
    assert (judgement, len(rounds)) == (Judgement.UNDECIDED, 80)

    def play(version: str, _number: int) -> float:
        return {VERSIONS[-1]: -0.1, VERSIONS[3]: -0.05}.get(version, 0.0) + chance.gauss(0, 0.005)

    result = find_first_bad(VERSIONS, play)
    assert not result.first_bad
    assert result.reason.startswith(f"undecided: {VERSIONS[3]} is neither good nor bad for sure")


def test_what_is_not_slower_is_not_bisected() -> None:
    result = find_first_bad(VERSIONS, lambda _version, _number: math.log(1.05))
    assert result.reason == "3.7.0 is not slower than 3.0.0: there is nothing to bisect"
    assert [step.judgement for step in result.steps] == [Judgement.GOOD]


def test_the_releases_between_run_from_good_to_bad_in_either_direction() -> None:
    known = "3.9.0,3.10.0,3.12.0,3.11.0,3.13.0"
    assert between("3.9.0", "3.12.0", known) == ["3.9.0", "3.10.0", "3.11.0", "3.12.0"]
    assert between("3.13.0", "3.10.0", known) == ["3.13.0", "3.12.0", "3.11.0", "3.10.0"]
    with pytest.raises(InputError, match="are the same release"):
        between("3.12.0", "3.12.0", known)
