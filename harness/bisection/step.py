"""What was seen of one Xen in, what `git bisect run` is to make of it out.

Comes in: a `Sample` and what counts as bad. Goes out: a `Step` and the reason for it.
Refuses to know: history; git does the searching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from harness.bisection.samples import Reached, Sample
from harness.outcomes import CaseResult, Outcome


class Step(IntEnum):
    """Exit codes as `git bisect run` reads them."""

    GOOD = 0
    BAD = 1
    SKIP = 125
    STOP = 128  # and above: git bisect gives up, and nothing is taken for bad
    INTERRUPTED = 130


@dataclass(frozen=True)
class Rule:
    """What counts as bad."""

    bad_is: tuple[str, ...] = ()  # outcomes or parts of signatures; none: whatever blames Xen
    build: bool = False  # a build that fails is bad, too, and not skipped
    boot: bool = False  # a boot that fails is bad, too, and not skipped
    fixed: bool = False  # the search is for what mended it: good and bad change places


def judge(sample: Sample, rule: Rule) -> tuple[Step, str]:
    """Return the step, and one line about why."""
    step, reason = _judge(sample, rule)
    if rule.fixed and step is not Step.SKIP:
        step = Step.GOOD if step is Step.BAD else Step.BAD
    return step, reason


def _judge(sample: Sample, rule: Rule) -> tuple[Step, str]:
    if sample.reached is not Reached.RAN:
        counts = {Reached.SOURCE: rule.build, Reached.BUILT: rule.boot or rule.build}
        return Step.BAD if counts.get(sample.reached) else Step.SKIP, sample.why("")
    results = [run for runs in sample.cases.values() for run in runs]
    if not results:
        return Step.GOOD, sample.why("")
    bad = [result for result in results if result.outcome.blames_xen]
    meant = [result for result in bad if _is_meant(result, rule.bad_is)]
    if meant:
        return Step.BAD, _told(meant)
    if bad:
        return Step.SKIP, f"fails, but in another way: {_told(bad)}"
    passed = [result for result in results if result.outcome is Outcome.PASSED]
    if not passed:
        return Step.SKIP, _told(results)
    return Step.GOOD, f"{len(passed)} passed"


def _is_meant(result: CaseResult, bad_is: Sequence[str]) -> bool:
    return not bad_is or any(
        words == str(result.outcome) or words in result.signature for words in bad_is
    )


def _told(results: Sequence[CaseResult]) -> str:
    more = f", and {len(results) - 1} more" if len(results) > 1 else ""
    return f"{results[0].name}: {results[0].signature}{more}"
