"""The ways to go wrong, each with its exit code; Xen's failures and our own never share a type.

Comes in: nothing. Goes out: exception classes. `XenverifyError` and what derives from it mean that
no answer about Xen could be had; `XenFailure` and what derives from it *is* an answer about Xen.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What every command returns, and the README documents."""

    OK = 0
    REGRESSED = 1
    USAGE = 2
    CHANGE_DOES_NOT_APPLY = 3
    XEN_DOES_NOT_BUILD = 4
    HARNESS_FAILED = 5
    INTERRUPTED = 130


class XenverifyError(Exception):
    """One sentence that says what is wrong, the evidence for it, and what to do about it."""

    exit_code = ExitCode.HARNESS_FAILED

    def __init__(self, message: str, *, evidence: Sequence[str] = (), advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.evidence = tuple(evidence)
        self.advice = advice


class UsageError(XenverifyError):
    """What the user named is not there, or is not what it should be."""

    exit_code = ExitCode.USAGE


class ChangeError(XenverifyError):
    """A change cannot be read, or does not apply to its tree."""

    exit_code = ExitCode.CHANGE_DOES_NOT_APPLY


class BuildError(XenverifyError):
    """Xen does not build; the log's decisive lines are the evidence."""

    exit_code = ExitCode.XEN_DOES_NOT_BUILD


class HarnessError(XenverifyError):
    """The harness or its machine failed: a program missing, a disk full, QEMU killed."""


class XenFailure(Exception):
    """What Xen itself did wrong under QEMU: never the harness's fault, always an outcome."""

    def __init__(self, message: str, *, evidence: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.evidence = tuple(evidence)


class XenCrashed(XenFailure):
    """Xen panicked or died on a trap; the message is Xen's own first line about it."""


class XenHung(XenFailure):
    """Xen or the guest on it stopped answering although QEMU runs."""


class XenExited(XenFailure):
    """QEMU went away quietly because the guest asked it to: reset, power off, or shutdown."""
