"""The command line: arguments in, printed results and an exit code out. Nothing is decided here.

One module a command. `main` is the only place where an error becomes text and an exit code.
"""

from __future__ import annotations

import importlib.metadata
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated

import typer

from harness.cli import (
    bisect,
    bisect_step,
    build,
    cache,
    compare,
    doctor,
    elsewhere,
    inspect,
    reproduce,
    run,
    shell,
    verify,
)
from harness.cli.display import page
from harness.errors import ExitCode, HarnessError, XenFailure, XenverifyError

EPILOG = """\
With --on-host USER@HOST[:PORT], any command runs on that machine, and leaves its results here.

Exit codes, the same everywhere: 0 nothing regressed; 1 something regressed, or a case fails;
2 usage; 3 the change does not apply; 4 Xen does not build; 5 the harness or its machine failed;
130 interrupted.
"""

# typer has a click of its own and does not export the errors of a command line.
_UsageError, _ClickError = typer.BadParameter.__mro__[1:3]

app = typer.Typer(
    name="xenverify",
    epilog=EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (verify, compare, run, bisect, build, shell, inspect, doctor):
    app.command(module.__name__.rpartition(".")[2], epilog=EPILOG)(module.command)
app.command("bisect-step")(bisect_step.command)
app.add_typer(cache.app, name="cache")
app.add_typer(reproduce.app, name="reproduce")


@app.callback(invoke_without_command=True)
def common(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Say, with evidence, what a change does to real Xen on Arm."""
    if version:
        page().print(f"xenverify {importlib.metadata.version('xenverify')}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupt)
    given = sys.argv[1:] if arguments is None else arguments
    # git takes 1 to 127 for an answer about a commit
    code = bisect_step.for_git if elsewhere.first_word(given) == "bisect-step" else int
    try:
        host, words = elsewhere.split(given)
        if host is not None:
            return elsewhere.run(app, host, words)
        status = int(app(given or ["--help"], standalone_mode=False) or ExitCode.OK)
        if status == ExitCode.INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return status
    except (KeyboardInterrupt, typer.Abort):
        return _tell("interrupted; nothing is left behind", code(ExitCode.INTERRUPTED))
    except XenverifyError as error:
        return _tell(error.message, code(error.exit_code), error.evidence, error.advice)
    except XenFailure as failure:  # outside a suite: at the prompt's boot, for example
        return _tell(f"Xen: {failure}", code(ExitCode.REGRESSED), failure.evidence)
    except BrokenPipeError:  # `xenverify … | head`
        sys.stderr.close()
        return code(ExitCode.OK)
    except OSError as error:
        problem = HarnessError(str(error))
        return _tell(problem.message, code(problem.exit_code))
    except Exception as error:
        if isinstance(error, _ClickError):
            message = getattr(error, "format_message", error.__str__)()
            return _tell(message, code(ExitCode.USAGE), advice=_help_hint(error))
        # a bug of ours: its place is all there is to go by
        where = traceback.format_exc().rstrip().splitlines()
        return _tell(f"a bug in xenverify: {error!r}", code(ExitCode.HARNESS_FAILED), where)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise KeyboardInterrupt


def _tell(
    message: str, code: int, evidence: tuple[str, ...] | list[str] = (), advice: str = ""
) -> int:
    """Print what is wrong, the evidence and what to do on standard error."""
    console = page(stderr=True)
    lines = [f"xenverify: {message}", *(f"  {line}" for line in evidence), advice]
    lines = [line for line in lines if line]
    for line in lines[:-1]:
        console.print(line, soft_wrap=True)
    console.print(f"{lines[-1]}  (exit {code})", soft_wrap=True)
    return code


def _help_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"Try:  {context.command_path} --help" if context else ""
