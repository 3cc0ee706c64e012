"""A comparison in, verdict.json out: for programs, and for reading again."""

from __future__ import annotations

from typing import Any

from harness.outcomes import CaseResult
from harness.verdicts import CaseVerdict, Comparison, Question, Verdict


def describe(question: Question, comparison: Comparison) -> dict[str, Any]:
    """Return what verdict.json holds.

    `before` and `after` are the builds; `cases` a list with `id`, the two outcomes and the verdict;
    `summary` a count for each verdict, those that did not occur included.
    """
    return {
        "question": dict(question.facts),
        "command": question.command,
        "conclusion": comparison.conclusion,
        "exit_code": int(comparison.exit_code),
        "identical": comparison.identical,
        "before": _side(question.before, comparison.before.build, comparison.before.machine),
        "after": _side(question.after, comparison.after.build, comparison.after.machine),
        "cases": [_case(case) for case in comparison.cases],
        "summary": {verdict.value: comparison.summary[verdict] for verdict in Verdict},
    }


def _side(name: str, build: dict[str, Any], machine: str) -> dict[str, Any]:
    return {"name": name, **build, "machine": machine}


def _case(case: CaseVerdict) -> dict[str, Any]:
    return {
        "id": case.id,
        "before": case.before.outcome.value if case.before else None,
        "after": case.after.outcome.value if case.after else None,
        "verdict": case.verdict.value,
        "note": case.note,
        "evidence": {
            side: _evidence(result)
            for side, result in (("before", case.before), ("after", case.after))
            if result is not None and result.message
        },
    }


def _evidence(result: CaseResult) -> dict[str, Any]:
    return {
        "message": result.message,
        "signature": result.signature,
        "operations": list(result.operations),
        "directory": result.directory,
        "again": result.again,
    }
