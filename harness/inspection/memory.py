"""The machine's RAM in, integers and bytes at Xen's own virtual addresses out.

`Ram` is what a host offers (harness.ram.Ram is one); `AddressSpace` walks EL2's page tables in it,
as arm64's MMU would for a 4 KiB granule. Knows no structure of Xen's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Protocol

from harness.inspection.errors import CannotInspect

PAGE = 4096
PAGE_SHIFT = 12
#: Output address of a descriptor, and base of a table: bits 47 to 12 (48-bit addresses only).
ADDRESS_MASK = 0x0000_FFFF_FFFF_F000


class Ram(Protocol):
    """Guest-physical RAM of one machine, mapped from the file that backs it."""

    base: int  # physical address of the first byte
    size: int  # bytes
    view: memoryview
    fd: int

    def find_all(self, needle: bytes) -> Iterator[int]:
        """Yield the offset of each occurrence in populated RAM; reading a hole would fill it."""
        ...


class NotMapped(CannotInspect):
    """An address has no translation, or one that leads out of the machine's RAM."""


def check_present(ram: Ram) -> None:
    """Refuse RAM whose file was cut short: touching what is gone would end Python by SIGBUS."""
    try:
        size = os.fstat(ram.fd).st_size
    except OSError as error:
        raise CannotInspect(f"the machine's RAM file is gone: {error.strerror}") from error
    if size < ram.size:
        raise CannotInspect(f"the machine's RAM file was cut to {size} of {ram.size} bytes")


class AddressSpace:
    """One EL2 translation regime: Xen's own view of memory."""

    def __init__(self, ram: Ram, root: int) -> None:
        """`root` is the physical address of the level 0 table."""
        self.ram = ram
        self.root = root
        self.words = ram.view.cast("Q")
        self._pages: dict[int, int] = {}

    def forget(self) -> None:
        """Drop remembered translations: Xen may have changed its page tables since."""
        self._pages.clear()

    def word_at(self, physical: int) -> int:
        """Return the 64-bit word at an aligned physical address."""
        offset = physical - self.ram.base
        if not 0 <= offset <= self.ram.size - 8:
            raise NotMapped(f"physical address {physical:#x} is outside the machine's RAM")
        return self.words[offset >> 3]

    def physical(self, address: int) -> int:
        """Translate a virtual address."""
        page = self._pages.get(address >> PAGE_SHIFT)
        if page is None:
            page = self._walk(address)[0] & ~(PAGE - 1)
            self._pages[address >> PAGE_SHIFT] = page
        return page | (address & (PAGE - 1))

    def _walk(self, address: int) -> tuple[int, int]:
        """Return the physical address and how many bytes follow in the same page or block."""
        table = self.root
        for level in range(4):
            shift = 39 - 9 * level
            entry = self.word_at(table + ((address >> shift) & 511) * 8)
            if not entry & 1:
                break
            if level == 3 or not entry & 2:
                inside = (1 << shift) - 1
                physical = (entry & ADDRESS_MASK & ~inside) | (address & inside)
                return physical, inside + 1 - (address & inside)
            table = entry & ADDRESS_MASK
        raise NotMapped(f"Xen does not map {address:#x} (level {level})")

    def pieces(self, address: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (physical, length) pieces, adjacent ones joined, that make up a virtual range."""
        start = size = 0
        while length:
            physical, left = self._walk(address)
            step = min(length, left)
            if size and physical == start + size:
                size += step
            else:
                if size:
                    yield start, size
                start, size = physical, step
            address += step
            length -= step
        if size:
            yield start, size

    def read(self, address: int, length: int) -> bytes:
        """Return `length` bytes from a virtual address."""
        return b"".join(self.read_at(*piece) for piece in self.pieces(address, length))

    def read_at(self, physical: int, length: int) -> bytes:
        """Return `length` bytes from a physical address."""
        offset = physical - self.ram.base
        if not 0 <= offset <= self.ram.size - length:
            raise NotMapped(f"physical address {physical:#x} is outside the machine's RAM")
        return bytes(self.ram.view[offset : offset + length])

    def integer(self, address: int, size: int = 8) -> int:
        """Return an unsigned little-endian integer of `size` bytes, aligned to its size."""
        if size == 8:
            return self.word_at(self.physical(address))
        return int.from_bytes(self.read_at(self.physical(address), size), "little")

    def close(self) -> None:
        """Release the view, so that the RAM's mapping can be closed."""
        self.words.release()
