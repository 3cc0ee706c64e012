"""A reference and changes in, one side of a comparison out: its tree, and words that name it.

Refuses to know: what the other side is, and whether the change is any good.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import changes as patches
from harness.builds import Build, BuildOptions, build_all
from harness.cache import Cache, default_cache
from harness.changes import Series, read_change
from harness.errors import ChangeError, UsageError
from harness.git import git
from harness.progress import Progress, quiet
from harness.references import resolve
from harness.trees import Tree


@dataclass(frozen=True)
class Side:
    """One Xen, as a user names it: a reference, and changes applied to it or taken out of it."""

    reference: str
    changes: tuple[str, ...] = ()
    reverse: bool = False

    def words(self) -> list[str]:
        """Return the options that name this side to `run`, `build` and `shell`."""
        reverse = ["--reverse"] if self.reverse and self.changes else []
        named = [word for change in self.changes for word in ("--with", change)]
        return ["--xen", self.reference, *named, *reverse]

    def tree(self, cache: Cache, progress: Progress = quiet, stdin: bytes | None = None) -> Tree:
        """Return the tree; raises UsageError or ChangeError for what the user named."""
        tree = resolve(self.reference, cache, progress)
        series = read_changes(self.changes, tree, cache, progress, stdin)
        return apply_all(tree, series, reverse=self.reverse)


@dataclass(frozen=True)
class Change:
    """What `verify` judges: both sides, and every tree from the one to the other, a patch apart.

    `stages` says what each tree is called, and has both ends.
    """

    before: Side
    after: Side
    series: tuple[Series, ...]
    stages: tuple[tuple[str, Tree], ...]

    def sides(self, folder: Path) -> list[Side]:
        """Return how each stage is named again; what lies between is a patch left in `folder`."""
        trees = [tree for _, tree in self.stages]
        plain = trees[-1] if self.before.changes else trees[0]
        between = []
        for number, tree in enumerate(trees[1:-1], start=1):
            patch = folder / f"stage-{number}.patch"
            patch.write_bytes(git(tree.repository, "diff", "--binary", plain.tree, tree.tree))
            between.append(Side(self.before.reference, (str(patch),)))
        return [self.before, *between, self.after]


def read_changes(
    specs: Sequence[str],
    tree: Tree,
    cache: Cache,
    progress: Progress = quiet,
    stdin: bytes | None = None,
) -> tuple[Series, ...]:
    """Read every change a user named; `-` is `stdin`, which can be read but once."""
    if specs.count("-") > 1:
        raise UsageError("standard input can be one change only")
    return tuple(
        read_change(spec, tree, cache, io.BytesIO(stdin) if stdin is not None else None, progress)
        for spec in specs
    )


def apply_all(tree: Tree, series: Sequence[Series], *, reverse: bool = False) -> Tree:
    """Apply the series one upon the other, or take them out, the last one first."""
    for one in reversed(series) if reverse else series:
        tree = patches.apply(tree, one, reverse=reverse)
    return tree


def plan_change(
    reference: str,
    specs: Sequence[str],
    cache: Cache,
    *,
    reverse: bool = False,
    progress: Progress = quiet,
    stdin: bytes | None = None,
) -> Change:
    """Make the two sides of `verify`.

    Plainly, before is the tree as it stands and after the tree with the change. With `reverse` the
    *removal* is judged: before has the change, after has not. A tree that has it gives it up for
    the after side; a tree that never had it gets it for the before side. So a patch that breaks
    Xen on purpose regresses when verified, and its removal is a fix, on the same tree.

    Raises ChangeError if the change does neither apply to the tree nor come out of it.
    """
    plain, changed = Side(reference), Side(reference, tuple(specs))
    tree = resolve(reference, cache, progress)
    series = read_changes(specs, tree, cache, progress, stdin)
    if not reverse:
        return Change(plain, changed, series, _applied(tree, series))
    try:
        return Change(plain, replace(changed, reverse=True), series, _taken_out(tree, series))
    except ChangeError as does_not_come_out:
        try:
            there = [stage for _, stage in _applied(tree, series)]
        except ChangeError:
            raise does_not_come_out from None
        return Change(changed, plain, series, _named_removal(reversed(there), series))


def _applied(tree: Tree, series: Sequence[Series]) -> tuple[tuple[str, Tree], ...]:
    """Apply patch after patch; return every tree on the way."""
    stages = [("without", tree)]
    for one in series:
        trees = patches.apply_each(stages[-1][1], one)
        stages += zip([one.label(patch) for patch in one.patches], trees, strict=True)
    return tuple(stages)


def _taken_out(tree: Tree, series: Sequence[Series]) -> tuple[tuple[str, Tree], ...]:
    """Take patch after patch out, the last one first; return every tree on the way."""
    trees = [tree]
    for one in reversed(series):
        trees += patches.apply_each(trees[-1], one, reverse=True)
    if trees[-1].tree == tree.tree:  # a three-way merge finds nothing to do
        raise ChangeError(f"{tree.label} does not have {series[-1].origin}: nothing to take out")
    return _named_removal(trees, series)


def _named_removal(trees: Iterable[Tree], series: Sequence[Series]) -> tuple[tuple[str, Tree], ...]:
    labels = [one.label(patch) for one in series for patch in one.patches]
    names = ["with", *(f"without {label}" for label in reversed(labels))]
    return tuple(zip(names, trees, strict=True))


def build_sides(
    sides: Sequence[Side],
    options: BuildOptions,
    *,
    progress: Progress = quiet,
    cache: Cache | None = None,
) -> list[Build]:
    """Resolve and build sides that are on their own, not two of one comparison."""
    cache = cache or default_cache()
    trees = [side.tree(cache, progress) for side in sides]
    return build_all(trees, options, cache, progress)
