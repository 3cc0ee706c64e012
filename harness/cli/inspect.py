"""`xenverify inspect`: what Xen itself recorded, read from outside."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from harness.cli import options as opt
from harness.cli.display import Display, page
from harness.cli.run import Xen
from harness.cli.shell import Scenario, execute, namespace
from harness.errors import ExitCode, UsageError, XenFailure

if TYPE_CHECKING:
    from harness.booting import Booted
    from harness.inspection import Snapshot

Views = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[VIEW]...",
        help="domains, physmap [DOM], page MFN, gfn DOM GFN, grants [DOM], rules.",
    ),
]
Code = Annotated[
    str | None,
    typer.Option("-c", metavar="CODE", help="Run this first, and show what it changed as well."),
]
Drgn = Annotated[bool, typer.Option("--drgn", help="Give a drgn prompt on the live hypervisor.")]

STYLES = {"-": "red", "+": "green"}
#: View: what it takes behind its name.
VIEWS = {
    "domains": (),
    "physmap": ("[DOM]",),
    "page": ("MFN",),
    "gfn": ("DOM", "GFN"),
    "grants": ("[DOM]",),
    "rules": (),
}


@dataclass(frozen=True)
class View:
    """One thing to show."""

    name: str
    numbers: tuple[int, ...] = ()


def command(
    xen: Xen,
    views: Views = None,
    with_: opt.With = None,
    reverse: opt.Reverse = False,
    scenario: Scenario = "domu",
    statements: Code = None,
    drgn: Drgn = False,
    machine: opt.MachineName = opt.DEFAULT_MACHINE,
    release: opt.Release = False,
    kconfig: opt.Kconfig = None,
    cc: opt.Compiler = None,
    no_sandbox: opt.NoSandbox = False,
) -> ExitCode:
    """Boot a Xen and show what it recorded of its domains; exit code 1 if a rule is broken.

    \b
    xenverify inspect --xen debian:bookworm
    xenverify inspect --xen debian:bullseye gfn d1 0x40000
    xenverify inspect --xen debian:4.17 physmap -c 'd1.add_to_physmap(SHARED_INFO, gfn=0x38000)'
    xenverify inspect --xen ~/src/xen --drgn
    """
    from harness.booting import boot
    from harness.builds import build_all
    from harness.cache import default_cache
    from harness.inspection import invariants, rendering
    from harness.machines import load_machine
    from harness.scenarios import named
    from harness.sides import Side

    wanted = read_views(views or [])
    shared = opt.Shared(machine, release, tuple(kconfig or ()), cc, no_sandbox)
    options, cache = shared.build_options(), default_cache()
    board, plan = load_machine(machine), named(scenario)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xenverify-inspect-")))
        with Display() as display:
            tree = Side(xen, tuple(with_ or ()), reverse).tree(cache, display.say)
            (build,) = build_all([tree], options, cache, display.say)
            display.say("booting")
            host = stack.enter_context(boot(build, board, plan, folder, cache))
        before = host.inspector.snapshot()
        failed = statements is not None and execute(statements, host) is not ExitCode.OK
        after = _look_again(host) if statements is not None else before
        if drgn:
            _drgn_prompt(host)
            return ExitCode.OK
        for view in wanted:
            _show(view, host, before, after)
        rules = invariants.check(after) if not after.held_locks else []
        broken = [v for v in rules if not v.is_observation]
        if broken and View("rules") not in wanted:
            _section("rules", rendering.rules(after))
    return ExitCode.REGRESSED if broken or failed else ExitCode.OK


def _look_again(host: Booted) -> Snapshot:
    """Read everything anew; of a Xen that died in an update, what there is, and a remark."""
    try:
        host.check()
    except XenFailure:
        snapshot = host.inspector.look()
        if snapshot.held_locks:
            held = ", ".join(snapshot.held_locks)
            remark = f"Xen died in an update ({held} held): no rule is held against its tables"
            page(stderr=True).print(remark, soft_wrap=True)
        return snapshot
    return host.inspector.snapshot()


def read_views(words: Sequence[str]) -> list[View]:
    """Read the views from the command line; without any, the domains and the rules."""
    views: list[View] = []
    left = list(words)
    while left:
        name = left.pop(0)
        if name not in VIEWS:
            raise UsageError(f"there is no view {name}", advice=f"There are {', '.join(VIEWS)}.")
        numbers: list[int] = []
        for what in VIEWS[name]:
            if left and left[0] not in VIEWS:
                numbers.append(_number(left.pop(0), what))
            elif not what.startswith("["):
                raise UsageError(f"the view {name} needs {' and '.join(VIEWS[name])}")
        views.append(View(name, tuple(numbers)))
    return views or [View("domains"), View("rules")]


def _number(word: str, what: str) -> int:
    """Read a number in any base, or a domain by what Xen calls it."""
    is_domain = "DOM" in what
    digits = word.removeprefix("dom").removeprefix("d") if is_domain else word
    try:
        return int(digits, 0)
    except ValueError:
        like = "1, d1 or dom0" if is_domain else "0x40000"
        raise UsageError(f"{word} is no {what.strip('[]')}", advice=f"Say {like}.") from None


def _show(view: View, host: Booted, before: Snapshot, after: Snapshot) -> None:
    from harness.inspection import rendering

    shown: dict[str, Callable[[], None]] = {
        "domains": lambda: _section("domains", rendering.domains(after)),
        "physmap": lambda: _show_physmaps(view, before, after),
        "page": lambda: _show_page(view.numbers[0], after),
        "gfn": lambda: _show_gfn(view, host, after),
        "grants": lambda: _show_grants(view, host, after),
        "rules": lambda: _section("rules", rendering.rules(after)),
    }
    shown[view.name]()


def _chosen(view: View, snapshot: Snapshot) -> list[int]:
    """Return the domid that a view names, or all."""
    for domid in view.numbers[:1]:
        if domid not in snapshot.domains:
            known = ", ".join(state.name for state in snapshot.domains.values())
            raise UsageError(f"Xen has no domain {domid}", advice=f"It has {known}.")
    return list(view.numbers[:1] or snapshot.domains)


def _show_physmaps(view: View, before: Snapshot, after: Snapshot) -> None:
    from harness.inspection import rendering

    for domid in _chosen(view, after):
        _section(f"physmap of d{domid}", rendering.physmap(after.domains[domid]))
        if before is not after and domid in before.domains:
            differences = rendering.physmap_changes(before.domains[domid], after.domains[domid])
            for sign, line in differences:
                page().print(Text(f"{sign} {line}", style=STYLES[sign]), soft_wrap=True)


def _show_page(mfn: int, after: Snapshot) -> None:
    from harness.inspection import rendering

    if after.pages is not None and mfn not in after.pages:
        first, last = after.pages.first_mfn, after.pages.first_mfn + after.pages.pages - 1
        raise UsageError(
            f"mfn {mfn:#x} is no RAM of this machine",
            advice=f"Its RAM is from mfn {first:#x} to {last:#x}.",
        )
    _section(f"page {mfn:#x}", rendering.page(after, mfn))


def _show_gfn(view: View, host: Booted, after: Snapshot) -> None:
    from harness.inspection import rendering

    (domid,) = _chosen(view, after)
    number = view.numbers[1]
    lines = rendering.gfn(host.inspector, after, domid, number)
    _section(f"gfn {number:#x} of d{domid}", lines)


def _show_grants(view: View, host: Booted, after: Snapshot) -> None:
    from harness.inspection import rendering

    for domid in _chosen(view, after):
        lines = rendering.grants(host.inspector, after.domains[domid])
        _section(f"grant table of d{domid}", lines)


def _section(title: str, lines: Sequence[str]) -> None:
    console = page()
    console.print(Text(title, style="bold"))
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)


def _drgn_prompt(host: Booted) -> None:
    """Hand over to drgn's own prompt, with the program on this Xen."""
    from drgn.cli import run_interactive

    def banner(_: str) -> str:
        return (
            "drgn on the running Xen, as `prog`, beside all that `xenverify shell` has.\n"
            'Try: prog["domain_list"].domain_id'
        )

    def names(ours: dict[str, Any]) -> dict[str, Any]:
        return {**namespace(host), **ours}

    run_interactive(host.inspector.drgn_program(), banner_func=banner, globals_func=names)
