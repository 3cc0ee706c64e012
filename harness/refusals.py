"""A patch that git would not apply in, the error that shows a person why out.

Comes in: an `Attempt`. Goes out: a `ChangeError` that names patch, file and hunk, shows the lines
that were expected and found, and says what to try. It refuses to change anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from harness import offers
from harness.diffs import FileChange, Hunk
from harness.errors import ChangeError
from harness.git import GitError, git
from harness.offers import Applies
from harness.references import Tree
from harness.series import Patch, Series

_FAILED_HUNK = re.compile(r"^error: patch failed: (.+):(\d+)$")
_FAILED_FILE = re.compile(r"^error: (.+): (does not exist in index|already exists in index)$")
# A blank line or a lone brace is everywhere: it says nothing about where a hunk belongs.
_INFORMATIVE = re.compile(rb"\w")


@dataclass(frozen=True)
class Attempt:
    """What was tried: a patch of a series on `current`, which is `tree` with those before it."""

    tree: Tree
    current: Tree
    series: Series
    patch: Patch
    reverse: bool
    lines: tuple[str, ...]  # what git said; nothing if the patch changes nothing


def explain(attempt: Attempt, applies: Applies) -> ChangeError:
    """Return the error to raise for an attempt that failed."""
    patch = attempt.series.label(attempt.patch)
    verb = "cannot be taken out of" if attempt.reverse else "does not apply to"
    message = f"{attempt.series.origin} {verb} {attempt.tree.reference}: patch {patch}"
    where, evidence = _reason(attempt)
    advice = _there_already(attempt, applies)
    if not advice:
        evidence += _mostly_there(attempt)
        advice = offers.where_it_applies(attempt.tree, attempt.series, attempt.reverse, applies)
    return ChangeError(message + where, evidence=evidence, advice=advice)


def _reason(attempt: Attempt) -> tuple[str, list[str]]:
    """Return where the first failure is, and the lines that show it."""
    if not attempt.lines:
        state = "lacks all of it" if attempt.reverse else "has all of it"
        return f": the tree {state} already", []
    files = {name: file for file in attempt.patch.files for name in (file.old_name, file.new_name)}
    for line in attempt.lines:
        if match := _FAILED_HUNK.match(line):
            file = files.get(match[1])
            number = _failed_hunk(file, int(match[2]), attempt.reverse) if file else None
            if file and number is not None:
                where = f", {match[1]}, hunk {number + 1} of {len(file.hunks)}"
                shown = _show_hunk(attempt, match[1], file.hunks[number])
                if not any(ln.startswith(b" ") for hunk in file.hunks for ln in hunk.lines):
                    shown.append("the patch has no context lines; was it made with -U0?")
                return where, shown
        if match := _FAILED_FILE.match(line):
            if match[2].startswith("already"):
                return f", {match[1]}: the tree has that file already", []
            return f", {match[1]}: the tree has no such file", _relatives(attempt, match[1])
    told = [line.removeprefix("error: ") for line in attempt.lines]
    return "", told[:6]


def _failed_hunk(file: FileChange, start: int, reverse: bool) -> int | None:
    """Return the index of the hunk that git names by the line it starts at."""
    for index, hunk in enumerate(file.hunks):
        if start == (hunk.new_start if reverse else hunk.old_start):
            return index
    return None


def _show_hunk(attempt: Attempt, name: str, hunk: Hunk) -> list[str]:
    """Return the first line that is not as the hunk expects it, beside what is there."""
    wanted = hunk.side(new=attempt.reverse)
    content = _read(attempt.current, name)
    if content is None:
        return [f"{name} cannot be read"]
    there = content.split(b"\n")
    if there and not there[-1]:
        there.pop()
    around = (hunk.new_start if attempt.reverse else hunk.old_start) - 1
    if not any(_INFORMATIVE.search(line) and line in there for line in wanted):
        first = next((line for line in wanted if _INFORMATIVE.search(line)), wanted[0])
        return _pair(f"line {around + 1}", first, None, "no line of this hunk is in the file")
    differs = _first_difference(wanted, there, around)
    if differs is None:
        said = [f"git: {line.removeprefix('error: ')}" for line in attempt.lines[:3]]
        return said or ["every line of it is there, but not in one piece"]
    expected, at = differs
    found = there[at] if 0 <= at < len(there) else None
    return _pair(f"line {max(at, 0) + 1}", expected, found, f"the file has {len(there)} lines")


def _first_difference(
    wanted: list[bytes], there: list[bytes], around: int
) -> tuple[bytes, int] | None:
    """Return the line that is not as wanted, and where in `there` it should stand (from 0).

    The hunk is laid where most of its first lines stand together, or else most of its last, and
    nearest to `around`; the line where that ends is the one.
    """
    down, down_at = _longest_run(wanted, there, around)
    up, up_end = _longest_run(wanted[::-1], there[::-1], len(there) - around - len(wanted))
    if max(down, up) == len(wanted):
        return None
    up_at = len(there) - 1 - (up_end + up)
    same_place = abs(up_at - down_at) <= len(wanted) + 20
    if down >= up or (down and same_place):
        return wanted[down], down_at + down
    return wanted[len(wanted) - 1 - up], up_at


def _longest_run(wanted: list[bytes], there: list[bytes], around: int) -> tuple[int, int]:
    """Return how many first lines of `wanted` stand together in `there`, and where that is."""
    best = (0, 0, 0)
    for start in range(len(there)):
        if there[start] != wanted[0]:
            continue
        count = 0
        while count < len(wanted) and there[start + count : start + count + 1] == [wanted[count]]:
            count += 1
        # What is only blank lines and braces says nothing about where it belongs.
        if any(_INFORMATIVE.search(line) for line in wanted[:count]):
            best = max(best, (count, -abs(start - around), start))
    return (best[0], best[2]) if best[0] else (0, max(0, min(around, len(there))))


def _pair(where: str, expected: bytes, found: bytes | None, nothing: str) -> list[str]:
    """Return two lines that put what is there under what was expected."""
    shown = f"({nothing})" if found is None else _text(found)
    return [f"{where}  expected  {_text(expected)}", f"{' ' * len(where)}  found     {shown}"]


def _text(line: bytes) -> str:
    """Return a line for people: a CR or a blank at its end would not be seen otherwise."""
    text = line.decode(errors="replace").expandtabs(8)
    return repr(text) if text != text.rstrip() or "\r" in text or not text else text


def _relatives(attempt: Attempt, name: str) -> list[str]:
    """Return the files of the tree that may be the one meant: same name, most parts in common."""
    tree = attempt.current
    listing = git(tree.repository, "ls-tree", "-r", "-z", "--name-only", tree.tree)
    parts = set(PurePosixPath(name).parts)
    same = [
        other
        for other in listing.decode(errors="surrogateescape").split("\0")
        if PurePosixPath(other).name == PurePosixPath(name).name
    ]
    same.sort(key=lambda other: -len(parts & set(re.split(r"[/-]", other))))
    return [f"it has  {other}" for other in same[:2]]


def _there_already(attempt: Attempt, applies: Applies) -> str:
    """Return advice if the change, or this patch of it, goes the other way."""
    reverse, current = attempt.reverse, attempt.current.tree
    alone = replace(attempt.series, patches=(attempt.patch,))
    whole = applies(attempt.tree.tree, attempt.series, reverse=not reverse, merging=True)
    if not whole and not applies(current, alone, reverse=not reverse, merging=True):
        return ""
    if not whole:
        state = "lacks" if reverse else "has"
        return f"The tree looks as if it {state} this patch of the series already; leave it out."
    if reverse:
        return "The tree looks as if it does not have this change; try without --reverse."
    return "The tree looks as if it has this change already; try --reverse."


def _mostly_there(attempt: Attempt) -> list[str]:
    """Return a line on how much of what the patch adds is there already, if it is most of it.

    A change is often edited as it is committed, and then goes neither way to the letter.
    """
    if attempt.reverse:
        return []
    found = total = 0
    for file in attempt.patch.files:
        content = _read(attempt.current, file.path) or b""
        there = {line.strip() for line in content.split(b"\n")}
        added = [line[1:].strip() for hunk in file.hunks for line in hunk.lines if line[:1] == b"+"]
        telling = [line for line in added if len(line) > 8 and _INFORMATIVE.search(line)]
        total += len(telling)
        found += sum(line in there for line in telling)
    if total < 3 or found < 0.8 * total:
        return []
    return [f"{found} of {total} lines it adds are there already, perhaps by another version of it"]


def _read(tree: Tree, name: str) -> bytes | None:
    try:
        return git(tree.repository, "cat-file", "blob", f"{tree.tree}:{name}")
    except GitError:
        return None
