"""dom0 is under the same rule as a domU: shared_info and each grant frame at one GFN at a time.

The agent runs as dom0 alone: this works on a Xen without dom0less, too.
"""

import pytest

from harness.vocabulary import (
    EBUSY,
    GRANT_TABLE,
    HOLE,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Domain,
    GrantFrame,
    xen_error,
)

pytestmark = pytest.mark.scenario("dom0")


def test_second_map_of_shared_info_is_refused(dom0: Domain) -> None:
    """EBUSY, and the first GFN keeps the page (71320946d5)."""
    first, second = dom0.hole_pages(2)
    dom0.add_to_physmap(SHARED_INFO, gfn=first)
    with xen_error(EBUSY):
        dom0.add_to_physmap(SHARED_INFO, gfn=second)
    assert dom0.content(first) is SHARED_INFO_PAGE
    assert dom0.content(second) is HOLE


def test_second_map_of_a_grant_frame_is_refused(dom0: Domain) -> None:
    """EBUSY, and the first GFN keeps the frame (71320946d5)."""
    first, second = dom0.hole_pages(2)
    dom0.add_to_physmap(GRANT_TABLE, gfn=first)
    with xen_error(EBUSY):
        dom0.add_to_physmap(GRANT_TABLE, gfn=second)
    assert dom0.content(first) == GrantFrame(0)
    assert dom0.content(second) is HOLE


def test_map_remove_map_elsewhere(dom0: Domain) -> None:
    """Both pages may be moved in two steps."""
    for space, content in ((SHARED_INFO, SHARED_INFO_PAGE), (GRANT_TABLE, GrantFrame(0))):
        first, second = dom0.hole_pages(2)
        dom0.add_to_physmap(space, gfn=first)
        dom0.remove_from_physmap(first)
        dom0.add_to_physmap(space, gfn=second)
        assert dom0.content(first) is HOLE
        assert dom0.content(second) == content


def test_ram_given_back_comes_back_where_it_was(dom0: Domain) -> None:
    """dom0 is mapped directly: a page it gave back is the page it gets for the same GFN."""
    (gfn,) = dom0.ram_pages(1)
    pages = dom0.current_reservation()
    assert dom0.decrease_reservation([gfn]) == 1
    assert dom0.content(gfn) is HOLE
    assert dom0.populate_physmap([gfn]) == 1
    assert dom0.current_reservation() == pages
