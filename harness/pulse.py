"""A QEMU that keeps somebody waiting in, the reason why it will not answer any more out.

A time limit says that something is wrong, late and without saying what. Two signs say it earlier:
a machine that uses no CPU time although it owes an answer waits for an interrupt that will not
come; and a CPU that stays in a few instructions of Xen, in a state it was in before, spins on
something that will not happen. What the machine was asked, this does not know.

A look costs up to 5 ms, and on a busy machine a quarter of a second, for most of which the machine
stands still; so seconds are counted while it runs only.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.errors import HarnessError
from harness.qemu_process import QemuProcess
from harness.qmp import Monitor

# Between two looks the machine runs at least as long as this, and twice as long as it stood still.
SECONDS_BETWEEN_LOOKS = 0.1
RUN_FOR_STOP = 2.0
# How long every CPU has to sleep until the machine is called idle. Looking wakes it: that uses
# little time, but on a busy machine it may wait long for it. A CPU that is awake always uses its
# time or waits for it, and has other registers at every look unless it spins.
IDLE_SECONDS = 1.0
IDLE_USED = 0.05
IDLE_WANTED = 0.7
# How long a CPU has to stay in how many bytes of Xen's code until it is called spinning. Xen's own
# delay loops, at boot, are interrupted by what it says about them. A CPU that gets on with a long
# loop (flushing 2 GiB of a domain from the caches, a line at a time) has other registers at every
# look; one that waits for something has the same again and again.
SPIN_SECONDS = 2.0
SPIN_BYTES = 256
SPIN_SHARE = 0.3
LOOKS_A_STATE = 2
# Entries of a vector table are this far apart. A CPU stopped at one says nothing: on a busy
# machine it is often an interrupt, taken just because it was stopped, that brought it there.
VECTOR_BYTES = 0x80
# After a reset the vector table is at 0, where there is no RAM. Who faults without one of his own
# goes there, faults again, and goes there.
NO_VECTORS_BYTES = 0x800
LOOKS_THAT_CONVINCE = 8
LOOKS_KEPT = 64

_CPU = re.compile(r"CPU#(\d+)\s+PC=([0-9a-f]+)(.*?)PSTATE=[0-9a-f]+ \S+ EL(\d)", re.DOTALL)


class _At(NamedTuple):
    """Where a CPU is."""

    level: int
    pc: int
    registers: str = ""
    """The general ones, as QEMU writes them."""

    def __str__(self) -> str:
        return f"is in {'Xen' if self.level == 2 else 'a guest'} at {self.pc:#x}"


NOWHERE = _At(1, 0xFFFF_FFFF)  # what is said of a CPU whose PC is not known


@dataclass(frozen=True)
class _Look:
    """What was seen of the machine at one moment; times in seconds."""

    time: float
    """How long the machine has run, since some moment: without what it was stopped for a look."""
    used: dict[int, float]
    """CPU time by QEMU's thread."""
    queued: dict[int, float]
    """Time it was ready to run but had no CPU of ours, by QEMU's thread."""
    cpus: dict[int, _At]
    """Where each CPU is; without those that run AArch32."""


class Pulse:
    """Looks at a QEMU again and again, while somebody waits for it."""

    def __init__(self, process: QemuProcess, qmp: Monitor, may_sleep: bool = False) -> None:
        """With `may_sleep`, that every CPU sleeps is no sign of anything."""
        self._may_sleep = may_sleep
        self._process = process
        self._qmp = qmp
        self._refuse_stopped()
        self._threads = {
            cpu["cpu-index"]: cpu["thread-id"] for cpu in qmp.execute("query-cpus-fast")
        }
        self._looks: deque[_Look] = deque(maxlen=LOOKS_KEPT)
        self._stopped = 0.0  # seconds, by our looks
        self._next = 0.0  # not to be looked at before
        self._first = self._look()
        self._looks.append(self._first)
        self._console = 0

    def starved_seconds(self) -> float:
        """How long, since the first look, QEMU was ready to run and our machine was too busy."""
        last = self._looks[-1]
        return max(
            last.queued[thread] - self._first.queued.get(thread, 0) for thread in last.queued
        )

    def look(self, console: int) -> str | None:
        """Why no answer will come, or None; `console` is how much Xen has said so far.

        Does nothing but once in 0.1 s or more. Raises HarnessError when somebody stopped QEMU.
        """
        if time.monotonic() < self._next:
            return None
        if console != self._console:  # it lives
            self._console = console
            self._looks.clear()
        self._refuse_stopped()
        self._looks.append(self._look())
        idle = None if self._may_sleep else self._idle()
        return idle or self._lost() or self._spinning()

    def _refuse_stopped(self) -> None:
        """Raise HarnessError if QEMU runs no guest because of somebody else."""
        self._process.refuse_stopped()
        status = self._qmp.execute("query-status")["status"]
        if status != "running":
            raise HarnessError(f"QEMU does not run its guest: it is {status!r}")

    def _look(self) -> _Look:
        times = self._process.cpu_seconds()
        used, queued = ({thread: pair[i] for thread, pair in times.items()} for i in (0, 1))
        # A CPU's PC is only true while it stands still: QEMU keeps it up to date at exits. On a
        # busy machine that may take longer than what is between two looks: no sleep of Xen's.
        began = time.monotonic()
        ran = began - self._stopped
        self._qmp.execute("stop")
        try:
            registers = self._qmp.execute("human-monitor-command", command_line="info registers -a")
        finally:
            self._qmp.execute("cont")
        ended = time.monotonic()
        self._stopped += ended - began
        self._next = ended + max(SECONDS_BETWEEN_LOOKS, RUN_FOR_STOP * (ended - began))
        cpus = {int(m[1]): _At(int(m[4]), int(m[2], 16), m[3]) for m in _CPU.finditer(registers)}
        return _Look(ran, used, queued, cpus)

    def _since(self, seconds: float) -> list[_Look]:
        """The looks of the last `seconds` or more, as many as convince; nothing while too few."""
        last = self._looks[-1].time
        recent: list[_Look] = []
        for look in reversed(self._looks):
            recent.insert(0, look)
            if len(recent) >= LOOKS_THAT_CONVINCE and last - look.time >= seconds:
                return recent
        return []

    def _idle(self) -> str | None:
        looks = self._since(IDLE_SECONDS)
        if not looks:
            return None
        for cpu, thread in self._threads.items():
            used, queued = _shares(looks[0], looks[-1], thread)
            if used > IDLE_USED or used + queued > IDLE_WANTED:
                return None
            if not _repeats([look.cpus.get(cpu, NOWHERE) for look in looks]):
                return None
        places = ", ".join(f"CPU {cpu} {at}" for cpu, at in looks[-1].cpus.items())
        return f"every CPU sleeps: {places}"

    def _spinning(self) -> str | None:
        looks = self._since(SPIN_SECONDS)
        for cpu, thread in self._threads.items() if looks else ():
            seen = [look.cpus.get(cpu, NOWHERE) for look in looks]
            places = [at for at in seen if at.pc % VECTOR_BYTES]
            pcs = [at.pc for at in places if at.level == 2]
            if len(pcs) < max(LOOKS_THAT_CONVINCE, len(places)):
                continue
            used, queued = _shares(looks[0], looks[-1], thread)
            if (
                max(pcs) - min(pcs) <= SPIN_BYTES
                and _repeats(places)
                and used > SPIN_SHARE * (1 - queued)
            ):
                return f"CPU {cpu} {places[-1]} and does not get out of there"
        return None

    def _lost(self) -> str | None:
        looks = self._since(IDLE_SECONDS)
        pcs = [look.cpus.get(0, NOWHERE).pc for look in looks]
        if pcs and max(pcs) < NO_VECTORS_BYTES:
            return f"CPU 0 faults at {pcs[-1]:#x}, where no Xen is, without end"
        return None


def _repeats(places: Sequence[_At]) -> bool:
    """Whether a CPU was in each state it was in again and again."""
    return len({at.registers for at in places}) * LOOKS_A_STATE <= len(places)


def _shares(first: _Look, last: _Look, thread: int) -> tuple[float, float]:
    """Which share of the time between two looks `thread` ran, and which it waited for a CPU."""
    seconds = last.time - first.time
    used = last.used.get(thread, 0) - first.used.get(thread, 0)
    queued = last.queued.get(thread, 0) - first.queued.get(thread, 0)
    return used / seconds, queued / seconds
