"""Physmaps before and after an operation, and the GFNs it named, in; other changed GFNs out.

The one invariant that compares two moments: an operation may change only the GFNs it names. It
alone names the harm of the original bug (a frame's stale record makes the next map of that frame
take away what has come to its old GFN), because before 71320946d5 the stale record itself is
normal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.inspection.evidence import Violation
from harness.inspection.physmap import Change, Entry, Physmap, changes

RULE = "call_changes_only_what_it_names"
MOVED = "before 71320946d5 mapping a grant frame again moves it"

#: What is mapped, by domain.
Physmaps = Mapping[int, Physmap]
#: What an operation names, by domain: (first GFN, pages).
Named = Mapping[int, Collection[tuple[int, int]]]


@dataclass(frozen=True)
class Stray:
    """A part of one domain's physmap that changed although nobody named it."""

    domid: int
    change: Change


@dataclass(frozen=True)
class Surroundings:
    """What it takes to say what a stray change did."""

    shared: Mapping[int, Mapping[int, str]]  # the pages Xen shares, by domain: MFN to name
    gfn_in_page_info: bool


def strays(before: Physmaps, after: Physmaps, named: Named) -> list[Stray]:
    """Return each change of a GFN that is not in `named`.

    Domains that came or went between the two moments are passed over.
    """
    return [
        Stray(domid, part)
        for domid, old in before.items()
        if domid in after
        for change in changes(old, after[domid])
        for part in _without(change, named.get(domid, ()))
    ]


def _without(change: Change, named: Collection[tuple[int, int]]) -> list[Change]:
    """Return `change` without the named GFNs."""
    parts: list[Change] = []
    start, end = change.gfn, change.gfn + change.pages
    for first, pages in [*sorted(named), (end, 0)]:
        stop = min(first, end)
        if stop > start:
            parts.append(_part(change, start, stop))
        start = max(start, first + pages)
    return parts


def _part(change: Change, start: int, stop: int) -> Change:
    """Cut a change to the GFNs from `start` up to `stop`."""
    shift = start - change.gfn
    before, after = (
        entry and entry._replace(mfn=entry.mfn + shift) for entry in (change.before, change.after)
    )
    return Change(start, stop - start, before, after)


def judge(stray: Stray, after: Physmaps, around: Surroundings, operation: str) -> Violation:
    """Say what a stray change did; an observation where this Xen is known to move grant frames."""
    change, names = stray.change, around.shared.get(stray.domid, {})
    places = f"gfn {change.gfn:#x}"
    if change.pages > 1:
        places = f"gfns {change.gfn:#x} to {change.gfn + change.pages - 1:#x}"
    first = change.before or change.after
    return Violation(
        f"d{stray.domid} {places} changed from {_side(change.before, names)} to "
        f"{_side(change.after, names)}, which the call did not name",
        stray.domid,
        change.gfn,
        first.mfn if first else None,
        RULE,
        label=MOVED if _moved(stray, after, around) else "",
        operation=operation,
    )


def _side(entry: Entry | None, names: Mapping[int, str]) -> str:
    if entry is None:
        return "nothing"
    name = names.get(entry.mfn)
    return f"{name} (mfn {entry.mfn:#x})" if name else f"{entry.type} mfn {entry.mfn:#x}"


def _moved(stray: Stray, after: Physmaps, around: Surroundings) -> bool:
    """Whether a grant frame went from here to another GFN, on a Xen that moves them."""
    change = stray.change
    if around.gfn_in_page_info or change.before is None or change.after or change.pages > 1:
        return False
    mfn = change.before.mfn
    is_frame = "frame" in around.shared.get(stray.domid, {}).get(mfn, "")
    return is_frame and bool(after[stray.domid].gfns_of(mfn))
