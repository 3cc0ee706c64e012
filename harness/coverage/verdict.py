"""Two trees, a build of the second and what its cases ran in; the verdict's section on lines out.

The section is there or it says why it is not; it never stops a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.coverage.changed import ChangeCoverage, State, added_lines, annotate, judge
from harness.coverage.counters import Ran
from harness.coverage.lcov import tracefile
from harness.coverage.lines import EntryStore, load_lines
from harness.coverage.plugin import NOT_COUNTED
from harness.errors import HarnessError
from harness.git import GitError
from harness.reports.files import write_whole
from harness.trees import Tree

#: Beyond this a diff is two releases apart, and nobody reads its margin.
MOST_ANNOTATED = 3000  # lines


class Built(Protocol):
    """What of a build is needed."""

    @property
    def syms(self) -> Path:
        """xen-syms."""

    @property
    def build_id(self) -> str:
        """In hexadecimal."""


@dataclass(frozen=True)
class Lines:
    """Which lines of the change ran, or why that is not known."""

    coverage: ChangeCoverage | None = None
    reason: str = ""
    annotated: tuple[str, ...] = ()  # the change's diff with a margin
    lcov: str = ""  # of everything that was built

    @property
    def summary(self) -> str:
        """One sentence."""
        return self.coverage.summary if self.coverage is not None else self.reason

    @property
    def never_ran(self) -> list[str]:
        """Every changed line that has code and never ran, as an editor opens it."""
        return [str(line) for line in self.coverage.of(State.NEVER)] if self.coverage else []

    def to_json(self) -> dict[str, Any]:
        """Return what verdict.json says."""
        return self.coverage.to_json() if self.coverage else {"summary": self.reason, "lines": []}

    def write(self, folder: Path) -> None:
        """Leave lines.txt, the diff with its margin, and lines.info for other tools."""
        if self.annotated:
            write_whole(folder / "lines.txt", "\n".join(self.annotated) + "\n")
        if self.lcov:
            write_whole(folder / "lines.info", self.lcov)


def lines_of_change(
    before: Tree, after: Tree, build: Built, ran: Mapping[str, Ran], store: EntryStore
) -> Lines:
    """Judge the lines that `after` adds to `before` by what ran on `build`, which is `after`."""
    if before.repository != after.repository:
        return Lines(reason="the two Xens have no history in common to compare lines by")
    if not ran:
        return Lines(reason=NOT_COUNTED)
    try:
        table = load_lines(build.syms, build.build_id, store)
        added = added_lines(after.repository, before.tree, after.tree)
        coverage = judge(added, table, ran)
        short = len(added) <= MOST_ANNOTATED
        return Lines(
            coverage,
            "",
            tuple(annotate(after.repository, before.tree, after.tree, coverage)) if short else (),
            tracefile(table, ran),
        )
    except HarnessError as error:
        return Lines(reason=error.message)
    except GitError as error:
        return Lines(reason=f"git does not tell which lines changed: {error}")
