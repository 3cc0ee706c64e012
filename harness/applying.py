"""A tree and a series in, the tree with it applied (or taken out) out.

Comes in: a `Tree` and a `Series` whose names are that tree's. Goes out: a new `Tree` in the same
repository, or ChangeError that shows why not. It refuses to know how the series was read.

git does it all, in an index of its own: no work tree, no branch, nothing of a user's is touched,
and what does not apply leaves nothing behind but unreferenced objects.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from harness import refusals
from harness.errors import HarnessError
from harness.git import GitError, git
from harness.progress import Progress, quiet
from harness.references import Tree
from harness.series import Patch, Series
from harness.trees import read_identity

# What git says when the disk is full or an object is gone or damaged, not the patch wrong.
_NO_FAULT_OF_A_PATCH = re.compile(
    r"No space left|Disk quota|Permission denied|Read-only file system|unable to (write|create)"
    r"|loose object|packfile|missing (blob|tree|object)|(unable|failed) to read|inflate"
)


def apply(tree: Tree, series: Series, *, reverse: bool = False, progress: Progress = quiet) -> Tree:
    """Return `tree` with the whole series applied, or with `reverse` taken out.

    Raises ChangeError if it does not apply. `progress` hears of every three-way merge.
    """
    return apply_each(tree, series, reverse=reverse, progress=progress)[-1]


def apply_each(
    tree: Tree, series: Series, *, reverse: bool = False, progress: Progress = quiet
) -> list[Tree]:
    """Return the trees after every patch in the order they apply: with `reverse` the last first."""
    try:
        with _workshop(tree) as workshop:
            return list(_applied(workshop, tree, series, reverse, progress))
    except GitError as error:
        raise broken_repository(tree.repository, error) from None


def _applied(
    workshop: Workshop, tree: Tree, series: Series, reverse: bool, progress: Progress
) -> Iterator[Tree]:
    """Yield the tree after every patch."""
    current = tree
    for patch in reversed(series.patches) if reverse else series.patches:
        try:
            made = workshop.patched(current.tree, patch, reverse=reverse)
        except Refused as refused:
            told = refusals.Attempt(tree, current, series, patch, reverse, refused.lines)
            raise refusals.explain(told, workshop.applies) from None
        if made.merged:
            progress(f"{series.label(patch)} {made.merged}")
        workshop.adopt(current.tree, made.tree)
        name = patch.subject or series.origin
        current = replace(
            current,
            tree=made.tree,
            identity=read_identity(tree.repository, made.tree),
            changes=(*current.changes, f"without {name}" if reverse else name),
        )
        yield current


class Refused(Exception):
    """git would not apply a patch; `lines` are its words, none if the patch changes nothing."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


@dataclass(frozen=True)
class Made:
    """A tree that came of a patch, and in words what a three-way merge did, if it took one."""

    tree: str
    merged: str = ""


@dataclass(frozen=True)
class Workshop:
    """A repository, an index aside, and where else to look for the blobs a merge needs."""

    repository: Path
    index: Path
    environment: dict[str, str]

    def patched(self, tree: str, patch: Patch, *, reverse: bool) -> Made:
        """Return the tree that `patch` makes of `tree`; raise Refused."""
        plain: str | None = None
        refused = Refused(())
        try:
            made = self._try(tree, patch, "--reverse" if reverse else "")
            self._hold_mended_against_author(tree, made, patch, reverse)
            plain = made
        except GitError as error:
            refused = Refused(error.lines)
        try:
            # Where the blob is known that the patch was made for, a merge puts a hunk where it
            # belongs; a match of context alone may put it elsewhere.
            made = self._try(tree, patch, "--3way", "--reverse" if reverse else "")
        except GitError:
            if plain is None:
                raise refused from None
            made = plain
        if made == plain and made != tree:
            return Made(made)
        # What is there already merges without a conflict: a tree that has the change, or most of
        # it, must not pass for one that took it.
        lines, changed = patch.added + patch.removed, self._changed_lines(tree, made)
        if made == tree or changed * 2 < lines:
            raise refused
        already = f"; {lines - changed} of its {lines} lines were there" if changed < lines else ""
        return Made(made, f"applied by three-way merge{already}")

    def applies(self, tree: str, series: Series, *, reverse: bool, merging: bool = False) -> bool:
        """Whether every patch applies to `tree`: as it stands, or else with a merge if need be."""
        try:
            for patch in reversed(series.patches) if reverse else series.patches:
                if merging:
                    tree = self.patched(tree, patch, reverse=reverse).tree
                else:
                    tree = self._try(tree, patch, "--reverse" if reverse else "")
        except (GitError, Refused):
            return False
        return True

    def adopt(self, old: str, new: str) -> None:
        """Copy what `new` has over `old` into the repository itself.

        git does not write an object that it finds in one of the other stores, and they are only
        here for as long as this runs.
        """
        options = ("-r", "-t", "--raw", "--no-abbrev", "--no-renames")
        listed = self._git("diff-tree", *options, old, new)
        entries = (line.split()[3] for line in listed.decode(errors="replace").splitlines())
        wanted = "\n".join([new, *(entry for entry in entries if entry.strip("0"))]) + "\n"
        pack = self._git("pack-objects", "--stdout", "--quiet", stdin=wanted.encode())
        git(self.repository, "unpack-objects", "-q", stdin=pack)

    def _hold_mended_against_author(self, old: str, new: str, patch: Patch, reverse: bool) -> None:
        """Raise Refused if a file whose hunk was mended is not what the patch's author made of it.

        The blob ids that git wrote down tell, where the tree has the file that the author had.
        """
        for file in patch.files:
            before, after = file.old_blob, file.new_blob
            names = file.old_name, file.new_name
            if not any(hunk.mended for hunk in file.hunks) or None in (before, after, *names):
                continue
            if reverse:
                (before, after), names = (after, before), names[::-1]
            had, got = (
                self._blob(tree, name) for tree, name in zip((old, new), names, strict=True)
            )
            if had.startswith(before or "") and not got.startswith(after or ""):
                raise Refused((f"error: {file.path}: more was cut off the patch than context",))

    def _blob(self, tree: str, name: str | None) -> str:
        listed = self._git("ls-tree", "-z", tree, "--", name or "").decode(errors="replace")
        return listed.split()[2] if listed else ""

    def _changed_lines(self, old: str, new: str) -> int:
        """Return how many lines differ between two trees, added and removed ones counted each."""
        listed = self._git("diff-tree", "-r", "--numstat", "--find-renames", old, new)
        columns = (line.split(b"\t")[:2] for line in listed.splitlines())
        return sum(int(count) for pair in columns for count in pair if count.isdigit())

    def _try(self, tree: str, patch: Patch, *options: str) -> str:
        """Run git apply on an index that holds `tree`; raise GitError if it does not apply."""
        self._git("read-tree", tree)
        arguments = ("apply", "--cached", "--whitespace=nowarn", *filter(None, options), "-")
        try:
            git(self.repository, *arguments, stdin=patch.diff, environment=self.environment)
        except GitError as error:
            if not error.lines or any(_NO_FAULT_OF_A_PATCH.search(line) for line in error.lines):
                raise broken_repository(self.repository, error) from None
            raise
        return self._git("write-tree").decode().strip()

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run a git that fails only if the repository or the disk does."""
        try:
            return git(self.repository, *arguments, stdin=stdin, environment=self.environment)
        except GitError as error:
            raise broken_repository(self.repository, error) from None


@contextmanager
def _workshop(tree: Tree) -> Iterator[Workshop]:
    """Give a workshop whose index goes away at the end."""
    stores = [
        str(path)
        for path in sorted(tree.repository.parent.glob("*.git/objects"))
        if path.parent != tree.repository
    ]
    environment = {}
    if stores:
        listed = (f'"{store}"' if os.pathsep in store else store for store in stores)
        environment["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = os.pathsep.join(listed)
    with tempfile.TemporaryDirectory(prefix="xenverify-index-") as directory:
        index = Path(directory) / "index"
        yield Workshop(tree.repository, index, environment | {"GIT_INDEX_FILE": str(index)})


def broken_repository(repository: Path, error: GitError) -> HarnessError:
    """Return the error for a git that failed where only a damaged repository lets it."""
    return HarnessError(
        f"git failed in {repository}: {error}",
        evidence=error.lines[-4:],
        advice="Is the disk full, or the clone it came from gone or damaged?",
    )
