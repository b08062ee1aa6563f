"""The draft of a spec: what it is going to hold. What is verified, and what is written, is made of one draft."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from pytest_shark_tune.records.types import FinalRecord, WinnerRecord
from pytest_shark_tune.spec.build import SpecEntry, build_spec
from pytest_shark_tune.spec.link import link_spec
from pytest_shark_tune.spec.read import read_spec, select_entries
from pytest_shark_tune.system.cache import content_key

__all__ = ["Draft", "entry_of", "is_of_starter", "spec_of"]

_OF_STARTER = "@"


@dataclass(frozen=True)
class Draft:
    """A spec to be: ``entries``, and behind them those of ``starter``, the text of a spec, empty without one.

    Entries go by their dispatch's name. Those of the starter go by their matcher's name in the starter, with an ``@``
    before it.
    """

    entries: tuple[SpecEntry, ...]
    starter: str = ""

    @cached_property
    def text(self) -> str:
        """The text of the spec, linked; empty where the draft is."""
        if not self.entries and not self.starter:
            return ""
        return link_spec(build_spec(self.entries, self.starter or None))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all entries, in the order in which they are tried."""
        return tuple(self.by_matcher.values())

    @cached_property
    def by_matcher(self) -> dict[str, str]:
        """The names of the entries by the matchers that they have in the text."""
        names = [entry.name for entry in self.entries]
        names += [f"{_OF_STARTER}{matcher}" for matcher in self._in_force]
        matchers = [row.matcher for row in read_spec(self.text)] if self.text else []
        return dict(zip(matchers, names, strict=True))

    @property
    def _in_force(self) -> list[str]:
        """The matchers of the starter, but for those that are an entry's too and so are left out."""

        def is_left_out(matcher: str) -> bool:
            alone = build_spec(self.entries, select_entries(self.starter, [matcher]))
            return len(read_spec(alone)) == len(self.entries)

        return [matcher for matcher in self._starter_matchers if not (self.entries and is_left_out(matcher))]

    @property
    def configs(self) -> dict[str, str]:
        """The compilation infos of the entries by name, but for those of the starter."""
        return {entry.name: entry.compilation_info for entry in self.entries}

    @property
    def starter_key(self) -> str:
        """A hash of the starter's text; empty without one."""
        return content_key(self.starter) if self.starter else ""

    def without(self, names: Collection[str]) -> Draft:
        """The draft without the entries of these names; one that the starter had for the same ops then counts."""
        matchers = self._starter_matchers
        return self.only({*self.configs, *(f"{_OF_STARTER}{matcher}" for matcher in matchers)} - set(names))

    def only(self, names: Collection[str]) -> Draft:
        """The draft with just the entries of these names."""
        entries = tuple(entry for entry in self.entries if entry.name in names)
        matchers = self._starter_matchers
        left = [matcher for matcher in matchers if f"{_OF_STARTER}{matcher}" in names]
        if left == matchers:
            return replace(self, entries=entries)
        return Draft(entries, select_entries(self.starter, left) if left else "")

    @cached_property
    def _starter_matchers(self) -> list[str]:
        return [row.matcher for row in read_spec(self.starter)] if self.starter else []


def is_of_starter(name: str) -> bool:
    """Whether a name of a draft's entry is that of one of the starter's."""
    return name.startswith(_OF_STARTER)


def spec_of(winners: Iterable[WinnerRecord | FinalRecord], starter: str = "") -> Draft:
    """Return the draft of the spec of all that won, by dispatch; of two records of a dispatch the later one counts.

    Finals without a winner and kernels, which have no root op, get no entry.
    """
    by_dispatch = {won.dispatch: won for won in winners}
    ordered = [by_dispatch[name] for name in sorted(by_dispatch)]
    return Draft(tuple(entry_of(won) for won in ordered if won.winner and won.root is not None), starter)


def entry_of(won: WinnerRecord | FinalRecord) -> SpecEntry:
    """Return the spec entry of a winner, by its record or by the final that it won, with its provenance."""
    assert won.root is not None
    assert won.winner is not None
    if isinstance(won, WinnerRecord):
        ratio = won.ratio
    else:
        ratio = next((finalist.ratio for finalist in won.finalists if finalist.id == won.winner), None)
    return SpecEntry(
        name=won.dispatch,
        root=won.root,
        compilation_info=won.compilation_info,
        provenance={
            "dispatch": won.dispatch,
            "device": won.device,
            "iree": won.iree,
            **({} if ratio is None else {"speedup": f"{ratio:.3f}"}),
            "candidate": won.winner,
        },
    )
