"""Batches of a space that cannot be batched, of nothing, or from a domain that is none.

Source: xenmem_add_to_physmap_batch in xen/common/memory.c, xenmem_add_to_physmap_one in
xen/arch/arm/mm.c.
"""

import pytest

from harness.vocabulary import (
    DOMID_INVALID,
    DOMID_SELF,
    DOMID_XEN,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
    GMFN_FOREIGN,
    GMFN_RANGE,
    HOLE,
    SHARED_INFO,
    Domain,
    memory_calls,
    xen_error,
)


def test_range_cannot_be_batched(domain: Domain) -> None:
    """gmfn_range in a batch: EOPNOTSUPP."""
    (gfn,) = domain.hole_pages(1)
    with xen_error(EOPNOTSUPP):
        domain.add_to_physmap_batch(GMFN_RANGE, [(gfn, gfn)])


def test_empty_batch_is_nothing_to_do(domain: Domain) -> None:
    """No entries: 0."""
    assert domain.add_to_physmap_batch(SHARED_INFO, []) == []


def test_unknown_space_is_an_error_of_the_entry(domain: Domain) -> None:
    """The call is done, each entry says ENOSYS."""
    (gfn,) = domain.hole_pages(1)
    assert domain.add_to_physmap_batch(77, [(0, gfn)]) == [-ENOSYS]
    assert domain.content(gfn) is HOLE


FOREIGN = [
    pytest.param(DOMID_SELF, {EINVAL, ESRCH}, id="self"),  # ESRCH from Xen 4.20 on
    pytest.param(DOMID_INVALID, {ESRCH}, id="invalid"),
    pytest.param(100, {ESRCH}, id="absent"),
    pytest.param(DOMID_XEN, {ESRCH, EPERM}, id="xen"),
]


@pytest.mark.parametrize(("domid", "errors"), FOREIGN)
def test_foreign_page_of_no_other_domain(domain: Domain, domid: int, errors: set[int]) -> None:
    """A foreign page must be another, living domain's, and one the caller may map."""
    (page,) = domain.ram_pages(1)
    (gfn,) = domain.hole_pages(1)
    call = memory_calls.add_to_physmap_batch(GMFN_FOREIGN, [(page, gfn)], foreign_domid=domid)
    (answer,) = domain.attempt([call])
    error = answer.errno if answer.error else -answer.value[0]
    assert error in errors
    assert domain.content(gfn) is HOLE


@pytest.mark.scenario("two_domus")
def test_a_domu_may_not_map_pages_of_another(domains: list[Domain]) -> None:
    """EPERM, as the call's answer or the entry's."""
    one, other = domains
    (page,) = other.ram_pages(1)
    (gfn,) = one.hole_pages(1)
    call = memory_calls.add_to_physmap_batch(GMFN_FOREIGN, [(page, gfn)], foreign_domid=other.domid)
    (answer,) = one.attempt([call])
    assert (answer.errno if answer.error else -answer.value[0]) == EPERM
    assert one.content(gfn) is HOLE
