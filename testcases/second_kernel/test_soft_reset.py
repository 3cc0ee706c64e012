"""Soft reset is how x86 cleans up between two kernels of one domain; Arm has none.

A guest asks for it by SHUTDOWN_soft_reset, and its toolstack by XEN_DOMCTL_soft_reset; here dom0's
agent is the toolstack. Xen 4.14 to master refuse it on Arm (arch_domain_soft_reset() and, lately,
CONFIG_HAS_SOFT_RESET), so there is no second kernel that could find anything cleaned up.
"""

import pytest

from harness import domctl
from harness.booting import Booted
from harness.builds import Build
from harness.vocabulary import (
    EBUSY,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
    SHARED_INFO,
    Domain,
    Shutdown,
    xen_error,
)

pytestmark = pytest.mark.scenario("dom0_and_domu")
SECONDS = 10.0


def answer_to_soft_reset(host: Booted, dom0: Domain, domain: Domain) -> int:
    """Ask for it as a toolstack does: paused, and not before it has shut down, or it is EINVAL."""
    assert isinstance(host.build, Build)
    tree, domid = host.build.tree, domain.domid

    def ask() -> int | None:
        dom0.do(domctl.pausedomain(tree, domid))
        (answer,) = dom0.attempt([domctl.soft_reset(tree, domid)])
        if answer.errno != EINVAL:
            return answer.errno
        dom0.do(domctl.unpausedomain(tree, domid))
        return None

    return host.wait(ask, SECONDS, f"{domain.name} to shut down")


def test_is_refused_and_cleans_nothing_up(host: Booted, dom0: Domain, domain: Domain) -> None:
    """ENOSYS or EOPNOTSUPP, and the domain's shared_info stays where it was (71320946d5)."""
    gfn, other = domain.hole_pages(2)
    domain.add_to_physmap(SHARED_INFO, gfn=gfn)
    domain.shutdown(Shutdown.soft_reset)
    assert answer_to_soft_reset(host, dom0, domain) in (ENOSYS, EOPNOTSUPP)
    with xen_error(EBUSY):
        dom0.add_to_physmap(SHARED_INFO, gfn=other, domid=domain.domid)
