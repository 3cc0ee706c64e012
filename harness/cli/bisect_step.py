"""`xenverify bisect-step`: one step, for those who drive `git bisect run` themselves."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from harness.cli import options as opt
from harness.cli.display import Display, page
from harness.errors import ExitCode, HarnessError, XenFailure

Xen = Annotated[str, typer.Option("--xen", metavar="REF", help="The Xen: by default what is here.")]
CasePaths = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CASES]...", help="Files, folders or pytest ids; all without any."),
]
BadIs = Annotated[
    list[str] | None,
    typer.Option(
        "--bad-is", metavar="WORDS",
        help="Only this is bad: failed, crashed, hung, or words of the failure that is printed; "
        "any other failure is skipped.",
    ),
]  # fmt: skip
BuildCounts = Annotated[
    bool, typer.Option("--build", help="No cases: a build or boot that fails is bad.")
]
BootCounts = Annotated[
    bool, typer.Option("--boot", help="No cases: a boot that fails is bad; a build is skipped.")
]
Fixed = Annotated[
    bool, typer.Option("--fixed", help="Search for the fix: passing is 1, failing 0.")
]


def command(
    cases: CasePaths = None,
    xen: Xen = ".",
    bad_is: BadIs = None,
    build: BuildCounts = False,
    boot: BootCounts = False,
    fixed: Fixed = False,
    with_: opt.With = None,
    keyword: opt.Keyword = "",
    marker: opt.Marker = "",
    machine: opt.MachineName = opt.DEFAULT_MACHINE,
    release: opt.Release = False,
    kconfig: opt.Kconfig = None,
    cc: opt.Compiler = None,
    no_sandbox: opt.NoSandbox = False,
    quiet: opt.Quiet = False,
) -> int:
    """Judge the Xen in this directory for `git bisect run`.

    \b
    git bisect start BAD GOOD -- xen Config.mk config
    git bisect run xenverify bisect-step -k stale_gfn
    git bisect run xenverify bisect-step testcases/batch --bad-is crashed

    Exit codes, as git wants them: 0 good; 1 bad; 125 it does not build or boot, or fails in another
    way; 128 and up: stop, something is wrong with the harness, the machine or this command line.

    `xenverify bisect` does the same with both cores, a memory, and proof.
    """
    from harness.bisection.cases import collect
    from harness.bisection.evaluation import Setting, Task, evaluate
    from harness.bisection.memory import Memory
    from harness.bisection.samples import Reached
    from harness.bisection.step import Rule, judge
    from harness.cache import default_cache
    from harness.machines import load_machine
    from harness.sides import Side, read_changes
    from harness.suites import Selection

    load_machine(machine)
    shared = opt.Shared(machine, release, tuple(kconfig or ()), cc, no_sandbox)
    options = shared.build_options()
    changes = list(with_ or ())
    cache = default_cache()
    with Display(quiet=quiet) as display:
        chosen = () if build or boot else collect(Selection(tuple(cases or ()), keyword, marker))
        display.say(f"looking at {xen}")
        series = read_changes(changes, Side(xen).tree(cache), cache, stdin=opt.read_stdin(changes))
        diffs = tuple(patch.diff for one in series for patch in one.patches)
        setting = Setting(options, machine, diffs)
        try:
            sample = evaluate(Task(xen, "", setting, chosen, cache=str(cache.root)))
        except XenFailure as failure:  # not one that a case or the boot accounts for
            raise HarnessError(f"Xen went away between two cases: {failure}") from failure
        if sample.reached is Reached.RAN:
            memory = Memory(cache, setting.describe())
            sample = memory.keep(str(sample.build["identity"]), sample).only(chosen)
    step, reason = judge(sample, Rule(tuple(bad_is or ()), build, boot, fixed))
    page().print(Text(f"{step.name.lower()}  {reason}"), soft_wrap=True)
    return step


def for_git(code: int) -> int:
    """Return an exit code by which git stops: no fault may look like an answer."""
    from harness.bisection.step import Step

    return Step.INTERRUPTED if code == ExitCode.INTERRUPTED else Step.STOP
