"""What a kernel finds that was booted by another, as by kexec, where nobody has cleaned up.

To Xen nothing has happened: what the first kernel mapped, opened and gave away is still there, and
Xen has no call that undoes all of it (no soft reset on Arm, see test_soft_reset.py). Since
71320946d5 (Xen 4.17) the second kernel is at least told: to map shared_info or a grant frame again
is EBUSY, until it has removed the first mapping. Before, it got a mapping of its own, and a page of
its RAM might be the same page.

These cases cannot tell whether a second kernel would know where to look: the first one's GFN of a
grant frame can be asked for (GNTTABOP_setup_table), that of shared_info cannot.
"""

from collections.abc import Callable

import pytest

from harness.vocabulary import (
    DOMID_SELF,
    EBUSY,
    GRANT_TABLE,
    HOLE,
    RAM,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Content,
    Domain,
    EventOp,
    GrantFrame,
    memory_calls,
    xen_error,
)

BootAgain = Callable[[Domain], Domain]

PAGES = pytest.mark.parametrize(
    ("space", "page"),
    [(SHARED_INFO, SHARED_INFO_PAGE), (GRANT_TABLE, GrantFrame(0))],
    ids=["shared_info", "grant_frame"],
)


@PAGES
def test_map_is_refused_until_the_firsts_is_removed(
    domain: Domain, boot_again: BootAgain, space: int, page: Content
) -> None:
    """EBUSY for the second kernel; once the first one's GFN is removed, it may map (71320946d5)."""
    gfn, other = domain.hole_pages(2)
    domain.add_to_physmap(space, gfn=gfn)
    second = boot_again(domain)
    with xen_error(EBUSY):
        second.add_to_physmap(space, gfn=other)
    assert second.content(gfn) == page
    assert second.content(other) is HOLE
    second.remove_from_physmap(gfn)
    second.add_to_physmap(space, gfn=other)
    assert second.content(gfn) is HOLE
    assert second.content(other) == page


@PAGES
def test_what_was_mapped_over_ram_never_shows_at_two_gfns(
    domain: Domain, boot_again: BootAgain, space: int, page: Content
) -> None:
    """A page of the second kernel's RAM is the first one's: it must not get another (71320946d5).

    This is U-Boot's forgotten page (docs/uboot-shared-info.md), without U-Boot.
    """
    (gfn,), (other,) = domain.ram_pages(1), domain.hole_pages(1)
    domain.add_to_physmap(space, gfn=gfn)
    second = boot_again(domain)
    second.attempt([memory_calls.add_to_physmap(space, gfn=other)])
    assert second.content(gfn) == page
    assert not second.aliases(gfn, other)


def test_the_ram_under_the_firsts_mapping_comes_back(domain: Domain, boot_again: BootAgain) -> None:
    """Removed, it leaves a hole in RAM; a domain with room for a page may populate it again."""
    gfn, spare = domain.ram_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    second = boot_again(domain)
    second.remove_from_physmap(gfn)
    assert second.content(gfn) is HOLE
    second.decrease_reservation([spare])
    assert second.populate_physmap([gfn]) == 1
    assert second.content(gfn) is RAM


def test_setup_table_tells_where_the_firsts_frames_are(
    domain: Domain, boot_again: BootAgain
) -> None:
    """Xen answers with the GFN of the first kernel, which the second one needs to remove it."""
    (gfn,) = domain.hole_pages(1)
    domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
    second = boot_again(domain)
    assert second.grant_table.setup(1) == [gfn]


def test_ram_the_first_gave_back_stays_away(domain: Domain, boot_again: BootAgain) -> None:
    """What the device tree calls RAM is a hole, until the second kernel populates it."""
    pages = domain.current_reservation()
    (gfn,) = domain.ram_pages(1)
    domain.decrease_reservation([gfn])
    second = boot_again(domain)
    assert second.current_reservation() == pages - 1
    assert second.content(gfn) is HOLE
    assert second.populate_physmap([gfn]) == 1
    assert second.content(gfn) is RAM


def test_event_channels_of_the_first_are_open(domain: Domain, boot_again: BootAgain) -> None:
    """Their ports are taken, until the second kernel closes all at once by EVTCHNOP_reset."""
    port = domain.event_channel(EventOp.alloc_unbound, dom=DOMID_SELF, remote_dom=DOMID_SELF)
    second = boot_again(domain)
    other = second.event_channel(EventOp.alloc_unbound, dom=DOMID_SELF, remote_dom=DOMID_SELF)
    assert other != port
    second.event_channel(EventOp.reset, dom=DOMID_SELF)
    again = second.event_channel(EventOp.alloc_unbound, dom=DOMID_SELF, remote_dom=DOMID_SELF)
    assert again == port
