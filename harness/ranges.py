"""`REV` or `A..B` of a reference's own repository in, its commits as patches out, oldest first.

Comes in: what a user typed after `git:`, and the tree whose repository is meant. Goes out: mails as
`git format-patch` would write them, as `Letter`. It refuses to know what is done with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness import git_sources, references
from harness.cache import Cache
from harness.errors import ChangeError, UsageError
from harness.git import GitError, git
from harness.mails import Letter
from harness.progress import Progress, quiet
from harness.references import Tree

# One commit as a diff that any tree can take: whole blob ids for three-way, none of the user's
# configuration.
_DIFF = (
    "diff-tree", "--root", "--no-commit-id", "--patch", "--full-index", "--find-renames",
    "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip


def read(text: str, tree: Tree, cache: Cache, progress: Progress = quiet) -> tuple[Letter, ...]:
    """Return the commits that `text` names, oldest first.

    Raises UsageError for a revision that is not there, ChangeError for what cannot be a series.
    """
    place = _place(tree, text)
    if "..." in text:
        raise UsageError(f"git:{text} has three dots", advice=f"git:{text.replace('...', '..')}")
    first, dots, last = text.partition("..")
    tip, repository = _commit(place, last if dots else first, cache, progress)
    if not dots:
        return tuple(_letters(repository, [tip]))
    base, _ = _commit(place, first, cache, progress)
    commits = _between(repository, base, tip, text)
    return tuple(_letters(repository, commits))


def _place(tree: Tree, text: str) -> str:
    """Return the PATH or URL that the tree came from."""
    if tree.commit is None or not tree.reference.startswith("git:"):
        raise UsageError(
            f"git:{text} names commits of the reference's repository, "
            f"but {tree.reference} is no git reference",
            advice=f"git -C CLONE format-patch --stdout {text} | xenverify verify - --on …",
        )
    return git_sources.split(tree.reference.removeprefix("git:")).place


def _commit(place: str, revision: str, cache: Cache, progress: Progress) -> tuple[str, Path]:
    """Return the commit a revision names for the user, and the repository to read it in."""
    named = references.resolve(f"git:{place}@{revision or 'HEAD'}", cache, progress)
    assert named.commit is not None
    return named.commit, named.repository


def _between(repository: Path, base: str, tip: str, text: str) -> list[str]:
    """Return the commits of A..B, oldest first; there must be some, and no merge among them."""
    listed = _ask(
        repository, "rev-list", "--reverse", "--topo-order", "--parents", f"{base}..{tip}"
    )
    commits = [line.split() for line in listed.splitlines()]
    for commit, *parents in commits:
        if len(parents) > 1:
            raise _merge(commit, "the range contains")
    if commits:
        return [commit for commit, *_ in commits]
    backwards = _ask(repository, "rev-list", "--max-count=1", f"{tip}..{base}")
    first, _, last = text.partition("..")
    raise ChangeError(
        f"there is no commit in {last or 'HEAD'} that is not in {first or 'HEAD'}",
        advice=f"The other way round there are some:  git:{last}..{first}" if backwards else "",
    )


def _letters(repository: Path, commits: list[str]) -> Iterator[Letter]:
    """Yield each commit as a letter; one that changes no file is passed over."""
    for number, commit in enumerate(commits, start=1):
        form = "--format=%P%x00%an <%ae>%x00%aI%x00%s"
        fields = _ask(repository, "show", "--no-patch", form, commit).rstrip("\n").split("\0")
        parents, author, date, subject = fields
        if len(parents.split()) > 1:
            raise _merge(commit, "this is")
        yield Letter(
            subject=subject,
            author=author,
            date=date,
            text=git(repository, *_DIFF, commit),
            position=(number, len(commits)) if len(commits) > 1 else None,
        )


def _ask(repository: Path, *arguments: str) -> str:
    try:
        return git(repository, *arguments).decode(errors="replace")
    except GitError as error:
        raise UsageError(
            f"the history cannot be read: {error}",
            advice="A shallow clone lacks it; git fetch --unshallow brings it.",
        ) from None


def _merge(commit: str, what: str) -> ChangeError:
    return ChangeError(
        f"{what} the merge {commit[:12]}, which is no patch",
        advice=f"Name what it merged:  git:{commit[:12]}^1..{commit[:12]}^2",
    )
