"""xen-syms in, the instructions of every source line out; with what ran, the lines that ran.

A line that was inlined in three places has three sets of instructions, and ran if any of them did.
A comment, a declaration or a macro's body has none: "no code" is an answer of its own. Read once
for each build and kept in the cache; knows no change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from harness.coverage.counters import INSTRUCTION, Ran
from harness.coverage.plugin import NoCoverage
from harness.symbols import trace

LINES_VERSION = 1


class EntryStore(Protocol):
    """The part of harness.cache.Cache used here."""

    def entry(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the directory kind/key, made by `make` the first time."""
        ...


class Line(NamedTuple):
    """One source line, as Xen's own tree names it."""

    file: str  # xen/arch/arm/mm.c
    number: int

    def __str__(self) -> str:
        """Return what an editor opens."""
        return f"{self.file}:{self.number}"


class Code(NamedTuple):
    """What a line became."""

    function: str  # the innermost one it is in
    runs: tuple[int, ...]  # first instruction (counted from the table's `low`), how many; again


@dataclass(frozen=True)
class LineTable:
    """Every line of one build that has instructions."""

    low: int  # the first address that can be counted
    high: int  # behind the last
    files: dict[str, dict[int, Code]]

    def code(self, line: Line) -> Code | None:
        """Return what a line became; None where it became nothing."""
        return self.files.get(line.file, {}).get(line.number)

    def ran(self, line: Line, ran: Ran) -> bool | None:
        """Whether a line ran; None where it has no code."""
        code = self.code(line)
        return None if code is None else ran.any_of(code.runs)

    def __iter__(self) -> Iterator[tuple[Line, Code]]:
        """Iterate over all lines with code, by file and number."""
        for file in sorted(self.files):
            for number in sorted(self.files[file]):
                yield Line(file, number), self.files[file][number]


def code_range(syms: Path) -> tuple[int, int]:
    """Return the addresses from Xen's first instruction to behind the last, boot code included."""
    sections = _code_sections(syms)
    return min(low for low, _ in sections), max(high for _, high in sections)


def load_lines(syms: Path, build_id: str, store: EntryStore) -> LineTable:
    """Return the table of a build, from `store` where it was read before; else 3 s."""

    def make(directory: Path) -> None:
        (directory / "lines.json").write_text(json.dumps(_pack(read_lines(syms))))

    entry = store.entry("lines", f"{build_id}-{LINES_VERSION}", make)
    return _unpack(json.loads((entry / "lines.json").read_text()))


def read_lines(syms: Path) -> LineTable:
    """Ask addr2line about every instruction."""
    sections = _code_sections(syms)
    addresses = [a for low, high in sections for a in range(low, high, INSTRUCTION)]
    found: dict[str, dict[int, tuple[str, list[int]]]] = {}
    for address, places in trace(syms, addresses):
        for function, file, number in places:
            if number:
                lines = found.setdefault(file, {})
                lines.setdefault(number, (function, []))[1].append(address)
    if not found:
        raise NoCoverage(
            f"{syms} carries no line numbers",
            advice="Build it with CONFIG_DEBUG_INFO=y (up to 4.17: EXTRA_CFLAGS_XEN_CORE=-g).",
        )
    low = addresses[0]
    files = {
        file: {n: Code(function, tuple(_runs(low, at))) for n, (function, at) in lines.items()}
        for file, lines in found.items()
    }
    return LineTable(low, addresses[-1] + INSTRUCTION, files)


def _code_sections(syms: Path) -> list[tuple[int, int]]:
    with syms.open("rb") as stream:
        sections = [
            (s["sh_addr"], s["sh_addr"] + s["sh_size"] // INSTRUCTION * INSTRUCTION)
            for s in ELFFile(stream).iter_sections()
            if s["sh_flags"] & SH_FLAGS.SHF_EXECINSTR and s["sh_size"]
        ]
    if not sections:
        raise NoCoverage(f"{syms} has no code")
    return sorted(sections)


def _runs(low: int, addresses: list[int]) -> list[int]:
    """Return ascending addresses as runs of instructions that follow each other."""
    runs: list[int] = []
    expected = -1
    for address in addresses:
        if address == expected:
            runs[-1] += 1
        else:
            runs += [(address - low) // INSTRUCTION, 1]
        expected = address + INSTRUCTION
    return runs


def _pack(table: LineTable) -> dict[str, object]:
    """Return the table as JSON has it: {file: {line: [function, *runs]}}."""
    files = {
        file: {number: [code.function, *code.runs] for number, code in lines.items()}
        for file, lines in table.files.items()
    }
    return {"low": table.low, "high": table.high, "files": files}


def _unpack(data: dict[str, Any]) -> LineTable:
    files = {
        file: {int(n): Code(function, tuple(runs)) for n, (function, *runs) in lines.items()}
        for file, lines in data["files"].items()
    }
    return LineTable(data["low"], data["high"], files)
