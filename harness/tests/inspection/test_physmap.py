"""Page tables laid out by hand, as arm64 has them, and what is read from them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.inspection.layout import Layout
from harness.inspection.memory import AddressSpace, NotMapped
from harness.inspection.physmap import Change, Entry, Physmap, PhysmapReader, Range, changes
from harness.ram import Ram

BASE = 0x40000000
# lpae_p2m_t of every Xen from 4.11 on, and the first p2m types.
FIELDS = {"read": (6, 1), "write": (7, 1), "xn": (54, 1), "type": (55, 4)}
TYPES = {0: "invalid", 1: "ram_rw", 2: "ram_ro", 5: "mmio_direct_c", 6: "map_foreign_rw"}
LAYOUT = Layout("", 0, {}, {}, {}, TYPES, FIELDS)


class Tables:
    """A machine's RAM with page tables in it, each in the next free page."""

    def __init__(self) -> None:
        self.ram = Ram(BASE, 4 << 20)
        self._next = BASE + (1 << 20)

    def table(self, pages: int = 1) -> int:
        at, self._next = self._next, self._next + pages * 4096
        return at

    def put(self, table: int, index: int, entry: int) -> None:
        self.ram.write(table + 8 * index, entry.to_bytes(8, "little"))

    def link(self, table: int, index: int) -> int:
        below = self.table()
        self.put(table, index, below | 3)
        return below

    def reader(self, level: int = 0, tables: int = 1) -> PhysmapReader:
        return PhysmapReader(AddressSpace(self.ram, BASE), LAYOUT, level, tables)


@pytest.fixture
def tables() -> Iterator[Tables]:
    made = Tables()
    yield made
    made.ram.close()


def entry(mfn: int, kind: int = 1, *, low: int = 3, xn: int = 0) -> int:
    """Readable and writable; `low` are the valid and the table bit."""
    return mfn << 12 | kind << 55 | xn << 54 | 3 << 6 | low


def test_pages_that_follow_each_other_are_one_range(tables: Tables) -> None:
    root = tables.table()
    leaf = tables.link(tables.link(tables.link(root, 0), 1), 3)
    for index in range(512):
        tables.put(leaf, index, entry(0x50000 + index))
    gfn = 1 << 18 | 3 << 9
    assert tables.reader().read(root).ranges == (Range(gfn, 512, 0x50000, "ram_rw", "rwx"),)


def test_gaps_types_and_permissions_end_a_range(tables: Tables) -> None:
    root = tables.table()
    leaf = tables.link(tables.link(tables.link(root, 0), 0), 0)
    for index, value in enumerate(
        [entry(0x100), entry(0x101), entry(0x102, xn=1), 0, entry(0x104), entry(0x105, 2)]
    ):
        tables.put(leaf, index, value)
    assert tables.reader().read(root).ranges == (
        Range(0, 2, 0x100, "ram_rw", "rwx"),
        Range(2, 1, 0x102, "ram_rw", "rw-"),
        Range(4, 1, 0x104, "ram_rw", "rwx"),
        Range(5, 1, 0x105, "ram_ro", "rwx"),
    )


def test_superpage_that_was_never_touched_counts(tables: Tables) -> None:
    """From 4.21 on the valid bit is clear until the guest faults; the type says what it is."""
    root = tables.table()
    second = tables.link(tables.link(root, 0), 1)
    tables.put(second, 0, entry(0x60000, low=0))
    tables.put(second, 1, entry(0x60200, low=1))
    (found,) = tables.reader().read(root).ranges
    assert found == Range(1 << 18, 1024, 0x60000, "ram_rw", "rwx")


def test_block_of_a_gigabyte_is_one_range_and_a_superpage_joins_its_pages(tables: Tables) -> None:
    root = tables.table()
    first = tables.link(root, 0)
    tables.put(first, 8, entry(8 << 18, 5, low=1))
    tables.put(first, 9, entry(9 << 18, 5, low=1))
    second = tables.link(first, 10)
    tables.put(second, 0, entry(0x70000, low=1))
    leaf = tables.link(second, 1)
    tables.put(leaf, 0, entry(0x70200))
    assert tables.reader().read(root).ranges == (
        Range(8 << 18, 2 << 18, 8 << 18, "mmio_direct_c", "rwx"),
        Range(10 << 18, 513, 0x70000, "ram_rw", "rwx"),
    )


def test_entry_of_type_invalid_maps_nothing(tables: Tables) -> None:
    root = tables.table()
    leaf = tables.link(tables.link(tables.link(root, 0), 0), 0)
    tables.put(leaf, 0, entry(0x100, 0))
    assert len(tables.reader().read(root)) == 0


def test_concatenated_root_is_read_whole(tables: Tables) -> None:
    """40 bits of address (cortex-a53): two tables of level 1 beside each other."""
    root = tables.table(2)
    tables.put(root + 4096, 1, entry(0x80000, low=1))
    (found,) = tables.reader(level=1, tables=2).read(root).ranges
    assert (found.gfn, found.pages) == ((512 + 1) << 18, 1 << 18)
    steps = tables.reader(level=1, tables=2).walk(root, found.gfn + 5)
    assert [step.level for step in steps] == [1]
    assert steps[0].meaning == "ram_rw rwx mfn 0x80000"


def test_change_of_a_table_is_seen_by_a_reader_that_knew_it(tables: Tables) -> None:
    root = tables.table()
    leaf = tables.link(tables.link(tables.link(root, 0), 0), 0)
    tables.put(leaf, 0, entry(0x100))
    reader = tables.reader()
    before = reader.read(root)
    assert reader.read(root) is before
    tables.put(leaf, 1, entry(0x101))
    assert reader.read(root).ranges == (Range(0, 2, 0x100, "ram_rw", "rwx"),)


def test_walk_tells_every_step_to_a_hole(tables: Tables) -> None:
    root = tables.table()
    tables.link(tables.link(root, 0), 1)
    steps = tables.reader().walk(root, 1 << 18 | 7)
    assert [step.meaning.split()[0] for step in steps] == ["table", "table", "nothing"]
    assert tables.reader().walk(root, 1 << 40) == []


def test_table_outside_ram_is_said_to_be(tables: Tables) -> None:
    root = tables.table()
    tables.put(root, 0, 0x1_0000_0000 | 3)
    with pytest.raises(NotMapped, match="outside the machine's RAM"):
        tables.reader().read(root)


RAM_MAP = Physmap([Range(0x40000, 0x1000, 0x41000, "ram_rw", "rwx")])


def test_lookup_inside_and_outside() -> None:
    assert RAM_MAP[0x40010] == Entry(0x41010, "ram_rw", "rwx")
    assert RAM_MAP.get(0x3FFFF) is None and 0x41000 not in RAM_MAP and 0x40FFF in RAM_MAP
    assert len(RAM_MAP) == 0x1000
    assert RAM_MAP.gfns_of(0x41001) == [0x40001]
    with pytest.raises(KeyError):
        _ = RAM_MAP[0x41000]


def test_hole_in_the_middle_of_ram_is_one_change() -> None:
    after = Physmap(
        [
            Range(0x40000, 0x20, 0x41000, "ram_rw", "rwx"),
            Range(0x40021, 0xFDF, 0x41021, "ram_rw", "rwx"),
        ]
    )
    gone = Change(0x40020, 1, Entry(0x41020, "ram_rw", "rwx"), None)
    assert changes(RAM_MAP, after) == [gone]
    assert changes(after, RAM_MAP) == [Change(0x40020, 1, None, gone.before)]


def test_splitting_a_range_without_changing_it_is_no_change() -> None:
    """What matters is where GFNs lead, not how a reader happened to cut them."""
    split = Physmap(
        [
            Range(0x40000, 0x800, 0x41000, "ram_rw", "rwx"),
            Range(0x40800, 0x800, 0x41800, "ram_rw", "rwx"),
        ]
    )
    assert changes(RAM_MAP, split) == []


def test_changes_that_run_on_are_one() -> None:
    one = Physmap([Range(0x100, 8, 0x500, "ram_rw", "rwx")])
    other = Physmap(
        [Range(0x100, 4, 0x900, "ram_rw", "rwx"), Range(0x104, 4, 0x904, "ram_rw", "rwx")]
    )
    (change,) = changes(one, other)
    assert (change.gfn, change.pages) == (0x100, 8)
