"""The agent's mailbox in guest RAM in, results of operations out: the protocol with our kernel.

`image` builds the kernel in guest-kernels/agent, `find_agents` finds every agent that runs on a
host, `Agent.run` hands one vCPU a batch of operations and waits for its results. What an operation
is for, this refuses to know; operations.py has them. The layout is that of mailbox.h in
guest-kernels/agent, and a test compares the two.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol, TypeVar

from harness.cache import Cache
from harness.errors import HarnessError, XenHung
from harness.operations import OPERATION, Op, Result, decode, encode, firmware
from harness.programs import require
from harness.ram import Ram

SOURCES = Path(__file__).parent.parent / "guest-kernels" / "agent"
PAGE_SIZE = 4096
T = TypeVar("T")

# agent.c adds these two when it opens the mailbox, so that no image holds the sum.
MAGIC = struct.pack("<Q", (0x9D4C2F86A15BE073 + 0x317A0E55C2D8946B) & (2**64 - 1))
VERSION = 1
MAX_VCPUS = 8
OPERATIONS = 8192
DATA_SIZE = 512 * 1024

HEADER = struct.Struct("<QIIQQQQQQQ")  # struct mailbox, up to `reserved`
SLOTS_AT = 128
SLOT = struct.Struct("<QQIIIIQQQQQ")  # struct slot, up to `reserved`
SLOT_SIZE = 128
OPERATIONS_AT = PAGE_SIZE
DATA_AT = OPERATIONS_AT + OPERATIONS * OPERATION.size
PAGES = (DATA_AT + DATA_SIZE) // PAGE_SIZE
IDLE_AT = 12
# The Image header: guest-kernels/agent/start.S.
IMAGE_SIZE_AT = 0x10
PRELOADED_AT = 0x40
MAILBOX_AT = 0x48
IMAGE_ALIGNMENT = 2 << 20

# The first vCPU's share of the operations; the others divide the rest.
FIRST_SHARE = 4096
OTHER_SHARE = (OPERATIONS - FIRST_SHARE) // (MAX_VCPUS - 1)

LOOK_SECONDS = 0.001
LOOKS_BEFORE_SEARCH = 1000

# Arm DEN0022: the 64-bit call, and its answers SUCCESS, ALREADY_ON, ON_PENDING.
PSCI_CPU_ON = 0xC4000003
PSCI_IS_ON = (0, -4, -5)
SECONDS = 10.0


class SlotState(IntEnum):
    """SLOT_* of mailbox.h: what a vCPU is doing."""

    OFF = 0
    UP = 1
    STOPPED = 2
    DIED = 3


class Idle(IntEnum):
    """IDLE_* of mailbox.h: what the first vCPU does without work; the others are off."""

    NAP = 0
    SPIN = 1


class AgentDied(XenHung):
    """An exception that no operation asked for ended the guest: its memory is not what it was."""


class Watch(Protocol):
    """Whoever knows whether Xen still runs: a Host."""

    def wait(self, predicate: Callable[[], T | None], seconds: float, what: str) -> T:
        """Return what `predicate` returns once it is not None; raise what ended the waiting."""


@dataclass(frozen=True)
class Header:
    """What the agent says of itself; addresses and sizes are the guest's own, in bytes."""

    address: int
    size: int
    image: int
    end: int
    fdt: int
    secondary: int
    frequency: int


class Agent:
    """One running agent: `offset` is where in `ram` its mailbox begins."""

    def __init__(self, ram: Ram, offset: int, watch: Watch, name: str = "agent") -> None:
        self.name = name
        self.offset = offset
        self._watch = watch
        self._bytes = ram.view[offset : offset + PAGES * PAGE_SIZE]
        self._words = self._bytes.cast("Q")
        _, version, _, *described = HEADER.unpack_from(self._bytes)
        if version != VERSION:
            raise HarnessError(f"{name} speaks version {version} of the mailbox, not {VERSION}")
        self.header = Header(*described)
        self._prove_pages()

    def _prove_pages(self) -> None:
        """The guest's pages must follow each other in the machine's memory as well.

        The agent numbered every page after the header in its last word. What was given before boot
        has gone over the first of them, and a batch of ours over any.
        """
        batches = self._words[SLOTS_AT // 8]
        if batches > 1:
            return
        for page in range((DATA_AT if batches else OPERATIONS_AT) // PAGE_SIZE, PAGES):
            found = self._words[(page + 1) * PAGE_SIZE // 8 - 1]
            if found != page:
                raise HarnessError(
                    f"the mailbox of {self.name} is not contiguous in memory",
                    evidence=[f"page {page} of {PAGES} holds {found:#x}"],
                )

    @property
    def data(self) -> int:
        """The guest's address of the area for arguments, DATA_SIZE bytes."""
        return self.header.address + DATA_AT

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the data area, by guest address."""
        at = self._within(address, size)
        return self._bytes[at : at + size].tobytes()

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into the data area, by guest address."""
        at = self._within(address, len(data))
        self._bytes[at : at + len(data)] = data

    def _within(self, address: int, size: int) -> int:
        at = address - self.header.address
        if not DATA_AT <= at <= len(self._bytes) - size:
            raise ValueError(f"{address:#x} (+{size:#x}) is not in the data area")
        return at

    def set_idle(self, idle: Idle) -> None:
        """Say what the first vCPU does while it has no work: NAP, unless told otherwise."""
        struct.pack_into("<I", self._bytes, IDLE_AT, idle)

    def run(
        self, operations: Sequence[Op], vcpu: int = 0, seconds: float = SECONDS
    ) -> list[Result]:
        """Run the operations in order on one vCPU; as many batches as it takes.

        Raises XenHung after `seconds` without an answer, AgentDied, or what the host knows better.
        """
        results: list[Result] = []
        share = FIRST_SHARE if vcpu == 0 else OTHER_SHARE
        for at in range(0, len(operations), share):
            results += self.run_together({vcpu: operations[at : at + share]}, seconds)[vcpu]
        return results

    def run_together(
        self, batches: Mapping[int, Sequence[Op]], seconds: float = SECONDS
    ) -> dict[int, list[Result]]:
        """Run one batch on each vCPU named, all at the same time; start those that are off.

        The first vCPU begins last, for it starts the others.
        """
        for vcpu in sorted(batches, reverse=True):
            self.post(batches[vcpu], vcpu)
            if vcpu:
                self._wake(vcpu)
        for vcpu in batches:
            self._finish(vcpu, seconds)
        return {vcpu: self._results(vcpu, len(batches[vcpu])) for vcpu in batches}

    def post(self, operations: Sequence[Op], vcpu: int = 0) -> None:
        """Hand over a batch and do not wait, as for `stop`, which is never answered.

        What is still being done, such as operations given before boot, is waited for.
        """
        if self.state(vcpu) is SlotState.UP:
            self._finish(vcpu, SECONDS)
        self._put(vcpu, operations)
        self._words[self._slot(vcpu) // 8] += 1

    def preloaded_results(self, count: int, seconds: float = SECONDS) -> list[Result]:
        """The results of the operations given before boot (see `preloaded_image`)."""
        self._finish(0, seconds)
        return self._results(0, count)

    def _wake(self, vcpu: int) -> None:
        """Have a vCPU turned on, by PSCI, until it is up or has done what was posted for it.

        It turns itself off without work, and may be at just that: then PSCI says that it is on.
        """
        words, slot = self._words, self._slot(vcpu) // 8

        def awake() -> bool | None:
            if self.state(vcpu) is not SlotState.OFF or words[slot] == words[slot + 1]:
                return True
            on = firmware(PSCI_CPU_ON, affinity(vcpu), self.header.secondary)
            (answer,) = self.run([on])
            if answer.fault or answer.value not in PSCI_IS_ON:
                raise HarnessError(
                    f"{self.name} has no vCPU {vcpu}: PSCI CPU_ON returned {answer.value}",
                    advice="Give the domain more vCPUs in the scenario.",
                )
            return None

        self._watch.wait(awake, SECONDS, f"vCPU {vcpu} of {self.name} to start")

    def state(self, vcpu: int) -> SlotState:
        """What a vCPU is doing."""
        return SlotState(self._words[self._slot(vcpu) // 8 + 3] >> 32)

    def _slot(self, vcpu: int) -> int:
        if not 0 <= vcpu < MAX_VCPUS:
            raise ValueError(f"an agent has no vCPU {vcpu}")
        return SLOTS_AT + vcpu * SLOT_SIZE

    def _first(self, vcpu: int) -> int:
        return 0 if vcpu == 0 else FIRST_SHARE + (vcpu - 1) * OTHER_SHARE

    def _put(self, vcpu: int, operations: Sequence[Op]) -> None:
        share = FIRST_SHARE if vcpu == 0 else OTHER_SHARE
        if len(operations) > share:
            raise ValueError(f"{len(operations)} operations are more than a batch of {share}")
        at = OPERATIONS_AT + self._first(vcpu) * OPERATION.size
        data = encode(operations)
        self._bytes[at : at + len(data)] = data
        self._words[self._slot(vcpu) // 8 + 2] = len(operations) << 32 | self._first(vcpu)

    def _finish(self, vcpu: int, seconds: float) -> None:
        words, posted = self._words, self._slot(vcpu) // 8

        def finished() -> bool | None:
            if words[posted] == words[posted + 1]:
                return True
            # Before its slot is up, a vCPU has died at most; stopped ones have answered.
            return True if words[posted + 3] >> 32 == SlotState.DIED else None

        what = f"{self.name} to answer"
        self._watch.wait(finished, seconds, what if vcpu == 0 else f"{what} on vCPU {vcpu}")
        if words[posted] != words[posted + 1]:
            raise self._death(vcpu)

    def _results(self, vcpu: int, count: int) -> list[Result]:
        at = OPERATIONS_AT + self._first(vcpu) * OPERATION.size
        return decode(self._bytes[at : at + count * OPERATION.size])

    def _death(self, vcpu: int) -> AgentDied:
        slot = SLOT.unpack_from(self._bytes, self._slot(vcpu))
        running, vector, esr, far, elr, lr = slot[4], *slot[6:]
        return AgentDied(
            f"{self.name} died on vCPU {vcpu} at operation {running}: vector {vector - 1}, "
            f"ESR {esr:#x}, FAR {far:#x}, ELR {elr:#x}, LR {lr:#x} "
            f"(it lies at {self.header.image:#x})"
        )


def affinity(vcpu: int) -> int:
    """The MPIDR affinity Xen gives a vCPU: 16 in a cluster (xen/include/asm-arm/domain.h)."""
    return vcpu & 0xF | vcpu >> 4 << 8


def find_agents(ram: Ram, watch: Watch, kernel: Path, count: int, seconds: float) -> list[Agent]:
    """The agents of `count` domains that run the image `kernel`, by their place in memory.

    They are looked for where an image that Xen aligned would have its mailbox, which takes
    microseconds, and after a while everywhere. Raises XenHung after `seconds` without all of them.
    """
    with kernel.open("rb") as file:
        file.seek(MAILBOX_AT)
        (mailbox,) = struct.unpack("<Q", file.read(8))
    likely = range(mailbox, ram.size, IMAGE_ALIGNMENT)
    looks = 0

    def all_there() -> list[int] | None:
        nonlocal looks
        looks += 1
        time.sleep(LOOK_SECONDS)
        if looks % LOOKS_BEFORE_SEARCH:
            found = [at for at in likely if ram.view[at : at + len(MAGIC)] == MAGIC]
        else:
            found = [at for at in ram.find_all(MAGIC) if at % PAGE_SIZE == 0]
        found = [at for at in found if _distance(ram, at) == mailbox]  # other kernels have one too
        return found if len(found) >= count else None

    offsets = watch.wait(all_there, seconds, f"the agent in {count} domain(s)")
    return [Agent(ram, at, watch, f"the agent at {ram.base + at:#x}") for at in offsets]


def _distance(ram: Ram, offset: int) -> int:
    """How far the mailbox at `offset` lies from the start of its image."""
    _, _, _, address, _, image, *_ = HEADER.unpack_from(ram.view, offset)
    return int(address) - int(image)


def image(cache: Cache) -> Path:
    """The agent as a file Xen can boot, built once from guest-kernels/agent."""
    require("make")
    require("aarch64-linux-gnu-gcc")
    require("aarch64-linux-gnu-objcopy")
    sources = sorted(path for path in SOURCES.iterdir() if path.is_file())
    content = hashlib.sha256()
    for path in sources:
        content.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return cache.entry("agent", content.hexdigest(), _build) / "agent.bin"


def _build(directory: Path) -> None:
    """Make the agent in `directory`; its sources are only read."""
    made = subprocess.run(
        [require("make"), "-s", "-C", SOURCES, f"O={directory}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise HarnessError("the agent does not build", evidence=made.stderr.splitlines()[-10:])


def preloaded_image(plain: Path, operations: Sequence[Op], destination: Path) -> Path:
    """An image that runs these operations as soon as it boots, and only then looks for others.

    Nothing of the run then depends on when the host writes: see INSPECTION on repeatable runs.
    """
    if len(operations) > OPERATIONS:
        raise ValueError(f"{len(operations)} operations are more than {OPERATIONS}")
    shutil.copyfile(plain, destination)
    with destination.open("r+b") as file:
        header = file.read(PRELOADED_AT)
        (size,) = struct.unpack_from("<Q", header, IMAGE_SIZE_AT)
        file.seek(PRELOADED_AT)
        file.write(struct.pack("<Q", len(operations)))
        file.seek(size)
        file.write(encode(operations))
    return destination
