"""What a case's end is called, how it is shown, and that JSON keeps all of it."""

from __future__ import annotations

import json

import pytest

from harness.errors import HarnessError, XenCrashed, XenExited, XenHung
from harness.outcomes import CaseResult, Outcome, SuiteResult, keyed, outcome_of

CASE = CaseResult(
    "testcases/grant_table/test_remap.py::test_second_map_is_refused",
    Outcome.FAILED,
    seconds=0.25,
    message="assert RAM is SHARED_INFO_PAGE",
    details="E   assert …",
    operations=("d1 add_to_physmap(…) -> 0",),
    console="(XEN) d1: something\n",
    directory="/tmp/x",
    again="xenverify run --xen debian:bookworm -k second_map_is_refused",
)


class RefusedByXen(OSError):
    """Stands for any exception by which a case says that Xen answered wrong."""


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (AssertionError("x"), "failed"),
        (RefusedByXen(16, "EBUSY"), "failed"),
        (XenCrashed("Panic on CPU 0"), "crashed"),
        (XenExited("QEMU ended by itself"), "crashed"),
        (XenHung("no answer"), "hung"),
        (HarnessError("QEMU was killed"), "error"),
        (OSError(28, "no space"), "error"),
        (TypeError("a bug in a case"), "error"),
        (KeyError("x"), "error"),
    ],
)
def test_every_exception_is_somebodys_fault(problem: Exception, outcome: str) -> None:
    assert outcome_of(problem, answers=(AssertionError, RefusedByXen)) == outcome


def test_only_answers_about_xen_blame_it() -> None:
    assert {outcome for outcome in Outcome if outcome.blames_xen} == {"failed", "crashed", "hung"}
    assert {outcome for outcome in Outcome if not outcome.comparable} == {"skipped", "error"}


@pytest.mark.parametrize(
    ("id", "area", "name"),
    [
        ("testcases/grant_table/test_remap.py::test_x_is_y", "grant_table", "x_is_y"),
        ("testcases/test_shared_info.py::test_x", "shared_info", "x"),
        ("testcases/a/b/test_c.py::test_x[one-2]", "a", "x[one-2]"),
        ("../mine/test_c.py::TestThings::test_x", "mine", "x"),
        ("test_c.py::test_x", "c", "x"),
    ],
)
def test_an_id_is_shown_by_area_and_behaviour(id: str, area: str, name: str) -> None:
    case = CaseResult(id, Outcome.PASSED)
    assert (case.area, case.name) == (area, name)


def test_cases_have_folders_of_their_own_whatever_their_parameters() -> None:
    ids = [
        "testcases/a/test_c.py::test_x[/]",
        "testcases/a/test_c.py::test_x[:]",
        "testcases/a/test_d.py::test_x",
        "testcases/a/test_c.py::test_x",
        "testcases/a/test_c.py::test_x" + "y" * 300,
        "testcases/a/test_c.py::test_x" + "y" * 301,
    ]
    slugs = [CaseResult(id, Outcome.PASSED).slug for id in ids]
    assert len(set(slugs)) == len(ids)
    assert all(len(part) < 100 for slug in slugs for part in slug.split("/"))
    assert not any(part in ("", ".", "..") for slug in slugs for part in slug.split("/"))


def test_a_signature_has_no_numbers() -> None:
    case = CaseResult("x", Outcome.CRASHED, message="Assertion at mm.c:1577, gfn 0x38020")
    assert case.signature == "crashed: Assertion at mm.c:N, gfn N"


def test_json_keeps_a_suite_whole() -> None:
    suite = SuiteResult({"version": "4.17.5"}, "virt-gicv3", keyed([CASE]), 1.5)
    assert SuiteResult.from_json(json.loads(json.dumps(suite.to_json()))) == suite


def test_json_counts_every_outcome_also_those_that_did_not_occur() -> None:
    summary = SuiteResult({}, "m", keyed([CASE])).to_json()["summary"]
    assert summary == {
        "passed": 0, "failed": 1, "crashed": 0, "hung": 0, "skipped": 0, "error": 0,
    }  # fmt: skip


def test_cases_are_kept_in_the_order_of_their_ids() -> None:
    cases = [CaseResult(id, Outcome.PASSED) for id in ("c", "a", "b")]
    assert list(keyed(cases)) == ["a", "b", "c"]
