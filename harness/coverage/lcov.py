"""Lines that ran in, an LCOV tracefile for genhtml, editors and coverage services out.

The count of a line is the number of cases (with the boot) that ran it, not how often it ran: that
is what the harness keeps, and what a reader of a test suite asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from harness.coverage.counters import Ran
from harness.coverage.lines import LineTable


def tracefile(
    table: LineTable, ran: Mapping[str, Ran], *, root: Path | None = None, name: str = "xenverify"
) -> str:
    """Return the tracefile; `root` is put before the paths, which begin with xen/ otherwise."""
    return "\n".join(_lines(table, list(ran.values()), root, name)) + "\n"


def _lines(table: LineTable, ran: Iterable[Ran], root: Path | None, name: str) -> Iterator[str]:
    sets = list(ran)
    yield f"TN:{name}"
    for file in sorted(table.files):
        lines: dict[int, int] = {}
        functions: dict[str, tuple[int, int]] = {}  # first line, hits
        for number, code in sorted(table.files[file].items()):
            lines[number] = sum(these.any_of(code.runs) for these in sets)
            first, most = functions.get(code.function, (number, 0))
            functions[code.function] = min(first, number), max(most, lines[number])
        yield f"SF:{root / file if root else file}"
        for function, (first, _) in functions.items():
            yield f"FN:{first},{function}"
        for function, (_, most) in functions.items():
            yield f"FNDA:{most},{function}"
        yield f"FNF:{len(functions)}"
        yield f"FNH:{sum(1 for _, most in functions.values() if most)}"
        for number in sorted(lines):
            yield f"DA:{number},{lines[number]}"
        yield f"LF:{len(lines)}"
        yield f"LH:{sum(1 for number in lines if lines[number])}"
        yield "end_of_record"
