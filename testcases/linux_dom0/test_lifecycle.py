"""What the end of a domain leaves mapped: nothing."""

import pytest

from harness.linux_dom0.toolstack import Toolstack
from harness.vocabulary import EBUSY, GRANT_TABLE, SHARED_INFO, Domain, xen_error
from harness.xenabi import Shutdown

pytestmark = pytest.mark.scenario("linux_dom0")

SOFT_RESET = 5  # SHUTDOWN_soft_reset in xen/include/public/sched.h


def map_everything(domain: Domain) -> None:
    """shared_info and two grant frames, over holes and over RAM."""
    hole, *_ = domain.hole_pages(1)
    page, other = domain.ram_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=hole)
    domain.add_to_physmap(GRANT_TABLE, gfn=page, idx=0)
    domain.add_to_physmap(GRANT_TABLE, gfn=other, idx=1)


def test_destroy_gives_everything_back(toolstack: Toolstack) -> None:
    """xl destroy of a domain with everything mapped: no domain and no page of it is left."""
    before = toolstack.free_memory()
    domain = toolstack.create_agent()
    map_everything(domain)
    assert toolstack.free_memory() < before
    toolstack.destroy(domain.domid)
    assert toolstack.domains() == {}
    assert toolstack.free_memory() == before


def test_a_second_domain_of_the_same_name_starts_afresh(toolstack: Toolstack) -> None:
    """Nothing that Xen recorded of the first domain is true of the second."""
    first = toolstack.create_agent()
    map_everything(first)
    toolstack.destroy(first.domid)
    second = toolstack.create_agent()
    assert second.domid != first.domid
    map_everything(second)


def test_reboot_starts_afresh(toolstack: Toolstack) -> None:
    """A guest that asks for a reboot comes back as a new domain, which may map everything again."""
    domain = toolstack.create_agent()
    map_everything(domain)
    domain.shutdown(Shutdown.reboot)
    again = toolstack.meet(toolstack.wait_for_another("agent", domain.domid))
    map_everything(again)
    (other,) = again.hole_pages(1)
    with xen_error(EBUSY):
        again.add_to_physmap(SHARED_INFO, gfn=other)


def test_a_guest_that_crashed_can_be_destroyed(toolstack: Toolstack) -> None:
    """A crashed guest is preserved for a look, with all it had mapped, and goes when told to."""
    before = toolstack.free_memory()
    domain = toolstack.create_agent()
    map_everything(domain)
    domain.shutdown(Shutdown.crash)
    assert toolstack.domains() == {"agent": domain.domid}
    toolstack.destroy(domain.domid)
    assert toolstack.free_memory() == before


def test_soft_reset_is_refused_on_arm(toolstack: Toolstack) -> None:
    """Arm's arch_domain_soft_reset() does nothing: the domain that asks for it is destroyed.

    What kexec on x86 relies upon, Arm does not have; a guest that boots a second kernel in its own
    place must clean up by itself (see testcases/second_kernel).
    """
    domain = toolstack.create_agent()
    map_everything(domain)
    domain.shutdown(SOFT_RESET)
    toolstack.wait_until_gone("agent")


def test_save_where_arm_has_it(toolstack: Toolstack) -> None:
    """Save and restore keep a guest's mappings apart from the new domain's own."""
    if "save" not in toolstack.commands():
        pytest.skip("xl has no save on Arm: libxl is built without suspend and resume there")
    domain = toolstack.create_agent()
    map_everything(domain)
    toolstack.xl("save", domain.domid, "/root/saved")
    toolstack.xl("restore", "/root/saved")
    map_everything(toolstack.meet(toolstack.domid("agent")))
