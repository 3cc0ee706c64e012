"""What a call may change, and how what it may not is told."""

from __future__ import annotations

import pytest

from harness.inspection.footprint import MOVED, Stray, Surroundings, judge, strays
from harness.inspection.physmap import Change, Entry, Physmap, Range

RAM = Range(0x38020, 1, 0x4BE11, "ram_rw", "rwx")
FRAME = Range(0x38021, 1, 0x4A15C, "ram_rw", "rwx")
OLD_XEN = Surroundings({1: {0x4A15C: "grant frame 4", 0x4A164: "shared_info"}}, False)
NEW_XEN = Surroundings(OLD_XEN.shared, True)


def test_ram_that_an_unnamed_call_took_away_is_a_violation() -> None:
    before, after = {1: Physmap([RAM])}, {1: Physmap([FRAME])}
    (stray,) = strays(before, after, {1: [(0x38021, 1)]})
    harm = judge(stray, after, OLD_XEN, "d1 add_to_physmap(gfn=0x38021)")
    assert not harm.is_observation
    assert str(harm) == (
        "d1 gfn 0x38020 changed from ram_rw mfn 0x4be11 to nothing, which the call did not name, "
        "after d1 add_to_physmap(gfn=0x38021) [call_changes_only_what_it_names]"
    )


@pytest.mark.parametrize(("xen", "label"), [(OLD_XEN, MOVED), (NEW_XEN, "")])
def test_moved_frame_is_excused_only_where_frames_move(xen: Surroundings, label: str) -> None:
    before = {1: Physmap([FRAME])}
    after = {1: Physmap([FRAME._replace(gfn=0x38022)])}
    (stray,) = strays(before, after, {1: [(0x38022, 1)]})
    assert judge(stray, after, xen, "").label == label


def test_frame_that_vanished_altogether_is_not_excused() -> None:
    before, after = {1: Physmap([FRAME])}, {1: Physmap()}
    (stray,) = strays(before, after, {})
    assert judge(stray, after, OLD_XEN, "").label == ""


def test_shared_info_is_never_excused() -> None:
    entry = Entry(0x4A164, "ram_rw", "rwx")
    stray = Stray(1, Change(0x38000, 1, entry, None))
    elsewhere = {1: Physmap([Range(0x38005, 1, 0x4A164, "ram_rw", "rwx")])}
    assert judge(stray, elsewhere, OLD_XEN, "").label == ""


def test_named_part_is_cut_out_of_a_change() -> None:
    before = {1: Physmap([Range(0x100, 10, 0x500, "ram_rw", "rwx")])}
    after = {1: Physmap()}
    found = strays(before, after, {1: [(0x108, 1), (0x102, 3), (0x103, 1), (0x200, 5)]})
    assert [(s.change.gfn, s.change.pages, s.change.before) for s in found] == [
        (0x100, 2, Entry(0x500, "ram_rw", "rwx")),
        (0x105, 3, Entry(0x505, "ram_rw", "rwx")),
        (0x109, 1, Entry(0x509, "ram_rw", "rwx")),
    ]


def test_naming_a_whole_range_of_any_size_costs_nothing() -> None:
    before = {1: Physmap([Range(0x100, 10, 0x500, "ram_rw", "rwx")])}
    assert strays(before, {1: Physmap()}, {1: [(0, 1 << 60)]}) == []


def test_other_domains_and_those_that_came_or_went() -> None:
    before = {1: Physmap([RAM]), 2: Physmap([RAM])}
    after = {1: Physmap([RAM]), 3: Physmap([FRAME])}
    assert strays(before, after, {}) == []
    changed = {1: Physmap(), 2: Physmap([RAM])}
    (stray,) = strays(before, changed, {2: [(RAM.gfn, 1)]})
    assert stray.domid == 1
