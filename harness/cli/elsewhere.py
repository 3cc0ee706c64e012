"""`--on-host USER@HOST[:PORT]`: any command, on another machine.

The option is taken out of the command line before anything else looks at it. What the rest means is
read from the declarations of the commands themselves: whatever is declared as a REF is a Xen to
take along, a FILE a file, and so on; so a new command needs nothing here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from harness.cli import options as opt
from harness.cli.display import Display
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.remote.connection import Address
    from harness.remote.sending import File

OPTION = "--on-host"
# What a parameter is, by what its help calls it.
REFERENCES = ("REF", "[BEFORE AFTER]")
CHANGES = ("CHANGE", "CHANGE...")
CASES = ("PATH", "[CASES]...")
FILE = "FILE"
REPOSITORY = "PATH-or-URL"
RESULTS = "DIR"
UBOOTS = "uboot"  # the parameter whose REF is no Xen
NO_FILES = ("git:", "lore:", "-")
RESULTS_THERE = "results"  # the folder, where there is none of the same name


@dataclass
class Given:
    """A command line, read: its words without those that name results, and what it names."""

    words: list[str] = field(default_factory=list)
    path: int = 0  # so many of the words name the command
    arguments: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    uboots: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    repository: str = ""
    output: Path | None = None
    leaves_results: bool = False
    quiet: bool = False


def split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return what --on-host says, None if it is not there, and all the other words."""
    left, rest = list(words), []
    host: str | None = None
    while left:
        word = left.pop(0)
        if word == "--":
            rest += [word, *left]
            break
        name, equals, value = word.partition("=")
        if name != OPTION:
            rest.append(word)
            continue
        if host is not None:
            raise UsageError(f"{OPTION} is given twice")
        if not equals and not left:
            raise UsageError(f"{OPTION} names no host", advice=f"Say {OPTION} USER@HOST[:PORT].")
        host = value if equals else left.pop(0)
    return host, rest


def first_word(words: Sequence[str]) -> str:
    """Return what a command line begins with, wherever --on-host stands in it."""
    with contextlib.suppress(UsageError):
        _, words = split(words)
    return words[0] if words else ""


def run(app: typer.Typer, host: str, words: Sequence[str]) -> int:
    """Run a command line on `host`; raises UsageError if it is none, as every command does."""
    from harness.remote.connection import Address

    address = Address.read(host)
    given = read(app, words)
    stdin = opt.read_stdin(given.changes)
    with Display(quiet=given.quiet) as display:
        if not given.leaves_results:
            return _send(address, given, stdin, None, "", display)[0]
        return _bring_back(address, given, stdin, display)


def _bring_back(address: Address, given: Given, stdin: bytes | None, display: Display) -> int:
    """Run a command that leaves results; they end where it would have left them here."""
    from harness.reports.folder import results_folder

    try:
        with results_folder(given.output) as folder:
            here = opt.relative(folder)
            there = here.removeprefix("./") if here.startswith("./") else RESULTS_THERE
            status, left = _send(address, given, stdin, folder, there, display)
            if not left:
                raise _NothingLeft(status)
    except _NothingLeft as nothing:
        return nothing.status
    if there == RESULTS_THERE:
        display.say(f"the results are in {here}/")
    return status


def _send(
    address: Address,
    given: Given,
    stdin: bytes | None,
    folder: Path | None,
    results: str,
    display: Display,
) -> tuple[int, bool]:
    from harness.cache import default_cache
    from harness.projects import XEN
    from harness.remote import session
    from harness.remote.sending import Named
    from harness.uboot.sources import UBOOT

    xens = [(reference, XEN) for reference in given.references]
    uboots = [(reference, UBOOT) for reference in given.uboots]
    named = Named((*xens, *uboots), tuple(given.changes), given.repository)
    more = ["--output", results] if results else []
    order = session.Order(
        [*given.words[: given.path], *more, *given.words[given.path :]],
        named, given.files, results, stdin,
    )  # fmt: skip

    def say(phrase: str) -> None:
        if phrase:
            display.say(phrase)
        else:
            display.clear()

    return session.run(address, order, folder, default_cache(), say)


class _NothingLeft(Exception):
    """The command left nothing, and has said why: no folder is wanted."""

    def __init__(self, status: int) -> None:
        self.status = status


def read(app: typer.Typer, words: Sequence[str]) -> Given:
    """Read a command line as typer would, without running anything."""
    given = Given()
    command: Any = typer.main.get_command(app)
    context, left = None, list(words)
    while True:
        name = context.info_name if context is not None else "xenverify"
        context = command.make_context(name, left, parent=context)
        for parameter in command.params:
            _take(given, parameter, context)
        left = [*context._protected_args, *context.args]
        if not hasattr(command, "resolve_command") or not left:
            break
        name, command, left = command.resolve_command(context, left)
        given.words.append(name)
        given.path += 1
    given.words += given.arguments
    return given


def _take(given: Given, parameter: Any, context: Any) -> None:
    """Take one parameter's values, and the words that say them again."""
    value = context.params.get(parameter.name)
    values = list(value) if isinstance(value, list | tuple) else [value]
    values = [one.value if isinstance(one, Enum) else one for one in values if one is not None]
    kind = parameter.metavar or ""
    if kind == RESULTS:
        given.leaves_results = True
        given.output = values[0] if values else None
        return
    texts = [_note(given, kind, parameter.name, str(one)) for one in values]
    if context.get_parameter_source(parameter.name).name != "COMMANDLINE":
        return
    if parameter.param_type_name == "argument":
        given.arguments += texts
    elif isinstance(value, bool):
        given.words.append(parameter.opts[0])
        given.quiet |= parameter.name == "quiet"
    else:
        given.words += [word for text in texts for word in (parameter.opts[0], text)]


def _note(given: Given, kind: str, name: str, text: str) -> str:
    """Note what a value names; return what to say instead of it on the other machine."""
    from harness.remote.project import PROJECT
    from harness.remote.sending import place_file

    if kind in REFERENCES:
        (given.uboots if name == UBOOTS else given.references).append(text)
    elif kind == REPOSITORY:
        given.repository = text
    elif kind in CHANGES:
        given.changes.append(text)
    path, colons, rest = text.partition("::")  # of a pytest id
    is_file = kind in (FILE, *CASES) or (kind in CHANGES and not text.startswith(NO_FILES))
    whole = Path(path).expanduser().resolve()
    if not is_file or not whole.exists():
        return text
    if kind in CASES and whole.is_relative_to(PROJECT):  # the project is there anyway
        return f"{whole.relative_to(PROJECT)}{colons}{rest}"
    file = place_file(path)
    given.files.append(file)
    return f"{file.name}{colons}{rest}"
