"""What was seen at both ends in, a rule that says which end a commit is like out.

Comes in: the samples of the two ends. Goes out: a `Criterion` for each case in which they differ.
Refuses to know: where in history a commit stands, and how samples are got.

A case that gave one outcome at each end, every time, is believed after one run. One that wavers is
run until the odds are clear, by Wald's sequential test with the rates that the ends showed.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from harness.bisection.samples import Aspect, Reached, Sample
from harness.bisection.search import Mark, Seen

END_RUNS = 3  # at each end, and at the answer and the commits before it
WAVERING_RUNS = 20  # at each end, when three did not agree
BATCH = 5  # runs to add while the odds are open
MOST_RUNS = 60  # at one commit
DOUBT = 0.001  # how often one commit of a wavering case may be judged wrongly
# The least difference between the ends' rates that so few runs can tell apart.
LEAST_DIFFERENCE = 0.3
# A boot has slowed if both the quickest and the median at the new end take this much longer than at
# the old one. The quickest of several says what the boot needs, the others what else was going on.
SLOWER = 1.25
BOOTS = 5
# Nearer to the middle than this, as a part of the way between the ends, a boot tells nothing.
UNCLEAR = 0.15


@dataclass(frozen=True)
class Criterion:
    """How to tell the old end from the new one by one case; `case` "" is build and boot itself."""

    case: str
    aspect: Aspect
    good: str  # the label of the old end
    bad: str  # the label of the new end
    bad_rate_of_good: float = 0.0  # how often the old end shows the new end's label
    bad_rate_of_bad: float = 1.0
    limits: tuple[float, float] = (0.0, 0.0)  # the ends' boot seconds, for BOOT_SECONDS

    @property
    def wavers(self) -> bool:
        """Whether one run is not enough."""
        return self.bad_rate_of_good > 0 or self.bad_rate_of_bad < 1

    def judge(self, sample: Sample) -> Seen | None:
        """Return what the sample is like; None if it takes more runs to say so."""
        if self.aspect is Aspect.BOOT_SECONDS and sample.reached is Reached.RAN:
            return self._judge_boots(sample)
        labels = sample.labels(self.case, self.aspect)
        odd = next((label for label in labels if label not in (self.good, self.bad)), None)
        if odd is not None:
            return Seen(Mark.SKIP, sample.why(self.case))
        if not labels:
            return None
        if not self.wavers:
            if len(set(labels)) > 1:
                return Seen(Mark.SKIP, f"wavers: {counted(labels)}")
            return Seen(Mark.GOOD if labels[0] == self.good else Mark.BAD, labels[0])
        return self._judge_odds(labels)

    def more_runs(self, sample: Sample | None) -> int:
        """Return how many runs of the case the next look at a commit should have in all."""
        if sample is None:
            return BATCH if self.wavers else 1
        return sample.runs(self.case) + BATCH

    def _judge_odds(self, labels: Sequence[str]) -> Seen | None:
        if len(labels) == 1 and labels[0] in map(str, Reached):
            return Seen(Mark.GOOD if labels[0] == self.good else Mark.BAD, labels[0])
        bad = labels.count(self.bad)
        good = len(labels) - bad
        low, high = _within(self.bad_rate_of_good), _within(self.bad_rate_of_bad)
        odds = bad * math.log(high / low) + good * math.log((1 - high) / (1 - low))
        threshold = math.log((1 - DOUBT) / DOUBT)
        if abs(odds) >= threshold:
            return Seen(Mark.BAD if odds > 0 else Mark.GOOD, counted(labels))
        if len(labels) >= MOST_RUNS:
            return Seen(Mark.SKIP, f"undecided after {len(labels)} runs: {counted(labels)}")
        return None

    def _judge_boots(self, sample: Sample) -> Seen | None:
        if len(sample.boots) < BOOTS:
            return None
        low, high = self.limits
        quickest = min(sample.boots)
        place = (quickest - low) / (high - low)
        words = f"boots in {quickest:.2f} s"
        if abs(place - 0.5) < UNCLEAR:
            return Seen(Mark.SKIP, f"{words}: between the ends")
        return Seen(Mark.BAD if place > 0.5 else Mark.GOOD, words)


@dataclass(frozen=True)
class Difference:
    """How the two ends differ: by what to search, and what cannot be searched for."""

    criteria: tuple[Criterion, ...] = ()
    doubts: tuple[tuple[str, str], ...] = ()  # cases that cannot be trusted, and why
    wavering: tuple[str, ...] = ()  # cases to run more often at both ends before anything is said


def compare_ends(
    old: Sample, new: Sample, aspect: Aspect, suspects: Collection[str] = ()
) -> Difference:
    """Compare the ends; `suspects` are cases that were seen to waver somewhere between."""
    if aspect is Aspect.BOOT_SECONDS:
        return _boots(old, new)
    if Reached.RAN not in (old.reached, new.reached) or old.reached is not new.reached:
        good, bad = (end.labels("", aspect)[0] for end in (old, new))
        return Difference((Criterion("", aspect, good, bad),) if good != bad else ())
    found: list[Criterion] = []
    doubts: list[tuple[str, str]] = []
    wavering: list[str] = []
    for case in sorted(old.cases.keys() & new.cases.keys()):
        if not all(run.outcome.comparable for end in (old, new) for run in end.cases[case]):
            continue
        before, after = (end.labels(case, aspect) for end in (old, new))
        steady = len(set(before)) == len(set(after)) == 1
        if (not steady or case in suspects) and min(len(before), len(after)) < WAVERING_RUNS:
            wavering.append(case)
        elif steady and before[0] != after[0]:
            found.append(Criterion(case, aspect, before[0], after[0]))
        elif not steady:
            verdict = _by_rates(case, aspect, before, after)
            if isinstance(verdict, Criterion):
                found.append(verdict)
            else:
                doubts.append((case, verdict))
    return Difference(tuple(found), tuple(doubts), tuple(wavering))


def _by_rates(
    case: str, aspect: Aspect, before: Sequence[str], after: Sequence[str]
) -> Criterion | str:
    """Tell the ends of a wavering case apart by how often each label came, or say why not."""
    rates = {
        label: (before.count(label) / len(before), after.count(label) / len(after))
        for label in {*before, *after}
    }
    bad = max(sorted(rates), key=lambda label: rates[label][1] - rates[label][0])
    good = max(sorted(rates), key=lambda label: rates[label][0] - rates[label][1])
    low, high = rates[bad]
    seen = f"old end: {counted(before)}; new end: {counted(after)}"
    if high - low < LEAST_DIFFERENCE:
        return f"the ends cannot be told apart; {seen}"
    if set(rates) - {good, bad}:
        return f"it ends in more than two ways; {seen}"
    return Criterion(case, aspect, good, bad, low, high)


def _boots(old: Sample, new: Sample) -> Difference:
    if not old.boots or not new.boots:
        return Difference(doubts=(("", "an end that does not boot has no boot time"),))
    quick, slow = min(old.boots), min(new.boots)
    ratios = (slow / quick, statistics.median(new.boots) / statistics.median(old.boots))
    if min(ratios) < SLOWER and max(ratios) > 1 / SLOWER:
        return Difference()
    good, bad = (f"boots in {seconds:.2f} s" for seconds in (quick, slow))
    return Difference((Criterion("", Aspect.BOOT_SECONDS, good, bad, limits=(quick, slow)),))


def _within(rate: float) -> float:
    """Keep a rate away from never and always, which no number of runs can show."""
    smallest = 0.5 / (WAVERING_RUNS + 1)
    return min(max(rate, smallest), 1 - smallest)


def counted(labels: Iterable[str]) -> str:
    """Return labels with how often each came: "passed 17, failed 3"."""
    return ", ".join(f"{label} {count}" for label, count in Counter(labels).most_common())
