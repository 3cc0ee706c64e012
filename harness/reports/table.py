"""A comparison in, the rows of its verdict table out: what to show and in which order, not how.

What changed comes first and whole, a regression before all else; what did not is a count.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.verdicts import CaseVerdict, Comparison, Verdict

# The order on the page. "still passing" is never a row.
SHOWN = (
    Verdict.REGRESSED,
    Verdict.FIXED,
    Verdict.FLAKY,
    Verdict.INCOMPARABLE,
    Verdict.STILL_FAILING,
)
NOT_RUN = "not run"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    area: str
    name: str
    before: str
    after: str
    verdict: Verdict
    note: str


def rows(comparison: Comparison) -> list[Row]:
    """Return the cases worth a line of their own."""
    if comparison.identical:
        return []
    return [
        _row(case)
        for verdict in SHOWN
        for case in comparison.with_verdict(verdict)
        if not _counted_only(case)
    ]


def _row(case: CaseVerdict) -> Row:
    before, after = (side.outcome.value if side else NOT_RUN for side in (case.before, case.after))
    return Row(case.shown.area, case.shown.name, before, after, case.verdict, case.note)


def _counted_only(case: CaseVerdict) -> bool:
    """A case that is skipped on both sides is not worth a line: neither Xen was asked."""
    sides = (case.before, case.after)
    return case.verdict is Verdict.INCOMPARABLE and all(
        side is not None and side.outcome == "skipped" for side in sides
    )


def rest(comparison: Comparison) -> str:
    """Return what the rows leave out, as a count: "54 more: 54 still passing"."""
    if comparison.identical:
        return ""
    hidden = [
        "skipped on both sides" if case.verdict is Verdict.INCOMPARABLE else case.verdict.value
        for case in comparison.cases
        if case.verdict is Verdict.STILL_PASSING or _counted_only(case)
    ]
    counts = ", ".join(f"{hidden.count(kind)} {kind}" for kind in dict.fromkeys(hidden))
    return f"{len(hidden)} more: {counts}" if hidden else ""


def tally(comparison: Comparison) -> str:
    """Return the counts that follow the conclusion: "8 fixed, 0 regressed"."""
    if comparison.identical:
        outcomes = ", ".join(f"{count} {what}" for what, count in comparison.after.counts.items())
        return f"both sides are the same binary; nothing could differ ({outcomes})"
    summary = comparison.summary
    always = [Verdict.FIXED, Verdict.REGRESSED]
    counts = [f"{summary[verdict]} {verdict}" for verdict in always]
    counts += [f"{summary[v]} {v}" for v in Verdict if v not in always and summary[v]]
    return ", ".join(counts)
