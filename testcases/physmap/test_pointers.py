"""Arguments that Xen cannot read: EFAULT, before anything is done; alignment does not matter.

Xen copies hypercall arguments from guest memory byte by byte, page by page (copy_from_guest in
xen/arch/arm/guestcopy.c): a structure that begins in RAM and ends in a hole is as unreadable as one
that is in a hole altogether.
"""

import pytest

from harness import xenabi
from harness.vocabulary import (
    DOMID_SELF,
    EFAULT,
    HOLE,
    PAGE_SIZE,
    RAM,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Domain,
    Hypercall,
    MemoryOp,
    xen_error,
)

READERS = [MemoryOp.add_to_physmap, MemoryOp.remove_from_physmap, MemoryOp.add_to_physmap_batch]


@pytest.mark.parametrize("operation", READERS, ids=lambda operation: operation.name)
def test_argument_in_a_hole(domain: Domain, operation: MemoryOp) -> None:
    """Nothing is there to be read: EFAULT."""
    (gfn,) = domain.hole_pages(1)
    with xen_error(EFAULT):
        domain.hypercall(Hypercall.memory_op, operation, gfn * PAGE_SIZE)


@pytest.mark.parametrize("operation", READERS, ids=lambda operation: operation.name)
def test_argument_at_an_address_no_guest_has(domain: Domain, operation: MemoryOp) -> None:
    """An address beyond any stage 2: EFAULT."""
    with xen_error(EFAULT):
        domain.hypercall(Hypercall.memory_op, operation, (1 << 64) - PAGE_SIZE)


def test_argument_that_ends_in_a_hole(domain: Domain) -> None:
    """The structure's first half is readable, its second is not: EFAULT, and nothing is mapped."""
    page, gone = domain.ram_pages(2)
    (gfn,) = domain.hole_pages(1)
    domain.remove_from_physmap(gone)
    structure = xenabi.ADD_TO_PHYSMAP.pack(domid=DOMID_SELF, space=SHARED_INFO, idx=0, gpfn=gfn)
    address = gone * PAGE_SIZE - 8  # 8 bytes in `page`, the rest behind it
    domain.store(address, int.from_bytes(structure[:8], "little"))
    with xen_error(EFAULT):
        domain.hypercall(Hypercall.memory_op, MemoryOp.add_to_physmap, address)
    assert domain.content(gfn) is HOLE
    assert domain.content(page) is RAM


@pytest.mark.parametrize("offset", [1, 2, 4, 7])
def test_unaligned_argument_is_read_all_the_same(domain: Domain, offset: int) -> None:
    """Xen copies bytes: the map succeeds from any address."""
    (gfn,) = domain.hole_pages(1)
    structure = xenabi.ADD_TO_PHYSMAP.pack(domid=DOMID_SELF, space=SHARED_INFO, idx=0, gpfn=gfn)
    address = domain.put(bytes(structure), align=16, offset=offset)
    assert domain.hypercall(Hypercall.memory_op, MemoryOp.add_to_physmap, address) == 0
    assert domain.content(gfn) is SHARED_INFO_PAGE


def test_argument_across_two_pages_is_read_whole(domain: Domain) -> None:
    """Both pages are there: the map succeeds."""
    page, _ = domain.ram_pages(2)
    (gfn,) = domain.hole_pages(1)
    structure = xenabi.ADD_TO_PHYSMAP.pack(domid=DOMID_SELF, space=SHARED_INFO, idx=0, gpfn=gfn)
    address = (page + 1) * PAGE_SIZE - 8
    for offset in range(0, len(structure), 8):
        word = int.from_bytes(structure[offset : offset + 8], "little")
        domain.store(address + offset, word)
    assert domain.hypercall(Hypercall.memory_op, MemoryOp.add_to_physmap, address) == 0
    assert domain.content(gfn) is SHARED_INFO_PAGE


def test_populating_from_an_unreadable_argument_does_nothing(domain: Domain) -> None:
    """populate_physmap says how many extents were done, and none was."""
    (gfn,) = domain.hole_pages(1)
    pages = domain.current_reservation()
    done = domain.hypercall(Hypercall.memory_op, MemoryOp.populate_physmap, gfn * PAGE_SIZE)
    assert done == 0
    assert domain.current_reservation() == pages
