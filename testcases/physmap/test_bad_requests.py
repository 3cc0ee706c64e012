"""Requests that name no space, no domain or no right: each has its error, and changes nothing.

Source: xenmem_add_to_physmap in xen/common/memory.c, xenmem_add_to_physmap_one in
xen/arch/arm/mm.c, and the default XSM policy in xen/include/xsm/dummy.h.
"""

import pytest

from harness.booting import Booted
from harness.vocabulary import (
    DEV_MMIO,
    DOMID_INVALID,
    EACCES,
    ENOSYS,
    EPERM,
    ESRCH,
    GMFN,
    GMFN_FOREIGN,
    GMFN_RANGE,
    HOLE,
    RAM,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Domain,
    xen_error,
)


@pytest.mark.parametrize("space", [GMFN, GMFN_FOREIGN, 6, 77, 0xFFFFFFFF])
def test_space_that_cannot_be_mapped_so(domain: Domain, space: int) -> None:
    """gmfn is x86's, gmfn_foreign goes in batches only, the others do not exist: ENOSYS."""
    hole, (page,) = domain.hole_pages(1)[0], domain.ram_pages(1)
    with xen_error(ENOSYS):
        domain.add_to_physmap(space, idx=page, gfn=hole)
    assert domain.content(hole) is HOLE
    assert domain.content(page) is RAM


def test_a_domu_maps_no_device(domain: Domain) -> None:
    """dev_mmio of what the domain has no access to: EACCES."""
    (gfn,) = domain.hole_pages(1)
    with xen_error(EACCES):
        domain.add_to_physmap(DEV_MMIO, idx=0x9000, gfn=gfn)
    assert domain.content(gfn) is HOLE


def test_empty_range_is_nothing_to_do(domain: Domain) -> None:
    """gmfn_range of size 0: done at once."""
    (gfn,) = domain.hole_pages(1)
    assert domain.add_to_physmap(GMFN_RANGE, idx=gfn, gfn=gfn, size=0) == 0
    assert domain.content(gfn) is HOLE


@pytest.mark.parametrize("domid", [100, DOMID_INVALID], ids=hex)
def test_domain_that_is_not_there(domain: Domain, domid: int) -> None:
    """Adding and removing for a domain that does not exist: ESRCH."""
    (gfn,) = domain.hole_pages(1)
    with xen_error(ESRCH):
        domain.add_to_physmap(SHARED_INFO, gfn=gfn, domid=domid)
    with xen_error(ESRCH):
        domain.remove_from_physmap(gfn, domid=domid)
    assert domain.content(gfn) is HOLE


@pytest.mark.scenario("dom0_and_domu")
def test_a_domu_may_not_touch_dom0(host: Booted, dom0: Domain, domain: Domain) -> None:
    """Adding and removing is EPERM, populating and decreasing does nothing; dom0 stays."""
    (page,) = dom0.ram_pages(1)
    (hole,) = dom0.hole_pages(1)
    with xen_error(EPERM):
        domain.add_to_physmap(SHARED_INFO, gfn=hole, domid=0)
    with xen_error(EPERM):
        domain.remove_from_physmap(page, domid=0)
    assert domain.populate_physmap([hole], domid=0) == 0
    assert domain.decrease_reservation([page], domid=0) == 0
    assert dom0.content(page) is RAM
    assert dom0.content(hole) is HOLE
    host.check()


@pytest.mark.scenario("two_domus")
def test_a_domu_may_not_touch_another_domu(domains: list[Domain]) -> None:
    """The same between equals: EPERM."""
    one, other = domains
    (page,) = other.ram_pages(1)
    (hole,) = other.hole_pages(1)
    with xen_error(EPERM):
        one.add_to_physmap(SHARED_INFO, gfn=hole, domid=other.domid)
    with xen_error(EPERM):
        one.remove_from_physmap(page, domid=other.domid)
    assert other.content(page) is RAM
    assert other.content(hole) is HOLE


def test_own_domid_means_the_same_as_domid_self(domain: Domain) -> None:
    """A domain may name itself by its number."""
    (gfn,) = domain.hole_pages(1)
    domain.add_to_physmap(SHARED_INFO, gfn=gfn, domid=domain.domid)
    assert domain.content(gfn) is SHARED_INFO_PAGE
    domain.remove_from_physmap(gfn, domid=domain.domid)
    assert domain.content(gfn) is HOLE


@pytest.mark.scenario("two_domus")
def test_each_domain_has_a_shared_info_of_its_own(domains: list[Domain]) -> None:
    """Two domUs map theirs at the same GFN number, and neither sees the other's."""
    last_word = 0xFF8
    gfns = [domain.hole_pages(1)[0] for domain in domains]
    for number, (domain, gfn) in enumerate(zip(domains, gfns, strict=True), start=1):
        domain.add_to_physmap(SHARED_INFO, gfn=gfn)
        domain.store((gfn << 12) + last_word, number)
    for number, (domain, gfn) in enumerate(zip(domains, gfns, strict=True), start=1):
        assert domain.load((gfn << 12) + last_word) == number
        assert domain.content(gfn) is SHARED_INFO_PAGE
