"""A series that does not apply in, the commit of the same repository where it would out.

Comes in: a tree of a git reference, and a series. Goes out: a sentence of advice, or nothing where
that is not cheap to tell. It refuses to take much longer than `PATIENCE_SECONDS`, and to fetch.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from harness import git_sources
from harness.git import GitError, git, run_git
from harness.references import Tree
from harness.series import Series

# The history of one file of xen.git's 62,000 commits takes git 1.2 s, that of seven files 3 to 4 s,
# one year of it in every branch 0.8 s (2 cores, no commit-graph).
PATIENCE_SECONDS = 2.0
# The branches patches are made on, where a repository has them.
BRANCHES = ("HEAD", "master", "staging", "main")


class Applies(Protocol):
    """Says whether every patch of a series applies to a tree, or goes in reverse."""

    def __call__(
        self, tree: str, series: Series, *, reverse: bool, merging: bool = False
    ) -> bool: ...


def where_it_applies(tree: Tree, series: Series, reverse: bool, applies: Applies) -> str:
    """Return advice that names the newest commit found where the series applies, or nothing."""
    if tree.commit is None:
        return ""
    deadline = time.monotonic() + PATIENCE_SECONDS
    for commit in _candidates(tree, series, reverse, deadline):
        if time.monotonic() > deadline:
            return ""
        try:
            form = "--format=%T%x00%h%x00%as%x00%s"
            found = git(tree.repository, "show", "--no-patch", form, commit)
        except GitError:  # a base the author has and this repository has not
            continue
        tree_id, short, day, subject = found.decode(errors="replace").strip().split("\0")
        if applies(tree_id, series, reverse=reverse):
            place = git_sources.split(tree.reference.removeprefix("git:")).place
            return f'It applies to {short} ({day} "{subject}"):  --on git:{place}@{short}'
    return ""


def _candidates(tree: Tree, series: Series, reverse: bool, deadline: float) -> Iterator[str]:
    """Yield commits worth a trial: bases its author names, those of its day, then by its blobs."""
    yield from dict.fromkeys(base for patch in series.patches for base in patch.bases)
    day = _day(series)
    if day is not None:
        yield from _of_day(tree, day)
    first = series.patches[-1 if reverse else 0]
    wanted: dict[str, str] = {}  # file: the id, often abbreviated, of the blob it should have
    for file in first.files:
        name, blob = file.old_name, file.old_blob
        if reverse:
            name, blob = file.new_name, file.new_blob
        if name and blob and blob.strip("0"):
            wanted[name] = blob
    if wanted:
        since = day - timedelta(days=365) if day is not None else None
        yield from _holding(tree, wanted, since, deadline)


def _day(series: Series) -> datetime | None:
    """Return when the series was made, if it says so."""
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(series.patches[0].date)
    return None


def _of_day(tree: Tree, day: datetime) -> Iterator[str]:
    """Yield what the main branches were on that day."""
    assert tree.commit is not None
    for branch in (*_tips(tree, BRANCHES), tree.commit):
        with contextlib.suppress(GitError):
            before = f"--before={day.isoformat()}"
            listed = git(tree.repository, "rev-list", "--max-count=1", before, branch)
            yield from listed.decode().split()


def _holding(
    tree: Tree, wanted: dict[str, str], since: datetime | None, deadline: float
) -> Iterator[str]:
    """Yield commits, newest first, after which every file in `wanted` has the blob it should."""
    assert tree.commit is not None
    try:
        for blob in wanted.values():
            git(tree.repository, "rev-parse", "--verify", "--quiet", f"{blob}^{{blob}}")
        listed = git(
            tree.repository, "log", "--stdin", "--ignore-missing", "--format=commit %H %P", "--raw",
            "--no-abbrev", "--no-renames", *([f"--since={since.isoformat()}"] if since else []),
            "--", *wanted,
            stdin="\n".join([tree.commit, *_tips(tree)]).encode() + b"\n",
            timeout=max(0.1, deadline - time.monotonic()),
        )  # fmt: skip
    except GitError:
        return
    except subprocess.TimeoutExpired as late:
        listed = late.stdout or b""
    commit, parents = "", list[str]()
    for line in listed.decode(errors="surrogateescape").splitlines():
        words = line.split()
        if line.startswith("commit "):
            commit, parents = words[1], words[2:]
        elif line.startswith(":") and "\t" in line:
            blob = wanted.get(line.split("\t", 1)[1], "")
            before, after = words[2], words[3]
            here = commit if blob and after.startswith(blob) else ""
            here = parents[0] if blob and before.startswith(blob) and parents else here
            if here and _holds(tree, here, wanted):
                yield here


def _tips(tree: Tree, names: Sequence[str] = ()) -> list[str]:
    """Return the commits of `names` or of every branch and tag.

    They are asked of the user's clone itself, for its mirror has none.
    """
    location = git_sources.split(tree.reference.removeprefix("git:"))
    clone = tree.repository if location.is_url else Path(location.place).expanduser()
    try:
        if not names:
            return run_git("-C", clone, "for-each-ref", "--format=%(objectname)").decode().split()
        checks = "".join(f"{name}^{{commit}}\n" for name in names).encode()
        known = run_git("-C", clone, "cat-file", "--batch-check=%(objectname)", stdin=checks)
    except GitError:
        return []
    lines = known.decode(errors="replace").splitlines()
    return list(dict.fromkeys(line for line in lines if not line.endswith("missing")))


def _holds(tree: Tree, commit: str, wanted: dict[str, str]) -> bool:
    """Whether every file in `wanted` has the blob it should in `commit`."""
    listed = git(tree.repository, "ls-tree", "-z", commit, "--", *wanted).decode(
        errors="surrogateescape"
    )
    there = {
        name: fields.split()[2]
        for fields, name in (entry.split("\t", 1) for entry in listed.split("\0") if entry)
    }
    return all(there.get(name, "").startswith(blob) for name, blob in wanted.items())
