"""Two vCPUs at once: the P2M lock is held from the look at the record to the writing of it.

Two physical CPUs run both vCPUs of a domU at the same moment; each case meets many times over, at
varied distances. A round that happens to go one after the other proves nothing: these cases can
miss a bug, they cannot report one that is not there.
"""

from itertools import count

import pytest

from harness.vocabulary import (
    EBUSY,
    GRANT_TABLE,
    HOLE,
    SHARED_INFO,
    SHARED_INFO_PAGE,
    Content,
    Domain,
    GrantFrame,
    memory_calls,
)

pytestmark = pytest.mark.scenario("domu", vcpus=2, pcpus=2)
ROUNDS = 24
SKEWS_NS = [0, 2_000, -2_000, 10_000, -10_000, 50_000]


@pytest.mark.parametrize(
    ("space", "page"),
    [(SHARED_INFO, SHARED_INFO_PAGE), (GRANT_TABLE, GrantFrame(0))],
    ids=["shared_info", "grant_frame"],
)
def test_two_maps_at_once_have_one_winner(domain: Domain, space: int, page: Content) -> None:
    """Exactly one is done, the other is EBUSY, and the page is at the winner's GFN alone."""
    gfns = domain.hole_pages(2)
    one, other = ([memory_calls.add_to_physmap(space, gfn=gfn)] for gfn in gfns)
    for turn in range(ROUNDS):
        answers = domain.race(one, other, skew_ns=SKEWS_NS[turn % len(SKEWS_NS)])
        errors = [answer.errno for (answer,) in answers]
        assert sorted(errors) == [0, EBUSY]
        winner, loser = (gfns[errors.index(0)], gfns[errors.index(EBUSY)])
        assert domain.content(winner) == page
        assert domain.content(loser) is HOLE
        domain.remove_from_physmap(winner)


def test_removal_and_map_at_once_never_leave_two_mappings(domain: Domain) -> None:
    """One vCPU removes A while the other maps at B: the page is at B or nowhere, never at both."""
    at, elsewhere = domain.hole_pages(2)
    for turn in count():
        domain.add_to_physmap(SHARED_INFO, gfn=at)
        (removed,), (mapped,) = domain.race(
            [memory_calls.remove_from_physmap(at)],
            [memory_calls.add_to_physmap(SHARED_INFO, gfn=elsewhere)],
            skew_ns=SKEWS_NS[turn % len(SKEWS_NS)],
        )
        assert removed.errno == 0
        assert mapped.errno in (0, EBUSY)
        assert domain.content(at) is HOLE
        assert domain.content(elsewhere) is (HOLE if mapped.errno else SHARED_INFO_PAGE)
        if not mapped.errno:
            domain.remove_from_physmap(elsewhere)
        if turn == ROUNDS:
            return
