"""XENMEM_remove_from_physmap: what is there goes away, and nothing else.

Source: xenmem_remove_from_physmap in xen/common/memory.c, guest_physmap_remove_page in
xen/arch/arm. That RAM which was removed is still the domain's is Xen's way on Arm: the page count
does not change, and nobody gets the page back before the domain ends.
"""

import pytest

from harness.vocabulary import ENOENT, HOLE, INVALID_GFN, RAM, SHARED_INFO, Domain, xen_error


def test_removing_a_hole_is_refused(domain: Domain) -> None:
    """There is nothing to remove: ENOENT."""
    (gfn,) = domain.hole_pages(1)
    with xen_error(ENOENT):
        domain.remove_from_physmap(gfn)


def test_removing_twice_is_refused_the_second_time(domain: Domain) -> None:
    """The second time there is nothing any more: ENOENT."""
    (gfn,) = domain.hole_pages(1)
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    domain.remove_from_physmap(gfn)
    with xen_error(ENOENT):
        domain.remove_from_physmap(gfn)


@pytest.mark.parametrize("gfn", [INVALID_GFN, 1 << 52, 1 << 40], ids=hex)
def test_removing_beyond_any_address_is_refused(domain: Domain, gfn: int) -> None:
    """No guest address is so large: ENOENT."""
    with xen_error(ENOENT):
        domain.remove_from_physmap(gfn)


def test_removed_ram_is_a_hole_and_its_neighbours_stay(domain: Domain) -> None:
    """One page of a superpage goes; Xen splits the mapping and keeps the rest."""
    below, gfn, above = domain.ram_pages(3)
    domain.remove_from_physmap(gfn)
    assert domain.content(gfn) is HOLE
    assert domain.content(below) is RAM
    assert domain.content(above) is RAM


def test_removed_ram_still_counts(domain: Domain) -> None:
    """The domain's page count is that of its pages, not of its mappings."""
    (gfn,) = domain.ram_pages(1)
    pages = domain.current_reservation()
    domain.remove_from_physmap(gfn)
    assert domain.current_reservation() == pages


def test_populating_what_was_removed_takes_a_new_page(domain: Domain) -> None:
    """RAM comes back only against the domain's maximum: one page given back pays for it."""
    gfn, spare = domain.ram_pages(2)
    pages = domain.current_reservation()
    domain.remove_from_physmap(gfn)
    assert domain.decrease_reservation([spare]) == 1
    assert domain.populate_physmap([gfn]) == 1
    assert domain.content(gfn) is RAM
    assert domain.content(spare) is HOLE
    assert domain.current_reservation() == pages


def test_removal_takes_one_page_at_a_time(domain: Domain) -> None:
    """A run of pages removed one by one leaves exactly the others."""
    gfns = domain.ram_pages(8)
    for gfn in gfns[::2]:
        domain.remove_from_physmap(gfn)
    expected = [HOLE, RAM] * 4
    assert [domain.content(gfn) for gfn in gfns] == expected
