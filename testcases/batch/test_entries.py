"""XENMEM_add_to_physmap_batch: every entry has an error of its own, and is done like a single map.

Source: xenmem_add_to_physmap_batch in xen/common/memory.c.
"""

from errno import EBUSY, EINVAL

from harness.vocabulary import (
    GRANT_TABLE,
    HOLE,
    INVALID_GFN,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Domain,
    GrantFrame,
    XenError,
    memory_calls,
)


def test_each_entry_is_mapped(domain: Domain) -> None:
    """Four frames in one call, each at its GFN."""
    gfns = domain.hole_pages(4)
    assert domain.add_to_physmap_batch(GRANT_TABLE, list(enumerate(gfns))) == [0] * 4
    assert [domain.content(gfn) for gfn in gfns] == [GrantFrame(idx) for idx in range(4)]
    assert domain.grant_table.setup(4) == gfns


def test_one_bad_entry_does_not_stop_the_others(domain: Domain) -> None:
    """Index 5 of shared_info does not exist; a second map of index 0 is EBUSY (71320946d5)."""
    first, second, third = domain.hole_pages(3)
    entries = [(0, first), (5, second), (0, third)]
    assert domain.add_to_physmap_batch(SHARED_INFO, entries) == [0, -EINVAL, -EBUSY]
    assert domain.content(first) is SHARED_INFO_PAGE
    assert domain.content(second) is HOLE
    assert domain.content(third) is HOLE


def test_second_map_of_a_frame_is_refused_within_a_batch(domain: Domain) -> None:
    """One frame thrice and one that does not exist: the first entry wins (71320946d5)."""
    first, second = domain.hole_pages(2)
    _, most = domain.grant_table.query_size()
    entries = [(0, first), (0, first), (0, second), (most, second)]
    errors = domain.add_to_physmap_batch(GRANT_TABLE, entries)
    assert errors == [0, -EBUSY, -EBUSY, -EINVAL]
    assert domain.content(first) == GrantFrame(0)
    assert domain.content(second) is HOLE


def test_invalid_gfn_in_the_middle_is_refused(domain: Domain) -> None:
    """EINVAL of the entry, or of the call from there on; what came before stands (ef0f94a48f)."""
    first, last = domain.hole_pages(2)
    entries = [(0, first), (1, INVALID_GFN), (2, last)]
    (answer,) = domain.attempt([memory_calls.add_to_physmap_batch(GRANT_TABLE, entries)])
    if answer.error is None:
        assert answer.value == [0, -EINVAL, 0]
        assert domain.content(last) == GrantFrame(2)
    else:
        assert isinstance(answer.error, XenError)
        assert answer.errno == EINVAL
        assert domain.content(last) is HOLE
    assert domain.content(first) == GrantFrame(0)


def test_a_long_batch_is_done_whole(domain: Domain) -> None:
    """More entries than Xen does without looking up: the call is continued, and none is lost."""
    (gfn,) = domain.hole_pages(1)
    count = 300
    entries = [(0, gfn)] + [(1, gfn)] * (count - 1)  # index 1 of shared_info does not exist
    errors = domain.add_to_physmap_batch(SHARED_INFO, entries)
    assert errors == [0] + [-EINVAL] * (count - 1)
    assert domain.content(gfn) is SHARED_INFO_PAGE
