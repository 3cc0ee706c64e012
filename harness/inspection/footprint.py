"""Physmaps before and after an operation, and the GFNs it named, in; other changed GFNs out.

The one invariant that compares two moments: an operation may change only the GFNs it names.  It
alone names the harm of the original bug (a frame's stale record makes the next map of that frame
take away what has come to its old GFN), because before 71320946d5 the stale record itself is
normal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.inspection.invariants import Violation
from harness.inspection.physmap import Change, Entry, Physmap, changes
from harness.inspection.snapshot import Snapshot

RULE = "operation_changes_only_what_it_names"
MOVED = "before 71320946d5 mapping a grant frame again moves it"

#: GFNs an operation names, by domain.
Named = Mapping[int, Collection[int]]


@dataclass(frozen=True)
class Moment:
    """The physmaps of one moment, with the names of shared pages."""

    physmaps: Mapping[int, Physmap]
    shared: Mapping[int, Mapping[int, str]]  # by domain: MFN to name
    gfn_in_page_info: bool

    @classmethod
    def of(cls, snapshot: Snapshot) -> Moment:
        """Take what is needed from a snapshot; dying domains change without being asked."""
        living = {d: s for d, s in snapshot.domains.items() if not s.dying}
        return cls(
            {domid: state.physmap for domid, state in living.items()},
            {domid: state.shared_pages() for domid, state in living.items()},
            snapshot.gfn_in_page_info,
        )


def footprint(before: Moment, after: Moment, named: Named, operation: str = "") -> list[Violation]:
    """Return each change of a GFN that `operation` did not name.

    Domains that came or went between the two moments are passed over.
    """
    found: list[Violation] = []
    for domid, old in before.physmaps.items():
        new = after.physmaps.get(domid)
        if new is None:
            continue
        mine = named.get(domid, ())
        for change in changes(old, new):
            for part in _without(change, mine):
                found.append(_violation(domid, part, before, after, operation))
    return found


def _without(change: Change, named: Collection[int]) -> list[Change]:
    """Return `change` without the named GFNs."""
    inside = sorted(g for g in named if change.gfn <= g < change.gfn + change.pages)
    parts: list[Change] = []
    start = change.gfn
    for edge in [*inside, change.gfn + change.pages]:
        if edge > start:
            shift = start - change.gfn
            parts.append(
                Change(
                    start,
                    edge - start,
                    change.before and change.before._replace(mfn=change.before.mfn + shift),
                    change.after and change.after._replace(mfn=change.after.mfn + shift),
                )
            )
        start = edge + 1
    return parts


def _violation(
    domid: int, change: Change, before: Moment, after: Moment, operation: str
) -> Violation:
    names = {**before.shared.get(domid, {}), **after.shared.get(domid, {})}

    def side(entry: Entry | None) -> str:
        if entry is None:
            return "nothing"
        name = names.get(entry.mfn)
        return f"{name} (mfn {entry.mfn:#x})" if name else f"{entry.type} mfn {entry.mfn:#x}"

    places = f"gfn {change.gfn:#x}"
    if change.pages > 1:
        places = f"gfns {change.gfn:#x} to {change.gfn + change.pages - 1:#x}"
    what = (
        f"d{domid} {places} changed from {side(change.before)} to {side(change.after)}, "
        "which the operation did not name"
    )
    mfn = change.before.mfn if change.before else change.after.mfn if change.after else None
    return Violation(
        RULE,
        what,
        domid,
        change.gfn,
        mfn,
        label=MOVED if _moved(domid, change, before, after) else "",
        operation=operation,
    )


def _moved(domid: int, change: Change, before: Moment, after: Moment) -> bool:
    """Whether a grant frame went from here to another GFN, on a Xen that moves them."""
    if before.gfn_in_page_info or change.before is None or change.after is not None:
        return False
    mfn = change.before.mfn
    return (
        change.pages == 1
        and "frame" in before.shared.get(domid, {}).get(mfn, "")
        and bool(after.physmaps[domid].gfns_of(mfn))
    )
