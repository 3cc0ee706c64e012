"""Two ends of a history in, for each case that tells them apart the commit that made it so out.

Comes in: a `Laboratory`, the cases a user chose, and by what two runs are told apart. Goes out:
`Findings`. Refuses to know: how a commit is looked at, and how findings are told.

All cases are searched for together: one look at a commit serves every search that still needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial

from harness.bisection.criterion import (
    BOOTS,
    END_RUNS,
    WAVERING_RUNS,
    Criterion,
    Difference,
    compare_ends,
)
from harness.bisection.history import History
from harness.bisection.laboratory import Laboratory, Need
from harness.bisection.samples import Aspect, Reached, Sample
from harness.bisection.search import Answer, Mark, Search, Seen
from harness.errors import ChangeError, UsageError
from harness.outcomes import Outcome

# Labels of a Xen that does what it should.
AS_IT_SHOULD_BE = (str(Outcome.PASSED), str(Reached.RAN))
EVIDENCE_LINES = 12

ReadRevert = Callable[[str], bytes]


@dataclass(frozen=True)
class Revert:
    """What the new end is like without the commit that was found."""

    outcome: str  # "changed", "unchanged", "other", "does not apply"
    words: str  # one line about it
    sample: Sample | None = None

    @property
    def confirms(self) -> bool:
        """Whether the commit explains the difference all by itself."""
        return self.outcome == "changed"


@dataclass(frozen=True)
class Finding:
    """Where one case changed."""

    criterion: Criterion
    answer: Answer
    steps: tuple[tuple[str, Seen], ...]  # every commit that was looked at, in order
    twins: Mapping[str, str]  # of these: the same binary as that of an earlier one, or of an end
    bad: Sample  # of the answer's first commit
    good: tuple[Sample, ...]  # of those just before the suspects that were looked at
    revert: Revert | None = None  # None: no single commit to take out


@dataclass(frozen=True)
class Findings:
    """All that a campaign has to say."""

    old: Sample
    new: Sample
    difference: Difference
    findings: tuple[Finding, ...]

    @property
    def certain(self) -> bool:
        """Whether every case that differs has its commit."""
        return (
            bool(self.findings)
            and all(finding.answer.certain for finding in self.findings)
            and not self.difference.doubts
        )


@dataclass
class Campaign:
    """One bisection, from looking at both ends to the last proof."""

    laboratory: Laboratory
    cases: tuple[str, ...]  # names of all that may tell the ends apart; none: only build and boot
    aspect: Aspect
    read_revert: ReadRevert
    fixed: bool = False  # whether the new end is the good one: then only what got better counts
    remaining: Callable[[int], None] = lambda _: None  # told how many commits may be to blame
    _suspects: set[str] = field(default_factory=set)  # cases seen to waver
    _starts: dict[str, Search] = field(default_factory=dict)
    _diffs: dict[str, bytes | str] = field(default_factory=dict)  # of answers, or why there is none

    def run(self) -> Findings:
        """Bisect. Raises UsageError if the ends do not differ."""
        difference = self._compare_ends()
        while True:
            searches = self._search(difference)
            suspects = self._suspects | self._wavering(difference, searches)
            if suspects == self._suspects:
                break
            self._suspects = suspects
            difference = self._compare_ends()
        findings = tuple(
            self._finding(criterion, search)
            for criterion, search in zip(difference.criteria, searches, strict=True)
        )
        old, new = self._ends(difference)
        return Findings(old, new, difference, findings)

    # ---- the ends

    def _compare_ends(self) -> Difference:
        """Run both ends until it is clear in what they differ."""
        boots = BOOTS if self.aspect is Aspect.BOOT_SECONDS else 1
        history = self.laboratory.history
        names = (history.old, history.new)
        needs = [Need(name, self.cases, END_RUNS, boots) for name in names]
        old, new = self._asked(needs)
        difference = compare_ends(old, new, self.aspect, self._suspects)
        if difference.wavering:
            more = [Need(name, difference.wavering, WAVERING_RUNS) for name in names]
            old, new = self._asked(more)
            difference = compare_ends(old, new, self.aspect, self._suspects)
        if not difference.criteria:
            raise _no_difference(old, new, difference, self.aspect)
        return self._of_one_direction(difference)

    def _asked(self, needs: Sequence[Need]) -> list[Sample]:
        """Return what is seen of the cases of this search, and not of those of earlier ones."""
        return [sample.only(self.cases) for sample in self.laboratory.get(*needs)]

    def _of_one_direction(self, difference: Difference) -> Difference:
        """Leave out cases that got better, or with `fixed` those that got worse."""
        if self.aspect is Aspect.BOOT_SECONDS:
            better = [one for one in difference.criteria if one.limits[1] < one.limits[0]]
        else:
            better = [one for one in difference.criteria if one.bad in AS_IT_SHOULD_BE]
        kept = [one for one in difference.criteria if (one in better) is self.fixed]
        if kept:
            return replace(difference, criteria=tuple(kept))
        raise _other_direction(difference.criteria, self.laboratory.history, self.fixed)

    def _ends(self, difference: Difference) -> list[Sample]:
        history = self.laboratory.history
        unsteady = {case for case, _ in difference.doubts}
        unsteady |= {one.case for one in difference.criteria if one.wavers}
        ends = self.laboratory.get(Need(history.old), Need(history.new))
        return [_told(end, self.cases, unsteady) for end in ends]

    # ---- the search

    def _search(self, difference: Difference) -> list[Search]:
        """Search for every case at once, until each has an answer that was looked at thrice."""
        laboratory = self.laboratory
        while True:
            searches = [self._informed(criterion) for criterion in difference.criteria]
            pairs = list(zip(difference.criteria, searches, strict=True))
            wanted = [need for pair in pairs for need in self._needs(*pair)]
            self.remaining(max(search.remaining() for search in searches))
            open_needs = [need for need in _merged(wanted) if not laboratory.met(need)]
            if not open_needs:
                return searches
            laboratory.work(open_needs, self._ahead(pairs))

    def _informed(self, criterion: Criterion) -> Search:
        """Return the search for one case, told everything that it asks for and that is known."""
        history = self.laboratory.history
        if criterion.case not in self._starts:
            self._starts[criterion.case] = Search.between(
                history.graph, history.old, history.new, history.merge_bases
            )
        search = self._starts[criterion.case]
        while not isinstance(step := search.next(), Answer):
            seen = self._seen(criterion, step)
            if seen is None:
                return search
            search = search.tell(step, seen)
        return search

    def _seen(self, criterion: Criterion, commit: str) -> Seen | None:
        sample = self.laboratory.known(commit)
        if sample is None or (sample.reached is Reached.RAN and self._short(criterion, sample)):
            return None
        return criterion.judge(sample)

    def _short(self, criterion: Criterion, sample: Sample) -> bool:
        """Whether the case was never run on a commit, when it was looked at for other cases."""
        return bool(criterion.case) and not sample.runs(criterion.case)

    def _needs(self, criterion: Criterion, search: Search) -> list[Need]:
        """Return what the search needs next: a commit, or more runs of those that prove it."""
        step = search.next()
        if not isinstance(step, Answer):
            return [self._look(criterion, step)]
        if not step.suspects:
            return []
        return [Need(c, _cases(criterion), END_RUNS) for c in (step.first, *step.below)]

    def _look(self, criterion: Criterion, commit: str) -> Need:
        boots = BOOTS if criterion.aspect is Aspect.BOOT_SECONDS else 1
        runs = criterion.more_runs(self.laboratory.known(commit))
        return Need(commit, _cases(criterion), runs, boots)

    def _ahead(self, pairs: Sequence[tuple[Criterion, Search]]) -> list[Need]:
        """Return what will probably be needed next, for as many workers as there are."""
        slots = self.laboratory.workers.slots
        needs = [
            self._look(criterion, commit)
            for criterion, search in pairs
            for commit in search.ahead(slots + 1, partial(self._seen, criterion))[1:]
        ]
        return _merged([*needs, *(need for pair in pairs for need in self._last(*pair))])

    def _last(self, criterion: Criterion, search: Search) -> Iterator[Need]:
        """Yield what a search that has its answer will need to confirm it."""
        answer = search.next()
        if isinstance(answer, Answer) and answer.certain:
            need = self._without(criterion, answer.first)
            if isinstance(need, Need):
                yield need

    def _wavering(self, difference: Difference, searches: Iterable[Search]) -> set[str]:
        """Return the cases that gave one commit different labels, though the ends were steady."""
        return {
            criterion.case
            for criterion, search in zip(difference.criteria, searches, strict=True)
            for commit in search.steps()
            if (sample := self.laboratory.known(commit)) is not None
            and not criterion.wavers
            and len(set(sample.labels(criterion.case, criterion.aspect))) > 1
            and criterion.aspect is not Aspect.BOOT_SECONDS
        }

    # ---- the answer

    def _finding(self, criterion: Criterion, search: Search) -> Finding:
        answer = search.next()
        assert isinstance(answer, Answer)
        laboratory = self.laboratory
        looked = laboratory.get(Need(answer.first), *(Need(commit) for commit in answer.below))
        unsteady = {criterion.case} if criterion.wavers else set()
        bad, *below = (_told(sample, _cases(criterion), unsteady) for sample in looked)
        ends = (laboratory.history.old, laboratory.history.new)
        steps = tuple((c, search.seen[c]) for c in search.steps() if c not in ends)
        good = tuple(
            sample
            for sample in below
            if (seen := search.seen.get(sample.commit)) is not None and seen.mark is Mark.GOOD
        )
        revert = self._revert(criterion, answer) if answer.certain else None
        twins = self._twins([*ends, *(commit for commit, _ in steps)])
        return Finding(criterion, answer, steps, twins, bad, good, revert)

    def _twins(self, commits: Iterable[str]) -> dict[str, str]:
        """Return the commits whose binary an earlier one of these has as well, with that one."""
        first: dict[str, str] = {}
        found = {}
        for commit in commits:
            sample = self.laboratory.known(commit)
            if sample is not None and sample.fingerprint:
                found[commit] = first.setdefault(sample.fingerprint, commit)
        return {commit: other for commit, other in found.items() if commit != other}

    def _revert(self, criterion: Criterion, answer: Answer) -> Revert:
        """Take the commit out of the new end, and look what that is like."""
        need = self._without(criterion, answer.first)
        if isinstance(need, Revert):
            return need
        (sample,) = self.laboratory.get(need)
        while (seen := criterion.judge(sample)) is None:
            (sample,) = self.laboratory.get(replace(need, runs=criterion.more_runs(sample)))
        if sample.reached is Reached.UNCHANGED:
            return Revert("does not apply", sample.reason, sample)
        outcome = {Mark.GOOD: "changed", Mark.BAD: "unchanged", Mark.SKIP: "other"}[seen.mark]
        by_time = criterion.aspect is Aspect.BOOT_SECONDS
        return Revert(outcome, seen.reason if by_time else sample.why(criterion.case), sample)

    def _without(self, criterion: Criterion, guilty: str) -> Need | Revert:
        """Return the need to see the new end without a commit, or why there is no such thing."""
        if guilty not in self._diffs:
            try:
                if len(self.laboratory.history.describe(guilty).parents) > 1:
                    raise ChangeError("it is a merge, which is not one change to take out")
                self._diffs[guilty] = self.read_revert(guilty)
            except (ChangeError, UsageError) as error:
                self._diffs[guilty] = error.message
        diff = self._diffs[guilty]
        if isinstance(diff, str):
            return Revert("does not apply", diff)
        boots = BOOTS if criterion.aspect is Aspect.BOOT_SECONDS else 1
        runs = criterion.more_runs(None)
        return Need(self.laboratory.history.new, _cases(criterion), runs, boots, diff)


def _other_direction(criteria: Sequence[Criterion], history: History, fixed: bool) -> UsageError:
    """Say that good is bad and bad is good."""
    cases = [f"{one.case or 'build and boot'}: {one.good}, then {one.bad}" for one in criteria]
    old, new = history.old[:12], history.new[:12]
    if fixed:
        message = "nothing got better from bad to good; it got worse"
        advice = f"To find what made it worse:  --good {old} --bad {new}"
    else:
        message = "nothing got worse from good to bad; it got better"
        advice = f"To find what made it better:  --fixed --bad {old} --good {new}"
    return UsageError(message, evidence=cases[:EVIDENCE_LINES], advice=advice)


def _told(sample: Sample, cases: Iterable[str], unsteady: Set[str]) -> Sample:
    """Return what a report has of a sample: the same, whatever else came to be known of it.

    Commits with one binary share their runs, so how many there are depends on the order in which
    the commits were looked at, and on what earlier searches were about.
    """
    names = list(cases)
    steady = sample.only([name for name in names if name not in unsteady], END_RUNS)
    runs = {**steady.cases, **sample.only(unsteady & set(names)).cases}
    return replace(
        sample,
        cases={name: runs[name] for name in names if name in runs},
        boots=sample.boots[:BOOTS],
    )


def _cases(criterion: Criterion) -> tuple[str, ...]:
    return (criterion.case,) if criterion.case else ()


def _merged(needs: Iterable[Need]) -> list[Need]:
    """Return one need for each source, in the order in which they first came."""
    merged: dict[tuple[str, bytes], Need] = {}
    for need in needs:
        source = (need.commit, need.without)
        one = merged.setdefault(source, need)
        merged[source] = replace(
            need,
            cases=tuple(dict.fromkeys((*one.cases, *need.cases))),
            runs=max(one.runs, need.runs),
            boots=max(one.boots, need.boots),
        )
    return list(merged.values())


def _no_difference(old: Sample, new: Sample, difference: Difference, aspect: Aspect) -> UsageError:
    """Say that there is nothing to search for, and what both ends did."""
    if difference.doubts:
        return UsageError(
            "the ends differ only in cases that cannot be trusted",
            evidence=[f"{case}: {why}" for case, why in difference.doubts],
            advice="Mend the case, or choose another.",
        )
    evidence = []
    for name, end in (("old end", old), ("new end", new)):
        if end.reached is not Reached.RAN:
            evidence.append(f"{name}: {end.why('')}")
        elif end.boots and aspect is Aspect.BOOT_SECONDS:
            evidence.append(
                f"{name}: boots in {min(end.boots):.2f} s, the best of {len(end.boots)}"
            )
        for case in sorted(end.cases):
            labels = end.labels(case, aspect)
            evidence.append(f"{name}: {case}: {labels[0]}, {len(labels)} of {len(labels)}")
    return UsageError(
        "good and bad do not differ, so there is nothing to search for",
        evidence=evidence[:EVIDENCE_LINES],
        advice="Choose other ends or cases"
        + ("." if aspect is Aspect.SIGNATURE else "; --signature tells kinds of failure apart."),
    )
