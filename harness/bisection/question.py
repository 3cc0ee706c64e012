"""What a user asks in, findings out: references resolved, cases collected, workers opened.

Comes in: a `Question`, in the user's words. Goes out: `Answered`. Refuses to know: how it is shown.
The one place where the parts of a bisection meet.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness import git_sources
from harness.bisection import history as histories
from harness.bisection.campaign import Campaign, Findings
from harness.bisection.cases import collect
from harness.bisection.evaluation import Setting
from harness.bisection.history import History
from harness.bisection.laboratory import Effort, Event, Laboratory
from harness.bisection.memory import Memory
from harness.bisection.samples import Aspect
from harness.bisection.workers import open_workers
from harness.builds import BuildOptions
from harness.cache import Cache
from harness.changes import read_change
from harness.errors import UsageError
from harness.references import resolve
from harness.suites import Selection
from harness.trees import Tree


@dataclass(frozen=True)
class Question:
    """One bisection, as it was asked for."""

    old: str  # references, or revisions if there is a repository
    new: str
    repository: str  # a path or URL, or ""
    selection: Selection | None  # None: no cases, only build and boot
    aspect: Aspect
    fixed: bool  # whether the new end is the good one
    options: BuildOptions
    machine: str
    changes: tuple[str, ...] = ()
    stdin: bytes | None = None
    workers: str = ""
    slots: int = 2


@dataclass(frozen=True)
class Answered:
    """What came of a question."""

    findings: Findings
    history: History
    place: str
    effort: Effort
    seconds: float


class View(Protocol):
    """Whoever looks on."""

    def say(self, phrase: str) -> None:
        """Hear what is being done."""

    def begin(self, history: History) -> None:
        """Hear which history is searched."""

    def remaining(self, count: int) -> None:
        """Hear how many commits may still be to blame."""

    def hear(self, event: Event) -> None:
        """Hear that a commit is looked at, or what was seen."""


def answer(question: Question, cache: Cache, folder: Path, view: View) -> Answered:
    """Bisect. Raises UsageError for a question that has no answer; what was seen is kept."""
    started = time.monotonic()
    place, old_name, new_name = _place(question)
    view.say("reading the history")
    old, new = (_commit(place, name, cache, view.say) for name in (old_name, new_name))
    chosen = collect(question.selection) if question.selection is not None else ()
    history = histories.between(new.repository, _id(old), _id(new), question.options.arch)
    _check_range(history)
    view.begin(history)
    diffs = _diffs(question.changes, new, cache, question.stdin, view.say)
    setting = Setting(question.options, question.machine, diffs)
    memory = Memory(cache, setting.describe())
    with open_workers(question.workers, question.slots) as workers:
        laboratory = Laboratory(history, place, setting, workers, memory, folder, listen=view.hear)
        campaign = Campaign(
            laboratory,
            chosen,
            question.aspect,
            lambda commit: b"".join(_diffs((f"git:{commit}",), new, cache, None, view.say)),
            fixed=question.fixed,
            remaining=view.remaining,
        )
        findings = campaign.run()
    return Answered(findings, history, place, laboratory.effort, time.monotonic() - started)


def _place(question: Question) -> tuple[str, str, str]:
    """Return the repository as the start of a reference, and both revisions in it."""
    ends = (question.old, question.new)
    if question.repository:
        for end in ends:
            if end.startswith(("git:", "debian:")):
                raise UsageError(
                    f"{end} is a reference of its own", advice="With --repo, name revisions in it."
                )
        return f"git:{question.repository}", *ends
    for end in ends:
        if not end.startswith("git:"):
            raise UsageError(
                f"{end} has no history to search",
                advice="Name commits: --repo CLONE --good REV --bad REV, or git:CLONE@REV twice.",
            )
    places = [git_sources.split(end.removeprefix("git:")) for end in ends]
    if places[0].place != places[1].place:
        raise UsageError(
            f"{question.old} and {question.new} are in different repositories",
            advice="Fetch both into one clone, and name that with --repo.",
        )
    return f"git:{places[0].place}", places[0].revision, places[1].revision


def _commit(place: str, name: str, cache: Cache, progress: Callable[[str], None]) -> Tree:
    return resolve(f"{place}@{name}", cache, progress)


def _id(tree: Tree) -> str:
    assert tree.commit is not None, "a git reference names a commit"
    return tree.commit


def _check_range(history: History) -> None:
    """Raise UsageError if no commit in the range could make a difference."""
    graph = history.graph
    if graph.stand_in(history.new) in graph.bit:
        return
    raise UsageError(
        "good and bad build the same Xen, so there is nothing to search for",
        evidence=[
            f"of {len(history.commits)} commits between them, none changes what is built at the end"
        ],
        advice="Choose other ends.",
    )


def _diffs(
    changes: tuple[str, ...],
    tree: Tree,
    cache: Cache,
    stdin: bytes | None,
    progress: Callable[[str], None],
) -> tuple[bytes, ...]:
    """Return every patch of the changes a user named, as diffs that any worker can apply."""
    series = (
        read_change(spec, tree, cache, io.BytesIO(stdin) if stdin is not None else None, progress)
        for spec in changes
    )
    return tuple(patch.diff for one in series for patch in one.patches)
