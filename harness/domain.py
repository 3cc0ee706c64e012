"""An agent in, what a case holds in its hand out: one domain's pages, hypercalls, loads and stores.

Everything a domain does goes through its agent, and is remembered in `history`. What a case expects
of Xen, and what other domains do, this refuses to know. How a page is recognised is in contents.py,
the grant table in grants.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

from harness import hypercalls, memory_calls, xenabi
from harness import operations as ops
from harness.agent import Agent
from harness.contents import Content, Eye
from harness.errors import HarnessError, XenFailure
from harness.grants import GrantTable
from harness.guest_memory import Arguments, PagePool, Placed, pieces
from harness.hypercalls import Answer, Buffer, Call
from harness.operations import Fault, Op, Result
from harness.xenabi import DOMID_SELF, PAGE_SHIFT, PAGE_SIZE, MemoryOp

T = TypeVar("T")

HISTORY = 200
RACE_PATIENCE_NS = 1_000_000_000


class GuestFault(Exception):
    """An operation of the guest took an exception: nothing is there, or nothing that allows it."""

    def __init__(self, text: str, result: Result) -> None:
        self.esr = result.esr
        self.far = result.far
        kind = "SError" if result.fault is Fault.SERROR else "synchronous exception"
        super().__init__(f"{kind} in {text}: ESR {result.esr:#x}, FAR {result.far:#x}")


class Domain:
    """One domain an agent runs in. GFNs count pages of 4 KiB; addresses are the guest's own."""

    def __init__(self, agent: Agent, domid: int, *, vcpus: int = 1) -> None:
        self.agent = agent
        self.domid = domid
        self.vcpus = vcpus
        self.name = f"d{domid}"
        agent.name = f"the agent of {self.name}"
        self.history: deque[str] = deque(maxlen=HISTORY)
        """The last operations, as "d1 XENMEM_remove_from_physmap(gfn=0x38020) -> 0"."""
        self.after_calls: Callable[[Domain, Sequence[Call[Any]]], None] | None = None
        """Told of the calls that were made, once all have been answered."""
        self.grant_table = GrantTable(self)
        self._arguments = Arguments(agent)
        self._eye = Eye(self)

    def __repr__(self) -> str:
        return f"<domain {self.name}>"

    # -------------------------------------------------------------------- doing

    def do(self, call: Call[T]) -> T:
        """Make one call and return what it gives; raises XenError, GrantError or GuestFault."""
        (answer,) = self.attempt([call])
        return answer.value

    def attempt(self, calls: Sequence[Call[T]], vcpu: int = 0) -> list[Answer[T]]:
        """Make the calls in order in one go, on one vCPU; errors are in the answers."""
        with self._telling(calls, vcpu):
            answers = self.ask(calls, vcpu)
        for answer in answers:
            self._remember(repr(answer), vcpu)
        self._made(calls)
        return answers

    def ask(self, calls: Sequence[Call[T]], vcpu: int = 0) -> list[Answer[T]]:
        """The same as `attempt`, for the harness's own questions: nothing is remembered."""
        answers: list[Answer[T]] = []
        for group in self._arguments.groups(calls):
            placed = [self._arguments.place(call) for call in group]
            results = self.agent.run([each.operation for each in placed], vcpu)
            answers += map(_answer, group, placed, results)
        return answers

    @contextmanager
    def batch(self, *, check: bool = True) -> Iterator[Batch]:
        """Collect calls and make them in one go when the block ends.

        The first error among the answers is raised there, unless `check` is false.
        """
        batch = Batch()
        yield batch
        made = self.attempt([answer.call for answer in batch.answers])
        for answer, settled in zip(batch.answers, made, strict=True):
            answer.take(settled)
        if check:
            for answer in batch.answers:
                _ = answer.value

    def race(
        self, one: Sequence[Call[Any]], other: Sequence[Call[Any]], *, skew_ns: int = 0
    ) -> tuple[list[Answer[Any]], list[Answer[Any]]]:
        """Make the first calls on vCPU 0 and the second on vCPU 1, beginning at the same instant.

        Each waits until the other is there; `skew_ns` then delays vCPU 1, or vCPU 0 if negative.
        The domain needs two vCPUs, and the scenario two physical CPUs, or nothing is at once.
        """
        self._arguments.reset()
        flags = self._arguments.take_flags(2)
        sides = [[self._arguments.place(call) for call in calls] for calls in (one, other)]
        batches = {}
        for vcpu, placed in enumerate(sides):
            delay = max(0, skew_ns if vcpu else -skew_ns)
            batches[vcpu] = [
                ops.store(flags[vcpu], 1),
                ops.await_value(flags[1 - vcpu], 1, nanoseconds=RACE_PATIENCE_NS),
                ops.sleep(delay),
                *(each.operation for each in placed),
            ]
        with self._telling(one, 0), self._telling(other, 1):
            results = self.agent.run_together(batches)
        if not all(results[vcpu][1].value for vcpu in (0, 1)):
            raise HarnessError(f"the two vCPUs of {self.name} did not meet")
        answers = (
            list(map(_answer, one, sides[0], results[0][3:])),
            list(map(_answer, other, sides[1], results[1][3:])),
        )
        for vcpu, side in enumerate(answers):
            for answer in side:
                self._remember(repr(answer), vcpu)
        self._made([*one, *other])
        return answers

    def run(self, operations: Sequence[Op], vcpu: int = 0, *, what: str = "") -> list[Result]:
        """Run plain operations of the agent; faults are in the results. `what` goes to history."""
        with self._telling([what] if what else [], vcpu):
            results = self.agent.run(operations, vcpu)
        if what:
            self._remember(f"{what} -> {_outcome(results)}", vcpu)
        return results

    def run_mixed(self, steps: Sequence[Op | Call[Any]]) -> list[Result]:
        """Run operations and calls in order, in one batch; nothing is raised or remembered."""
        self._arguments.reset()
        return self.agent.run(
            [self._arguments.place(s).operation if isinstance(s, Call) else s for s in steps]
        )

    def _made(self, calls: Sequence[Call[Any]]) -> None:
        if self.after_calls is not None and calls:
            self.after_calls(self, calls)

    @contextmanager
    def _telling(self, asked: Sequence[object], vcpu: int) -> Iterator[None]:
        """Remember what was asked last should Xen die of it."""
        try:
            yield
        except XenFailure:
            for each in asked[-HISTORY:]:
                self._remember(f"{each} -> no answer", vcpu)
            raise

    def _remember(self, text: str, vcpu: int = 0) -> None:
        self.history.append(f"{self.name}{f'v{vcpu}' if vcpu else ''} {text}")

    # ------------------------------------------------------------------- memory

    @cached_property
    def _pages(self) -> PagePool:
        return PagePool(self.agent, dom0=self.domid == 0)

    def ram_pages(self, count: int) -> list[int]:
        """`count` GFNs of the domain's own RAM, in a row, each filled with a pattern of its own."""
        gfns = self._pages.take_ram(count)
        self.fill_ram(gfns)
        return gfns

    def hole_pages(self, count: int) -> list[int]:
        """`count` GFNs in a row with nothing behind them, that nobody got before."""
        return self._pages.take_holes(count)

    def fill_ram(self, gfns: Iterable[int]) -> None:
        """Fill RAM with new patterns, by which `content` knows each page again."""
        self._eye.fill(list(gfns))

    def content(self, gfn: int) -> Content:
        """What the guest finds at `gfn`: RAM, HOLE, SHARED_INFO_PAGE, GrantFrame(n), …

        Shared pages are recognised by having Xen change them, and are put back as they were. Do
        not ask about a page that is mapped read-only, unless it is RAM the harness filled: Xen
        lets a guest that writes to one try again forever (FSC_FLT_PERM in
        do_trap_stage2_abort_guest(), xen/arch/arm/traps.c).
        """
        content = self._eye.look(gfn)
        self._remember(f"content({gfn:#x}) -> {content}")
        return content

    def aliases(self, one: int, other: int) -> bool:
        """Whether two GFNs show the same page: a word written at one appears at the other."""
        return self._eye.same_page(one, other)

    def load(self, address: int, width: int = 8) -> int:
        """Read 1, 2, 4 or 8 bytes, unsigned; raises GuestFault."""
        text = f"load({address:#x}, {width})"
        return self._one(ops.load(address, width), text) & (1 << 8 * width) - 1

    def store(self, address: int, value: int, width: int = 8) -> None:
        """Write 1, 2, 4 or 8 bytes; raises GuestFault."""
        self._one(ops.store(address, value, width), f"store({address:#x}, {value:#x}, {width})")

    def fetch(self, address: int) -> int:
        """Execute what is at `address`, which must return: operations.fetch. Raises GuestFault."""
        return self._one(ops.fetch(address), f"fetch({address:#x})")

    def read(self, address: int, size: int) -> bytes:
        """Bytes of guest memory, as the guest sees them; raises GuestFault."""
        found = b""
        for at, part in pieces(address, size):
            data, result = self._arguments.fetch(at, part)
            self._settle(result, f"read({at:#x}, {part})")
            found += data
        return found

    def page(self, gfn: int) -> bytes | None:
        """All of a page, as the guest sees it; None if it cannot be read. Not remembered."""
        data, result = self._arguments.fetch(gfn << PAGE_SHIFT, PAGE_SIZE)
        return None if result.fault else data

    def put(self, data: bytes, *, align: int = 16, offset: int = 0) -> int:
        """Lay bytes into RAM for good, `offset` bytes after an aligned address; returns where."""
        return self._arguments.keep(data, align, offset)

    def _one(self, operation: Op, text: str) -> int:
        (result,) = self.agent.run([operation])
        self._settle(result, text)
        return result.value

    def _settle(self, result: Result, text: str) -> None:
        self._remember(f"{text} -> {_outcome([result])}")
        if result.fault:
            raise GuestFault(text, result)

    # --------------------------------------------------------------- hypercalls

    def hypercall(self, number: int, *arguments: int | Buffer) -> int:
        """Any hypercall, up to five arguments as they are; raises XenError if negative."""
        return self.do(hypercalls.hypercall(number, *arguments))

    def add_to_physmap(
        self, space: int, *, gfn: int, idx: int = 0, size: int = 0, domid: int = DOMID_SELF
    ) -> int:
        """XENMEM_add_to_physmap: map page `idx` of `space` at `gfn`."""
        return self.do(memory_calls.add_to_physmap(space, gfn=gfn, idx=idx, size=size, domid=domid))

    def add_to_physmap_batch(
        self,
        space: int,
        entries: Sequence[tuple[int, int]],
        *,
        foreign_domid: int = 0,
        domid: int = DOMID_SELF,
    ) -> list[int]:
        """XENMEM_add_to_physmap_batch of (idx, gfn): an error for each entry, 0 or as -16."""
        return self.do(
            memory_calls.add_to_physmap_batch(
                space, entries, foreign_domid=foreign_domid, domid=domid
            )
        )

    def remove_from_physmap(self, gfn: int, *, domid: int = DOMID_SELF) -> int:
        """XENMEM_remove_from_physmap: take away what is at `gfn`."""
        return self.do(memory_calls.remove_from_physmap(gfn, domid=domid))

    def populate_physmap(
        self, gfns: Sequence[int], order: int = 0, *, domid: int = DOMID_SELF
    ) -> int:
        """XENMEM_populate_physmap: how many extents got RAM; each page of ours gets its pattern."""
        done = self.do(memory_calls.populate_physmap(gfns, order, domid=domid))
        if domid in (DOMID_SELF, self.domid):
            self.fill_ram(gfn + page for gfn in gfns[:done] for page in range(1 << order))
        return done

    def decrease_reservation(
        self, gfns: Sequence[int], order: int = 0, *, domid: int = DOMID_SELF
    ) -> int:
        """XENMEM_decrease_reservation: how many extents of RAM were given back."""
        return self.do(memory_calls.decrease_reservation(gfns, order, domid=domid))

    def memory_exchange(self, given: Sequence[int], wanted: Sequence[int]) -> int:
        """XENMEM_exchange of single pages; no Xen on Arm does it: EOPNOTSUPP."""
        return self.do(memory_calls.memory_exchange(given, wanted))

    def current_reservation(self, domid: int = DOMID_SELF) -> int:
        """Pages a domain has now."""
        return self.do(memory_calls.about_domain(MemoryOp.current_reservation, domid))

    def maximum_reservation(self, domid: int = DOMID_SELF) -> int:
        """Pages a domain may have at most."""
        return self.do(memory_calls.about_domain(MemoryOp.maximum_reservation, domid))

    def maximum_gpfn(self, domid: int = DOMID_SELF) -> int:
        """The highest GFN that was ever mapped."""
        return self.do(memory_calls.about_domain(MemoryOp.maximum_gpfn, domid))

    def xen_version(self) -> tuple[int, int]:
        """(4, 17)."""
        number = self.do(hypercalls.version_number())
        return number >> 16, number & 0xFFFF

    def extraversion(self) -> str:
        """What follows in the version, such as ".5"; may be withheld from a domU."""
        return self.do(hypercalls.version_text(xenabi.VersionOp.extraversion, 16))

    def capabilities(self) -> str:
        """Which guests Xen runs, such as "xen-3.0-aarch64 xen-3.0-armv7l "."""
        return self.do(hypercalls.version_text(xenabi.VersionOp.capabilities, 1024))

    def console_write(self, text: str) -> int:
        """Say something on Xen's console; it appears once the line is complete."""
        return self.do(hypercalls.console_write(text.encode()))

    def event_channel(self, operation: xenabi.EventOp, **values: int) -> int:
        """EVTCHNOP_* with the members of its structure; allocating ones return the port."""
        return self.do(hypercalls.event_op(operation, **values))

    def shutdown(self, reason: int = xenabi.Shutdown.poweroff) -> None:
        """SCHEDOP_shutdown: this domain's end, and the machine's if it is dom0; no answer comes."""
        self._arguments.reset()
        call = hypercalls.shutdown(reason)
        self._remember(str(call))
        self.agent.post([self._arguments.place(call).operation])

    def stop(self) -> None:
        """Let the domain wait for interrupts forever; it answers nothing any more."""
        self._remember("stop()")
        self.agent.post([ops.stop()])


def _answer(call: Call[T], placed: Placed, result: Result) -> Answer[T]:
    answer = Answer(call)
    if result.fault:
        answer.error = GuestFault(str(call), result)
    else:
        answer.settle(result.value, placed.read)
    return answer


class Batch:
    """Calls that are made when their batch ends."""

    def __init__(self) -> None:
        self.answers: list[Answer[Any]] = []

    def do(self, call: Call[T]) -> Answer[T]:
        """Add a call; its answer has a value once the batch has ended."""
        answer = Answer(call)
        self.answers.append(answer)
        return answer


def _outcome(results: Sequence[Result]) -> str:
    faults = [result for result in results if result.fault]
    if faults:
        return f"{faults[0].fault.name} fault, ESR {faults[0].esr:#x}, FAR {faults[0].far:#x}"
    return f"{results[-1].value & 2**64 - 1:#x}" if results else "nothing"


def identify(agent: Agent) -> int:
    """The domid of the domain an agent runs in.

    Xen tells a domU its own reservation and no one else's, and dom0 comes first in the asking:
    the first domid that gets an answer is the caller's (xsm_memory_stat_reservation).
    """
    arguments = Arguments(agent)
    calls = [memory_calls.about_domain(MemoryOp.current_reservation, domid) for domid in range(64)]
    results = agent.run([arguments.place(call).operation for call in calls])
    for domid, result in enumerate(results):
        if not result.fault and result.value >= 0:
            return domid
    raise HarnessError(
        f"{agent.name} does not find out its domid",
        evidence=[str(calls[0].refusal(results[0].value))],
    )
