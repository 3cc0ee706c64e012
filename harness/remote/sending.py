"""What a command line names in, the same on another machine out.

Comes in: `Named`, the references and changes of a command line, and its files. Goes out: nothing,
but the other machine then has each tree, and `harness.sent` there finds it by the user's own words;
files are where a command that runs there looks for them.

Of a Xen only the source goes over, without its history, and only what was not there before. A
repository that is to be searched goes over whole.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import fabric

from harness import git_sources, ranges
from harness.cache import Cache
from harness.errors import UsageError
from harness.git import GitError, git
from harness.progress import Progress
from harness.projects import Project
from harness.references import Tree, resolve
from harness.remote.connection import LOST, SECONDS_TO_ANSWER, Address, ask, lost
from harness.sent import Sent, SentTree

REPOSITORY = "sent.git"
REFS = "refs/sent"
SECONDS_TO_INDEX = 1800.0  # the whole history of Xen takes git a minute or two
# Who made a commit that stands for a tree, and when, is the same for the same tree.
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "xenverify"), ("EMAIL", "xenverify"), ("DATE", "@0 +0000"))
}
FOREIGN = "elsewhere"  # where files go that are not below the directory the command was given in


@dataclass(frozen=True)
class Named:
    """What a command line names, in the user's words."""

    references: tuple[tuple[str, Project], ...] = ()
    changes: tuple[str, ...] = ()
    repository: str = ""  # to be searched; then every reference is a revision in it


@dataclass(frozen=True)
class File:
    """A file or folder on its way."""

    path: Path  # here
    name: str  # there, relative to where the command runs


def is_local(reference: str) -> bool:
    """Whether only this machine knows what a reference means."""
    kind, colon, rest = reference.partition(":")
    if colon and kind == "debian":
        return False
    return not (colon and kind == "git" and git_sources.split(rest).is_url)


def place_file(word: str) -> File:
    """Return where a file or folder goes; its name stays, if it is below this directory."""
    path = Path(word).expanduser().absolute()
    if not Path(word).is_absolute() and path.resolve().is_relative_to(Path.cwd().resolve()):
        return File(path, word)
    return File(path, f"{FOREIGN}/{'-'.join(path.parts[1:-1])[-80:]}/{path.name}")


def contents(files: Sequence[File]) -> Iterator[tuple[Path, str]]:
    """Every file, those in folders included, and its name there."""
    for file in files:
        if file.path.is_dir():
            for path in sorted(file.path.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    yield path, f"{file.name}/{path.relative_to(file.path)}"
        elif file.path.is_file():
            yield file.path, file.name


class Sender:
    """Sends sources to one machine; `place` is our directory there."""

    def __init__(
        self, connection: fabric.Connection, address: Address, place: str, progress: Progress
    ) -> None:
        self._connection = connection
        self._address = address
        self._place = place
        self._repository = f"{place}/{REPOSITORY}"
        self._progress = progress
        self._known: set[str] | None = None

    def send(self, named: Named, cache: Cache) -> Sent:
        """Send every source that only this machine knows.

        Raises UsageError for what there is not, as the command itself would.
        """
        if named.repository:
            return self._send_repository(named, cache)
        trees = {}
        letters = {}
        first: Tree | None = None
        for reference, project in named.references:
            if is_local(reference):
                tree = resolve(reference, cache, self._progress, project)
                first = first or tree
                trees[reference] = self._send_tree(tree)
        for change in named.changes:
            if change.startswith("git:") and first is not None:
                found = ranges.read(change.removeprefix("git:"), first, cache, self._progress)
                letters[change] = found
        return Sent(trees, letters=letters)

    def _send_repository(self, named: Named, cache: Cache) -> Sent:
        if git_sources.split(named.repository).is_url:
            return Sent()
        trees, letters = {}, {}
        for revision, _ in named.references:
            reference = f"git:{named.repository}@{revision}"
            tree = resolve(reference, cache, self._progress)
            if tree.commit is None:  # never for git:
                raise UsageError(f"{reference} names no commit")
            self._send_commit(tree.repository, tree.commit)
            trees[reference] = SentTree(self._repository, tree.tree, tree.commit, tree.label)
            for change in named.changes:
                if change.startswith("git:") and change not in letters:
                    text = change.removeprefix("git:")
                    letters[change] = ranges.read(text, tree, cache, self._progress)
        return Sent(trees, {named.repository: self._repository}, letters)

    def _send_tree(self, tree: Tree) -> SentTree:
        """Send a tree without its history."""
        message = b"a tree that was sent\n"
        made = git(tree.repository, "commit-tree", tree.tree, stdin=message, environment=IDENTITY)
        self._send_commit(tree.repository, made.decode().strip())
        return SentTree(self._repository, tree.tree, None, tree.label)

    def _send_commit(self, repository: Path, commit: str) -> None:
        """Send a commit with all that it stands on, as far as it is not there yet."""
        known = self._known_there()
        if commit in known:
            return
        self._progress("looking up which sources to send")
        shared = "".join(f"^{one}\n" for one in sorted(known) if _has(repository, one))
        pack = git(
            repository, "pack-objects", "--revs", "--thin", "--stdout", "--quiet",
            stdin=f"{commit}\n{shared}".encode(),
        )  # fmt: skip
        self._progress(f"sending sources to {self._address}, {len(pack) / (1 << 20):.1f} MiB")
        aside = f"{self._place}/{commit}.pack"
        with tempfile.TemporaryFile() as file:
            file.write(pack)
            file.seek(0)
            try:
                self._connection.put(file, aside)
            except LOST as problem:
                raise lost(self._address, problem) from None
        self._ask(
            f"trap 'rm -f {shlex.quote(aside)}' EXIT\n"
            f"git index-pack --stdin --fix-thin < {shlex.quote(aside)} > /dev/null\n"
            f"git update-ref {REFS}/{commit} {commit}\n",
            SECONDS_TO_INDEX,
        )
        known.add(commit)

    def _known_there(self) -> set[str]:
        """Return the commits that were sent before."""
        if self._known is None:
            listed = self._ask(
                f"[ -d {shlex.quote(self._repository)} ]"
                f" || git init -q --bare --template= {shlex.quote(self._repository)}\n"
                f"git for-each-ref --format='%(objectname)' {REFS}\n"
            )
            self._known = set(listed.split())
        return self._known

    def _ask(self, script: str, seconds: float = SECONDS_TO_ANSWER) -> str:
        prefix = f"set -e\nexport GIT_DIR={shlex.quote(self._repository)}\n"
        return ask(self._connection, self._address, prefix + script, seconds)


def _has(repository: Path, commit: str) -> bool:
    try:
        git(repository, "cat-file", "-e", f"{commit}^{{commit}}")
    except GitError:
        return False
    return True
