"""Histories written down as text in, real git repositories out, made by git's own fast-import.

A commit's files are a small picture of Xen's: what a search over it asks for is a file's content,
so that nothing needs to be built or booted, and nothing is pretended either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.git import create_bare, git

MAKEFILE = "export XEN_VERSION = 4\nexport XEN_SUBVERSION = 17\nexport XEN_EXTRAVERSION ?= .0\n"


@dataclass(frozen=True)
class Planned:
    """One commit to make: its parents by name, and the files in which it differs from the first."""

    name: str
    parents: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A repository, and what its commits are called in the plan."""

    path: Path
    ids: Mapping[str, str]

    @property
    def names(self) -> dict[str, str]:
        """The plan's name of each commit."""
        return {commit: name for name, commit in self.ids.items()}

    def contents(self, path: str) -> dict[str, str]:
        """Return one file of every commit: the property that tests search for."""
        asked = "".join(f"{commit}:{path}\n" for commit in self.ids.values())
        said = git(self.path, "cat-file", "--batch=%(objectsize)", stdin=asked.encode()).decode()
        found, at = {}, 0
        for commit in self.ids.values():
            size, _, rest = said[at:].partition("\n")
            found[commit] = rest[: int(size)]
            at += len(size) + 1 + int(size) + 1
        return found


def make(path: Path, plan: Iterable[Planned]) -> Made:
    """Make a bare repository at `path` with the planned commits, in the order of the plan."""
    create_bare(path)
    commits = list(plan)
    marks = {commit.name: number for number, commit in enumerate(commits, start=1)}
    script = []
    for commit in commits:
        number = marks[commit.name]
        script.append(f"commit refs/heads/{commit.name}\nmark :{number}")
        script.append(f"committer Ada <ada@example.org> {1_600_000_000 + 60 * number} +0000")
        script.append(_data(f"{commit.name}: a planned commit\n"))
        script += [
            f"{'merge' if position else 'from'} :{marks[parent]}"
            for position, parent in enumerate(commit.parents)
        ]
        script.append("deleteall")
        files = {"xen/Makefile": MAKEFILE, "Config.mk": "\n", "config/arm64.mk": "\n"}
        for name, text in (files | dict(commit.files)).items():
            script.append(f"M 100644 inline {name}\n{_data(text)}")
    git(path, "fast-import", "--quiet", stdin="\n".join(script).encode())
    refs = git(path, "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)").decode()
    return Made(path, dict(ref.split() for ref in refs.splitlines()))


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}"


def line(*states: str, prefix: str = "c") -> list[Planned]:
    """Plan one commit after the other, each with a state in xen/state and a source of its own."""
    return [
        Planned(
            f"{prefix}{number}",
            (f"{prefix}{number - 1}",) if number else (),
            {"xen/state": state, "xen/serial": f"{prefix}{number}"},
        )
        for number, state in enumerate(states)
    ]
