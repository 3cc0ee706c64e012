"""Two trees and what ran in, which lines of the change ran out: on what a verdict is founded.

The lines of a change are those of git's diff between the two whole trees, so the later patches of a
series count as they ended up. Each is "ran" (with the cases that ran it), "never ran" or "no code".
Knows no pytest; a case is a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from unidiff.patch import PatchSet

from harness.coverage.counters import Ran
from harness.coverage.gathering import BOOT
from harness.coverage.lines import Line, LineTable
from harness.git import git

MOST_NAMED = 3
ONLY_LINE = "the changed line became no code of its own"


class State(StrEnum):
    """What became of one changed line."""

    RAN = "ran"
    NEVER = "never ran"
    NO_CODE = "no code"


class SourceLine(NamedTuple):
    """One line of a diff, at its place in the tree that has it."""

    line: Line
    text: str


@dataclass(frozen=True)
class ChangedLine:
    """One line of the change, with what became of it."""

    line: Line
    text: str
    state: State
    function: str = ""
    cases: tuple[str, ...] = ()  # that ran it, BOOT among them

    def __str__(self) -> str:
        """Return what an editor opens, and where that is."""
        return f"{self.line} in {self.function}" if self.function else str(self.line)


@dataclass(frozen=True)
class ChangeCoverage:
    """Every line that a change added, and where it took code away only, nothing."""

    lines: tuple[ChangedLine, ...]

    def of(self, state: State) -> list[ChangedLine]:
        """Return the lines of which `state` became."""
        return [line for line in self.lines if line.state is state]

    @property
    def summary(self) -> str:
        """One sentence for a verdict."""
        ran, never = self.of(State.RAN), self.of(State.NEVER)
        if not self.lines:
            return "the change adds no line to what is built"
        if not ran and not never:
            many = len(self.lines) > 1
            return f"none of the {len(self.lines)} changed lines has code" if many else ONLY_LINE
        said = f"{len(ran)} of {len(ran) + len(never)} changed lines with code ran"
        if never:
            named = [str(line) for line in never[:MOST_NAMED]]
            more = f" and {len(never) - MOST_NAMED} more" if len(never) > MOST_NAMED else ""
            said += f"; not run: {', '.join(named)}{more}"
        return said

    def to_json(self) -> dict[str, Any]:
        """Return what verdict.json says."""
        counts = {state.value: len(self.of(state)) for state in State}
        lines = [
            {
                "file": changed.line.file,
                "line": changed.line.number,
                "state": changed.state.value,
                "function": changed.function,
                "cases": list(changed.cases),
            }
            for changed in self.lines
        ]
        return {"summary": self.summary, "counts": counts, "lines": lines}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ChangeCoverage:
        """Read what `to_json` wrote; the texts of the lines are not kept."""
        return cls(
            tuple(
                ChangedLine(
                    Line(item["file"], item["line"]),
                    "",
                    State(item["state"]),
                    item["function"],
                    tuple(item["cases"]),
                )
                for item in data["lines"]
            )
        )


def added_lines(repository: Path, before: str, after: str) -> list[SourceLine]:
    """Return the lines that tree `after` has and `before` has not, at their place in `after`."""
    return [
        SourceLine(Line(patched.path, line.target_line_no), line.value.rstrip("\n"))
        for patched in PatchSet(_diff(repository, before, after, context=0))
        for hunk in patched
        for line in hunk
        if line.is_added and line.target_line_no
    ]


def judge(added: list[SourceLine], table: LineTable, ran: Mapping[str, Ran]) -> ChangeCoverage:
    """Say of each added line whether it ran, and in which of the cases (or BOOT) of `ran`."""
    judged: list[ChangedLine] = []
    for line, text in added:
        code = table.code(line)
        if code is None:
            judged.append(ChangedLine(line, text, State.NO_CODE))
            continue
        cases = tuple(sorted(case for case, these in ran.items() if these.any_of(code.runs)))
        state = State.RAN if cases else State.NEVER
        judged.append(ChangedLine(line, text, state, code.function, cases))
    return ChangeCoverage(tuple(judged))


def annotate(repository: Path, before: str, after: str, coverage: ChangeCoverage) -> list[str]:
    """Return the change's diff with a margin: how many cases ran a line, or that none did."""
    became = {changed.line: changed for changed in coverage.lines}
    out: list[str] = []
    for patched in PatchSet(_diff(repository, before, after, context=3)):
        out.append(f"{'':>9} | {patched.path}")
        for hunk in patched:
            out.append(f"{'':>9} | @@ {hunk.section_header or hunk.target_start}".rstrip())
            for line in hunk:
                text = f"{line.line_type}{line.value}".rstrip()
                changed = (
                    became.get(Line(patched.path, line.target_line_no))
                    if line.is_added and line.target_line_no
                    else None
                )
                out.append(f"{_margin(changed):>9} | {text}".rstrip())
    return out


def _margin(changed: ChangedLine | None) -> str:
    if changed is None or changed.state is State.NO_CODE:
        return ""
    if changed.state is State.NEVER:
        return "NEVER RAN"
    cases = [case for case in changed.cases if case != BOOT]
    return f"ran in {len(cases)}" if cases else "ran: boot"


def _diff(repository: Path, before: str, after: str, *, context: int) -> str:
    words = ("diff-tree", "-p", "-r", f"-U{context}", "--no-color", "--no-ext-diff", "--no-renames")
    return git(repository, *words, before, after, "--", "xen").decode(errors="replace")
