"""What reports of the second stage amount to, and when a reproduction says nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.reproductions.uboot_shared_info import (
    CONTROL,
    ROWS,
    Cell,
    Found,
    Row,
    classify,
    judge,
    last_words,
)
from harness.uboot.second_stage import LAYOUT, Event, Report, read_report

CLEAN = Report(
    complete=1, ram=0x40000000, ram_size=256 << 20, mapped_at=0x38800000, result=0, holes=0,
    aliases=0, alias=0, shared_to_ram=0, ram_to_shared=0, event_before=Event.DELIVERED,
    mask_before=0, mask_after=0, event_after=Event.NONE,
)  # fmt: skip
ALIAS = replace(
    CLEAN, aliases=1, alias=0x4DF97000, shared_to_ram=1, ram_to_shared=1,
    mask_after=2**64 - 1, event_after=Event.LOST,
)  # fmt: skip
REFUSED = replace(ALIAS, result=-16)


@pytest.mark.parametrize(
    ("report", "found"),
    [
        (CLEAN, Found.CLEAN),
        (ALIAS, Found.ALIAS),
        (REFUSED, Found.REFUSED),
        (replace(REFUSED, aliases=0), Found.REFUSED),
        (replace(CLEAN, event_before=Event.NOWHERE), Found.BROKEN),
    ],
)
def test_a_report_has_a_name(report: Report, found: Found) -> None:
    assert classify(report) is found


def test_an_unforeseen_answer_is_our_error() -> None:
    with pytest.raises(HarnessError, match="answered -22"):
        classify(replace(CLEAN, result=-22))


def test_a_report_is_read_as_it_lies_in_memory() -> None:
    values = [int(value) for value in vars(REFUSED).values()]
    assert read_report(LAYOUT.pack(*values)) == REFUSED
    with pytest.raises(HarnessError, match="no RAM in its device tree"):
        read_report(bytes(LAYOUT.size))


def cell(row: Row, side: str, found: Found, report: Report | None = None) -> Cell:
    return Cell(row, side, found, report, (), 1.0, Path(), "qemu")


def story(control: Report, after: dict[str, Found]) -> list[Cell]:
    """The cells of both sides, the way they should be but for what is given."""
    cells = [
        cell(row, "old", Found.CLEAN) if row != CONTROL
        else cell(row, "old", classify(control), control)
        for row in ROWS
    ]  # fmt: skip
    usual = {row.name: Found.REFUSED if row == CONTROL else Found.CLEAN for row in ROWS}
    return cells + [cell(row, "new", (usual | after)[row.name]) for row in ROWS]


def test_the_story_holds() -> None:
    assert judge(story(ALIAS, {"tidy": Found.PANIC}), "old", "new") == []


@pytest.mark.parametrize(
    "control", [CLEAN, REFUSED, replace(ALIAS, event_after=Event.DELIVERED)],
    ids=["no alias", "refused", "no harm"],
)  # fmt: skip
def test_without_the_bug_before_nothing_is_said_of_after(control: Report) -> None:
    with pytest.raises(HarnessError, match="the bug does not show on old"):
        judge(story(control, {}), "old", "new")


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("forgetful", Found.ALIAS),
        ("forgetful", Found.CLEAN),
        ("tidy", Found.ALIAS),
        ("tidy-slack", Found.PANIC),
        ("none", Found.REFUSED),
        ("none", Found.BROKEN),
    ],
)
def test_what_is_wrong_after_is_named(row: str, found: Found) -> None:
    (wrong,) = judge(story(ALIAS, {row: found}), "old", "new")
    assert wrong.startswith(f"{row} on new: {found}, not ")


def test_last_words_are_the_line_before_the_reset() -> None:
    said = "(d1) Starting kernel ...\n(d1) \n(d1) It is all too much\n(d1) \n(d1) resetting ...\n"
    assert last_words(said) == "It is all too much"
    assert last_words("(d1) Starting kernel ...\n") is None
