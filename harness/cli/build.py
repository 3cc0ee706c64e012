"""`xenverify build`: one Xen, built or found."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import options as opt
from harness.cli.display import Display, page
from harness.errors import ExitCode

Reference = Annotated[str, typer.Argument(metavar="REF", help="The Xen to build.")]


def command(
    reference: Reference,
    with_: opt.With = None,
    reverse: opt.Reverse = False,
    release: opt.Release = False,
    kconfig: opt.Kconfig = None,
    cc: opt.Compiler = None,
    no_sandbox: opt.NoSandbox = False,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Build a Xen, or find it built, and say where it is.

    \b
    xenverify build debian:4.17
    xenverify build ~/src/xen --release --kconfig extra.config
    xenverify build git:~/src/xen@staging --with fix.patch
    """
    from harness.builds import build_all
    from harness.cache import default_cache
    from harness.cli.present import build_line, show_facts
    from harness.sides import Side

    shared = opt.Shared(release=release, kconfig=tuple(kconfig or ()), cc=cc, no_sandbox=no_sandbox)
    options = shared.build_options()
    changes = list(with_ or ())
    stdin = opt.read_stdin(changes)
    cache = default_cache()
    with Display(quiet=quiet) as display:
        tree = Side(reference, tuple(changes), reverse).tree(cache, display.say, stdin)
        (build,) = build_all([tree], options, cache, display.say)
    show_facts(
        page(),
        [
            ("on", f"{reference}  {tree.label}"),
            *(("with", change) for change in tree.changes),
            ("build", build_line(build)),
            ("build-id", build.build_id),
            ("xen", str(build.xen)),
            ("symbols", str(build.syms)),
            ("config", str(build.config)),
            ("log", str(build.log)),
        ],
    )
    return ExitCode.OK
