"""The inspector on real Xens, before 71320946d5 and after: what it reads, and what it refuses.

Every rule is broken here by overwriting what Xen recorded, through the machine's RAM, while Xen
runs.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.attendance import crash_in
from harness.booting import Booted, boot
from harness.builds import Build
from harness.builds import build as built
from harness.cache import Cache
from harness.domctl import destroydomain
from harness.errors import XenCrashed
from harness.inspection import CannotInspect, Inspector, MidUpdate, attach, changes
from harness.inspection.evidence import Violation
from harness.inspection.footprint import RULE as FOOTPRINT
from harness.inspection.invariants import check
from harness.inspection.memory import ADDRESS_MASK, PAGE_SHIFT
from harness.inspection.pages import ALLOCATED, GFN_COUNT_SHIFT, GFN_MASK, STATE_FREE, XEN_HEAP
from harness.inspection.rule import RULES
from harness.machines import load_machine
from harness.observing import Findings, Observer
from harness.programs import require
from harness.ram import Ram
from harness.scenarios import SCENARIOS, Scenario
from harness.vocabulary import GRANT_TABLE, SHARED_INFO, Domain

RAM_GFN = 0x40900  # in the middle of a superpage of RAM that the agent does not live in
SECOND_BLOCK = 0x40A00
WILD_POINTER = 0xDEAD0000
NO_RAM = 0x8000000  # an MFN that no test machine has

Boot = Callable[..., Booted]


@pytest.fixture(scope="module", params=["bullseye", "bookworm"])
def build(request: pytest.FixtureRequest) -> Build:
    xen: Build = request.getfixturevalue(f"{request.param}_build")
    return xen


@pytest.fixture(scope="module")
def start(build: Build, cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Boot:
    def start(scenario: str | Scenario, machine: str = "virt-gicv3") -> Booted:
        chosen = SCENARIOS[scenario] if isinstance(scenario, str) else scenario
        return boot(build, load_machine(machine), chosen, tmp_path_factory.mktemp("host"), cache)

    return start


@pytest.fixture(scope="module")
def sick(start: Boot) -> Iterator[Sick]:
    """Two domUs; d1 has shared_info and a grant frame mapped. Every corruption is undone."""
    with start("two_domus") as host:
        yield Sick(host)


class Sick:
    """A running Xen whose records can be overwritten."""

    def __init__(self, host: Booted) -> None:
        self.domain = host.domain(1)
        self.inspector = host.inspector
        self.shared_gfn, self.frame_gfn = self.domain.hole_pages(2)
        self.domain.add_to_physmap(SHARED_INFO, gfn=self.shared_gfn)
        self.domain.add_to_physmap(GRANT_TABLE, gfn=self.frame_gfn)
        self._undo: list[tuple[int, int, int]] = []

    def write(self, physical: int, value: int, size: int = 8) -> None:
        offset = physical - self.inspector.memory.ram.base
        view = self.inspector.memory.ram.view
        old = int.from_bytes(view[offset : offset + size], "little")
        self._undo.append((physical, old, size))
        view[offset : offset + size] = value.to_bytes(size, "little")

    def heal(self) -> None:
        for physical, value, size in reversed(self._undo):
            self.write(physical, value, size)
        self._undo.clear()

    def mfn(self, gfn: int, domid: int = 1) -> int:
        return self.inspector.physmap(domid)[gfn].mfn

    def page(self, mfn: int, **fields: int) -> None:
        """Overwrite fields of a page_info: count, type, owner."""
        frames = self.inspector._frame_reader()
        assert frames is not None
        for name, value in fields.items():
            address = frames.address_of(mfn) + self.inspector.layout.offsets[f"page.{name}"]
            self.write(self.inspector.memory.physical(address), value)

    def field(self, structure: int, name: str, value: int) -> None:
        address = structure + self.inspector.layout.offsets[name]
        size = self.inspector.layout.sizes[name]
        self.write(self.inspector.memory.physical(address), value, size)

    @property
    def address(self) -> int:
        """Of d1's struct domain."""
        return self.inspector.snapshot().domains[1].address

    def entry(self, gfn: int, *, mfn: int | None = None, type_: str | None = None) -> None:
        """Overwrite where a P2M entry leads, and as what."""
        step = self.inspector.walk(1, gfn)[-1]
        value = step.entry
        if mfn is not None:
            value = value & ~ADDRESS_MASK | mfn << PAGE_SHIFT
        if type_ is not None:
            numbers = {name: number for number, name in self.inspector.layout.p2m_types.items()}
            bit, width = self.inspector.layout.entry_fields["type"]
            value = value & ~(((1 << width) - 1) << bit) | numbers[type_] << bit
        self.write(step.address, value)

    def broken(self) -> list[Violation]:
        return check(self.inspector.snapshot())


def another_xenheap_page(sick: Sick) -> int:
    """A page of Xen's own that it shares with nobody."""
    snapshot = sick.inspector.snapshot()
    assert snapshot.pages is not None
    shared = {mfn for state in snapshot.domains.values() for mfn in state.shared_pages()}
    return next(
        run.mfn
        for run in snapshot.pages.runs
        if run.count_info & XEN_HEAP and not run.is_free and run.mfn not in shared
    )


def forget_gfn(sick: Sick) -> None:
    """Take away the record of where the grant frame is mapped."""
    table = sick.inspector.grants(1)
    assert table is not None
    if sick.inspector.layout.gfn_in_page_info:
        mfn = table.frames[0].mfn
        sick.page(mfn, type=sick.inspector.page(mfn).type_info | GFN_MASK)
    else:
        grants = sick.inspector.field(sick.address, "domain.grant_table")
        array = sick.inspector.field(grants, "grants.shared_gfns")
        sick.write(sick.inspector.memory.physical(array), (1 << 64) - 1)


def second_type_reference(sick: Sick) -> None:
    mfn = sick.mfn(sick.shared_gfn)
    one = 1 << GFN_COUNT_SHIFT if sick.inspector.layout.gfn_in_page_info else 1
    sick.page(mfn, type=sick.inspector.page(mfn).type_info + one)


CORRUPTIONS: dict[str, Callable[[Sick], None]] = {
    "what_a_domain_points_to_is_mapped": lambda s: s.field(
        s.address, "domain.grant_table", WILD_POINTER
    ),
    "mapped_page_exists": lambda s: s.entry(RAM_GFN, mfn=NO_RAM),
    "no_free_page_is_mapped": lambda s: s.page(s.mfn(RAM_GFN), count=STATE_FREE),
    "ram_belongs_to_its_domain": lambda s: s.page(s.mfn(RAM_GFN), owner=0),
    "mapped_ram_is_allocated": lambda s: s.page(
        s.mfn(RAM_GFN), count=s.inspector.page(s.mfn(RAM_GFN)).count_info & ~ALLOCATED
    ),
    "ram_is_mapped_once": lambda s: s.entry(SECOND_BLOCK, mfn=s.mfn(SECOND_BLOCK - 0x200)),
    "shared_page_is_mapped_once": lambda s: s.entry(s.frame_gfn, mfn=s.mfn(s.shared_gfn)),
    "shared_page_belongs_to_its_domain": lambda s: s.page(s.mfn(s.shared_gfn), owner=0),
    "shared_page_is_one_xen_shares": lambda s: s.entry(s.shared_gfn, mfn=another_xenheap_page(s)),
    "shared_page_records_its_gfn": forget_gfn,
    "recorded_gfn_is_mapped": lambda s: s.entry(s.frame_gfn, mfn=s.mfn(RAM_GFN)),
    "shared_page_has_one_type_reference": second_type_reference,
    "foreign_page_is_of_another_domain": lambda s: s.entry(
        s.shared_gfn, mfn=s.mfn(RAM_GFN), type_="map_foreign_rw"
    ),
    "foreign_mapping_holds_a_reference": lambda s: s.entry(
        s.shared_gfn, mfn=s.mfn(RAM_GFN, domid=2), type_="map_foreign_rw"
    ),
    "page_counts_agree": lambda s: s.field(s.address, "domain.tot_pages", 4097),
    "highest_gfn_is_known": lambda s: s.field(s.address, "domain.max_mapped_gfn", 0x38001),
}


def test_every_rule_has_its_corruption() -> None:
    assert CORRUPTIONS.keys() == RULES.keys()


@pytest.mark.parametrize("rule", CORRUPTIONS)
def test_corrupted_record_is_caught_by_the_rule_it_breaks(sick: Sick, rule: str) -> None:
    assert sick.broken() == []
    try:
        CORRUPTIONS[rule](sick)
        caught = [v for v in sick.broken() if v.rule == rule]
    finally:
        sick.heal()
    assert caught
    assert sick.broken() == []
    known_there = bool(RULES[rule].excuse_before) and not sick.inspector.layout.gfn_in_page_info
    assert all(v.is_observation is known_there for v in caught)


def test_held_lock_is_named_and_nothing_is_read_torn(sick: Sick) -> None:
    try:
        sick.field(sick.address, "domain.p2m_lock", 1)
        with pytest.raises(MidUpdate) as caught:
            sick.inspector.snapshot()
    finally:
        sick.heal()
    assert "held: d1 p2m lock" in caught.value.evidence
    sick.inspector.snapshot()


def test_two_moments_differ_where_the_guest_changed_something(sick: Sick) -> None:
    (gfn,) = sick.domain.hole_pages(1)
    before = sick.inspector.physmap(1)
    sick.domain.add_to_physmap(GRANT_TABLE, idx=1, gfn=gfn)
    (change,) = changes(before, sick.inspector.physmap(1))
    assert (change.gfn, change.pages, change.before) == (gfn, 1, None)
    assert change.after is not None and change.after.type == "ram_rw"
    sick.domain.remove_from_physmap(gfn)
    assert changes(before, sick.inspector.physmap(1)) == []


def test_drgn_reads_the_live_hypervisor(sick: Sick) -> None:
    program = sick.inspector.drgn_program()
    domain, domids = program["domain_list"], []
    while domain:
        domids.append(domain.domain_id.value_())
        domain = domain.next_in_list
    assert domids == list(sick.inspector.snapshot().domains)


@pytest.mark.parametrize("machine", ["virt-gicv3", "virt-gicv2", "virt-a53", "virt-n1"])
def test_healthy_machine_is_read_whole_and_breaks_no_rule(start: Boot, machine: str) -> None:
    with start("dom0_and_domu", machine) as host:
        snapshot = host.inspector.snapshot()
        dom0, d1 = snapshot.domains[0], snapshot.domains[1]
        assert sum(r.pages for r in d1.physmap if r.is_ram) == d1.tot_pages == 16 << 8
        direct = [r for r in dom0.physmap if r.is_ram]
        assert direct and all(r.gfn == r.mfn for r in direct)
        assert d1.grants is not None and d1.grants.frames
        assert snapshot.owners[d1.address] == "d1"
        assert check(snapshot) == []


def test_release_build_with_a_domain_of_2_gib_is_read_whole(
    build: Build, cache: Cache, tmp_path: Path
) -> None:
    release = built(build.tree, replace(build.options, debug=False), cache)
    scenario = SCENARIOS["domu"].with_(memory_mib=2048)
    with boot(release, load_machine(), scenario, tmp_path, cache) as host:
        shared, frame = host.domain(1).hole_pages(2)
        host.domain(1).add_to_physmap(SHARED_INFO, gfn=shared)
        host.domain(1).add_to_physmap(GRANT_TABLE, gfn=frame)
        snapshot = host.inspector.snapshot()
    state = snapshot.domains[1]
    assert sum(r.pages for r in state.physmap if r.is_ram) == state.tot_pages + 2 == (2048 << 8) + 2
    assert state.grants is not None and state.grants.frames[0].recorded == frame
    assert state.labels()[state.physmap[shared].mfn].startswith("shared_info")
    assert check(snapshot) == []


def test_foreign_mappings_break_no_rule(start: Boot) -> None:
    with start("dom0_and_domu") as host:
        dom0 = host.domain(0)
        gfns = dom0.hole_pages(2)
        errors = dom0.add_to_physmap_batch(
            4, [(0x40100, gfns[0]), (0x40100, gfns[1])], foreign_domid=1
        )
        assert errors == [0, 0]
        assert host.inspector.physmap(0)[gfns[0]].type == "map_foreign_rw"
        assert check(host.inspector.snapshot()) == []


def test_destroyed_domain_is_read_until_its_last_page_is_let_go(start: Boot, build: Build) -> None:
    """One page lingers as long as dom0 maps it; a dead domain's physmap proves nothing."""
    with start("dom0_and_domu") as host:
        dom0 = host.domain(0)
        (gfn,) = dom0.hole_pages(1)
        assert dom0.add_to_physmap_batch(4, [(RAM_GFN, gfn)], foreign_domid=1) == [0]
        dom0.do(destroydomain(build.tree, 1))
        snapshot = host.inspector.snapshot()
        dead = snapshot.domains[1]
        assert (dead.dying, dead.tot_pages, len(dead.physmap)) == (2, 1, 0)
        assert check(snapshot) == []
        dom0.remove_from_physmap(gfn)
        gone = host.wait(
            lambda: 1 not in host.inspector.snapshot().domains, 5, "the domain to be gone"
        )
        assert gone and check(host.inspector.snapshot()) == []


def look_at(host: Booted, script: Callable[[Domain], None]) -> Findings:
    observer = Observer(host.inspector, host.domains)
    observer.begin()
    script(host.domain(1))
    return observer.finish()


def stale_frame(domain: Domain) -> None:
    """The original bug: a frame's record outlives its mapping, and takes RAM away."""
    at, elsewhere = domain.hole_pages(2)
    (spare,) = domain.ram_pages(1)
    domain.add_to_physmap(GRANT_TABLE, gfn=at)
    domain.remove_from_physmap(at)
    domain.decrease_reservation([spare])
    domain.populate_physmap([at])
    domain.add_to_physmap(GRANT_TABLE, gfn=elsewhere)


def moved_frame(domain: Domain) -> None:
    one, other = domain.hole_pages(2)
    domain.add_to_physmap(GRANT_TABLE, gfn=one)
    with contextlib.suppress(OSError):
        domain.add_to_physmap(GRANT_TABLE, gfn=other)


def test_call_that_took_ram_away_is_named(start: Boot) -> None:
    with start("domu") as host:
        found = look_at(host, stale_frame)
        after_the_change = host.inspector.layout.gfn_in_page_info
    if after_the_change:
        assert found == Findings()
        return
    (harm,) = found.violations
    assert harm.rule == FOOTPRINT
    assert harm.operation.startswith("d1 XENMEM_add_to_physmap(space=grant_table, idx=0, gfn=")
    assert "from ram_rw mfn" in harm.what and "to nothing" in harm.what


def test_moved_grant_frame_is_an_observation_where_xen_moves_them(start: Boot) -> None:
    with start("domu") as host:
        found = look_at(host, moved_frame)
        moves = not host.inspector.layout.gfn_in_page_info
    assert found.violations == ()
    assert [v.rule for v in found.observations] == [FOOTPRINT] * moves


def test_xen_is_read_after_its_panic_and_the_crash_has_its_source(
    start: Boot, build: Build
) -> None:
    with start("domu") as host:
        sick = Sick(host)
        sick.field(sick.address, "domain.grant_table", WILD_POINTER)
        with pytest.raises(XenCrashed):
            sick.domain.add_to_physmap(GRANT_TABLE, idx=1, gfn=0x38100)
        report = crash_in(host.directory / "console.log", build.syms)
        state = host.inspector.look().domains[1]
    assert state.tot_pages == 16 << 8 and len(state.physmap) > state.tot_pages
    assert "grant table" in state.unreadable[0]
    assert report is not None and report.kind == "trap"
    functions = [place.function for frame in report.frames for place in frame.places]
    assert "gnttab_map_frame" in functions and "xenmem_add_to_physmap_one" in functions
    assert "grant_write_lock" in functions  # inlined
    files = {place.file for frame in report.frames for place in frame.places}
    assert {"xen/common/grant_table.c", "xen/arch/arm/mm.c"} <= files


# -- what it refuses ----------------------------------------------------------------------------


def test_symbols_of_another_build_are_refused(
    sick: Sick, bullseye_build: Build, bookworm_build: Build, cache: Cache
) -> None:
    ours = sick.inspector.layout.build_id
    (other,) = [b for b in (bullseye_build, bookworm_build) if b.build_id != ours]
    with pytest.raises(CannotInspect, match="of another build"):
        attach(sick.inspector.memory.ram, other.syms, ours, cache)
    with pytest.raises(CannotInspect, match="not found in the machine's RAM"):
        attach(sick.inspector.memory.ram, other.syms, "", cache)


def strip(source: Path, target: Path, *words: str) -> Path:
    subprocess.run([require("aarch64-linux-gnu-objcopy"), *words, source, target], check=True)
    return target


def test_symbols_without_debug_information_are_refused(
    sick: Sick, build: Build, tmp_path: Path
) -> None:
    stripped = strip(build.syms, tmp_path / "xen-syms", "--strip-debug")
    with pytest.raises(CannotInspect, match="no debug information") as caught:
        attach(sick.inspector.memory.ram, stripped, build.build_id)
    assert "CONFIG_DEBUG_INFO" in caught.value.advice


def test_file_that_is_no_xen_is_refused(sick: Sick, tmp_path: Path) -> None:
    nothing = tmp_path / "xen-syms"
    with pytest.raises(CannotInspect, match="there is no"):
        attach(sick.inspector.memory.ram, nothing)
    nothing.write_text("not an ELF file")
    with pytest.raises(CannotInspect, match="ELF"):
        attach(sick.inspector.memory.ram, nothing)
    shutil.copy("/bin/true", nothing)
    with pytest.raises(CannotInspect, match="arm64 Xen only"):
        attach(sick.inspector.memory.ram, nothing)


class Copy:
    """A machine's RAM in a file of its own, holes left out."""

    def __init__(self, ram: Ram, path: Path) -> None:
        self.base, self.size = ram.base, ram.size
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self.fd, ram.size)
        for start, end in ram.extents():
            os.pwrite(self.fd, ram.view[start:end], start)
        self._map = mmap.mmap(self.fd, ram.size)
        self.view = memoryview(self._map)

    def find_all(self, needle: bytes) -> Iterator[int]:
        at = self._map.find(needle)
        while at >= 0:
            yield at
            at = self._map.find(needle, at + 1)


def test_ram_file_that_vanished_is_named_whatever_is_asked(
    start: Boot, build: Build, cache: Cache, tmp_path: Path
) -> None:
    """Touching what is gone would end Python by SIGBUS."""
    with start("domu") as host:
        host.pause()
        copy = Copy(host.ram, tmp_path / "ram")
    inspector = attach(copy, build.syms, build.build_id, cache)
    assert check(inspector.snapshot()) == []
    (mfn,) = [r.mfn for r in inspector.physmap(1)]
    os.ftruncate(copy.fd, 4096)
    asked: list[Callable[[], object]] = [
        inspector.snapshot, inspector.look, inspector.physmaps, inspector.held_locks,
        inspector.domain_addresses, lambda: inspector.page(mfn), lambda: inspector.walk(1, 0x40000),
        lambda: attach(copy, build.syms, build.build_id, cache),
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(CannotInspect, match="RAM file was cut to 4096 of"):
            ask()
    observer = Observer(inspector, [])
    observer.begin()
    assert "RAM file was cut" in observer.finish().unseen
    os.close(copy.fd)
    with pytest.raises(CannotInspect, match="RAM file is gone"):
        inspector.snapshot()


def test_drgn_that_does_not_load_is_named(
    sick: Sick, build: Build, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a Python that drgn has no wheel for; a layout that was read before needs none."""
    monkeypatch.setitem(sys.modules, "drgn", None)
    with pytest.raises(CannotInspect, match="drgn does not load on this Python") as caught:
        attach(sick.inspector.memory.ram, build.syms, build.build_id)
    assert "ci/setup" in caught.value.advice
    with pytest.raises(CannotInspect, match="drgn does not load"):
        sick.inspector.drgn_program()
    again = attach(sick.inspector.memory.ram, build.syms, build.build_id, cache)
    assert again.snapshot().domains.keys() == sick.inspector.snapshot().domains.keys()
    again.close()


def test_frame_table_that_is_nowhere_leaves_everything_else_readable(
    sick: Sick,
) -> None:
    layout = sick.inspector.layout
    moved = replace(layout, sizes={**layout.sizes, "page": layout.sizes["page"] + 4})
    blind = Inspector(sick.inspector.memory, moved, sick.inspector.syms)
    with pytest.raises(CannotInspect, match="frame table"):
        blind.page(0x40000)
    assert sick.shared_gfn in blind.physmap(1)
    snapshot = blind.snapshot()
    assert snapshot.pages is None and "frame table" in snapshot.pages_unknown
    assert check(snapshot) == []
    observer = Observer(blind, [sick.domain])
    observer.begin()
    assert "no rule could be held" in observer.finish().unseen
