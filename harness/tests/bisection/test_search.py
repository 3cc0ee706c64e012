"""Searching real histories for a file's content: each answer must be one, and the same again."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.bisection import history
from harness.bisection.search import Answer, Mark, Search, Seen
from harness.tests.bisection.repositories import Made, Planned, line, make

MARKS = {mark.value: mark for mark in Mark}
# Each example makes a repository with a dozen git processes, some tens of milliseconds on a quiet
# machine and much more on a busy one.
thorough = settings(max_examples=30, deadline=None)


@contextmanager
def made(plan: list[Planned]) -> Iterator[Made]:
    with tempfile.TemporaryDirectory(prefix="xenverify-test-") as directory:
        yield make(Path(directory) / "r.git", plan)


def start(repository: Made, old: str, new: str) -> Search:
    found = history.between(repository.path, repository.ids[old], repository.ids[new])
    return Search.between(found.graph, found.old, found.new, found.merge_bases)


def run(search: Search, look: Callable[[str], Seen]) -> tuple[Answer, list[str]]:
    """Search to the end; return the answer and what was asked for, in order."""
    asked: list[str] = []
    while not isinstance(step := search.next(), Answer):
        assert step not in asked, "a commit is never asked for twice"
        asked.append(step)
        search = search.tell(step, look(step))
    return step, asked


def by_state(repository: Made) -> Callable[[str], Seen]:
    states = repository.contents("xen/state")

    def look(commit: str) -> Seen:
        return Seen(MARKS[states[commit].partition(" ")[0]], states[commit])

    return look


def search_states(repository: Made, old: str, new: str) -> tuple[Answer, list[str]]:
    return run(start(repository, old, new), by_state(repository))


@st.composite
def shapes(draw: st.DrawFn, *, least: int = 2, most: int = 24) -> list[tuple[int, ...]]:
    """The parents of each commit by number, every one but the first with one or two."""
    count = draw(st.integers(least, most))
    shape: list[tuple[int, ...]] = [()]
    for number in range(1, count):
        near = st.integers(max(0, number - 4), number - 1)
        shape.append(tuple(dict.fromkeys(draw(st.lists(near, min_size=1, max_size=2)))))
    return shape


def ancestors(shape: list[tuple[int, ...]]) -> list[set[int]]:
    found: list[set[int]] = []
    for number, parents in enumerate(shape):
        found.append({number}.union(*(found[parent] for parent in parents)))
    return found


def planned(shape: list[tuple[int, ...]], states: list[str]) -> list[Planned]:
    return [
        Planned(
            f"c{number}",
            tuple(f"c{parent}" for parent in parents),
            {"xen/state": states[number], "xen/serial": str(number)},
        )
        for number, parents in enumerate(shape)
    ]


@thorough
@given(st.data())
def test_the_only_guilty_commit_is_found_in_any_history(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    known = ancestors(shape)
    new = len(shape) - 1
    guilty = data.draw(st.sampled_from(sorted(known[new])))
    old = data.draw(st.sampled_from(sorted(known[new] - {new})))
    assume(guilty not in known[old])
    states = ["bad" if guilty in known[number] else "good" for number in range(len(shape))]
    with made(planned(shape, states)) as repository:
        answer, asked = search_states(repository, f"c{old}", f"c{new}")
        assert answer.certain
        assert answer.first == repository.ids[f"c{guilty}"]
        # Halving, and a look at each parent that the halving did not see.
        suspects = len(known[new] - known[old])
        parents = len(shape[guilty])
        assert len(asked) <= math.ceil(math.log2(suspects)) + 2 + parents


@thorough
@given(st.data())
def test_an_answer_holds_however_the_bug_came_and_went(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    new = len(shape) - 1
    state = st.sampled_from(["good", "bad", "bad", "skip no compiler", "skip no boot"])
    states = [data.draw(state) for _ in shape]
    old = data.draw(st.sampled_from(sorted(ancestors(shape)[new] - {new})))
    states[old], states[new] = "good", "bad"
    with made(planned(shape, states)) as repository:
        answer, _ = search_states(repository, f"c{old}", f"c{new}")
        of = {name: states[int(name[1:])] for name in repository.ids}
        names = repository.names
        assert of[names[answer.first]] == "bad"
        assert answer.first in answer.suspects
        others = [names[commit] for commit in answer.suspects if commit != answer.first]
        assert all(of[name].startswith("skip") for name in others if name not in answer.presumed)
        below = {names[commit]: of[names[commit]] for commit in answer.below}
        assert set(below.values()) != {"bad"}
        assert all(of[names[commit]] == "bad" for commit in answer.inherited)
        if answer.certain:
            parents = shape[int(names[answer.first][1:])]
            assert set(below) == {f"c{parent}" for parent in parents}


@thorough
@given(st.data())
def test_a_search_that_knows_results_beforehand_takes_the_same_way(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    new = len(shape) - 1
    states = [data.draw(st.sampled_from(["good", "bad", "skip a", "skip b"])) for _ in shape]
    old = data.draw(st.sampled_from(sorted(ancestors(shape)[new] - {new})))
    states[old], states[new] = "good", "bad"
    with made(planned(shape, states)) as repository:
        look = by_state(repository)
        fresh = start(repository, f"c{old}", f"c{new}")
        answer, asked = run(fresh, look)
        resumed = fresh
        for name in data.draw(st.lists(st.sampled_from(sorted(repository.ids)), unique=True)):
            commit = repository.ids[name]
            resumed = resumed.tell(commit, look(commit))
        again, asked_again = run(resumed, look)
        assert again == answer
        assert set(asked_again) <= set(asked)


@thorough
@given(st.data())
def test_what_is_built_ahead_begins_with_what_is_wanted(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    new = len(shape) - 1
    old = data.draw(st.sampled_from(sorted(ancestors(shape)[new] - {new})))
    states = ["good"] * new + ["bad"]
    with made(planned(shape, states)) as repository:
        search = start(repository, f"c{old}", f"c{new}")
        look = by_state(repository)
        while not isinstance(step := search.next(), Answer):
            ahead = search.ahead(3)
            assert ahead[0] == step
            assert len(set(ahead)) == len(ahead)
            search = search.tell(step, look(step))
        assert search.ahead(3) == []


def test_ahead_holds_both_followers_of_the_next_commit() -> None:
    with made(line(*["good"] * 8, *["bad"] * 8)) as repository:
        search = start(repository, "c0", "c15")
        first = search.ahead(3)
        after = {search.tell(first[0], Seen(mark)).next() for mark in (Mark.GOOD, Mark.BAD)}
        assert after == set(first[1:])


def test_steps_are_the_logarithm_of_the_distinct_sources() -> None:
    plan = line(*["good"] * 100, *["bad"] * 157)
    with made(plan) as repository:
        answer, asked = search_states(repository, "c0", "c256")
        assert answer.first == repository.ids["c100"]
        assert len(asked) == 8


def test_commits_that_build_the_same_are_never_asked_for() -> None:
    plan = []
    for planned_commit in line("good", "good", "good", "bad", "bad", "bad"):
        number = int(planned_commit.name[1:])
        files = {**planned_commit.files, "xen/serial": str(number // 3), "docs/page": str(number)}
        plan.append(Planned(planned_commit.name, planned_commit.parents, files))
    with made(plan) as repository:
        answer, asked = search_states(repository, "c0", "c5")
        assert answer.first == repository.ids["c3"]
        assert asked == []


@pytest.mark.parametrize("broken", [(5, 9), (1, 9), (5, 14)])
def test_a_stretch_that_cannot_be_tested_leaves_an_honest_range(broken: tuple[int, int]) -> None:
    first, last = broken
    states = ["good"] * 8 + ["bad"] * 8
    states[first : last + 1] = ["skip does not build"] * (last + 1 - first)
    with made(line(*states)) as repository:
        answer, _ = search_states(repository, "c0", "c15")
        assert not answer.certain
        assert answer.first == repository.ids[f"c{last + 1}"]
        names = [repository.names[commit] for commit in answer.suspects]
        assert names == [f"c{number}" for number in range(first, last + 2)]
        assert [repository.names[commit] for commit in answer.below] == [f"c{first - 1}"]


def test_a_stretch_that_cannot_be_tested_is_left_in_few_steps() -> None:
    states = ["good"] * 190 + ["bad"] * 66
    states[80:180] = ["skip does not build"] * 100
    with made(line(*states)) as repository:
        answer, asked = search_states(repository, "c0", "c255")
        assert answer.first == repository.ids["c190"]
        assert answer.certain
        assert len(asked) <= 20


def test_a_long_stretch_that_fails_alike_is_not_built_commit_by_commit() -> None:
    states = ["good"] * 60 + ["skip does not build"] * 100 + ["bad"] * 40
    with made(line(*states)) as repository:
        answer, asked = search_states(repository, "c0", "c199")
        assert answer.first == repository.ids["c160"]
        assert len(answer.suspects) == 101
        assert answer.presumed
        assert len(asked) < 40


def test_a_stretch_that_fails_in_two_ways_is_looked_at_between_them() -> None:
    states = ["good"] * 10 + ["skip one way"] * 10 + ["bad"] + ["skip other way"] * 10 + ["bad"] * 9
    with made(line(*states)) as repository:
        answer, _ = search_states(repository, "c0", "c39")
        assert answer.first == repository.ids["c20"]


def fork(*, side_state: str, merge_state: str) -> list[Planned]:
    """A fix on the main line, a branch from before the fix, and their merge."""
    main = line("bad", "good", "good")

    def one(name: str, parents: tuple[str, ...], state: str) -> Planned:
        return Planned(name, parents, {"xen/state": state, "xen/serial": name})

    return [
        *main,
        one("side1", ("c0",), side_state),
        one("side2", ("side1",), side_state),
        one("merge", ("c2", "side2"), merge_state),
        one("after", ("merge",), merge_state),
    ]


def test_a_merge_that_loses_the_fix_is_to_blame_not_the_branch_that_never_had_it() -> None:
    with made(fork(side_state="bad", merge_state="bad")) as repository:
        answer, _ = search_states(repository, "c1", "after")
        assert answer.first == repository.ids["merge"]
        assert answer.certain
        assert answer.inherited == (repository.ids["side2"],)


def test_a_branch_from_before_the_start_that_brings_the_bug_is_entered() -> None:
    plan = fork(side_state="bad", merge_state="bad")
    plan[0] = Planned("c0", (), {"xen/state": "good", "xen/serial": "c0"})
    with made(plan) as repository:
        answer, _ = search_states(repository, "c1", "after")
        assert answer.first == repository.ids["side1"]


def test_a_bug_that_went_and_came_back_is_blamed_on_a_commit_that_brought_it() -> None:
    states = ["good", "good", "bad", "good", "good", "bad", "bad"]
    with made(line(*states)) as repository:
        answer, _ = search_states(repository, "c0", "c6")
        assert repository.names[answer.first] in ("c2", "c5")


def test_the_fork_point_is_looked_at_first_when_the_old_end_is_on_a_branch() -> None:
    main = line("good", "good", "good", "good", "bad", "bad")
    branch = Planned("release", ("c1",), {"xen/state": "good", "xen/serial": "release"})
    with made([*main, branch]) as repository:
        answer, asked = search_states(repository, "release", "c5")
        assert asked[0] == repository.ids["c1"]
        assert answer.first == repository.ids["c4"]


def test_a_fork_point_that_is_bad_already_ends_the_search() -> None:
    main = line("bad", "bad", "bad")
    branch = Planned("release", ("c0",), {"xen/state": "good", "xen/serial": "release"})
    with made([*main, branch]) as repository:
        answer, asked = search_states(repository, "release", "c2")
        assert answer.bad_base == repository.ids["c0"]
        assert not answer.certain
        assert asked == [repository.ids["c0"]]
