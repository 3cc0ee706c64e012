"""Guests that xl makes: bare metal from inside, and Linux."""

import re

import pytest

from harness.cache import default_cache
from harness.linux_dom0.guests import linux_guest
from harness.linux_dom0.toolstack import Toolstack
from harness.memory_calls import add_to_physmap
from harness.vocabulary import (
    EBUSY,
    GRANT_TABLE,
    HOLE,
    RAM,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    GrantFrame,
    xen_error,
)

pytestmark = pytest.mark.scenario("linux_dom0")


def test_second_mapping_of_shared_info_is_refused_inside(toolstack: Toolstack) -> None:
    """A guest of the toolstack's is under the same rule as one of Xen's own making."""
    domain = toolstack.create_agent()
    first, second = domain.ram_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    with xen_error(EBUSY):
        domain.add_to_physmap(SHARED_INFO, gfn=second)
    assert domain.content(first) is SHARED_INFO_PAGE
    assert domain.content(second) is RAM


def test_grant_frame_is_mapped_once_inside(toolstack: Toolstack) -> None:
    """libxl has entered console and xenstore in the grant table; its frame is still unmapped."""
    domain = toolstack.create_agent()
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(GRANT_TABLE, gfn=first)
    with xen_error(EBUSY):
        domain.add_to_physmap(GRANT_TABLE, gfn=second)
    assert domain.content(first) == GrantFrame(0)
    assert domain.content(second) is HOLE


def test_grant_frame_takes_nothing_away_where_libxl_had_it(toolstack: Toolstack) -> None:
    """libxl has had frame 0 at a domain's first hole, and unmapped it; that is past (71320946d5).

    Before, Xen went on believing it there: the guest's own map of the frame, wherever it went, took
    away what the guest had put into the hole meanwhile.
    """
    domain = toolstack.create_agent()
    first, second = domain.hole_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=first)
    domain.add_to_physmap(GRANT_TABLE, gfn=second)
    assert domain.content(second) == GrantFrame(0)
    assert domain.content(first) is SHARED_INFO_PAGE


def test_libxl_gives_a_domain_one_mib_of_slack(toolstack: Toolstack) -> None:
    """LIBXL_MAXMEM_CONSTANT: a guest may own 256 pages more than it has, so populating works."""
    domain = toolstack.create_agent()
    slack = domain.maximum_reservation() - domain.current_reservation()
    assert 0 < slack <= 256
    assert domain.populate_physmap(domain.hole_pages(1)) == 1


def test_linux_runs_and_its_shared_info_is_mapped_once(toolstack: Toolstack) -> None:
    """A Linux that runs has mapped shared_info: nobody else may, and it does not notice."""
    domid = toolstack.create(linux_guest("linux", default_cache()))
    said = toolstack.wait_for_console("linux", "guest: up")
    assert re.search(r"guest: hypervisor is xen", said)
    with xen_error(EBUSY):
        toolstack.privcmd.do(add_to_physmap(SHARED_INFO, gfn=0x38800, domid=domid))
    toolstack.type(domid, "echo still $((6 * 7))\n")
    toolstack.wait_for_console("linux", "still 42")


def test_linux_powers_off_and_xl_forgets_it(toolstack: Toolstack) -> None:
    """poweroff inside ends the domain, and dom0 has its memory back."""
    before = toolstack.free_memory()
    domid = toolstack.create(linux_guest("linux", default_cache()))
    toolstack.wait_for_console("linux", "guest: up")
    toolstack.type(domid, "poweroff -f\n")
    toolstack.wait_until_gone("linux")
    assert toolstack.free_memory() == before
