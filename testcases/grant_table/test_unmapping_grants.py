"""Unmapping a grant names an address, and Xen must not believe it.

GNTTABOP_unmap_grant_ref takes a handle and the address at which the grant is said to be mapped. Up
to Xen 4.16 Xen on Arm removed whatever was at that address. Since 5a4a2cef08 the removal compares
the frame that is there with the one that was granted. These are the only cases that tell 5a4a2cef08
from 71320946d5 without it.
"""

from dataclasses import dataclass

import pytest

from harness.vocabulary import (
    GRANT_TABLE,
    HOLE,
    RAM,
    Domain,
    GrantFrame,
    GrantStatus,
    OtherRam,
    grant_error,
)

# dom0 grants, the domU maps: between domUs, Arm's default policy (XSM SILO) allows no grants.
pytestmark = pytest.mark.scenario("dom0_and_domu")
REF = 8  # the first eight are reserved (GNTTAB_NR_RESERVED_ENTRIES)


@dataclass(frozen=True)
class Granted:
    """A page of dom0's, mapped by the domU at `gfn`; and the domU's handle for it."""

    gfn: int
    handle: int
    origin: int  # the GFN of the page where it belongs


@pytest.fixture
def granted(dom0: Domain, domain: Domain) -> Granted:
    """dom0 grants the domU a page, and the domU maps it."""
    (table,) = dom0.hole_pages(1)
    (page,) = dom0.ram_pages(1)
    (gfn,) = domain.hole_pages(1)
    dom0.add_to_physmap(GRANT_TABLE, gfn=table)
    dom0.grant_table.grant(table, REF, page, domain.domid)
    return Granted(gfn, domain.grant_table.map_grant_ref(gfn, REF, dom0.domid), page)


def test_a_mapped_grant_shows_the_page_of_the_other_domain(
    domain: Domain, granted: Granted
) -> None:
    """The pattern of the granter's page is what the other sees, until it unmaps."""
    content = domain.content(granted.gfn)
    assert content == OtherRam(granted.origin)
    domain.grant_table.unmap_grant_ref(granted.gfn, granted.handle)
    assert domain.content(granted.gfn) is HOLE


def test_unmap_that_names_own_ram_leaves_the_ram(domain: Domain, granted: Granted) -> None:
    """The status says general_error, and the RAM stays where it is (5a4a2cef08)."""
    (victim,) = domain.ram_pages(1)
    with grant_error(GrantStatus.general_error):
        domain.grant_table.unmap_grant_ref(victim, granted.handle)
    assert domain.content(victim) is RAM


def test_unmap_that_names_a_grant_frame_leaves_the_frame(domain: Domain, granted: Granted) -> None:
    """The status says general_error, and the frame stays mapped (5a4a2cef08)."""
    (table,) = domain.hole_pages(1)
    domain.add_to_physmap(GRANT_TABLE, gfn=table)
    with grant_error(GrantStatus.general_error):
        domain.grant_table.unmap_grant_ref(table, granted.handle)
    assert domain.content(table) == GrantFrame(0)


def test_unmap_of_a_handle_that_is_none(domain: Domain) -> None:
    """The status says bad_handle."""
    (gfn,) = domain.hole_pages(1)
    with grant_error(GrantStatus.bad_handle):
        domain.grant_table.unmap_grant_ref(gfn, 77)
