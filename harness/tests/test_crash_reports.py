"""The crash parser against consoles of Xens that were really crashed (data/consoles/README.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.crash_reports import Frame, first_fatal, read_crashes

CONSOLES = Path(__file__).parent / "data" / "consoles"

#: Console: kind, CPU, words of the headline, the first frames' functions.
FATAL = {
    "4.14-data-abort": (
        "trap", 0, "Data Abort Trap. Syndrome=0x1c08005",
        ["_percpu_write_lock", "gnttab_map_frame", "xenmem_add_to_physmap_one"],
    ),
    "4.14-assertion": (
        "assertion", 0, "Assertion 'avail[node][zone] >= request' failed at page_alloc.c:988",
        ["alloc_heap_pages", "alloc_domheap_pages", "populate_physmap"],
    ),
    # No frame pointers in a release build: the trace ends with LR, which is the caller.
    "4.14-release-data-abort": (
        "trap", 0, "Data Abort Trap. Syndrome=0x5", ["_percpu_write_lock", "gnttab_map_frame"],
    ),
    "4.16-grant-index": (
        "trap", 0, "Data Abort Trap. Syndrome=0x1d88045",
        ["gnttab_map_frame", "xenmem_add_to_physmap_one", "xenmem_add_to_physmap"],
    ),
    "4.17-bug": (
        "BUG", 0, "Xen BUG at common/page_alloc.c:1017",
        ["alloc_heap_pages", "alloc_domheap_pages", "populate_physmap"],
    ),
    # It died on a function's first instruction: the caller is in LR only.
    "4.17-undefined-instruction": (
        "trap", 0, "Hypervisor Trap. HSR=0x00000002000000 EC=0x0 IL=1 Syndrome=0x0",
        ["xenmem_add_to_physmap_one", "xenmem_add_to_physmap", "do_memory_op"],
    ),
    "4.17-data-abort-on-cpu-1": (
        "trap", 1, "Data Abort Trap. Syndrome=0x1c08005",
        ["_percpu_write_lock", "gnttab_map_frame", "xenmem_add_to_physmap_one"],
    ),
    "4.17-boot-panic": (
        "panic", 0,
        "Failed to allocate requested domain memory. 2097152KB unallocated. Fix the VMs "
        "configurations.",
        [],
    ),
    "4.20-data-abort": (
        "trap", 0, "Data Abort Trap. Syndrome=0x1c08005",
        ["_percpu_write_lock", "gnttab_map_frame", "xenmem_add_to_physmap_one"],
    ),
    # LR still points into the function that died: it is no caller.
    "4.20-release-bug": (
        "BUG", 0, "Xen BUG at common/page_alloc.c:1062", ["alloc_heap_pages"],
    ),
    "4.23-unstable-assertion": (
        "assertion", 0, "Assertion 'avail[node][zone] >= request' failed at "
        "common/page_alloc.c:1049",
        ["alloc_heap_pages", "alloc_domheap_pages", "do_memory_op"],
    ),
}  # fmt: skip
SPARED = ["4.17-guest-says-it-all", "4.17-dom0-crash", "4.17-domain-crash"]


def console(name: str) -> str:
    return (CONSOLES / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", FATAL)
def test_crash_is_recognised_and_cut_out_whole(name: str) -> None:
    kind, cpu, headline, functions = FATAL[name]
    (report,) = read_crashes(console(name))
    assert (report.kind, report.cpu, report.headline) == (kind, cpu, headline)
    assert [frame.function for frame in report.frames][: len(functions)] == functions
    assert bool(report.frames) == bool(functions)
    assert report.fatal and report.whole
    assert "Manual reset required" in report.lines[-1]


@pytest.mark.parametrize("name", SPARED)
def test_guests_end_is_not_xens(name: str) -> None:
    assert first_fatal(read_crashes(console(name))) is None


@pytest.mark.parametrize("name", ["4.17-domain-crash", "4.23-unstable-domain-crash"])
def test_domain_crash_is_one_event_with_its_reason_and_dump(name: str) -> None:
    (report,) = read_crashes(console(name))
    assert report.kind == "domain crash" and not report.fatal
    assert report.headline.startswith("domain_crash called from common/grant_table.c:")
    assert "Wrong page state 0x4000000000000001 of status frame 0" in report.before[-1]
    assert any("Guest stack trace from sp=" in line for line in report.lines)
    assert report.cpu == 0


def test_what_xen_said_while_it_booted_is_no_reason() -> None:
    (report,) = read_crashes(console("4.16-grant-index"))
    assert report.before == ()


def test_crash_cut_short_is_said_to_be() -> None:
    text = console("4.17-bug")
    (report,) = read_crashes(text[: text.index("Xen call trace:")])
    assert not report.whole
    assert report.render()[-1] == "  (Xen did not come to the end of its dump)"


def test_same_crash_on_two_cpus_is_the_same() -> None:
    (one,) = read_crashes(console("4.17-data-abort-on-cpu-1"))
    (other,) = read_crashes(console("4.20-data-abort"))
    assert one.same_as(other)


def test_another_way_to_the_same_trap_is_another_crash() -> None:
    (one,) = read_crashes(console("4.14-data-abort"))
    (other,) = read_crashes(console("4.16-grant-index"))
    assert not one.same_as(other)


def test_panics_without_a_trace_are_the_same_but_for_numbers() -> None:
    text = console("4.17-boot-panic")
    (one,) = read_crashes(text)
    (other,) = read_crashes(text.replace("2097152KB", "1048576KB"))
    assert one.same_as(other)


def test_guest_lines_inside_a_dump_are_passed_over() -> None:
    text = console("4.17-bug")
    torn = text.replace(
        "(XEN) Xen call trace:", "(d1) [<0000000000000bad>] fake+0/0 (PC)\n(XEN) Xen call trace:"
    )
    torn = torn.replace(
        "(XEN)    [<000000000021e680>]", "half a line of dom0 (XEN)    [<000000000021e680>]"
    )
    torn = torn.replace(
        "(XEN)    [<00000000002180ac>]",
        "(d1) [<0000000000000bad>] fake+0/0\n(XEN)    [<00000000002180ac>]",
    )
    (clean,), (report,) = read_crashes(text), read_crashes(torn)
    assert report.frames == clean.frames


@pytest.mark.parametrize(
    ("symbol", "function"),
    [
        ("page_alloc.c#alloc_heap_pages+0x378/0x6f0", "alloc_heap_pages"),
        ("xenmem_add_to_physmap_one+0/0x784", "xenmem_add_to_physmap_one"),
        ("p2m.c#p2m_put_l3_page.part.0+0x4/0x90", "p2m_put_l3_page"),
        ("do_memory_op.isra.3.constprop.1+0x10/0x20", "do_memory_op"),
        ("00000a0000200000", "00000a0000200000"),
    ],
)
def test_functions_go_by_their_bare_names(symbol: str, function: str) -> None:
    assert Frame(0, symbol).function == function


def test_report_begins_with_what_happened() -> None:
    (report,) = read_crashes(console("4.17-bug"))
    lines = report.render()
    assert lines[0] == "BUG on CPU 0: Xen BUG at common/page_alloc.c:1017"
    assert lines[1].startswith("  before  pg[0] MFN 41500")
    assert lines[2] == "  at      page_alloc.c#alloc_heap_pages+0x378/0x6f0"


def test_empty_and_healthy_consoles_hold_no_crash() -> None:
    assert read_crashes("") == []
    text = console("4.17-bug")
    assert read_crashes(text[: text.index("pg[0]")]) == []
