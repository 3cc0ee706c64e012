"""A domain's stage 2 page tables in, its physmap as compressed ranges out.

A `Physmap` is a value: ranges of consecutive GFNs that map consecutive MFNs with one type and one
set of permissions, looked up by GFN, compared with `changes`.  A block of 1 GiB of device memory
is one range, never 262,144 entries: dom0 has hundreds of thousands of such pages.  Knows
page-table entries; knows nothing of domains, owners or grants.

An entry counts when its type is not p2m_invalid (0), whatever its valid bit says: from 4.21 on,
and on CPUs with a concatenated root before, Xen leaves superpages invalid until they are touched.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from harness.inspection.layout import Layout
from harness.inspection.memory import ADDRESS_MASK, PAGE, PAGE_SHIFT, AddressSpace

ENTRIES = PAGE // 8
LEAF_LEVEL = 3
TABLE_BIT = 2  # in an entry above level 3: a table and not a block; bit 1 is "table"


class Entry(NamedTuple):
    """What one GFN leads to."""

    mfn: int
    type: str  # "ram_rw", "map_foreign_ro", ...
    permissions: str  # "rwx" with "-" for what is not allowed


class Range(NamedTuple):
    """`pages` consecutive GFNs on as many consecutive MFNs."""

    gfn: int
    pages: int
    mfn: int
    type: str
    permissions: str

    @property
    def end(self) -> int:
        """The first GFN behind the range."""
        return self.gfn + self.pages

    @property
    def is_mmio(self) -> bool:
        """Whether the range leads to device memory, which has no page_info."""
        return self.type.startswith("mmio")

    @property
    def is_ram(self) -> bool:
        """Whether the range is of the domain's own pages: RAM, or a page Xen shares with it."""
        return self.type.startswith("ram")

    def at(self, gfn: int) -> Entry:
        """Return what `gfn`, which must lie inside, is mapped to."""
        return Entry(self.mfn + gfn - self.gfn, self.type, self.permissions)


class Change(NamedTuple):
    """`pages` GFNs that map something else than before; MFNs grow along with the GFNs."""

    gfn: int
    pages: int
    before: Entry | None
    after: Entry | None


class Physmap:
    """Sorted, maximal ranges."""

    def __init__(
        self, ranges: Iterable[Range] = (), labels: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        """Take ranges in GFN order; `labels` say of an MFN what it is, and are only shown."""
        self.ranges: tuple[Range, ...] = tuple(ranges)
        self.labels = labels
        self._starts = [r.gfn for r in self.ranges]

    def find(self, gfn: int) -> Range | None:
        """Return the range that holds `gfn`."""
        index = bisect_right(self._starts, gfn) - 1
        if index >= 0 and gfn < self.ranges[index].end:
            return self.ranges[index]
        return None

    def get(self, gfn: int) -> Entry | None:
        """Return what `gfn` maps to, or None for a hole."""
        found = self.find(gfn)
        return found.at(gfn) if found else None

    def __getitem__(self, gfn: int) -> Entry:
        """Return what `gfn` maps to; KeyError for a hole."""
        found = self.get(gfn)
        if found is None:
            raise KeyError(gfn)
        return found

    def __contains__(self, gfn: object) -> bool:
        """Whether anything is mapped at `gfn`."""
        return isinstance(gfn, int) and self.find(gfn) is not None

    def __len__(self) -> int:
        """Number of mapped GFNs."""
        return sum(r.pages for r in self.ranges)

    def __iter__(self) -> Iterator[Range]:
        """Iterate over the ranges."""
        return iter(self.ranges)

    def __eq__(self, other: object) -> bool:
        """Whether both map the same, entry for entry."""
        return isinstance(other, Physmap) and self.ranges == other.ranges

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the ranges as lines; a labelled page has its own."""
        return "\n".join(self.lines()) or "nothing is mapped"

    def lines(self) -> list[str]:
        """Return a line for each range, cut where a page has a label."""
        parts = [part for r in self.ranges for part in self._parts(r)]
        places = [f"{r.gfn:#x}" if r.pages == 1 else f"{r.gfn:#x}-{r.end - 1:#x}" for r in parts]
        width = max(map(len, places), default=0)
        return [
            f"{place.ljust(width)}  mfn {r.mfn:#x}  {r.type} {r.permissions}  {self._remark(r)}"
            for place, r in zip(places, parts, strict=True)
        ]

    def _parts(self, whole: Range) -> Iterator[Range]:
        inside = [m for m in self.labels if whole.mfn <= m < whole.mfn + whole.pages]
        edges = {whole.mfn, whole.mfn + whole.pages, *inside, *(m + 1 for m in inside)}
        for start, end in pairwise(sorted(edges)):
            yield whole._replace(gfn=whole.gfn + start - whole.mfn, mfn=start, pages=end - start)

    def _remark(self, r: Range) -> str:
        if r.mfn in self.labels:
            return self.labels[r.mfn]
        return "1 page" if r.pages == 1 else f"{r.pages} pages"

    def gfns_of(self, mfn: int) -> list[int]:
        """Return every GFN, in order, behind which is `mfn`."""
        return [r.gfn + mfn - r.mfn for r in self.ranges if r.mfn <= mfn < r.mfn + r.pages]


def changes(before: Physmap, after: Physmap) -> list[Change]:
    """Return where two physmaps differ, in GFN order, joined where both sides run on."""
    if before.ranges == after.ranges:
        return []
    # Only ranges that the other side does not have can differ.
    old, new = set(before.ranges), set(after.ranges)
    edges = sorted({e for r in old ^ new for e in (r.gfn, r.end)})
    found: list[Change] = []
    for start, end in pairwise(edges):
        was, now = before.get(start), after.get(start)
        if was != now:
            _append(found, Change(start, end - start, was, now))
    return found


def _append(found: list[Change], change: Change) -> None:
    if found and found[-1].gfn + found[-1].pages == change.gfn:
        last = found[-1]
        if _runs_on(last.before, change.before, last.pages) and _runs_on(
            last.after, change.after, last.pages
        ):
            found[-1] = last._replace(pages=last.pages + change.pages)
            return
    found.append(change)


def _runs_on(first: Entry | None, second: Entry | None, pages: int) -> bool:
    if first is None or second is None:
        return first is second
    return first._replace(mfn=first.mfn + pages) == second


@dataclass
class WalkStep:
    """One entry met on the way from a GFN to its MFN."""

    level: int
    index: int
    address: int  # physical address of the entry
    entry: int
    meaning: str


@dataclass
class PhysmapReader:
    """Reads physmaps; remembers tables, so that an unchanged one costs one comparison."""

    memory: AddressSpace
    layout: Layout
    root_level: int
    root_tables: int  # concatenated
    _known_maps: dict[int, tuple[Physmap, dict[int, bytes]]] = field(default_factory=dict)
    _known_tables: dict[int, tuple[bytes, list[tuple[int, int]]]] = field(default_factory=dict)
    _known_leaves: dict[int, tuple[bytes, int, tuple[Range, ...]]] = field(default_factory=dict)
    _known_kinds: dict[int, tuple[str, str] | None] = field(default_factory=dict)
    _visited: dict[int, bytes] = field(default_factory=dict)

    def read(self, root: int) -> Physmap:
        """Walk the tables from the physical address `root`."""
        known, tables = self._known_maps.get(root, (None, {}))
        read_at = self.memory.read_at
        if known is not None and all(read_at(at, PAGE) == raw for at, raw in tables.items()):
            return known
        self._visited = {}
        ranges: list[Range] = []
        shift = 9 * (LEAF_LEVEL - self.root_level)
        for number in range(self.root_tables):
            base = number * ENTRIES << shift
            self._table(root + number * PAGE, self.root_level, base, ranges)
        physmap = Physmap(ranges)
        self._known_maps[root] = physmap, self._visited
        return physmap

    def _table(self, table: int, level: int, gfn: int, ranges: list[Range]) -> None:
        raw = self.memory.read_at(table, PAGE)
        self._visited[table] = raw
        if level == LEAF_LEVEL:
            known = self._known_leaves.get(table)
            if known is None or known[0] != raw or known[1] != gfn:
                known = raw, gfn, self._leaf(raw, gfn)
                self._known_leaves[table] = known
            _extend(ranges, known[2])
            return
        step = 1 << 9 * (LEAF_LEVEL - level)
        for index, entry in self._entries(table, raw):
            at = gfn + index * step
            if entry & TABLE_BIT:
                self._table(entry & ADDRESS_MASK, level + 1, at, ranges)
            else:
                mapped = self.decode(entry)
                if mapped:
                    _extend(ranges, (Range(at, step, *mapped),))

    def _entries(self, table: int, raw: bytes) -> list[tuple[int, int]]:
        """Return the entries above the leaves that are not zero, each with its index."""
        known = self._known_tables.get(table)
        if known is None or known[0] != raw:
            words = memoryview(raw).cast("Q").tolist()
            known = raw, [(index, entry) for index, entry in enumerate(words) if entry]
            self._known_tables[table] = known
        return known[1]

    def _leaf(self, raw: bytes, gfn: int) -> tuple[Range, ...]:
        """Return the ranges of one table of 4 KiB pages."""
        entries = memoryview(raw).cast("Q").tolist()
        ranges: list[Range] = []
        position = 0
        while position < ENTRIES:
            first = entries[position]
            if not first:
                position += 1
                continue
            length = _run_length(entries, position)
            mapped = self.decode(first)
            if mapped:
                _extend(ranges, (Range(gfn + position, length, *mapped),))
            position += length
        return tuple(ranges)

    def decode(self, entry: int) -> Entry | None:
        """Return what a block or page entry maps, or None where its type is p2m_invalid."""
        attributes = entry & ~ADDRESS_MASK
        if attributes not in self._known_kinds:
            self._known_kinds[attributes] = self._decode_attributes(attributes)
        kind = self._known_kinds[attributes]
        return Entry((entry & ADDRESS_MASK) >> PAGE_SHIFT, *kind) if kind else None

    def _decode_attributes(self, entry: int) -> tuple[str, str] | None:
        fields = self.layout.entry_fields
        kind = self._field(entry, fields["type"])
        if not kind:
            return None
        permissions = (
            ("r" if self._field(entry, fields["read"]) else "-")
            + ("w" if self._field(entry, fields["write"]) else "-")
            + ("-" if self._field(entry, fields["xn"]) else "x")
        )
        return self.layout.p2m_types.get(kind, f"type {kind}"), permissions

    @staticmethod
    def _field(entry: int, place: tuple[int, int]) -> int:
        return (entry >> place[0]) & ((1 << place[1]) - 1)

    def walk(self, root: int, gfn: int) -> list[WalkStep]:
        """Return the entries on the way to `gfn`, the last one being where the walk ends."""
        steps: list[WalkStep] = []
        shift = 9 * (LEAF_LEVEL - self.root_level)
        number = gfn >> (shift + 9)
        if number >= self.root_tables:
            return steps
        table, level = root + number * PAGE, self.root_level
        while True:
            index = (gfn >> 9 * (LEAF_LEVEL - level)) & (ENTRIES - 1)
            address = table + index * 8
            entry = self.memory.word_at(address)
            is_table = level < LEAF_LEVEL and bool(entry & TABLE_BIT)
            mapped = None if is_table else self.decode(entry)
            if is_table:
                meaning = f"table at {entry & ADDRESS_MASK:#x}"
            elif mapped:
                valid = "" if entry & 1 else ", not valid until touched"
                meaning = f"{mapped.type} {mapped.permissions} mfn {mapped.mfn:#x}{valid}"
            else:
                meaning = "nothing"
            steps.append(WalkStep(level, index, address, entry, meaning))
            if not is_table:
                return steps
            table, level = entry & ADDRESS_MASK, level + 1


def _run_length(entries: Sequence[int], position: int) -> int:
    """Return how many entries from `position` on each map the page after the one before."""
    first = entries[position]
    rest = ENTRIES - position
    # Most tables are one run; comparing whole lists is 20 times faster than stepping.
    if entries[-1] == first + (rest - 1) * PAGE and entries[position:] == list(
        range(first, first + rest * PAGE, PAGE)
    ):
        return rest
    length = 1
    expected = first + PAGE
    while length < rest and entries[position + length] == expected:
        length += 1
        expected += PAGE
    return length


def _extend(ranges: list[Range], more: Sequence[Range]) -> None:
    """Append `more`, joining its first range to the last one where it runs on."""
    if ranges and more:
        last, first = ranges[-1], more[0]
        if last.end == first.gfn and last.at(last.end) == first.at(first.gfn):
            ranges[-1] = last._replace(pages=last.pages + first.pages)
            more = more[1:]
    ranges.extend(more)
