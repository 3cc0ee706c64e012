"""A git tree object in, what a build reads of it out.

Comes in: a bare repository of ours and the id of a tree object in it. Goes out: `Tree`, the value
that every later stage takes. Refuses to know: how a reference was written,
and where the tree came from.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from harness.cache import Cache
from harness.errors import HarnessError, UsageError
from harness.git import GitError, create_bare, git
from harness.projects import XEN, Project


@dataclass(frozen=True)
class Tree:
    """The source of one Xen (or another project), with or without changes on top."""

    reference: str  # as the user typed it
    repository: Path  # a bare git directory of ours that holds the tree object
    tree: str  # git's id of the whole source
    commit: str | None  # for git references
    version: str  # "4.17.5", from the project's Makefile
    label: str  # for people: "debian 4.17.5+23-ga4e5191dc0-1", "git staging 52196c8cd9"
    identity: str  # hash of what the build reads: equal identities build equal Xens
    changes: tuple[str, ...] = ()  # the names of what was applied on top
    project: Project = XEN

    @property
    def release(self) -> tuple[int, int]:
        """Return (4, 17) for 4.17.5, for tables by version."""
        major, minor = re.findall(r"\d+", self.version)[:2]
        return int(major), int(minor)

    def changed(self, tree: str, change: str) -> Tree:
        """Return this source with `change` on top, as the tree object `tree` has it."""
        return replace(
            self,
            tree=tree,
            version=read_version(self.repository, tree, self.reference, self.project),
            identity=read_identity(self.repository, tree, self.project),
            changes=(*self.changes, change),
        )

    def checkout(self, destination: Path) -> None:
        """Write what the project's build reads below `destination`, and nothing else."""
        destination.mkdir(parents=True, exist_ok=True)
        try:
            self._checkout(destination)
        except GitError as error:
            raise HarnessError(
                f"the source of {self.reference} is damaged or incomplete: {error}",
                evidence=error.lines[1:4],
                advice="For a git clone, `git fsck` tells more, and a fresh clone mends it; for"
                " anything else, `xenverify cache` can remove what was kept.",
            ) from None

    def _checkout(self, destination: Path) -> None:
        wanted = self.project.reads
        listing = git(self.repository, "ls-tree", "-r", "-z", self.tree, "--", *wanted)
        with tempfile.TemporaryDirectory(prefix="xenverify-index-") as directory:
            index = {"GIT_INDEX_FILE": f"{directory}/index"}
            git(
                self.repository, "update-index", "-z", "--index-info",
                stdin=listing, environment=index,
            )  # fmt: skip
            git(
                self.repository, "--work-tree", destination, "checkout-index", "--all", "--quiet",
                environment=index,
            )  # fmt: skip


def describe_tree(
    *,
    reference: str,
    repository: Path,
    tree: str,
    label: str,
    commit: str | None = None,
    project: Project = XEN,
) -> Tree:
    """Return the Tree for a tree object; raises UsageError if it is not the project's source."""
    return Tree(
        reference,
        repository,
        tree,
        commit,
        version=read_version(repository, tree, reference, project),
        label=label,
        identity=read_identity(repository, tree, project),
        project=project,
    )


def read_identity(repository: Path, tree: str, project: Project = XEN) -> str:
    """Return the hash over the parts of a tree that the project's build reads."""
    listing = git(repository, "ls-tree", "-z", tree, "--", *project.reads)
    return hashlib.sha256(listing).hexdigest()


def read_version(repository: Path, tree: str, reference: str, project: Project = XEN) -> str:
    """Return the version that the Makefile states; raises UsageError if it states none."""
    try:
        makefile = git(repository, "cat-file", "blob", f"{tree}:{project.makefile}")
    except GitError:
        makefile = b""
    version = project.version(makefile.decode(errors="replace"))
    if version is None:
        raise not_a_source(reference, project, f"no version in its {project.makefile}")
    return version


def not_a_source(reference: str, project: Project, reason: str) -> UsageError:
    """Return the error that says that `reference` is something else than the project's source."""
    return UsageError(
        f"{reference} is not the source of {project.name}: {reason}",
        advice=f"Name the directory or revision that has {project.name}'s top level, with"
        f" {project.makefile} in it.",
    )


def import_directory(repository: Path, directory: Path) -> str:
    """Store everything below `directory` as a tree object, and return its id."""
    with tempfile.TemporaryDirectory(prefix="xenverify-index-") as scratch:
        index = {"GIT_INDEX_FILE": f"{scratch}/index"}
        git(
            repository, "--work-tree", directory, "add", "--all", "--force", ".",
            environment=index,
        )  # fmt: skip
        return git(repository, "write-tree", environment=index).decode().strip()


def sources(cache: Cache) -> Path:
    """Return the repository for trees that come from no git: unpacked packages and directories."""
    repository = cache.root / "git" / "sources.git"
    create_bare(repository)
    return repository
