"""The edits' own machinery, on the toy; that they do to Xen what they say is shown in real/."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from harness.changes import apply, read_change
from harness.tests.edits import EDITS, NoPlaceError, make_patch
from harness.tests.toytree import Toy, make_toy

MM = """\
int xenmem_add_to_physmap_one(int space)
{
    if ( space )
        rc = -EBUSY;
    return rc;
}

int another(void)
{
    rc = -EBUSY;
}
"""


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    toy = make_toy(tmp_path)
    toy.write("xen/arch/arm/mm.c", MM)
    toy.commit("A function to edit")
    return toy


def test_an_edit_changes_the_function_it_means(toy: Toy) -> None:
    patch = make_patch(["wrong-errno"], toy.tree())
    series = read_change("-", toy.tree(), toy.cache, stdin=io.BytesIO(patch))
    after = apply(toy.tree(), series)
    content = toy.git("--git-dir", str(after.repository), "show", f"{after.tree}:xen/arch/arm/mm.c")
    assert content.decode() == MM.replace("-EBUSY", "-EEXIST", 1)


def test_edits_make_a_series_and_a_fix_undoes_it(toy: Toy) -> None:
    names = ["wrong-errno", "comment-only", "docs-only"]
    worse = read_change("-", toy.tree(), toy.cache, stdin=io.BytesIO(make_patch(names, toy.tree())))
    assert [patch.position for patch in worse.patches] == [(1, 3), (2, 3), (3, 3)]
    wrong = apply(toy.tree(), worse)
    fix = make_patch(names, toy.tree(), fix=True)
    better = read_change("-", wrong, toy.cache, stdin=io.BytesIO(fix))
    assert better.patches[0].subject == "Make Xen right again: docs-only"
    assert apply(wrong, better).tree == toy.tree().tree
    assert apply(toy.tree(), better, reverse=True).tree == wrong.tree


def test_an_edit_without_its_place_says_so(toy: Toy) -> None:
    with pytest.raises(NoPlaceError, match="nothing to edit for keep-stale-gfn"):
        make_patch(["keep-stale-gfn"], toy.tree())


def test_edits_leave_nothing_in_the_repository(toy: Toy) -> None:
    tree = toy.tree()
    before = sorted(tree.repository.rglob("*"))
    make_patch(["wrong-errno", "docs-only"], tree)
    assert sorted(tree.repository.rglob("*")) == before


def test_every_edit_says_what_it_means() -> None:
    assert all(edit.meaning and edit.files for edit in EDITS.values())
