"""The toolstack's side: dom0 maps a domU's pages, and maps pages for a domU.

What dom0 maps for itself as foreign pages must not disturb what Xen records of the domU's own
mappings; what it maps on behalf of the domU is under the domU's rules.
"""

import pytest

from harness.vocabulary import (
    EBUSY,
    GMFN_FOREIGN,
    GRANT_TABLE,
    HOLE,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Domain,
    GrantFrame,
    OtherRam,
    xen_error,
)

pytestmark = pytest.mark.scenario("dom0_and_domu")


def test_foreign_map_shows_the_domus_ram(dom0: Domain, domain: Domain) -> None:
    """dom0 sees the pattern of the domU's page, until it removes the mapping."""
    (page,) = domain.ram_pages(1)
    (window,) = dom0.hole_pages(1)
    entries = [(page, window)]
    assert dom0.add_to_physmap_batch(GMFN_FOREIGN, entries, foreign_domid=domain.domid) == [0]
    assert dom0.content(window) == OtherRam(page)
    dom0.remove_from_physmap(window)
    assert dom0.content(window) is HOLE


def test_foreign_map_of_shared_info_leaves_the_domus_record(dom0: Domain, domain: Domain) -> None:
    """The domU's page stays where the domU has it, before and after dom0 looks (71320946d5)."""
    gfn, other = domain.hole_pages(2)
    (window,) = dom0.hole_pages(1)
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    entries = [(gfn, window)]
    assert dom0.add_to_physmap_batch(GMFN_FOREIGN, entries, foreign_domid=domain.domid) == [0]
    dom0.remove_from_physmap(window)
    assert domain.content(gfn) is SHARED_INFO_PAGE
    with xen_error(EBUSY):
        domain.add_to_physmap(SHARED_INFO, gfn=other)


def test_dom0_may_not_move_a_domus_grant_frame(dom0: Domain, domain: Domain) -> None:
    """EBUSY for dom0 as for the domU: the frame stays where it is (71320946d5)."""
    gfn, other = domain.hole_pages(2)
    domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
    with xen_error(EBUSY):
        dom0.add_to_physmap(GRANT_TABLE, gfn=other, domid=domain.domid)
    assert domain.content(gfn) == GrantFrame(0)
    assert domain.content(other) is HOLE
    assert domain.grant_table.setup(1) == [gfn]


def test_dom0_may_not_map_a_domus_shared_info_twice(dom0: Domain, domain: Domain) -> None:
    """dom0 maps it for the domU once, the second time it is EBUSY (71320946d5)."""
    gfn, other = domain.hole_pages(2)
    dom0.add_to_physmap(SHARED_INFO, gfn=gfn, domid=domain.domid)
    with xen_error(EBUSY):
        dom0.add_to_physmap(SHARED_INFO, gfn=other, domid=domain.domid)
    assert domain.content(gfn) is SHARED_INFO_PAGE
    assert domain.content(other) is HOLE


def test_dom0_removes_what_the_domu_mapped(dom0: Domain, domain: Domain) -> None:
    """The toolstack may unmap the frame; the record goes with it, and the domU maps it anew."""
    gfn, other = domain.hole_pages(2)
    domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
    dom0.remove_from_physmap(gfn, domid=domain.domid)
    assert domain.content(gfn) is HOLE
    domain.add_to_physmap(GRANT_TABLE, gfn=other)
    assert domain.content(other) == GrantFrame(0)
    assert domain.grant_table.setup(1) == [other]
