"""Anything patch-shaped in, a `Series` of patches out, and a tree with it applied.

Comes in: what a user typed to name a change, and the tree it is meant for. Goes out: a `Series`,
whose patches are git diffs with names as that tree has them; from `apply`, a new `Tree`.
It refuses to know what Xen is, and to guess: what had to be mended is in the notes.

| a change | is |
| --- | --- |
| `FILE` | a mail of `git format-patch`, an mbox, a saved patchwork page, any diff |
| `-` | the same on standard input |
| `git:REV`, `git:A..B` | commits of the reference's own repository |
| `lore:MESSAGE-ID` | a series from the mailing list's archive, fetched by b4 |
"""

from __future__ import annotations

import re
import sys
import zlib
from pathlib import Path
from typing import BinaryIO

from harness import lore, mails, placing, ranges
from harness.applying import apply, apply_each, broken_repository
from harness.cache import Cache
from harness.diffreading import read_diff
from harness.diffs import render
from harness.errors import ChangeError, UsageError
from harness.git import GitError, git
from harness.mails import Letter
from harness.progress import Progress, quiet
from harness.references import Tree
from harness.sent import sent
from harness.series import Patch, Series, choose

__all__ = ["Patch", "Series", "apply", "apply_each", "read_change"]

# The largest posted Xen series have a few MB; more than this is no patch, and /dev/zero has no end.
LARGEST = 16 << 20


def read_change(
    spec: str,
    tree: Tree,
    cache: Cache,
    stdin: BinaryIO | None = None,
    progress: Progress = quiet,
) -> Series:
    """Return the series that `spec` names, for `tree`.

    Raises UsageError if there is nothing by that name, ChangeError if what is there is no patch or
    a broken one, HarnessError if the network or a program fails.
    """
    origin = "standard input" if spec == "-" else spec
    try:
        if spec.startswith("git:"):
            letters = sent().letters.get(spec) or ranges.read(
                spec.removeprefix("git:"), tree, cache, progress
            )
            return _series(origin, letters, tree)
        if spec.startswith("lore:"):
            data = lore.fetch(spec.removeprefix("lore:"), progress)
            return _series(origin, mails.read_letters(data), tree, whole=True)
        if spec == "-":
            data = (stdin or sys.stdin.buffer).read(LARGEST + 1)
        else:
            origin = Path(spec).name
            data = _read_file(spec)
        data = _plain(data)
        if not data.strip():
            raise ChangeError("there is nothing in it")
        return _series(origin, mails.read_letters(data), tree)
    except ChangeError as error:
        raise ChangeError(
            f"{origin}: {error.message}", evidence=error.evidence, advice=error.advice
        ) from None
    except GitError as error:
        raise broken_repository(tree.repository, error) from None


def _series(origin: str, letters: tuple[Letter, ...], tree: Tree, *, whole: bool = False) -> Series:
    """Return the series in `letters`, its files named as in `tree`."""
    chosen, cover, notes = choose(letters, whole=whole)
    placer = _Placer(tree)
    patches = []
    for letter in chosen:
        try:
            patches.append(placer.patch(letter))
        except ChangeError as error:
            if letter.position is None:
                raise
            number = "patch {}/{}: ".format(*letter.position)
            raise ChangeError(
                number + error.message, evidence=error.evidence, advice=error.advice
            ) from None
    return Series(origin, tuple(patches), chosen[0].version, cover, notes)


class _Placer:
    """Reads the diffs of one series after another, each for the tree its forerunners leave."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.modes = tree_modes(tree)
        self.blobs = dict(self.modes)  # what the tree itself has, before any patch

    def read_file(self, name: str) -> bytes:
        """Return a file's content in the tree; nothing for one an earlier patch makes."""
        if name not in self.blobs:
            return b""
        return git(self.tree.repository, "cat-file", "blob", f"{self.tree.tree}:{name}")

    def patch(self, letter: Letter) -> Patch:
        """Return the patch in `letter`."""
        diff = read_diff(letter.text)
        if not diff.files:
            raise ChangeError("no diff in it")
        files, notes = placing.place(diff.files, self.modes, self.read_file)
        self.modes = placing.after(files, self.modes)
        bases = re.findall(rb"^base-commit: ([0-9a-f]{7,64})\b", letter.text, re.MULTILINE)
        return Patch(
            subject=letter.subject,
            author=letter.author,
            date=letter.date,
            position=letter.position,
            diff=render(files),
            files=files,
            notes=diff.notes + notes,
            bases=tuple(base.decode() for base in bases),
        )


def tree_modes(tree: Tree) -> dict[str, str]:
    """Return every file of a tree with its mode."""
    listing = git(tree.repository, "ls-tree", "-r", "-z", tree.tree).decode(
        errors="surrogateescape"
    )
    entries = (entry.split("\t", 1) for entry in listing.split("\0") if entry)
    return {name: fields.split(" ", 1)[0] for fields, name in entries}


def _read_file(spec: str) -> bytes:
    if spec.startswith(("http://", "https://")):
        raise UsageError(
            f"{spec} is a web address, and no page is fetched",
            advice="Save it as a file, or name a mail by its id:  lore:MESSAGE-ID",
        )
    path = Path(spec).expanduser()
    if path.is_dir():
        raise UsageError(
            f"{spec} is a directory, not a patch", advice=f"Name its files:  {spec}/*.patch"
        )
    try:
        with path.open("rb") as stream:
            return stream.read(LARGEST + 1)
    except FileNotFoundError:
        advice = "A message-id is written lore:ID, a commit git:REV."
        raise UsageError(f"there is no file {spec}", advice=advice) from None
    except OSError as error:
        raise UsageError(f"{spec} cannot be read: {error.strerror}") from None


def _plain(data: bytes) -> bytes:
    """Return `data` unpacked, and as UTF-8 without a byte order mark."""
    if data.startswith(b"\x1f\x8b"):  # lore serves t.mbox.gz
        unpacker = zlib.decompressobj(wbits=31)
        try:
            data = unpacker.decompress(data, LARGEST + 1)
        except zlib.error:
            raise ChangeError("it is a damaged gzip file") from None
        if not unpacker.eof and len(data) <= LARGEST:
            raise ChangeError("it is a gzip file cut short")
    if len(data) > LARGEST:
        raise ChangeError(f"it is larger than {LARGEST >> 20} MiB: that is no patch")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # `git diff > x` in Windows' PowerShell
        return data.decode("utf-16", errors="replace").encode()
    return data.removeprefix(b"\xef\xbb\xbf")
