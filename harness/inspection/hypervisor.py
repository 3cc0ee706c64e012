"""A machine's RAM and Xen's symbols in; an Inspector, proven to look at that very Xen, out.

`attach` finds the build-id note in RAM and accepts it only where Xen's own page tables map the
note's address back to where it was found: that proves at once that binary and symbols agree and
where Xen is. The inspector then reads domains, physmaps, page owners and grants.  It writes
nothing, stops nothing and needs nothing of Xen, so it works after a panic too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from harness.inspection.errors import CannotInspect, MidUpdate
from harness.inspection.grants import GrantTable, read_grants
from harness.inspection.layout import (
    EntryStore,
    Layout,
    facts_of,
    load_layout,
    open_program,
)
from harness.inspection.memory import (
    ADDRESS_MASK,
    PAGE_SHIFT,
    AddressSpace,
    NotMapped,
    Ram,
    check_present,
)
from harness.inspection.pages import FrameTable, FrameTableReader, PageInfo, find_frame_table
from harness.inspection.physmap import Physmap, PhysmapReader, WalkStep
from harness.inspection.snapshot import DomainState, Snapshot

T = TypeVar("T")

#: More domains than a test machine has: a longer list is a torn or circular one.
MOST_DOMAINS = 4096
SPECIAL_DOMAINS = ("dom_io", "dom_xen", "dom_cow")
#: How often, and how long apart, a snapshot is tried while Xen holds a lock.
LOCK_TRIES, LOCK_PAUSE = 50, 0.002  # seconds


def attach(ram: Ram, syms: Path, build_id: str = "", cache: EntryStore | None = None) -> Inspector:
    """Find the Xen of `syms` in `ram`; CannotInspect where it is not there or is another build.

    `build_id` (hex) is that of the Xen that was started; symbols of another build are refused.
    """
    facts = facts_of(syms)
    if build_id and facts.build_id != build_id.lower():
        raise CannotInspect(
            f"{syms} is of another build than the Xen that runs",
            evidence=[f"running {build_id}", f"symbols {facts.build_id}"],
            advice="Name the xen-syms that the same build left beside its xen.",
        )
    check_present(ram)
    layout = load_layout(syms, cache)
    for physical in (ram.base + offset for offset in ram.find_all(facts.note)):
        for symbol in ("xen_pgtable", "boot_pgtable"):
            if symbol not in layout.symbols:
                continue
            offset = physical - layout.note_address
            memory = AddressSpace(ram, layout.symbols[symbol] + offset)
            try:
                if memory.physical(layout.note_address) == physical:
                    return Inspector(memory, layout, syms)
            except NotMapped:
                pass
            memory.close()
    raise CannotInspect(
        "Xen was not found in the machine's RAM: it has not set up its page tables yet, "
        "or another Xen runs",
        evidence=[f"looked for build-id {facts.build_id} of {syms}"],
    )


class HasDomid(Protocol):
    """Anything that stands for a domain, such as what a case holds in its hand."""

    @property
    def domid(self) -> int:
        """Its number."""


def _domid(domain: int | HasDomid) -> int:
    return domain if isinstance(domain, int) else domain.domid


class Inspector:
    """Reads the tables of one running (or dead) Xen."""

    def __init__(self, memory: AddressSpace, layout: Layout, syms: Path) -> None:
        """Use `attach`."""
        self.memory = memory
        self.layout = layout
        self.syms = syms
        self._frames: FrameTableReader | None = None
        self._last_pages: FrameTable | None = None
        self._physmaps: PhysmapReader | None = None
        self._special: dict[int, str] = {}
        self.pages_unknown = ""
        """Why the last look found no frame table; empty where it did."""

    def __repr__(self) -> str:
        """Say what can be asked, for whoever types its name at a prompt."""
        return (
            "the tables of Xen: domains(), domain(d1), physmap(d1), grants(d1), walk(d1, gfn), "
            "page(mfn), snapshot()"
        )

    # -- single facts ---------------------------------------------------------------------------

    def domain_addresses(self) -> list[int]:
        """Return the virtual address of every struct domain on Xen's list, dying ones included."""
        check_present(self.memory.ram)
        found: list[int] = []
        address = self.memory.integer(self.layout.symbols["domain_list"])
        while address:
            if len(found) == MOST_DOMAINS:
                raise CannotInspect("Xen's list of domains does not end")
            found.append(address)
            address = self.field(address, "domain.next")
        return found

    def field(self, address: int, name: str) -> int:
        """Return a field, named as in the layout, of the structure at `address`."""
        size = min(self.layout.sizes[name], 8)
        return self.memory.integer(address + self.layout.offsets[name], size)

    def held_locks(self) -> list[str]:
        """Return the locks that Xen holds now over what a snapshot reads."""
        held: list[str] = []
        for address in self.domain_addresses():
            name = f"d{self.field(address, 'domain.id')}"
            if self.field(address, "domain.p2m_lock"):
                held.append(f"{name} p2m lock")
            if self.field(address, "domain.page_lock.head") != self.field(
                address, "domain.page_lock.tail"
            ):
                held.append(f"{name} page_alloc_lock")
            grants = self.field(address, "domain.grant_table")
            with contextlib.suppress(NotMapped):  # a wild pointer is told by whoever follows it
                if grants and self.field(grants, "grants.lock"):
                    held.append(f"{name} grant table lock")
        return held

    def domains(self) -> list[DomainState]:
        """Return every domain as it is now."""
        return list(self.look().domains.values())

    def physmap(self, domain: int | HasDomid) -> Physmap:
        """Return what one domain's GFNs lead to, shared pages labelled."""
        state = self.domain(domain)
        return Physmap(state.physmap.ranges, state.labels())

    def domain(self, domain: int | HasDomid) -> DomainState:
        """Return one domain as it is now."""
        self._address_of(_domid(domain))
        return self.look().domains[_domid(domain)]

    def physmaps(self) -> dict[int, Physmap]:
        """Return the physmap of every domain that is not being destroyed."""
        return {
            self.field(address, "domain.id"): self._read_physmap(self._p2m_root(address))
            for address in self.domain_addresses()
            if not self.field(address, "domain.dying")
        }

    def walk(self, domain: int | HasDomid, gfn: int) -> list[WalkStep]:
        """Return each page-table entry on the way from a GFN to its page."""
        root = self._p2m_root(self._address_of(_domid(domain)))
        return self._physmap_reader().walk(root, gfn) if root else []

    def page(self, mfn: int) -> PageInfo:
        """Return one page's page_info, read now."""
        frames = self._frame_reader()
        if frames is None or not 0 <= mfn - frames.first_mfn < self.memory.ram.size >> PAGE_SHIFT:
            raise CannotInspect(f"mfn {mfn:#x} is no RAM of this machine")
        address = frames.address_of(mfn)
        count, kind, owner = (self.field(address, f"page.{n}") for n in ("count", "type", "owner"))
        return PageInfo(mfn, count, kind, owner)

    def grants(self, domain: int | HasDomid) -> GrantTable | None:
        """Return one domain's grant table."""
        return self._read_grants(self._address_of(_domid(domain)), self._read_pages())

    # -- everything at once ---------------------------------------------------------------------

    def snapshot(self, *, resume: Callable[[], None] | None = None) -> Snapshot:
        """Read everything, between two looks that saw no lock held.

        Nobody else may drive the guests meanwhile: mailboxes idle, or the machine paused.  A paused
        machine may hold a lock for good; `resume` is then called to let it run on for a moment.
        MidUpdate is raised where a lock stays held, as after a panic inside an update.
        """
        held: list[str] = []
        for _ in range(LOCK_TRIES):
            held = self.held_locks()
            if not held:
                snapshot = self.look()
                if not snapshot.held_locks:
                    return snapshot
                held = list(snapshot.held_locks)
            if resume is not None:
                resume()
            time.sleep(LOCK_PAUSE)
        raise MidUpdate(
            "Xen is in the middle of an update, so its tables would be read torn",
            evidence=[f"held: {lock}" for lock in held],
        )

    def look(self) -> Snapshot:
        """Read everything as it is now, torn or not; after a panic this is what there is."""
        start = time.perf_counter()
        self.memory.forget()
        pages = self._read_pages()
        states = [self._state(address, pages) for address in self.domain_addresses()]
        owners = dict(self._special_domains())
        owners.update((state.address, state.name) for state in states)
        held = tuple(self.held_locks())
        return Snapshot(
            domains={state.domid: state for state in states},
            pages=pages,
            gfn_in_page_info=self.layout.gfn_in_page_info,
            owners=owners,
            seconds=time.perf_counter() - start,
            held_locks=held,
            pages_unknown=self.pages_unknown,
        )

    def _state(self, address: int, pages: FrameTable | None) -> DomainState:
        """Read one domain; a wild pointer in it costs what it leads to, not everything else."""
        unreadable: list[str] = []

        def attempt(what: str, read: Callable[[], T], otherwise: T) -> T:
            try:
                return read()
            except NotMapped as error:
                unreadable.append(f"{what}: {error.message}")
                return otherwise

        def count(name: str) -> int:
            return self.field(address, name) if name in self.layout.offsets else 0

        shared = count("domain.shared_info")
        shared_mfn = attempt(
            "shared_info",
            lambda: self.memory.physical(shared) >> PAGE_SHIFT if shared else None,
            None,
        )
        recorded = None
        if shared_mfn is not None and pages is not None and shared_mfn in pages:
            recorded = pages.recorded_gfn(pages[shared_mfn])
        root = self._p2m_root(address)
        return DomainState(
            address=address,
            domid=count("domain.id"),
            dying=count("domain.dying"),
            tot_pages=count("domain.tot_pages"),
            max_pages=count("domain.max_pages"),
            extra_pages=count("domain.extra_pages"),
            xenheap_pages=count("domain.xenheap_pages"),
            vcpus=count("domain.max_vcpus"),
            pool_pages=(
                count("domain.pool_pages") if "domain.pool_pages" in self.layout.offsets else None
            ),
            p2m_root=root,
            max_mapped_gfn=count("domain.max_mapped_gfn"),
            shared_info=shared_mfn,
            shared_info_recorded=recorded,
            physmap=attempt("physmap", lambda: self._read_physmap(root), Physmap()),
            grants=attempt("grant table", lambda: self._read_grants(address, pages), None),
            unreadable=tuple(unreadable),
        )

    # -- readers --------------------------------------------------------------------------------

    def _address_of(self, domid: int) -> int:
        for address in self.domain_addresses():
            if self.field(address, "domain.id") == domid:
                return address
        raise CannotInspect(f"Xen has no domain {domid}")

    def _p2m_root(self, address: int) -> int:
        """Return the physical address of a domain's P2M root, 0 where it has none (any more)."""
        if not self.field(address, "domain.p2m_root"):
            return 0
        return self.field(address, "domain.vttbr") & ADDRESS_MASK

    def _physmap_reader(self) -> PhysmapReader:
        if self._physmaps is None:
            symbols = self.layout.symbols
            level = self.memory.integer(symbols["p2m_root_level"], 4)
            order = self.memory.integer(symbols["p2m_root_order"], 4)
            if level > 2 or order > 4:
                raise CannotInspect(
                    "Xen has not chosen the shape of its P2M yet",
                    evidence=[f"root level {level}, order {order}"],
                )
            self._physmaps = PhysmapReader(self.memory, self.layout, level, 1 << order)
        return self._physmaps

    def _read_physmap(self, root: int) -> Physmap:
        return self._physmap_reader().read(root) if root else Physmap()

    def _read_grants(self, address: int, pages: FrameTable | None) -> GrantTable | None:
        table = self.field(address, "domain.grant_table")
        return read_grants(self.memory, self.layout, table, pages) if table else None

    def _frame_reader(self) -> FrameTableReader | None:
        check_present(self.memory.ram)
        if self._frames is None:
            for address in self.domain_addresses():
                root = self.field(address, "domain.p2m_root")
                vttbr = self.field(address, "domain.vttbr")
                if root and vttbr:
                    self._frames = find_frame_table(self.memory, self.layout, root, vttbr)
                    break
        return self._frames

    def _read_pages(self) -> FrameTable | None:
        """Copy the frame table; None, with the reason in `pages_unknown`, where it is not found."""
        try:
            frames = self._frame_reader()
        except CannotInspect as error:
            self.pages_unknown = "; ".join([error.message, *error.evidence])
            return None
        if frames is None:
            self.pages_unknown = "no domain has a P2M yet, so page owners are unknown"
            return None
        self.pages_unknown = ""
        self._last_pages = frames.read(self._last_pages)
        return self._last_pages

    def _special_domains(self) -> dict[int, str]:
        """Return Xen's own domains, which are not on the list, by address."""
        if not self._special:
            for name in SPECIAL_DOMAINS:
                if name in self.layout.symbols:
                    address = self.memory.integer(self.layout.symbols[name])
                    if address:
                        self._special[address] = name
        return self._special

    # -- for people -----------------------------------------------------------------------------

    def drgn_program(self) -> Any:
        """Return a drgn Program on the live hypervisor: types, symbols and memory."""
        program = open_program(self.syms)

        def read(address: int, count: int, offset: int, physical: bool) -> bytes:
            del offset
            import drgn

            try:
                if physical:
                    return self.memory.read_at(address, count)
                return self.memory.read(address, count)
            except NotMapped as error:
                raise drgn.FaultError(error.message, address) from error

        program.add_memory_segment(0, (1 << 64) - 1, read)
        return program

    def close(self) -> None:
        """Let go of the machine's RAM."""
        self.memory.close()
