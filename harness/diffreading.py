"""Text that holds a diff somewhere in, the files it changes out; every hunk counted.

Comes in: bytes, of which everything that is no diff (mail, diffstat, signature) is passed over.
Goes out: one `FileChange` a file. It refuses to know mails, trees, and whether anything applies.

Why not unidiff alone: it says neither in which file nor in which hunk a diff is cut short, takes
text where a diff is bytes, and names as they are spelled. The tests hold this reader against it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from harness.diffs import FileChange, Hunk, shown, unquoted
from harness.errors import ChangeError

_HUNK = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)$", re.DOTALL)
_INDEX = re.compile(rb"^index ([0-9a-f]{4,64})\.\.([0-9a-f]{4,64})(?: (\d{6}))?$")
_MODE = re.compile(rb"^(old mode|new mode|deleted file mode|new file mode) (\d{6})$")
_MOVED = re.compile(rb"^(rename|copy) (from|to) (.+)$", re.DOTALL)
_DIFFSTAT = re.compile(
    rb"^ *(\d+) files? changed(?:, (\d+) insertions?\(\+\))?(?:, (\d+) deletions?\(-\))?\r?$",
    re.MULTILINE,
)
# What git format-patch writes below the last hunk: "-- " and its version. It looks like a
# removed line.
_SIGNATURE = re.compile(rb"\n-- ?\r?\n\d[\w.() -]*\s*\Z")
# How a Unix time of zero looks in any time zone: GNU diff -N says so of a file that is not there.
_EPOCH = re.compile(rb"(1970-01-01|1969-12-31) ")


@dataclass(frozen=True)
class Diff:
    """The files one patch changes, and what had to be mended to read it."""

    files: tuple[FileChange, ...]
    notes: tuple[str, ...] = ()


def read_diff(text: bytes) -> Diff:
    """Return every file change in `text`, perhaps none; raise ChangeError for a broken diff."""
    reader = _Reader(_SIGNATURE.sub(b"\n", text))
    reader.read()
    _hold_against_diffstat(text[: reader.first_offset], reader.files)
    return Diff(tuple(reader.files), tuple(reader.notes))


def _hold_against_diffstat(head: bytes, files: list[FileChange]) -> None:
    """Refuse a diff that holds less than the diffstat above it counts: it was cut between hunks."""
    stats = _DIFFSTAT.findall(head)
    if not stats or not files:
        return
    said = tuple(int(figure or 0) for figure in stats[-1])
    held = (len(files), sum(f.added for f in files), sum(f.removed for f in files))
    if any(has < claim for has, claim in zip(held, said, strict=True)):
        form = "{} files, +{} -{}"
        raise ChangeError(
            "the patch is cut short: it holds less than its diffstat counts",
            evidence=[
                f"diffstat  {form.format(*said)}",
                f"the diff  {form.format(*held)}; its last file is {shown(files[-1].path)}",
            ],
            advice="If you took something out by hand, take out the diffstat too.",
        )


class _Reader:
    """Walks down the lines of a text and collects the files of the diff in it."""

    def __init__(self, text: bytes) -> None:
        self.lines = text.split(b"\n")
        self.unfinished = self.lines[-1] != b""  # the text does not end in a line end
        if not self.unfinished:
            self.lines.pop()
        self.at = 0
        self.first_offset = len(text)  # bytes of text before the first line of the diff
        self.files: list[FileChange] = []
        self.notes: list[str] = []

    def peek(self, ahead: int = 0) -> bytes:
        """Return a line without its CR; past the end there are only empty ones."""
        at = self.at + ahead
        return self.lines[at].removesuffix(b"\r") if at < len(self.lines) else b""

    def read(self) -> None:
        """Collect every file change down to the end of the text."""
        while self.at < len(self.lines):
            line = self.peek()
            before = len(self.files)
            start = self.at
            if line.startswith(b"diff --git "):
                self.files.append(self.git_file())
            elif line.startswith((b"diff --cc ", b"diff --combined ")):
                name = unquoted(line.split(b" ", 2)[2])
                raise ChangeError(
                    f"{name} comes as the combined diff of a merge, which cannot be applied",
                    advice="Give the merge as one diff against its first parent.",
                )
            elif line.startswith(b"Binary files ") and line.endswith(b" differ"):
                raise _binary(shown(unquoted(line.split(b" and ")[-1][: -len(b" differ")])))
            elif line.startswith(b"--- ") and self.peek(1).startswith(b"+++ "):
                self.files.append(self.plain_file())
            elif self.files and _HUNK.match(line):
                raise ChangeError(
                    f"line {self.at + 1} starts a hunk that belongs to no file: "
                    f"something stands between it and {shown(self.files[-1].path)}",
                    evidence=[
                        self.peek(-1).decode(errors="replace"),
                        line.decode(errors="replace"),
                    ],
                )
            else:
                self.at += 1
            if len(self.files) == 1 and before == 0:
                self.first_offset = sum(len(line) + 1 for line in self.lines[:start])

    def git_file(self) -> FileChange:
        """Read one file's part of a git diff: names, modes, blob ids, hunks."""
        old, new = _header_names(self.peek().removeprefix(b"diff --git "))
        file = FileChange(old, new, crlf=self.lines[self.at].endswith(b"\r"))
        self.at += 1
        said = file
        while (more := _with_header(said, self.peek())) is not None:
            said = more
            self.at += 1
        if self.peek().startswith((b"GIT binary patch", b"Binary files ")):
            raise _binary(shown(said.path))
        if self.peek().startswith(b"--- ") and self.peek(1).startswith(b"+++ "):
            said = self.git_names(said)
            return replace(said, hunks=self.hunks(said))
        if said == file or self.peek().startswith(b"--- ") or not _is_whole_without_hunks(said):
            raise _cut_short(shown(said.path), "its name is there, its hunks are not")
        return said

    def git_names(self, file: FileChange) -> FileChange:
        """Take the names from `---` and `+++`, which unlike the first line are never ambiguous."""
        old, new = unquoted(_name(self.peek()[4:])), unquoted(_name(self.peek(1)[4:]))
        self.at += 2
        if not file.prefixed:  # a rename: its own lines said it better
            return file
        return replace(
            file,
            old_name=None if old == "/dev/null" else old,
            new_name=None if new == "/dev/null" else new,
        )

    def plain_file(self) -> FileChange:
        """Read one file's part of a `diff -u`."""
        crlf = self.lines[self.at].endswith(b"\r")
        old_line, new_line = self.peek()[4:], self.peek(1)[4:]
        old, new = unquoted(_name(old_line)), unquoted(_name(new_line))
        self.at += 2
        file = FileChange(old, new, from_git=False, crlf=crlf)
        file = replace(file, hunks=self.hunks(file))
        first = file.hunks[0]
        if old == "/dev/null" or (_EPOCH.search(old_line) and first.old_count == 0):
            file = replace(file, old_name=None)
        if new == "/dev/null" or (_EPOCH.search(new_line) and first.new_count == 0):
            file = replace(file, new_name=None)
        return file

    def hunks(self, file: FileChange) -> tuple[Hunk, ...]:
        """Read all hunks of one file; there must be one."""
        hunks: list[Hunk] = []
        while match := _HUNK.match(self.peek()):
            hunks.append(self.hunk(match, shown(file.path), len(hunks) + 1))
        if not hunks:
            raise _cut_short(shown(file.path), "its name is there, its hunks are not")
        return tuple(hunks)

    def hunk(self, match: re.Match[bytes], name: str, number: int) -> Hunk:
        """Read one hunk, mending the one harm that archives do: a lost last context line."""
        old_count, new_count = (int(match[group] or b"1") for group in (2, 4))
        hunk = Hunk(int(match[1]), old_count, int(match[3]), new_count, match[5], ())
        self.at += 1
        old, new = old_count, new_count
        lines: list[bytes] = []
        while (old or new) and self.at < len(self.lines):
            line = self.lines[self.at]
            sign = line[:1] if line.removesuffix(b"\r") else b" "
            if not _room(sign, old, new):
                break
            lines.append(line if line[:1] == sign else b" " + line)
            old -= sign in (b" ", b"-")
            new -= sign in (b" ", b"+")
            self.at += 1
        if self.peek().startswith(b"\\"):
            lines.append(self.peek())
            self.at += 1
        hunk = replace(hunk, lines=tuple(lines))
        if old or new:
            return self.mended(hunk, old, new, name, number)
        self.refuse_more_lines(hunk, name, number)
        if self.unfinished and self.at == len(self.lines) and self.lines[-1][:1] == b"+":
            raise _cut_short(name, f"hunk {number} ends within a line")
        return hunk

    def mended(self, hunk: Hunk, old: int, new: int, name: str, number: int) -> Hunk:
        """Return the hunk less a lost last context line, or raise ChangeError: it is cut short.

        Only where nothing but that can have been lost: one line of both sides, at the very end of
        the diff, after context. A shorter context says the same about all that is left.
        """
        if not self.at_end_of_diff():
            line = self.lines[self.at].decode(errors="replace")
            raise ChangeError(
                f"{name}, hunk {number}: line {self.at + 1} is no line of a diff, "
                f"though the hunk's first line promises {max(old, new)} more",
                evidence=[line],
                advice="A mail program may have wrapped it; attach the patch or send it with git.",
            )
        context = [line for line in hunk.lines if not line.startswith(b"\\")]
        if (old, new) != (1, 1) or len(context) < 2 or not context[-1].startswith(b" "):
            raise _cut_short(name, f"hunk {number} lacks its last {max(old, new)} lines")
        self.notes.append(f"{name}: the archive cut the last context line; mended")
        counts = (hunk.old_count - 1, hunk.new_count - 1)
        return replace(hunk, old_count=counts[0], new_count=counts[1], mended=True)

    def at_end_of_diff(self) -> bool:
        """Whether no part of a diff follows; a signature or a page's footer may."""
        rest = (line for line in self.lines[self.at :] if line.strip() not in (b"--", b"---"))
        return not any(line.startswith((b"diff --git ", b"@@ ", b"+", b"-", b" ")) for line in rest)

    def refuse_more_lines(self, hunk: Hunk, name: str, number: int) -> None:
        """Refuse a hunk that goes on after its counts, which git would cut off without a word."""
        for line in self.lines[self.at :]:
            signature = line.rstrip() in (b"--", b"---") or (line == b"-" and self.unfinished)
            if not line.startswith((b" ", b"+", b"-")) or line.startswith(b"--- ") or signature:
                return
            if not line.startswith(b" "):
                raise ChangeError(
                    f"{name}, hunk {number} goes on after the {hunk.old_count} old and "
                    f"{hunk.new_count} new lines its first line promises",
                    evidence=[line.decode(errors="replace")],
                    advice="If you edited it by hand, let `recountdiff` mend its counts.",
                )


def _with_header(file: FileChange, line: bytes) -> FileChange | None:
    """Return `file` with what a line between its names and its hunks says; None: no such line."""
    if match := _MODE.match(line):
        mode = match[2].decode()
        if match[1] in (b"old mode", b"deleted file mode"):
            gone = match[1].startswith(b"deleted")
            return replace(file, old_mode=mode, new_name=None if gone else file.new_name)
        made = match[1].startswith(b"new file")
        return replace(file, new_mode=mode, old_name=None if made else file.old_name)
    if match := _MOVED.match(line):
        name, copied = unquoted(match[3]), match[1] == b"copy"
        if match[2] == b"from":
            return replace(file, old_name=name, copied=copied, prefixed=False)
        return replace(file, new_name=name, copied=copied, prefixed=False)
    if match := _INDEX.match(line):
        mode_of_both = match[3].decode() if match[3] else None
        return replace(
            file,
            old_blob=match[1].decode(),
            new_blob=match[2].decode(),
            old_mode=mode_of_both or file.old_mode,
            new_mode=mode_of_both or file.new_mode,
        )
    return file if line.startswith((b"similarity index ", b"dissimilarity index ")) else None


def _room(sign: bytes, old: int, new: int) -> bool:
    """Whether a hunk with `old` and `new` lines to go has room for a line with this sign."""
    if sign == b"\\":
        return True
    return sign in (b" ", b"+", b"-") and (sign == b"+" or old > 0) and (sign == b"-" or new > 0)


def _name(text: bytes) -> bytes:
    """Return a file's name from a `---` or `+++` line: what stands before a tab and a time."""
    return text.split(b"\t")[0].rstrip(b"\r")


def _header_names(names: bytes) -> tuple[str | None, str | None]:
    """Split `a/x b/x`; where blanks in names leave it open, both names are taken to be the same."""
    if names.startswith(b'"') or names.endswith(b'"'):
        match = re.match(rb'^("(?:\\.|[^"\\])*"|\S+) ("(?:\\.|[^"\\])*"|.+)$', names)
        return (unquoted(match[1]), unquoted(match[2])) if match else (None, None)
    pieces = names.split(b" ")
    for at in range(1, len(pieces)):
        left, right = b" ".join(pieces[:at]), b" ".join(pieces[at:])
        if left == right or left.partition(b"/")[2] == right.partition(b"/")[2] != b"":
            return unquoted(left), unquoted(right)
    middle = len(pieces) // 2
    return unquoted(b" ".join(pieces[:middle])), unquoted(b" ".join(pieces[middle:]))


def _is_whole_without_hunks(file: FileChange) -> bool:
    """Whether a file may come without hunks: an empty one made or deleted, a rename, a new mode."""
    empty = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # git's id of the empty blob
    blob = file.new_blob if file.old_name is None else file.old_blob
    if file.old_name is None or file.new_name is None:
        return blob is not None and empty.startswith(blob)
    return file.old_blob == file.new_blob


def _cut_short(name: str, how: str) -> ChangeError:
    return ChangeError(
        f"the patch is cut short at {name}: {how}",
        advice="Fetch it again, or ask for it as an attachment.",
    )


def _binary(name: str) -> ChangeError:
    return ChangeError(
        f"the patch changes the binary file {name}, which is not supported",
        advice="Xen's build reads no binary file: leave that file out of the patch.",
    )
