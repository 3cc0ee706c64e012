"""Findings in, what a report says out: lines of plain text.

Comes in: `Findings`, the history, and what it took. Goes out: a list of lines; record.py has the
same as values. Refuses to know: where they are shown.

Everything but the effort depends on the commits alone: a bisection that is repeated, or was
interrupted, says the very same.
"""

from __future__ import annotations

import math
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.bisection.campaign import Finding, Findings
from harness.bisection.criterion import DOUBT, counted
from harness.bisection.history import History
from harness.bisection.laboratory import Effort
from harness.bisection.samples import Aspect, Reached, Sample
from harness.bisection.search import Mark

WIDTH = 100
NARROWEST = 24  # a column of evidence
EVIDENCE_LINES = 12
EVIDENCE_CASES = 3  # of one answer; JSON has them all
MARKED = {Mark.GOOD: "as old", Mark.BAD: "as new", Mark.SKIP: "skipped"}
BUILD_AND_BOOT = "build and boot"


@dataclass(frozen=True)
class Context:
    """What else a report names."""

    history: History
    place: str  # git:PLACE
    old_name: str  # as the user typed them
    new_name: str
    words: tuple[str, ...]  # options that say how to build and run, for a command
    command: str  # what bisects again
    aspect: Aspect


def compose(findings: Findings, context: Context) -> list[str]:
    """Return the report as lines of text, without what it took."""
    lines = list(_range(findings, context))
    for group in _by_answer(findings.findings):
        lines += ["", *_told(group, context)]
    for case, reason in findings.difference.doubts:
        lines += ["", f"cannot be trusted: {case}", f"  {reason}"]
    return lines


def cost(effort: Effort, seconds: float) -> str:
    """Return in one line what it took."""
    built = f"{effort.builds} built in {effort.build_seconds:.0f} s"
    failed = f", {effort.failed_builds} failed to build" if effort.failed_builds else ""
    return (
        f"{effort.looks} looks at commits ({built}{failed}, {effort.cached_builds} cached), "
        f"{effort.remembered} remembered, {clock(seconds)}"
    )


def clock(seconds: float) -> str:
    """Return a time as a person reads it."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def _by_answer(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Group the cases that one commit explains."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for one in findings:
        key = (*one.answer.suspects, one.answer.bad_base or "")
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _range(findings: Findings, context: Context) -> Iterator[str]:
    history = context.history
    for label, name, commit in (
        ("old", context.old_name, history.old),
        ("new", context.new_name, history.new),
    ):
        yield f"{label:<9}{name}  {history.describe(commit)}"
    reasons = Counter(history.reasons.values())
    sharing = "".join(f"; {count} {_plural(count, why)}" for why, count in sorted(reasons.items()))
    commits = len(history.commits)
    yield f"between  {commits} commits, {len(history.graph.nodes)} with a source of their own"
    if sharing:
        yield f"         {sharing[2:]}"
    yield from _ends(findings)


def _ends(findings: Findings) -> Iterator[str]:
    """Say what each case gave at both ends; cases that gave the same are counted only."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for one in findings.findings:
        old, new = (
            counted(end.labels(one.criterion.case, one.criterion.aspect))
            for end in (findings.old, findings.new)
        )
        if one.criterion.aspect is Aspect.BOOT_SECONDS:
            old, new = one.criterion.good, one.criterion.bad
        alike.setdefault((old, new), []).append(one)
    for (old, new), group in alike.items():
        name = _case(group[0]) if len(group) == 1 else f"{len(group)} cases"
        yield f"ends     {name}: old {old}; new {new}"


def _plural(count: int, reason: str) -> str:
    return reason if count == 1 else reason.replace("changes ", "change ", 1)


def _case(finding: Finding) -> str:
    return finding.criterion.case or BUILD_AND_BOOT


def _told(group: Sequence[Finding], context: Context) -> Iterator[str]:
    """Tell one answer: the commit, how it was found, the evidence, the proof, the commands."""
    first = group[0]
    answer, history = first.answer, context.history
    for one in group:
        criterion = one.criterion
        yield f"{_case(one)}:  {criterion.good}  ->  {criterion.bad}"
    if answer.bad_base is not None:
        base = history.describe(answer.bad_base)
        yield f"  FOUND NOTHING  already the fork point is like the new end: {base}"
        yield f"  It changed between there and {context.old_name}; search that with the ends' names"
        yield f"  the other way round:  --fixed --bad {base.id[:12]} --good {context.old_name}"
        return
    yield from _named(answer.first, history) if answer.certain else _suspects(first, history)
    yield ""
    yield from _steps(first, history)
    yield ""
    for one in group[:EVIDENCE_CASES]:
        yield from _evidence(one, history)
    if len(group) > EVIDENCE_CASES:
        more = _counted(len(group) - EVIDENCE_CASES, "more case")
        yield f"  {more}: see bisect.json for the evidence"
    yield from _neighbours(first, history)
    if first.revert is not None:
        yield f"  without it  {_reverted(first)}"
    yield "  by hand"
    yield from (f"    {line}" for line in _by_hand(first, context))


def _named(commit: str, history: History) -> Iterator[str]:
    found = history.describe(commit)
    yield f"  COMMIT  {found.id}"
    yield f"          {found.subject}"
    yield f"          {found.author}  {found.date}"


def _suspects(finding: Finding, history: History) -> Iterator[str]:
    answer = finding.answer
    seen = dict(finding.steps)
    yield f"  ONE OF {len(answer.suspects)} COMMITS  those before the last could not be tested"
    for commit in answer.suspects:
        if commit == answer.first:
            why = f"tested: {finding.criterion.bad}"
        elif commit in answer.presumed:
            why = "not tried: between two that fail alike"
        else:
            why = seen[commit].reason if commit in seen else "not tried"
        yield f"    {history.describe(commit)}"
        yield f"        {_one_line(why)}"


def _steps(finding: Finding, history: History) -> Iterator[str]:
    skipped = sum(seen.mark is Mark.SKIP for _, seen in finding.steps)
    distinct = len(history.graph.nodes)
    yield (
        f"  looked at  {_counted(len(finding.steps), 'commit')}, {skipped} skipped; "
        f"to halve {distinct} takes {math.ceil(math.log2(max(distinct, 1)))}"
    )
    if finding.criterion.wavers:
        yield f"  {_confidence(finding)}"
    for commit, seen in finding.steps:
        what = history.describe(commit)
        yield f"    {what.id[:10]}  {MARKED[seen.mark]:<8} {_shorten(what.subject, 76)}"
        if seen.mark is Mark.SKIP:
            yield f"{'':26}{_shorten(seen.reason, 72)}"
        if commit in finding.twins:
            yield f"{'':26}the same binary as {finding.twins[commit][:10]}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def confidence(finding: Finding) -> float:
    """Return how probable it is at least that no commit of a wavering case was judged wrongly."""
    judged = sum(seen.mark is not Mark.SKIP for _, seen in finding.steps)
    return float((1 - DOUBT) ** judged) if finding.criterion.wavers else 1.0


def _confidence(finding: Finding) -> str:
    criterion = finding.criterion
    rates = (criterion.bad_rate_of_good, criterion.bad_rate_of_bad)
    old, new = (f"{rate:.0%}" for rate in rates)
    return (
        f"wavers: {criterion.bad} in {old} of the runs at the old end, {new} at the new; "
        f"every commit judged rightly: {math.floor(1000 * confidence(finding)) / 10:.1f} %"
    )


def _evidence(finding: Finding, history: History) -> Iterator[str]:
    """Set the last run before and the first run after side by side."""
    sides = [*finding.good[:1], finding.bad]
    heads = [f"{history.describe(side.commit).id[:10]}" for side in sides]
    columns = [
        [head, *_shown(side, finding.criterion.case, finding.criterion.aspect)]
        for head, side in zip(heads, sides, strict=True)
    ]
    yield f"  {_case(finding)}"
    lines = columns[0] if len(columns) == 1 else side_by_side(columns[0], columns[1], WIDTH - 4)
    yield from (f"    {line}" for line in lines)


def _shown(sample: Sample, case: str, aspect: Aspect) -> list[str]:
    """Return what was seen at one commit: how it ended, the last operations, what Xen said."""
    if sample.reached is not Reached.RAN:
        return [sample.why(case), *sample.evidence[:EVIDENCE_LINES]]
    if aspect is Aspect.BOOT_SECONDS:
        return ["boots: " + ", ".join(f"{seconds:.3f} s" for seconds in sample.boots)]
    if not case:
        return [str(sample.reached)]
    lines = [counted(sample.labels(case, Aspect.OUTCOME))]
    results = sample.cases[case]
    told = next((result for result in results if result.message), results[0])
    lines += [told.message] if told.message else []
    lines += [f"after  {operation}" for operation in told.operations[-4:]]
    if told.crash or told.evidence:  # what Xen said of its death, told better
        return [*lines, *(told.crash or told.evidence)]
    said = [line for line in told.console.splitlines() if line.removeprefix("(XEN)").strip(" *")]
    return lines + [f"Xen said  {line}" for line in said[:EVIDENCE_LINES]]


def _neighbours(finding: Finding, history: History) -> Iterator[str]:
    """Name the parents that share another commit's result, and those that mean nothing."""
    answer = finding.answer
    graph = history.graph
    for parent in graph.parents.get(answer.first, ()):
        shared = graph.stand_in(parent)
        if shared != parent:
            yield f"  its parent {history.describe(parent)}"
            yield f"    shares the result of {shared[:10]}: it {history.reasons[parent]}"
    for commit in answer.inherited:
        yield f"  its parent {history.describe(commit)}"
        yield "    is like the new end as well, on a branch not known to have been like the old one"


def _reverted(finding: Finding) -> str:
    assert finding.revert is not None
    words = {
        "changed": "the new end is like the old one again",
        "unchanged": "the new end stays as it is: there is more to it than this commit",
        "other": "the new end is like neither",
        "does not apply": "cannot be had: it does not come out of the new end",
    }
    return f"{words[finding.revert.outcome]} ({_one_line(finding.revert.words)})"


def _by_hand(finding: Finding, context: Context) -> Iterator[str]:
    """Yield the commands that repeat the two decisive looks, and the one without the commit."""
    for sample in (*finding.good[:1], finding.bad):
        yield shlex.join(again(sample.reached, sample.commit, finding, context))
    if len(finding.steps) > len(finding.good[:1]) + 1:
        yield "(and so with every other commit that was looked at)"
    revert = finding.revert
    if revert is not None and revert.sample is not None and "--with" not in context.words:
        new = context.history.new
        words = again(revert.sample.reached, new, finding, context)
        yield shlex.join([*words, "--with", f"git:{finding.answer.first[:12]}", "--reverse"])


def again(reached: Reached, commit: str, finding: Finding, context: Context) -> list[str]:
    """Return the command that looks at a commit again."""
    reference = f"{context.place}@{commit[:12]}"
    case = finding.criterion.case
    if reached in (Reached.UNCHANGED, Reached.SOURCE):
        return ["xenverify", "build", reference, *context.words]
    if not case:
        return ["xenverify", "shell", "--xen", reference, *context.words, "-c", "pass"]
    return ["xenverify", "run", case, "--xen", reference, *context.words]


def side_by_side(left: Sequence[str], right: Sequence[str], width: int) -> list[str]:
    """Return two columns of text that fill the width; who says little gets little of it."""
    longest = [max(map(len, lines), default=0) for lines in (left, right)]
    half = (width - 3) // 2
    if min(longest) < half:
        narrow = max(min(longest), NARROWEST)
        widths = (narrow, width - 3 - narrow)
        widths = widths if longest[0] <= longest[1] else (widths[1], widths[0])
    else:
        widths = (half, half)
    columns = [
        [
            part
            for line in lines
            for part in textwrap.wrap(line, room, subsequent_indent="  ", break_on_hyphens=False)
            or [""]
        ]
        for lines, room in zip((left, right), widths, strict=True)
    ]
    height = max(map(len, columns))
    rows = zip(*(column + [""] * (height - len(column)) for column in columns), strict=True)
    return [f"{one:<{widths[0]}} | {other}".rstrip() for one, other in rows]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _shorten(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder=" …")
