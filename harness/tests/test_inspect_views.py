"""What `xenverify inspect` is asked to show, as a person types it."""

from __future__ import annotations

import pytest

from harness.cli.inspect import View, read_views
from harness.errors import UsageError


@pytest.mark.parametrize(
    ("words", "views"),
    [
        ([], [View("domains"), View("rules")]),
        (["physmap"], [View("physmap")]),
        (["physmap", "d1"], [View("physmap", (1,))]),
        (["physmap", "rules"], [View("physmap"), View("rules")]),
        (["gfn", "dom0", "0x40000"], [View("gfn", (0, 0x40000))]),
        (["page", "0x4a01b", "grants", "2"], [View("page", (0x4A01B,)), View("grants", (2,))]),
    ],
)
def test_views_are_read(words: list[str], views: list[View]) -> None:
    assert read_views(words) == views


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nonsense"], "there is no view nonsense"),
        (["page"], "the view page needs MFN"),
        (["gfn", "d1"], "the view gfn needs DOM and GFN"),
        (["gfn", "d1", "rules"], "the view gfn needs DOM and GFN"),
        (["physmap", "dX"], "dX is no DOM"),
        (["page", "d1"], "d1 is no MFN"),
    ],
)
def test_what_cannot_be_shown_is_refused(words: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_views(words)
