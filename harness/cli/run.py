"""`xenverify run`: the cases on one Xen."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from harness.cli import options as opt
from harness.cli.display import Display, page
from harness.errors import ExitCode

Xen = Annotated[str, typer.Option("--xen", metavar="REF", help="The Xen to run them on.")]
CasePaths = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CASES]...", help="Files, folders or pytest ids; all without any."),
]


def command(
    xen: Xen,
    cases: CasePaths = None,
    with_: opt.With = None,
    reverse: opt.Reverse = False,
    keyword: opt.Keyword = "",
    machine: opt.MachineName = opt.DEFAULT_MACHINE,
    release: opt.Release = False,
    kconfig: opt.Kconfig = None,
    cc: opt.Compiler = None,
    no_sandbox: opt.NoSandbox = False,
    jobs: opt.Jobs = 0,
    output: opt.Output = None,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Run cases on one Xen; exit code 1 if any fails.

    \b
    xenverify run --xen debian:bookworm
    xenverify run --xen ~/src/xen testcases/grant_table
    xenverify run --xen debian:bookworm --with fix.patch -k second_map
    """
    from harness.builds import build_all
    from harness.cache import default_cache
    from harness.cli import present
    from harness.machines import load_machine
    from harness.outcomes import Outcome
    from harness.reports.folder import results_folder
    from harness.reports.junit import write_junit
    from harness.sides import Side
    from harness.suites import Selection, Suite, run_suite

    load_machine(machine)
    shared = opt.Shared(machine, release, tuple(kconfig or ()), cc, no_sandbox)
    options = shared.build_options()
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
        again = shlex.join(["xenverify", "run", *side.words(), *shared.words()])
        selection = Selection(tuple(cases or ()), keyword)
        suite = Suite(build, machine, selection, folder, again, opt.cores(jobs))
        result = run_suite(suite, display.hear)
        write_junit(folder / "junit.xml", result, tree.label)
    present.show_suite(console, result, folder)
    if any(outcome.blames_xen for outcome in result.counts):
        return ExitCode.REGRESSED
    return ExitCode.HARNESS_FAILED if result.counts[Outcome.ERROR] else ExitCode.OK
