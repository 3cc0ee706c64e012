"""A commit in, what is seen of it out: its Xen built, booted, and some cases run on it.

Comes in: a `Task`, a value that can be sent to another process or machine. Goes out: a `Sample`.
Refuses to know: which commit is asked for and why, and what is made of the answer.

What Xen does wrong is in the sample; what we or the machine do wrong is raised, and never becomes
an answer about a commit.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import changes as patches
from harness.bisection.cases import choose, name
from harness.bisection.memory import Memory
from harness.bisection.samples import Reached, Sample
from harness.booting import boot
from harness.builds import Build, BuildOptions, build
from harness.cache import Cache, default_cache
from harness.errors import BuildError, ChangeError, HarnessError, XenFailure
from harness.machines import load_machine
from harness.outcomes import CaseResult, Outcome
from harness.references import resolve
from harness.scenarios import DEFAULT, FIRST_DOM0LESS, SCENARIOS, Scenario, release_of
from harness.series import Series
from harness.suites import Suite, run_suite
from harness.toolchain import find_toolchain
from harness.trees import Tree

EVIDENCE_LINES = 12

CHANGE = "the change"  # what is said of one that came as a diff alone

# What a look leaves in its directory as it goes on: by these it can be seen how far it is.
BOOT = "boot"
RUN = "run-{}"
BUILDING = "building"


@dataclass(frozen=True)
class Setting:
    """How every commit of a search is built and run."""

    options: BuildOptions
    machine: str
    diffs: tuple[bytes, ...] = ()  # applied to every commit, one after the other

    def describe(self) -> str:
        """Return what decides results beside the source and the cases, for the memory's key."""
        fragments = [path.read_text() for path in self.options.kconfig]
        toolchain = find_toolchain(self.options.arch, self.options.cc).description
        return repr((self.options, fragments, toolchain, self.machine, self.diffs))


@dataclass(frozen=True)
class Task:
    """One commit to look at."""

    reference: str  # git:PLACE@COMMIT, or any other reference
    commit: str
    setting: Setting
    cases: tuple[str, ...] = ()  # names; none: only build and boot
    runs: int = 1  # of every case, with those that are known already
    boots: int = 1  # likewise
    known_runs: Mapping[str, int] = field(default_factory=dict)  # of this source, by case
    known_boots: int = 0
    without: bytes = b""  # a diff to take out: does the answer explain it all?
    output: str = ""  # a directory for logs; "" for one that is thrown away
    cache: str = ""  # the root of the cache that asker and worker share; "" if they share none


def stage(logs: Path) -> str:
    """Return in a word or two what a look is at, by the directory it fills."""
    if (logs / RUN.format(1)).exists():
        return f"run {sum(1 for _ in logs.glob(RUN.format('*')))} of its cases"
    return "booting" if (logs / BOOT).exists() else BUILDING


def evaluate(task: Task) -> Sample:
    """Look at one commit, and return what is new: nothing is done again that is remembered.

    Raises what keeps the commit from being looked at at all.
    """
    cache = Cache(Path(task.cache)) if task.cache else default_cache()
    try:
        tree = _source(task, cache)
    except ChangeError as error:
        where = error.message.rpartition(f'"{CHANGE}", ')[2]  # file and hunk, if it says so
        return Sample(task.commit, Reached.UNCHANGED, where, error.evidence)
    try:
        built = build(tree, task.setting.options, cache)
    except BuildError as error:
        reason = _decisive(error.evidence) or error.message
        return Sample(task.commit, Reached.SOURCE, reason, error.evidence)
    with tempfile.TemporaryDirectory(prefix="xenverify-bisect-") as scratch:
        directory = Path(task.output or scratch)
        return _run(task, built, directory, cache)


def _source(task: Task, cache: Cache) -> Tree:
    tree = resolve(task.reference, cache)
    for diff in task.setting.diffs:  # read anew for each tree: files move between versions
        tree = patches.apply(tree, _series(diff, tree, cache))
    if task.without:
        tree = patches.apply(tree, _series(task.without, tree, cache), reverse=True)
    return tree


def _series(diff: bytes, tree: Tree, cache: Cache) -> Series:
    series = patches.read_change("-", tree, cache, io.BytesIO(diff))
    named = tuple(replace(patch, subject=CHANGE) for patch in series.patches)
    return replace(series, origin=CHANGE, patches=named)


def _run(task: Task, built: Build, directory: Path, cache: Cache) -> Sample:
    sample = Sample(task.commit, Reached.RAN, build=built.describe())
    memory = Memory(cache, task.setting.describe()) if task.cache else None
    known = memory.recall_binary(sample.fingerprint) if memory is not None else None
    if known is not None and known.reached is not Reached.RAN:
        return replace(sample, reached=known.reached, reason=known.reason, evidence=known.evidence)
    runs, boots = _missing(task, known)
    if not runs and not boots:
        return sample
    try:
        sample = replace(sample, boots=_boot(built, task.setting, max(boots, 1), directory, cache))
    except XenFailure as failure:
        reason, evidence = str(failure), tuple(failure.evidence[:EVIDENCE_LINES])
        return replace(sample, reached=Reached.BUILT, reason=reason, evidence=evidence)
    cases: dict[str, tuple[CaseResult, ...]] = {}
    for number in range(max(runs.values(), default=0)):
        wanted = [case for case, missing in runs.items() if missing > number]
        for result in _suite(task, wanted, built, directory / RUN.format(number + 1)):
            cases[result.id] = (*cases.get(result.id, ()), result)
    return replace(sample, cases=cases)


def _missing(task: Task, known: Sample | None) -> tuple[dict[str, int], int]:
    """Return how many runs of which cases are to be made, and how many boots.

    `known` is what was seen of the same binary, perhaps built from another source.
    """
    runs = {
        case: task.runs - max(task.known_runs.get(case, 0), known.runs(case) if known else 0)
        for case in task.cases
    }
    boots = task.boots - max(task.known_boots, len(known.boots) if known else 0)
    return {case: count for case, count in runs.items() if count > 0}, max(boots, 0)


def _boot(
    built: Build, setting: Setting, boots: int, directory: Path, cache: Cache
) -> tuple[float, ...]:
    """Boot the Xen as often as asked, each time to the point where every guest answers.

    Returns seconds from QEMU's start, less those in which this machine had no CPU for it.
    """
    scenario = plainest(built.tree.version)
    seconds = []
    for _ in range(boots):
        shutil.rmtree(directory / BOOT, ignore_errors=True)
        machine = load_machine(setting.machine)
        began = time.monotonic()
        with boot(built, machine, scenario, directory / BOOT, cache) as host:
            took = time.monotonic() - began
            waited = max(queued for _, queued in host.process.cpu_seconds().values())
            seconds.append(round(took - waited, 4))
    return tuple(seconds)


def plainest(version: str) -> Scenario:
    """Return what any Xen of a version must be able to boot: a domU, or before dom0less a dom0."""
    return DEFAULT if release_of(version) >= FIRST_DOM0LESS else SCENARIOS["dom0"]


def _suite(task: Task, cases: Sequence[str], built: Build, directory: Path) -> list[CaseResult]:
    """Run the cases once; raises HarnessError if one of them ended by a fault of our own."""
    selection = choose(cases)
    found = run_suite(Suite(built, task.setting.machine, selection, directory)).cases.values()
    results = [replace(result, id=name(selection, result.id)) for result in found]
    faults = [result for result in results if result.outcome is Outcome.ERROR]
    if faults:
        raise HarnessError(
            f"on {built.tree.label} a case could not be run: {faults[0].id}",
            evidence=[f"{fault.id}: {fault.message}" for fault in faults[:EVIDENCE_LINES]],
            advice=f"Logs: {directory}" if task.output else "",
        )
    return results


def _decisive(lines: Sequence[str]) -> str:
    """Return the first line of a build's log that says what is wrong."""
    signs = ("error:", "Error ", "undefined reference", "No rule to make")
    return next((line.strip() for sign in signs for line in lines if sign in line), "")
