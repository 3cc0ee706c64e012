"""Commits, parents and sources in; which need a build, and who descends from whom, out.

Comes in: the commits of a range, parents first, and for each the key of what its build reads.
Goes out: `Graph`: which commits stand alone and which share a neighbour's result, and sets of
ancestors as bit masks. Refuses to know: git, Xen, and what any commit was seen to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Graph:
    """The commits that `top` has and the start of the range has not.

    A parent that is no commit of the range is *outside*: an ancestor of the range's start. It can
    be tested like any other, but what came before it is not searched.
    """

    parents: Mapping[str, tuple[str, ...]]  # of every commit in the range, parents first
    sources: Mapping[str, str]  # of every commit in the range and of every outside parent
    path: frozenset[str] | None = None  # if given, only these parents lend their results

    @cached_property
    def stand_ins(self) -> dict[str, str]:
        """For each commit the one whose result it shares: itself, if its source is like no
        parent's.

        A merge that has the source of one parent has that parent's result, and its badness, if any,
        came from there: the other parents' histories cannot explain it. So git simplifies history
        as well.
        """
        found: dict[str, str] = {}
        for commit, parents in self.parents.items():
            lenders = (p for p in parents if self.path is None or p in self.path)
            source = self.sources[commit]
            shared = next((p for p in lenders if self.sources[p] == source), None)
            found[commit] = commit if shared is None else found.get(shared, shared)
        return found

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The commits that need a build of their own, parents first."""
        return tuple(commit for commit, stand_in in self.stand_ins.items() if commit == stand_in)

    @cached_property
    def bit(self) -> dict[str, int]:
        """The bit of each node in every mask."""
        return {node: 1 << position for position, node in enumerate(self.nodes)}

    @cached_property
    def masks(self) -> dict[str, int]:
        """For each commit the nodes among its ancestors, with the node that stands for it."""
        masks: dict[str, int] = {}
        for commit, parents in self.parents.items():
            stand_in = self.stand_ins[commit]
            if commit != stand_in:
                masks[commit] = masks.get(stand_in, 0)
                continue
            mask = self.bit[commit]
            for parent in parents:
                mask |= masks.get(parent, 0)
            masks[commit] = mask
        return masks

    def stand_in(self, commit: str) -> str:
        """Return the commit whose result `commit` shares; one from outside stands for itself."""
        return self.stand_ins.get(commit, commit)

    def members(self, mask: int) -> Iterator[str]:
        """Yield the nodes of a mask, parents first."""
        while mask:
            lowest = mask & -mask
            yield self.nodes[lowest.bit_length() - 1]
            mask ^= lowest

    def frontier(self, mask: int) -> list[str]:
        """Return who stands in for the parents of a set of nodes that are not of the set."""
        found: dict[str, None] = {}
        for node in self.members(mask):
            for parent in self.parents[node]:
                stand_in = self.stand_in(parent)
                if not self.bit.get(stand_in, 0) & mask:
                    found[stand_in] = None
        return list(found)

    def after(self, start: str) -> Graph:
        """Return the commits that descend from `start`, which is outside then.

        Only here can a commit be seen to lose what `start` had: a branch that forked before `start`
        and was merged later never had it.
        """
        descendants = self.descendants(start)
        parents = {c: p for c, p in self.parents.items() if c in descendants}
        return Graph(parents, self.sources, frozenset(descendants | {start}))

    def descendants(self, start: str) -> set[str]:
        """Return the commits of the range that have `start` among their ancestors."""
        found: set[str] = set()
        for commit, parents in self.parents.items():
            if any(parent == start or parent in found for parent in parents):
                found.add(commit)
        return found

    def sharing(self) -> Iterator[tuple[str, str]]:
        """Yield each commit that needs no build, with the commit whose result it shares."""
        yield from ((c, other) for c, other in self.stand_ins.items() if c != other)
