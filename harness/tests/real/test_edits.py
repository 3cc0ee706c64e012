"""The edits on Debian's Xens: what each is about is there, goes in, and comes out again."""

from __future__ import annotations

import io

import pytest

from harness.cache import Cache
from harness.changes import apply, read_change
from harness.references import resolve
from harness.tests.edits import EDITS, NoPlaceError, make_patch
from harness.trees import Tree

# bullseye's 4.14 keeps no GFN in the page, so nothing there refuses a second map.
ABOUT_THE_STORED_GFN = {
    *("allow-second-map", "keep-stale-gfn", "wrong-errno", "flaky-second-map"),
    *("panic-on-hypercall", "hang-on-hypercall"),
}


@pytest.mark.parametrize("reference", ["debian:bullseye", "debian:bookworm"])
def test_every_edit_goes_in_and_comes_out_again(reference: str, cache: Cache) -> None:
    go_in_and_out(resolve(reference, cache), cache)


def test_every_edit_goes_in_and_comes_out_of_a_newer_xen_too(
    trixie_tree: Tree, cache: Cache
) -> None:
    go_in_and_out(trixie_tree, cache)


def go_in_and_out(tree: Tree, cache: Cache) -> None:
    for name in EDITS:
        if tree.release < (4, 17) and name in ABOUT_THE_STORED_GFN:
            with pytest.raises(NoPlaceError):
                make_patch([name], tree)
            continue
        series = read_change("-", tree, cache, stdin=io.BytesIO(make_patch([name], tree)))
        wrong = apply(tree, series)
        assert wrong.tree != tree.tree, name
        assert (wrong.identity == tree.identity) == (name == "docs-only"), name
        assert apply(wrong, series, reverse=True).tree == tree.tree, name
