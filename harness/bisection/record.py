"""Findings in, the report as values for JSON out.

Comes in: `Findings`, what report.py needs to tell them, and what it took. Goes out: a dict with
everything: of each commit that was looked at, of each case at the ends and at the answer.
"""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import asdict
from typing import Any

from harness.bisection.campaign import Finding, Findings
from harness.bisection.history import Commit
from harness.bisection.laboratory import Effort
from harness.bisection.report import BUILD_AND_BOOT, MARKED, Context, again, confidence
from harness.bisection.samples import Reached, Sample


def describe(
    findings: Findings, context: Context, effort: Effort, seconds: float
) -> dict[str, Any]:
    """Return the report as JSON has it."""
    history = context.history
    return {
        "range": {
            "repository": context.place.removeprefix("git:"),
            "old": _commit(history.describe(history.old)) | {"named": context.old_name},
            "new": _commit(history.describe(history.new)) | {"named": context.new_name},
            "commits": len(history.commits),
            "distinct": len(history.graph.nodes),
            "sharing": dict(Counter(history.reasons.values())),
        },
        "told_apart_by": str(context.aspect),
        "ends": {"old": _sample(findings.old), "new": _sample(findings.new)},
        "untrusted": dict(findings.difference.doubts),
        "findings": [_finding(one, context) for one in findings.findings],
        "command": context.command,
        "effort": {**asdict(effort), "seconds": round(seconds, 1)},
    }


def _commit(commit: Commit) -> dict[str, Any]:
    return {
        "commit": commit.id,
        "subject": commit.subject,
        "author": commit.author,
        "date": commit.date,
    }


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "commit": sample.commit,
        "reached": str(sample.reached),
        "reason": sample.reason,
        "evidence": list(sample.evidence),
        "fingerprint": sample.fingerprint,
        "cases": {
            case: {
                "outcomes": [str(run.outcome) for run in runs],
                "message": next((run.message for run in runs if run.message), ""),
                "crash": list(next((run.crash for run in runs if run.crash), ())),
                "console": runs[0].console,
            }
            for case, runs in sample.cases.items()
        },
    }


def _finding(finding: Finding, context: Context) -> dict[str, Any]:
    history, answer = context.history, finding.answer
    seen = dict(finding.steps)
    return {
        "case": finding.criterion.case or BUILD_AND_BOOT,
        "from": finding.criterion.good,
        "to": finding.criterion.bad,
        "certain": answer.certain,
        "confidence": round(confidence(finding), 4),
        "fork_point_is_like_new": answer.bad_base,
        "commit": _commit(history.describe(answer.first)) if answer.certain else None,
        "suspects": [
            _commit(history.describe(commit))
            | {
                "why": "not tried: between two that fail alike"
                if commit in answer.presumed
                else seen[commit].reason
                if commit in seen
                else ""
            }
            for commit in answer.suspects
        ],
        "below": list(answer.below),
        "inherited": list(answer.inherited),
        "steps": [
            _commit(history.describe(commit))
            | {
                "mark": MARKED[step.mark],
                "why": step.reason,
                "same_binary_as": finding.twins.get(commit),
                "by_hand": shlex.join(again(Reached.RAN, commit, finding, context)),
            }
            for commit, step in finding.steps
        ],
        "before": [_sample(sample) for sample in finding.good],
        "after": _sample(finding.bad),
        "reverted": None
        if finding.revert is None
        else {"outcome": finding.revert.outcome, "words": finding.revert.words},
    }
