"""Requests for shared_info that name no page or no GFN: EINVAL, and nothing is mapped.

A refused request must leave no record behind either: a proper one afterwards is the proof.
"""

import pytest

from harness.vocabulary import (
    EINVAL,
    HOLE,
    INVALID_GFN,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Domain,
    xen_error,
)


@pytest.mark.parametrize("idx", [1, 2, 1 << 32, (1 << 64) - 1], ids=hex)
def test_there_is_no_other_page_than_index_0(domain: Domain, idx: int) -> None:
    """Only idx 0 exists in the space (xenmem_add_to_physmap_one in xen/arch/arm/mm.c)."""
    (gfn,) = domain.hole_pages(1)
    with xen_error(EINVAL):
        domain.add_to_physmap(SHARED_INFO, gfn=gfn, idx=idx)
    assert domain.content(gfn) is HOLE
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    assert domain.content(gfn) is SHARED_INFO_PAGE


@pytest.mark.parametrize("beyond", [1 << 61, 1 << 52], ids=["bit_61", "bit_52"])
def test_gfn_with_bits_beyond_any_address_is_refused(domain: Domain, beyond: int) -> None:
    """Bits of a GFN that no guest address has must not be cut off silently."""
    (gfn,) = domain.hole_pages(1)
    with xen_error(EINVAL):
        domain.add_to_physmap(SHARED_INFO, gfn=beyond + gfn)
    assert domain.content(gfn) is HOLE


def test_invalid_gfn_is_refused_and_leaves_no_record(domain: Domain) -> None:
    """GFN ~0 is Xen's own word for "nowhere": EINVAL, and a real GFN can follow."""
    (gfn,) = domain.hole_pages(1)
    with xen_error(EINVAL):
        domain.add_to_physmap(SHARED_INFO, gfn=INVALID_GFN)
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    assert domain.content(gfn) is SHARED_INFO_PAGE
