"""A comparison in, verdict.json out: for programs, and for reading again."""

from __future__ import annotations

from typing import Any

from harness.outcomes import CaseResult
from harness.reports import tables
from harness.verdicts import CaseVerdict, Comparison, Question, Verdict


def describe(question: Question, comparison: Comparison) -> dict[str, Any]:
    """Return what verdict.json holds.

    `before` and `after` are the builds; `cases` a list with `id`, the two outcomes and the verdict;
    `tables` is what was wrong in Xen's own tables on each side; `summary` a count for each verdict,
    those that did not occur included. `lines`, which is added by whoever knows the trees, says
    which lines of the change ran.
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
        "tables": {
            "before": list(tables.describe(comparison.before)),
            "after": list(tables.describe(comparison.after)),
        },
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
        "crash": list(result.crash),
        "tables": list(result.violations),
        "directory": result.directory,
        "again": result.again,
    }
