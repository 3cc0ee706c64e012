"""A graph and what was seen of some commits in, the commit to look at next out, to the answer.

Comes in: `Graph`, and a `Mark` for each commit that was looked at. Goes out: the next commit
wanted, those that will probably be wanted after it, and in the end an `Answer`. Refuses to know:
how a commit is looked at, how long it takes, and what good and bad mean.

A plain bisection assumes that a commit is bad exactly if the guilty one is among its ancestors.
Real histories break that: a bug comes, goes and comes back; a branch forked before the good end
never had what the good end has. So an answer is believed only when the commits just below it were
looked at themselves, and found good; if one is bad, the search goes on below it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import count as count_up

from harness.bisection.graph import Graph

# When so many candidates could not be tested, those between two that fail alike are presumed to
# fail too.
PATIENCE = 8

MergeBases = Callable[[str, str], tuple[str, ...]]


class Mark(Enum):
    """What a commit is like."""

    GOOD = "good"  # like the old end
    BAD = "bad"  # like the new end
    SKIP = "skip"  # like neither


@dataclass(frozen=True)
class Seen:
    """The mark of one commit; `reason` tells two skips apart, or says that they are alike."""

    mark: Mark
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    """Where a search ended: `first` is bad, and what came just before the suspects is not.

    One suspect: that commit. Several: one of them, and no more can be said, since all but `first`
    could not be tested.
    """

    first: str
    suspects: tuple[str, ...]
    below: tuple[str, ...] = ()  # the commits just before the suspects
    inherited: tuple[str, ...] = ()  # of `below`: bad, but on a branch not known to have been good
    presumed: tuple[str, ...] = ()  # suspects not tried: between two that fail alike
    bad_base: str | None = None  # nothing was found: already the ends' fork point is bad

    @property
    def certain(self) -> bool:
        """Whether a single commit is to blame."""
        return len(self.suspects) == 1


@dataclass(frozen=True)
class Search:
    """One moment of a search: `tell` returns the next one, `next` says what that is to be about.

    Where the search stands is derived anew from all that was seen: a search that was resumed, or
    whose results came in another order, takes the same way as one that saw them one by one.
    """

    graph: Graph  # the commits that the new end has and the old end has not
    start: str  # the old end
    top: str  # the new end
    merge_bases: MergeBases
    seen: Mapping[str, Seen]
    choices: dict[Hashable, str | None] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def between(cls, graph: Graph, old: str, new: str, merge_bases: MergeBases) -> Search:
        """Start a search between two ends that were looked at already."""
        seen = dict.fromkeys((new, graph.stand_in(new)), Seen(Mark.BAD))
        return cls(graph, old, new, merge_bases, seen | {old: Seen(Mark.GOOD)})

    def tell(self, commit: str, seen: Seen) -> Search:
        """Return the search that knows what `commit` is like, too."""
        return replace(self, seen={**self.seen, commit: seen})

    def next(self) -> str | Answer:
        """Return the commit to look at next, or the answer."""
        return self._follow().outcome

    def remaining(self) -> int:
        """Return how many commits may still be to blame."""
        return self._follow().mask.bit_count()

    def steps(self) -> list[str]:
        """Return the commits that were looked at on the way here, in the search's own order."""
        return list(self._follow().asked)

    def ahead(self, count: int, known: Callable[[str], Seen | None] = lambda _: None) -> list[str]:
        """Return up to `count` commits, the most probably wanted first: the next one, then those
        that would follow each outcome of it, and so on; none of which anything is `known`."""
        found: list[str] = []
        order = count_up()  # equal probabilities must not compare searches
        waiting = [(-1.0, next(order), self)]
        while waiting and len(found) < count:
            weight, _, search = heapq.heappop(waiting)
            way = search._follow()
            if isinstance(way.outcome, Answer):
                continue
            seen = known(way.outcome)
            if seen is not None:
                heapq.heappush(waiting, (weight, next(order), search.tell(way.outcome, seen)))
                continue
            if way.outcome not in found:
                found.append(way.outcome)
            share = way.share_of(way.outcome)
            for mark, probability in ((Mark.BAD, share), (Mark.GOOD, 1 - share)):
                told = search.tell(way.outcome, Seen(mark))
                heapq.heappush(waiting, (weight * probability, next(order), told))
        return found

    def _follow(self) -> _Way:
        """Walk from the ends through what was seen, to the first question it does not answer."""
        way = _Way(self.graph, self.start, self.top, self.seen, self.merge_bases, self.choices)
        way.walk()
        return way


class _Unseen(Exception):
    """The way needs to know what a commit is like; the message is its id."""


@dataclass
class _Way:
    """One walk through what was seen. It asks only for what its own steps so far lead to."""

    whole: Graph
    start: str  # good, and an ancestor of `top` once the fork points were looked at
    top: str
    seen: Mapping[str, Seen]
    merge_bases: MergeBases
    choices: dict[Hashable, str | None]
    scope: Graph | None = None  # the commits after `start`, when branches from before it misled us
    asked: dict[str, Mark] = field(default_factory=dict)
    bad: str = ""
    mask: int = 0  # what may still be to blame, `bad` among it
    outcome: str | Answer = ""

    @property
    def graph(self) -> Graph:
        """What is searched."""
        return self.scope or self.whole

    def walk(self) -> None:
        """Find `outcome`."""
        try:
            answer = self._through_fork_points()
            while answer is None:
                self._narrow()
                answer = self._prove()
            self.outcome = answer
        except _Unseen as question:
            self.outcome = str(question)

    def share_of(self, commit: str) -> float:
        """Return how likely `commit` is bad if each suspect is equally likely to blame.

        One that is looked at for proof only is all but certain to be good.
        """
        below = (self.graph.masks.get(commit, 0) & self.mask).bit_count()
        return min(max(below / max(self.mask.bit_count(), 1), 0.02), 0.98)

    def _ask(self, commit: str) -> Mark:
        seen = self.seen.get(commit)
        if seen is None:
            raise _Unseen(commit)
        self.asked[commit] = seen.mark
        return seen.mark

    def _through_fork_points(self) -> Answer | None:
        """Step back to where the ends' histories part, if the old one is no ancestor of the new."""
        bases = self.merge_bases(self.start, self.top)
        self.mask = self.graph.masks[self.top]
        for base in bases:
            if self._ask(base) is Mark.BAD:
                self.mask = 0
                return Answer(self.top, (), bad_base=base)
        self.start = bases[0]
        return None

    def _narrow(self) -> None:
        """Halve what may be to blame until nothing is left that could be tested."""
        graph = self.graph
        self.bad = graph.stand_in(self.top)
        self.mask = graph.masks[self.top]
        for good in [c for c, mark in self.asked.items() if mark is Mark.GOOD]:
            if graph.bit.get(good, 0) & self.mask:
                self.mask &= ~graph.masks[good]
        commit = self._most_telling()
        while commit is not None:
            mark = self._ask(commit)
            if mark is Mark.GOOD:
                self.mask &= ~graph.masks[commit]
            elif mark is Mark.BAD:
                self.bad, self.mask = commit, self.mask & graph.masks[commit]
            commit = self._most_telling()

    def _most_telling(self) -> str | None:
        """Return what splits the suspects most evenly, but away from what cannot be tested.

        What breaks one commit breaks its neighbours as well: at half its distance from the nearest
        of those a commit tells as much as it would at the edge.
        """
        broken = self._broken()
        key = (self.scope is None, self.start, self.mask, frozenset(broken))
        if key not in self.choices:
            self.choices[key] = self._choose(broken)
        return self.choices[key]

    def _choose(self, broken: list[str]) -> str | None:
        graph, total = self.graph, self.mask.bit_count()
        presumed = self._presumed(broken)
        places = [(graph.masks[commit] & self.mask).bit_count() for commit in broken]
        best, best_value = None, 0
        for node in graph.members(self.mask & ~graph.bit[self.bad] & ~presumed):
            if node in broken:
                continue
            place = (graph.masks[node] & self.mask).bit_count()
            value = min(place, total - place)
            if places:
                value = min(value, 1 + 2 * min(abs(place - other) for other in places))
            if value > best_value:
                best, best_value = node, value
        return best

    def _broken(self) -> list[str]:
        """Return the suspects that could not be tested."""
        bit = self.graph.bit
        asked = self.asked.items()
        return [c for c, mark in asked if mark is Mark.SKIP and bit.get(c, 0) & self.mask]

    def _presumed(self, broken: list[str]) -> int:
        """Return the mask of suspects between two that fail alike, once patience has run out."""
        if len(broken) < PATIENCE:
            return 0
        found = 0
        for reason in {self.seen[commit].reason for commit in broken}:
            alike = [commit for commit in broken if self.seen[commit].reason == reason]
            ends = sum(self.graph.bit[commit] for commit in alike)
            below = 0
            for commit in alike:
                below |= self.graph.masks[commit]
            for node in self.graph.members(below & self.mask & ~ends):
                if self.graph.masks[node] & ends:
                    found |= self.graph.bit[node]
        return found

    def _prove(self) -> Answer | None:
        """Look at the commits just below the suspects; return the answer, or None to search on."""
        below = [self._known_as(commit) for commit in self.graph.frontier(self.mask)]
        marks = {commit: self._ask(commit) for commit in dict.fromkeys(below)}
        for commit in (c for c, mark in marks.items() if mark is Mark.BAD):
            if self._go_below(commit):
                return None
        bad = tuple(commit for commit, mark in marks.items() if mark is Mark.BAD)
        if self.scope is None and marks and Mark.GOOD not in marks.values():
            # A branch from before the start, that never had what the start has, cannot lose it.
            self.scope = self.whole.after(self.start)
            return None
        suspects = self.mask
        presumed = self._presumed(self._broken()) & suspects
        members = self.graph.members
        return Answer(
            self.bad, tuple(members(suspects)), tuple(marks), bad, tuple(members(presumed))
        )

    def _known_as(self, commit: str) -> str:
        """Return the commit whose result a commit outside the scope shares."""
        return commit if commit in self.graph.bit else self.whole.stand_in(commit)

    def _go_below(self, commit: str) -> bool:
        """Make a bad commit the top, if its branch ever was good; return whether it was."""
        if commit not in self.graph.bit and commit not in self.whole.bit:
            return False
        bases = self.merge_bases(self.start, commit)
        if not bases or any(self._ask(base) is not Mark.GOOD for base in bases):
            return False
        if self.scope is not None and commit not in self.scope.bit:
            self.scope = None
        self.top, self.start = commit, bases[0]
        return True
