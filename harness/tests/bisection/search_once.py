"""One bisection in a process of its own, to be killed: `… REPOSITORY DIRECTORY OLD NEW`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from harness.bisection import history as histories
from harness.bisection import report
from harness.bisection.campaign import Campaign
from harness.bisection.evaluation import Setting, Task
from harness.bisection.laboratory import Laboratory
from harness.bisection.memory import Memory
from harness.bisection.samples import Aspect, Sample
from harness.bisection.workers import local
from harness.builds import BuildOptions
from harness.cache import Cache
from harness.errors import ChangeError
from harness.tests.bisection import looking


def slowly(task: Task) -> Sample:
    """Look at a commit, but not at once, so that there is time to be killed."""
    time.sleep(0.1)
    return looking.look(task)


def no_revert(commit: str) -> bytes:
    """Refuse to take a commit out: these are no patches."""
    raise ChangeError(f"{commit} is not to be taken out here")


def main(repository: Path, directory: Path, old: str, new: str) -> None:
    """Bisect, and leave the report in the directory."""
    history = histories.between(repository, old, new)
    place = f"git:{repository}"
    with local(2) as workers:
        laboratory = Laboratory(
            history, place, Setting(BuildOptions(), "virt-gicv3"), workers,
            Memory(Cache(directory / "cache"), "test"), directory / "out", slowly,
        )  # fmt: skip
        findings = Campaign(laboratory, ("case",), Aspect.OUTCOME, no_revert).run()
    context = report.Context(history, place, old, new, (), "again", Aspect.OUTCOME)
    (directory / "report.txt").write_text("\n".join(report.compose(findings, context)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
