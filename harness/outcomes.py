"""What one case showed on one build.

Comes in: how a case ended. Goes out: values that survive JSON, so that a suite's result can be kept
and read again without the build at hand. Refuses to know: how a case is run, and what another build
made of it.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from harness.errors import XenCrashed, XenExited, XenFailure


class Outcome(StrEnum):
    """Of one case on one build."""

    PASSED = "passed"
    FAILED = "failed"  # Xen answered, and answered wrong
    CRASHED = "crashed"  # Xen panicked, or left the machine
    HUNG = "hung"  # Xen or its guest stopped answering
    SKIPPED = "skipped"  # the case has nothing to say about this Xen
    ERROR = "error"  # our own fault, never blamed on Xen

    @property
    def blames_xen(self) -> bool:
        """Whether this is an answer about Xen, and a bad one."""
        return self in (Outcome.FAILED, Outcome.CRASHED, Outcome.HUNG)

    @property
    def comparable(self) -> bool:
        """Whether this says anything about Xen at all."""
        return self is Outcome.PASSED or self.blames_xen


def outcome_of(problem: BaseException, *, answers: tuple[type[BaseException], ...]) -> Outcome:
    """Name the outcome of a case that ended in `problem`.

    `answers` are the exceptions by which a case reports a wrong answer of Xen's. What is in neither
    family, a TypeError in a case for example, is the harness's or the case's own fault.
    """
    if isinstance(problem, XenCrashed | XenExited):
        return Outcome.CRASHED
    if isinstance(problem, XenFailure):
        return Outcome.HUNG
    if isinstance(problem, answers):
        return Outcome.FAILED
    return Outcome.ERROR


@dataclass(frozen=True)
class CaseResult:
    """One case on one build. Paths are text, as absolute as they were when the case ran."""

    id: str  # testcases/grant_table/test_remap.py::test_second_map_is_refused
    outcome: Outcome
    seconds: float = 0.0  # of the case itself; the boot went on while the one before it ran
    message: str = ""  # the first line of what went wrong, or the reason of a skip
    details: str = ""  # the whole of it, as pytest tells it
    evidence: tuple[str, ...] = ()  # what Xen said of its death, or a failure of ours of its cause
    operations: tuple[str, ...] = ()  # the last ones, as Domain.history has them
    console: str = ""  # what Xen said during this case
    directory: str = ""  # where qemu.sh and console.log are
    again: str = ""  # one command that repeats it
    crash: tuple[str, ...] = ()  # what Xen died of, frame by frame
    crash_signature: str = ""  # the same without anything that differs from run to run
    violations: tuple[str, ...] = ()  # where Xen's own tables were wrong
    observed: tuple[str, ...] = ()  # where they were as this Xen is known to have them
    unseen: str = ""  # why they, or the lines that ran, were not looked at

    @property
    def signature(self) -> str:
        """The kind of failure: outcome and message with every number taken out.

        Two runs of one bug differ in addresses and GFNs; two different bugs differ in words.
        """
        if self.crash_signature:
            return f"{self.outcome}: {self.crash_signature}"
        words = re.sub(r"\b(0x[0-9a-f]+|\d+)\b", "N", self.message, flags=re.IGNORECASE)
        return f"{self.outcome}: {words}" if words else str(self.outcome)

    @property
    def area(self) -> str:
        """The group the case belongs to: its folder in testcases/, or its file if it has none."""
        parts = self.id.partition("::")[0].removesuffix(".py").split("/")
        folders = parts[parts.index("testcases") + 1 : -1] if "testcases" in parts else parts[-2:-1]
        return folders[0] if folders else parts[-1].removeprefix("test_")

    @property
    def name(self) -> str:
        """The behaviour the case names, without pytest's prefix."""
        return self.id.rpartition("::")[2].removeprefix("test_")

    @property
    def slug(self) -> str:
        """The case as a relative path for its logs: area/name, in letters any file system takes."""
        name = re.sub(r"[^\w.-]+", "_", self.name)
        if name != self.name or len(name) > 80:
            name = f"{name[:80]}-{zlib.crc32(self.id.encode()):08x}"
        stem = self.id.partition("::")[0].removesuffix(".py").rpartition("/")[2]
        return "/".join(dict.fromkeys([self.area, stem.removeprefix("test_"), name]))

    def to_json(self) -> dict[str, Any]:
        """Return this as JSON has it, of plain types only: xdist's workers send it, too."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in {**asdict(self), "outcome": self.outcome.value}.items()
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        lists = {key: tuple(value) for key, value in data.items() if isinstance(value, list)}
        return cls(**{**data, **lists, "outcome": Outcome(data["outcome"])})


@dataclass(frozen=True)
class SuiteResult:
    """Every case that ran on one build, and how that build and machine are described."""

    build: dict[str, Any]  # Build.describe()
    machine: str
    cases: dict[str, CaseResult] = field(default_factory=dict)
    seconds: float = 0.0  # wall time, from starting pytest to its end

    @property
    def counts(self) -> Counter[Outcome]:
        """How many cases came to each outcome."""
        return Counter(case.outcome for case in self.cases.values())

    def with_outcome(self, *outcomes: Outcome) -> list[CaseResult]:
        """The cases that came to one of `outcomes`, in the order they were found."""
        return [case for case in self.cases.values() if case.outcome in outcomes]

    def to_json(self) -> dict[str, Any]:
        """Return this as JSON has it."""
        return {
            "build": self.build,
            "machine": self.machine,
            "seconds": round(self.seconds, 3),
            "summary": {outcome.value: self.counts[outcome] for outcome in Outcome},
            "cases": [case.to_json() for case in self.cases.values()],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        cases = keyed(CaseResult.from_json(case) for case in data["cases"])
        return cls(data["build"], data["machine"], cases, data["seconds"])


def keyed(cases: Iterable[CaseResult]) -> dict[str, CaseResult]:
    """Cases by id, in the order of their ids: xdist reports them as they end."""
    return {case.id: case for case in sorted(cases, key=lambda case: case.id)}
