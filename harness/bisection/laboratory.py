"""Commits to look at in, samples out, from memory or from workers, several at once.

Comes in: `Need`s, those that somebody waits for and those that somebody may. Goes out: samples,
kept as they arrive. Refuses to know: how a search goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.bisection.evaluation import Setting, Task, evaluate
from harness.bisection.history import History
from harness.bisection.memory import Memory
from harness.bisection.samples import Reached, Sample
from harness.bisection.workers import Workers
from harness.errors import HarnessError, XenverifyError

# A fault of our own, or a worker's death, is tried again so often before the search stops.
RETRIES = 1
SECONDS_BETWEEN_CHECKS = 5.0


@dataclass(frozen=True)
class Need:
    """What is to be known of one commit, at least."""

    commit: str
    cases: tuple[str, ...] = ()  # names; none: only build and boot
    runs: int = 1
    boots: int = 1
    without: bytes = b""  # a diff to take out first

    @property
    def variant(self) -> str:
        """What tells this source from the commit's own."""
        return f"-{hashlib.sha256(self.without).hexdigest()[:16]}" if self.without else ""


@dataclass(frozen=True)
class Event:
    """What is heard from a laboratory."""

    commit: str
    ahead: bool = False  # begun before anybody waits for it
    sample: Sample | None = None  # None: it is being looked at now
    remembered: bool = False
    logs: Path | None = None  # where its logs come to be, if on this machine


@dataclass
class Effort:
    """What a search has cost so far."""

    builds: int = 0
    failed_builds: int = 0
    cached_builds: int = 0
    looks: int = 0
    remembered: int = 0
    build_seconds: float = 0.0


@dataclass
class Laboratory:
    """Everything known about a history's commits, and the means to know more."""

    history: History
    place: str  # a commit is the reference PLACE@COMMIT
    setting: Setting
    workers: Workers
    memory: Memory
    output: Path
    look: Callable[[Task], Sample] = evaluate
    listen: Callable[[Event], None] = lambda _: None
    effort: Effort = field(default_factory=Effort)
    _known: dict[str, Sample] = field(default_factory=dict)
    _running: dict[Future[Sample], Need] = field(default_factory=dict)
    _faults: dict[str, int] = field(default_factory=dict)
    _sources: dict[str, str] = field(default_factory=dict)

    def known(self, commit: str, variant: str = "") -> Sample | None:
        """Return what is known of a commit, from this search or an earlier one."""
        source = self._source(commit) + variant
        if source not in self._known:
            sample = self.memory.recall(source)
            if sample is None:
                return None
            self.effort.remembered += 1
            self._known[source] = sample
            self.listen(Event(commit, sample=sample, remembered=True))
        return self._known[source]

    def get(self, *needs: Need) -> list[Sample]:
        """Return samples that meet the needs, however long it takes."""
        while True:
            missing = [need for need in needs if not self.met(need)]
            if not missing:
                return [self._have(need) for need in needs]
            self.work(missing)

    def met(self, need: Need) -> bool:
        """Whether enough is known."""
        sample = self.known(need.commit, need.variant)
        if sample is None:
            return False
        if sample.reached is not Reached.RAN:
            return True
        ran = all(sample.runs(case) >= need.runs for case in need.cases)
        return ran and len(sample.boots) >= need.boots

    def work(self, wanted: Sequence[Need], ahead: Sequence[Need] = ()) -> None:
        """Begin with as much as there are workers for, and return when one look is over."""
        for need in [*wanted, *ahead]:
            if len(self._running) >= self.workers.slots:
                break
            if not self._at_work(need) and not self.met(need):
                self._begin(need, ahead=need not in wanted)
        while not (done := self._wait()):
            self.workers.check()
        for future in done:
            self._end(future, self._running.pop(future))

    def _wait(self) -> set[Future[Sample]]:
        return wait(self._running, SECONDS_BETWEEN_CHECKS, FIRST_COMPLETED).done

    def _at_work(self, need: Need) -> bool:
        """Whether this source is being looked at, under whatever commit's name."""
        source = self._source(need.commit) + need.variant
        return any(self._source(n.commit) + n.variant == source for n in self._running.values())

    def _begin(self, need: Need, *, ahead: bool) -> None:
        known = self.known(need.commit, need.variant) or Sample(need.commit, Reached.RAN)
        logs = self._logs(need)
        task = Task(
            f"{self.place}@{need.commit}",
            need.commit,
            self.setting,
            need.cases,
            need.runs,
            need.boots,
            {case: known.runs(case) for case in need.cases},
            len(known.boots),
            need.without,
            str(logs) if logs is not None else "",
            "" if self.workers.elsewhere else str(self.memory.cache.root),
        )
        self.listen(Event(need.commit, ahead=ahead, logs=logs))
        self._running[self.workers.submit(self.look, task)] = need

    def _logs(self, need: Need) -> Path | None:
        """Return where this look's logs go; None if they are thrown away elsewhere."""
        if self.workers.elsewhere:
            return None
        commit = (
            self.output / "commits" / (need.commit[:12] + ("-reverted" if need.without else ""))
        )
        return commit / f"look-{len(list(commit.glob('look-*'))) + 1}"

    def _end(self, future: Future[Sample], need: Need) -> None:
        """Keep what came; try again what failed by our own fault."""
        problem = future.exception()
        if problem is None:
            sample = future.result()
            self._count(sample)
            source = self._source(need.commit) + need.variant
            self._known[source] = self.memory.keep(source, sample)
            self._check(self._known[source], need)
            self.listen(Event(need.commit, sample=self._known[source]))
            return
        if not isinstance(problem, XenverifyError) and not self.workers.died(problem):
            raise problem
        faults = self._faults[need.commit] = self._faults.get(need.commit, 0) + 1
        if faults > RETRIES:
            raise self._given_up(need, problem)

    def _check(self, sample: Sample, need: Need) -> None:
        """Raise HarnessError if a case was not run at all: it would be asked for for ever."""
        missing = [case for case in need.cases if not sample.runs(case)]
        if sample.reached is Reached.RAN and missing:
            raise HarnessError(
                f"on {self.history.describe(need.commit)} the case {missing[0]} did not run",
                advice="Do its name or parameters depend on the Xen it runs on?",
            )

    def _given_up(self, need: Need, problem: BaseException) -> XenverifyError:
        if isinstance(problem, XenverifyError):
            return problem
        return HarnessError(
            f"the worker that looked at {self.history.describe(need.commit)} died, twice",
            evidence=[str(problem)],
            advice="Is there memory enough? What was found so far is kept: repeat the command.",
        )

    def _count(self, sample: Sample) -> None:
        effort = self.effort
        effort.looks += 1
        if sample.reached is Reached.SOURCE:
            effort.failed_builds += 1
        elif sample.build.get("cached"):
            effort.cached_builds += 1
        elif sample.build:
            effort.builds += 1
            effort.build_seconds += float(sample.build["seconds"])

    def _have(self, need: Need) -> Sample:
        sample = self.known(need.commit, need.variant)
        assert sample is not None
        return replace(sample, commit=need.commit)

    def _source(self, commit: str) -> str:
        if commit not in self._sources:
            graph = self.history.graph
            found = graph.sources.get(commit) or self.history.sources([commit])[commit]
            self._sources[commit] = found
        return self._sources[commit]
