"""A case's result in, the lines that tell a person what was done, seen and said, and ways on."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from harness.outcomes import CaseResult

OUR_MODULES = re.compile(r"\bharness(\.[a-z_]+)+\.(?=[A-Z])")
OPERATIONS_SHOWN = 6
CONSOLE_LINES_SHOWN = 12
EVIDENCE_LINES_SHOWN = 12
TABLE_LINES_SHOWN = 8
RULES_EXPLAINED = 2
RULE_WIDTH = 100
# How a violation ends; brackets in what it says before hold numbers.
RULE = re.compile(r"\[([a-z_]+)\]")


def headline(case: CaseResult) -> str:
    """Return the outcome and the case's id, as pytest's own summary has them."""
    return f"{case.outcome.upper()} {case.id}"


def tell(case: CaseResult) -> list[str]:
    """Return the lines below the headline, without indentation."""
    seen = _block("seen", _seen(case))
    return [
        *_crash(case),
        *_block("after", _operations(case)),
        *seen,
        *_tables(case),
        *_ways_on(case),
    ]


def tell_around(case: CaseResult) -> list[str]:
    """Return `tell` without what was seen, for where pytest has shown that itself."""
    return [*_crash(case), *_block("after", _operations(case)), *_tables(case), *_ways_on(case)]


def _crash(case: CaseResult) -> Iterator[str]:
    """What Xen died of comes before everything else."""
    yield from _block("crash", list(case.crash))


def _tables(case: CaseResult) -> Iterator[str]:
    """Where Xen's tables were wrong, before what this Xen is known to do."""
    lines = [*case.violations, *case.observed]
    left_out = len(lines) - TABLE_LINES_SHOWN
    more = [f"... {left_out} more in results.json"] if left_out > 0 else []
    yield from _block("tables", lines[:TABLE_LINES_SHOWN] + more)
    yield from _block("rule", [line for rule in _broken(case) for line in _explained(rule)])
    yield from _block("not seen", [case.unseen] if case.unseen else [])


def _broken(case: CaseResult) -> list[str]:
    """The names of the rules that were broken; a report explains no more than it has room for."""
    names = (RULE.search(violation) for violation in case.violations)
    return list(dict.fromkeys(found[1] for found in names if found))[:RULES_EXPLAINED]


def _explained(rule: str) -> list[str]:
    from harness.inspection.invariants import why

    reason = why(rule)
    return textwrap.wrap(f"{rule}: {reason}", RULE_WIDTH) if reason else []


def _operations(case: CaseResult) -> list[str]:
    return list(case.operations[-OPERATIONS_SHOWN:])


def _seen(case: CaseResult) -> list[str]:
    """pytest marks the assertion and its values with E; the traceback stays in the results."""
    marked = "\n".join(line[1:] for line in case.details.splitlines() if line[:1] == "E")
    lines = OUR_MODULES.sub("", textwrap.dedent(marked)).splitlines()
    return (lines or [case.message])[:EVIDENCE_LINES_SHOWN]


def _ways_on(case: CaseResult) -> Iterator[str]:
    said = list(case.evidence) or case.console.splitlines()
    said = [line.rstrip() for line in said if line.strip()]
    left_out = len(said) - CONSOLE_LINES_SHOWN
    shown = said[:CONSOLE_LINES_SHOWN]
    if left_out > 0:
        shown.append(f"... {left_out} more lines in console.log")
    label, silence = ("Xen said", ["nothing"]) if case.outcome.blames_xen else ("because", [])
    yield from _block(label, shown or silence)
    if case.again:
        yield from _block("again", [case.again])
    if case.directory:
        yield from _block("qemu", [str(Path(case.directory) / "qemu.sh")])
        yield from _block("log", [str(Path(case.directory) / "console.log")])


def _block(label: str, lines: list[str]) -> Iterator[str]:
    start = f"{label}:".ljust(10)
    for line in lines:
        yield f"{start}{line}".rstrip()
        start = " " * 10
