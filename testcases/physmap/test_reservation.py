"""A domain's RAM: giving it back, and getting it anew, up to its maximum.

Source: decrease_reservation and populate_physmap in xen/common/memory.c.
"""

from harness.booting import Booted
from harness.vocabulary import (
    ENOSYS,
    EOPNOTSUPP,
    HOLE,
    RAM,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Domain,
    xen_error,
)


def test_a_domu_starts_at_its_maximum(domain: Domain) -> None:
    """A dom0less domU owns all it may own."""
    assert domain.current_reservation() == domain.maximum_reservation()


def test_decreasing_gives_a_page_back(domain: Domain) -> None:
    """The page is gone from the guest and from its count."""
    gfn, neighbour = domain.ram_pages(2)
    pages = domain.current_reservation()
    assert domain.decrease_reservation([gfn]) == 1
    assert domain.current_reservation() == pages - 1
    assert domain.content(gfn) is HOLE
    assert domain.content(neighbour) is RAM


def test_decreasing_a_hole_gives_nothing_back(domain: Domain) -> None:
    """No extent is done, and the count stays."""
    (gfn,) = domain.ram_pages(1)
    domain.decrease_reservation([gfn])
    pages = domain.current_reservation()
    assert domain.decrease_reservation([gfn]) == 0
    assert domain.current_reservation() == pages


def test_decreasing_stops_at_the_first_hole(domain: Domain) -> None:
    """Extents are done in order: those behind one that is not there are left alone."""
    first, second, third = domain.ram_pages(3)
    domain.decrease_reservation([second])
    assert domain.decrease_reservation([first, second, third]) == 1
    assert domain.content(first) is HOLE
    assert domain.content(third) is RAM


def test_populating_a_hole_makes_it_ram(domain: Domain) -> None:
    """Once there is room below the maximum, any hole may get RAM."""
    (spare,) = domain.ram_pages(1)
    (gfn,) = domain.hole_pages(1)
    pages = domain.current_reservation()
    domain.decrease_reservation([spare])
    assert domain.populate_physmap([gfn]) == 1
    assert domain.content(gfn) is RAM
    assert domain.current_reservation() == pages


def test_populating_beyond_the_maximum_does_nothing(host: Booted, domain: Domain) -> None:
    """No extent is done; a Xen that logs guests' mistakes says why."""
    (gfn,) = domain.hole_pages(1)
    pages = domain.current_reservation()
    assert domain.populate_physmap([gfn]) == 0
    assert domain.content(gfn) is HOLE
    assert domain.current_reservation() == pages
    host.check()


def test_populating_stops_where_the_room_ends(domain: Domain) -> None:
    """Room for two pages, three asked for: two are done, in order."""
    spares = domain.ram_pages(2)
    gfns = domain.hole_pages(3)
    domain.decrease_reservation(spares)
    assert domain.populate_physmap(gfns) == 2
    assert [domain.content(gfn) for gfn in gfns] == [RAM, RAM, HOLE]


def test_populating_over_ram_replaces_it(domain: Domain) -> None:
    """The old page is not the guest's to see any more; the neighbours stay."""
    gfn, neighbour, spare = domain.ram_pages(3)
    domain.store(gfn << 12, 0x01D)
    domain.decrease_reservation([spare])
    assert domain.populate_physmap([gfn]) == 1
    assert domain.content(gfn) is RAM
    assert domain.load(gfn << 12) != 0x01D
    assert domain.content(neighbour) is RAM


def test_giving_back_what_shared_info_covers_ends_the_mapping_only(domain: Domain) -> None:
    """shared_info is not the domain's RAM: it goes from its GFN, and can be mapped again."""
    (gfn,) = domain.hole_pages(1)
    pages = domain.current_reservation()
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    domain.decrease_reservation([gfn])
    assert domain.current_reservation() == pages
    assert domain.content(gfn) is HOLE
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    assert domain.content(gfn) is SHARED_INFO_PAGE


def test_there_is_no_exchange_on_arm(domain: Domain) -> None:
    """XENMEM_exchange belongs to PV guests of x86: refused, and the page stays."""
    (gfn,) = domain.ram_pages(1)
    with xen_error(ENOSYS, EOPNOTSUPP):
        domain.memory_exchange([gfn], [gfn])
    assert domain.content(gfn) is RAM
