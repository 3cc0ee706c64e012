"""A suite's result in, what its cases found wrong in Xen's own tables out, each thing once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from harness.outcomes import SuiteResult
from harness.verdicts import Comparison, Question

NONE_BROKEN = "no rule broken"
RULE = re.compile(r" \[(\w+)\](?: \(known: (.*)\))?$")


def sections(question: Question, comparison: Comparison) -> list[tuple[str, str]]:
    """Return (side, what was found) lines; nothing where nobody looked."""
    lines: list[tuple[str, str]] = []
    for name, suite in ((question.before, comparison.before), (question.after, comparison.after)):
        for found in describe(suite):
            lines.append((name, found))
    return lines


def describe(suite: SuiteResult) -> Iterator[str]:
    """Yield a line for each rule broken, with one example and a count of cases.

    What this Xen is known to do comes behind, and last why cases ran without a look.
    """
    cases = list(suite.cases.values())
    if not any(case.outcome.comparable for case in cases):
        return
    broken = list(_by_rule(case.violations for case in cases))
    unseen = [case.unseen for case in cases if case.unseen]
    if not broken and len(unseen) < len(cases):
        yield NONE_BROKEN
    yield from broken
    for known in _by_rule(case.observed for case in cases):
        yield f"known: {known}"
    for reason in dict.fromkeys(unseen):
        yield f"{_cases(unseen.count(reason))} ran without: {reason}"


def _by_rule(found: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield one example of each rule in `found`, which is a tuple for each case."""
    examples: dict[str, str] = {}
    counts: dict[str, int] = {}
    for case in found:
        rules: dict[str, str] = {}
        for line in case:
            match = RULE.search(line)
            rule = match[1] if match else line
            rules.setdefault(rule, RULE.sub("", line))
        for rule, line in rules.items():
            examples.setdefault(rule, line)
            counts[rule] = counts.get(rule, 0) + 1
    for rule, example in examples.items():
        yield f"{example} [{rule}, {_cases(counts[rule])}]"


def _cases(number: int) -> str:
    return f"{number} case" if number == 1 else f"{number} cases"
