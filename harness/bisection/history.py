"""A repository and two of its commits in, the graph between them out, read with git.

Comes in: a bare git directory and two commit ids. Goes out: `History`: a `Graph`, fork points, and
what git has to say about each commit. Refuses to know: Xen builds, outcomes, searching.

Which commits share a neighbour's result is decided here, from git's tree ids alone: those that
leave alone what the hypervisor's build reads, and those that touch another architecture's part
only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.bisection.graph import Graph
from harness.errors import HarnessError, UsageError
from harness.git import GitError, git
from harness.projects import XEN

# The directories of xen/ that hold one folder for each architecture, and how the folders are named.
# A build reads those of its own architecture and of none other: xen/Makefile sets SRCARCH and
# descends into arch/$(TARGET_ARCH) only, xen/Kconfig sources arch/$(SRCARCH)/Kconfig only, and up
# to 4.16 include/asm is a link to include/asm-$(TARGET_ARCH). `make clean` alone goes everywhere.
# harness/tests/real proves it: without the other folders the very same binary comes out.
BY_ARCHITECTURE = {"arch": "{}", "include": "asm-{}"}
ARCHITECTURES = ("arm", "ppc", "riscv", "x86")
SOURCE_ARCHITECTURE = {"arm32": "arm", "arm64": "arm"}

FORMAT = "%H%x00%P%x00%an <%ae>%x00%aI%x00%s"


@dataclass(frozen=True)
class Commit:
    """One commit as a report names it."""

    id: str
    parents: tuple[str, ...]
    author: str  # name and address
    date: str  # ISO 8601, the author's own
    subject: str

    def __str__(self) -> str:
        return f"{self.id[:10]} {self.subject}"


@dataclass(frozen=True)
class History:
    """The commits that `new` has and `old` has not, in one bare repository."""

    repository: Path
    old: str
    new: str
    arch: str = "arm64"

    @cached_property
    def commits(self) -> dict[str, Commit]:
        """Every commit of the range, parents first."""
        arguments = ("--topo-order", "--reverse", self.new, f"^{self.old}")
        return {commit.id: commit for commit in self._log(*arguments)}

    @cached_property
    def graph(self) -> Graph:
        """The range's commits with their sources."""
        parents = {commit.id: commit.parents for commit in self.commits.values()}
        outside = (p for ancestors in parents.values() for p in ancestors if p not in parents)
        return Graph(parents, self.sources([*parents, *dict.fromkeys(outside)]))

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Why each commit that shares another's result does so."""
        graph = self.graph
        shared = dict(graph.sharing())
        whole = self._keys([*shared, *shared.values()], other_architectures=True)
        return {
            commit: "changes nothing the hypervisor is built from"
            if whole[commit] == whole[other]
            else "changes other architectures only"
            for commit, other in shared.items()
        }

    def describe(self, commit: str) -> Commit:
        """Return what git says about one commit, of the range or not."""
        return self.commits.get(commit) or next(self._log("-1", commit))

    def merge_bases(self, one: str, other: str) -> tuple[str, ...]:
        """Return the best common ancestors of two commits; none for unrelated histories."""
        known = self._merge_bases
        if (one, other) not in known:
            try:
                said = git(self.repository, "merge-base", "--all", one, other)
            except GitError:
                said = b""  # git's exit status for "none", which leaves nothing on stderr either
            known[one, other] = tuple(said.decode().split())
        return known[one, other]

    @cached_property
    def _merge_bases(self) -> dict[tuple[str, str], tuple[str, ...]]:
        return {}

    def sources(self, commits: Iterable[str]) -> dict[str, str]:
        """Return a key for each commit: equal keys mean equal sources for this architecture."""
        return self._keys(commits, other_architectures=False)

    def _log(self, *arguments: str) -> Iterator[Commit]:
        try:
            said = git(self.repository, "log", "-z", f"--format={FORMAT}", *arguments, "--")
        except GitError as error:
            raise HarnessError(
                f"git cannot read the history in {self.repository}: {error}",
                advice="Is the clone whole? `git fsck` tells.",
            ) from None
        fields = said.decode(errors="replace").split("\0")
        for at in range(0, len(fields) - 4, 5):
            commit, parents, author, date, subject = fields[at : at + 5]
            yield Commit(commit, tuple(parents.split()), author, date, subject)

    def _keys(self, commits: Iterable[str], *, other_architectures: bool) -> dict[str, str]:
        """Hash what the build reads of each commit, perhaps less other architectures' folders."""
        names = list(dict.fromkeys(commits))
        found = _object_ids(self.repository, (f"{c}:{p}" for c in names for p in XEN.reads))
        parts = {c: {p: found[f"{c}:{p}"] for p in XEN.reads} for c in names}
        if not other_architectures:
            pruned = self._pruned({ids["xen"] for ids in parts.values()})
            for ids in parts.values():
                ids["xen"] = pruned[ids["xen"]]
        return {c: _digest(ids) for c, ids in parts.items()}

    def _pruned(self, trees: set[str]) -> dict[str, str]:
        """Return for each xen/ tree a hash of it without the other architectures' folders."""
        own = SOURCE_ARCHITECTURE.get(self.arch, self.arch)
        others = {
            folder: {name.format(other) for other in ARCHITECTURES if other != own}
            for folder, name in BY_ARCHITECTURE.items()
        }
        tops = _read_trees(self.repository, trees)
        inner = {top[folder] for top in tops.values() for folder in others if folder in top}
        folders = _read_trees(self.repository, inner)

        def content(top: Mapping[str, str]) -> Iterator[tuple[str, str]]:
            for name, entry in top.items():
                drop = others.get(name, set()) if entry in folders else set()
                kept = {n: e for n, e in folders.get(entry, {}).items() if n not in drop}
                yield name, _digest(kept) if drop else entry

        return {tree: _digest(dict(content(top))) for tree, top in tops.items()}


def between(repository: Path, old: str, new: str, arch: str = "arm64") -> History:
    """Return the history between two commits; raises UsageError if there is none to search."""
    history = History(repository, old, new, arch)
    if old == new:
        raise UsageError(
            f"good and bad are the same commit, {history.describe(old)}",
            advice="Name two commits whose Xens behave differently.",
        )
    bases = history.merge_bases(old, new)
    shallow = git(repository, "rev-parse", "--is-shallow-repository").strip() == b"true"
    if not bases:
        raise UsageError(
            f"{old[:10]} and {new[:10]} have no common ancestor",
            evidence=["The clone is shallow: history was cut off."] if shallow else [],
            advice="Complete it with `git fetch --unshallow`."
            if shallow
            else "Name two commits of one history.",
        )
    if new in bases:
        raise UsageError(
            f"the new end, {history.describe(new)}, is an ancestor of the old end",
            evidence=[f"the old end is {history.describe(old)}"],
            advice="Swap --good and --bad; or, to find the commit that fixed it, add --fixed.",
        )
    return history


def _digest(parts: Mapping[str, str]) -> str:
    text = "".join(f"{name} {value}\n" for name, value in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _object_ids(repository: Path, names: Iterable[str]) -> dict[str, str]:
    """Return git's object id for each REV:PATH, "" where there is no such path."""
    asked = list(names)
    said = git(
        repository, "cat-file", "--batch-check=%(objectname)",
        stdin="".join(f"{name}\n" for name in asked).encode(),
    )  # fmt: skip
    ids = (line.partition(" ") for line in said.decode().splitlines())
    return {
        name: "" if rest.endswith("missing") else first
        for name, (first, _, rest) in zip(asked, ids, strict=True)
    }


def _read_trees(repository: Path, trees: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the entries of each tree object: mode and object id by name. Blobs have none."""
    asked = sorted(tree for tree in trees if tree)
    said = git(repository, "cat-file", "--batch", stdin="\n".join([*asked, ""]).encode())
    found = {}
    at = 0
    for tree in asked:
        end = said.index(b"\n", at)
        _, kind, size = said[at:end].split()
        start = end + 1
        at = start + int(size) + 1
        if kind == b"tree":
            found[tree] = dict(_entries(said[start : start + int(size)], len(tree) // 2))
    return found


def _entries(raw: bytes, hash_bytes: int) -> Iterator[tuple[str, str]]:
    """Yield name and object id of each entry of a tree object, as git stores it."""
    at = 0
    while at < len(raw):
        zero = raw.index(b"\0", at)
        name = raw[at:zero].split(b" ", 1)[1].decode(errors="surrogateescape")
        at = zero + 1 + hash_bytes
        yield name, raw[zero + 1 : at].hex()
