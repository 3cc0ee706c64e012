"""A hypercall as a value: what to ask, how to say it, and how to read the answer.

Comes in: what the caller means. Goes out: a `Call`, to be made by a domain, alone, in a batch, or
on one vCPU of a race; and the errors that answers become. Where arguments lie in the guest and how
they get there, this refuses to know. XENMEM_* are in memory_calls.py, GNTTABOP_* in grants.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from harness import xenabi
from harness.xenabi import Hypercall, error_name

T = TypeVar("T")


class XenError(OSError):
    """Xen refused a hypercall: errno, and in the text the error's name, the call, its arguments."""

    def __str__(self) -> str:
        return str(self.strerror)


class GrantError(Exception):
    """Xen took a grant table hypercall, and one operation in it has a status other than okay."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        name = xenabi.GrantStatus(status).name if -13 <= status <= 0 else "unknown"
        super().__init__(f"GNTST_{name} ({status}) from {text}")


@contextmanager
def xen_error(*expected: int) -> Iterator[None]:
    """Xen must refuse what is done inside, with an error of `expected`; else AssertionError."""
    wanted = " or ".join(error_name(number) for number in expected)
    try:
        yield
    except XenError as error:
        if error.errno not in expected:
            raise AssertionError(f"expected {wanted}, but got {error}") from error
    else:
        raise AssertionError(f"expected {wanted}, but Xen allowed it")


@contextmanager
def grant_error(expected: int) -> Iterator[None]:
    """A grant operation inside must have the status `expected`; else AssertionError."""
    wanted = f"GNTST_{xenabi.GrantStatus(expected).name}"
    try:
        yield
    except GrantError as error:
        if error.status != expected:
            raise AssertionError(f"expected {wanted}, but got {error}") from error
    else:
        raise AssertionError(f"expected {wanted}, but the status is okay")


@dataclass(eq=False)
class Buffer:
    """Bytes to lie in guest memory for a hypercall, and what in them points to other buffers."""

    data: bytes | bytearray
    pointers: tuple[tuple[int, Buffer], ...] = ()
    """Offsets in `data` where the address of a buffer shall stand."""


Reply = Callable[[Buffer], bytes]
"""What a buffer holds after the hypercall."""

Touches = tuple[tuple[int, int, int], ...]
"""Parts of physmaps, each as domid (or DOMID_SELF), first GFN, number of pages."""


def as_is(value: int, _: Reply) -> int:
    return value


@dataclass(frozen=True)
class Call(Generic[T]):
    """One hypercall to make; `read` turns its result and buffers into what the caller gets."""

    text: str
    number: int
    arguments: tuple[int | Buffer, ...]
    read: Callable[[int, Reply], T]
    touches: Touches | None = None
    """All of any physmap that the call names, and so may change; None where that is unknown."""

    def __str__(self) -> str:
        return self.text

    def refusal(self, value: int) -> XenError:
        """The error a negative result is."""
        return XenError(-value, f"{error_name(-value)} ({value}) from {self.text}")


@dataclass
class Answer(Generic[T]):
    """What became of a call made in a batch or a race: a value, or an error to look at or raise."""

    call: Call[T]
    error: Exception | None = None
    _value: list[T] = field(default_factory=list)

    @property
    def value(self) -> T:
        """What the call gave; raises the error if it gave none."""
        if self.error:
            raise self.error
        if not self._value:
            raise ValueError(f"{self.call} is not made before its batch ends")
        return self._value[0]

    @property
    def errno(self) -> int:
        """Xen's error number, positive; 0 if the call went well."""
        return self.error.errno or 0 if isinstance(self.error, XenError) else 0

    def take(self, made: Answer[T]) -> None:
        """Become what another answer to the same call is."""
        self.error, self._value = made.error, made._value

    def settle(self, value: int, reply: Reply) -> None:
        """Take the hypercall's result."""
        if value < 0:
            self.error = self.call.refusal(value)
            return
        try:
            self._value.append(self.call.read(value, reply))
        except GrantError as error:
            self.error = error

    def __repr__(self) -> str:
        if self.error:
            return f"{self.call} -> {str(self.error).partition(' from ')[0]}"
        return f"{self.call} -> {self._value[0]!r}" if self._value else f"{self.call}"


def hypercall(number: int, *arguments: int | Buffer) -> Call[int]:
    """Any hypercall with up to five arguments, as they are."""
    known = {call.value: call.name for call in Hypercall}
    shown = ", ".join("…" if isinstance(a, Buffer) else f"{a:#x}" for a in arguments)
    return Call(f"{known.get(number, f'hypercall {number}')}({shown})", number, arguments, as_is)


def words(values: Sequence[int]) -> Buffer:
    """An array of 64-bit values: of GFNs (xen_pfn_t), of indices (xen_ulong_t)."""
    return Buffer(struct.pack(f"<{len(values)}Q", *(value & 2**64 - 1 for value in values)))


def version_number() -> Call[int]:
    """XENVER_version: major << 16 | minor."""
    return Call("XENVER_version()", Hypercall.xen_version, (xenabi.VersionOp.version, 0), as_is)


def version_text(operation: xenabi.VersionOp, size: int) -> Call[str]:
    """XENVER_extraversion, capabilities, changeset, …: a string of at most `size` bytes."""
    buffer = Buffer(bytes(size))

    def read(_: int, reply: Reply) -> str:
        return reply(buffer).split(b"\0")[0].decode(errors="replace")

    return Call(f"XENVER_{operation.name}()", Hypercall.xen_version, (operation, buffer), read)


def build_id(size: int = 64) -> Call[bytes]:
    """XENVER_build_id: the hypervisor's own, for those who may know it (not a domU, by default)."""
    buffer = Buffer(struct.pack("<I", size) + bytes(size))
    return Call(
        "XENVER_build_id()",
        Hypercall.xen_version,
        (xenabi.VersionOp.build_id, buffer),
        lambda value, reply: reply(buffer)[4 : 4 + value],
    )


def console_write(text: bytes) -> Call[int]:
    """Say something on Xen's console; Xen shows it once the line is complete."""
    arguments = (xenabi.CONSOLEIO_WRITE, len(text), Buffer(text))
    return Call(f"CONSOLEIO_write({text!r})", Hypercall.console_io, arguments, as_is)


def shutdown(reason: int = xenabi.Shutdown.poweroff) -> Call[int]:
    """SCHEDOP_shutdown: from dom0 the machine's end."""
    buffer = Buffer(xenabi.SCHED_SHUTDOWN.pack(reason=reason))
    arguments = (xenabi.SchedOp.shutdown, buffer)
    return Call(f"SCHEDOP_shutdown({reason})", Hypercall.sched_op, arguments, as_is)


def event_op(operation: xenabi.EventOp, **members: int) -> Call[int]:
    """EVTCHNOP_* with its structure's members; one that allocates gives the port."""
    layout, output = EVENT_OPS[operation]
    buffer = Buffer(layout.pack(**members))

    def read(value: int, reply: Reply) -> int:
        return layout.unpack(reply(buffer))[output] if output else value

    shown = ", ".join(f"{name}={value}" for name, value in members.items())
    text = f"EVTCHNOP_{operation.name}({shown})"
    return Call(text, Hypercall.event_channel_op, (operation, buffer), read)


EVENT_OPS = {
    xenabi.EventOp.bind_interdomain: (xenabi.BIND_INTERDOMAIN, "local_port"),
    xenabi.EventOp.close: (xenabi.CLOSE, ""),
    xenabi.EventOp.send: (xenabi.SEND, ""),
    xenabi.EventOp.alloc_unbound: (xenabi.ALLOC_UNBOUND, "port"),
    xenabi.EventOp.bind_ipi: (xenabi.BIND_IPI, "port"),
    xenabi.EventOp.unmask: (xenabi.UNMASK, ""),
    xenabi.EventOp.reset: (xenabi.RESET, ""),
}
"""The structure of each, and the member in which Xen returns a port."""
