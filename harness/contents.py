"""A GFN in, what the guest finds there out, told by the guest's own loads and stores.

Comes in: a domain. Goes out: a `Content`. RAM is known by the pattern the harness filled it with,
pages Xen shares by a challenge: the guest writes a word and asks Xen for something that changes it
in the real page. What Xen's own tables say is the inspector's business.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from harness import grants, hypercalls, xenabi
from harness import operations as ops
from harness.hypercalls import Call
from harness.xenabi import DOMID_SELF, PAGE_SHIFT, PAGE_SIZE, EventOp

if TYPE_CHECKING:
    from harness.domain import Domain

MASK = 2**64 - 1
WORD = struct.Struct("<Q")
ANY_PORT = {"dom": DOMID_SELF, "remote_dom": DOMID_SELF}
WORDS = PAGE_SIZE // 8

# A pattern's word: a tag, the GFN, how often that GFN was filled (modulo 8), the word's number.
TAG = 0xA9E7
TAG_SHIFT, GFN_SHIFT, FILLING_SHIFT = 48, 12, 9
FILLINGS = 8
SAMPLES = (*range(0, WORDS, WORDS // 8), WORDS - 1)
ENOUGH = 6  # of the samples: a case may have written a word or two


class Content:
    """What is at a GFN; the plain kinds are single objects, to compare with `is`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


RAM = Content("RAM")
"""The page of RAM that was last filled at this very GFN."""
HOLE = Content("HOLE")
"""Nothing: a load takes a data abort."""
FAULT = HOLE
SHARED_INFO_PAGE = Content("SHARED_INFO_PAGE")
UNKNOWN = Content("UNKNOWN")
"""Something that can be read, and is none of the others: RAM nobody filled, a device, …"""


@dataclass(frozen=True)
class GrantFrame(Content):
    """The domain's grant table, this frame of it."""

    number: int

    def __repr__(self) -> str:
        return f"GrantFrame({self.number})"


@dataclass(frozen=True)
class StatusFrame(Content):
    """The status frames of the domain's grant table, version 2, this one of them."""

    number: int

    def __repr__(self) -> str:
        return f"StatusFrame({self.number})"


@dataclass(frozen=True)
class OtherRam(Content):
    """RAM that was filled at another GFN, or earlier at this one."""

    gfn: int

    def __repr__(self) -> str:
        return f"OtherRam({self.gfn:#x})"


class Eye:
    """Looks at one domain's pages, and remembers what it filled them with."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._fillings: dict[int, int] = {}
        self._port: int | None = None

    def fill(self, gfns: Sequence[int]) -> None:
        """Give each page a new pattern; a page that is not there is left alone."""
        operations = []
        for gfn in gfns:
            self._fillings[gfn] = (self._fillings.get(gfn, -1) + 1) % FILLINGS
            first = _pattern(gfn, self._fillings[gfn])
            operations.append(ops.fill(gfn << PAGE_SHIFT, PAGE_SIZE, first, 1))
        self._domain.agent.run(operations)

    def look(self, gfn: int) -> Content:
        """What is there; shared pages are as they were when it returns.

        One copy of the page means one fault where there is none: each costs a line on the console.
        """
        page = self._domain.page(gfn)
        if page is None:
            return HOLE
        return self._ram(gfn, page) or self._shared(gfn << PAGE_SHIFT) or UNKNOWN

    def same_page(self, one: int, other: int) -> bool:
        """Whether a word written at one GFN can be read at the other."""
        here, there = (gfn << PAGE_SHIFT | 8 * (WORDS // 2 + 1) for gfn in (one, other))
        run, mark = self._domain.agent.run, random.getrandbits(64)
        (before,) = run([ops.load(here)])
        if before.fault:
            return False
        _, seen, _ = run([ops.store(here, mark), ops.load(there), ops.store(here, before.value)])
        return not seen.fault and seen.value & MASK == mark

    def _ram(self, gfn: int, page: bytes) -> Content | None:
        """RAM by its pattern, where most samples agree on one."""
        words = [WORD.unpack_from(page, 8 * number)[0] for number in SAMPLES]
        for word in words[: len(SAMPLES) - ENOUGH + 1]:
            found = word >> GFN_SHIFT & (1 << TAG_SHIFT - GFN_SHIFT) - 1
            filling = word >> FILLING_SHIFT & FILLINGS - 1
            first = _pattern(found, filling)
            if sum(w == first + n for w, n in zip(words, SAMPLES, strict=True)) >= ENOUGH:
                mine = found == gfn and filling == self._fillings.get(gfn)
                return RAM if mine else OtherRam(found)
        return None

    def _shared(self, base: int) -> Content | None:
        """A page Xen shares, by what Xen does to it when asked."""
        challenges = self._challenges(base)
        before = self._domain.agent.run([ops.load(c.changed, c.width) for c in challenges])
        steps: list[ops.Op | Call[Any]] = []
        for challenge, old in zip(challenges, before, strict=True):
            steps += challenge.steps(old.value)
        results = iter(self._domain.run_mixed(steps))
        found = None
        for challenge, old in zip(challenges, before, strict=True):
            changed, _, seen, *_ = islice(results, len(challenge.steps(old.value)))
            faults = old.fault or changed.fault or seen.fault
            if not faults and challenge.met_by(seen.value):
                found = found or challenge.content
        return found

    def _challenges(self, base: int) -> list[Challenge]:
        """What to try on the page at `base`: one thing for each page that Xen may share."""
        if self._port is None:
            (port,) = self._domain.ask([hypercalls.event_op(EventOp.alloc_unbound, **ANY_PORT)])
            self._port = port.value
        about: list[Call[Any]] = [grants.version_call(), grants.size_call()]
        version, size = self._domain.ask(about)
        frames = 0 if size.error else size.value[0]
        challenges: list[Challenge] = [MaskedPort(base, self._port)]
        if version.error or version.value == 1:
            challenges += [SwappedEntries(GrantFrame(n), base, n, 8) for n in range(frames)]
        else:
            challenges += [SwappedEntries(GrantFrame(n), base, n, 16) for n in range(frames)]
            statuses = -(-frames * (PAGE_SIZE // 16) // (PAGE_SIZE // 2))
            challenges += [SwappedEntries(StatusFrame(n), base, n, 2) for n in range(statuses)]
        return challenges


class MaskedPort:
    """Mask an event channel in the page: Xen's unmask clears the bit in the real shared_info."""

    width = 8
    content = SHARED_INFO_PAGE

    def __init__(self, base: int, port: int) -> None:
        offset = xenabi.SHARED_INFO_LAYOUT.offset("evtchn_mask") + port // 64 * 8
        self.changed = base + offset
        self._bit = 1 << port % 64
        self._unmask = hypercalls.event_op(EventOp.unmask, port=port)

    def steps(self, old: int) -> list[ops.Op | Call[Any]]:
        """Change, ask, look (the third step), and put back."""
        return [
            ops.store(self.changed, old | self._bit),
            self._unmask,
            ops.load(self.changed),
            ops.store(self.changed, old),
        ]

    def met_by(self, seen: int) -> bool:
        """Whether Xen did it to this page."""
        return not seen & self._bit


class SwappedEntries:
    """Mark one of a frame's entries: Xen's swap moves it to the next one in the real frame.

    `entry` is the size of one in bytes. The mark grants nothing, as it leaves the flags alone: they
    are the first two bytes of a table's entry, and the low bits of a status.
    """

    def __init__(self, content: Content, base: int, frame: int, entry: int) -> None:
        self.content = content
        self.width = min(entry, 8)
        self.changed = base + UNUSED_ENTRY * entry + entry - self.width  # its last word
        self._other = self.changed + entry
        ref = frame * PAGE_SIZE // entry + UNUSED_ENTRY
        self._swap = grants.swap_call(ref, ref + 1)
        self._mark = random.getrandbits(8 * self.width) & MARKS[self.width] | 1 << (
            8 * self.width - 1
        )

    def steps(self, old: int) -> list[ops.Op | Call[Any]]:
        """Change, ask, look (the third step), and put back."""
        return [
            ops.store(self.changed, self._mark, self.width),
            self._swap,
            ops.load(self._other, self.width),
            self._swap,
            ops.store(self.changed, old, self.width),
        ]

    def met_by(self, seen: int) -> bool:
        """Whether Xen did it to this page."""
        return seen & (1 << 8 * self.width) - 1 == self._mark


Challenge = MaskedPort | SwappedEntries
MARKS = {8: MASK & ~0xFFFF, 2: 0xFFE0}
# The last two entries of a frame in version 2; cases grant by the first ones.
UNUSED_ENTRY = 254


def _pattern(gfn: int, filling: int) -> int:
    """The first word of a page; the others count up from it."""
    return (TAG << TAG_SHIFT | gfn << GFN_SHIFT | filling << FILLING_SHIFT) & MASK
