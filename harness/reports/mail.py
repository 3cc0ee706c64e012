"""A comparison in, plain text out that is fit for a reply on the list: 72 columns, no colour."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from harness.coverage.changed import MOST_NAMED as NEVER_NAMED_IN_SUMMARY
from harness.coverage.verdict import Lines
from harness.outcomes import CaseResult
from harness.reports import tables
from harness.reports.table import rest, tally
from harness.verdicts import CaseVerdict, Comparison, Question, Verdict

WIDTH = 72
# Of the changed lines that never ran: as many as a reader of the list goes through.
MOST_NAMED = 24
TOLD = (Verdict.REGRESSED, Verdict.FIXED, Verdict.FLAKY, Verdict.STILL_FAILING)


def compose(question: Question, comparison: Comparison, lines_ran: Lines | None = None) -> str:
    """Return the text of mail.txt: what was asked, built and seen, and how to repeat it."""
    lines = [
        *_wrap(f"{comparison.conclusion}: {tally(comparison)}."),
        "",
        *_facts(question, comparison),
    ]
    if not comparison.identical:
        for verdict in TOLD:
            lines += _told(verdict, comparison.with_verdict(verdict), question)
        if counted := rest(comparison):
            lines += ["", *_wrap(counted + ".")]
        lines += _tables(question, comparison)
        lines += _lines(lines_ran)
    if comparison.errors:
        lines += ["", *_wrap("Not judged, by a fault of the harness or its machine:")]
        failed = dict.fromkeys(case.id for case in comparison.errors)
        lines += [line for case in failed for line in _case(case, 2)]
    lines += ["", "To repeat:", "", *_command(question.command)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def compose_steps(names: Sequence[str], steps: Sequence[Comparison]) -> str:
    """Return what each patch of a series did, the one before it being what it is compared with."""
    lines = ["", "Patch by patch:"]
    for name, step in zip(names, steps, strict=True):
        lines += ["", *_wrap(name, 2), *_wrap(tally(step), 4)]
        lines += [
            line
            for case in step.with_verdict(Verdict.REGRESSED)
            for line in _case(f"regressed: {case.id}", 4)
        ]
    return "\n".join(lines) + "\n"


def _facts(question: Question, comparison: Comparison) -> Iterator[str]:
    builds = ((question.before, comparison.before), (question.after, comparison.after))
    facts = [
        *question.facts,
        *(("built", f"{name}: {describe_build(suite.build)}") for name, suite in builds),
    ]
    machine = f"{comparison.after.machine} (QEMU), every case on a freshly booted Xen"
    facts.append(("machine", machine))
    width = max(len(name) for name, _ in facts) + 2
    width = min(width, 24)
    for name, text in facts:
        start = f"{name}:".ljust(width)
        if len(start) > width:
            yield start
            start = " " * width
        yield from textwrap.wrap(
            text,
            WIDTH,
            initial_indent=start,
            subsequent_indent=" " * width,
            break_long_words=False,
            break_on_hyphens=False,
        )


def describe_build(build: dict[str, Any]) -> str:
    """Return one line about a build, from what Build.describe() says of it."""
    parts = [
        f"Xen {build.get('version', '?')}",
        f"build-id {str(build.get('build_id', ''))[:12]}",
        "debug=y" if build.get("debug", True) else "debug=n",
        compiler_name(str(build.get("compiler", ""))),
        str(build.get("arch", "arm64")),
        "built in a sandbox" if build.get("sandboxed") else "built without a sandbox",
    ]
    return ", ".join(part for part in parts if part)


def compiler_name(description: str) -> str:
    """Return "gcc 12.2.0" of what compiler and linker say of themselves."""
    found = re.search(r"(gcc|clang)\b[^,]*?(\d+(?:\.\d+)+)(?=,|$| *\()", description)
    return f"{found[1]} {found[2]}" if found else description


def _told(verdict: Verdict, cases: list[CaseVerdict], question: Question) -> Iterator[str]:
    if not cases:
        return
    yield ""
    yield f"{verdict.capitalize()}:"
    for case in cases:
        yield ""
        yield from _case(case.id, 2)
        for name, result in ((question.before, case.before), (question.after, case.after)):
            yield from _wrap(f"{name}: {_said(result)}", 4)
        if case.note:
            yield from _wrap(case.note, 4)


def _tables(question: Question, comparison: Comparison) -> Iterator[str]:
    found = tables.sections(question, comparison)
    if not found:
        return
    yield ""
    yield "Xen's own tables (page owners, counts, P2M, recorded GFNs):"
    for side in dict.fromkeys(name for name, _ in found):
        yield ""
        yield from _wrap(f"{side}:", 2)
        for _, what in (pair for pair in found if pair[0] == side):
            yield from _wrap(what, 4)


def _lines(ran: Lines | None) -> Iterator[str]:
    if ran is None or not ran.summary:
        return
    yield ""
    yield "Lines of the change:"
    yield ""
    yield from _wrap(ran.summary, 2)
    if len(ran.never_ran) > NEVER_NAMED_IN_SUMMARY:
        yield ""
        for line in ran.never_ran[:MOST_NAMED]:
            yield from _wrap(f"never ran: {line}", 4)
        if (more := len(ran.never_ran) - MOST_NAMED) > 0:
            yield from _wrap(f"and {more} more, which verdict.json names", 4)


def _said(result: CaseResult | None) -> str:
    if result is None:
        return "not run"
    return f"{result.outcome}: {result.message}" if result.message else str(result.outcome)


def _wrap(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2 if indent else 0),
        break_on_hyphens=False,
    )


def _case(text: str, indent: int) -> list[str]:
    """A case's id: what does not fit on the line begins the next at its "::", to be read whole."""
    whole = " " * indent + text
    return [whole] if len(whole) <= WIDTH else _wrap(text.replace("::", " ::"), indent)


def _command(command: str) -> list[str]:
    """A command in as few lines as it takes, continued as a shell reads it."""
    lines = ["  "]
    for word in map(shlex.quote, shlex.split(command)):
        if len(lines[-1]) + len(word) > WIDTH - 3 and lines[-1].strip():
            lines.append("    ")
        lines[-1] += word + " "
    return [line + "\\" for line in lines[:-1]] + lines[-1:]
