"""What a diff says, as values: the files it changes and their hunks; and back to a diff of git.

Comes in: what `diffreading` read. Goes out: `FileChange`, `Hunk`, and bytes that `git apply` takes.
It refuses to know mails, trees, and whether anything applies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_C_ESCAPES = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))


@dataclass(frozen=True)
class Hunk:
    """One hunk: where it lies in the old and the new file (lines from 1), and its signed lines.

    `lines` are bytes without their line ends, each with its sign: blank, `+`, `-`, or a backslash
    for git's remark that a file has no newline at its end.
    """

    old_start: int
    old_count: int
    new_start: int
    new_count: int
    section: bytes
    lines: tuple[bytes, ...]
    mended: bool = False  # its last context line was lost, and its counts are less than they were

    @property
    def added(self) -> int:
        """How many lines this hunk adds."""
        return sum(line.startswith(b"+") for line in self.lines)

    @property
    def removed(self) -> int:
        """How many lines this hunk takes away."""
        return sum(line.startswith(b"-") for line in self.lines)

    def side(self, *, new: bool) -> list[bytes]:
        """Return the lines the old (or new) file has here, without signs."""
        signs = (b" ", b"+") if new else (b" ", b"-")
        return [line[1:] for line in self.lines if line.startswith(signs)]

    def render(self) -> bytes:
        """Return the hunk as a diff has it, from its `@@` line to its last line end."""
        old = _range(self.old_start, self.old_count)
        new = _range(self.new_start, self.new_count)
        first = b"@@ -%s +%s @@%s" % (old, new, self.section)
        return b"\n".join((first, *self.lines)) + b"\n"


@dataclass(frozen=True)
class FileChange:
    """What a patch does to one file; names are as the diff spells them until `placing` is done."""

    old_name: str | None  # None: the file is new
    new_name: str | None  # None: the file goes away
    hunks: tuple[Hunk, ...] = ()
    old_mode: str | None = None
    new_mode: str | None = None
    old_blob: str | None = None  # git object ids, often abbreviated
    new_blob: str | None = None
    copied: bool = False
    from_git: bool = True  # False: from a plain `diff -u`, whose names need not be those of a tree
    prefixed: bool = True  # False: names carry no a/ and b/ (git spells renames so)
    crlf: bool = False  # the diff's own header lines end in CR LF

    @property
    def path(self) -> str:
        """The file's name after the change, or the name it had if the change takes it away."""
        return self.new_name or self.old_name or ""

    @property
    def renamed(self) -> bool:
        """Whether the file gets another name (or, with `copied`, a second one)."""
        return None not in (self.old_name, self.new_name) and self.old_name != self.new_name

    @property
    def added(self) -> int:
        """How many lines are added in all hunks."""
        return sum(hunk.added for hunk in self.hunks)

    @property
    def removed(self) -> int:
        """How many lines are taken away in all hunks."""
        return sum(hunk.removed for hunk in self.hunks)


def shown(name: str | None) -> str:
    """Return a file's name as a person would say it: without the a/ or b/ of a diff."""
    return re.sub(r"^[ab]/", "", name or "(no name)")


def render(files: tuple[FileChange, ...]) -> bytes:
    """Return a diff as git writes it, with a/ and b/ before every name."""
    return b"".join(_render_file(file) for file in files)


def _render_file(file: FileChange) -> bytes:
    old, new = file.old_name or file.path, file.path
    lines = [b"diff --git %s %s" % (_quoted("a/" + old), _quoted("b/" + new))]
    if file.old_name is None:
        lines.append(b"new file mode " + (file.new_mode or "100644").encode())
    elif file.new_name is None:
        lines.append(b"deleted file mode " + (file.old_mode or "100644").encode())
    elif file.old_mode and file.new_mode and file.old_mode != file.new_mode:
        lines += [b"old mode " + file.old_mode.encode(), b"new mode " + file.new_mode.encode()]
    if file.renamed:
        verb = b"copy" if file.copied else b"rename"
        lines += [verb + b" from " + _quoted(old), verb + b" to " + _quoted(new)]
    if file.old_blob and file.new_blob:
        mode = f" {file.old_mode}" if file.old_mode and file.old_mode == file.new_mode else ""
        lines.append(f"index {file.old_blob}..{file.new_blob}{mode}".encode())
    if file.hunks:
        lines.append(b"--- " + (_quoted("a/" + old) if file.old_name else b"/dev/null"))
        lines.append(b"+++ " + (_quoted("b/" + new) if file.new_name else b"/dev/null"))
    return b"\n".join(lines) + b"\n" + b"".join(hunk.render() for hunk in file.hunks)


def _range(start: int, count: int) -> bytes:
    """Spell where a hunk lies as git does, which leaves a count of one out."""
    return b"%d" % start if count == 1 else b"%d,%d" % (start, count)


def _quoted(name: str) -> bytes:
    """Spell a file name as git does: in quotes with octal escapes if it is out of the ordinary."""
    raw = name.encode(errors="surrogateescape")
    if all(0x20 <= byte < 0x7F and byte not in b'"\\' for byte in raw):
        return raw
    escaped = (
        b"%c" % byte if 0x20 <= byte < 0x7F and byte not in b'"\\' else b"\\%03o" % byte
        for byte in raw
    )
    return b'"' + b"".join(escaped) + b'"'


def unquoted(raw: bytes) -> str:
    """Read a file name as git spells it, out of its quotes if it has any."""
    if len(raw) >= 2 and raw.startswith(b'"') and raw.endswith(b'"'):

        def one(match: re.Match[bytes]) -> bytes:
            code = match[1]
            return b"%c" % (int(code, 8) & 0xFF if code.isdigit() else _C_ESCAPES[code[0]])

        raw = re.sub(rb'\\([0-7]{3}|[abtnvfr"\\])', one, raw[1:-1])
    return raw.decode(errors="surrogateescape")
