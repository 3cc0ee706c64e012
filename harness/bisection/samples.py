"""What was seen at one commit, as values that survive JSON.

Comes in: how far a commit came, and every run of every case on it. Goes out: `Sample`, and its
labels: the few words by which two commits are told apart. Refuses to know: which is good or bad.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from harness.outcomes import CaseResult

NUMBERS = re.compile(r"\b(0x[0-9a-f]+|\d+)\b", re.IGNORECASE)


class Reached(StrEnum):
    """How far a commit came."""

    UNCHANGED = "does not take the change"  # what --with names does not apply
    SOURCE = "does not build"
    BUILT = "does not boot"
    RAN = "boots"


class Aspect(StrEnum):
    """What of a run tells two commits apart."""

    OUTCOME = "outcome"
    SIGNATURE = "signature"  # two different failures are not the same bug
    BOOT_SECONDS = "boot seconds"


@dataclass(frozen=True)
class Sample:
    """One commit, built, booted, and its cases run: or as much of that as worked."""

    commit: str
    reached: Reached
    reason: str = ""  # the decisive line of what stopped it
    evidence: tuple[str, ...] = ()
    build: Mapping[str, Any] = field(default_factory=dict)  # Build.describe()
    boots: tuple[float, ...] = ()  # seconds
    cases: Mapping[str, tuple[CaseResult, ...]] = field(default_factory=dict)  # every run, by name

    @property
    def fingerprint(self) -> str:
        """The hash of what is loaded; empty for what was not built."""
        return str(self.build.get("fingerprint", ""))

    def runs(self, case: str) -> int:
        """Return how often a case was run."""
        return len(self.cases.get(case, ()))

    def labels(self, case: str, aspect: Aspect) -> tuple[str, ...]:
        """Return what each run of a case came to, in the words that `aspect` allows.

        What did not come as far as running it has one label, as if it had run once.
        """
        if self.reached is not Reached.RAN:
            return (self.stopped(aspect),)
        if not case:
            return (str(Reached.RAN),)
        return tuple(
            run.signature if aspect is Aspect.SIGNATURE else str(run.outcome)
            for run in self.cases.get(case, ())
        )

    def stopped(self, aspect: Aspect) -> str:
        """Return the label of a commit that did not come as far as its cases."""
        if aspect is not Aspect.SIGNATURE or not self.reason:
            return str(self.reached)
        return f"{self.reached}: {NUMBERS.sub('N', self.reason)}"

    def why(self, case: str) -> str:
        """Return in one line what this commit came to."""
        if self.reached is not Reached.RAN:
            return f"{self.reached}: {self.reason}" if self.reason else str(self.reached)
        results = self.cases.get(case, ())
        if not results:
            return str(self.reached)
        told = next((r for r in results if r.message), results[0])
        return f"{told.outcome}: {told.message}" if told.message else str(told.outcome)

    def joined(self, later: Sample) -> Sample:
        """Return this sample with the runs of a later one of the same source."""
        if self.reached is not Reached.RAN or later.reached is not Reached.RAN:
            return later
        names = {**self.cases, **later.cases}
        cases = {name: self.cases.get(name, ()) + later.cases.get(name, ()) for name in names}
        return replace(later, boots=self.boots + later.boots, cases=cases)

    def only(self, cases: Iterable[str], runs: int | None = None) -> Sample:
        """Return this sample without other cases, and with the first `runs` of each at most."""
        kept = {case: self.cases[case][:runs] for case in cases if case in self.cases}
        return replace(self, cases=kept)

    def to_json(self) -> dict[str, Any]:
        """Return this as JSON has it."""
        return {
            "commit": self.commit,
            "reached": self.reached.name,
            "reason": self.reason,
            "evidence": list(self.evidence),
            "build": dict(self.build),
            "boots": list(self.boots),
            "cases": {name: [run.to_json() for run in runs] for name, runs in self.cases.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            data["commit"],
            Reached[data["reached"]],
            data["reason"],
            tuple(data["evidence"]),
            data["build"],
            tuple(data["boots"]),
            {
                name: tuple(CaseResult.from_json(run) for run in runs)
                for name, runs in data["cases"].items()
            },
        )
