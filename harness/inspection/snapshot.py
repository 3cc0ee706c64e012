"""What Xen recorded at one moment, as a value: domains, physmaps, grants, page owners.

Comes from an `Inspector`; goes to the invariants, the footprint and the renderings, none of which
reads the machine again.  Knows no rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.inspection.grants import GrantTable
from harness.inspection.pages import FrameTable
from harness.inspection.physmap import Physmap

#: enum domain_dying (xen/include/xen/sched.h)
LIVES = {0: "alive", 1: "dying", 2: "dead"}
PAGES_PER_MIB = 256


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        """Return one line on the domain."""
        most = "" if self.max_pages >> 32 - 1 else f" of at most {self.max_pages}"
        facts = [
            LIVES.get(self.dying, f"is_dying {self.dying}"),
            f"{self.tot_pages} pages{most} ({self.tot_pages / PAGES_PER_MIB:g} MiB)",
            f"{self.vcpus} vCPU" + "s" * (self.vcpus != 1),
            f"{self.xenheap_pages} xenheap pages",
        ]
        if self.pool_pages is not None:
            facts.append(f"{self.pool_pages} in the P2M pool")
        if self.grants is not None:
            shared = [frame for frame in self.grants.frames if not frame.status]
            facts.append(f"{len(shared)} of {self.grants.max_frames} grant frames")
        return f"{self.name}  {', '.join([*facts, *self.unreadable])}"

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

    def labels(self) -> dict[int, str]:
        """Return what each shared page is and where Xen believes it to be, by MFN."""
        recorded = self.recorded_gfns()
        return {
            mfn: name + ("" if recorded[mfn] is None else f" (recorded {recorded[mfn]:#x})")
            for mfn, name in self.shared_pages().items()
        }


@dataclass(frozen=True, repr=False)
class Snapshot:
    """All of it, read within `seconds`."""

    domains: dict[int, DomainState]  # by domid
    pages: FrameTable | None  # None where the frame table cannot be found
    gfn_in_page_info: bool  # Xen has 71320946d5
    owners: dict[int, str]  # virtual address of a struct domain: its name
    seconds: float = 0.0
    held_locks: tuple[str, ...] = ()
    pages_unknown: str = ""  # why there are no `pages`

    def __repr__(self) -> str:
        """Return a line for each domain."""
        return "\n".join(map(repr, self.domains.values())) or "no domain"

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
