"""The draft of a spec: its future entries. The same draft is verified and written."""

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
    """A spec before it is written.

    Entries go by their dispatch's name. Entries of the starter go by their matcher's name in the starter, with an ``@``
    before it.
    """

    entries: tuple[SpecEntry, ...]
    starter: str = ""
    """The text of the spec that stands behind the entries; empty without one."""

    @cached_property
    def text(self) -> str:
        """The text of the spec, linked; empty if the draft is."""
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
        names += [f"{_OF_STARTER}{matcher}" for matcher in self._effective_matchers]
        matchers = [row.matcher for row in read_spec(self.text)] if self.text else []
        return dict(zip(matchers, names, strict=True))

    @property
    def _effective_matchers(self) -> list[str]:
        """The matchers of the starter without those that an entry has too, which are left out."""

        def is_left_out(matcher: str) -> bool:
            alone = build_spec(self.entries, select_entries(self.starter, [matcher]))
            return len(read_spec(alone)) == len(self.entries)

        return [matcher for matcher in self._starter_matchers if not (self.entries and is_left_out(matcher))]

    @property
    def configs(self) -> dict[str, str]:
        """The compilation infos of the entries by name, without those of the starter."""
        return {entry.name: entry.compilation_info for entry in self.entries}

    @property
    def starter_key(self) -> str:
        """A hash of the starter's text; empty without one."""
        return content_key(self.starter) if self.starter else ""

    def without(self, names: Collection[str]) -> Draft:
        """Return the draft without the entries of these names.

        If the starter has an entry for the same ops, that one then counts.
        """
        matchers = self._starter_matchers
        return self.only({*self.configs, *(f"{_OF_STARTER}{matcher}" for matcher in matchers)} - set(names))

    def only(self, names: Collection[str]) -> Draft:
        """Return the draft with just the entries of these names."""
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
    """Return whether a name of a draft's entry is that of an entry of the starter."""
    return name.startswith(_OF_STARTER)


def spec_of(winners: Iterable[WinnerRecord | FinalRecord], starter: str = "") -> Draft:
    """Return the draft of the spec of all winners, in the order of their dispatches' names.

    Finals without a winner and kernels, which have no root op, get no entry.

    Args:
        winners: records of winners, or finals. If a dispatch has several, the last one counts.
        starter: the text of the spec that stands behind the entries.
    """
    by_dispatch = {won.dispatch: won for won in winners}
    ordered = [by_dispatch[name] for name in sorted(by_dispatch)]
    return Draft(tuple(entry_of(won) for won in ordered if won.winner and won.root is not None), starter)


def entry_of(won: WinnerRecord | FinalRecord) -> SpecEntry:
    """Return the spec entry of a winner with its provenance, from its record or from the final that it won."""
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
