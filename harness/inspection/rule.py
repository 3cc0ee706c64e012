"""A function that looks for contradictions in, a named rule of the physmap sanitizer out.

Knows no rule itself; invariants.py has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.inspection.evidence import Evidence, Violation

Check = Callable[[Evidence], Iterable[Violation]]


@dataclass(frozen=True)
class Rule:
    """One invariant."""

    name: str
    check: Check
    #: Why a Xen without 71320946d5 is known to break it; empty where it holds there as well.
    excuse_before: str = ""

    @property
    def why(self) -> str:
        """Return the rule's reason, from its docstring."""
        return " ".join((self.check.__doc__ or "").split())


RULES: dict[str, Rule] = {}


def rule(*, excuse_before: str = "") -> Callable[[Check], Check]:
    """Register a rule under its function's name."""

    def register(check: Check) -> Check:
        name = check.__name__
        RULES[name] = Rule(name, check, excuse_before)
        return check

    return register
