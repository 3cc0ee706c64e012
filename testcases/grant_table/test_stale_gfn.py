"""The bug of old: Xen kept a grant frame's GFN after its removal, and trusted it the next time.

Up to Xen 4.16 the GFN stood in an array beside the grant table, written on map and never cleared
when XENMEM_remove_from_physmap took the frame away. The next map of that frame first removed the
remembered GFN, whatever was there by then: RAM, another frame, shared_info. With 5a4a2cef08 alone
that removal is checked and refused, and the frame can never be mapped again. 71320946d5 clears the
record, and both stand.

Each case maps a frame at A, lets A go, puts something else at A, and maps the frame at B. The last
step names only B: what is at A must survive it.
"""

from harness.vocabulary import (
    GRANT_TABLE,
    RAM,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Domain,
    GrantFrame,
)


def test_stale_gfn_takes_no_ram_away(domain: Domain) -> None:
    """RAM populated at A survives, and B shows the frame (71320946d5)."""
    at, elsewhere = domain.hole_pages(2)
    (spare,) = domain.ram_pages(1)
    domain.add_to_physmap(GRANT_TABLE, gfn=at)
    domain.remove_from_physmap(at)
    domain.decrease_reservation([spare])
    assert domain.populate_physmap([at]) == 1
    domain.add_to_physmap(GRANT_TABLE, gfn=elsewhere)
    assert domain.content(at) is RAM
    assert domain.content(elsewhere) == GrantFrame(0)


def test_stale_gfn_takes_no_ram_away_that_replaced_the_frame(domain: Domain) -> None:
    """The same without a removal: RAM is populated over the frame at A (71320946d5)."""
    at, elsewhere = domain.hole_pages(2)
    (spare,) = domain.ram_pages(1)
    domain.add_to_physmap(GRANT_TABLE, gfn=at)
    domain.decrease_reservation([spare])
    assert domain.populate_physmap([at]) == 1
    domain.add_to_physmap(GRANT_TABLE, gfn=elsewhere)
    assert domain.content(at) is RAM
    assert domain.content(elsewhere) == GrantFrame(0)


def test_stale_gfn_takes_no_other_frame_away(domain: Domain) -> None:
    """Another frame of the same table at A survives (71320946d5)."""
    at, elsewhere = domain.hole_pages(2)
    domain.add_to_physmap(GRANT_TABLE, idx=0, gfn=at)
    domain.remove_from_physmap(at)
    domain.add_to_physmap(GRANT_TABLE, idx=1, gfn=at)
    domain.add_to_physmap(GRANT_TABLE, idx=0, gfn=elsewhere)
    assert domain.content(at) == GrantFrame(1)
    assert domain.content(elsewhere) == GrantFrame(0)


def test_stale_gfn_takes_no_shared_info_away(domain: Domain) -> None:
    """shared_info at A survives (71320946d5)."""
    at, elsewhere = domain.hole_pages(2)
    domain.add_to_physmap(GRANT_TABLE, gfn=at)
    domain.remove_from_physmap(at)
    domain.add_to_physmap(SHARED_INFO, gfn=at)
    domain.add_to_physmap(GRANT_TABLE, gfn=elsewhere)
    assert domain.content(at) is SHARED_INFO_PAGE
    assert domain.content(elsewhere) == GrantFrame(0)


def test_a_second_stale_gfn_does_no_harm_either(domain: Domain) -> None:
    """Twice round: A and then B are let go and get RAM, and the frame ends at C (71320946d5)."""
    first, second, third = domain.hole_pages(3)
    spares = domain.ram_pages(2)
    domain.decrease_reservation(spares)
    for gfn in (first, second):
        domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
        domain.remove_from_physmap(gfn)
        assert domain.populate_physmap([gfn]) == 1
    domain.add_to_physmap(GRANT_TABLE, gfn=third)
    assert domain.content(first) is RAM
    assert domain.content(second) is RAM
    assert domain.content(third) == GrantFrame(0)
