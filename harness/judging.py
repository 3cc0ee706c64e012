"""Trees in, verdicts and their reports out: build, run, repeat what differs, compare, write down.

The one place where the stages meet. Refuses to know: how the trees came about, and who looks on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.builds import Build, BuildOptions, build_all, identical
from harness.cache import Cache
from harness.coverage.counters import Ran
from harness.coverage.gathering import gather, remember
from harness.coverage.plugin import NOT_COUNTED
from harness.coverage.verdict import Lines, lines_of_change
from harness.errors import ExitCode
from harness.outcomes import SuiteResult
from harness.progress import Progress, quiet
from harness.reports import json_report, mail
from harness.reports.files import write_json, write_whole
from harness.reports.junit import write_junit
from harness.suites import Listener, Selection, Suite, run_suites
from harness.trees import Tree
from harness.verdicts import Comparison, Question, compare, differing, same_binary

# A case whose sides differ is run this often again on each: once could be chance on either side.
REPEATS = 2


@dataclass(frozen=True)
class Stage:
    """One of the Xens to compare: its name, its tree, and a command that runs cases on it."""

    name: str
    tree: Tree
    again: str


@dataclass(frozen=True)
class Setting:
    """How to build and run: the same for every stage."""

    options: BuildOptions
    machine: str
    cache: Cache
    output: Path
    selection: Selection = field(default_factory=Selection)
    jobs: int = 2  # cores
    progress: Progress = quiet
    listener: Listener | None = None
    built: Callable[[Sequence[Build]], None] = lambda _: None  # told when all builds are there
    watch: tuple[str, ...] = ()  # see Suite


@dataclass(frozen=True)
class Judgement:
    """`steps` compare each stage with the one before it, `whole` the last with the first."""

    names: tuple[str, ...]
    builds: tuple[Build, ...]
    steps: tuple[Comparison, ...]
    whole: Comparison
    lines: Lines

    @property
    def exit_code(self) -> ExitCode:
        """A series must not regress at any of its patches, whatever the whole of it does."""
        codes = {self.whole.exit_code, *(step.exit_code for step in self.steps)}
        return ExitCode.REGRESSED if ExitCode.REGRESSED in codes else max(codes)


def judge(stages: Sequence[Stage], setting: Setting) -> Judgement:
    """Build every stage, run the suite on each, and compare each with the one before it."""
    builds = build_all(
        [stage.tree for stage in stages], setting.options, setting.cache, setting.progress
    )
    setting.built(builds)
    results = _measure(stages, builds, setting)
    pairs = list(zip(range(len(stages) - 1), range(1, len(stages)), strict=True))
    steps = [_compare(before, after, stages, builds, results, setting) for before, after in pairs]
    whole = steps[0]
    if len(steps) > 1:
        whole = _compare(0, len(stages) - 1, stages, builds, results, setting)
    lines = _lines(stages, builds, results, setting)
    names = tuple(stage.name for stage in stages)
    return Judgement(names, tuple(builds), tuple(steps), whole, lines)


def _lines(
    stages: Sequence[Stage],
    builds: Sequence[Build],
    results: Sequence[SuiteResult],
    setting: Setting,
) -> Lines:
    """Say which lines of the whole change ran on the last build, and remember what ran on each."""
    ran: dict[str, Ran] = {}
    for build, result in zip(builds, results, strict=True):
        ran = gather(result.cases.values())
        remember(setting.cache, build.build_id, ran, setting.selection.root)
    if identical(builds[0], builds[-1]):
        return Lines(reason="both sides are the same binary")
    if not ran:
        unseen = (case.unseen for case in results[-1].cases.values())
        known = next((why for why in unseen if NOT_COUNTED in why), NOT_COUNTED)
        return Lines(reason=known)
    setting.progress("looking up which changed lines ran")
    return lines_of_change(stages[0].tree, stages[-1].tree, builds[-1], ran, setting.cache)


def _measure(
    stages: Sequence[Stage], builds: Sequence[Build], setting: Setting
) -> list[SuiteResult]:
    """Run the suite once for each different binary, as many at once as there are cores."""
    twins = [
        next(first for first in range(number + 1) if identical(builds[first], builds[number]))
        for number in range(len(builds))
    ]
    own = sorted(set(twins))
    results: dict[int, SuiteResult] = {}
    at_once = max(1, min(setting.jobs, len(own)))
    for start in range(0, len(own), at_once):
        numbers = own[start : start + at_once]
        suites = [
            Suite(
                builds[number],
                setting.machine,
                setting.selection,
                setting.output / directory_name(number, stages),
                stages[number].again,
                max(1, setting.jobs // len(numbers)),
                setting.watch,
            )
            for number in numbers
        ]
        results |= zip(numbers, run_suites(suites, setting.listener), strict=True)
    return [
        replace(results[twin], build=dict(builds[number].describe()))
        for number, twin in enumerate(twins)
    ]


def _compare(
    before: int,
    after: int,
    stages: Sequence[Stage],
    builds: Sequence[Build],
    results: Sequence[SuiteResult],
    setting: Setting,
) -> Comparison:
    """Compare two stages, repeating on both the cases that differ."""
    if identical(builds[before], builds[after]):
        return same_binary(results[after])
    doubtful = differing(results[before], results[after])
    if not doubtful:
        return compare(results[before], results[after])
    setting.progress(f"repeating {len(doubtful)} that differ")
    repeats = [(side, turn) for turn in range(1, REPEATS + 1) for side in (before, after)]
    suites = [
        Suite(
            builds[side],
            setting.machine,
            setting.selection.only(doubtful),
            setting.output / directory_name(side, stages) / f"repeat-{before}-{after}-{turn}",
            stages[side].again,
            watch=setting.watch,
        )
        for side, turn in repeats
    ]
    again = run_suites(suites)
    return compare(
        results[before],
        results[after],
        repeats_before=again[0::2],
        repeats_after=again[1::2],
    )


def directory_name(number: int, stages: Sequence[Stage]) -> str:
    """Return the folder of a stage's logs: before and after, or their numbers if there are more."""
    if len(stages) == 2:
        return ("before", "after")[number]
    return f"stage-{number}"


def write_reports(question: Question, judgement: Judgement, output: Path) -> None:
    """Leave verdict.json, mail.txt, JUnit for each side, and the builds' logs in `output`."""
    whole = judgement.whole
    report = json_report.describe(question, whole)
    text = mail.compose(question, whole, judgement.lines)
    if len(judgement.steps) > 1:
        names = judgement.names
        report["steps"] = [
            json_report.describe(replace(question, before=names[i], after=names[i + 1]), step)
            for i, step in enumerate(judgement.steps)
        ]
        text += mail.compose_steps(names[1:], judgement.steps)
    write_junit(output / "junit-before.xml", whole.before, question.before)
    write_junit(output / "junit-after.xml", whole.after, question.after)
    for name, build in (("before", judgement.builds[0]), ("after", judgement.builds[-1])):
        shutil.copy(build.log, output / f"build-{name}.log")
        shutil.copy(build.config, output / f"config-{name}")
    report["lines"] = judgement.lines.to_json()
    judgement.lines.write(output)
    write_whole(output / "mail.txt", text)
    write_json(output / "verdict.json", report)
