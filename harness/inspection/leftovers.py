"""A domain as it was and Xen as it is now in, what of a destroyed domain is still there out.

Xen frees the pages of a domain and takes its physmap down before the domain leaves its list; a page
that somebody else maps keeps it there, dead, with that page. Judges values and reads no machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.inspection.pages import COUNT_MASK
from harness.inspection.snapshot import LIVES, DomainState, Snapshot


def leftovers(before: DomainState, now: Snapshot) -> list[str]:
    """Return what is left of the domain `before`, a sentence each; nothing where all is well."""
    if _is_anothers(before, now):
        return []
    return [*_listed(before, now), *_owned(before, now), *_mapped(before, now)]


def _is_anothers(before: DomainState, now: Snapshot) -> bool:
    """Whether Xen has given the memory of the struct domain to a new domain."""
    return any(
        state.address == before.address and state.domid != before.domid
        for state in now.domains.values()
    )


def _listed(before: DomainState, now: Snapshot) -> Iterator[str]:
    state = now.domains.get(before.domid)
    if state is not None and state.address == before.address:
        life = LIVES.get(state.dying, f"is_dying {state.dying}")
        pages = f"{state.tot_pages} pages and {state.xenheap_pages} xenheap pages"
        yield f"{state.name} is on Xen's list, {life}, with {pages}"


def _owned(before: DomainState, now: Snapshot) -> Iterator[str]:
    """Pages whose page_info still names the struct domain."""
    for run in now.pages.runs if now.pages else ():
        if run.owner == before.address and not run.is_free and run.count_info & COUNT_MASK:
            yield f"mfns {run.mfn:#x} to {run.end - 1:#x} belong to {before.name}"


def _mapped(before: DomainState, now: Snapshot) -> Iterator[str]:
    """Mappings of other domains that lead to such pages."""
    if now.pages is None:
        return
    for state in now.domains.values():
        for part in state.physmap:
            if part.is_mmio or part.is_ram:
                continue
            for mfn in range(part.mfn, part.mfn + part.pages):
                if mfn in now.pages and now.pages[mfn].owner == before.address:
                    gfn = part.gfn + mfn - part.mfn
                    yield f"{state.name} gfn {gfn:#x} maps mfn {mfn:#x} of {before.name}"
