"""A frame of the grant table is one page of Xen's, and a domain has it at one GFN at a time.

Since 71320946d5 (Xen 4.17) a second map is EBUSY. Before, Xen on Arm moved the frame silently: it
took away whatever was at the GFN it remembered, and a guest that relied on the first GFN faulted.
GNTTABOP_setup_table reports the GFN that Xen remembers; these cases compare it with what is there.
"""

from harness.vocabulary import (
    EBUSY,
    GRANT_TABLE,
    HOLE,
    INVALID_GFN,
    RAM,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Domain,
    GrantFrame,
    xen_error,
)


def test_appears_where_asked_and_is_reported_there(domain: Domain) -> None:
    """The GFN shows frame 0, and setup_table says so (xen/common/grant_table.c)."""
    gfn, other = domain.hole_pages(2)
    domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
    assert domain.content(gfn) == GrantFrame(0)
    assert domain.content(other) is HOLE
    assert domain.grant_table.setup(1) == [gfn]


def test_second_map_is_refused(domain: Domain) -> None:
    """The frame is not moved: EBUSY, the first GFN keeps it and stays on record (71320946d5)."""
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(GRANT_TABLE, gfn=first)
    with xen_error(EBUSY):
        domain.add_to_physmap(GRANT_TABLE, gfn=second)
    assert domain.content(first) == GrantFrame(0)
    assert domain.content(second) is HOLE
    assert domain.grant_table.setup(1) == [first]


def test_second_map_at_the_same_gfn_is_refused(domain: Domain) -> None:
    """The same GFN is no exception (71320946d5)."""
    (gfn,) = domain.hole_pages(1)
    domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
    with xen_error(EBUSY):
        domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
    assert domain.content(gfn) == GrantFrame(0)


def test_frame_over_ram_is_not_moved_either(domain: Domain) -> None:
    """What gave way for the first mapping changes nothing: the second is EBUSY (71320946d5)."""
    over_ram, neighbour = domain.ram_pages(2)
    (elsewhere,) = domain.hole_pages(1)
    domain.add_to_physmap(GRANT_TABLE, gfn=over_ram)
    with xen_error(EBUSY):
        domain.add_to_physmap(GRANT_TABLE, gfn=elsewhere)
    assert domain.content(over_ram) == GrantFrame(0)
    assert domain.content(neighbour) is RAM


def test_removal_forgets_the_gfn(domain: Domain) -> None:
    """After removal setup_table reports no GFN: a stale one is what did the harm (71320946d5)."""
    (gfn,) = domain.hole_pages(1)
    domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
    domain.remove_from_physmap(gfn)
    assert domain.content(gfn) is HOLE
    assert domain.grant_table.setup(1) == [INVALID_GFN]


def test_no_gfn_is_reported_before_the_first_map(domain: Domain) -> None:
    """A frame that was never mapped has no GFN."""
    assert domain.grant_table.setup(2) == [INVALID_GFN, INVALID_GFN]


def test_can_be_mapped_again_where_it_was(domain: Domain) -> None:
    """Map, remove, map at the same GFN, again and again."""
    (gfn,) = domain.hole_pages(1)
    for _ in range(3):
        domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
        assert domain.content(gfn) == GrantFrame(0)
        domain.remove_from_physmap(gfn)
        assert domain.content(gfn) is HOLE


def test_can_be_mapped_elsewhere_after_removal(domain: Domain) -> None:
    """Map, remove, map at another GFN: the first stays a hole, the second is on record."""
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(GRANT_TABLE, gfn=first)
    domain.remove_from_physmap(first)
    domain.add_to_physmap(GRANT_TABLE, gfn=second)
    assert domain.content(first) is HOLE
    assert domain.content(second) == GrantFrame(0)
    assert domain.grant_table.setup(1) == [second]


def test_each_frame_has_a_gfn_of_its_own(domain: Domain) -> None:
    """Four frames at four GFNs, in an order that is not that of the GFNs."""
    gfns = domain.hole_pages(4)
    order = [gfns[2], gfns[0], gfns[3], gfns[1]]
    for idx, gfn in enumerate(order):
        domain.add_to_physmap(GRANT_TABLE, idx=idx, gfn=gfn)
    assert [domain.content(gfn) for gfn in order] == [GrantFrame(idx) for idx in range(4)]
    assert domain.grant_table.setup(4) == order


def test_one_frame_over_another_replaces_it(domain: Domain) -> None:
    """The frame that gave way is nowhere and on record nowhere (71320946d5)."""
    (gfn,) = domain.hole_pages(1)
    domain.add_to_physmap(GRANT_TABLE, idx=0, gfn=gfn)
    domain.add_to_physmap(GRANT_TABLE, idx=1, gfn=gfn)
    assert domain.content(gfn) == GrantFrame(1)
    assert domain.grant_table.setup(2) == [INVALID_GFN, gfn]


def test_shared_info_over_a_frame_sets_the_frame_free(domain: Domain) -> None:
    """Frame at A, shared_info over A, frame at B: both stand (71320946d5; before, A faulted)."""
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(GRANT_TABLE, gfn=first)
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    domain.add_to_physmap(GRANT_TABLE, gfn=second)
    assert domain.content(first) is SHARED_INFO_PAGE
    assert domain.content(second) == GrantFrame(0)
