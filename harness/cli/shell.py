"""`xenverify shell`: a Python prompt with a live domain in its hand."""

from __future__ import annotations

import code
import contextlib
import importlib.util
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options as opt
from harness.cli.display import Display, page
from harness.cli.run import Xen
from harness.errors import ExitCode, UsageError, XenCrashed, XenFailure, XenverifyError

if TYPE_CHECKING:
    from harness.booting import Booted
    from harness.crash_reports import CrashReport

Scenario = Annotated[
    str, typer.Option("--scenario", metavar="NAME", help="Which domains Xen starts.")
]
Code = Annotated[str | None, typer.Option("-c", metavar="CODE", help="Run this and leave.")]


def command(
    xen: Xen,
    with_: opt.With = None,
    reverse: opt.Reverse = False,
    scenario: Scenario = "domu",
    statements: Code = None,
    machine: opt.MachineName = opt.DEFAULT_MACHINE,
    release: opt.Release = False,
    kconfig: opt.Kconfig = None,
    cc: opt.Compiler = None,
    no_sandbox: opt.NoSandbox = False,
) -> ExitCode:
    """Boot a Xen and give a Python prompt that holds it.

    The prompt has `host`, `domain`, every domain by name (d1, d2, dom0), `inspector` for what Xen
    itself recorded (inspector.physmap(d1)), and all that cases use.

    \b
    xenverify shell --xen debian:bookworm
    xenverify shell --xen ~/src/xen --scenario two_domus
    xenverify shell --xen debian:4.17 -c 'print(domain.xen_version())'
    """
    from harness.booting import boot
    from harness.builds import build_all
    from harness.cache import default_cache
    from harness.machines import load_machine
    from harness.scenarios import named
    from harness.sides import Side

    shared = opt.Shared(machine, release, tuple(kconfig or ()), cc, no_sandbox)
    options, cache = shared.build_options(), default_cache()
    board, domains = load_machine(machine), named(scenario)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xenverify-shell-")))
        with Display(quiet=statements is not None) as display:
            tree = Side(xen, tuple(with_ or ()), reverse).tree(cache, display.say)
            (build,) = build_all([tree], options, cache, display.say)
            display.say("booting")
            host = stack.enter_context(boot(build, board, domains, folder))
        if statements is not None:
            return execute(statements, host)
        names = namespace(host)
        _prompt(names, _banner(tree.version, host, names))
    return ExitCode.OK


def namespace(host: Booted) -> dict[str, Any]:
    """Return the names a prompt begins with: the vocabulary of the cases, and what is running."""
    from harness import vocabulary
    from harness.inspection import CannotInspect

    names = {name: value for name, value in vars(vocabulary).items() if name[0] != "_"}
    for domain in host.domains:
        names[f"d{domain.domid}" if domain.domid else "dom0"] = domain
    guests = [domain for domain in host.domains if domain.domid] or host.domains
    with contextlib.suppress(CannotInspect):  # host.inspector says why there is none
        names["inspector"] = host.inspector
    return {**names, "host": host, "domain": guests[0], "domains": guests}


def _banner(version: str, host: Booted, names: dict[str, Any]) -> str:
    plans = host.scenario.domains
    domains = ", ".join(
        f"{'d' if domid else 'dom'}{domid} is a {'domU' if domid else 'dom0'}"
        f" with {plan.memory_mib} MiB"
        for domid, plan in plans.items()
    )
    first = next(name for name, value in names.items() if value is names["domain"])
    return (
        f"Xen {version} booted in {host.boot_seconds:.2f} s; {domains}.\n"
        f"Try: {first}.add_to_physmap(SHARED_INFO, gfn={first}.hole_pages(1)[0])"
    )


def execute(statements: str, host: Booted) -> ExitCode:
    """Run statements; what Xen refuses or dies of is told, and is exit code 1.

    Raises UsageError for what is wrong with the statements themselves.
    """
    try:
        program = compile(statements, "<-c>", "exec")
    except SyntaxError as problem:
        text = (problem.text or "").strip()
        raise UsageError(f"what follows -c is no Python: {problem.msg}", evidence=[text]) from None
    try:
        exec(program, namespace(host))
    except XenverifyError:
        raise
    except XenCrashed as problem:
        report = crash_of(host)
        lines = report.render() if report is not None else [f"XenCrashed: {problem}"]
        page(stderr=True).print("\n".join(lines), soft_wrap=True)
        return ExitCode.REGRESSED
    except (OSError, AssertionError, XenFailure) as problem:
        page(stderr=True).print(f"{type(problem).__name__}: {problem}", soft_wrap=True)
        return ExitCode.REGRESSED
    except Exception as problem:
        raise UsageError(
            f"what follows -c fails: {type(problem).__name__}: {problem}",
            evidence=_places(problem, statements),
        ) from problem
    return ExitCode.OK


def crash_of(host: Booted) -> CrashReport | None:
    """Return what Xen died of, with its source."""
    from harness.attendance import crash_in

    return crash_in(host.directory / "console.log", host.syms)


def _places(problem: BaseException, statements: str) -> list[str]:
    """Return the lines on the way to where `problem` arose, the user's own first."""
    lines = statements.splitlines()
    frames = traceback.extract_tb(problem.__traceback__)[1:]
    return [
        f"{frame.filename}:{frame.lineno}  {frame.line or lines[(frame.lineno or 1) - 1].strip()}"
        for frame in frames
    ]


class Prompt(code.InteractiveConsole):
    """Python's own prompt, in which what Xen refuses is a line and not a traceback."""

    def showtraceback(self) -> None:
        """Print the exception that is being handled."""
        problem = sys.exception()
        host = self.locals["host"]
        report = crash_of(host) if isinstance(problem, XenCrashed) else None
        if report is not None:
            self.write("\n".join([*report.render(), ""]))
        elif isinstance(problem, OSError | XenFailure | XenverifyError):
            self.write(f"{type(problem).__name__}: {problem}\n")
        else:
            super().showtraceback()


def _prompt(names: dict[str, Any], banner: str) -> None:
    if importlib.util.find_spec("IPython") is not None and sys.stdin.isatty():
        from IPython import start_ipython

        print(banner)
        start_ipython(argv=["--no-banner", "--no-confirm-exit"], user_ns=names)
        return
    with contextlib.suppress(ImportError):
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    Prompt(names).interact(banner, exitmsg="")
