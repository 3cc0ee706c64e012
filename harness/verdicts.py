"""Two suites' results in, a verdict for every case out.

This knows outcomes only: not what was built, how it ran, or how it will be shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import ExitCode
from harness.outcomes import CaseResult, Outcome, SuiteResult


class Verdict(StrEnum):
    """Of one case over two builds."""

    FIXED = "fixed"
    REGRESSED = "regressed"
    STILL_PASSING = "still passing"
    STILL_FAILING = "still failing"
    FLAKY = "flaky"
    INCOMPARABLE = "incomparable"


# A guest that gets a wrong answer is one thing, a host that is gone another: a change that turns
# the first into the second has made things worse, although the case failed on both sides.
SEVERITY = {Outcome.PASSED: 0, Outcome.FAILED: 1, Outcome.HUNG: 2, Outcome.CRASHED: 2}

SAME_BINARY = "both sides are the same binary"


@dataclass(frozen=True)
class CaseVerdict:
    """One case, what it came to on each side (None where it did not run), and what follows."""

    id: str
    before: CaseResult | None
    after: CaseResult | None
    verdict: Verdict
    note: str = ""

    @property
    def shown(self) -> CaseResult:
        """Whichever side ran, the later one first: it has the names by which the case is shown."""
        result = self.after or self.before
        assert result is not None, "a case that ran on neither side has no verdict"
        return result


@dataclass(frozen=True)
class Comparison:
    """All verdicts over two builds. `identical`: nothing could differ, so nothing was compared."""

    before: SuiteResult
    after: SuiteResult
    cases: tuple[CaseVerdict, ...]
    identical: bool = False

    @property
    def summary(self) -> Counter[Verdict]:
        """A count for each verdict; those that did not occur count 0."""
        return Counter(case.verdict for case in self.cases)

    def with_verdict(self, verdict: Verdict) -> list[CaseVerdict]:
        """The cases of one verdict."""
        return [case for case in self.cases if case.verdict is verdict]

    @property
    def errors(self) -> list[CaseResult]:
        """What went wrong on our own side, on either build."""
        sides = [self.after] if self.identical else [self.before, self.after]
        return [case for side in sides for case in side.with_outcome(Outcome.ERROR)]

    @property
    def exit_code(self) -> ExitCode:
        """A regression outweighs an error of ours: it is the answer that was asked for."""
        if self.summary[Verdict.REGRESSED]:
            return ExitCode.REGRESSED
        return ExitCode.HARNESS_FAILED if self.errors else ExitCode.OK

    @property
    def conclusion(self) -> str:
        """The one word at the end of every report."""
        if self.summary[Verdict.REGRESSED]:
            return "REGRESSED"
        if self.errors:
            return "UNDECIDED"
        if self.identical:
            return "IDENTICAL"
        return "VERIFIED" if self.summary[Verdict.FIXED] else "NO DIFFERENCE"


@dataclass(frozen=True)
class Question:
    """What was asked, in the words a report opens with."""

    before: str  # the sides' names: "without" and "with", or the two references
    after: str
    facts: tuple[tuple[str, str], ...]  # ("change", "one line about it"), ("on", ...), ...
    command: str  # what asks it again


def same_binary(only: SuiteResult) -> Comparison:
    """Report the one run of two identical builds: it says nothing about a difference."""
    cases = tuple(
        CaseVerdict(case.id, case, case, Verdict.INCOMPARABLE, SAME_BINARY)
        for case in only.cases.values()
    )
    return Comparison(only, only, cases, identical=True)


def differing(before: SuiteResult, after: SuiteResult) -> list[str]:
    """The ids of the cases whose sides disagree: what must be repeated before it is believed."""
    return [
        case
        for case in before.cases.keys() & after.cases.keys()
        if before.cases[case].outcome is not after.cases[case].outcome
        and before.cases[case].outcome.comparable
        and after.cases[case].outcome.comparable
    ]


def compare(
    before: SuiteResult,
    after: SuiteResult,
    *,
    repeats_before: Sequence[SuiteResult] = (),
    repeats_after: Sequence[SuiteResult] = (),
) -> Comparison:
    """Give every case of either side its verdict.

    A repeat that disagrees with the first run of its own side makes the case flaky; one that ended
    in an error says nothing, and is left out.
    """
    verdicts = [
        _verdict(
            case,
            _outcomes(case, before, repeats_before),
            _outcomes(case, after, repeats_after),
        )
        for case in sorted(before.cases.keys() | after.cases.keys())
    ]
    return Comparison(before, after, tuple(verdicts))


def _outcomes(case: str, first: SuiteResult, repeats: Sequence[SuiteResult]) -> list[CaseResult]:
    """Every result of one case on one side, the first run's before the repeats'."""
    runs = [run.cases[case] for run in (first, *repeats) if case in run.cases]
    return runs[:1] + [run for run in runs[1:] if run.outcome.comparable]


def _verdict(case: str, before: list[CaseResult], after: list[CaseResult]) -> CaseVerdict:
    first, last = (runs[0] if runs else None for runs in (before, after))

    def verdict(which: Verdict, note: str = "") -> CaseVerdict:
        return CaseVerdict(case, first, last, which, note)

    if first is None or last is None:
        return verdict(Verdict.INCOMPARABLE, "ran on one side only")
    for result, side in ((first, "before"), (last, "after")):
        if not result.outcome.comparable:
            return verdict(Verdict.INCOMPARABLE, f"{side}: {result.message or result.outcome}")
    for runs, side in ((before, "before"), (after, "after")):
        if len({run.outcome for run in runs}) > 1:
            return verdict(Verdict.FLAKY, f"{side}: " + ", ".join(run.outcome for run in runs))
    if first.outcome is last.outcome is Outcome.PASSED:
        return verdict(Verdict.STILL_PASSING)
    if last.outcome is Outcome.PASSED:
        return verdict(Verdict.FIXED)
    if SEVERITY[last.outcome] > SEVERITY[first.outcome]:
        return verdict(Verdict.REGRESSED)
    if first.outcome is not last.outcome:
        return verdict(Verdict.STILL_FAILING, f"{first.outcome} before, {last.outcome} after")
    if first.signature != last.signature:
        return verdict(Verdict.STILL_FAILING, "fails in another way")
    return verdict(Verdict.STILL_FAILING)
