"""Console lines in, the crash they announce out: what Xen says when it dies, and where it ends.

A guest's line is never taken for Xen's: a domU's begins with its own prefix, "(d1) ". The text of
a dom0 has no prefix, so one that prints "(XEN) Panic on CPU 0:" itself is believed. What the
addresses in a crash mean, this does not know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Sign:
    """How the first line of one kind of trouble looks, behind the prefix "(XEN) "."""

    kind: str
    pattern: re.Pattern[str]
    source: str
    fatal: bool = True
    """Whether Xen dies after it, on every version from 4.11 on."""


SIGNS = (
    Sign("assertion", re.compile(r"Assertion '.*' failed at "), "xen/include/xen/lib.h"),
    Sign("BUG", re.compile(r"Xen BUG at "), "xen/arch/arm/traps.c, do_bug_frame"),
    Sign("unexpected trap", re.compile(r"CPU\d+: Unexpected Trap: "), "xen/arch/arm/traps.c"),
    Sign(
        "trap",  # of its own; an "Unknown Guest Trap" goes back to the guest
        re.compile(r"(?!Unknown Guest)[A-Z][A-Za-z ]+ Trap\. (Syndrome|HSR|ESR)="),
        "xen/arch/arm/traps.c",
    ),
    Sign("panic", re.compile(r"Panic on CPU \d+:"), "xen/drivers/char/console.c, panic"),
    # After these Xen runs on, with a domain less or with a warning.
    Sign(
        "domain crash", re.compile(r"domain_crash called from "), "xen/include/xen/sched.h", False
    ),
    Sign(
        "domain crash",
        re.compile(r"Domain \d+ (\(vcpu#\d+\) crashed on|reported crashed by) "),
        "xen/common/domain.c, __domain_crash",
        False,
    ),
    Sign("warning", re.compile(r"Xen WARN at "), "xen/arch/arm/traps.c, do_bug_frame", False),
    Sign("undefined behaviour", re.compile(r"UBSAN: "), "xen/common/ubsan/ubsan.c", False),
    Sign("lock misuse", re.compile(r"CHECKLOCK FAILURE: "), "xen/common/spinlock.c", False),
)
# panic() ends with one of these (xen/drivers/char/console.c); nothing of the crash comes after.
END = re.compile(r"\(XEN\) (?:\[[^]]*\] )?(Manual reset required|Reboot in five seconds)")
# A domU's own line; and what its vpl011 makes Xen print for it (xen/arch/arm/vpl011.c).
GUEST = re.compile(r"\(d\d+\) |\(XEN\) DOM\d+: ")
PREFIX = "(XEN) "
# What stands behind the prefix under console_timestamps=, in any of its formats.
TIME = re.compile(r"\[[^]]*\] ")


@dataclass(frozen=True)
class Crash:
    """Xen's last words."""

    kind: str
    lines: tuple[str, ...]
    whole: bool
    """Whether Xen came to the end of what it had to say."""

    @property
    def headline(self) -> str:
        """The first line, and for a bare panic what it is about."""
        words = [said(line).strip() for line in self.lines[:2]]
        return " ".join(words) if self.kind == "panic" else words[0]


class Detector:
    """Reads a console's complete lines one after the other, and keeps the first crash."""

    def __init__(self) -> None:
        self._kind = ""
        self._lines: list[str] = []
        self._whole = False

    @property
    def crash(self) -> Crash | None:
        """The crash so far, or None while Xen is well."""
        return Crash(self._kind, tuple(self._lines), self._whole) if self._kind else None

    @property
    def sick(self) -> bool:
        """Whether a crash has begun; costs nothing."""
        return bool(self._kind)

    @property
    def whole(self) -> bool:
        """Whether a crash has begun and ended."""
        return self._whole

    def read(self, line: str) -> None:
        """Take one line, without its end."""
        if self._whole:
            return
        if not self._kind:
            self._kind = kind_of(line) or ""
        if self._kind:
            self._lines.append(line)
            self._whole = END.search(line) is not None


def kind_of(line: str) -> str | None:
    """The kind of crash that `line` begins, or None."""
    sign = sign_of(line)
    return sign.kind if sign and sign.fatal else None


def sign_of(line: str) -> Sign | None:
    """What `line` is the first of, fatal or not, or None.

    Xen's prefix may stand inside a line: behind what dom0 wrote without ending its line.
    """
    if PREFIX not in line or GUEST.match(line):
        return None
    return next((sign for sign in SIGNS if sign.pattern.match(said(line))), None)


def said(line: str) -> str:
    """What Xen says in `line`, without what it puts before it."""
    text = line.partition(PREFIX)[2]
    time = TIME.match(text)
    return text[time.end() :] if time else text


def detect(text: str) -> Crash | None:
    """The first crash in a whole console's text, or None."""
    detector = Detector()
    for line in text.splitlines():
        detector.read(line)
    return detector.crash
