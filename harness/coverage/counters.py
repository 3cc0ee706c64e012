"""What the plugin counts into, shared with one QEMU; the set of instructions that ran out.

The counters are a memfd, which QEMU inherits and which leaves nothing behind. A `Ran` is one byte
an instruction: small enough, compressed, to keep for every case, and joined by "|". What the
addresses are of, this refuses to know.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness.anonymous import anonymous_memory
from harness.coverage.plugin import NoCoverage, arguments

INSTRUCTION = 4  # bytes, on arm64
COUNTER = 8  # bytes
BLOCK = 4096  # bytes of counters looked at together
NOTHING = bytes(BLOCK)
TO_FLAG = bytes([0] + [1] * 255)
MAGIC = b"xenverify ran 1\n"


@dataclass(frozen=True)
class Ran:
    """Which instructions ran, of those from `low` on: one byte each, 0 or 1."""

    low: int
    flags: bytes = b""

    def __or__(self, other: Ran) -> Ran:
        """Return what ran in either."""
        if self.low != other.low:
            raise ValueError("sets of instructions of two different Xens")
        both = int.from_bytes(self.flags, "little") | int.from_bytes(other.flags, "little")
        return Ran(self.low, both.to_bytes(max(len(self.flags), len(other.flags)), "little"))

    def __contains__(self, address: object) -> bool:
        """Whether the instruction at `address` ran."""
        if not isinstance(address, int):
            return False
        index = (address - self.low) // INSTRUCTION
        return 0 <= index < len(self.flags) and bool(self.flags[index])

    def __len__(self) -> int:
        """How many different instructions ran."""
        return self.flags.count(1)

    def any_of(self, runs: Sequence[int]) -> bool:
        """Whether an instruction of `runs` ran: (first, how many) pairs in a row, from `low` on."""
        find = self.flags.find
        return any(find(1, runs[n], runs[n] + runs[n + 1]) >= 0 for n in range(0, len(runs), 2))

    def save(self, path: Path) -> None:
        """Write a few KiB that `load` reads."""
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        data = self.low.to_bytes(8, "little") + self.flags
        aside.write_bytes(MAGIC + zlib.compress(data, 1))
        aside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read what `save` wrote; None where there is nothing of the kind."""
        try:
            raw = path.read_bytes()
            data = zlib.decompress(raw.removeprefix(MAGIC)) if raw.startswith(MAGIC) else b""
        except (OSError, zlib.error):
            return None
        if len(data) < 8:
            return None
        return cls(int.from_bytes(data[:8], "little"), data[8:])


class Counters:
    """One counter for each instruction from `low` up to `high`; give it to a Host as its probe."""

    def __init__(self, library: Path, low: int, high: int) -> None:
        """`library` is the plugin that will count."""
        self.low = low
        size = (high - low) // INSTRUCTION * COUNTER
        try:
            self.fd, self._map = anonymous_memory("xenverify-counters", size)
        except OSError as error:
            raise NoCoverage(f"no {size} bytes for it: {error}") from error
        self.descriptors = (self.fd,)
        self.arguments = tuple(arguments(library, low, high, f"/proc/self/fd/{self.fd}"))

    def ran(self) -> Ran:
        """Return what ran since the start or the last `clear`; 1 to 5 ms for all of Xen's text.

        Most blocks are all zero. Of the others byte n of every counter is taken at once, as one big
        integer: a loop over counters takes three times as long.
        """
        blocks = {}
        for start in range(0, len(self._map), BLOCK):
            block = self._map[start : start + BLOCK]
            if block != NOTHING[: len(block)]:
                blocks[start] = block
        counts = b"".join(blocks.values())
        joined = 0
        for byte in range(COUNTER):
            joined |= int.from_bytes(counts[byte::COUNTER], "little")
        found = joined.to_bytes(len(counts) // COUNTER, "little").translate(TO_FLAG)
        flags, position = bytearray(len(self._map) // COUNTER), 0
        for start, block in blocks.items():
            size = len(block) // COUNTER
            flags[start // COUNTER : start // COUNTER + size] = found[position : position + size]
            position += size
        return Ran(self.low, bytes(flags))

    def clear(self) -> None:
        """Begin to count anew, while the machine runs or not."""
        self._map[:] = bytes(len(self._map))

    def close(self) -> None:
        """Let go of the counters."""
        with contextlib.suppress(BufferError):
            self._map.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
