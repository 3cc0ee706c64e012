"""A Xen tree in, a git repository with a history around it out, in which one commit is to blame.

    base ─ docs ─ comment ─ x86 ── merge-a ─ broken ─ still-broken ─ builds ─ no-boot ─ boots ─ …
                     └── a1 ─ a2 ─────┘
    … boots ─ panics ──── aside ──── merge-b ─ notes
                 └─ GUILTY ─ b2 ─ b3 ───┘

Halving leads into both obstacles at once, to `no-boot` and then to `still-broken`, and later to b2
and GUILTY, which are one binary.

Everything is made by real git with fixed dates: the same tree gives the same commit ids everywhere.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.tests.edits import EDITS, Edit
from harness.trees import Tree

Change = Callable[[str], str | None]
MEMORY = "xen/common/memory.c"
KERNEL = "xen/common/kernel.c"
X86 = "xen/arch/x86/mm.c"
# The case that fails from GUILTY on; `panics` crashes others, which remove what is mapped.
CASE = "testcases/shared_info/test_one_mapping.py::test_second_map_is_refused"
OTHER_CASE = "testcases/shared_info/test_one_mapping.py::test_can_be_mapped_again_where_it_was"


def _panic_on_removal(text: str) -> str | None:
    """Make Xen panic when a guest removes a page."""
    pattern = r"(copy_from_guest\(&xrfp, arg, 1\) \)\s+return -EFAULT;\n)"
    changed, count = re.subn(pattern, r'\1        panic("xenverify: a page removed\\n");\n', text)
    return changed if count == 1 else None


PANIC_ON_REMOVAL = Edit("panic when a guest removes a page", (MEMORY,), _panic_on_removal)


@dataclass
class History:
    """A work tree with a repository, and its commits by name."""

    path: Path
    ids: dict[str, str] = field(default_factory=dict)
    _clock: int = 1_700_000_000

    def git(self, *arguments: str) -> str:
        """Run git here, under a fixed name and clock."""
        date = f"{self._clock} +0000"
        person = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "Ada"), ("EMAIL", "ada@example.org"), ("DATE", date))
        }
        clean = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", "-C", self.path, *arguments],
            env={**os.environ, **clean, **person},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, name: str) -> None:
        """Commit whatever the work tree holds."""
        self._clock += 60
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--message", f"{name}: planted for a test")
        self._note(name)

    def merge(self, name: str, other: str) -> None:
        """Merge another branch."""
        self._clock += 60
        self.git("merge", "--quiet", "--no-ff", "--message", f"{name}: planted for a test", other)
        self._note(name)

    def branch(self, name: str, at: str) -> None:
        """Go on from an earlier commit."""
        self.git("checkout", "--quiet", "-B", name, self.ids[at])

    def edit(self, edit: Edit) -> Callable[[], None]:
        """Make an edit in the work tree; return what undoes it."""
        for name in edit.files:
            path = self.path / name
            before = path.read_text("latin-1") if path.exists() else ""
            after = edit.change(before) if path.exists() else None
            if after is not None:
                path.write_text(after, "latin-1")
                return partial(_write, path, before)
        raise AssertionError(f"no place for: {edit.meaning}")

    def append(self, name: str, text: str) -> None:
        """Add a line to a file."""
        with (self.path / name).open("a", encoding="latin-1") as file:
            file.write(text + "\n")

    def _note(self, name: str) -> None:
        self.ids[name] = self.git("rev-parse", "HEAD")


def _write(path: Path, text: str) -> None:
    path.write_text(text, "latin-1")


def plant(tree: Tree, path: Path) -> History:
    """Make the history."""
    history = History(path)
    tree.checkout(path)
    history.git("init", "--quiet", "--initial-branch=main")
    history.append("README", "A Xen for tests.")
    history.commit("base")
    history.edit(EDITS["docs-only"])
    history.commit("docs")
    history.edit(EDITS["comment-only"])
    history.commit("comment")
    history.append(X86, "/* Of no concern to Arm. */")
    history.commit("x86")

    history.branch("a", "comment")
    history.append(MEMORY, "/* On a branch. */")
    history.commit("a1")
    history.append(MEMORY, 'const char xenverify_branch[] = "a";')
    history.commit("a2")
    history.git("checkout", "--quiet", "main")
    history.merge("merge-a", "a")

    builds_again = history.edit(EDITS["does-not-build"])
    history.commit("broken")
    history.append(KERNEL, "/* Nobody can tell what this does. */")
    history.commit("still-broken")
    builds_again()
    history.commit("builds")
    boots_again = history.edit(EDITS["panic-at-boot"])
    history.commit("no-boot")
    boots_again()
    history.commit("boots")
    history.edit(PANIC_ON_REMOVAL)
    history.commit("panics")

    history.branch("b", "panics")
    history.edit(EDITS["allow-second-map"])
    history.commit("GUILTY")
    history.append(MEMORY, "/* The same binary as before. */")
    history.commit("b2")
    history.append(MEMORY, 'const char xenverify_branch_b[] = "b";')
    history.commit("b3")
    history.git("checkout", "--quiet", "main")
    history.append(KERNEL, 'const char xenverify_aside[] = "aside";')
    history.commit("aside")
    history.merge("merge-b", "b")
    history.append("README", "The end.")
    history.commit("notes")
    return history


def without_memory(cache: Path, root: Path) -> Path:
    """Make a cache at `root` with everything of the user's own but what bisections saw."""
    root.mkdir()
    for kind in ("builds", "ccache", "git", "locks", "scratch", "agents"):
        (cache / kind).mkdir(parents=True, exist_ok=True)
        (root / kind).symlink_to(cache / kind)
    return root
