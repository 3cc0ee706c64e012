"""Status frames of a version 2 grant table follow the same rules as the table's own frames.

Xen on Arm gives version 2 only where its command line allows it, and shows the status frames in the
map space grant_table with bit 31 of the index set.
"""

import pytest

from harness.vocabulary import (
    EBUSY,
    GRANT_TABLE,
    GRANT_TABLE_STATUS,
    HOLE,
    INVALID_GFN,
    RAM,
    Domain,
    GrantFrame,
    StatusFrame,
    xen_error,
)

pytestmark = pytest.mark.scenario("domu", xen_args=("gnttab=max-ver:2",))


@pytest.fixture
def v2(domain: Domain) -> Domain:
    """A domU whose grant table is of version 2."""
    assert domain.grant_table.set_version(2) == 2
    return domain


def test_status_frame_appears_where_asked(v2: Domain) -> None:
    """Index 1<<31 is status frame 0, and get_status_frames reports its GFN."""
    table, status = v2.hole_pages(2)
    v2.add_to_physmap(GRANT_TABLE, gfn=table)
    v2.add_to_physmap(GRANT_TABLE, idx=GRANT_TABLE_STATUS, gfn=status)
    assert v2.content(table) == GrantFrame(0)
    assert v2.content(status) == StatusFrame(0)
    assert v2.grant_table.get_status_frames(1) == [status]


def test_second_map_of_a_status_frame_is_refused(v2: Domain) -> None:
    """EBUSY, the first GFN keeps it and stays on record (71320946d5; before, it moved)."""
    first, second = v2.hole_pages(2)
    v2.add_to_physmap(GRANT_TABLE, idx=GRANT_TABLE_STATUS, gfn=first)
    with xen_error(EBUSY):
        v2.add_to_physmap(GRANT_TABLE, idx=GRANT_TABLE_STATUS, gfn=second)
    assert v2.content(first) == StatusFrame(0)
    assert v2.content(second) is HOLE
    assert v2.grant_table.get_status_frames(1) == [first]


def test_removal_forgets_the_gfn_of_a_status_frame(v2: Domain) -> None:
    """After removal no GFN is on record (71320946d5)."""
    (gfn,) = v2.hole_pages(1)
    v2.add_to_physmap(GRANT_TABLE, idx=GRANT_TABLE_STATUS, gfn=gfn)
    v2.remove_from_physmap(gfn)
    assert v2.grant_table.get_status_frames(1) == [INVALID_GFN]


def test_stale_gfn_of_a_status_frame_takes_no_ram_away(v2: Domain) -> None:
    """RAM at the GFN a status frame once had survives the frame's next map (71320946d5)."""
    at, elsewhere = v2.hole_pages(2)
    (spare,) = v2.ram_pages(1)
    v2.add_to_physmap(GRANT_TABLE, idx=GRANT_TABLE_STATUS, gfn=at)
    v2.remove_from_physmap(at)
    v2.decrease_reservation([spare])
    assert v2.populate_physmap([at]) == 1
    v2.add_to_physmap(GRANT_TABLE, idx=GRANT_TABLE_STATUS, gfn=elsewhere)
    assert v2.content(at) is RAM
    assert v2.content(elsewhere) == StatusFrame(0)


def test_going_back_to_version_1_takes_the_status_frame_away(v2: Domain) -> None:
    """set_version(1) unmaps status frames: their memory is Xen's again."""
    (gfn,) = v2.hole_pages(1)
    v2.add_to_physmap(GRANT_TABLE, idx=GRANT_TABLE_STATUS, gfn=gfn)
    assert v2.grant_table.set_version(1) == 1
    assert v2.content(gfn) is HOLE
