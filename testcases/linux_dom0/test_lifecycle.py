"""What the end of a domain leaves mapped: nothing.

Seen by Xen's own tables, from outside: a page that Xen forgot to give back is in no list that a
toolstack can read.
"""

import contextlib

import pytest

from harness.booting import Booted
from harness.errors import XenHung
from harness.inspection.leftovers import leftovers
from harness.inspection.snapshot import DomainState
from harness.linux_dom0.toolstack import Toolstack
from harness.memory_calls import add_to_physmap_batch, remove_from_physmap
from harness.vocabulary import EBUSY, GRANT_TABLE, SHARED_INFO, Domain, xen_error
from harness.xenabi import MapSpace, Shutdown

pytestmark = pytest.mark.scenario("linux_dom0")

SECONDS = 10.0
SOFT_RESET = 5  # SHUTDOWN_soft_reset in xen/include/public/sched.h
FAR_GFN = 0x300000  # 12 GiB: no RAM and no device of the machine is there


def map_everything(host: Booted, domain: Domain) -> DomainState:
    """Map shared_info and two grant frames, over a hole and over RAM; return what Xen recorded."""
    _, hole = domain.hole_pages(2)  # what may befall the first one: test_xl_domus.py
    page, other = domain.ram_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=hole)
    domain.add_to_physmap(GRANT_TABLE, gfn=page, idx=0)
    domain.add_to_physmap(GRANT_TABLE, gfn=other, idx=1)
    state = host.inspector.domain(domain)
    shared = state.shared_pages()
    entries = [state.physmap.get(gfn) for gfn in (hole, page, other)]
    found = [shared.get(entry.mfn) if entry else "nothing" for entry in entries]
    assert found == ["shared_info", "grant frame 0", "grant frame 1"]
    return state


def wait_for_its_end(
    host: Booted, before: DomainState, expected: tuple[str, ...] = ()
) -> list[str]:
    """Return what is left of a domain: what is `expected`, or what is left after some time."""

    def left() -> list[str]:
        return leftovers(before, host.inspector.snapshot())

    with contextlib.suppress(XenHung):
        host.wait(lambda: left() == [*expected], SECONDS, f"the end of {before.name}")
    return left()


def test_destroy_leaves_nothing(toolstack: Toolstack, host: Booted) -> None:
    """xl destroy of a domain with everything mapped: no domain and no page of it is left."""
    before = toolstack.free_memory()
    domain = toolstack.create_agent()
    state = map_everything(host, domain)
    assert toolstack.free_memory() < before
    toolstack.destroy(domain.domid)
    assert wait_for_its_end(host, state) == []
    assert toolstack.domains() == {}
    assert toolstack.free_memory() == before


def test_a_page_that_dom0_maps_stays_until_it_lets_go(toolstack: Toolstack, host: Booted) -> None:
    """A foreign mapping keeps the page, and the dead domain with it; its removal ends both."""
    domain = toolstack.create_agent()
    (gfn,) = domain.ram_pages(1)
    entries = [(gfn, FAR_GFN)]
    mapped = add_to_physmap_batch(MapSpace.gmfn_foreign, entries, foreign_domid=domain.domid)
    assert toolstack.privcmd.do(mapped) == [0]
    state = map_everything(host, domain)
    mfn = state.physmap[gfn].mfn
    toolstack.destroy(domain.domid)
    expected = (
        f"{domain.name} is on Xen's list, dead, with 1 pages and 0 xenheap pages",
        f"mfns {mfn:#x} to {mfn:#x} belong to {domain.name}",
        f"d0 gfn {FAR_GFN:#x} maps mfn {mfn:#x} of {domain.name}",
    )
    assert wait_for_its_end(host, state, expected) == [*expected]
    toolstack.privcmd.do(remove_from_physmap(FAR_GFN))
    assert wait_for_its_end(host, state) == []


def test_a_second_domain_of_the_same_name_starts_afresh(toolstack: Toolstack, host: Booted) -> None:
    """Nothing that Xen recorded of the first domain is true of the second."""
    first = toolstack.create_agent()
    state = map_everything(host, first)
    toolstack.destroy(first.domid)
    second = toolstack.create_agent()
    assert second.domid != first.domid
    map_everything(host, second)
    assert wait_for_its_end(host, state) == []


def test_reboot_starts_afresh(toolstack: Toolstack, host: Booted) -> None:
    """A guest that asks for a reboot comes back as a new domain, which may map everything again."""
    domain = toolstack.create_agent()
    state = map_everything(host, domain)
    domain.shutdown(Shutdown.reboot)
    again = toolstack.meet(toolstack.wait_for_another("agent", domain.domid))
    map_everything(host, again)
    (other,) = again.hole_pages(1)
    with xen_error(EBUSY):
        again.add_to_physmap(SHARED_INFO, gfn=other)
    assert wait_for_its_end(host, state) == []


def test_a_guest_that_crashed_keeps_its_pages_until_destroyed(
    toolstack: Toolstack, host: Booted
) -> None:
    """A crashed guest is preserved for a look, with all it had mapped, and goes when told to."""
    domain = toolstack.create_agent()
    state = map_everything(host, domain)
    domain.shutdown(Shutdown.crash)
    assert toolstack.domains() == {"agent": domain.domid}
    preserved = host.inspector.domain(domain)
    assert (preserved.dying, preserved.physmap) == (0, state.physmap)
    toolstack.destroy(domain.domid)
    assert wait_for_its_end(host, state) == []


def test_soft_reset_leaves_nothing_mapped(toolstack: Toolstack, host: Booted) -> None:
    """What a guest had mapped before SHUTDOWN_soft_reset is not mapped behind it.

    Arm's arch_domain_soft_reset() is not there (ENOSYS), so xl destroys the domain: what kexec on
    x86 relies upon, a guest on Arm that boots a second kernel has to do without
    (testcases/second_kernel). Cannot tell a reset that keeps the domain from its end.
    """
    domain = toolstack.create_agent()
    state = map_everything(host, domain)
    shared = set(state.shared_pages())
    domain.shutdown(SOFT_RESET)

    def is_mapped() -> bool:
        now = host.inspector.snapshot().domains.get(domain.domid)
        return now is not None and any(now.physmap.gfns_of(mfn) for mfn in shared)

    host.wait(lambda: not is_mapped(), SECONDS, "the soft reset of the domain")
    if domain.domid not in host.inspector.snapshot().domains:
        assert wait_for_its_end(host, state) == []


def test_save_and_restore_where_arm_has_it(toolstack: Toolstack, host: Booted) -> None:
    """A restored domain's shared pages are its own, and those of the saved one are gone."""
    if "save" not in toolstack.commands():
        pytest.skip("this xl has no save: libxl is built without suspend and resume for Arm")
    domain = toolstack.create_agent()
    state = map_everything(host, domain)
    toolstack.xl("save", domain.domid, "/root/saved")
    assert wait_for_its_end(host, state) == []
    toolstack.xl("restore", "/root/saved")
    map_everything(host, toolstack.meet(toolstack.domid("agent")))
