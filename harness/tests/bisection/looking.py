"""What a commit is like, read from a file in it: the property that tests of a campaign search for.

Workers import this by name, as they import harness.bisection.evaluation for real Xens.

    CASE OUTCOME [MESSAGE]      a case and what it came to
    CASE OUTCOME|OUTCOME        one or the other, by the toss of a coin
    !build REASON               it does not build
    !boot SECONDS               it takes so long to boot; or so long in turn, with commas between
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from harness.bisection.evaluation import Task
from harness.bisection.samples import Reached, Sample
from harness.errors import HarnessError
from harness.git import git
from harness.outcomes import CaseResult, Outcome

STATE = "xen/state"


def look(task: Task) -> Sample:
    """Return what the commit's file says."""
    place, _, commit = task.reference.removeprefix("git:").rpartition("@")
    text = git(Path(place), "cat-file", "blob", f"{commit}:{STATE}").decode()
    cases: dict[str, list[CaseResult]] = {}
    boots: tuple[float, ...] = (1.0,)
    for line in text.splitlines():
        name, _, words = line.partition(" ")
        if name == "!build":
            return Sample(commit, Reached.SOURCE, words, (words,))
        if name == "!boot":
            boots = tuple(map(float, words.split(",")))
            continue
        outcomes, _, message = words.partition(" ")
        for _ in range(task.runs if name in task.cases else 0):
            outcome = Outcome(random.choice(outcomes.split("|")))
            cases.setdefault(name, []).append(CaseResult(name, outcome, message=message))
    build = {"fingerprint": text + commit, "seconds": 1.0, "cached": False}
    runs = {name: tuple(results) for name, results in cases.items()}
    return Sample(
        task.commit, Reached.RAN, build=build, boots=_turns(boots, task.boots), cases=runs
    )


def _turns(boots: tuple[float, ...], count: int) -> tuple[float, ...]:
    return (boots * count)[:count]


def die_once(task: Task) -> Sample:
    """Kill the worker on the first look at each commit."""
    if _first_time(task):
        os._exit(9)
    return look(task)


def always_die(task: Task) -> Sample:
    """Kill the worker on every look but those at the ends."""
    if "middle" in git_note(task):
        os._exit(9)
    return look(task)


def fail_once(task: Task) -> Sample:
    """Have a fault of our own on the first look at each commit."""
    if _first_time(task):
        raise HarnessError("QEMU was killed from outside", evidence=["signal 9"])
    return look(task)


def git_note(task: Task) -> str:
    """Return the subject of the task's commit."""
    place, _, commit = task.reference.removeprefix("git:").rpartition("@")
    return git(Path(place), "log", "-1", "--format=%s", commit).decode()


def _first_time(task: Task) -> bool:
    seen = Path(task.output).parent / "seen-before"
    if seen.exists():
        return False
    seen.parent.mkdir(parents=True, exist_ok=True)
    seen.touch()
    return True
