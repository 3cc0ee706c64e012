"""What the agent can do, as values: operations in, bytes for the mailbox out, and results back.

Comes in: addresses and numbers, all the guest's own. Goes out: `Op` values, and what each came to.
Who runs them, and where they lie meanwhile, this refuses to know. Layout and meaning are those of
guest-kernels/agent/mailbox.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

OPERATION = struct.Struct("<II6Q3Q")  # struct operation
ANSWER = struct.Struct("<4xI48xqQQ")  # what the agent writes of it
ZEROES = (0,) * 6


class Code(IntEnum):
    """OP_* of mailbox.h."""

    HYPERCALL = 1
    FIRMWARE = 2
    LOAD = 3
    STORE = 4
    FILL = 5
    COMPARE = 6
    COPY = 7
    FETCH = 8
    BARRIER = 9
    AWAIT = 10
    SLEEP = 11
    REPEAT = 12
    STOP = 13


class Fault(IntEnum):
    """FAULT_* of mailbox.h: why an operation has no value."""

    NONE = 0
    SYNCHRONOUS = 1
    SERROR = 2
    UNKNOWN = 3


class Op(NamedTuple):
    """One operation; make it with the functions below."""

    code: Code
    arguments: tuple[int, ...] = ()


class Result(NamedTuple):
    """What one operation came to: a signed 64-bit value, or a fault with ESR_EL1 and FAR_EL1."""

    value: int
    fault: Fault
    esr: int
    far: int


def hypercall(number: int, *arguments: int) -> Op:
    """Xen's hypercall `number` with up to five arguments; the value is its x0."""
    given = tuple(arguments) + (0,) * (5 - len(arguments))
    return Op(Code.HYPERCALL, (*given, number))


def firmware(function: int, *arguments: int) -> Op:
    """A call by the SMC calling convention, such as PSCI, with up to three arguments."""
    return Op(Code.FIRMWARE, (function, *arguments))


def load(address: int, width: int = 8) -> Op:
    """Read `width` bytes (1, 2, 4, 8)."""
    return Op(Code.LOAD, (address, width))


def store(address: int, value: int, width: int = 8) -> Op:
    """Write the low `width` bytes (1, 2, 4, 8) of `value`."""
    return Op(Code.STORE, (address, width, value))


def fill(address: int, size: int, first: int = 0, step: int = 0) -> Op:
    """Write `size` bytes of 64-bit words: `first`, `first + step`, …"""
    return Op(Code.FILL, (address, size, first, step))


def compare(one: int, other: int, size: int) -> Op:
    """The value is the offset of the first byte that differs, or `size`."""
    return Op(Code.COMPARE, (one, other, size))


def copy(to: int, source: int, size: int) -> Op:
    """Copy `size` bytes upwards."""
    return Op(Code.COPY, (to, source, size))


def fetch(address: int) -> Op:
    """Call the code at `address`, which must return; the value is its x0."""
    return Op(Code.FETCH, (address,))


def barrier() -> Op:
    """Complete everything done so far (DSB, ISB)."""
    return Op(Code.BARRIER)


def await_value(address: int, value: int, *, nanoseconds: int, width: int = 8) -> Op:
    """Spin until `value` is at `address`; the value is 1, or 0 when the time was over first."""
    return Op(Code.AWAIT, (address, width, value, nanoseconds))


def sleep(nanoseconds: int) -> Op:
    """Do nothing, by the generic timer."""
    return Op(Code.SLEEP, (nanoseconds,))


def repeat(operations: int, times: int) -> Op:
    """Do the `operations` before this one `times` more."""
    return Op(Code.REPEAT, (operations, times))


def stop() -> Op:
    """The vCPU answers nothing from here on, and waits for interrupts forever."""
    return Op(Code.STOP)


def encode(operations: Sequence[Op]) -> bytes:
    """The operations as the agent reads them."""
    pack = OPERATION.pack
    mask = 2**64 - 1
    parts = []
    for code, arguments in operations:
        given = [argument & mask for argument in arguments]
        parts.append(pack(code, 0, *given, *ZEROES[len(given) :], 0, 0, 0))
    return b"".join(parts)


def decode(answered: memoryview) -> list[Result]:
    """The results of operations that the agent has run."""
    return [
        Result(value, Fault(fault), esr, far) if fault else Result(value, Fault.NONE, 0, 0)
        for fault, value, esr, far in ANSWER.iter_unpack(answered)
    ]
