"""Two Xens and two U-Boots in; what each pair does with shared_info out.

The story: U-Boot before v2022.10 maps shared_info over a page of its own heap, and starts the OS
without unmapping it. To the OS that page is RAM. A Xen that lets shared_info be mapped twice gives
the OS its own mapping as well, and whatever the OS writes to that page of its RAM lands in event
channel masks. A Xen that maps it once refuses the OS, with -EBUSY.

Comes in: builds, images, a machine. Goes out: a `Cell` for each row and side, and `judge`. Each
cell boots a Xen of its own. Refuses to know: how a reference is resolved, and how a table looks.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness import domctl
from harness.booting import Booted
from harness.builds import Build
from harness.errors import HarnessError, XenFailure
from harness.machines import Machine
from harness.progress import Progress, quiet
from harness.scenarios import DomainPlan, Scenario
from harness.uboot.images import UBoot
from harness.uboot.second_stage import Event, Report, SecondStage, find_report, hold, let_go

# More than 130 MiB, so that Xen puts the second stage where U-Boot looks (domu.config).
MEMORY_MIB = 256
SLACK_MIB = 1  # what libxl gives every domain beyond its memory
RELEASE_FIRST = "xenverify.release-first"  # a word of the domU's boot arguments (domu.c)
SECONDS = 60.0
AT_ONCE = 2
# What U-Boot says last when it gives up; the line before it says why.
GAVE_UP = "resetting ..."
OVER_ALLOCATION = re.compile(r"\(XEN\).*Over-allocation.*")


class Found(StrEnum):
    """What the second stage found, or what kept it from looking."""

    CLEAN = "clean"  # shared_info mapped, no RAM page is it, events arrive
    ALIAS = "alias"  # mapped, and a page of RAM is it too
    REFUSED = "refused"  # -EBUSY
    PANIC = "panic"  # U-Boot gave up before it could start anything
    BROKEN = "broken"  # mapped and no alias, but an event does not arrive


class Role(StrEnum):
    """Which U-Boot a row boots."""

    FORGETFUL = "forgetful"  # never unmaps shared_info
    TIDY = "tidy"  # unmaps it and populates the page again
    NONE = "none"


@dataclass(frozen=True)
class Row:
    """One way to start an OS."""

    name: str
    role: Role
    note: str = ""
    release_first: bool = False
    slack: bool = False

    def title(self, uboots: dict[Role, UBoot]) -> str:
        """Return what the row is called in a table."""
        first = uboots[self.role].label if self.role in uboots else "no U-Boot"
        return f"{first}, {self.note}" if self.note else first


CONTROL = Row("forgetful", Role.FORGETFUL, "leaves shared_info mapped")
AT_MAXIMUM = Row("tidy", Role.TIDY, "unmaps it, and populates")
ROWS = (
    CONTROL,
    AT_MAXIMUM,
    Row("tidy-slack", Role.TIDY, f"the same with {SLACK_MIB} MiB of slack", slack=True),
    Row("tidy-releasing", Role.TIDY, "releases the page first", release_first=True),
    Row("none", Role.NONE),
)


@dataclass(frozen=True)
class Cell:
    """What one row came to on one Xen."""

    row: Row
    side: str
    found: Found
    report: Report | None  # of the second stage, if it ran
    said: tuple[str, ...]  # on the console, where that is the evidence
    seconds: float
    directory: Path
    command: str  # QEMU's

    def describe(self) -> dict[str, object]:
        """Return what reproduction.json says about the cell."""
        report = self.report
        return {
            "row": self.row.name,
            "side": self.side,
            "found": self.found.value,
            "add_to_physmap": report.result if report else None,
            "alias": f"{report.alias:#x}" if report and report.aliases else None,
            "event_before": report.event_before.name.lower() if report else None,
            "event_after": report.event_after.name.lower() if report else None,
            "mask_before": f"{report.mask_before:#x}" if report else None,
            "mask_after": f"{report.mask_after:#x}" if report else None,
            "console": list(self.said),
            "seconds": round(self.seconds, 2),
            "qemu": self.command,
        }


@dataclass(frozen=True)
class Stage:
    """Everything that all cells share."""

    uboots: dict[Role, UBoot]
    second_stage: SecondStage
    agent: Path
    machine: Machine
    folder: Path


def run(
    sides: dict[str, Build], stage: Stage, progress: Progress = quiet, rows: Sequence[Row] = ROWS
) -> list[Cell]:
    """Boot every row on every side, two at a time; in the order of rows, then sides."""
    jobs = [(row, side) for row in rows for side in sides]
    done = 0

    def one(job: tuple[Row, str]) -> Cell:
        nonlocal done
        row, side = job
        cell = boot(row, side, sides[side], stage)
        done += 1
        progress(f"booted {done} of {len(jobs)}")
        return cell

    with ThreadPoolExecutor(AT_ONCE) as executor:
        return list(executor.map(one, jobs))


def boot(row: Row, side: str, build: Build, stage: Stage) -> Cell:
    """Boot one row on one Xen and wait for what comes of it.

    Raises what a Host raises: that Xen dies is no cell of this table.
    """
    directory = stage.folder / re.sub(r"[^\w.+-]+", "-", side) / row.name
    began = time.monotonic()
    with started(row, build, stage, directory, stage.second_stage.image) as (host, held):

        def come_to_an_end() -> Report | str | None:
            let_go(host.ram, held)
            return find_report(host.ram, stage.second_stage) or last_words(host.console.text)

        outcome = host.wait(come_to_an_end, SECONDS, "the second stage's report")
        seconds = time.monotonic() - began
        host.check()
        text = host.console.text
        command = shlex.join(host.command)
    report = outcome if isinstance(outcome, Report) else None
    found = classify(report) if report else Found.PANIC
    said = () if report else (*OVER_ALLOCATION.findall(text)[:1], str(outcome))
    return Cell(row, side, found, report, said, seconds, directory, command)


@contextlib.contextmanager
def started(
    row: Row, build: Build, stage: Stage, directory: Path, image: Path, bootargs: str = ""
) -> Iterator[tuple[Booted, Path]]:
    """Boot a row up to where U-Boot waits with `image`: the host, and what is to be let go.

    What Xen does wrong meanwhile says where it happened.
    """
    directory.mkdir(parents=True, exist_ok=True)
    held = hold(image, directory / "second-stage.held")
    plan = _plan(row, stage, held, bootargs)
    dom0 = DomainPlan() if row.slack else None
    scenario = Scenario(f"uboot-{row.name}", domus=(plan,), dom0=dom0)
    try:
        with Booted(build, stage.machine, scenario, directory, kernel=stage.agent) as host:
            if row.slack:  # before the second stage may start, so before U-Boot populates
                most = (MEMORY_MIB + SLACK_MIB) * 1024
                host.domain(0).do(domctl.max_mem(build.tree, 1, most))
            yield host, held
    except XenFailure as failure:
        raise type(failure)(
            f"{row.name} on {build.tree.label}: {failure.message}",
            evidence=[
                *failure.evidence,
                f"qemu: {directory}/qemu.sh",
                f"log: {directory}/console.log",
            ],
        ) from failure
    held.unlink()


def _plan(row: Row, stage: Stage, held: Path, bootargs: str) -> DomainPlan:
    if row.role is Role.NONE:
        return DomainPlan(memory_mib=MEMORY_MIB, kernel=stage.second_stage.image)
    return DomainPlan(
        memory_mib=MEMORY_MIB,
        kernel=stage.uboots[row.role].image,
        ramdisk=held,
        bootargs=f"{bootargs} {RELEASE_FIRST}" if row.release_first else bootargs,
    )


def last_words(text: str) -> str | None:
    """Return why U-Boot gave up, None if it has not."""
    before, found, _ = text.partition(GAVE_UP)
    if not found:
        return None
    lines = [line.removeprefix("(d1) ").strip() for line in before.splitlines()]
    return next((line for line in reversed(lines[:-1]) if line), GAVE_UP)


def classify(report: Report) -> Found:
    """Return what a report amounts to; HarnessError for an answer that nobody foresaw."""
    if report.result == -errno.EBUSY:
        return Found.REFUSED
    if report.result:
        raise HarnessError(f"Xen answered {report.result} when shared_info was mapped")
    if report.aliases:
        return Found.ALIAS
    return Found.CLEAN if report.event_before is Event.DELIVERED else Found.BROKEN


def judge(cells: Iterable[Cell], before: str, after: str) -> list[str]:
    """Return what is wrong on the `after` side, nothing if all is well.

    The forgetful U-Boot on the `before` side is the proof that this can show the bug at all:
    raises HarnessError if it shows no alias there whose use loses an event.
    """
    table = {(cell.row.name, cell.side): cell for cell in cells}
    control = table[CONTROL.name, before]
    if control.found is not Found.ALIAS or not (control.report and control.report.corrupts):
        raise HarnessError(
            f"the bug does not show on {before}, so nothing can be said about {after}",
            evidence=[f"{CONTROL.note}: {control.found}", *control.said],
            advice="The first Xen must be one from before 4.17, or without the change; and the"
            " U-Boot one from before v2022.10.",
        )
    wrong = []
    for row in ROWS:
        found = table[row.name, after].found
        allowed = {Found.CLEAN}
        if row == CONTROL:
            allowed = {Found.REFUSED}
        elif row == AT_MAXIMUM:  # that U-Boot's own fix panics there is no fault of Xen's
            allowed |= {Found.PANIC}
        if found not in allowed:
            wrong.append(f"{row.name} on {after}: {found}, not {' or '.join(sorted(allowed))}")
    return wrong
