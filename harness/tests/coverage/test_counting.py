"""Counters as QEMU leaves them, lines as addr2line tells them, and what is said of both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.coverage.changed import (
    ChangeCoverage,
    SourceLine,
    State,
    added_lines,
    annotate,
    judge,
)
from harness.coverage.counters import Counters, Ran
from harness.coverage.gathering import BOOT, RAN_AT_BOOT, RAN_IN_CASE, gather, recall, remember
from harness.coverage.lcov import tracefile
from harness.coverage.lines import Code, Line, LineTable, _pack, _unpack
from harness.coverage.selecting import parse_line, reach
from harness.errors import UsageError
from harness.git import create_bare, git
from harness.outcomes import CaseResult, Outcome

LOW, HIGH = 0x200000, 0x200400
MM = "xen/arch/arm/mm.c"
# Line 10 is inlined in two places; line 20 is one instruction; 30 follows it.
TABLE = LineTable(
    LOW,
    HIGH,
    {MM: {10: Code("get", (0, 2, 100, 1)), 20: Code("map", (5, 1)), 30: Code("map", (6, 3))}},
)


def ran(*instructions: int) -> Ran:
    return Ran(LOW, bytes(int(n in instructions) for n in range(256)))


@pytest.fixture
def counters() -> Iterator[Counters]:
    made = Counters(Path("/nowhere/coverage.so"), LOW, HIGH)
    yield made
    made.close()


def count(counters: Counters, instruction: int, times: int) -> None:
    counters._map[instruction * 8 : instruction * 8 + 8] = times.to_bytes(8, "little")


def test_any_count_is_ran_however_large(counters: Counters) -> None:
    for instruction, times in ((0, 1), (3, 256), (7, 1 << 32), (255, 1 << 63)):
        count(counters, instruction, times)
    assert counters.ran() == ran(0, 3, 7, 255)
    assert len(counters.ran()) == 4
    assert LOW + 12 in counters.ran() and LOW + 4 not in counters.ran()
    assert LOW - 4 not in counters.ran() and HIGH + 4000 not in counters.ran()


def test_counting_begins_anew(counters: Counters) -> None:
    count(counters, 9, 5)
    counters.clear()
    assert counters.ran() == ran()


def test_what_ran_survives_a_file_and_what_is_none_is_none(tmp_path: Path) -> None:
    these = ran(1, 200)
    these.save(tmp_path / "case.ran")
    assert Ran.load(tmp_path / "case.ran") == these
    assert Ran.load(tmp_path / "missing") is None
    (tmp_path / "broken").write_bytes(b"xenverify ran 1\nnonsense")
    assert Ran.load(tmp_path / "broken") is None


def test_two_cases_ran_what_either_did() -> None:
    assert ran(1) | ran(2, 3) == ran(1, 2, 3)
    with pytest.raises(ValueError, match="two different Xens"):
        _ = ran(1) | Ran(LOW + 4)


def test_a_line_ran_if_one_of_its_copies_did() -> None:
    line = Line(MM, 10)
    assert TABLE.ran(line, ran(100)) is True
    assert TABLE.ran(line, ran(2)) is False
    assert TABLE.ran(Line(MM, 11), ran(1)) is None


def test_table_survives_json() -> None:
    import json

    assert _unpack(json.loads(json.dumps(_pack(TABLE)))) == TABLE


ADDED = [SourceLine(Line(MM, n), f"text {n}") for n in (10, 11, 20)]
CASES = {BOOT: ran(0), "a": ran(1), "b": ran(100)}


def test_lines_of_a_change_ran_never_ran_or_have_no_code() -> None:
    found = judge(ADDED, TABLE, CASES)
    assert [(line.line.number, line.state) for line in found.lines] == [
        (10, State.RAN), (11, State.NO_CODE), (20, State.NEVER),
    ]  # fmt: skip
    assert found.lines[0].cases == ("a", "b", BOOT)
    assert found.summary == f"1 of 2 changed lines with code ran; not run: {MM}:20 in map"
    assert ChangeCoverage.from_json(found.to_json()).summary == found.summary


def test_change_of_comments_only_says_so() -> None:
    assert "the changed line became no code" in judge(ADDED[1:2], TABLE, CASES).summary
    twice = [ADDED[1], ADDED[1]]
    assert "none of the 2 changed lines has code" in judge(twice, TABLE, CASES).summary
    assert "adds no line" in judge([], TABLE, CASES).summary


def test_lcov_counts_the_cases_that_ran_a_line() -> None:
    lines = tracefile(TABLE, CASES, root=Path("/src")).splitlines()
    assert lines[:2] == ["TN:xenverify", f"SF:/src/{MM}"]
    assert {"DA:10,3", "DA:20,0", "DA:30,0", "FNDA:3,get", "FNDA:0,map", "LF:3", "LH:1"} <= set(
        lines
    )
    assert lines[-1] == "end_of_record"


def test_cases_are_chosen_by_the_line_they_reach() -> None:
    found = reach(TABLE, CASES, Line(MM, 10))
    assert (found.cases, found.others, found.at_boot) == (("a", "b"), (), True)
    nobody = reach(TABLE, CASES, Line(MM, 20))
    assert (nobody.cases, nobody.others) == ((), ("a", "b"))


def test_line_without_code_is_refused_with_its_neighbours() -> None:
    with pytest.raises(UsageError, match="became no code") as caught:
        reach(TABLE, CASES, Line(MM, 12))
    assert "10, 20, 30" in caught.value.advice
    with pytest.raises(UsageError, match="no code in this Xen"):
        reach(TABLE, CASES, Line("xen/arch/x86/mm.c", 1))


@pytest.mark.parametrize("text", ["arch/arm/mm.c:20", "./xen/arch/arm/mm.c:20", f"{MM}:20"])
def test_line_is_named_as_an_editor_does(text: str) -> None:
    assert parse_line(text) == Line(MM, 20)


@pytest.mark.parametrize("text", ["mm.c", "mm.c:", ":12", "mm.c:x"])
def test_what_names_no_line_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no line"):
        parse_line(text)


class Kept:
    def __init__(self, root: Path) -> None:
        self.root = root


def test_what_cases_ran_is_found_in_their_folders_and_remembered(tmp_path: Path) -> None:
    for name, these in (("one", ran(1)), ("two", ran(2))):
        (tmp_path / name).mkdir()
        ran(0).save(tmp_path / name / RAN_AT_BOOT)
        these.save(tmp_path / name / RAN_IN_CASE)
    cases = [CaseResult(n, Outcome.PASSED, directory=str(tmp_path / n)) for n in ("one", "two")]
    found = gather([*cases, CaseResult("lost", Outcome.ERROR)])
    assert found == {BOOT: ran(0), "one": ran(1), "two": ran(2)}
    cache = Kept(tmp_path / "cache")
    remember(cache, "beef", found, tmp_path)
    assert recall(cache, "beef", tmp_path) == found
    assert recall(cache, "f00d", tmp_path) == {}


def test_a_case_that_was_written_anew_is_not_known(tmp_path: Path) -> None:
    cache, file, other = Kept(tmp_path / "cache"), tmp_path / "test_it.py", tmp_path / "other"
    other.mkdir()
    for place in (file, other / "test_it.py"):
        place.write_text("def test_a(): ...")
    found = {BOOT: ran(0), "test_it.py::test_a": ran(1)}
    remember(cache, "beef", found, tmp_path)
    assert recall(cache, "beef", tmp_path) == found
    (other / "test_it.py").write_text("def test_a(): pass")
    assert recall(cache, "beef", other) == {BOOT: ran(0)}
    file.write_text("def test_a(): 1 / 0")
    assert recall(cache, "beef", tmp_path) == {BOOT: ran(0)}
    file.unlink()
    assert recall(cache, "beef", tmp_path) == {BOOT: ran(0)}


def tree_of(repository: Path, text: str) -> str:
    blob = git(repository, "hash-object", "-w", "--stdin", stdin=text.encode()).decode().strip()
    tree = f"100644 blob {blob}\tmm.c\n"
    for name in ("arm", "arch", "xen"):
        inner = git(repository, "mktree", stdin=tree.encode()).decode().strip()
        tree = f"040000 tree {inner}\t{name}\n"
    return git(repository, "mktree", stdin=tree.encode()).decode().strip()


def test_lines_of_a_change_are_those_of_the_tree_after_it(tmp_path: Path) -> None:
    repository = tmp_path / "trees.git"
    create_bare(repository)
    before = [f"line {number}" for number in range(1, 31)]
    after = [*before[:9], "new 10", *before[9:15], *before[16:], "new 30"]
    one, two = (tree_of(repository, "\n".join(text) + "\n") for text in (before, after))
    added = added_lines(repository, one, two)
    assert added == [
        SourceLine(Line("xen/arch/arm/mm.c", 10), "new 10"),
        SourceLine(Line("xen/arch/arm/mm.c", 31), "new 30"),
    ]
    margins = annotate(repository, one, two, judge(added, TABLE, CASES))
    assert " ran in 2 | +new 10" in margins
    assert "          | +new 30" in margins
    assert "          | -line 16" in margins
