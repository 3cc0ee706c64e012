"""The toolstack's way into a domU's physmap: XENMEM calls from dom0's userland, over privcmd.

The description of "Store frame GFN in struct page_info on Arm" (71320946d5) names it: "a guest, or
the toolstack, will unmap the grant-table frame". Here the guest is one that xl made, and it runs.
"""

import pytest

from harness.linux_dom0.toolstack import Toolstack
from harness.memory_calls import add_to_physmap, remove_from_physmap
from harness.vocabulary import (
    EBUSY,
    ENOENT,
    GRANT_TABLE,
    HOLE,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    GrantFrame,
    xen_error,
)

pytestmark = pytest.mark.scenario("linux_dom0")


def test_toolstack_may_map_shared_info_once(toolstack: Toolstack) -> None:
    """The second map is EBUSY, and the guest sees the first where it was put."""
    domain = toolstack.create_agent()
    first, second = domain.hole_pages(2)
    toolstack.privcmd.do(add_to_physmap(SHARED_INFO, gfn=first, domid=domain.domid))
    with xen_error(EBUSY):
        toolstack.privcmd.do(add_to_physmap(SHARED_INFO, gfn=second, domid=domain.domid))
    assert domain.content(first) is SHARED_INFO_PAGE
    assert domain.content(second) is HOLE


def test_toolstack_may_move_what_it_removed(toolstack: Toolstack) -> None:
    """Remove, then map elsewhere: 0; to remove what is not there: ENOENT."""
    domain = toolstack.create_agent()
    first, second = domain.hole_pages(2)
    domid = domain.domid
    toolstack.privcmd.do(add_to_physmap(SHARED_INFO, gfn=first, domid=domid))
    toolstack.privcmd.do(remove_from_physmap(first, domid=domid))
    with xen_error(ENOENT):
        toolstack.privcmd.do(remove_from_physmap(first, domid=domid))
    toolstack.privcmd.do(add_to_physmap(SHARED_INFO, gfn=second, domid=domid))
    assert domain.content(first) is HOLE
    assert domain.content(second) is SHARED_INFO_PAGE


def test_toolstack_may_not_move_the_guests_grant_frame(toolstack: Toolstack) -> None:
    """EBUSY, and the frame stays where the guest has it."""
    domain = toolstack.create_agent()
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(GRANT_TABLE, gfn=first)
    with xen_error(EBUSY):
        toolstack.privcmd.do(add_to_physmap(GRANT_TABLE, gfn=second, domid=domain.domid))
    assert domain.content(first) == GrantFrame(0)
    assert domain.content(second) is HOLE


def test_toolstack_unmaps_the_guests_grant_frame(toolstack: Toolstack) -> None:
    """What the toolstack unmaps, Xen forgets: RAM put in its place stays, wherever the frame goes.

    The original bug, by the way the change's description names.
    """
    domain = toolstack.create_agent()
    gfn, other = domain.hole_pages(2)
    (spare,) = domain.ram_pages(1)
    domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
    toolstack.privcmd.do(remove_from_physmap(gfn, domid=domain.domid))
    domain.decrease_reservation([spare])
    assert domain.populate_physmap([gfn]) == 1
    toolstack.privcmd.do(add_to_physmap(GRANT_TABLE, gfn=other, domid=domain.domid))
    domain.store(gfn << 12, 0x5AFE)
    assert domain.load(gfn << 12) == 0x5AFE
    assert domain.content(other) == GrantFrame(0)
