"""Commits to look at in, samples out, from memory or from workers, several at once.

Comes in: `Need`s, those that somebody waits for and those that somebody may. Goes out: samples,
kept as they arrive. Refuses to know: how a search goes on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.bisection.evaluation import BUILDING, Setting, Task, evaluate, stage
from harness.bisection.history import History
from harness.bisection.memory import Memory
from harness.bisection.samples import Reached, Sample
from harness.bisection.workers import Workers
from harness.errors import HarnessError, XenverifyError

# A fault of our own, or a worker's death, is tried again so often before the search stops.
RETRIES = 1
SECONDS_BETWEEN_CHECKS = 5.0
SECONDS_BETWEEN_LOOKS = 0.1  # at how far those at work are


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
    put_off: bool = False  # it was begun ahead of time, and has to make room


@dataclass(frozen=True)
class _Look:
    """One that goes on."""

    need: Need
    logs: Path | None

    @property
    def builds(self) -> bool:
        """Whether it is building on this machine, which takes all that a core has."""
        return self.logs is not None and stage(self.logs) == BUILDING


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
    _running: dict[Future[Sample], _Look] = field(default_factory=dict)
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
        """Keep as much at work as there is room for, and return when one look is over.

        What nobody waits for yet only takes what the wanted looks leave: it is begun while those
        boot and run cases, and put off as soon as it is in the way. What ccache has of it stays.
        """
        checked = time.monotonic()
        sources = {self._variant(need) for need in wanted}

        def waited_for(look: _Look) -> bool:
            return self._variant(look.need) in sources

        while True:
            for need in wanted:
                if self._has_room_for(need, among=waited_for):
                    self._make_room(waited_for)
                    self._begin(need, ahead=False)
            for need in ahead:
                if self._has_room_for(need, among=lambda _: True):
                    self._begin(need, ahead=True)
            if done := wait(self._running, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED).done:
                break
            if time.monotonic() - checked > SECONDS_BETWEEN_CHECKS:
                self.workers.check()
                checked = time.monotonic()
        for future in done:
            self._end(future, self._running.pop(future).need)

    def _has_room_for(self, need: Need, among: Callable[[_Look], bool]) -> bool:
        """Whether a look should begin, as far as those `among` the running leave room."""
        looks = [look for look in self._running.values() if among(look)]
        building = sum(look.builds for look in looks)
        if len(looks) >= self.workers.slots or building >= self.workers.builders:
            return False
        return not self._at_work(need) and not self.met(need)

    def _make_room(self, waited_for: Callable[[_Look], bool]) -> None:
        """Put off what was begun ahead of time, if that takes a slot or builds what is unwanted."""
        idle = [
            (future, look)
            for future, look in self._running.items()
            if not waited_for(look) and not future.done()
        ]
        for future, look in idle:
            if (look.builds or len(self._running) >= self.workers.slots) and self.workers.end(
                future
            ):
                del self._running[future]
                self.listen(Event(look.need.commit, put_off=True))

    def _at_work(self, need: Need) -> bool:
        """Whether this source is being looked at, under whatever commit's name."""
        source = self._variant(need)
        return any(self._variant(look.need) == source for look in self._running.values())

    def _variant(self, need: Need) -> str:
        """Return what tells the source that is to be looked at from every other."""
        return self._source(need.commit) + need.variant

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
        self._running[self.workers.submit(self.look, task)] = _Look(need, logs)

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
            source = self._variant(need)
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
