"""shared_info is one page of Xen's, and a domain has it at one GFN at a time.

Since 71320946d5 (Xen 4.17) the GFN at which Xen mapped the page is kept in the page's type_info,
and XENMEM_add_to_physmap answers EBUSY while it is there. Before, the page could be mapped at any
number of GFNs, and a guest that lost count of them wrote into event channel masks where it saw RAM.

What these cases see is the guest's own view: they cannot tell a page that is mapped elsewhere from
one that is mapped nowhere, where the guest does not look.
"""

from harness.vocabulary import (
    EBUSY,
    HOLE,
    RAM,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Domain,
    memory_calls,
    xen_error,
)


def test_appears_where_asked_and_nowhere_else(domain: Domain) -> None:
    """One GFN gets the page, its neighbours stay holes (xen/arch/arm/mm.c)."""
    below, gfn, above = domain.hole_pages(3)
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    assert domain.content(gfn) is SHARED_INFO_PAGE
    assert domain.content(below) is HOLE
    assert domain.content(above) is HOLE


def test_second_map_is_refused(domain: Domain) -> None:
    """The second GFN is refused and stays a hole, the first keeps the page (71320946d5)."""
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    with xen_error(EBUSY):
        domain.add_to_physmap(SHARED_INFO, gfn=second)
    assert domain.content(first) is SHARED_INFO_PAGE
    assert domain.content(second) is HOLE


def test_second_map_over_ram_is_refused(domain: Domain) -> None:
    """A refused map must not cost the page of RAM it was aimed at (71320946d5)."""
    first, (victim,) = domain.hole_pages(1)[0], domain.ram_pages(1)
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    with xen_error(EBUSY):
        domain.add_to_physmap(SHARED_INFO, gfn=victim)
    assert domain.content(victim) is RAM
    assert domain.content(first) is SHARED_INFO_PAGE


def test_second_map_at_the_same_gfn_is_refused(domain: Domain) -> None:
    """The same GFN is no exception: EBUSY, and the mapping stays (71320946d5)."""
    (gfn,) = domain.hole_pages(1)
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    with xen_error(EBUSY):
        domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    assert domain.content(gfn) is SHARED_INFO_PAGE


def test_no_two_gfns_alias(domain: Domain) -> None:
    """However the second map is answered, one write must never show at two GFNs (71320946d5)."""
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    domain.attempt([memory_calls.add_to_physmap(SHARED_INFO, gfn=second)])
    assert not domain.aliases(first, second)


def test_removal_leaves_no_mapping_behind(domain: Domain) -> None:
    """Once its GFN is removed the page is nowhere, whatever was tried before (71320946d5)."""
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    domain.attempt([memory_calls.add_to_physmap(SHARED_INFO, gfn=second)])
    domain.remove_from_physmap(first)
    assert domain.content(first) is HOLE
    assert domain.content(second) is HOLE


def test_can_be_mapped_again_where_it_was(domain: Domain) -> None:
    """Map, remove, map: removal clears the record (p2m_put_l3_page in xen/arch/arm/p2m.c)."""
    (gfn,) = domain.hole_pages(1)
    for _ in range(3):
        domain.add_to_physmap(SHARED_INFO, gfn=gfn)
        assert domain.content(gfn) is SHARED_INFO_PAGE
        domain.remove_from_physmap(gfn)
        assert domain.content(gfn) is HOLE


def test_can_be_mapped_elsewhere_after_removal(domain: Domain) -> None:
    """Map, remove, map at another GFN: a guest may move the page in two steps."""
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    domain.remove_from_physmap(first)
    domain.add_to_physmap(SHARED_INFO, gfn=second)
    assert domain.content(first) is HOLE
    assert domain.content(second) is SHARED_INFO_PAGE


def test_keeps_what_is_written_across_a_move(domain: Domain) -> None:
    """It is one page: what the guest wrote at the first GFN is there at the second."""
    first, second = domain.hole_pages(2)
    last_word = 0xFF8  # behind every structure in the page
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    domain.store((first << 12) + last_word, 0x5EED0FAC)
    domain.remove_from_physmap(first)
    domain.add_to_physmap(SHARED_INFO, gfn=second)
    assert domain.load((second << 12) + last_word) == 0x5EED0FAC


def test_mapping_over_ram_shows_the_page(domain: Domain) -> None:
    """RAM at the GFN gives way to the page; its neighbour stays."""
    gfn, neighbour = domain.ram_pages(2)
    pages = domain.current_reservation()
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    assert domain.content(gfn) is SHARED_INFO_PAGE
    assert domain.content(neighbour) is RAM
    # The RAM that gave way is still the domain's: nobody freed it (unlike on x86).
    assert domain.current_reservation() == pages


def test_removal_after_mapping_over_ram_leaves_a_hole(domain: Domain) -> None:
    """The RAM that gave way does not come back by itself; populating brings other RAM."""
    gfn, spare = domain.ram_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    domain.remove_from_physmap(gfn)
    assert domain.content(gfn) is HOLE
    domain.decrease_reservation([spare])  # a domU starts at its maximum
    assert domain.populate_physmap([gfn]) == 1
    assert domain.content(gfn) is RAM


def test_ram_populated_over_it_releases_it(domain: Domain) -> None:
    """Replacing the mapping ends it: the page may then go elsewhere, and the RAM stays."""
    first, second = domain.hole_pages(2)
    (spare,) = domain.ram_pages(1)
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    domain.decrease_reservation([spare])
    assert domain.populate_physmap([first]) == 1
    domain.add_to_physmap(SHARED_INFO, gfn=second)
    assert domain.content(first) is RAM
    assert domain.content(second) is SHARED_INFO_PAGE
