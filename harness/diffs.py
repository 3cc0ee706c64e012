"""Text that holds a diff somewhere in, the files it changes out; every hunk counted.

Comes in: bytes, of which everything that is no diff (mail, diffstat, signature) is passed over.
Goes out: one `FileChange` a file with its hunks, and `render()` back to a diff as git writes it.
It refuses to know mails, trees, and whether anything applies.

Why not unidiff alone: it says neither in which file nor in which hunk a diff is cut short, takes
text where a diff is bytes, and names as they are spelled. The tests hold this reader against it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from harness.errors import ChangeError

_HUNK = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)$", re.DOTALL)
_INDEX = re.compile(rb"^index ([0-9a-f]{4,64})\.\.([0-9a-f]{4,64})(?: (\d{6}))?$")
_DIFFSTAT = re.compile(
    rb"^ *(\d+) files? changed(?:, (\d+) insertions?\(\+\))?(?:, (\d+) deletions?\(-\))?\r?$",
    re.MULTILINE,
)
# What git format-patch writes below the last hunk: "-- " and its version. It looks like a
# removed line.
_SIGNATURE = re.compile(rb"\n-- ?\r?\n\d[\w.() -]*\s*\Z")
# How a Unix time of zero looks in any time zone: GNU diff -N says so of a file that is not there.
_EPOCH = re.compile(rb"(1970-01-01|1969-12-31) ")
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


def _unquoted(raw: bytes) -> str:
    """Read a file name as git spells it, out of its quotes if it has any."""
    if len(raw) >= 2 and raw.startswith(b'"') and raw.endswith(b'"'):

        def one(match: re.Match[bytes]) -> bytes:
            code = match[1]
            return b"%c" % (int(code, 8) & 0xFF if code.isdigit() else _C_ESCAPES[code[0]])

        raw = re.sub(rb'\\([0-7]{3}|[abtnvfr"\\])', one, raw[1:-1])
    return raw.decode(errors="surrogateescape")


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
                name = _unquoted(line.split(b" ", 2)[2])
                raise ChangeError(
                    f"{name} comes as the combined diff of a merge, which cannot be applied",
                    advice="Give the merge as one diff against its first parent.",
                )
            elif line.startswith(b"Binary files ") and line.endswith(b" differ"):
                raise _binary(shown(_unquoted(line.split(b" and ")[-1][: -len(b" differ")])))
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
        first = self.peek()
        crlf = self.lines[self.at].endswith(b"\r")
        old, new = _header_names(first.removeprefix(b"diff --git "))
        file = FileChange(old, new, crlf=crlf)
        known = first
        self.at += 1
        while self.at < len(self.lines):
            line = self.peek()
            key, _, value = line.partition(b" ")
            if line.startswith((b"old mode ", b"deleted file mode ")):
                file = replace(file, old_mode=value.split()[-1].decode())
                file = replace(file, new_name=None) if key == b"deleted" else file
            elif line.startswith((b"new mode ", b"new file mode ")):
                file = replace(file, new_mode=value.split()[-1].decode())
                file = replace(file, old_name=None) if value.startswith(b"file") else file
            elif line.startswith((b"rename from ", b"copy from ")):
                file = replace(file, old_name=_unquoted(value[5:]), prefixed=False)
                file = replace(file, copied=key == b"copy")
            elif line.startswith((b"rename to ", b"copy to ")):
                file = replace(file, new_name=_unquoted(value[3:]), prefixed=False)
            elif match := _INDEX.match(line):
                file = replace(file, old_blob=match[1].decode(), new_blob=match[2].decode())
                if match[3]:
                    file = replace(file, old_mode=match[3].decode(), new_mode=match[3].decode())
            elif line.startswith(b"GIT binary patch") or (
                line.startswith(b"Binary files ") and line.endswith(b" differ")
            ):
                raise _binary(shown(file.path))
            elif not line.startswith((b"similarity index ", b"dissimilarity index ")):
                break
            known = line
            self.at += 1
        if self.peek().startswith(b"--- ") and self.peek(1).startswith(b"+++ "):
            file = self.git_names(file)
            hunks = self.hunks(file)
            return replace(file, hunks=hunks)
        if known == first or (_INDEX.match(known) and not _is_whole_without_hunks(file)):
            raise _cut_short(shown(file.path), "its name is there, its hunks are not")
        if self.peek().startswith(b"--- "):
            raise _cut_short(shown(file.path), "it ends within the names of the file")
        return file

    def git_names(self, file: FileChange) -> FileChange:
        """Take the names from `---` and `+++`, which unlike the first line are never ambiguous."""
        old, new = _unquoted(_name(self.peek()[4:])), _unquoted(_name(self.peek(1)[4:]))
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
        old, new = _unquoted(_name(old_line)), _unquoted(_name(new_line))
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
            if sign not in (b" ", b"+", b"-", b"\\") or (
                sign != b"\\" and not _room(sign, old, new)
            ):
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
        return replace(hunk, old_count=hunk.old_count - 1, new_count=hunk.new_count - 1)

    def at_end_of_diff(self) -> bool:
        """Whether no part of a diff follows; a signature or a page's footer may."""
        rest = (line for line in self.lines[self.at :] if line.strip() not in (b"--", b"---"))
        return not any(line.startswith((b"diff --git ", b"@@ ", b"+", b"-", b" ")) for line in rest)

    def refuse_more_lines(self, hunk: Hunk, name: str, number: int) -> None:
        """Refuse a hunk that goes on after its counts, which git would cut off without a word."""
        line = self.peek()
        is_header = line.startswith(b"---") or line in (b"-- ", b"--")
        cut_signature = self.at == len(self.lines) - 1 and line == b"-"
        if line.startswith((b"+", b"-")) and not (is_header or cut_signature):
            raise ChangeError(
                f"{name}, hunk {number} goes on after the {hunk.old_count} old and "
                f"{hunk.new_count} new lines its first line promises",
                evidence=[line.decode(errors="replace")],
                advice="If you edited it by hand, let `recountdiff` mend its counts.",
            )


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
        return (_unquoted(match[1]), _unquoted(match[2])) if match else (None, None)
    pieces = names.split(b" ")
    for at in range(1, len(pieces)):
        left, right = b" ".join(pieces[:at]), b" ".join(pieces[at:])
        if left == right or left.partition(b"/")[2] == right.partition(b"/")[2] != b"":
            return _unquoted(left), _unquoted(right)
    middle = len(pieces) // 2
    return _unquoted(b" ".join(pieces[:middle])), _unquoted(b" ".join(pieces[middle:]))


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
