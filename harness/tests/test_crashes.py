"""Captured consoles: which of them tell of a crash, where it begins and where it ends."""

from __future__ import annotations

import pytest

from harness.crashes import Detector, detect, kind_of

TRAP = """\
(XEN) *** LOADING DOMU cpus=1 memory=4000KB ***
(XEN) Hypervisor Trap. HSR=0x00000002000000 EC=0x0 IL=1 Syndrome=0x0
(XEN) CPU0: Unexpected Trap: Hypervisor
(XEN) ----[ Xen-4.17.5  arm64  debug=y  Tainted:   C    ]----
(XEN) PC:     00000000002d00fc create_domUs+0/0x3e0
(XEN) Xen call trace:
(XEN)    [<00000000002d00fc>] create_domUs+0/0x3e0 (PC)
(XEN)
(XEN) ****************************************
(XEN) Panic on CPU 0:
(XEN) CPU0: Unexpected Trap: Hypervisor
(XEN) ****************************************
(XEN)
(XEN) Manual reset required ('noreboot' specified)
and then QEMU said something
"""


def test_a_crash_is_cut_out_whole() -> None:
    crash = detect(TRAP)
    assert crash is not None and crash.whole
    assert crash.kind == "trap"
    assert list(crash.lines) == TRAP.splitlines()[1:-1]
    assert crash.headline.startswith("Hypervisor Trap. HSR=")


def test_a_crash_that_was_cut_short_says_so() -> None:
    crash = detect(TRAP[: TRAP.index("(XEN) ****")])
    assert crash is not None and not crash.whole


def test_a_panics_headline_says_what_it_is_about() -> None:
    crash = detect("(XEN) Panic on CPU 0:\n(XEN) Could not set up domain domU1 (rc = -22)\n")
    assert crash is not None
    assert crash.headline == "Panic on CPU 0: Could not set up domain domU1 (rc = -22)"


def test_there_is_no_crash_until_there_is_one() -> None:
    detector = Detector()
    assert detector.crash is None and not detector.sick
    detector.read("(XEN) Xen BUG at arch/arm/mm.c:1403")
    assert detector.crash is not None and detector.sick and not detector.whole


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("(XEN) Assertion 'mfn_valid(mfn)' failed at arch/arm/mm.c:1403", "assertion"),
        ("(XEN) Xen BUG at arch/arm/mm.c:1403", "BUG"),
        ("(XEN) CPU1: Unexpected Trap: Undefined Instruction", "unexpected trap"),
        ("(XEN) Data Abort Trap. Syndrome=0x5", "trap"),
        ("(XEN) Instruction Abort Trap. Syndrome=0x7", "trap"),
        ("(XEN) Hypervisor Trap. ESR=0x00000002000000 EC=0x0", "trap"),
        ("(XEN) Panic on CPU 3:", "panic"),
        ("(XEN) [2026-01-01 00:00:00.123] Panic on CPU 3:", "panic"),
        ("(XEN) [    1.234567] Xen BUG at mm.c:1", "BUG"),
        ("[    1.0] dom0 did not end its line (XEN) Xen BUG at mm.c:1", "BUG"),
    ],
)
def test_what_xen_says_when_it_dies(line: str, kind: str) -> None:
    assert kind_of(line) == kind


@pytest.mark.parametrize(
    "line",
    [
        "",
        "(XEN) ****************************************",
        "(XEN) **** No support for ARM_SMCCC_ARCH_WORKAROUND_1. ****",
        "(XEN) Xen WARN at arch/arm/mm.c:1403",
        "(XEN) d1v0 Unknown Guest Trap. HSR=0x1 EC=0x0",
        "(XEN) Unknown Guest Trap. HSR=0x1 EC=0x0",
        "(XEN) arch/arm/mm.c:1:d1v0 Assertion that nobody made",
        "(XEN) grant_table.c:1:d1v0 Bad flags",
        "(d1) (XEN) Panic on CPU 0:",
        "(d12) (XEN) Xen BUG at mm.c:1",
        "(XEN) DOM1: (XEN) Xen BUG at mm.c:1",
        "Kernel panic - not syncing: Panic on CPU 0:",
    ],
)
def test_what_is_no_death_of_xens(line: str) -> None:
    assert kind_of(line) is None
