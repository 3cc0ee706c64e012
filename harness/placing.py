"""File changes as a diff spells them in, the same with the names and line ends of one tree out.

Comes in: what `diffs.read_diff` read, and what files a tree has. Goes out: file changes whose names
are those of the tree, and notes on what was guessed. It refuses to know where the diff came from,
and to let any name through that leads out of the tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from harness.diffs import FileChange, Hunk, shown
from harness.errors import ChangeError

# First parts of names that git puts before them: plain, and by `diff.mnemonicPrefix`.
_PREFIXES = frozenset(("a", "b", "c", "i", "o", "w", "1", "2"))
_SYMLINK, _SUBMODULE = "120000", "160000"

Modes = Mapping[str, str]  # file name in the tree: its mode as git writes it
Strip = Callable[[str], str | None]  # a name as the diff has it: the name in the tree
ReadFile = Callable[[str], bytes]  # file name in the tree: its content


def place(
    files: tuple[FileChange, ...], modes: Modes, read_file: ReadFile
) -> tuple[tuple[FileChange, ...], tuple[str, ...]]:
    """Return `files` named and with line ends as the tree has them, and notes on what that took."""
    for file in files:
        for name in (file.old_name, file.new_name):
            _refuse_escape(name)
    files, notes = _named_as_in_tree(files, modes)
    for file in files:
        for name in (file.old_name, file.new_name):
            _refuse_links(name, file, modes)
    mended = tuple(_line_ends_as_in_tree(file, modes, read_file) for file in files)
    changed = sum(one is not other for one, other in zip(files, mended, strict=True))
    if changed:
        what = "all its lines" if changed == len(files) else f"the lines of {changed} of its files"
        notes += (f"{what} end in CR LF, the tree's do not; mended",)
    return mended, notes


def after(files: tuple[FileChange, ...], modes: Modes) -> dict[str, str]:
    """Return what files there are once `files` are applied to a tree with the files `modes`."""
    result = dict(modes)
    for file in files:
        if file.old_name is not None and file.old_name != file.new_name and not file.copied:
            result.pop(file.old_name, None)
        if file.new_name is not None:
            result.setdefault(file.new_name, file.new_mode or "100644")
    return result


def _refuse_escape(name: str | None) -> None:
    """Raise ChangeError for a name that leads out of the tree or into git's own files."""
    if name is None:
        return
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name:
        raise ChangeError(f"the patch names a file that cannot be: {name!r}")
    if name.startswith("/") or re.match(r"^[A-Za-z]:[\\/]", name):
        raise ChangeError(
            f"the patch names a file by an absolute path, {name}",
            advice="Make it from within the source tree, with names relative to its top.",
        )
    if ".." in parts:
        raise ChangeError(f"the patch leads out of the source tree: {shown(name)}")
    if any(part.lower().rstrip(". ") == ".git" for part in parts):
        raise ChangeError(f"the patch reaches into git's own files: {shown(name)}")


def _refuse_links(name: str | None, file: FileChange, modes: Modes) -> None:
    """Raise ChangeError for a symbolic link made, changed or passed through, and a submodule."""
    if name is None:
        return
    for mode in (file.old_mode, file.new_mode, modes.get(name)):
        if mode == _SYMLINK:
            raise ChangeError(
                f"the patch makes or changes the symbolic link {name}, which is not supported",
                advice="A link could lead out of the source tree: leave it out of the patch.",
            )
        if mode == _SUBMODULE:
            raise ChangeError(f"the patch changes the submodule {name}, which is not supported")
    for parent in PurePosixPath(name).parents:
        if modes.get(str(parent)) == _SYMLINK:
            raise ChangeError(
                f"the patch changes {name}, which is behind the symbolic link {parent}"
            )


def _named_as_in_tree(
    files: tuple[FileChange, ...], modes: Modes
) -> tuple[tuple[FileChange, ...], tuple[str, ...]]:
    """Find how many leading parts to take off the names (`patch -p`), and take them off."""
    names = [n for f in files if f.prefixed for n in (f.old_name, f.new_name) if n is not None]
    if not names:
        return files, ()
    usual = 1 if all(name.partition("/")[0] in _PREFIXES for name in names) else 0
    ways = {f"-p{usual}": _stripper(usual)}
    if not (usual == 1 and all(file.from_git for file in files)):  # git's own prefixes are certain
        levels = range(max(name.count("/") for name in names) + 1)
        ways |= {f"-p{level}": _stripper(level) for level in levels if level != usual}
    # A diff made inside xen/, as `git diff --relative` does.
    ways[f"-p{usual} within xen/"] = _stripper(usual, "xen/")
    best = f"-p{usual}"
    for way, strip in ways.items():
        # Another way must find every file: one Makefile or README is in many a directory.
        if _hits(files, ways[best], modes) == 0 and _finds_all(files, strip, modes):
            best = way
    named = tuple(_renamed(file, ways[best], modes) for file in files)
    return named, (() if best in ("-p0", "-p1") else (f"names read with {best}",))


def _hits(files: tuple[FileChange, ...], strip: Strip, modes: Modes) -> int:
    """Count the files that the tree has under their old or new name."""
    return sum(
        any(name is not None and strip(name) in modes for name in (file.old_name, file.new_name))
        for file in files
        if file.prefixed
    )


def _finds_all(files: tuple[FileChange, ...], strip: Strip, modes: Modes) -> bool:
    """Whether the tree has every file that the diff takes lines of to be there."""
    tops = {name.partition("/")[0] for name in modes if "/" in name}
    old = tuple(f for f in files if f.old_name and any(hunk.old_count for hunk in f.hunks))
    for name in (name for f in files if f.prefixed for name in (f.old_name, f.new_name) if name):
        left = strip(name) or name
        top = name.partition("/")[0]
        if top in tops and left.partition("/")[0] != top:
            return False  # xen/tools/Makefile is not tools/Makefile
        if "/" not in left and name.count("/") > 1:
            return False
    return bool(old) and _hits(old, strip, modes) == sum(file.prefixed for file in old)


def _stripper(level: int, directory: str = "") -> Strip:
    def strip(name: str) -> str | None:
        parts = name.split("/", level)
        return directory + parts[level] if len(parts) > level else None

    return strip


def _renamed(file: FileChange, strip: Strip, modes: Modes) -> FileChange:
    """Return `file` with its names stripped, and a plain diff's two names made one."""
    if not file.prefixed:
        return file
    old = file.old_name and (strip(file.old_name) or file.old_name)
    new = file.new_name and (strip(file.new_name) or file.new_name)
    if not file.from_git:
        if old and new and old != new:  # mm.c.orig and mm.c: the file is the one the tree has
            old = new = old if old in modes and new not in modes else new
        if old and old not in modes and file.hunks[0].old_count == 0 == file.hunks[0].old_start:
            old = None
        mode = modes.get(old or "", "100644")
        return replace(file, old_name=old, new_name=new, old_mode=mode, new_mode=mode)
    return replace(file, old_name=old, new_name=new)


def _line_ends_as_in_tree(file: FileChange, modes: Modes, read_file: ReadFile) -> FileChange:
    """Strip the CR a mail program put before every LF, unless the tree's file has them itself."""
    lines = [ln for hunk in file.hunks for ln in hunk.lines if not ln.startswith(b"\\")]
    if not lines or not all(line.endswith(b"\r") for line in lines):
        return file
    if file.old_name is None:
        strip = file.crlf
    else:
        strip = file.old_name not in modes or b"\r\n" not in read_file(file.old_name)
    if not strip:
        return file
    return replace(file, hunks=tuple(_without_cr(hunk) for hunk in file.hunks))


def _without_cr(hunk: Hunk) -> Hunk:
    section = hunk.section.removesuffix(b"\r")
    return replace(hunk, section=section, lines=tuple(ln.removesuffix(b"\r") for ln in hunk.lines))
