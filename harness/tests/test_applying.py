"""A series on a tree: git's own result, nothing left behind, and a refusal that shows why."""

from __future__ import annotations

import io
import resource
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from harness import offers
from harness.changes import Series, apply, apply_each, read_change
from harness.errors import ChangeError, ExitCode, HarnessError
from harness.git import git
from harness.references import resolve
from harness.tests.toytree import BELL, CLOCK, DATA, ROPE, Toy, make_toy
from harness.trees import Tree

SERIES = (DATA / "series.mbox").read_bytes()


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


def read(toy: Toy, data: bytes, tree: Tree | None = None) -> Series:
    return read_change("-", tree or toy.tree(), toy.cache, stdin=io.BytesIO(data))


def refused(tree: Tree, series: Series, *, reverse: bool = False) -> ChangeError:
    """Return the error of a series that does not apply; its exit code is that of changes."""
    with pytest.raises(ChangeError) as caught:
        apply(tree, series, reverse=reverse)
    assert caught.value.exit_code is ExitCode.CHANGE_DOES_NOT_APPLY
    assert "\n" not in caught.value.message
    return caught.value


def without_blob_ids(diff: bytes) -> bytes:
    """Return a diff that git cannot merge three-way."""
    return b"\n".join(line for line in diff.split(b"\n") if not line.startswith(b"index "))


def test_a_series_applied_and_taken_out_again(toy: Toy) -> None:
    series = read(toy, SERIES)
    after = apply(toy.tree(), series)
    assert after.changes == ("bells: Count further than 2^32", "clock: Strike twenty-four hours")
    assert after.identity != toy.tree().identity
    assert (after.reference, after.repository) == (toy.tree().reference, toy.tree().repository)
    back = apply(after, series, reverse=True)
    assert back.tree == toy.tree_id()
    assert back.identity == toy.tree().identity
    assert back.changes[2:] == (
        "without clock: Strike twenty-four hours",
        "without bells: Count further than 2^32",
    )


def test_each_patch_gives_a_tree(toy: Toy) -> None:
    first, second = apply_each(toy.tree(), read(toy, SERIES))
    assert first.changes == ("bells: Count further than 2^32",)
    assert second.tree == apply(toy.tree(), read(toy, SERIES)).tree
    last, before = apply_each(second, read(toy, SERIES), reverse=True)
    assert (last.tree, before.tree) == (first.tree, toy.tree_id())


def test_nothing_of_the_users_is_touched(toy: Toy) -> None:
    def state() -> tuple[bytes, ...]:
        listed = (toy.git(*command.split()) for command in ("status --porcelain", "for-each-ref"))
        files = sorted(path for path in toy.path.rglob("*") if path.is_file())
        return (*listed, b"".join(path.read_bytes() for path in files))

    toy.git("status")  # writes the index once more
    before = state()
    apply(toy.tree(), read(toy, SERIES))
    with pytest.raises(ChangeError):
        apply(toy.tree(), read(toy, SERIES.replace(b"int cracked", b"int broken")))
    assert state() == before


def test_a_user_s_configuration_changes_nothing(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[apply]\n whitespace = error-all\n[core]\n autocrlf = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere"))
    diff = SERIES.replace(b"+#define HOURS 24\n", b"+#define HOURS 24  \n")
    assert apply(toy.tree(), read(toy, diff)).tree


def test_a_directory_takes_a_change(toy: Toy) -> None:
    tree = resolve(str(toy.path), toy.cache)
    after = apply(tree, read(toy, SERIES, tree))
    after.checkout(toy.path.parent / "out")
    assert (toy.path.parent / "out" / ROPE).exists()


def test_a_merge_three_way_and_its_blobs_are_kept(toy: Toy) -> None:
    """The blob that the patch was made for is found in another repository of the cache.

    What the merge makes of it exists there too: it must be copied, or the tree is broken once it is
    looked at alone.
    """
    toy.git("checkout", "--quiet", "-b", "new")
    toy.edit(CLOCK, "static unsigned int hour;\n", "static unsigned int hour = 3;\n")
    toy.commit("Start at three")
    toy.edit(CLOCK, "for ( i = 0; i < hour; i++ )", "for ( i = hour; i; i-- )")
    toy.commit("Strike downwards")
    toy.tree("new")  # a mirror of it is in the cache now
    patch = toy.git("format-patch", "--stdout", "--full-index", "-1", "-U10")
    toy.git("checkout", "--quiet", "main")
    old = resolve(str(toy.path), toy.cache)
    heard: list[str] = []
    after = apply(old, read(toy, patch, old), progress=heard.append)
    assert heard == ['"Strike downwards" applied by three-way merge']
    content = git(after.repository, "cat-file", "blob", f"{after.tree}:{CLOCK}").decode()
    assert "hour;\n" in content and "for ( i = hour; i; i-- )" in content
    git(after.repository, "fsck", "--connectivity-only", after.tree)


def test_a_merge_that_changes_nothing_is_no_success(toy: Toy) -> None:
    toy.edit(CLOCK, "% 12", "% 24")
    toy.commit("clock: Strike twenty-four")
    series = read_change("git:HEAD", toy.tree("HEAD~1"), toy.cache)
    assert refused(toy.tree(), series).advice == (
        "The tree looks as if it has this change already; try --reverse."
    )
    assert apply(toy.tree(), series, reverse=True).tree == toy.tree_id("HEAD~1")
    assert refused(toy.tree("HEAD~1"), series, reverse=True).advice == (
        "The tree looks as if it does not have this change; try without --reverse."
    )


def test_a_merge_into_a_tree_that_has_most_of_it_is_no_success(toy: Toy) -> None:
    """A merge leaves alone what is there, and would add what a later commit moved once more."""
    toy.edit(
        CLOCK, "static unsigned int hour;\n", "#define HOURS 24\n\nstatic unsigned int hour;\n"
    )
    toy.edit(CLOCK, "% 12", "% HOURS")
    toy.write(ROPE, "".join(f"int rope_{number};\n" for number in range(9)))
    change = toy.commit("clock: Strike twenty-four")
    toy.edit(
        CLOCK, "#define HOURS 24\n\nstatic unsigned int hour;\n", "static unsigned int hour;\n"
    )
    toy.edit(CLOCK, "int bell_ring", "#define HOURS 24\n\nint bell_ring")
    toy.commit("clock: Move")
    error = refused(toy.tree(), read_change(f"git:{change}", toy.tree(), toy.cache))
    assert "11 of 11 lines it adds are there already" in error.evidence[-1]


def test_what_a_merge_found_there_is_said(toy: Toy) -> None:
    toy.edit(CLOCK, "% 12", "% 24")
    toy.edit(BELL, "tower[8]", "tower[9]")
    toy.edit(BELL, "    int cracked;", "    bool cracked;")
    change = toy.commit("Nine bells, and a clock")
    toy.git("checkout", "--quiet", "-b", "other", "HEAD~1")
    toy.edit(CLOCK, "% 12", "% 24")
    toy.commit("The clock alone")
    heard: list[str] = []
    apply(toy.tree(), read_change(f"git:{change}", toy.tree(), toy.cache), progress=heard.append)
    assert heard == [
        '"Nine bells, and a clock" applied by three-way merge; 2 of its 6 lines were there'
    ]


def test_a_patch_the_tree_has_among_others_it_has_not(toy: Toy) -> None:
    first = apply_each(toy.tree(), read(toy, SERIES))[0]
    error = refused(first, read(toy, SERIES))
    assert 'patch 1/2 "bells: Count further than 2^32"' in error.message
    assert error.advice == (
        "The tree looks as if it has this patch of the series already; leave it out."
    )


def test_a_mended_patch_is_held_against_what_its_author_made(toy: Toy) -> None:
    """Two lost context lines look like one and a file's end: the blob ids of git tell."""
    page = (DATA / "page.patchwork.txt").read_bytes()
    assert apply(toy.tree(), read(toy, page)).tree
    altered = page.replace(b"28c516b", b"28c516c")
    error = refused(toy.tree(), read(toy, altered))
    assert error.evidence == (f"{BELL}: more was cut off the patch than context",)


def test_the_hunk_that_fails_is_shown(toy: Toy) -> None:
    toy.edit(CLOCK, "hour = (hour + 1) % 12;", "hour = next(hour);")
    toy.commit("clock: Tidy")
    error = refused(toy.tree(), read(toy, without_blob_ids(SERIES)))
    assert error.message == (
        f"standard input does not apply to {toy.tree().reference}: "
        f'patch 2/2 "clock: Strike twenty-four hours", {CLOCK}, hunk 1 of 1'
    )
    assert error.evidence[:2] == (
        "line 11  expected      hour = (hour + 1) % 12;",
        "         found         hour = next(hour);",
    )


def test_the_second_hunk_that_fails_is_shown(toy: Toy) -> None:
    toy.edit(
        BELL, "    return 0;\n}\n\nunsigned int bell_count", "    return 7;\n}\n\nint bell_count"
    )
    toy.commit("bells: Tidy")
    error = refused(toy.tree(), read(toy, SERIES))
    assert f"{BELL}, hunk 2 of 2" in error.message
    assert error.evidence == (
        "line 21  expected      return 0;",
        "         found         return 7;",
    )


def test_a_file_that_moved_is_found(toy: Toy) -> None:
    toy.git("mv", CLOCK, "xen/common/clock.c")
    toy.commit("Move")
    error = refused(toy.tree(), read(toy, without_blob_ids(SERIES)))
    assert f"{CLOCK}: the tree has no such file" in error.message
    assert error.evidence == ("it has  xen/common/clock.c",)


def test_a_file_that_is_there_already(toy: Toy) -> None:
    toy.write(ROPE, "/* Another rope. */\n")
    toy.commit("A rope")
    error = refused(toy.tree(), read(toy, SERIES))
    assert f"{ROPE}: the tree has that file already" in error.message


def test_a_hunk_that_is_like_nothing_there(toy: Toy) -> None:
    toy.write(CLOCK, "int nothing;\n")
    toy.commit("Nothing")
    error = refused(toy.tree(), read(toy, without_blob_ids(SERIES)))
    assert error.evidence == (
        "line 2  expected  int bell_ring(unsigned int which);",
        "        found     (no line of this hunk is in the file)",
    )


def test_another_version_of_the_change_is_noticed(toy: Toy) -> None:
    series = read(toy, SERIES)
    toy.write(
        ROPE, "/* A rope to pull. Written for the tests of xenverify. */\nint rope_pull(void)\n"
    )
    toy.edit(BELL, "unsigned int rung", "unsigned long rung")
    toy.edit(BELL, "unsigned int bell_count", "unsigned long bell_count")
    toy.edit(
        BELL, "    tower[which].rung++", "    /* Größer als 2^32 \u2013 it may be. */\n    rung++"
    )
    toy.commit("Most of it")
    assert "lines it adds are there already" in refused(toy.tree(), series).evidence[-1]


def test_the_commit_where_it_applies_is_offered(toy: Toy) -> None:
    base = toy.line("rev-parse", "--short", "HEAD")
    patch = (DATA / "one.patch").read_bytes()
    toy.edit(BELL, "tower[which].rung++", "tower[which].rung += 1")
    toy.commit("bells: Tidy")
    error = refused(toy.tree(), read(toy, patch))
    assert error.advice == (
        f'It applies to {base} (2026-03-04 "Hang the bells"):  --on git:{toy.path}@{base}'
    )


def test_the_commit_its_author_names_is_offered(toy: Toy) -> None:
    base = toy.line("rev-parse", "HEAD")
    said = without_blob_ids((DATA / "one.patch").read_bytes()).replace(
        b"Date: Wed, 4 Mar 2026 10:00:00 +0100\n", b""
    )
    said = said.replace(b"\n-- \n", b"\nbase-commit: " + base.encode() + b"\n-- \n")
    toy.edit(BELL, "tower[which].rung++", "tower[which].rung += 1")
    toy.commit("bells: Tidy")
    assert base[:7] in refused(toy.tree(), read(toy, said)).advice


def test_looking_for_a_commit_takes_no_longer_than_it_may(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers, "PATIENCE_SECONDS", 0.0)
    patch = (DATA / "one.patch").read_bytes()
    toy.edit(BELL, "tower[which].rung++", "tower[which].rung += 1")
    toy.commit("bells: Tidy")
    assert refused(toy.tree(), read(toy, patch)).advice == ""


def test_modes_renames_and_deletions(toy: Toy) -> None:
    toy.git("mv", BELL, "xen/common/chime.c")
    toy.edit("xen/common/chime.c", "tower[8]", "tower[9]")
    toy.git("rm", "--quiet", "README")
    (toy.path / CLOCK).chmod(0o755)
    toy.write("xen/empty.h", "")
    toy.write("xen/name with blank.c", "no line end")
    toy.commit("Everything at once")
    patch = toy.git("format-patch", "--stdout", "-1", "-M")
    series = read(toy, patch, toy.tree("HEAD~1"))
    assert apply(toy.tree("HEAD~1"), series).tree == toy.tree_id()
    assert apply(toy.tree(), series, reverse=True).tree == toy.tree_id("HEAD~1")


# --- what git makes of a change, we make of it: on edits nobody thought of

LINES = st.lists(st.sampled_from(["", "{", "}", "a", "b", "  c", "\td", "é", "x\f"]), max_size=25)
FILES = st.dictionaries(st.sampled_from(["one.c", "two.c", "d/three.c"]), LINES, min_size=1)


@settings(
    max_examples=12,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    before=FILES,
    edits=st.lists(FILES, min_size=1, max_size=3),
    no_end=st.booleans(),
    seed=st.randoms(use_true_random=False),
)
def test_any_series_of_edits_becomes_what_git_committed(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, list[str]],
    edits: list[dict[str, list[str]]],
    no_end: bool,
    seed: st.random.random.Random,  # type: ignore[name-defined]
) -> None:
    toy = make_toy(tmp_path_factory.mktemp("edits"))

    def commit(files: dict[str, list[str]], subject: str) -> None:
        for path in (toy.path / "xen/made").rglob("*.c"):
            path.unlink()
        for name, lines in files.items():
            toy.write(f"xen/made/{name}", "\n".join(lines) + ("" if no_end else "\n"))
        toy.git("add", "--all")
        toy.git("commit", "--quiet", "--allow-empty", "--message", subject)

    commit(before, "before")
    for number, files in enumerate(edits):
        commit(files, f"edit {number}")
    base = f"HEAD~{len(edits)}"
    mails = toy.git("format-patch", "--stdout", "--always", f"{base}..HEAD").split(b"\nFrom ")
    note(f"{before} {edits}")
    if not toy.git("diff", base):
        return
    if any(not toy.git("diff", f"HEAD~{n + 1}", f"HEAD~{n}") for n in range(len(edits))):
        return  # a patch that changes nothing; refused, and tested above
    seed.shuffle(mails)
    mbox = b"".join(
        b"From " + mail.removeprefix(b"From ").rstrip(b"\n") + b"\n\n" for mail in mails
    )
    tree = toy.tree(base)
    series = read(toy, mbox, tree)
    assert apply(tree, series).tree == toy.tree_id()
    assert apply(toy.tree(), series, reverse=True).tree == tree.tree


def test_a_blob_that_broke_is_no_fault_of_the_patch(toy: Toy) -> None:
    series, tree = read(toy, SERIES), toy.tree()
    blob = toy.line("rev-parse", f"HEAD:{CLOCK}")
    (toy.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(HarnessError, match="git failed"):
        apply(tree, series)


def test_a_full_disk_is_no_fault_of_the_patch(toy: Toy) -> None:
    """A limit on the size of files stops git at the same write as a disk without room."""
    series, tree = read(toy, SERIES), toy.tree()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises(HarnessError, match="git failed"):
            apply(tree, series)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_repository_that_broke_is_the_harness_s_fault_not_the_change_s(toy: Toy) -> None:
    series, tree = read(toy, SERIES), toy.tree()
    blob = toy.line("rev-parse", "HEAD^{tree}")
    (toy.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(HarnessError):
        apply(tree, series)
    assert subprocess.run(["git", "-C", toy.path, "status"], capture_output=True).returncode != 0
