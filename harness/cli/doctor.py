"""`xenverify doctor`: what this machine lacks."""

from __future__ import annotations

from rich.text import Text

from harness.cli.display import page
from harness.errors import ExitCode


def command() -> ExitCode:
    """Say what this machine lacks, and what mends it.

    Exit code 5 if something is missing that nothing can do without.

    \b
    xenverify doctor
    """
    from harness.doctor import apt_line, examine

    console, findings = page(), examine()
    for finding in findings:
        word = "ok" if finding.met else "optional" if finding.optional else "MISSING"
        style = "" if finding.met else "dim" if finding.optional else "bold red"
        line = Text(f"{word:<9}", style=style) + Text(f"{finding.need:<32} {finding.detail}")
        line.rstrip()
        console.print(line, soft_wrap=True)
    if line_to_run := apt_line(findings):
        console.print(f"\nInstall what is missing:  {line_to_run}", soft_wrap=True)
    broken = [finding for finding in findings if not finding.met and not finding.optional]
    return ExitCode.HARNESS_FAILED if broken else ExitCode.OK
