"""The guest's RAM, shared between QEMU and us through a file that never had a name.

It is a memfd: no directory can be too small for it, and nothing is left behind however we end. What
lies in the RAM, this does not know.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from harness.anonymous import anonymous_memory
from harness.errors import HarnessError


class Ram:
    """Guest RAM from physical address `base` on, `size` bytes; offsets count from `base`.

    Reading a page that holds nothing yet allocates it, here and for QEMU: search only what
    `extents()` names.
    """

    def __init__(self, base: int, size: int) -> None:
        self.base = base
        self.size = size
        try:
            self.fd, self._map = anonymous_memory("xenverify-ram", size)
        except OSError as problem:
            raise HarnessError(f"no {size >> 20} MiB for the guest's RAM: {problem}") from problem
        self.view = memoryview(self._map)

    def extents(self) -> Iterator[tuple[int, int]]:
        """The populated stretches of RAM as (start, end) offsets."""
        end = 0
        while end < self.size:
            try:
                start = os.lseek(self.fd, end, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but hole from here on
                return
            end = os.lseek(self.fd, start, os.SEEK_HOLE)
            yield start, end

    def find_all(self, needle: bytes) -> Iterator[int]:
        """The offset of every occurrence of `needle` in populated RAM."""
        for start, end in self.extents():
            at = self._map.find(needle, start, end)
            while at >= 0:
                yield at
                at = self._map.find(needle, at + 1, end)

    def find(self, needle: bytes) -> int | None:
        """The offset of the first occurrence of `needle` in populated RAM, or None."""
        return next(self.find_all(needle), None)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at physical `address`."""
        offset = self._offset(address, size)
        return self.view[offset : offset + size].tobytes()

    def write(self, address: int, data: bytes) -> None:
        """Put `data` at physical `address`."""
        offset = self._offset(address, len(data))
        self.view[offset : offset + len(data)] = data

    def close(self) -> None:
        """Let go of the RAM; views others still hold stay readable until they let go too."""
        self.view.release()
        with contextlib.suppress(BufferError):
            self._map.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _offset(self, address: int, size: int) -> int:
        offset = address - self.base
        if not 0 <= offset <= self.size - size:
            raise ValueError(f"{address:#x} (+{size:#x}) is not RAM")
        return offset
