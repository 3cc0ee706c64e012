"""`xenverify bisect`: the commit that changed what Xen does."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from harness.cli import options as opt
from harness.cli.display import page
from harness.errors import ExitCode, UsageError

HEADLINES = ("COMMIT", "ONE OF", "FOUND NOTHING")
_ENDS = "Between which commits, and by what"
_WHERE = "Where commits are looked at"

Good = Annotated[
    str, typer.Option("--good", metavar="REF", help="A Xen as it should be.", rich_help_panel=_ENDS)
]
Bad = Annotated[
    str, typer.Option("--bad", metavar="REF", help="A Xen as it is not.", rich_help_panel=_ENDS)
]
CasePaths = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CASES]...", help="Files, folders or pytest ids; all without any."),
]
Repository = Annotated[
    str,
    typer.Option(
        "--repo", metavar="PATH-or-URL", rich_help_panel=_ENDS,
        help="The repository, so that REF is a revision in it.",
    ),
]  # fmt: skip
Fixed = Annotated[
    bool,
    typer.Option(
        "--fixed", help="Find the commit that fixed it: bad is older.", rich_help_panel=_ENDS
    ),
]
Signature = Annotated[
    bool,
    typer.Option(
        "--signature", rich_help_panel=_ENDS,
        help="Two different failures are not the same bug: compare messages and crashes, too.",
    ),
]  # fmt: skip
BootOnly = Annotated[
    bool,
    typer.Option("--boot", help="No cases: whether it builds and boots.", rich_help_panel=_ENDS),
]
BootTime = Annotated[
    bool, typer.Option("--boot-time", help="No cases: how long it boots.", rich_help_panel=_ENDS)
]
WorkersNamed = Annotated[
    str,
    typer.Option(
        "--workers", metavar="WHERE", rich_help_panel=_WHERE,
        help="A Dask scheduler (tcp://HOST:PORT), or hosts for ssh (HOST,HOST), with the harness "
        "and the repository where they are here; a URL for --repo spares the latter.",
    ),
]  # fmt: skip
AtOnce = Annotated[
    int,
    typer.Option(
        "--jobs", "-j", min=0, rich_help_panel=_WHERE,
        help="Commits to look at at once on this machine; 0: as many as there are cores.",
    ),
]  # fmt: skip


def command(
    good: Good,
    bad: Bad,
    cases: CasePaths = None,
    repo: Repository = "",
    fixed: Fixed = False,
    signature: Signature = False,
    boot_only: BootOnly = False,
    boot_time: BootTime = False,
    with_: opt.With = None,
    keyword: opt.Keyword = "",
    marker: opt.Marker = "",
    machine: opt.MachineName = opt.DEFAULT_MACHINE,
    release: opt.Release = False,
    kconfig: opt.Kconfig = None,
    cc: opt.Compiler = None,
    no_sandbox: opt.NoSandbox = False,
    workers: WorkersNamed = "",
    jobs: AtOnce = 0,
    output: opt.Output = None,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Find the commit that changed what Xen does.

    \b
    xenverify bisect --repo ~/src/xen --good RELEASE-4.16.0 --bad staging -k grant
    xenverify bisect --repo ~/src/xen --fixed --bad RELEASE-4.16.0 --good RELEASE-4.17.0
    xenverify bisect --repo ~/src/xen --good v1 --bad v2 --boot
    xenverify bisect --repo ~/src/xen --good v1 --bad v2 --with build-fix.patch

    Both ends are run first, three times, and must differ; every case in which they do is searched
    for. What was seen is remembered: an interrupted or repeated search goes on where it was.

    Exit code 0 if every case has its commit, 1 if for one there is only a range or nothing.
    """
    from harness.bisection import record, report
    from harness.bisection.question import Question, answer
    from harness.bisection.samples import Aspect
    from harness.cache import default_cache
    from harness.cli.searching import SearchView
    from harness.machines import load_machine
    from harness.reports.files import write_json, write_whole
    from harness.reports.folder import results_folder
    from harness.suites import Selection

    load_machine(machine)
    shared = opt.Shared(machine, release, tuple(kconfig or ()), cc, no_sandbox)
    changes = list(with_ or ())
    stdin = opt.read_stdin(changes)
    without_cases = boot_only or boot_time
    if without_cases and (cases or keyword or marker):
        raise UsageError("--boot and --boot-time run no cases", advice="Leave the cases out.")
    if signature and boot_time:
        raise UsageError("--signature compares failures, --boot-time seconds: choose one")
    old, new = (bad, good) if fixed else (good, bad)
    aspect = Aspect.OUTCOME
    if signature or boot_time:
        aspect = Aspect.SIGNATURE if signature else Aspect.BOOT_SECONDS
    with results_folder(output) as folder, SearchView(quiet=quiet) as view:
        named = opt.keep_stdin(changes, stdin, folder)
        question = Question(
            old,
            new,
            repo,
            None if without_cases else Selection(tuple(cases or ()), keyword, marker),
            aspect,
            fixed,
            shared.build_options(),
            machine,
            tuple(named),
            workers=workers,
            slots=opt.cores(jobs),
        )
        answered = answer(question, default_cache(), folder, view)
        words = [word for change in named for word in ("--with", change)] + shared.words()
        command = opt.repeating(dict(zip(changes, named, strict=True)))
        context = report.Context(
            answered.history, answered.place, old, new, tuple(words), command, aspect
        )
        lines = report.compose(answered.findings, context)
        cost = (answered.effort, answered.seconds)
        write_whole(folder / "bisect.txt", "\n".join(lines) + "\n")
        write_json(folder / "bisect.json", record.describe(answered.findings, context, *cost))
    console = page()
    for line in lines:
        style = "bold" if line.strip().startswith(HEADLINES) else ""
        console.print(Text(line, style=style), soft_wrap=True)
    console.print(f"\neffort   {report.cost(*cost)}", soft_wrap=True)
    console.print(Text(f"results in {opt.relative(folder)}/", style="dim"), soft_wrap=True)
    return ExitCode.OK if answered.findings.certain else ExitCode.REGRESSED
