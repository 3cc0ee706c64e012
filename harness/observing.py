"""A booted host and its inspector in, what Xen's tables had to say while a case ran out.

After every call of a domain, the physmaps are compared with those before: a call may change only
what it names. When the case is over, and in paranoid mode after every call, all rules are held
against a snapshot. Nothing is raised: what is found is kept until it is asked for, and an inspector
that cannot look leaves a reason. Knows no pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.domain import Domain
from harness.hypercalls import Call
from harness.inspection import CannotInspect, Inspector, MidUpdate, invariants
from harness.inspection.evidence import Violation
from harness.inspection.footprint import Named, Surroundings, judge, strays
from harness.inspection.physmap import Physmap
from harness.xenabi import DOMID_SELF

#: Enough to see what went on; a table that is wrong everywhere is not told in full.
MOST_KEPT = 50


@dataclass(frozen=True)
class Findings:
    """What was found by looking at Xen from outside."""

    violations: tuple[Violation, ...] = ()  # what fails a case
    observations: tuple[Violation, ...] = ()  # what this Xen is known to do
    unseen: str = ""  # why it was not looked, or not to the end


@dataclass
class Observer:
    """Looks on while one case drives the domains of one host."""

    inspector: Inspector
    domains: Sequence[Domain]
    paranoid: bool = False
    _found: dict[tuple[str, str], Violation] = field(default_factory=dict)
    _physmaps: dict[int, Physmap] = field(default_factory=dict)
    _unseen: str = ""
    _unruled: str = ""

    def begin(self) -> None:
        """Remember how things are now, and look after every call from here on."""
        try:
            self._physmaps = self.inspector.physmaps()
        except CannotInspect as error:
            self._unseen = error.message
            return
        for domain in self.domains:
            domain.after_calls = self._after

    def welcome(self, domain: Domain) -> None:
        """Look after every call of a domain that came later, too, where that is asked for.

        Not at the footprint: the dom0 that runs a toolstack changes physmaps when it likes.
        """
        if self.paranoid:
            domain.after_calls = self._after_any

    def finish(self, *, look: bool = True) -> Findings:
        """Hold all rules against how things are now, unless told not to, and return everything.

        Do not `look` where Xen has died: it may have died in the middle of an update.
        """
        for domain in self.domains:
            domain.after_calls = None
        if look and not self._unseen:
            self._guarded(lambda: self._check_rules(""), last=True)
        found = self._found.values()
        return Findings(
            tuple(v for v in found if not v.is_observation),
            tuple(v for v in found if v.is_observation),
            self._unseen or self._unruled,
        )

    def _after(self, domain: Domain, calls: Sequence[Call[Any]]) -> None:
        operation = describe(domain, calls)
        self._guarded(lambda: self._check_footprint(domain, calls, operation))
        if self.paranoid:
            self._guarded(lambda: self._check_rules(operation))

    def _after_any(self, domain: Domain, calls: Sequence[Call[Any]]) -> None:
        operation = describe(domain, calls)
        self._guarded(lambda: self._check_rules(operation))

    def _guarded(self, look: Callable[[], None], *, last: bool = False) -> None:
        """Look; where that cannot be done, say so at the end and let the case go on.

        That Xen is busy right now matters only if there is no later chance.
        """
        if self._unseen:
            return
        try:
            look()
        except CannotInspect as error:
            if last or not isinstance(error, MidUpdate):
                self._unseen = "; ".join([error.message, *error.evidence])

    def _check_footprint(self, domain: Domain, calls: Sequence[Call[Any]], operation: str) -> None:
        before, self._physmaps = self._physmaps, self.inspector.physmaps()
        named = named_by(domain, calls)
        if named is None:
            return
        stray = strays(before, self._physmaps, named)
        if not stray:
            return
        snapshot = self.inspector.snapshot()
        around = Surroundings(
            {domid: state.shared_pages() for domid, state in snapshot.domains.items()},
            snapshot.gfn_in_page_info,
        )
        self._keep(judge(each, self._physmaps, around, operation) for each in stray)

    def _check_rules(self, operation: str) -> None:
        snapshot = self.inspector.snapshot()
        if snapshot.pages is None:  # what needs no page owners goes on
            self._unruled = f"no rule could be held: {snapshot.pages_unknown}"
        found = invariants.check(snapshot)
        self._keep(replace(violation, operation=operation) for violation in found)

    def _keep(self, found: Iterable[Violation]) -> None:
        """Keep what was not found before; the first operation after which it was stays with it."""
        for violation in found:
            if len(self._found) < MOST_KEPT:
                self._found.setdefault((violation.rule, violation.what), violation)


def named_by(domain: Domain, calls: Sequence[Call[Any]]) -> Named | None:
    """Return what of the physmaps `calls` name, by domid; None where one may change anything."""
    named: dict[int, list[tuple[int, int]]] = {}
    for call in calls:
        if call.touches is None:
            return None
        for domid, gfn, pages in call.touches:
            owner = domain.domid if domid == DOMID_SELF else domid
            named.setdefault(owner, []).append((gfn, pages))
    return named


def describe(domain: Domain, calls: Sequence[Call[Any]]) -> str:
    """Return the calls as one operation: the last ones of a batch stand for it."""
    last = f"{domain.name} {calls[-1]}"
    return last if len(calls) == 1 else f"{len(calls)} calls, the last {last}"
