"""What a domain may ask about grant tables, and whose.

Source: gnttab_setup_table, gnttab_query_size, gnttab_set_version in xen/common/grant_table.c.
"""

import pytest

from harness.booting import Booted
from harness.vocabulary import ENOSYS, Domain, GrantStatus, grant_error, xen_error


def test_a_domu_may_not_set_up_the_table_of_dom0(host: Booted, domain: Domain) -> None:
    """The status says permission_denied where there is a dom0, bad_domain where there is none."""
    has_dom0 = 0 in host.scenario.domains
    expected = GrantStatus.permission_denied if has_dom0 else GrantStatus.bad_domain
    with grant_error(expected):
        domain.grant_table.setup(1, domid=0)


def test_setup_for_a_domain_that_is_not_there(domain: Domain) -> None:
    """The status says bad_domain."""
    with grant_error(GrantStatus.bad_domain):
        domain.grant_table.setup(1, domid=100)


def test_setup_of_more_frames_than_the_maximum(domain: Domain) -> None:
    """The status says general_error, and the table keeps its size."""
    frames, most = domain.grant_table.query_size()
    with grant_error(GrantStatus.general_error):
        domain.grant_table.setup(most + 1)
    assert domain.grant_table.query_size() == (frames, most)


def test_query_size_of_a_domain_that_is_not_there(domain: Domain) -> None:
    """The status says bad_domain."""
    with grant_error(GrantStatus.bad_domain):
        domain.grant_table.query_size(100)


def test_own_domid_means_the_same_as_domid_self(domain: Domain) -> None:
    """A domain may name itself by its number."""
    assert domain.grant_table.query_size(domain.domid) == domain.grant_table.query_size()


def test_version_is_1_and_stays_so_by_default(domain: Domain) -> None:
    """Arm allows version 1 only unless the command line says otherwise: set_version is ENOSYS."""
    assert domain.grant_table.get_version() == 1
    with xen_error(ENOSYS):
        domain.grant_table.set_version(2)
    assert domain.grant_table.get_version() == 1


@pytest.mark.parametrize("frames", [1, 2])
def test_setup_reports_as_many_gfns_as_asked(domain: Domain, frames: int) -> None:
    """One GFN for each frame asked for."""
    assert len(domain.grant_table.setup(frames)) == frames
