"""A directory as a reference: taken as it stands, and never written to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.git import git
from harness.references import resolve
from harness.tests.test_git_sources import snapshot
from harness.tests.toytree import BELL, Toy, make_toy
from harness.trees import Tree


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


def taken(toy: Toy) -> Tree:
    return resolve(str(toy.path), toy.cache)


def names(tree: Tree) -> set[str]:
    listing = git(tree.repository, "ls-tree", "-r", "-z", "--name-only", tree.tree)
    return set(listing.decode().split("\0")) - {""}


def test_a_clean_work_tree_is_its_commit(toy: Toy) -> None:
    before = snapshot(toy.path)
    tree = taken(toy)
    assert tree.tree == toy.tree_id()
    assert tree.identity == toy.tree().identity
    assert tree.commit is None
    assert snapshot(toy.path) == before


def test_edits_new_and_deleted_files_count_and_ignored_ones_do_not(toy: Toy) -> None:
    toy.write(".gitignore", "*.o\n")
    toy.write("xen/common/kept.o", "tracked although it looks ignored")
    toy.git("add", "--force", "xen/common/kept.o")
    toy.commit("Ignore objects")
    toy.edit(BELL, "{", "{ ")
    toy.write("xen/common/new.c", "int new;\n")
    toy.write("xen/common/new.o", "an object")
    (toy.path / "xen/arch/arm/clock.c").unlink()
    before = snapshot(toy.path)
    tree = taken(toy)
    assert snapshot(toy.path) == before
    assert {"xen/common/new.c", "xen/common/kept.o"} <= names(tree)
    assert not {"xen/common/new.o", "xen/arch/arm/clock.c"} & names(tree)
    edited = git(tree.repository, "cat-file", "blob", f"{tree.tree}:{BELL}")
    assert edited == (toy.path / BELL).read_bytes()


def test_it_is_read_anew_each_time(toy: Toy) -> None:
    first = taken(toy)
    original = (toy.path / BELL).read_text()
    toy.edit(BELL, "{", "{ ")
    second = taken(toy)
    toy.write(BELL, original)
    assert taken(toy).tree == first.tree != second.tree


def test_without_git_build_products_are_left_out(toy: Toy) -> None:
    expected = names(toy.tree())
    shutil.rmtree(toy.path / ".git")
    products = (
        "xen/xen",
        "xen/xen-syms",
        "xen/.config",
        "xen/common/bell.o",
        "xen/common/.bell.o.d",
    )
    for product in (*products, "xen/include/generated/autoconf.h", "xen/include/config/auto.conf"):
        toy.write(product, "made")
    before = snapshot(toy.path)
    assert names(taken(toy)) == expected
    assert snapshot(toy.path) == before


def test_a_source_inside_another_work_tree_is_read_as_files(toy: Toy, tmp_path: Path) -> None:
    shutil.rmtree(toy.path / ".git")
    Toy(tmp_path, toy.cache).git("init", "--quiet")
    (tmp_path / ".gitignore").write_text("toy/\n")
    assert "xen/Makefile" in names(taken(toy))


def test_links_modes_and_odd_names_survive(toy: Toy, tmp_path: Path) -> None:
    toy.write("xen/tool with space", "#!/bin/sh\n")
    (toy.path / "xen/tool with space").chmod(0o755)
    (toy.path / "xen/nötig.c").write_text("")
    (toy.path / "xen/link").symlink_to("common")
    (toy.path / os.fsdecode(b"xen/\xff.c")).write_text("")
    taken(toy).checkout(tmp_path / "checkout")
    assert os.access(tmp_path / "checkout/xen/tool with space", os.X_OK)
    assert (tmp_path / "checkout/xen/link").readlink() == Path("common")
    assert (tmp_path / "checkout/xen/nötig.c").exists()
    assert (tmp_path / os.fsdecode(b"checkout/xen/\xff.c")).exists()


def test_sockets_and_other_repositories_are_passed_over(toy: Toy) -> None:
    os.mkfifo(toy.path / "xen/pipe")
    inner = Toy(toy.path / "tools" / "other", toy.cache)
    inner.path.mkdir(parents=True)
    inner.git("init", "--quiet")
    inner.write("file", "")
    inner.commit("Other")
    assert names(taken(toy)) == names(toy.tree())


def test_an_index_that_was_spoiled_or_left_locked_is_no_hindrance(toy: Toy) -> None:
    expected = taken(toy).tree
    [index] = (toy.cache.root / "git" / "indexes").iterdir()
    index.with_suffix(".lock").touch()
    assert taken(toy).tree == expected
    index.write_bytes(b"nonsense")
    assert taken(toy).tree == expected


def test_a_damaged_repository_is_named(toy: Toy) -> None:
    (toy.path / ".git" / "index").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match=r"git repository of .* is damaged"):
        taken(toy)


def test_what_is_no_xen_is_refused(toy: Toy, tmp_path: Path) -> None:
    for place in (tmp_path, toy.path / BELL):
        with pytest.raises(UsageError):
            resolve(str(place), toy.cache)
    with pytest.raises(UsageError, match="names no Xen") as raised:
        resolve(str(tmp_path / "nothing"), toy.cache)
    assert any("debian:" in form for form in raised.value.evidence)
