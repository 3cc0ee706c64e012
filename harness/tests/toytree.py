"""A clone with a few commits in, trees of it out: what the tests of changes are tried on.

Comes in: a temporary directory. Goes out: a `Toy`, a real git clone of files that we wrote, with
just enough in it that a reference to it resolves. It refuses to hold anything of Xen's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.cache import Cache
from harness.references import resolve
from harness.trees import Tree

DATA = Path(__file__).parent / "data" / "changes"
BELL, CLOCK, ROPE = "xen/common/bell.c", "xen/arch/arm/clock.c", "xen/common/rope.c"


@dataclass(frozen=True)
class Toy:
    """A git clone below a test's temporary directory, and a cache beside it."""

    path: Path
    cache: Cache

    def git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run git in the clone as its owner would; it must succeed."""
        who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in _ME}
        environment = os.environ | who | {"GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=environment, input=stdin, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def line(self, *arguments: str) -> str:
        """Run git and return what it printed as one line."""
        return self.git(*arguments).decode().strip()

    def write(self, name: str, content: str | bytes) -> None:
        """Write one file of the work tree."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace `old`, which must be there, in one file of the work tree."""
        text = (self.path / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new, 1))

    def commit(self, subject: str) -> str:
        """Commit the work tree as it is and return the commit's id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)
        return self.line("rev-parse", "HEAD")

    def tree(self, revision: str = "HEAD") -> Tree:
        """Return the tree of a revision as the harness resolves it."""
        return resolve(f"git:{self.path}@{revision}", self.cache)

    def tree_id(self, revision: str = "HEAD") -> str:
        """Return git's id of a revision's tree."""
        return self.line("rev-parse", f"{revision}^{{tree}}")


_ME = (
    ("NAME", "Tess Tester"),
    ("EMAIL", "tess@bells.example"),
    ("DATE", "2026-03-04T10:00:00+01:00"),
)


def make_toy(directory: Path) -> Toy:
    """Return a clone whose one commit holds the files in `data/changes/tree`."""
    path = directory / "toy"
    shutil.copytree(DATA / "tree", path)
    toy = Toy(path, Cache(directory / "cache"))
    toy.git("init", "--quiet", "--initial-branch=main")
    toy.commit("Hang the bells")
    return toy
