"""What Xen recorded at one moment, as a value: domains, physmaps, grants, page owners.

Comes from an `Inspector`; goes to the invariants, the footprint and the renderings, none of which
reads the machine again.  Knows no rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.inspection.grants import GrantTable
from harness.inspection.pages import FrameTable
from harness.inspection.physmap import Physmap


@dataclass(frozen=True)
class DomainState:
    """One struct domain and what hangs from it."""

    address: int  # virtual address of the struct domain
    domid: int
    dying: int  # 0 alive, 1 dying, 2 dead
    tot_pages: int
    max_pages: int
    extra_pages: int
    xenheap_pages: int
    vcpus: int
    pool_pages: int | None  # P2M pool, None before it existed
    p2m_root: int  # physical address, 0 where the P2M is not set up
    max_mapped_gfn: int
    shared_info: int | None  # MFN
    shared_info_recorded: int | None  # GFN, since 71320946d5
    physmap: Physmap
    grants: GrantTable | None
    unreadable: tuple[str, ...] = ()  # "grant table: Xen does not map 0xdead0040"

    @property
    def name(self) -> str:
        """What Xen calls it on its console."""
        return f"d{self.domid}"

    def shared_pages(self) -> dict[int, str]:
        """Return the pages Xen shares with this domain, by MFN, each with what it is."""
        names = {frame.mfn: frame.name for frame in self.grants.frames} if self.grants else {}
        if self.shared_info is not None:
            names[self.shared_info] = "shared_info"
        return names

    def recorded_gfns(self) -> dict[int, int | None]:
        """Return where Xen believes each shared page to be mapped, by MFN."""
        recorded = (
            {frame.mfn: frame.recorded for frame in self.grants.frames} if self.grants else {}
        )
        if self.shared_info is not None:
            recorded[self.shared_info] = self.shared_info_recorded
        return recorded


@dataclass(frozen=True)
class Snapshot:
    """All of it, read within `seconds`."""

    domains: dict[int, DomainState]  # by domid
    pages: FrameTable | None  # None where the frame table cannot be found
    gfn_in_page_info: bool  # Xen has 71320946d5
    owners: dict[int, str]  # virtual address of a struct domain: its name
    seconds: float = 0.0
    held_locks: tuple[str, ...] = field(default=())

    def owner_name(self, address: int) -> str:
        """Return who an owner field names."""
        return (
            self.owners.get(address, f"{address:#x}, which is no domain") if address else "nobody"
        )

    def describe_page(self, mfn: int) -> str:
        """Return what is known of a page, as one would say it in a report."""
        for state in self.domains.values():
            shared = state.shared_pages().get(mfn)
            if shared:
                return f"{shared} of {state.name}"
        if self.pages is None or mfn not in self.pages:
            return f"mfn {mfn:#x}"
        page = self.pages[mfn]
        if page.is_free:
            return f"mfn {mfn:#x}, free"
        kind = "xenheap page" if page.is_xenheap else "page"
        return f"mfn {mfn:#x}, {kind} of {self.owner_name(page.owner)}"
