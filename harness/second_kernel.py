"""A domain whose agent runs in, the same domain with another agent in the first one's place out.

This is kexec at its barest: the first kernel jumps into the second and is gone, and nobody has
cleaned up behind it. Xen knows nothing of it: to Xen the domain only goes on. What the second finds
there, this refuses to know.
"""

from __future__ import annotations

import struct
from pathlib import Path

from harness import operations as ops
from harness.agent import IMAGE_ALIGNMENT, IMAGE_SIZE_AT, Agent, find_agents
from harness.booting import Booted
from harness.domain import Domain
from harness.xenabi import PAGE_SHIFT, PAGE_SIZE

SECONDS = 20.0
# What a kernel does last before it jumps into the next (Linux' booting.rst: MMU off, the device
# tree's address in x0): mrs x2, sctlr_el1; and x2, x2, #~1; msr sctlr_el1, x2; isb;
# ldr x0, tree; ldr x1, entry; br x1; nop. Both addresses follow.
JUMP = struct.Struct("<8I2Q")
INSTRUCTIONS = (
    0xD5381002, 0x927FF842, 0xD5181002, 0xD5033FDF, 0x58000080, 0x580000A1, 0xD61F0020, 0xD503201F,
)  # fmt: skip


def boot_second(host: Booted, first: Domain, kernel: Path) -> Domain:
    """Boot `kernel`, the agent, in a place of its own in the domain's RAM; `first` is then gone.

    The new Domain takes the old one's place in `host.domains`. Raises XenHung if it does not come.
    """
    content = kernel.read_bytes()
    (size,) = struct.unpack_from("<Q", content, IMAGE_SIZE_AT)
    place = _take_aligned(first, size)
    jump = JUMP.pack(*INSTRUCTIONS, first.agent.header.fdt, place)
    first.run([ops.copy(place, first.put(content), len(content))])
    first.history.append(f"{first.name} jumps into a second kernel at {place:#x}")
    first.agent.post([ops.fetch(first.put(jump))])

    def come_up() -> Agent | None:
        agents = find_agents(host.ram, host, kernel, 1, SECONDS)
        return next((agent for agent in agents if agent.header.image == place), None)

    second = Domain(host.wait(come_up, SECONDS, "the second kernel"), first.domid)
    second.history, second.after_calls = first.history, first.after_calls
    host.domains[host.domains.index(first)] = second
    return second


def _take_aligned(domain: Domain, size: int) -> int:
    """Return the address of RAM for an image, as Xen would place one."""
    pages = -(-size // PAGE_SIZE) + IMAGE_ALIGNMENT // PAGE_SIZE
    start = domain.ram_pages(pages)[0] << PAGE_SHIFT
    return -(-start // IMAGE_ALIGNMENT) * IMAGE_ALIGNMENT
