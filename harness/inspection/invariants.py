"""A Snapshot in, the rules it breaks out: a sanitizer for the physmap.

Each rule is a short function that yields what breaks it; its docstring says why it must hold and
since when.  Where a version is known to break a rule, what it yields is an *observation* with a
label that says why: told, never held against a case.  The rules judge a value and read no machine;
whether the moment was a fit one to look is the snapshot's business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from harness.inspection.evidence import Evidence, Mapped, Violation
from harness.inspection.footprint import RULE as FOOTPRINT
from harness.inspection.pages import ALLOCATED, COUNT_MASK, EXTRA, XEN_HEAP
from harness.inspection.rule import RULES, rule
from harness.inspection.snapshot import Snapshot

#: A rule that fires on every page of a domain says so this often, then says how often more.
MOST_PER_RULE = 8


def why(name: str) -> str:
    """Return why a rule must hold and since when; "" for a name that is none's."""
    if name == FOOTPRINT:
        return (
            "A call may change only the GFNs that it names; whatever else it changed is harm done."
        )
    return RULES[name].why if name in RULES else ""


def check(snapshot: Snapshot) -> list[Violation]:
    """Return everything in `snapshot` that breaks a rule, observations included."""
    if snapshot.pages is None:
        return []
    evidence = Evidence(snapshot, snapshot.pages)
    found: list[Violation] = []
    for each in RULES.values():
        broken = list(each.check(evidence))
        label = "" if snapshot.gfn_in_page_info else each.excuse_before
        found += [replace(v, rule=each.name, label=label) for v in broken[:MOST_PER_RULE]]
        if len(broken) > MOST_PER_RULE:
            more = f"and {len(broken) - MOST_PER_RULE} more like these"
            found.append(Violation(more, rule=each.name, label=label))
    return found


def _gfns(gfn: int, pages: int) -> str:
    return f"gfn {gfn:#x}" if pages == 1 else f"gfns {gfn:#x} to {gfn + pages - 1:#x}"


@rule()
def what_a_domain_points_to_is_mapped(evidence: Evidence) -> Iterator[Violation]:
    """A domain's shared_info, grant table and page tables are where its pointers say.

    Xen follows them without a look, in every version; one that leads nowhere is its next data
    abort.
    """
    for state in evidence.living:
        for what in state.unreadable:
            yield Violation(f"{state.name} {what}", state.domid)


# -- what the physmap leads to ------------------------------------------------------------------


@rule()
def mapped_page_exists(evidence: Evidence) -> Iterator[Violation]:
    """A RAM, foreign or grant entry must name a page of the machine.

    Xen finds the page_info of such an entry when it is removed or replaced; of a page that is none
    it would read and write beyond the frame table.  Since 18651cc81b an entry has a type; device
    memory, which has no page_info, is told by it and not judged.
    """
    for state in evidence.living:
        for r in state.physmap:
            outside = r.mfn not in evidence.pages or r.mfn + r.pages - 1 not in evidence.pages
            if not r.is_mmio and outside:
                yield Violation(
                    f"{state.name} {_gfns(r.gfn, r.pages)} maps mfn {r.mfn:#x} as {r.type}, "
                    "which is no RAM",
                    state.domid,
                    r.gfn,
                    r.mfn,
                )


@rule()
def no_free_page_is_mapped(evidence: Evidence) -> Iterator[Violation]:
    """A page in the allocator's pool must be behind no GFN.

    The next owner of the page would share it with this domain: the consequence of every reference
    that was dropped once too often.  As old as the P2M (271a1c001d).
    """
    for m in evidence.mapped:
        if m.run.is_free:
            yield Violation(
                f"{m.state.name} {_gfns(m.gfn, m.run.pages)} maps mfn {m.run.mfn:#x} as "
                f"{m.range.type}, which is free",
                m.state.domid,
                m.gfn,
                m.run.mfn,
            )


@rule()
def ram_belongs_to_its_domain(evidence: Evidence) -> Iterator[Violation]:
    """RAM mapped as a domain's own must have that domain as its owner.

    Pages of others are mapped by the types map_foreign and grant_map, which hold references; a ram
    entry holds none, so nothing keeps another owner's page from being freed beneath it.  Foreign
    mappings have had a type of their own since 8e3079c481.
    """
    for m in evidence.own_ram:
        if m.run.owner != m.state.address:
            yield Violation(
                f"{m.state.name} {_gfns(m.gfn, m.run.pages)} maps mfn {m.run.mfn:#x} as "
                f"{m.range.type}, which belongs to {evidence.snapshot.owner_name(m.run.owner)}",
                m.state.domid,
                m.gfn,
                m.run.mfn,
            )


@rule()
def mapped_ram_is_allocated(evidence: Evidence) -> Iterator[Violation]:
    """RAM mapped as a domain's own must carry PGC_allocated and at least one reference.

    PGC_allocated stands for the domain's claim on the page, which decrease_reservation gives up
    after it took the page out of the physmap; one without is freed as soon as a mapper elsewhere
    lets go.  As old as page_info on Arm (271a1c001d).
    """
    for m in evidence.own_ram:
        if not m.run.count_info & ALLOCATED or not m.run.count_info & COUNT_MASK:
            yield Violation(
                f"{m.state.name} {_gfns(m.gfn, m.run.pages)} maps mfn {m.run.mfn:#x}, which is not "
                f"allocated to it (count_info {m.run.count_info:#x})",
                m.state.domid,
                m.gfn,
                m.run.mfn,
            )


@rule()
def ram_is_mapped_once(evidence: Evidence) -> Iterator[Violation]:
    """A page of RAM is behind one GFN, of one domain.

    A second GFN outlives the first one's removal: after decrease_reservation the guest would keep
    access to a page that Xen gives to somebody else.  As old as the P2M (271a1c001d).
    """
    for one, two in pairwise(sorted(evidence.own_ram, key=lambda m: m.run.mfn)):
        if two.run.mfn < one.run.end:
            shift = two.run.mfn - one.run.mfn
            yield Violation(
                f"mfn {two.run.mfn:#x} is RAM of {one.state.name} at gfn {one.gfn + shift:#x} "
                f"and of {two.state.name} at gfn {two.gfn:#x}",
                two.state.domid,
                two.gfn,
                two.run.mfn,
            )


# -- pages that Xen shares with a domain --------------------------------------------------------


@rule()
def shared_page_is_mapped_once(evidence: Evidence) -> Iterator[Violation]:
    """A xenheap page is behind one GFN at a time.

    71320946d5 made this the rule, with room for one GFN in page_info; before, shared_info could be
    mapped any number of times and a removal left the other GFNs behind.
    """
    for state in evidence.living:
        for mfn, gfns in evidence.shared_gfns(state).items():
            if len(gfns) > 1:
                places = ", ".join(f"{gfn:#x}" for gfn in gfns)
                yield Violation(
                    f"{evidence.name(mfn)} is mapped at {len(gfns)} GFNs: {places}",
                    state.domid,
                    gfns[-1],
                    mfn,
                )


@rule()
def shared_page_belongs_to_its_domain(evidence: Evidence) -> Iterator[Violation]:
    """A xenheap page mapped as a domain's own must have that domain as its owner.

    share_xen_page_with_guest() makes the domain the owner before any GFN can be asked for
    (fb1b6345e5).
    """
    for state, gfn, page in evidence.shared:
        if page.owner != state.address:
            yield Violation(
                f"{state.name} gfn {gfn:#x} maps xenheap mfn {page.mfn:#x}, which belongs to "
                f"{evidence.snapshot.owner_name(page.owner)}",
                state.domid,
                gfn,
                page.mfn,
            )


@rule()
def shared_page_is_one_xen_shares(evidence: Evidence) -> Iterator[Violation]:
    """A xenheap page mapped as a domain's own must be its shared_info or one of its grant frames.

    Nothing else of Xen's heap is given to guests on Arm, up to now; what is shows Xen's memory.  A
    frame that a grant table gave up (version 2 to 1) must be out of the physmap by then.
    """
    for state, gfn, page in evidence.shared:
        if page.mfn not in state.shared_pages():
            yield Violation(
                f"{state.name} gfn {gfn:#x} maps xenheap mfn {page.mfn:#x}, which is neither its "
                "shared_info nor one of its grant frames",
                state.domid,
                gfn,
                page.mfn,
            )


@rule()
def shared_page_records_its_gfn(evidence: Evidence) -> Iterator[Violation]:
    """The GFN that Xen records for a shared page must be the one it is mapped at.

    Xen unmaps, moves and reports the page (GNTTABOP_setup_table) by that record.  Since 71320946d5
    it is in the page's type_info, for every xenheap page; before, in an array, for grant frames
    only.
    """
    for state in evidence.living:
        recorded = state.recorded_gfns()
        for mfn, gfns in evidence.shared_gfns(state).items():
            if not evidence.snapshot.gfn_in_page_info and mfn == state.shared_info:
                continue
            known = recorded.get(mfn)
            if mfn in recorded and known not in gfns:
                is_recorded = "no record of it" if known is None else f"recorded at {known:#x}"
                yield Violation(
                    f"{evidence.name(mfn)} is mapped at gfn {gfns[0]:#x}, {is_recorded}",
                    state.domid,
                    gfns[0],
                    mfn,
                )


@rule(excuse_before="before 71320946d5 a grant frame's recorded GFN outlives its mapping")
def recorded_gfn_is_mapped(evidence: Evidence) -> Iterator[Violation]:
    """A recorded GFN must map the page it is recorded for.

    Since 71320946d5 removing or replacing the P2M entry clears the record; before, nothing did, and
    the next map of the frame took whatever had come to that GFN away.
    """
    for state in evidence.living:
        for mfn, gfn in state.recorded_gfns().items():
            if gfn is None:
                continue
            there = state.physmap.get(gfn)
            if there is None or there.mfn != mfn:
                found = (
                    "which maps nothing"
                    if there is None
                    else (f"which maps {evidence.name(there.mfn)}")
                )
                yield Violation(
                    f"{evidence.name(mfn)} is recorded at gfn {gfn:#x}, {found}",
                    state.domid,
                    gfn,
                    mfn,
                )


@rule()
def shared_page_has_one_type_reference(evidence: Evidence) -> Iterator[Violation]:
    """A page shared with a domain holds exactly the type reference it was shared with.

    share_xen_page_with_guest() takes it and only the page's release drops it; two bits of count are
    left since 71320946d5, so a leak would soon run into the GFN's neighbour.
    """
    for state in evidence.living:
        for mfn, name in state.shared_pages().items():
            if mfn not in evidence.pages:
                continue
            page = evidence.pages[mfn]
            count = evidence.pages.type_count(page)
            if count != 1:
                yield Violation(
                    f"{name} of {state.name} has {count} type references "
                    f"(type_info {page.type_info:#x})",
                    state.domid,
                    None,
                    mfn,
                )


# -- pages of others ----------------------------------------------------------------------------


@rule()
def foreign_page_is_of_another_domain(evidence: Evidence) -> Iterator[Violation]:
    """A foreign mapping leads to a page of some other domain.

    XENMAPSPACE_gmfn_foreign refuses the caller's own; an own page mapped so would be referenced
    twice and never be counted free again.  Such mappings have their type since 8e3079c481.
    """
    for m in evidence.mapped:
        if m.range.type.startswith("map_foreign") and m.run.owner == m.state.address:
            yield Violation(
                f"{m.state.name} {_gfns(m.gfn, m.run.pages)} maps its own mfn {m.run.mfn:#x} as "
                f"{m.range.type}",
                m.state.domid,
                m.gfn,
                m.run.mfn,
            )


@rule()
def foreign_mapping_holds_a_reference(evidence: Evidence) -> Iterator[Violation]:
    """Each foreign mapping of a page holds one reference to it, beside the owner's own.

    That is what keeps the page from being given away while another domain can still reach it, and
    it must be so after the owner is gone as well (one page lingers until its mapper lets go).
    Since 9486a8d07b, which drops the reference with the mapping.
    """
    mappings: dict[int, int] = defaultdict(int)
    where: dict[int, Mapped] = {}
    for m in evidence.mapped:
        if m.range.type.startswith("map_foreign") and not m.run.is_free:
            for mfn in range(m.run.mfn, m.run.end):
                mappings[mfn] += 1
                where[mfn] = m
    for mfn, count in mappings.items():
        page = evidence.pages[mfn]
        needed = count + (1 if page.is_allocated else 0)
        if page.references < needed:
            m = where[mfn]
            gfn = m.gfn + mfn - m.run.mfn
            yield Violation(
                f"mfn {mfn:#x} of {evidence.snapshot.owner_name(page.owner)} is mapped by others "
                f"{count} times (last {m.state.name} gfn {gfn:#x}) and has {page.references} "
                f"references where {needed} are due",
                m.state.domid,
                gfn,
                mfn,
            )


# -- sums ---------------------------------------------------------------------------------------


@rule()
def page_counts_agree(evidence: Evidence) -> Iterator[Violation]:
    """A domain's tot_pages and xenheap_pages are the number of referenced pages it owns.

    tot_pages takes extra pages in (since c793d13944, 4.14) and pages that were given up but are
    still referenced; max_pages is enforced by it, so a drift lets a domain have more than it may,
    or less.  A shared page whose GFN the domain gave to decrease_reservation keeps its owner, but
    counts no more.
    """
    ram: dict[int, int] = defaultdict(int)
    heap: dict[int, int] = defaultdict(int)
    for run in evidence.pages.runs:
        if not run.owner or run.is_free or not run.count_info & COUNT_MASK:
            continue
        if run.count_info & XEN_HEAP:
            heap[run.owner] += run.pages
        elif not run.count_info & EXTRA:
            ram[run.owner] += run.pages
    for state in evidence.living:
        due = state.tot_pages - state.extra_pages
        if ram[state.address] != due:
            yield Violation(
                f"{state.name} owns {ram[state.address]} pages of RAM; Xen counts {due}",
                state.domid,
            )
        if heap[state.address] != state.xenheap_pages:
            yield Violation(
                f"{state.name} owns {heap[state.address]} xenheap pages; Xen counts "
                f"{state.xenheap_pages}",
                state.domid,
            )


@rule()
def highest_gfn_is_known(evidence: Evidence) -> Iterator[Violation]:
    """p2m.max_mapped_gfn is at or above everything mapped.

    Xen looks at no GFN above it: taking a domain down, a lookup for a foreign mapping and
    p2m_cache_flush_range() would all pass by what lies there.  Since 84f29a98dc.
    """
    for state in evidence.living:
        if state.physmap.ranges:
            highest = state.physmap.ranges[-1].end - 1
            if highest > state.max_mapped_gfn:
                yield Violation(
                    f"{state.name} maps gfn {highest:#x}, above max_mapped_gfn "
                    f"{state.max_mapped_gfn:#x}",
                    state.domid,
                    highest,
                )
