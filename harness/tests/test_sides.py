"""Both sides of a change, on a toy clone: which is before, and how each is named again."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ChangeError, UsageError
from harness.sides import Side, plan_change
from harness.tests.toytree import BELL, CLOCK, Toy, make_toy


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


def change_file(toy: Toy, name: str, *files: str) -> Path:
    """Commit an edit of each file, leave the commits as a series in a file, and take them back."""
    start = toy.line("rev-parse", "HEAD")
    for number, file in enumerate(files):
        toy.write(file, (toy.path / file).read_text() + f"int added_{number};\n")
        toy.commit(f"Add number {number}")
    path = toy.path.parent / name
    path.write_bytes(toy.git("format-patch", "--stdout", f"{start}..HEAD"))
    toy.git("reset", "--quiet", "--hard", start)
    return path


def reference(toy: Toy) -> str:
    return f"git:{toy.path}@HEAD"


def test_before_is_the_tree_as_it_stands_and_after_has_the_change(toy: Toy) -> None:
    patch = str(change_file(toy, "one.patch", BELL))
    change = plan_change(reference(toy), [patch], toy.cache)
    before, after = (tree for _, tree in change.stages)
    assert before.tree == toy.line("rev-parse", "HEAD^{tree}")
    assert after.tree != before.tree
    assert change.before.words() == ["--xen", reference(toy)]
    assert change.after.words() == ["--xen", reference(toy), "--with", patch]


def test_the_removal_of_what_the_tree_lacks_begins_with_it(toy: Toy) -> None:
    """A change that was never in the tree goes in for the side before, and comes out again."""
    patch = str(change_file(toy, "one.patch", BELL))
    forward = plan_change(reference(toy), [patch], toy.cache)
    removal = plan_change(reference(toy), [patch], toy.cache, reverse=True)
    assert [tree.tree for _, tree in removal.stages] == [
        tree.tree for _, tree in reversed(forward.stages)
    ]
    assert (removal.before, removal.after) == (forward.after, forward.before)


def test_the_removal_of_what_the_tree_has_ends_without_it(toy: Toy) -> None:
    patch = str(change_file(toy, "one.patch", BELL))
    plain = toy.line("rev-parse", "HEAD^{tree}")
    toy.git("am", "--quiet", patch)
    removal = plan_change(reference(toy), [patch], toy.cache, reverse=True)
    before, after = (tree.tree for _, tree in removal.stages)
    assert (before, after) == (toy.line("rev-parse", "HEAD^{tree}"), plain)
    assert removal.before.words() == ["--xen", reference(toy)]
    assert removal.after.words() == ["--xen", reference(toy), "--with", patch, "--reverse"]


def test_what_neither_applies_nor_comes_out_is_told_as_asked(toy: Toy) -> None:
    patch = change_file(toy, "one.patch", BELL)
    toy.write(BELL, "int nothing_that_was_here;\n")
    toy.commit("Rewrite the bell")
    with pytest.raises(ChangeError):
        plan_change(reference(toy), [str(patch)], toy.cache, reverse=True)


@pytest.mark.parametrize("reverse", [False, True])
def test_every_stage_of_a_series_can_be_named_again(toy: Toy, reverse: bool) -> None:
    """What is between two patches is left as one patch, which leads to the very tree."""
    patch = str(change_file(toy, "series.mbox", BELL, CLOCK))
    change = plan_change(reference(toy), [patch], toy.cache, reverse=reverse)
    assert len(change.stages) == 3
    sides = change.sides(toy.path.parent)
    for (name, tree), side in zip(change.stages, sides, strict=True):
        assert side.tree(toy.cache).tree == tree.tree, name


def test_several_changes_are_one_series_in_the_order_given(toy: Toy) -> None:
    first = str(change_file(toy, "first.patch", BELL))
    second = str(change_file(toy, "second.patch", CLOCK))
    change = plan_change(reference(toy), [first, second], toy.cache)
    assert [name for name, _ in change.stages] == ["without", '"Add number 0"', '"Add number 0"']
    side = Side(reference(toy), (first, second))
    assert side.tree(toy.cache).tree == change.stages[-1][1].tree
    assert Side(reference(toy), (first,)).tree(toy.cache).tree == change.stages[1][1].tree


def test_standard_input_is_one_change_and_is_read_once(toy: Toy) -> None:
    data = change_file(toy, "one.patch", BELL).read_bytes()
    change = plan_change(reference(toy), ["-"], toy.cache, stdin=data)
    assert change.series[0].origin == "standard input"
    with pytest.raises(UsageError, match="one change only"):
        plan_change(reference(toy), ["-", "-"], toy.cache, stdin=data)
