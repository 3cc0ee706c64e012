"""A Snapshot in, its parts joined for the rules out: what is mapped beside what is recorded.

Also what a broken rule comes to, a `Violation`. Knows no rule and reads no machine.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from harness.inspection.pages import (
    XEN_HEAP,
    FrameTable,
    PageInfo,
    Run,
)
from harness.inspection.physmap import Range
from harness.inspection.snapshot import DomainState, Snapshot


@dataclass(frozen=True)
class Violation:
    """One place where Xen's tables contradict each other, or the operation that was asked for."""

    what: str  # "shared_info of d1 is mapped at 2 GFNs: 0x38000, 0x38001"
    domid: int | None = None
    gfn: int | None = None
    mfn: int | None = None
    rule: str = ""  # its name; `invariants.check` fills it in
    label: str = ""  # why this Xen is known to do so; empty where it must not
    operation: str = ""  # what was done last, where that is known

    @property
    def is_observation(self) -> bool:
        """Whether this Xen is known to do so, and a case must not fail by it."""
        return bool(self.label)

    def __str__(self) -> str:
        """Return one line for a report."""
        page = "" if self.mfn is None else f"mfn {self.mfn:#x}"
        which = f" ({page})" if page and page not in self.what else ""
        after = f", after {self.operation}" if self.operation else ""
        known = f" (known: {self.label})" if self.label else ""
        return f"{self.what}{which}{after} [{self.rule}]{known}"


class Mapped(NamedTuple):
    """Pages of one record behind consecutive GFNs of one domain."""

    state: DomainState
    gfn: int
    run: Run
    range: Range


@dataclass(frozen=True)
class Evidence:
    """A snapshot, joined: what is mapped against what is recorded.

    A dying domain's pages are freed before its physmap is taken down, so its physmap proves
    nothing.
    """

    snapshot: Snapshot
    pages: FrameTable

    @property
    def living(self) -> list[DomainState]:
        """The domains that are not being destroyed."""
        return [state for state in self.snapshot.domains.values() if not state.dying]

    @cached_property
    def mapped(self) -> list[Mapped]:
        """Everything mapped that has a page_info."""
        return [
            Mapped(state, r.gfn + run.mfn - r.mfn, run, r)
            for state in self.living
            for r in state.physmap
            if not r.is_mmio and r.mfn in self.pages and r.mfn + r.pages - 1 in self.pages
            for run in self.pages.runs_of(r.mfn, r.pages)
        ]

    @cached_property
    def own_ram(self) -> list[Mapped]:
        """RAM that is mapped as the domain's own, without what Xen shares with it."""
        return [
            m
            for m in self.mapped
            if m.range.is_ram and not m.run.count_info & XEN_HEAP and not m.run.is_free
        ]

    @cached_property
    def shared(self) -> list[tuple[DomainState, int, PageInfo]]:
        """(domain, GFN, page) for each xenheap page mapped as the domain's own."""
        return [
            (m.state, m.gfn + number, self.pages[m.run.mfn + number])
            for m in self.mapped
            if m.range.is_ram and m.run.count_info & XEN_HEAP and not m.run.is_free
            for number in range(m.run.pages)
        ]

    def shared_gfns(self, state: DomainState) -> dict[int, list[int]]:
        """Return the GFNs at which each shared page of a domain is, by MFN."""
        gfns: dict[int, list[int]] = defaultdict(list)
        for owner, gfn, page in self.shared:
            if owner is state:
                gfns[page.mfn].append(gfn)
        return gfns

    def name(self, mfn: int) -> str:
        """Return what a page is."""
        return self.snapshot.describe_page(mfn)
