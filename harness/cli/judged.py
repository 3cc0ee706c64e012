"""What `verify` and `compare` share: named sides in, a judgement printed and written out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.builds import Build
from harness.cache import Cache
from harness.cli import options as opt
from harness.cli import present
from harness.cli.display import Display, page
from harness.errors import ExitCode
from harness.judging import Setting, Stage, judge, write_reports
from harness.sides import Side
from harness.suites import Selection
from harness.trees import Tree
from harness.verdicts import Question


@dataclass(frozen=True)
class Named:
    """A Xen to judge: what it is called, its tree, and how a user names it again."""

    name: str
    tree: Tree
    side: Side


@dataclass(frozen=True)
class Terms:
    """How to build and run, as the command line had it."""

    shared: opt.Shared
    selection: Selection
    jobs: int
    watch: tuple[str, ...]


def conclude(
    stages: Sequence[Named],
    question: Question,
    terms: Terms,
    cache: Cache,
    folder: Path,
    display: Display,
) -> ExitCode:
    """Judge the stages, write the reports into `folder`, print, and return the exit code."""
    console = page()
    names = [stage.name for stage in stages]

    def show_builds(builds: Sequence[Build]) -> None:
        display.clear()
        present.show_builds(console, names, builds)

    display.clear()
    present.show_facts(console, question.facts)
    judgement = judge(
        [Stage(one.name, one.tree, again(one.side, terms.shared, terms.watch)) for one in stages],
        Setting(
            terms.shared.build_options(),
            terms.shared.machine,
            cache,
            folder,
            terms.selection,
            opt.cores(terms.jobs),
            display.say,
            display.hear,
            show_builds,
            terms.watch,
        ),
    )
    write_reports(question, judgement, folder)
    display.clear()
    present.show_comparison(console, question, judgement.whole, folder, judgement.lines)
    if len(judgement.steps) > 1:
        present.show_steps(console, names[1:], judgement.steps)
    return judgement.exit_code


def again(side: Side, shared: opt.Shared, watch: Sequence[str]) -> str:
    """Return the command that runs cases on one side."""
    return shlex.join(["xenverify", "run", *side.words(), *shared.words(), *watch])
