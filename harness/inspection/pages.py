"""Xen's frame table in, runs of equal page_info out.

Every page of the machine has a `struct page_info`: reference count and flags, type count (and,
since 71320946d5, a xenheap page's GFN), owner.  A snapshot copies the table in one piece and reads
it as runs of pages that agree on count and owner, which is what nearly all pages do.  Bits are
those of xen/arch/arm/include/asm/mm.h, equal in every arm64 version from 4.14 to master.  Knows no
P2M.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from harness.inspection.errors import CannotInspect
from harness.inspection.layout import Layout
from harness.inspection.memory import ADDRESS_MASK, PAGE_SHIFT, AddressSpace, NotMapped

ALLOCATED = 1 << 63  # PGC_allocated: the owner's own reference
XEN_HEAP = 1 << 62  # PGC_xen_heap
STATE_MASK = 3 << 55  # PGC_state
STATE_FREE = 3 << 55
STATE_NAMES = {0: "in use", 1 << 55: "offlining", 2 << 55: "offlined", 3 << 55: "free"}
EXTRA = 1 << 54  # PGC_extra: not counted in domain_tot_pages(); 4.14 on
COUNT_MASK = (1 << 54) - 1  # references

# type_info since 71320946d5: bit 63 writable, 62..61 count, the rest the GFN a xenheap page is at.
GFN_MASK = (1 << 61) - 1
GFN_COUNT_SHIFT = 61
GFN_COUNT_MASK = 3
# type_info before: bit 63 writable, bit 62 unused, the rest the count.
OLD_COUNT_MASK = (1 << 62) - 1

WORD = struct.Struct("<Q")
CHUNK = 512  # pages compared at once, the size of the superpages that RAM is handed out in


class PageInfo(NamedTuple):
    """One page's record."""

    mfn: int
    count_info: int
    type_info: int
    owner: int  # virtual address of the struct domain, 0 for none

    def __repr__(self) -> str:
        """Return it in the words of mm.h; of a free page, type and owner are the allocator's."""
        flags = [
            word
            for word, set_ in (("allocated", self.is_allocated), ("xenheap", self.is_xenheap))
            if set_
        ]
        facts = [self.state, *flags, counted(self.references, "reference")]
        facts.append(f"count_info {self.count_info:#x}")
        if not self.is_free:
            facts += [f"type_info {self.type_info:#x}", f"owner {self.owner:#x}"]
        return f"mfn {self.mfn:#x}: {', '.join(facts)}"

    @property
    def references(self) -> int:
        """General references held, PGC_allocated's one included."""
        return self.count_info & COUNT_MASK

    @property
    def is_xenheap(self) -> bool:
        """Whether Xen allocated the page for itself; such a page may be shared with a domain."""
        return bool(self.count_info & XEN_HEAP) and not self.is_free

    @property
    def is_allocated(self) -> bool:
        """Whether the owner still holds its own reference."""
        return bool(self.count_info & ALLOCATED) and not self.is_free

    @property
    def is_free(self) -> bool:
        """Whether the page lies in the allocator's pool."""
        return self.count_info & STATE_MASK == STATE_FREE

    @property
    def state(self) -> str:
        """PGC_state in words."""
        return STATE_NAMES[self.count_info & STATE_MASK]


class Run(NamedTuple):
    """`pages` consecutive MFNs with the same count_info and owner."""

    mfn: int
    pages: int
    count_info: int
    owner: int

    @property
    def end(self) -> int:
        """The first MFN behind the run."""
        return self.mfn + self.pages

    @property
    def is_free(self) -> bool:
        """Whether the pages lie in the allocator's pool."""
        return self.count_info & STATE_MASK == STATE_FREE


class Chunk:
    """Up to CHUNK consecutive pages' records as they were at one moment."""

    def __init__(self, raw: bytes, mfn: int, layout: Layout) -> None:
        """`mfn` is the first page's."""
        self.raw = raw
        self.mfn = mfn
        self._record = layout.sizes["page"]
        self._fields = [layout.offsets[f"page.{n}"] for n in ("count", "type", "owner")]

    def __getitem__(self, mfn: int) -> PageInfo:
        """Return one page's record."""
        start = (mfn - self.mfn) * self._record
        return PageInfo(mfn, *(WORD.unpack_from(self.raw, start + f)[0] for f in self._fields))

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The pages as runs, in MFN order."""
        words = memoryview(self.raw).cast("Q")
        count_at, _, owner_at = self._fields
        stride = self._record >> 3
        counts = words[count_at >> 3 :: stride].tolist()
        uniform = counts.count(counts[0]) == len(counts)
        if uniform and counts[0] & STATE_MASK == STATE_FREE:
            return (Run(self.mfn, len(counts), counts[0], 0),)
        owners = words[owner_at >> 3 :: stride].tolist()
        if uniform and owners.count(owners[0]) == len(owners):
            return (Run(self.mfn, len(counts), counts[0], owners[0]),)
        # A free page has no owner; the field holds what the allocator or the last owner left there.
        for index, count in enumerate(counts):
            if count & STATE_MASK == STATE_FREE:
                owners[index] = 0
        runs: list[Run] = []
        mfn = self.mfn
        for (count, owner), group in groupby(zip(counts, owners, strict=True)):
            pages = sum(1 for _ in group)
            runs.append(Run(mfn, pages, count, owner))
            mfn += pages
        return tuple(runs)


class FrameTable:
    """A copy of the frame table, made at one moment; shares unchanged chunks with earlier ones."""

    def __init__(self, chunks: Sequence[Chunk], pages: int, gfn_in_type: bool) -> None:
        """`gfn_in_type` says what type_info holds for xenheap pages (71320946d5)."""
        self.chunks = chunks
        self.pages = pages
        self.first_mfn = chunks[0].mfn
        self._gfn_in_type = gfn_in_type

    def __contains__(self, mfn: object) -> bool:
        """Whether the machine has RAM at `mfn`."""
        return isinstance(mfn, int) and 0 <= mfn - self.first_mfn < self.pages

    def __getitem__(self, mfn: int) -> PageInfo:
        """Return one page's record; KeyError where the machine has no RAM."""
        if mfn not in self:
            raise KeyError(mfn)
        return self.chunks[(mfn - self.first_mfn) // CHUNK][mfn]

    def type_count(self, page: PageInfo) -> int:
        """Return how many type references the page has."""
        if self._gfn_in_type:
            return (page.type_info >> GFN_COUNT_SHIFT) & GFN_COUNT_MASK
        return page.type_info & OLD_COUNT_MASK

    def recorded_gfn(self, page: PageInfo) -> int | None:
        """Return the GFN in a xenheap page's record; None for none (only since 71320946d5)."""
        gfn = page.type_info & GFN_MASK
        return None if not self._gfn_in_type or gfn == GFN_MASK else gfn

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """All pages as runs, in MFN order; not joined across chunks."""
        return tuple(run for chunk in self.chunks for run in chunk.runs)

    def runs_of(self, mfn: int, pages: int) -> Iterator[Run]:
        """Yield the runs, cut to fit, that make up `pages` pages of RAM from `mfn` on."""
        end = mfn + pages
        while mfn < end:
            for run in self.chunks[(mfn - self.first_mfn) // CHUNK].runs:
                if run.end > mfn:
                    stop = min(run.end, end)
                    yield run._replace(mfn=mfn, pages=stop - mfn)
                    mfn = stop
                    if mfn >= end:
                        break

    @property
    def free_pages(self) -> int:
        """Pages in the allocator's pool."""
        return sum(run.pages for run in self.runs if run.is_free)


@dataclass
class FrameTableReader:
    """Where the frame table lies; found once, copied often."""

    memory: AddressSpace
    layout: Layout
    first_mfn: int
    pages: int
    pieces: tuple[tuple[int, int], ...]  # (physical, bytes)
    origin: int  # virtual address of the page_info of PDX 0

    def address_of(self, mfn: int) -> int:
        """Return the virtual address of a page's page_info."""
        return self.origin + _pdx(self.memory, self.layout, mfn) * self.layout.sizes["page"]

    def read(self, before: FrameTable | None = None) -> FrameTable:
        """Copy the table as it is now, taking over from `before` the chunks that did not change."""
        old = before.chunks if before else ()
        chunks: list[Chunk] = []
        for number, raw in enumerate(self._raw_chunks()):
            if number < len(old) and old[number].raw == raw:
                chunks.append(old[number])
            else:
                chunks.append(Chunk(raw, self.first_mfn + number * CHUNK, self.layout))
        return FrameTable(chunks, self.pages, self.layout.gfn_in_page_info)

    def _raw_chunks(self) -> Iterator[bytes]:
        size = CHUNK * self.layout.sizes["page"]
        if len(self.pieces) == 1:
            start = self.pieces[0][0] - self.memory.ram.base
            end = start + self.pieces[0][1]
            view = self.memory.ram.view
            for position in range(start, end, size):
                yield bytes(view[position : min(position + size, end)])
            return
        whole = b"".join(self.memory.read_at(*piece) for piece in self.pieces)
        for position in range(0, len(whole), size):
            yield whole[position : position + size]


def counted(number: int, what: str) -> str:
    """Return "1 page" or "2 pages"."""
    return f"{number} {what}" + "s" * (number != 1)


def find_frame_table(
    memory: AddressSpace, layout: Layout, p2m_root: int, vttbr: int
) -> FrameTableReader:
    """Locate the frame table, whose address is a macro and in no symbol table.

    A domain's P2M names its root twice, as a pointer to page_info and as an address in VTTBR; the
    difference is where the table begins.
    """
    size = layout.sizes["page"]
    root_mfn = (vttbr & ADDRESS_MASK) >> PAGE_SHIFT
    origin = p2m_root - _pdx(memory, layout, root_mfn) * size
    first = memory.ram.base >> PAGE_SHIFT
    pages = memory.ram.size >> PAGE_SHIFT
    start = origin + _pdx(memory, layout, first) * size
    last = origin + _pdx(memory, layout, first + pages - 1) * size
    if size % 8 or start % 8 or last - start != (pages - 1) * size:
        raise CannotInspect(
            "the frame table is not one array over the machine's RAM, so page owners are unknown",
            evidence=[f"page_info of {size} bytes; first at {start:#x}, last at {last:#x}"],
        )
    try:
        pieces = tuple(memory.pieces(start, pages * size))
        for physical, length in pieces:
            memory.word_at(physical), memory.word_at(physical + length - 8)  # inside RAM
    except NotMapped as error:
        raise CannotInspect(
            "Xen's frame table has gaps, so page owners are unknown", evidence=[error.message]
        ) from error
    return FrameTableReader(memory, layout, first, pages, pieces, origin)


def _pdx(memory: AddressSpace, layout: Layout, mfn: int) -> int:
    """Return the frame table's index of a page: its MFN with unused middle bits squeezed out."""
    names = ("pfn_pdx_hole_shift", "pfn_pdx_bottom_mask", "pfn_top_mask")
    if not all(name in layout.symbols for name in names):
        return mfn
    hole = memory.integer(layout.symbols["pfn_pdx_hole_shift"], 4)
    if not hole:
        return mfn
    bottom = memory.integer(layout.symbols["pfn_pdx_bottom_mask"])
    top = memory.integer(layout.symbols["pfn_top_mask"])
    return (mfn & bottom) | ((mfn & top) >> hole)
