"""Mail, patchwork pages and bare diffs in, one `Letter` a message out.

Comes in: bytes as a mail program, `git format-patch`, b4, a browser or `git diff` wrote them.
Goes out: letters with subject, author, date, version, position, and the decoded text below.
It refuses to know what a diff means, and which letters make a series.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import email.utils
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from html.parser import HTMLParser

from harness.errors import ChangeError

# The line that starts a message in an mbox; git itself (builtin/mailsplit.c) asks for a time in it.
_FROM_LINE = re.compile(rb"^From \S+ .*\d:\d\d(?::\d\d)? .*\d{4}\r?$", re.MULTILINE)
_HEADER = re.compile(rb"\A(?:[A-Za-z][A-Za-z0-9-]*:[ \t].*\r?\n(?:[ \t].*\r?\n)*)+\r?\n")
_HEADER_NAMES = re.compile(rb"^(from|subject|date|message-id|to):", re.IGNORECASE | re.MULTILINE)
_REPLY = re.compile(r"^\s*(?:re|aw|sv|antw)(?:\[\d+\])?\s*:", re.IGNORECASE)
_LEADERS = re.compile(r"^\s*(?:(?:re|aw|sv|antw|fwd?|wg)(?:\[\d+\])?\s*:\s*)+", re.IGNORECASE)
_TAG = re.compile(r"^\s*\[([^\]]*)\]\s*")
_VERSION = re.compile(r"\bv(\d+)(?:\.\d+)?\b", re.IGNORECASE)
_POSITION = re.compile(r"\b(\d+)/(\d+)\b")
_BODY_FIELD = re.compile(r"^(From|Date|Subject): (.+)$")
_GIT_SHOW = re.compile(rb"^commit [0-9a-f]{40,64}\b.*$", re.MULTILINE)
_DIFF_START = re.compile(rb"^(diff --git |--- \S.*\r?\n\+\+\+ \S)", re.MULTILINE)


@dataclass(frozen=True)
class Letter:
    """One message that may hold a patch."""

    subject: str  # without [tags]
    author: str
    date: str  # ISO 8601 where it could be read, else as written
    text: bytes  # all below the header
    version: int = 1
    position: tuple[int, int] | None = None  # (1, 2) of "1/2"; (0, 2) is a cover letter
    reply: bool = False
    message_id: str = ""

    @property
    def has_diff(self) -> bool:
        """Whether a diff starts somewhere in the text."""
        return _DIFF_START.search(self.text) is not None

    @property
    def is_cover(self) -> bool:
        """Whether this is the letter before a series."""
        return self.position is not None and self.position[0] == 0


def read_letters(data: bytes) -> tuple[Letter, ...]:
    """Return the messages in `data`, in its order: many for an mbox, else one."""
    data = data.lstrip(b"\r\n")
    if _FROM_LINE.match(data):
        return tuple(letter for mail in _split_mbox(data) for letter in _read_mail(mail))
    if (header := _HEADER.match(data)) and _HEADER_NAMES.search(header[0]):
        return tuple(_read_mail(data))
    text = data
    if re.match(rb"\s*<(!doctype html|html)\b", data, re.IGNORECASE):
        text = _html_text(data)
    if _is_page(text):
        return (_read_page(text),)
    return (_read_bare(text),)


def _split_mbox(data: bytes) -> Iterator[bytes]:
    """Split at the lines that start a message: the first, and those that follow an empty line."""
    starts = [
        match.start()
        for match in _FROM_LINE.finditer(data)
        if match.start() == 0 or data[: match.start()].endswith((b"\n\n", b"\r\n\r\n"))
    ]
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        yield data[data.index(b"\n", start) + 1 if b"\n" in data[start:end] else end : end]


def _read_mail(mail: bytes) -> Iterator[Letter]:
    """Return the letter a mail is, or those that are attached to it."""
    message = email.message_from_bytes(mail, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    texts: list[bytes] = []
    for part in message.walk():
        if part.is_multipart() or part.get_content_subtype() == "html":
            continue
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):
            continue
        if part.get_param("format") == "flowed":  # RFC 3676 stuffs lines that start with a blank
            content = re.sub(rb"^ ", b"", content, flags=re.MULTILINE)
        if message.is_multipart() and _FROM_LINE.match(content):  # a format-patch file attached
            yield from read_letters(content)
        elif part.get_content_maintype() == "text" or _DIFF_START.search(content):
            texts.append(content)
    yield _letter(
        _field(message, "subject"),
        _field(message, "from"),
        _field(message, "date"),
        b"\n".join(texts),
        message_id=_field(message, "message-id").strip("<>"),
    )


def _field(message: EmailMessage, name: str) -> str:
    """Return a header field decoded and on one line; a malformed one as it is written."""
    try:
        value = str(message.get(name, ""))
    except (ValueError, IndexError, LookupError, AttributeError):  # what email raises on nonsense
        value = next((str(v) for k, v in message.raw_items() if k.lower() == name), "")
    return " ".join(value.split())


def _letter(subject: str, author: str, date: str, text: bytes, *, message_id: str = "") -> Letter:
    """Return a letter; fields at the top of its text count for more, as they do for git am."""
    for line in text.lstrip()[:2000].decode(errors="replace").splitlines():
        match = _BODY_FIELD.match(line)
        if match is None:
            break
        author = match[2] if match[1] == "From" else author
        date = match[2] if match[1] == "Date" else date
        subject = f"{_tags(subject)} {match[2]}" if match[1] == "Subject" else subject
    tags = _tags(subject)
    version, position = _VERSION.search(tags), _POSITION.search(tags)
    return Letter(
        subject=re.sub(r"^\s*(\[[^\]]*\]\s*)+", "", _LEADERS.sub("", subject)).strip(),
        author=author.strip(),
        date=_iso(date),
        text=text,
        version=int(version[1]) if version else 1,
        position=(int(position[1]), int(position[2])) if position else None,
        reply=_REPLY.match(subject) is not None,
        message_id=message_id,
    )


def _tags(subject: str) -> str:
    """Return the [tags] in front of a subject, joined."""
    tags = []
    rest = _LEADERS.sub("", subject)
    while match := _TAG.match(rest):
        tags.append(match[0].strip())
        rest = rest[match.end() :]
    return " ".join(tags)


def _iso(date: str) -> str:
    """Return a mail's date as ISO 8601, or as it is if it is no such date."""
    with contextlib.suppress(ValueError):
        if not re.match(r"\d{4}-", date):
            return email.utils.parsedate_to_datetime(date).isoformat()
    return date.strip()


def _is_page(text: bytes) -> bool:
    """Whether this is the text of a patchwork page: its headings stand alone on their lines."""
    lines = {line.strip() for line in text[:20000].split(b"\n")}
    headings = {b"Commit Message", b"Message", b"Patch", b"diff mbox series", b"Headers show"}
    return len(lines & headings) >= 2 and b"Message ID" in text


def _read_page(page: bytes) -> Letter:
    """Read a patchwork page: the patch is what stands below the heading Patch, never a comment."""
    heading = re.compile(rb"^Patch[^\n]{0,60}\n(?=\s*(?:diff |Index: |--- ))", re.MULTILINE)
    patch = max(heading.finditer(page), key=lambda found: found.start(), default=None)
    if patch is None:
        raise ChangeError(
            "this is a patchwork page without its Patch part",
            advice="Save the page's `mbox` link instead.",
        )
    diff = re.split(rb"^Comments[ \t\r]*$", page[patch.end() :], flags=re.MULTILINE)[0]
    head = page[: patch.start()]
    message = re.search(rb"^(?:Commit )?Message[ \t\r]*\n", head, re.MULTILINE)
    body = head[message.end() :] if message else b""
    body = re.split(rb"^Comments[ \t\r]*$", body, flags=re.MULTILINE)[0].lstrip()
    # "NAME May 11, 2022, 6:47 p.m. UTC" above the message
    byline, _, rest = body.partition(b"\n")
    when = re.match(r"^(.*?)\s+(\w+\.? \d+, \d{4}, .*? UTC)", byline.decode(errors="replace"))
    author, date = (when[1], _page_date(when[2])) if when else ("", "")
    above = head[: message.start()] if message else head
    lines = above.decode(errors="replace").splitlines()
    subject = next((line for line in lines if _TAG.match(line)), "")
    if not subject:
        subject = next((line for line in lines if line.strip() and "diff mbox" not in line), "")
    # The archive strips the page's end, and with it the last line end.
    text = (rest if when else body).lstrip() + b"\n" + diff.rstrip(b"\n") + b"\n"
    return _letter(subject, author, date, text)


def _page_date(text: str) -> str:
    """Return Django's "May 11, 2022, 6:47 p.m. UTC" as ISO 8601; what else there is as it is."""
    plain = text.replace(".", "").replace("noon", "12:00 pm").replace("midnight", "12:00 am")
    for form in ("%B %d, %Y, %I:%M %p UTC", "%b %d, %Y, %I:%M %p UTC", "%B %d, %Y, %I %p UTC"):
        with contextlib.suppress(ValueError):
            return datetime.strptime(plain, form).replace(tzinfo=UTC).isoformat()
    return text


def _read_bare(text: bytes) -> Letter:
    """Read a diff without a mail around it, or what `git show` prints."""
    commits = _GIT_SHOW.findall(text)
    if len(commits) > 1 and _DIFF_START.search(text):
        raise ChangeError(
            f"it holds {len(commits)} commits as git log prints them: their order is not known",
            advice="Use git format-patch --stdout A..B, or name the range itself: git:A..B",
        )
    if not commits:
        return _letter("", "", "", text)
    head = text[: found.start()] if (found := _DIFF_START.search(text)) else text
    subject, author, date = (
        found[1].decode(errors="replace")
        if (found := re.search(pattern, head, re.MULTILINE))
        else ""
        for pattern in (rb"^    (\S.*)$", rb"^Author: +(.+)$", rb"^(?:Author)?Date: +(.+)$")
    )
    return _letter(subject, author, date, text)


class _PageText(HTMLParser):
    """Collects what a browser shows of a page, preformatted parts to the letter."""

    _BLOCKS = frozenset(
        ["p", "div", "h1", "h2", "h3", "tr", "td", "th", "pre", "br", "li", "title"]
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._preformatted = self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self._preformatted += tag == "pre"
        self._hidden += tag in ("script", "style", "title")
        if tag in self._BLOCKS:
            self._break_line()

    def handle_endtag(self, tag: str) -> None:
        if tag in self._BLOCKS:
            self._break_line()
        self._preformatted -= tag == "pre"
        self._hidden -= tag in ("script", "style", "title")

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._preformatted:
            self.pieces.append(data)
        elif data.strip():
            self.pieces.append(" ".join(data.split()) + " ")

    def _break_line(self) -> None:
        if self.pieces and not self.pieces[-1].endswith("\n"):
            if not self._preformatted:
                self.pieces[-1] = self.pieces[-1].rstrip(" ")
            self.pieces.append("\n")


def _html_text(page: bytes) -> bytes:
    parser = _PageText()
    parser.feed(page.decode(errors="surrogateescape"))
    parser.close()
    return "".join(parser.pieces).encode(errors="surrogateescape")
