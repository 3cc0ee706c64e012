"""A reference in, the tree it names out.

Comes in: what a user typed: `debian:VERSION|SUITE`, `git:PATH-or-URL@REV`, or a directory.
Goes out: a `Tree` whose object lies in a repository of ours in the cache.
Refuses to know: how each kind is fetched; debian_sources, git_sources and directory_sources do.
"""

from __future__ import annotations

from pathlib import Path

from harness import directory_sources, git_sources
from harness.cache import Cache
from harness.errors import UsageError
from harness.progress import Progress, quiet
from harness.projects import XEN, Project
from harness.sent import sent
from harness.trees import Tree, describe_tree

__all__ = ["Tree", "resolve"]

FORMS = (
    "debian:VERSION or debian:SUITE    debian:4.17, debian:bookworm",
    "git:PATH-or-URL@REV               git:~/xen@staging, git:https://…/xen.git@RELEASE-4.20.0",
    "DIRECTORY                         ~/xen, as it stands",
)


def resolve(
    reference: str, cache: Cache, progress: Progress = quiet, project: Project = XEN
) -> Tree:
    """Return the tree that `reference` names; raises UsageError if it names none."""
    kind, colon, rest = reference.partition(":")
    if (tree := _sent(reference, project)) is not None:
        return tree
    if colon and kind == "debian":
        from harness import debian_sources  # python-debian is only imported where it is needed

        return debian_sources.resolve(rest, cache, progress, project)
    if colon and kind == "git":
        return git_sources.resolve(rest, cache, progress, project)
    directory = Path(reference).expanduser()
    if directory.exists():
        return directory_sources.resolve(reference, directory, cache, progress, project)
    raise UsageError(
        f"{reference!r} names no {project.name}", evidence=FORMS, advice="Use one of these forms."
    )


def _sent(reference: str, project: Project) -> Tree | None:
    """Return the tree that another machine sent along with the command, None if it did not."""
    along = sent()
    if (found := along.trees.get(reference)) is not None:
        return describe_tree(
            reference=reference,
            repository=Path(found.repository),
            tree=found.tree,
            label=found.label,
            commit=found.commit,
            project=project,
        )
    return None
