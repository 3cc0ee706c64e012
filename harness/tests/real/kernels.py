"""Guest kernels of a few instructions, put together by hand: enough to see that Xen started one.

Each is an arm64 Image (Linux: Documentation/arm64/booting.rst); instructions are from the Arm ARM.
"""

from __future__ import annotations

import struct

HEADER_SIZE = 64
# Hypercall numbers as in xen/include/public/xen.h.
XEN_VERSION = 17
CONSOLE_IO = 18
HYPERCALL = 0xD4000002 | 0xEA1 << 5  # hvc #0xea1
WFI = 0xD503207F
HERE = 0x14000000  # b .
BACK = 0x17FFFFFF  # b .-4
COUNT = 0x91000400  # add x0, x0, #1
UNDEFINED = 0  # udf #0
RETURN = 0xD65F03C0  # ret


def image(*instructions: int, data: bytes = b"") -> bytes:
    """An Image that runs `instructions`, with `data` right behind them."""
    code = struct.pack(f"<{len(instructions)}I", *instructions) + data
    start = HERE | HEADER_SIZE // 4
    size, anywhere = 0x1000, 0xA
    return struct.pack("<IIQQQQQQ4sI", start, 0, 0, size, anywhere, 0, 0, 0, b"ARM\x64", 0) + code


def move(register: int, value: int) -> int:
    """movz x`register`, #`value`"""
    return 0xD2800000 | value << 5 | register


def address(register: int, distance: int) -> int:
    """adr x`register`, .+`distance`"""
    return 0x10000000 | (distance & 3) << 29 | (distance >> 2) << 5 | register


def branch(distance: int) -> int:
    """b .+`distance`"""
    return HERE | (distance // 4) & 0x3FFFFFF


def sleeper() -> bytes:
    """Waits for interrupts, and for nothing else."""
    return image(WFI, BACK)


def spinner() -> bytes:
    """Stays busy, and says nothing."""
    return image(HERE)


def caller() -> bytes:
    """Asks Xen for its version, again and again."""
    return image(move(0, 0), move(16, XEN_VERSION), HYPERCALL, branch(-12))


def talker(text: str) -> bytes:
    """Says `text` on Xen's console, then stays busy."""
    words = text.encode()
    arguments = [move(0, 0), move(1, len(words)), address(2, 16), move(16, CONSOLE_IO)]
    return image(*arguments, HYPERCALL, HERE, data=words)
