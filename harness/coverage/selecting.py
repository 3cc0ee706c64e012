"""A source line and what cases ran before in, the cases that do not reach it out.

Cases that are not known yet are never left out: only running them tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.coverage.counters import Ran
from harness.coverage.gathering import BOOT
from harness.coverage.lines import Line, LineTable
from harness.errors import UsageError

NEAREST = 4


@dataclass(frozen=True)
class Reach:
    """Who reaches one line."""

    line: Line
    function: str
    cases: tuple[str, ...]  # that reach it
    others: tuple[str, ...]  # that were run and do not
    at_boot: bool

    @property
    def summary(self) -> str:
        """One sentence."""
        boot = "; it also runs while Xen boots" if self.at_boot else ""
        count = f"{len(self.cases)} of {len(self.cases) + len(self.others)} cases reach it"
        return f"{self.line} in {self.function}: {count}{boot}"


def parse_line(text: str) -> Line:
    """Read FILE:LINE, as an editor and a verdict write it; the path is that of a patch."""
    file, colon, number = text.rpartition(":")
    if not colon or not file or not number.isdigit():
        raise UsageError(
            f"{text} names no line", advice="Say FILE:LINE, as in xen/arch/arm/mm.c:1577."
        )
    file = file.removeprefix("./")
    return Line(file if file.startswith("xen/") else f"xen/{file}", int(number))


def reach(table: LineTable, known: Mapping[str, Ran], line: Line) -> Reach:
    """Say which known cases reach a line; UsageError where it has no code."""
    code = table.code(line)
    if code is None:
        raise no_code(table, line)
    ran = {case for case, these in known.items() if these.any_of(code.runs)}
    return Reach(
        line,
        code.function,
        tuple(sorted(ran - {BOOT})),
        tuple(sorted(known.keys() - ran - {BOOT})),
        BOOT in ran,
    )


def no_code(table: LineTable, line: Line) -> UsageError:
    """Return the error for a line that became no instruction, with the nearest that did."""
    lines = table.files.get(line.file)
    if lines is None:
        return UsageError(
            f"{line.file} has no code in this Xen",
            advice="Name the file as a patch does, and one that this configuration builds.",
        )
    near = sorted(sorted(lines, key=lambda n: abs(n - line.number))[:NEAREST])
    return UsageError(
        f"{line} became no code: it is a comment, a declaration, or was optimised away",
        advice=f"The nearest lines with code are {', '.join(map(str, near))}.",
    )
