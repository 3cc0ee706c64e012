"""The log of a failed build in, the lines that say why out.

Comes in: the text of make's output. Goes out: a few lines. Refuses to know: where it came from.
"""

from __future__ import annotations

import re

# The most telling first: a compiler's or linker's own complaint; then make's and the shell's.
COMPLAINTS = (
    re.compile(r"(?:^|: )(?:fatal )?error: |undefined reference to|multiple definition of"),
    re.compile(r"\*\*\* (?!\[|Waiting)|No such file or directory|not found$|Permission denied"),
)
FAILED_RECIPE = re.compile(r"\*\*\* \[")
NO_ROOM = "No space left on device"
UNPRINTABLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[^\t\x20-\x7e\x80-\uffff]")
LINES_BEFORE = 2  # what a failing command printed
LINES_AFTER = 2  # a compiler shows the source line and points into it
MOST = 12


def decisive_lines(text: str) -> list[str]:
    """Return what a reader needs to see of a failed build: the first complaints, or the end."""
    lines = [UNPRINTABLE.sub("", line).rstrip() for line in text.splitlines()]
    for complaint in COMPLAINTS:
        chosen: list[int] = []
        for number, line in enumerate(lines):
            if complaint.search(line):
                shown = (n for n in range(number, number + 1 + LINES_AFTER) if n < len(lines))
                chosen += [n for n in shown if n == number or re.match(r" .*\|", lines[n])]
        if chosen:
            return [lines[number] for number in dict.fromkeys(chosen)][:MOST]
    said = [line for line in lines if line and "directory '" not in line]
    for number, line in enumerate(said):
        if FAILED_RECIPE.search(line):
            return said[max(0, number - LINES_BEFORE) : number + 1]
    return said[-MOST:]


def ran_out_of_room(text: str) -> bool:
    """Say whether the build failed because a disk is full, which is not the source's fault."""
    return NO_ROOM in text
