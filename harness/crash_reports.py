"""A console and xen-syms in; what Xen died of, with the source of every frame, out.

Comes in: the console's text. Goes out: a `CrashReport` for each thing of harness.crashes.SIGNS that
Xen said, cut out whole, its frames named with inlined calls once `symbolised`, comparable by
`signature`. Refuses to know: what was running, and whether a case fails by it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.crashes import END, GUEST, PREFIX, Sign, sign_of
from harness.symbols import Location, locate

FRAME = re.compile(r"\[<([0-9a-f]+)>\] (\S+)(?: \((PC|LR)\))?")
STARS = re.compile(r"\*{20,}")
PANIC = re.compile(r"Panic on CPU (\d+):")
REGISTER = re.compile(r"(CPU|PC|LR): +([0-9a-f]+)")
# A dump's lines, for what has no END: registers, stack, trace, and what is between them.
DUMP = re.compile(
    r"----\[|[A-Z0-9_]+(_EL\d)?: |X\d+: |(Guest|Xen) (stack|call) trace|[0-9a-f]{8,16}( |$)|\[<|$"
    r"|Domain \d+ (\(vcpu#\d+\) crashed|reported crashed)|    "
)
# What the compiler hangs on a function's name, and the file that kallsyms puts before it.
DECORATION = re.compile(r"^\S+#|\.(isra|constprop|part|cold|llvm)\b.*$|\+0?x?[0-9a-f]*/?.*$")
NUMBER = re.compile(r"0x[0-9a-f]+|\d+")
OFFSET = re.compile(r"\+(?:0x)?([0-9a-f]+)/")
LINES_BEFORE = 3  # what Xen said just before is often the reason
# Its last word of booting (xen/arch/arm/mm.c, free_init_memory): no reason for what comes later.
BOOTED = re.compile(r"Freed \d+kB init memory")
INSTRUCTION = 4  # bytes; a return address points behind the call
PROLOGUE = 2 * INSTRUCTION  # until here a function has not saved its link register
# Frames below these are the way into Xen, the same for every hypercall.
SHOWN_FRAMES = 12


@dataclass(frozen=True)
class Frame:
    """One line of "Xen call trace", innermost first."""

    address: int
    symbol: str  # "page_alloc.c#alloc_heap_pages+0x264/0x6f0"
    role: str = ""  # "PC", "LR" or "", a return address found on the stack
    places: tuple[Location, ...] = ()  # innermost inlined call first

    @property
    def function(self) -> str:
        """The function's bare name."""
        return DECORATION.sub("", DECORATION.sub("", self.symbol)) or self.symbol

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions the frame stands for, innermost first: inlined ones where known."""
        return tuple(place.function for place in self.places) or (self.function,)

    @property
    def call(self) -> int:
        """The address of the instruction to look up: the call, not where it returns to."""
        return self.address if self.role == "PC" else self.address - INSTRUCTION


@dataclass(frozen=True)
class CrashReport:
    """One thing that went wrong, in Xen's own words and in the source's."""

    kind: str
    fatal: bool
    headline: str
    cpu: int | None
    frames: tuple[Frame, ...]  # PC first; LR only where the trace has nothing better
    before: tuple[str, ...]  # what Xen said just before
    lines: tuple[str, ...]  # the whole of it
    whole: bool  # whether Xen came to its end

    @property
    def signature(self) -> tuple[str, ...]:
        """What two of the same have in common: the functions on the way, no address, no line.

        Inlined functions count, so that what a compiler inlines makes no difference.  Where Xen
        printed no trace, the headline without its numbers has to do.
        """
        if self.frames:
            return (self.kind, *(name for frame in self.frames for name in frame.functions))
        return (self.kind, NUMBER.sub("N", self.headline))

    def same_as(self, other: CrashReport) -> bool:
        """Whether both are the same crash."""
        return self.signature == other.signature

    def render(self) -> list[str]:
        """Return the lines for a report: what, why, and where in the source."""
        where = f" on CPU {self.cpu}" if self.cpu is not None else ""
        lines = [f"{self.kind}{where}: {self.headline}"]
        lines += [f"  before  {said}" for said in self.before]
        for number, frame in enumerate(self.frames[:SHOWN_FRAMES]):
            lead = "  at      " if number == 0 else "  from    "
            for depth, place in enumerate(frame.places):
                inlined = " (inlined)" if depth < len(frame.places) - 1 else ""
                lines.append(f"{lead}{place.function:<32} {place.file}:{place.line}{inlined}")
                lead = "          "
            if not frame.places:
                lines.append(f"{lead}{frame.symbol}")
        if not self.whole:
            lines.append("  (Xen did not come to the end of its dump)")
        return lines


def read_crashes(text: str) -> list[CrashReport]:
    """Return everything in a console that Xen said went wrong, in order."""
    lines = text.replace("\r", "").splitlines()
    reports: list[CrashReport] = []
    position = 0
    while position < len(lines):
        sign = sign_of(lines[position])
        if sign is None:
            position += 1
            continue
        end, whole = _end(lines, position, sign)
        reports.append(_report(lines, position, end, sign, whole))
        position = end
    return reports


def first_fatal(reports: Sequence[CrashReport]) -> CrashReport | None:
    """Return what Xen died of."""
    return next((report for report in reports if report.fatal), None)


def symbolised(report: CrashReport, syms: Path) -> CrashReport:
    """Return the report with the source of each frame; `syms` must be of the very build."""
    places = locate(syms, (frame.call for frame in report.frames))
    frames = tuple(replace(frame, places=places[frame.call]) for frame in report.frames)
    return replace(report, frames=frames)


def _end(lines: Sequence[str], start: int, sign: Sign) -> tuple[int, bool]:
    """Return the line behind the crash that begins at `start`, and whether it is all there."""
    for position in range(start + 1, len(lines)):
        line = lines[position]
        if sign.fatal:
            if END.search(line):
                return position + 1, True
        elif _begins_another(line, sign) or not _goes_on(line):
            return position, True
    return len(lines), not sign.fatal


def _goes_on(line: str) -> bool:
    """Whether a line can stand inside a dump that has no END."""
    return bool(GUEST.match(line) or DUMP.match(_said(line).strip()))


def _begins_another(line: str, sign: Sign) -> bool:
    other = sign_of(line)
    return other is not None and other.kind != sign.kind


def _said(line: str) -> str:
    """Return what Xen said in a line that may begin with a guest's unfinished one."""
    before, prefix, said = line.partition(PREFIX)
    return said if prefix else before


def _report(lines: Sequence[str], start: int, end: int, sign: Sign, whole: bool) -> CrashReport:
    cut = tuple(lines[start:end])
    said = [_said(line) for line in cut if not GUEST.match(line)]
    dump = "\n".join(said)
    frames = tuple(
        Frame(int(address, 16), symbol, role)
        for address, symbol, role in FRAME.findall(dump.partition("Xen call trace:")[2])
    )
    cpu = PANIC.search(dump) or re.search(r"CPU: +(\d+)", dump) or re.search(r"on cpu#(\d+)", dump)
    before: list[str] = []
    for line in lines[max(0, start - LINES_BEFORE) : start]:
        if BOOTED.search(line):
            before.clear()
        elif PREFIX in line and not GUEST.match(line):
            before.append(line.partition(PREFIX)[2].strip())
    return CrashReport(
        kind=sign.kind,
        fatal=sign.fatal,
        headline=_headline(said, sign),
        cpu=int(cpu[1]) if cpu else None,
        frames=_without_stale_link(frames),
        before=tuple(line for line in before if line and not STARS.search(line)),
        lines=cut,
        whole=whole,
    )


def _headline(said: Sequence[str], sign: Sign) -> str:
    """Return the first line, and for a bare panic what it is about."""
    if sign.kind != "panic":
        return said[0].strip()
    about = [line.strip() for line in said[1:] if line.strip()]
    words = about[: next((n for n, line in enumerate(about) if STARS.search(line)), len(about))]
    return " ".join(words) or said[0].strip()


def _without_stale_link(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Drop LR where the stack says better: it may be what an earlier call left there.

    It is the caller where the function that died had only begun, and where the trace ends with it
    for want of frame pointers (a release build), unless it points into that very function.
    """
    chain = tuple(frame for frame in frames if frame.role != "LR")
    link = next((frame for frame in frames if frame.role == "LR"), None)
    if not chain or link is None or link.function == chain[0].function:
        return chain
    offset = OFFSET.search(chain[0].symbol)
    begun = offset is not None and int(offset[1], 16) < PROLOGUE
    if len(chain) == 1 or (begun and link.address != chain[1].address):
        return (chain[0], replace(link, role=""), *chain[1:])
    return chain
