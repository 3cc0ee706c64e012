"""RAM without a machine: what is found, and that looking does not fill it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from harness.ram import Ram

BASE, SIZE = 0x40000000, 64 << 20
PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture
def ram() -> Iterator[Ram]:
    ram = Ram(BASE, SIZE)
    yield ram
    ram.close()


def populated(ram: Ram) -> int:
    return sum(end - start for start, end in ram.extents())


def test_starts_empty(ram: Ram) -> None:
    assert list(ram.extents()) == []
    assert ram.find(b"\0") is None


def test_reads_what_was_written_at_physical_addresses(ram: Ram) -> None:
    ram.write(BASE + 5, b"hello")
    assert ram.read(BASE + 4, 7) == b"\0hello\0"
    assert bytes(ram.view[5:10]) == b"hello"


@pytest.mark.parametrize("address", [0, BASE - 1, BASE + SIZE, BASE + SIZE - 1])
def test_what_is_not_ram_is_refused(ram: Ram, address: int) -> None:
    with pytest.raises(ValueError, match="not RAM"):
        ram.read(address, 2)
    with pytest.raises(ValueError, match="not RAM"):
        ram.write(address, b"xx")


def test_finds_everything_and_fills_no_hole(ram: Ram) -> None:
    places = [100, 10 * PAGE, 11 * PAGE - 3, SIZE - 6]
    for place in places:
        ram.write(BASE + place, b"needle")
    before = populated(ram)
    assert list(ram.find_all(b"needle")) == places
    assert ram.find(b"needle") == 100
    assert populated(ram) == before == 4 * PAGE


def test_nobody_can_cut_it_short(ram: Ram) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(ram.fd, PAGE)


def test_close_is_not_upset_by_a_view_that_is_still_held() -> None:
    ram = Ram(BASE, SIZE)
    ram.write(BASE, b"kept")
    view = ram.view[:4]
    ram.close()
    ram.close()
    assert bytes(view) == b"kept"
