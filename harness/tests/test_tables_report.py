"""What a verdict says of Xen's own tables: each rule once, with an example and a count."""

from __future__ import annotations

from harness.inspection.footprint import RULE as FOOTPRINT
from harness.inspection.invariants import why
from harness.inspection.rule import RULES
from harness.outcomes import CaseResult, Outcome, SuiteResult
from harness.reports.failure import tell
from harness.reports.tables import NONE_BROKEN, describe

ALIAS = "shared_info of d1 is mapped at 2 GFNs: 0x38000, 0x38001 [shared_page_is_mapped_once]"
STALE = (
    "grant frame 0 of d1 is recorded at gfn 0x38000, which maps nothing [recorded_gfn_is_mapped]"
)


def suite(*cases: CaseResult) -> SuiteResult:
    return SuiteResult({}, "virt-gicv3", {case.id: case for case in cases})


def case(name: str, **found: object) -> CaseResult:
    return CaseResult(name, Outcome.PASSED, **found)  # type: ignore[arg-type]


def test_rule_is_told_once_with_an_example_and_a_count() -> None:
    other = ALIAS.replace("0x38001", "0x38002")
    found = suite(case("a", violations=(ALIAS,)), case("b", violations=(other, other)), case("c"))
    assert list(describe(found)) == [
        "shared_info of d1 is mapped at 2 GFNs: 0x38000, 0x38001 "
        "[shared_page_is_mapped_once, 2 cases]"
    ]


def test_what_a_xen_is_known_to_do_comes_behind() -> None:
    known = f"{STALE} (known: before 71320946d5 a grant frame's recorded GFN outlives its mapping)"
    lines = list(describe(suite(case("a", observed=(known,)))))
    assert lines[0] == NONE_BROKEN
    assert lines[1].startswith("known: grant frame 0 of d1 is recorded")
    assert lines[1].endswith("[recorded_gfn_is_mapped, 1 case]")


def test_case_that_ran_without_is_reported_as_such() -> None:
    reason = "xen-syms carries no debug information"
    lines = list(describe(suite(case("a", unseen=reason), case("b"))))
    assert lines == [NONE_BROKEN, f"1 case ran without: {reason}"]
    assert list(describe(suite(case("a", unseen=reason)))) == [f"1 case ran without: {reason}"]


def test_nothing_is_claimed_where_no_case_ran() -> None:
    assert list(describe(suite(CaseResult("a", Outcome.SKIPPED)))) == []


def test_a_failure_explains_the_rules_that_were_broken() -> None:
    after = "d1 XENMEM_populate_physmap([0x38000])"
    footprint = f"d1 gfn 0x38001 changed from x to nothing, after {after} [{FOOTPRINT}]"
    lines = tell(case("a", violations=(ALIAS, ALIAS, footprint), observed=(STALE,)))
    (first,) = [n for n, line in enumerate(lines) if line.startswith("rule:")]
    assert lines[first].startswith("rule:     shared_page_is_mapped_once: A xenheap page is behind")
    explained = " ".join(line.strip() for line in lines[first:])
    assert explained.count("shared_page_is_mapped_once") == 1
    assert f"{FOOTPRINT}: A call may change only the GFNs that it names" in explained
    assert "recorded_gfn_is_mapped" not in explained  # it broke nothing


def test_every_rule_says_why_it_must_hold() -> None:
    for name in [*RULES, FOOTPRINT]:
        assert len(why(name)) > len("Because."), name
    assert why("no_such_rule") == ""
