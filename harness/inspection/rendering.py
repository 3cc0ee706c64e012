"""Values of the inspector in, lines for a person out; where and in which colour, it does not know.

What changed between two moments comes as pairs of a sign and a line.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.inspection.errors import CannotInspect
from harness.inspection.grants import read_entries
from harness.inspection.hypervisor import Inspector
from harness.inspection.invariants import check, why
from harness.inspection.pages import PageInfo, counted
from harness.inspection.physmap import Physmap, Range, changes
from harness.inspection.snapshot import DomainState, Snapshot

MOST_ENTRIES = 32
GONE, CAME = "-", "+"


def domains(snapshot: Snapshot) -> list[str]:
    """Return a line for each domain, and one for the machine."""
    lines = [repr(state) for state in snapshot.domains.values()]
    lines += [line for state in snapshot.domains.values() for line in _unmapped(snapshot, state)]
    if snapshot.pages is None:
        lines.append(snapshot.pages_unknown)
    else:
        lines.append(f"{snapshot.pages.free_pages} of {snapshot.pages.pages} pages are free")
    return lines


def _unmapped(snapshot: Snapshot, state: DomainState) -> Iterator[str]:
    """RAM that a domain owns and cannot reach: shared pages mapped over it leave such behind."""
    if snapshot.pages is None or state.dying:
        return
    mapped = sum(r.pages for r in state.physmap if r.is_ram)
    mapped -= sum(len(state.physmap.gfns_of(mfn)) for mfn in state.shared_pages())
    missing = state.tot_pages - state.extra_pages - mapped
    if missing > 0:
        verb = "is" if missing == 1 else "are"
        yield f"{state.name}  {counted(missing, 'page')} {verb} owned and not mapped"


def physmap(state: DomainState) -> list[str]:
    """Return a domain's physmap as ranges, shared pages with their names."""
    return repr(Physmap(state.physmap.ranges, state.labels())).splitlines()


def physmap_changes(before: DomainState, after: DomainState) -> list[tuple[str, str]]:
    """Return what went and what came between two moments."""
    found: list[tuple[str, str]] = []
    for change in changes(before.physmap, after.physmap):
        for sign, entry, state in ((GONE, change.before, before), (CAME, change.after, after)):
            if entry is not None:
                part = Range(change.gfn, change.pages, *entry)
                found += [(sign, line) for line in Physmap([part], state.labels()).lines()]
    return found


def page(snapshot: Snapshot, mfn: int) -> list[str]:
    """Return all that is recorded of a page, and where it is mapped."""
    if snapshot.pages is None or mfn not in snapshot.pages:
        raise CannotInspect(snapshot.pages_unknown or f"mfn {mfn:#x} is no RAM of this machine")
    info = snapshot.pages[mfn]
    lines = [repr(info), f"it is {snapshot.describe_page(mfn)}"]
    lines += [] if info.is_free else list(_record(snapshot, info))
    for state in snapshot.domains.values():
        for gfn in state.physmap.gfns_of(mfn):
            entry = state.physmap[gfn]
            lines.append(
                f"{state.name} maps it at gfn {gfn:#x} as {entry.type} {entry.permissions}"
            )
    return lines


def _record(snapshot: Snapshot, info: PageInfo) -> Iterator[str]:
    """Yield the GFN that type_info holds, where it holds one."""
    assert snapshot.pages is not None
    yield counted(snapshot.pages.type_count(info), "type reference")
    if info.is_xenheap and snapshot.gfn_in_page_info:
        gfn = snapshot.pages.recorded_gfn(info)
        yield "no GFN is recorded" if gfn is None else f"gfn {gfn:#x} is recorded"


def gfn(inspector: Inspector, snapshot: Snapshot, domid: int, number: int) -> list[str]:
    """Return the whole walk from a GFN to its page, and what is known of that."""
    lines = [
        f"level {step.level}  entry {step.index:<3}  at {step.address:#x}  {step.entry:#018x}  "
        f"{step.meaning}"
        for step in inspector.walk(domid, number)
    ]
    entry = snapshot.domains[domid].physmap.get(number)
    if entry is not None and snapshot.pages is not None and entry.mfn in snapshot.pages:
        lines += page(snapshot, entry.mfn)
    return lines or [f"gfn {number:#x} is beyond what the P2M of d{domid} can hold"]


def grants(inspector: Inspector, state: DomainState) -> list[str]:
    """Return a domain's grant table: its frames, where they are mapped, its entries in use."""
    if state.grants is None:
        return [f"{state.name} has no grant table"]
    lines = repr(state.grants).splitlines()
    for number, frame in enumerate(state.grants.frames, 1):
        places = ", ".join(f"{gfn:#x}" for gfn in state.physmap.gfns_of(frame.mfn))
        lines[number] += f", mapped at {places}" if places else ", not mapped"
    entries = read_entries(inspector.memory, state.grants)
    for entry in entries[:MOST_ENTRIES]:
        lines.append(
            f"reference {entry.reference}: d{entry.domid} may use gfn {entry.gfn:#x}, "
            f"flags {entry.flags:#x}"
        )
    if len(entries) > MOST_ENTRIES:
        lines.append(f"and {len(entries) - MOST_ENTRIES} more references")
    return lines


def rules(snapshot: Snapshot) -> list[str]:
    """Return a line for each broken rule, and why those rules must hold."""
    if snapshot.pages is None:
        return [f"no rule could be held: {snapshot.pages_unknown}"]
    if snapshot.held_locks:
        return [f"no rule is held in mid-update: {', '.join(snapshot.held_locks)} held"]
    found = check(snapshot)
    reasons = [f"{rule}: {why(rule)}" for rule in dict.fromkeys(v.rule for v in found)]
    return [*map(str, found), *reasons] or ["no rule is broken"]
