"""Results as a person reads them: what was compared, built, changed, and how sure one may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.builds import Build
from harness.changes import Series
from harness.cli.options import relative
from harness.coverage.verdict import Lines
from harness.outcomes import CaseResult, Outcome, SuiteResult
from harness.reports import table, tables
from harness.reports.failure import headline, tell
from harness.reports.mail import compiler_name
from harness.verdicts import Comparison, Question, Verdict

LABEL_WIDTH = 9
# A regression is the only red on the page.
STYLES = {Verdict.REGRESSED: "bold red", Verdict.FIXED: "green", Verdict.FLAKY: "yellow"}
CONCLUSION_STYLES = {"REGRESSED": "bold red", "VERIFIED": "bold green"}
FAILURES_SHOWN = 10


def show_facts(console: Console, facts: Sequence[tuple[str, str]]) -> None:
    """Print labelled lines; a label that repeats is printed once."""
    last = ""
    for label, text in facts:
        shown = "" if label == last else label
        console.print(Text(shown.ljust(LABEL_WIDTH), style="bold") + Text(text), soft_wrap=True)
        last = label


def change_line(series: Series) -> str:
    """Return one line about a change: `v7 "subject", 2 patches, 7 files, +87 -66`."""
    version = f"v{series.version} " if series.version > 1 else ""
    subject = f'"{series.subject}"' if series.subject else series.origin
    parts = [
        version + subject,
        _count(len(series.patches), "patch", "patches"),
        _count(len(series.files), "file", "files"),
        f"+{series.added} -{series.removed}",
    ]
    return ", ".join(parts)


def change_notes(series: Series) -> list[str]:
    """Return what had to be mended or guessed to read a change."""
    return [*series.notes, *(note for patch in series.patches for note in patch.notes)]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def build_line(build: Build) -> str:
    """Return one line about a build."""
    took = "cached" if build.cached else f"{build.seconds:.1f} s"
    debug = "debug=y" if build.options.debug else "debug=n"
    sandbox = "sandboxed" if build.sandboxed else "no sandbox"
    parts = (
        f"Xen {build.tree.version}".ljust(14),
        f"{build.build_id[:10]}…",
        took.ljust(7),
        debug,
        build.options.arch,
        sandbox,
        compiler_name(build.compiler),
    )
    return "  ".join(parts)


def show_builds(console: Console, names: Sequence[str], builds: Sequence[Build]) -> None:
    """Print a line for each build."""
    width = min(max(map(len, names)), 40)
    lines = [
        ("builds", f"{name[:40].ljust(width)}  {build_line(build)}")
        for name, build in zip(names, builds, strict=True)
    ]
    show_facts(console, lines)


def show_comparison(
    console: Console,
    question: Question,
    comparison: Comparison,
    folder: Path,
    lines: Lines | None = None,
) -> None:
    """Print the verdict table, every regression's evidence, and the conclusion."""
    seconds = max(comparison.before.seconds, comparison.after.seconds)
    count = len(comparison.cases)
    console.print(f"{'cases'.ljust(LABEL_WIDTH)}{count} on each side, {seconds:.1f} s\n")
    rows = table.rows(comparison)
    if rows:
        console.print(_verdict_table(question, rows))
    if more := table.rest(comparison):
        console.print(more)
    worse = [case.after for case in comparison.with_verdict(Verdict.REGRESSED) if case.after]
    errors = {case.id: case for case in comparison.errors}  # often the same on both sides
    show_failures(console, [*worse, *errors.values()])
    console.print()
    _show_insight(console, question, comparison, lines)
    style = CONCLUSION_STYLES.get(comparison.conclusion, "bold")
    console.print(
        Text.assemble(
            (comparison.conclusion, style),
            f"  {table.tally(comparison)}",
            (f"    results in {relative(folder)}/", "dim"),
        ),
        soft_wrap=True,
    )


def _show_insight(
    console: Console, question: Question, comparison: Comparison, lines: Lines | None
) -> None:
    """Print what Xen's own tables said on each side, and which lines of the change ran."""
    if comparison.identical:
        return
    found = tables.sections(question, comparison)
    width = max((len(name) for name, _ in found), default=0) + 2
    last = ""
    facts: list[tuple[str, str]] = []
    for name, what in found:
        facts.append(("tables", ("" if name == last else f"{name}:").ljust(width) + what))
        last = name
    if lines is not None and lines.summary:
        facts.append(("lines", lines.summary))
    show_facts(console, facts)


def _verdict_table(question: Question, rows: Sequence[table.Row]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in ("area", "case"):
        grid.add_column(header, overflow="fold")
    for header in (question.before, question.after, "verdict"):
        grid.add_column(header, overflow="fold")
    noted = any(row.note for row in rows)
    if noted:
        grid.add_column("")
    for row in rows:
        cells = [row.area, row.name, row.before, row.after, row.verdict.value]
        cells += [row.note] if noted else []
        grid.add_row(*(Text(cell, style=STYLES.get(row.verdict, "")) for cell in cells))
    return grid


def show_steps(console: Console, names: Sequence[str], steps: Sequence[Comparison]) -> None:
    """Print what each patch of a series did."""
    console.print("\nPatch by patch:", style="bold")
    for name, step in zip(names, steps, strict=True):
        bad = step.with_verdict(Verdict.REGRESSED)
        console.print(Text(f"  {name}", style="bold red" if bad else ""), soft_wrap=True)
        console.print(f"      {table.tally(step)}", soft_wrap=True)
        for case in bad:
            console.print(f"      regressed: {case.id}", soft_wrap=True)


def show_failures(console: Console, cases: Sequence[CaseResult]) -> None:
    """Print the evidence of each case, the first ones whole."""
    for case in cases[:FAILURES_SHOWN]:
        console.print(Text("\n" + headline(case), style="bold red"), soft_wrap=True)
        for line in tell(case):
            console.print("  " + line, soft_wrap=True)
    for case in cases[FAILURES_SHOWN:]:
        console.print(Text(headline(case), style="bold red"), soft_wrap=True)


def show_suite(
    console: Console, result: SuiteResult, folder: Path, *, lines: Sequence[str] = ()
) -> None:
    """Print what one suite came to; `lines` say who reaches a line that was asked for."""
    show_failures(console, [case for case in result.cases.values() if _worth_telling(case)])
    counts = ", ".join(
        f"{result.counts[outcome]} {outcome}" for outcome in Outcome if result.counts[outcome]
    )
    bad = any(outcome.blames_xen for outcome in result.counts)
    word = Text("FAILING" if bad else "PASSED", style="bold red" if bad else "bold green")
    if not bad and result.counts[Outcome.ERROR]:
        word = Text("UNDECIDED", style="bold")
    rest = f"  {counts} in {result.seconds:.1f} s"
    console.print()
    show_facts(console, [("tables", found) for found in tables.describe(result)])
    show_facts(console, [("lines", line) for line in lines])
    console.print(
        word + Text(rest) + Text(f"    results in {relative(folder)}/", style="dim"), soft_wrap=True
    )


def _worth_telling(case: CaseResult) -> bool:
    return case.outcome.blames_xen or case.outcome is Outcome.ERROR
