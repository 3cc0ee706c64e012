"""`xenverify run`: the cases on one Xen."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options as opt
from harness.cli.display import Display, page
from harness.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.builds import Build
    from harness.cache import Cache
    from harness.coverage.lines import Line
    from harness.coverage.selecting import Reach

CASES_SHOWN = 12

Xen = Annotated[str, typer.Option("--xen", metavar="REF", help="The Xen to run them on.")]
CasePaths = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CASES]...", help="Files, folders or pytest ids; all without any."),
]
ReachedLine = Annotated[
    str,
    typer.Option(
        "--lines",
        metavar="FILE:LINE",
        help="Only cases that reach this line of Xen, as far as known.",
    ),
]


def command(
    xen: Xen,
    cases: CasePaths = None,
    with_: opt.With = None,
    reverse: opt.Reverse = False,
    keyword: opt.Keyword = "",
    marker: opt.Marker = "",
    machine: opt.MachineName = opt.DEFAULT_MACHINE,
    release: opt.Release = False,
    kconfig: opt.Kconfig = None,
    cc: opt.Compiler = None,
    no_sandbox: opt.NoSandbox = False,
    line: ReachedLine = "",
    jobs: opt.Jobs = 0,
    paranoid: opt.Paranoid = False,
    no_tables: opt.NoTables = False,
    no_lines: opt.NoLines = False,
    output: opt.Output = None,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Run cases on one Xen; exit code 1 if any fails.

    \b
    xenverify run --xen debian:bookworm
    xenverify run --xen ~/src/xen testcases/grant_table
    xenverify run --xen debian:bookworm --with fix.patch -k second_map
    xenverify run --xen debian:bookworm --lines xen/arch/arm/mm.c:1400

    What each case reaches is learnt when it runs; with --lines, cases that never ran on this Xen
    are run as well.
    """
    from harness.builds import build_all
    from harness.cache import default_cache
    from harness.cli import present
    from harness.coverage.gathering import gather, remember
    from harness.machines import load_machine
    from harness.outcomes import Outcome
    from harness.reports.folder import results_folder
    from harness.reports.junit import write_junit
    from harness.sides import Side
    from harness.suites import Selection, Suite, run_suite

    load_machine(machine)
    shared = opt.Shared(machine, release, tuple(kconfig or ()), cc, no_sandbox)
    options = shared.build_options()
    watch = opt.watching(paranoid, no_tables, no_lines)
    wanted = _wanted_line(line, no_lines)
    changes = list(with_ or ())
    stdin = opt.read_stdin(changes)
    console, cache = page(), default_cache()
    with results_folder(output) as folder, Display(quiet=quiet) as display:
        side = Side(xen, tuple(opt.keep_stdin(changes, stdin, folder)), reverse)
        tree = side.tree(cache, display.say)
        (build,) = build_all([tree], options, cache, display.say)
        present.show_facts(console, [("on", f"{xen}  {tree.label}")])
        present.show_facts(console, [("with", change) for change in tree.changes])
        present.show_builds(console, ["xen"], [build])
        again = shlex.join(["xenverify", "run", *side.words(), *shared.words(), *watch])
        selection = Selection(tuple(cases or ()), keyword, marker)
        root = selection.root
        left_out = reach_of(wanted, build, cache, root).others if wanted else ()
        suite = Suite(build, machine, selection, folder, again, opt.cores(jobs), watch, left_out)
        result = run_suite(suite, display.hear)
        remember(cache, build.build_id, gather(result.cases.values()), root)
        write_junit(folder / "junit.xml", result, tree.label)
    reached = _tell_reach(reach_of(wanted, build, cache, root)) if wanted else ()
    present.show_suite(console, result, folder, lines=reached)
    if any(outcome.blames_xen for outcome in result.counts):
        return ExitCode.REGRESSED
    return ExitCode.HARNESS_FAILED if result.counts[Outcome.ERROR] else ExitCode.OK


def _wanted_line(text: str, no_lines: bool) -> Line | None:
    from harness.coverage.selecting import parse_line

    if text and no_lines:
        raise UsageError("--lines and --no-lines exclude each other")
    return parse_line(text) if text else None


def reach_of(line: Line, build: Build, cache: Cache, root: Path) -> Reach:
    """Say which cases below `root` reach a line, by all that ever ran on this very Xen."""
    from harness.coverage.gathering import recall
    from harness.coverage.lines import load_lines
    from harness.coverage.selecting import reach

    table = load_lines(build.syms, build.build_id, cache)
    return reach(table, recall(cache, build.build_id, root), line)


def _tell_reach(found: Reach) -> list[str]:
    lines = [found.summary, *found.cases[:CASES_SHOWN]]
    left_out = len(found.cases) - CASES_SHOWN
    return lines + ([f"and {left_out} more"] if left_out > 0 else [])
