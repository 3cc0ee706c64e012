"""A directory in, the tree of what it holds at this moment out, uncommitted edits included.

Comes in: a path. Goes out: a `Tree` whose object is a copy in a repository of ours. Refuses to
know: what is done with it. Nothing is ever written into the directory.

In a git work tree the source is what git tracks and what is new and not ignored. Elsewhere it is
every file but what its own .gitignore files, or the project, say is made by a build.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from harness.cache import Cache
from harness.errors import UsageError
from harness.git import GitError, git, run_git
from harness.progress import Progress, quiet
from harness.projects import XEN, Project
from harness.trees import Tree, describe_tree, not_a_source, sources


def resolve(
    reference: str,
    directory: Path,
    cache: Cache,
    progress: Progress = quiet,
    project: Project = XEN,
) -> Tree:
    """Return the tree of `directory` as it stands."""
    directory = directory.resolve()
    if not directory.is_dir():
        raise UsageError(f"{reference} is no directory")
    if not (directory / project.makefile).is_file():
        raise not_a_source(reference, project, f"it has no {project.makefile}")
    repository = sources(cache)
    progress(f"reading {reference}")
    if _is_work_tree(directory, project):
        paths = _tracked(directory, reference)
    else:
        paths = _found(directory, repository, project)
    index = cache.root / "git" / "indexes" / hashlib.sha256(bytes(directory)).hexdigest()[:16]
    with cache.lock(f"index-{index.name}", progress=progress):
        try:
            tree = _import(repository, directory, paths, index)
        except GitError:
            index.unlink(missing_ok=True)  # it may be what is wrong
            try:
                tree = _import(repository, directory, paths, index)
            except GitError as error:
                raise UsageError(
                    f"{reference} cannot be read: {error}", evidence=error.lines[1:4]
                ) from None
    return describe_tree(
        reference=reference,
        repository=repository,
        tree=tree,
        label=f"directory {directory.name} {tree[:10]}",
        project=project,
    )


def _is_work_tree(directory: Path, project: Project) -> bool:
    """Say whether a .git belongs to `directory` or to one above that tracks its Makefile."""
    if (directory / ".git").exists():
        return True
    try:
        return bool(run_git("-C", directory, "ls-files", "--", project.makefile))
    except GitError:
        return False


def _tracked(directory: Path, reference: str) -> list[bytes]:
    """Return the paths that git tracks or would add, deleted ones left out."""
    try:
        listing = run_git(
            "-C", directory, "ls-files", "-z", "--deduplicate",
            "--cached", "--others", "--exclude-standard",
            of_user=True,
        )  # fmt: skip
    except GitError as error:
        raise UsageError(
            f"the git repository of {reference} is damaged: {error}",
            evidence=error.lines[1:4],
            advice=f"`git -C {directory} fsck` tells more; a copy without .git is read as it is.",
        ) from None
    return listing.split(b"\0")


def _found(directory: Path, repository: Path, project: Project) -> list[bytes]:
    """Return the paths below a directory that git does not track, without build products."""
    patterns = [f"--exclude={pattern}" for pattern in (*project.products, ".git", ".hg", ".pc")]
    listing = run_git(
        "-C", directory, "--git-dir", repository, "--work-tree", directory,
        "ls-files", "-z", "--others", "--exclude-standard", *patterns,
    )  # fmt: skip
    return listing.split(b"\0")


def _import(repository: Path, directory: Path, paths: list[bytes], index: Path) -> str:
    """Store the files as a tree object and return its id; the caller holds the lock of `index`.

    The index is kept: git reads again only what has changed since the last time.
    """
    index.parent.mkdir(parents=True, exist_ok=True)
    index.with_suffix(".lock").unlink(missing_ok=True)  # of a run that was killed
    environment = {"GIT_INDEX_FILE": str(index)}
    present = {path for path in paths if _is_source(directory, path)}
    known = set(git(repository, "ls-files", "-z", environment=environment).split(b"\0")) - {b""}
    _update(repository, directory, environment, known - present, "--force-remove")
    _update(repository, directory, environment, present, "--add", "--replace")
    return git(repository, "write-tree", environment=environment).decode().strip()


def _update(
    repository: Path, directory: Path, index: dict[str, str], paths: set[bytes], *options: str
) -> None:
    if paths:
        stdin = b"".join(path + b"\0" for path in sorted(paths))
        command: tuple[str | Path, ...] = (
            "--work-tree",
            directory,
            "update-index",
            *options,
            "-z",
            "--stdin",
        )
        git(repository, *command, stdin=stdin, environment=index)


def _is_source(directory: Path, path: bytes) -> bool:
    """Say whether a listed path is there as a file or link: no submodule, no socket."""
    if not path or path.endswith(b"/"):
        return False
    file = directory / os.fsdecode(path)
    return file.is_symlink() or file.is_file()
