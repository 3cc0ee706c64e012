"""Indices into the grant table: the table grows to hold one it has room for, and no further.

Source: gnttab_map_frame and gnttab_get_shared_frame_mfn in xen/common/grant_table.c.
"""

import pytest

from harness.vocabulary import (
    EINVAL,
    GRANT_TABLE,
    GRANT_TABLE_STATUS,
    HOLE,
    INVALID_GFN,
    Domain,
    GrantFrame,
    XenError,
    xen_error,
)


def test_index_beyond_the_size_grows_the_table(domain: Domain) -> None:
    """A frame that does not exist yet is made, with all below it."""
    frames, most = domain.grant_table.query_size()
    assert frames + 3 < most
    (gfn,) = domain.hole_pages(1)
    domain.add_to_physmap(GRANT_TABLE, idx=frames + 2, gfn=gfn)
    assert domain.grant_table.query_size() == (frames + 3, most)
    assert domain.content(gfn) == GrantFrame(frames + 2)


def test_last_index_can_be_mapped(domain: Domain) -> None:
    """The maximum is the number of frames: the last one is one less."""
    _, most = domain.grant_table.query_size()
    (gfn,) = domain.hole_pages(1)
    domain.add_to_physmap(GRANT_TABLE, idx=most - 1, gfn=gfn)
    assert domain.grant_table.query_size() == (most, most)
    assert domain.content(gfn) == GrantFrame(most - 1)


def test_index_at_the_maximum_is_refused(domain: Domain) -> None:
    """EINVAL, and the table does not grow."""
    frames, most = domain.grant_table.query_size()
    (gfn,) = domain.hole_pages(1)
    with xen_error(EINVAL):
        domain.add_to_physmap(GRANT_TABLE, idx=most, gfn=gfn)
    assert domain.grant_table.query_size() == (frames, most)
    assert domain.content(gfn) is HOLE


@pytest.mark.parametrize("idx", [0xFFFFFFFF, GRANT_TABLE_STATUS, GRANT_TABLE_STATUS | 1], ids=hex)
def test_status_frame_of_a_version_1_table_is_refused(domain: Domain, idx: int) -> None:
    """Bit 31 asks for a status frame, which a table of version 1 does not have: EINVAL."""
    (gfn,) = domain.hole_pages(1)
    with xen_error(EINVAL):
        domain.add_to_physmap(GRANT_TABLE, idx=idx, gfn=gfn)
    assert domain.content(gfn) is HOLE


@pytest.mark.parametrize("idx", [1 << 32, 1 << 63], ids=hex)
def test_index_beyond_32_bits_does_xen_no_harm(domain: Domain, idx: int) -> None:
    """Refused, or cut to 32 bits; 4.15 and 4.16 read far beyond the table and took an abort."""
    (gfn,) = domain.hole_pages(1)
    try:
        domain.add_to_physmap(GRANT_TABLE, idx=idx, gfn=gfn)
    except XenError as error:
        assert error.errno == EINVAL
        assert domain.content(gfn) is HOLE
    else:
        assert domain.content(gfn) == GrantFrame(0)


def test_invalid_gfn_is_refused_and_leaves_no_record(domain: Domain) -> None:
    """GFN ~0: EINVAL, nothing is on record, and a real GFN can follow."""
    (gfn,) = domain.hole_pages(1)
    with xen_error(EINVAL):
        domain.add_to_physmap(GRANT_TABLE, gfn=INVALID_GFN)
    assert domain.grant_table.setup(1) == [INVALID_GFN]
    domain.add_to_physmap(GRANT_TABLE, gfn=gfn)
    assert domain.content(gfn) == GrantFrame(0)


def test_setup_grows_the_table_without_mapping_it(domain: Domain) -> None:
    """GNTTABOP_setup_table with more frames makes them; each has no GFN until it is mapped."""
    _, most = domain.grant_table.query_size()
    assert domain.grant_table.setup(5) == [INVALID_GFN] * 5
    assert domain.grant_table.query_size() == (5, most)
