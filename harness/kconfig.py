"""Xen's own configuration, ours and the user's fragments in, one .config out; and did they take?

Comes in: files and lines of Kconfig's `CONFIG_X=…` form. Goes out: the text for `make
olddefconfig`, and afterwards an error for each wish that the resulting .config does not fulfil.
Refuses to know: how make is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BuildError, UsageError

SETTING = re.compile(r"(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set")
OFF = "n"


@dataclass(frozen=True)
class Wish:
    """One symbol that must have one value."""

    symbol: str
    value: str  # as .config has it, or OFF
    origin: str  # "FILE:LINE", for messages

    def __str__(self) -> str:
        return _line(self.symbol, self.value)


def read_fragment(path: Path) -> list[Wish]:
    """Return the wishes of one fragment; raises UsageError for what is no Kconfig line."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"the Kconfig fragment {path} cannot be read: {reason}") from None
    wishes = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        found = SETTING.fullmatch(stripped)
        if found:
            wishes.append(Wish(found[1] or found[3], found[2] or OFF, f"{path}:{number}"))
        elif stripped and not stripped.startswith("#"):
            raise UsageError(
                f"{path}:{number} is no line of a Kconfig fragment",
                evidence=[line],
                advice="Write CONFIG_NAME=value or # CONFIG_NAME is not set.",
            )
    return wishes


def merge(defconfig: str, wishes: Iterable[Wish]) -> str:
    """Return the text of a .config that begins with `defconfig`; the last line of a symbol wins."""
    lines = (_line(wish.symbol, wish.value) for wish in wishes)
    return "\n".join([defconfig, *lines, ""])


def check(config: str, wishes: Sequence[Wish], what: str) -> None:
    """Raise BuildError, naming each line, if a wish is not what the final .config says."""
    values = {}
    for line in config.splitlines():
        if found := SETTING.fullmatch(line):
            values[found[1] or found[3]] = found[2] or OFF
    last = {wish.symbol: wish for wish in wishes}
    refused = [wish for wish in last.values() if values.get(wish.symbol, OFF) != wish.value]
    if refused:
        raise BuildError(
            f"the Kconfig line {refused[0]} does not take in {what}",
            evidence=[
                f"{wish.origin}: {wish}, but the .config has {_have(values, wish.symbol)}"
                for wish in refused
            ],
            advice="The symbol may not exist in this version, or depend on another one.",
        )


def _have(values: dict[str, str], symbol: str) -> str:
    return _line(symbol, values[symbol]) if symbol in values else f"no {symbol}"


def _line(symbol: str, value: str) -> str:
    return f"# {symbol} is not set" if value == OFF else f"{symbol}={value}"
