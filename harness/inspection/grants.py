"""A struct grant_table in, its frames with their recorded GFNs out.

Where the GFN of a frame is recorded tells the two sides of 71320946d5 apart: before, an array
beside the grant table, written first and never cleared; after, the frame's own page_info.  Knows
no P2M.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from harness.inspection.layout import Layout
from harness.inspection.memory import PAGE_SHIFT, AddressSpace
from harness.inspection.pages import FrameTable

INVALID_GFN = (1 << 64) - 1
ENTRY_V1 = 8  # bytes of a version 1 entry: u16 flags, u16 domid, u32 frame
#: More frames than any Xen lets a table grow to: a larger number is a torn or foreign read.
MOST_FRAMES = 65536


class GrantFrame(NamedTuple):
    """One page of a grant table."""

    number: int
    status: bool  # a status frame of version 2, not a shared frame
    mfn: int
    recorded: int | None  # GFN Xen believes the frame to be mapped at

    @property
    def name(self) -> str:
        """What a maintainer calls it."""
        return f"{'status' if self.status else 'grant'} frame {self.number}"


class GrantEntry(NamedTuple):
    """One entry in use in a version 1 shared frame, as the guest wrote it."""

    reference: int
    flags: int
    domid: int
    gfn: int


@dataclass(frozen=True, repr=False)
class GrantTable:
    """One domain's grant table."""

    version: int  # 0 until the guest sets it up
    max_frames: int
    frames: tuple[GrantFrame, ...]  # shared ones first, then status ones

    def __repr__(self) -> str:
        """Return a line for each frame."""
        lines = [f"version {self.version or 1}, at most {self.max_frames} frames"]
        for frame in self.frames:
            gfn = "no GFN recorded" if frame.recorded is None else f"recorded {frame.recorded:#x}"
            lines.append(f"{frame.name:<16}  mfn {frame.mfn:#x}  {gfn}")
        return "\n".join(lines)


def read_grants(
    memory: AddressSpace, layout: Layout, table: int, pages: FrameTable | None
) -> GrantTable:
    """Read the grant table at the virtual address `table`; `pages` says where GFNs are since R2."""
    offsets = layout.offsets

    def field(name: str) -> int:
        if name not in offsets:
            return 0
        return memory.integer(table + offsets[name], min(layout.sizes[name], 8))

    frames: list[GrantFrame] = []
    for status, count, pointers, gfns in (
        (False, "grants.frames", "grants.shared", "grants.shared_gfns"),
        (True, "grants.status_frames", "grants.status", "grants.status_gfns"),
    ):
        pointer_array, gfn_array = field(pointers), field(gfns)
        for index in range(min(field(count), MOST_FRAMES)):
            address = memory.integer(pointer_array + 8 * index)
            mfn = memory.physical(address) >> PAGE_SHIFT
            recorded = None
            if gfn_array:
                gfn = memory.integer(gfn_array + 8 * index)
                recorded = None if gfn == INVALID_GFN else gfn
            elif layout.gfn_in_page_info and pages is not None and mfn in pages:
                recorded = pages.recorded_gfn(pages[mfn])
            frames.append(GrantFrame(index, status, mfn, recorded))
    return GrantTable(field("grants.version"), field("grants.max_frames"), tuple(frames))


def read_entries(memory: AddressSpace, table: GrantTable) -> list[GrantEntry]:
    """Return the version 1 entries that are not empty; none for version 2."""
    if table.version > 1:
        return []
    entries: list[GrantEntry] = []
    for frame in table.frames:
        if frame.status:
            continue
        words = memoryview(memory.read_at(frame.mfn << PAGE_SHIFT, 4096)).cast("Q").tolist()
        for slot, word in enumerate(words):
            if word & 0xFFFF:
                reference = frame.number * len(words) + slot
                entries.append(
                    GrantEntry(reference, word & 0xFFFF, (word >> 16) & 0xFFFF, word >> 32)
                )
    return entries
