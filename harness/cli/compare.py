"""`xenverify compare`: two Xens."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import options as opt
from harness.cli.display import Display
from harness.errors import ExitCode

Before = Annotated[str, typer.Argument(metavar="REF", help="The Xen before.")]
After = Annotated[str, typer.Argument(metavar="REF", help="The Xen after, which is judged.")]
# A reference longer than this heads no column.
NAME_WIDTH = 24


def command(
    before: Before,
    after: After,
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
    """Say what one Xen does that another did not.

    \b
    xenverify compare debian:bullseye debian:bookworm
    xenverify compare git:~/src/xen@RELEASE-4.19.0 git:~/src/xen@staging -k grant
    xenverify compare git:~/src/xen@HEAD ~/src/xen
    """
    from harness.cache import default_cache
    from harness.cli.judged import Named, Terms, conclude
    from harness.machines import load_machine
    from harness.reports.folder import results_folder
    from harness.sides import Side
    from harness.suites import Selection
    from harness.verdicts import Question

    load_machine(machine)
    shared = opt.Shared(machine, release, tuple(kconfig or ()), cc, no_sandbox)
    shared.build_options()
    watch = opt.watching(paranoid, no_tables, no_lines)
    terms = Terms(shared, Selection(tuple(cases or ()), keyword, marker), jobs, watch)
    cache = default_cache()
    names = [before, after]
    if before == after or max(map(len, names)) > NAME_WIDTH:
        names = ["before", "after"]
    with results_folder(output) as folder, Display(quiet=quiet) as display:
        sides = [Side(before), Side(after)]
        trees = [side.tree(cache, display.say) for side in sides]
        stages = [Named(*one) for one in zip(names, trees, sides, strict=True)]
        facts = [
            (label, f"{one.side.reference}  {one.tree.label}")
            for label, one in zip(("before", "after"), stages, strict=True)
        ]
        question = Question(names[0], names[1], tuple(facts), opt.repeating())
        return conclude(stages, question, terms, cache, folder, display)
