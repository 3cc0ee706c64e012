"""The same story with Linux where the second stage was: what U-Boot's forgotten page does to it.

On a Xen that maps shared_info twice Linux comes up, and a page of what it takes for RAM is
shared_info: whatever it keeps there, event channels are masked by. On a Xen that maps it once
Linux 6.1 stops at a BUG in xen_guest_init(), which takes no refusal.

Comes in: builds, U-Boots, a Linux. Goes out: a `LinuxCell` for each row and side, and `judge`. What
is in the page is read from outside, by the inspector: Linux itself notices nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.booting import Booted
from harness.builds import Build
from harness.cache import Cache
from harness.errors import HarnessError
from harness.inspection import CannotInspect
from harness.linux_dom0.guests import Linux, linux
from harness.progress import Progress, quiet
from harness.reproductions.uboot_shared_info import (
    CONTROL,
    ROWS,
    Found,
    Row,
    Stage,
    last_words,
    started,
)
from harness.uboot.second_stage import let_go
from harness.xenabi import PAGE_SHIFT, PAGE_SIZE, SHARED_INFO_LAYOUT

SECONDS = 180.0
LINUX_ROWS = (CONTROL, next(row for row in ROWS if row.slack))
# No console ring, no xenstore: the kernel's early console is Xen's, and stays; /dev/kmsg is its way
# in for what runs above the kernel. By default Linux keeps its event channels in pages of its own,
# and shared_info has them only where Xen knows no other way, or Linux is told so.
BOOTARGS = "earlycon=xenboot keep_bootcon loglevel=7 panic=-1 rdinit=/init xen.fifo_events=0"
# Where U-Boot looks for a root file system: from the start of the kernel (domu.config).
ROOT_AT = 0x4C000000 - 0x48200000
ROOT_SIZE = 4 << 20
LEFT_KIB = 16 << 10
UP = "guest: up"
FILLED = "guest: memory is full"
# Nobody knows what Linux uses a page for, and when: fill memory until hardly any is left.
FILL = f"""\
echo "{UP}" > /dev/kmsg
busybox mount -t tmpfs -o size=100% tmpfs /tmp
while [ "$(busybox awk '/^MemFree/ {{ print $2 }}' /proc/meminfo)" -gt {LEFT_KIB} ]; do
    busybox head -c 1m /dev/zero || break
done > /tmp/file
echo "{FILLED}" > /dev/kmsg
while :; do busybox sleep 1000; done
"""
BUG = re.compile(r"kernel BUG at \S*enlighten\.c:\d+!")
PLACE = "xen_guest_init"
# Linux masks every event channel that it does not use, and uses less than 64: behind the first word
# of the mask there are only ones.
MASKED_AT = SHARED_INFO_LAYOUT.offset("evtchn_mask") + 8
MASKED = b"\xff" * 504


@dataclass(frozen=True)
class LinuxCell:
    """What became of Linux."""

    row: Row
    side: str
    found: Found
    gfns: tuple[int, ...]  # where shared_info is mapped, by Xen's tables
    overwritten: int  # bytes that mask channels nobody uses, and do so no more
    said: tuple[str, ...]
    seconds: float

    def describe(self) -> dict[str, object]:
        """Return what reproduction.json says about the cell."""
        return {
            "row": self.row.name,
            "side": self.side,
            "found": self.found.value,
            "gfns": [f"{gfn:#x}" for gfn in self.gfns],
            "mask_bytes_overwritten": self.overwritten,
            "console": list(self.said),
            "seconds": round(self.seconds, 2),
        }


def kernel(cache: Cache, progress: Progress = quiet) -> Linux:
    """Return Debian's Linux with nothing but what fills its memory, to be started by U-Boot."""
    return linux(cache, FILL, progress)


def run(
    sides: dict[str, Build], stage: Stage, linux: Linux, progress: Progress = quiet
) -> list[LinuxCell]:
    """Boot every row on every side, one after the other: two Linux at once are no faster."""
    payload = write_payload(linux, stage.folder / "linux.payload")
    cells = []
    for row in LINUX_ROWS:
        for side, build in sides.items():
            progress(f"booting Linux by {row.name} on {side}")
            cells.append(boot(row, side, build, stage, payload))
    payload.unlink()
    return cells


def write_payload(linux: Linux, file: Path) -> Path:
    """Write kernel and root file system as the one image that Xen has a place for."""
    kernel, root = linux.kernel.read_bytes(), linux.root.read_bytes()
    if len(kernel) > ROOT_AT or len(root) > ROOT_SIZE:
        raise HarnessError("Linux is too large for the place that U-Boot expects it at")
    file.write_bytes(kernel.ljust(ROOT_AT, b"\0") + root.ljust(ROOT_SIZE, b"\0"))
    return file


def boot(row: Row, side: str, build: Build, stage: Stage, payload: Path) -> LinuxCell:
    """Boot one row on one Xen, until it is known what Linux does there."""
    directory = stage.folder / re.sub(r"[^\w.+-]+", "-", side) / f"linux-{row.name}"
    began = time.monotonic()
    with started(row, build, stage, directory, payload, BOOTARGS) as (host, held):
        host.may_sleep = True
        settled = False

        def come_to_an_end() -> bool:
            nonlocal settled
            let_go(host.ram, held)
            text = host.console.text
            if why := last_words(text):
                raise HarnessError(f"U-Boot does not start Linux: {why}")
            if UP in text and not settled:
                settled = True
                gfns, overwritten = _shared_info(host)
                return len(gfns) == 1 or overwritten > 0
            return FILLED in text or bool(_given_up(text))

        host.wait(come_to_an_end, SECONDS, "Linux, or its end")
        host.check()
        gfns, overwritten = _shared_info(host)
        said = _given_up(host.console.text)
    found = Found.REFUSED if said else classify(gfns, overwritten)
    return LinuxCell(row, side, found, gfns, overwritten, said, time.monotonic() - began)


def _given_up(text: str) -> tuple[str, ...]:
    """Return Linux' own words on why it does not go on, nothing while it does."""
    found = BUG.search(text)
    if not found or f"{PLACE}+" not in text[found.start() :]:
        return ()
    place = next(line for line in text[found.start() :].splitlines() if f"{PLACE}+" in line)
    return found[0], place.removeprefix("(d1) ").strip()


def _shared_info(host: Booted) -> tuple[tuple[int, ...], int]:
    """Return the GFNs at which d1's shared_info is mapped, and how much of its mask is lost."""
    try:
        state, physmap = host.inspector.domain(1), host.inspector.physmap(1)
    except CannotInspect as problem:
        raise HarnessError(f"what became of shared_info cannot be seen: {problem}") from problem
    if state.shared_info is None:
        raise HarnessError("d1 has no shared_info")
    page = host.ram.read(state.shared_info << PAGE_SHIFT, PAGE_SIZE)
    return tuple(sorted(physmap.gfns_of(state.shared_info))), overwritten_in(page)


def overwritten_in(page: bytes) -> int:
    """Return how many bytes of a shared_info that mask unused channels do so no more."""
    mask = page[MASKED_AT:][: len(MASKED)]
    return sum(there != right for there, right in zip(mask, MASKED, strict=True))


def classify(gfns: tuple[int, ...], overwritten: int) -> Found:
    """Return what it means for a Linux that runs."""
    if len(gfns) > 1:
        return Found.ALIAS
    return Found.BROKEN if overwritten else Found.CLEAN


def judge(cells: Iterable[LinuxCell], before: str, after: str) -> list[str]:
    """Return what is wrong on the `after` side; HarnessError if `before` does not show the bug."""
    table = {(cell.row.name, cell.side): cell for cell in cells}
    control = table[CONTROL.name, before]
    if control.found is not Found.ALIAS or not control.overwritten:
        raise HarnessError(
            f"Linux comes to no harm on {before}, so nothing can be said about {after}",
            evidence=[f"{CONTROL.note}: {control.found}", *control.said],
            advice="The first Xen must be one from before 4.17, or without the change.",
        )
    wrong = []
    for row in LINUX_ROWS:
        found = table[row.name, after].found
        wanted = Found.REFUSED if row == CONTROL else Found.CLEAN
        if found is not wanted:
            wrong.append(f"Linux, {row.name} on {after}: {found}, not {wanted}")
    return wrong
