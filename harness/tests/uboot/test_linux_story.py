"""What a page of shared_info says of the Linux that runs beside it, and when that says nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.errors import HarnessError
from harness.reproductions.uboot_linux import (
    LINUX_ROWS,
    MASKED,
    MASKED_AT,
    LinuxCell,
    _given_up,
    classify,
    judge,
    overwritten_in,
)
from harness.reproductions.uboot_shared_info import CONTROL, Found
from harness.xenabi import PAGE_SIZE

# What Linux 6.1 said where Xen 4.17 refused it; the lines between are left out.
STOPPED = """\
(d1) [    0.150132] ------------[ cut here ]------------
(d1) [    0.150146] kernel BUG at arch/arm64/xen/../../arm/xen/enlighten.c:475!
(d1) [    0.150165] pc : xen_guest_init+0x210/0x3ac
"""
SOUND = bytes(MASKED_AT) + MASKED + bytes(PAGE_SIZE - MASKED_AT - len(MASKED))


def test_a_mask_of_ones_is_sound() -> None:
    assert overwritten_in(SOUND) == 0
    assert overwritten_in(bytes(8) + SOUND[8:]) == 0  # what is before it is not looked at
    assert overwritten_in(bytes(PAGE_SIZE)) == len(MASKED)
    assert overwritten_in(SOUND[: MASKED_AT + 100] + b"X" + SOUND[MASKED_AT + 101 :]) == 1


def test_what_a_running_linux_amounts_to() -> None:
    assert classify((0x401F1, 0x4DF96), 454) is Found.ALIAS
    assert classify((0x401F1,), 0) is Found.CLEAN
    assert classify((0x401F1,), 3) is Found.BROKEN


def test_why_linux_stopped_is_read_from_its_console() -> None:
    assert _given_up(STOPPED) == (
        "kernel BUG at arch/arm64/xen/../../arm/xen/enlighten.c:475!",
        "[    0.150165] pc : xen_guest_init+0x210/0x3ac",
    )
    assert _given_up(STOPPED.replace("xen_guest_init", "another_place")) == ()
    assert _given_up("(d1) [    1.0] Run /init as init process\n") == ()


def story(control: Found, overwritten: int, **after: Found) -> list[LinuxCell]:
    """The cells of both sides, the way they should be but for what is given."""
    plain = LinuxCell(CONTROL, "old", Found.CLEAN, (0x401F1,), 0, (), 1.0)
    cells = []
    for row in LINUX_ROWS:
        here = row == CONTROL
        found, lost = (control, overwritten) if here else (Found.CLEAN, 0)
        cells.append(replace(plain, row=row, found=found, overwritten=lost))
        usual = Found.REFUSED if here else Found.CLEAN
        found = after.get(row.name.replace("-", "_"), usual)
        cells.append(replace(plain, row=row, side="new", found=found))
    return cells


def test_the_story_holds() -> None:
    assert judge(story(Found.ALIAS, 454), "old", "new") == []


@pytest.mark.parametrize(("control", "overwritten"), [(Found.CLEAN, 0), (Found.ALIAS, 0)])
def test_without_harm_before_nothing_is_said_of_after(control: Found, overwritten: int) -> None:
    with pytest.raises(HarnessError, match="Linux comes to no harm on old"):
        judge(story(control, overwritten), "old", "new")


def test_what_is_wrong_after_is_named() -> None:
    wrong = judge(
        story(Found.ALIAS, 1, forgetful=Found.ALIAS, tidy_slack=Found.BROKEN), "old", "new"
    )
    assert wrong == [
        "Linux, forgetful on new: alias, not refused",
        "Linux, tidy-slack on new: broken, not clean",
    ]
