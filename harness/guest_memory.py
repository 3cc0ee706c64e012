"""Which guest memory is whose: arguments of hypercalls, RAM for cases, GFNs with nothing behind.

Comes in: an agent, whose mailbox says where it lies and where Xen put the device tree. Goes out:
addresses and GFNs that nobody else uses. What anyone does with them, this refuses to know.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import libfdt

from harness import operations as ops
from harness.agent import DATA_SIZE, FIRST_SHARE, Agent
from harness.errors import HarnessError
from harness.hypercalls import Buffer, Call
from harness.xenabi import PAGE_SHIFT, PAGE_SIZE

T = TypeVar("T")

# The data area: flags of races, a page to copy others to, and bytes to keep come first; then
# arguments, new for each batch.
FLAGS_SIZE = PAGE_SIZE
WINDOW_SIZE = PAGE_SIZE
KEPT_SIZE = 14 * PAGE_SIZE
ALIGNMENT = 16

# Holes. A domU has nothing between the GICv3 and guest RAM from 4.12 to master: this is the window
# for its grant table (GUEST_GNTTAB_BASE in xen/include/public/arch-arm.h). dom0 sees the machine's
# devices below RAM, so its holes are below 256 GiB, where QEMU's virt board has nothing.
DOMU_HOLES = range(0x38000, 0x39000)
DOM0_HOLES = range(0x3F00000, 0x3F01000)

BLOCK_PAGES = 512  # a level 2 block; what cases get shares none with the agent


class Placed:
    """A call whose buffers lie in the guest."""

    def __init__(self, agent: Agent, call: Call[Any], put: Callable[[bytes], int]) -> None:
        """`put` lays bytes into the guest and says where."""
        self._agent = agent
        self._addresses: dict[int, int] = {}
        given = [self._put(a, put) if isinstance(a, Buffer) else a for a in call.arguments]
        self.operation = ops.hypercall(call.number, *given)

    def _put(self, buffer: Buffer, put: Callable[[bytes], int]) -> int:
        data = bytearray(buffer.data)
        for offset, inner in buffer.pointers:
            struct.pack_into("<Q", data, offset, self._put(inner, put))
        address = self._addresses[id(buffer)] = put(bytes(data))
        return address

    def read(self, buffer: Buffer) -> bytes:
        """What one of its buffers holds now."""
        return self._agent.read(self._addresses[id(buffer)], len(buffer.data))


class Arguments:
    """The data area of a mailbox, handed out from its beginning again and again."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._flags = agent.data
        self._window = self._flags + FLAGS_SIZE
        self._kept = self._window + WINDOW_SIZE
        self._start = self._kept + KEPT_SIZE
        self._end = agent.data + DATA_SIZE
        self._next = self._start

    def reset(self) -> None:
        """Forget all arguments; what is kept stays."""
        self._next = self._start

    def groups(self, calls: Sequence[Call[T]]) -> Iterator[Sequence[Call[T]]]:
        """The calls in runs whose arguments fit at once; each is to be placed before the next."""
        begin, room = 0, self._end - self._start
        for at, call in enumerate(calls):
            needed = sum(_size(a) for a in call.arguments if isinstance(a, Buffer))
            if needed > self._end - self._start:
                raise ValueError(f"the arguments of {call} need {needed} bytes")
            if needed > room or at - begin == FIRST_SHARE:
                self.reset()
                yield calls[begin:at]
                begin, room = at, self._end - self._start
            room -= needed
        self.reset()
        yield calls[begin:]

    def place(self, call: Call[Any]) -> Placed:
        """Put a call's buffers into the guest."""
        return Placed(self._agent, call, self._put)

    def _put(self, data: bytes) -> int:
        address = self._next
        self._next += _aligned(len(data))
        self._agent.write(address, data)
        return address

    def take_flags(self, count: int) -> list[int]:
        """Addresses of `count` words, all zero, each in a cache line of its own."""
        addresses = [self._flags + 64 * number for number in range(count)]
        for address in addresses:
            self._agent.write(address, bytes(8))
        return addresses

    def keep(self, data: bytes, align: int = ALIGNMENT, offset: int = 0) -> int:
        """Put bytes `offset` after an aligned address, where nothing overwrites them."""
        address = -(-self._kept // align) * align + offset
        if address + len(data) > self._start:
            raise HarnessError("no room is left for bytes to keep in the guest")
        self._kept = address + len(data)
        self._agent.write(address, data)
        return address

    def fetch(self, address: int, size: int) -> tuple[bytes, ops.Result]:
        """Up to a page of any guest memory, as the guest sees it; worth nothing after a fault."""
        (result,) = self._agent.run([ops.copy(self._window, address, size)])
        return self._agent.read(self._window, size), result


def pieces(address: int, size: int) -> Iterator[tuple[int, int]]:
    """A stretch of memory in parts of a page at most, as (address, size)."""
    for at in range(address, address + size, WINDOW_SIZE):
        yield at, min(WINDOW_SIZE, address + size - at)


def _size(buffer: Buffer) -> int:
    return _aligned(len(buffer.data)) + sum(_size(inner) for _, inner in buffer.pointers)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class PagePool:
    """A domain's GFNs that neither its agent nor its device tree uses, handed out once each."""

    def __init__(self, agent: Agent, *, dom0: bool) -> None:
        self._ram = _free_ram(agent)
        self._holes = iter(DOM0_HOLES if dom0 else DOMU_HOLES)

    def take_ram(self, count: int) -> list[int]:
        """GFNs of RAM in a row."""
        run: list[int] = []
        for gfn in self._ram:
            if run and gfn != run[-1] + 1:
                run.clear()
            run.append(gfn)
            if len(run) == count:
                return run
        raise HarnessError(
            f"the domain has no {count} pages of RAM in a row left",
            advice="Give it more memory in the scenario.",
        )

    def take_holes(self, count: int) -> list[int]:
        """GFNs in a row with nothing behind."""
        taken = list(islice(self._holes, count))
        if len(taken) < count:
            raise HarnessError(f"no {count} holes are left in the domain's memory map")
        return taken


def _free_ram(agent: Agent) -> Iterator[int]:
    """GFNs of RAM by the device tree, without those in a block with the agent or the tree."""
    header = agent.header
    tree = read_tree(agent)
    used = [(header.image, header.end), (header.fdt, header.fdt + len(tree))]
    block = BLOCK_PAGES << PAGE_SHIFT
    taken = {number for start, end in used for number in range(start // block, -(-end // block))}
    for start, length in memory_of(tree):
        for gfn in range(start >> PAGE_SHIFT, (start + length) >> PAGE_SHIFT):
            if gfn // BLOCK_PAGES not in taken:
                yield gfn


def read_tree(agent: Agent) -> bytes:
    """The device tree Xen gave the domain."""
    address = agent.header.fdt
    (word,) = agent.run([ops.load(address + 4, 4)])
    size = int.from_bytes(word.value.to_bytes(4, "little"), "big") if not word.fault else 0
    if not 0 < size <= DATA_SIZE:
        raise HarnessError(f"{agent.name} got no device tree at {address:#x}")

    tree, arguments = b"", Arguments(agent)
    for at, part in pieces(address, size):
        data, result = arguments.fetch(at, part)
        if result.fault:
            raise HarnessError(f"{agent.name} cannot read its device tree at {result.far:#x}")
        tree += data
    return tree


def memory_of(tree: bytes) -> Iterable[tuple[int, int]]:
    """(start, size) in bytes of each range of RAM in a device tree."""
    fdt = libfdt.FdtRo(tree)
    cells = [fdt.getprop(0, f"#{kind}-cells").as_uint32() for kind in ("address", "size")]
    node = fdt.first_subnode(0, libfdt.QUIET_NOTFOUND)
    while node >= 0:
        kind = fdt.getprop(node, "device_type", libfdt.QUIET_NOTFOUND)
        if not isinstance(kind, int) and kind.as_str() == "memory":
            yield from _ranges(bytes(fdt.getprop(node, "reg")), *cells)
        node = fdt.next_subnode(node, libfdt.QUIET_NOTFOUND)


def _ranges(data: bytes, address_cells: int, size_cells: int) -> Iterator[tuple[int, int]]:
    step = 4 * (address_cells + size_cells)
    for at in range(0, len(data), step):
        middle = at + 4 * address_cells
        yield (
            int.from_bytes(data[at:middle], "big"),
            int.from_bytes(data[middle : at + step], "big"),
        )
