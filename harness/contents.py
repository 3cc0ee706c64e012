"""A GFN in, what the guest finds there out, told by the guest's own loads and stores.

Comes in: a domain. Goes out: a `Content`. RAM is known by the pattern the harness filled it with,
pages Xen shares by a challenge: the guest writes a word and asks Xen for something that changes it
in the real page. What Xen's own tables say is the inspector's business.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import agent as ops
from harness import grants, hypercalls, xenabi
from harness.hypercalls import Call
from harness.xenabi import DOMID_SELF, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from harness.domain import Domain

MASK = 2**64 - 1
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
        """What is there; shared pages are as they were when it returns."""
        base = gfn << PAGE_SHIFT
        results = self._domain.agent.run([ops.load(base + 8 * word) for word in SAMPLES])
        if all(result.fault for result in results):
            return HOLE
        words = [result.value & MASK for result in results]
        return self._ram(gfn, words) or self._challenge(base) or UNKNOWN

    def same_page(self, one: int, other: int) -> bool:
        """Whether a word written at one GFN can be read at the other."""
        here, there = (gfn << PAGE_SHIFT | 8 * (WORDS // 2 + 1) for gfn in (one, other))
        run, mark = self._domain.agent.run, random.getrandbits(64)
        (before,) = run([ops.load(here)])
        if before.fault:
            return False
        _, seen, _ = run([ops.store(here, mark), ops.load(there), ops.store(here, before.value)])
        return not seen.fault and seen.value & MASK == mark

    def _ram(self, gfn: int, words: Sequence[int]) -> Content | None:
        """RAM by its pattern, if most samples agree on one."""
        for word in words[: len(SAMPLES) - ENOUGH + 1]:
            found = word >> GFN_SHIFT & (1 << TAG_SHIFT - GFN_SHIFT) - 1
            filling = word >> FILLING_SHIFT & FILLINGS - 1
            first = _pattern(found, filling)
            if sum(w == first + n for w, n in zip(words, SAMPLES, strict=True)) >= ENOUGH:
                mine = found == gfn and filling == self._fillings.get(gfn)
                return RAM if mine else OtherRam(found)
        return None

    def _challenge(self, base: int) -> Content | None:
        """A page Xen shares, by what Xen does to it."""
        if self._is_shared_info(base):
            return SHARED_INFO_PAGE
        version, frames = self._grant_table()
        entry = 8 if version == 1 else 16
        per_frame = PAGE_SIZE // entry
        # The last two entries of a frame, in v2 their second words: nothing here is a grant.
        last, before = PAGE_SIZE - 8, PAGE_SIZE - 8 - entry
        number = self._swapped(base, before, last, frames, per_frame, per_frame - 2)
        if number is not None:
            return GrantFrame(number)
        if version == 2:
            status = PAGE_SIZE // 2  # 16-bit words
            count = -(-frames * per_frame // status)
            number = self._swapped(base, PAGE_SIZE - 4, PAGE_SIZE - 2, count, status, status - 2, 2)
        return None if number is None else StatusFrame(number)

    def _is_shared_info(self, base: int) -> bool:
        """Mask an event channel in the page; Xen's unmask finds that only in the real one."""
        if self._port is None:
            self._port = self._domain.event_channel(
                xenabi.EventOp.alloc_unbound, dom=DOMID_SELF, remote_dom=DOMID_SELF
            )
        mask = base + xenabi.SHARED_INFO_LAYOUT.offset("evtchn_mask") + self._port // 64 * 8
        bit = 1 << self._port % 64
        unmask = hypercalls.event_op(xenabi.EventOp.unmask, port=self._port)
        (old,) = self._domain.agent.run([ops.load(mask)])
        _, _, new, _ = self._domain.run_mixed(
            [ops.store(mask, old.value | bit), unmask, ops.load(mask), ops.store(mask, old.value)]
        )
        return not old.fault and not new.fault and new.value & MASK == (old.value & ~bit) & MASK

    def _grant_table(self) -> tuple[int, int]:
        """Version of the grant table, and how many frames it has now."""
        version = self._domain.attempt([grants.version_call()])[0]
        size = self._domain.attempt([grants.size_call()])[0]
        return (1 if version.error else version.value), (0 if size.error else size.value[0])

    def _swapped(
        self,
        base: int,
        one: int,
        other: int,
        frames: int,
        per_frame: int,
        index: int,
        width: int = 8,
    ) -> int | None:
        """The frame of the table in which Xen swaps the two entries (`index` and the next one)
        when asked, as seen at offsets `one` and `other` of the page; they are swapped back."""
        mark = random.getrandbits(8 * width) & MARK[width] | MARK_AT_LEAST[width]
        old, _ = self._domain.agent.run(
            [ops.load(base + one, width), ops.load(base + other, width)]
        )
        if old.fault:
            return None
        steps: list[ops.Op | Call[Any]] = [ops.store(base + one, mark, width)]
        for frame in range(frames):
            ref = frame * per_frame + index
            swap = grants.swap_call(ref, ref + 1)
            steps += [swap, ops.load(base + other, width), swap]
        steps.append(ops.store(base + one, old.value, width))
        results = self._domain.run_mixed(steps)
        full = (1 << 8 * width) - 1
        for frame in range(frames):
            seen = results[2 + 3 * frame]
            if not seen.fault and seen.value & full == mark:
                return frame
        return None


# Marks that grant nothing: a v1 entry's flags are its low 16 bits, a status has two low ones.
MARK = {8: MASK & ~0xFFFF, 2: 0xFFE0}
MARK_AT_LEAST = {8: 1 << 63, 2: 1 << 15}


def _pattern(gfn: int, filling: int) -> int:
    """The first word of a page; the others count up from it."""
    return (TAG << TAG_SHIFT | gfn << GFN_SHIFT | filling << FILLING_SHIFT) & MASK
