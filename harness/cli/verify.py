"""`xenverify verify`: what a change does."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import options as opt
from harness.cli.display import Display
from harness.errors import ExitCode

Changes = Annotated[
    list[str],
    typer.Argument(metavar="CHANGE...", help="Patch, mbox, -, git:A..B or lore:ID; in order."),
]
On = Annotated[str, typer.Option("--on", metavar="REF", help="The Xen the change is for.")]
Each = Annotated[bool, typer.Option("--each", help="Judge after every patch of the series.")]
ReverseRemoval = Annotated[
    bool,
    typer.Option("--reverse", help="Judge the removal: before has the change, after has not."),
]


def command(
    changes: Changes,
    on: On,
    each: Each = False,
    reverse: ReverseRemoval = False,
    keyword: opt.Keyword = "",
    marker: opt.Marker = "",
    cases: opt.Cases = None,
    machine: opt.MachineName = opt.DEFAULT_MACHINE,
    release: opt.Release = False,
    kconfig: opt.Kconfig = None,
    cc: opt.Compiler = None,
    no_sandbox: opt.NoSandbox = False,
    jobs: opt.Jobs = 0,
    paranoid: opt.Paranoid = False,
    no_tables: opt.NoTables = False,
    no_lines: opt.NoLines = False,
    output: opt.Output = None,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Say what a change does to Xen: without it, and with it.

    Both sides are built, every case runs on both, and each case gets its verdict.

    \b
    xenverify verify fix.patch --on debian:bookworm
    xenverify verify v7-series.mbox --on git:~/src/xen@staging --each
    xenverify verify git:master..topic --on git:~/src/xen@master
    git diff | xenverify verify - --on git:.@HEAD
    xenverify verify fix.patch --reverse --on debian:bookworm

    Several changes are one series. With --reverse the removal is judged: it comes out of a tree
    that has it, or goes into one that has not and comes out again; either way before is with it.
    """
    from harness.cache import default_cache
    from harness.cli import present
    from harness.cli.judged import Named, Terms, conclude
    from harness.machines import load_machine
    from harness.reports.folder import results_folder
    from harness.sides import plan_change
    from harness.suites import Selection
    from harness.verdicts import Question

    load_machine(machine)  # whatever is wrong with the command line shows before anything is built
    shared = opt.Shared(machine, release, tuple(kconfig or ()), cc, no_sandbox)
    shared.build_options()
    watch = opt.watching(paranoid, no_tables, no_lines)
    terms = Terms(shared, Selection(tuple(cases or ()), keyword, marker), jobs, watch)
    stdin, cache = opt.read_stdin(changes), default_cache()
    sides = ("with", "without") if reverse else ("without", "with")
    with results_folder(output) as folder, Display(quiet=quiet) as display:
        named = opt.keep_stdin(changes, stdin, folder)
        change = plan_change(on, named, cache, reverse=reverse, progress=display.say)
        facts = [("change", present.change_line(one)) for one in change.series]
        facts += [("note", note) for one in change.series for note in present.change_notes(one)]
        facts.append(("on", f"{on}  {change.stages[0][1].label}"))
        if reverse:
            facts.append(("reverse", "judged is the removal: with the change, then without it"))
        stages = [
            Named(sides[0], change.stages[0][1], change.before),
            Named(sides[1], change.stages[-1][1], change.after),
        ]
        if each:
            stages = [
                Named(name, tree, side)
                for (name, tree), side in zip(change.stages, change.sides(folder), strict=True)
            ]
        command = opt.repeating(dict(zip(changes, named, strict=True)))
        question = Question(*sides, tuple(facts), command)
        return conclude(stages, question, terms, cache, folder, display)
