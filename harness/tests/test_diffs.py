"""Reading diffs: every file and hunk counted, what is broken refused by name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unidiff.patch import PatchSet

from harness.diffreading import read_diff
from harness.diffs import FileChange, render
from harness.errors import ChangeError
from harness.placing import place
from harness.tests.toytree import BELL, DATA

ONE = (DATA / "one.patch").read_bytes()
SERIES = (DATA / "series.mbox").read_bytes()
HEAD = b"--- a/x.c\n+++ b/x.c\n"
GIT_HEAD = b"diff --git a/x.c b/x.c\nindex 1111111..2222222 100644\n" + HEAD


def placed(text: bytes) -> tuple[FileChange, ...]:
    """Return the files of a diff without the a/ and b/ of their names."""
    return place(read_diff(text).files, {}, lambda _: b"")[0]


def reason(text: bytes) -> str:
    """Return why `text` is refused."""
    with pytest.raises(ChangeError) as caught:
        read_diff(text)
    return caught.value.message


def test_hunks_are_counted_as_unidiff_counts_them() -> None:
    ours = read_diff(SERIES).files
    theirs = PatchSet(SERIES.decode())
    assert [(f.added, f.removed, len(f.hunks)) for f in ours] == [
        (f.added, f.removed, len(f)) for f in theirs
    ]
    assert [hunk.old_start for f in ours for hunk in f.hunks] == [
        hunk.source_start for f in theirs for hunk in f
    ]


def test_what_is_written_is_read_the_same_again() -> None:
    files = placed(SERIES)
    assert read_diff(render(files)).files == read_diff(SERIES).files


line = st.binary(max_size=6).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b""))
content = st.builds(
    lambda lines, end: b"\n".join(lines) + (b"\n" if end and lines else b""),
    st.lists(line, max_size=12),
    st.booleans(),
)


@settings(max_examples=60, deadline=None, print_blob=True)
@given(old=content, new=content)
def test_any_diff_of_git_is_read_to_the_letter(
    tmp_path_factory: pytest.TempPathFactory, old: bytes, new: bytes
) -> None:
    directory = tmp_path_factory.mktemp("pair")
    for name, text in (("old", old), ("new", new)):
        (directory / name).write_bytes(text)
    command = ["git", "diff", "--no-index", "--text", "--no-prefix", "old", "new"]
    diff = subprocess.run(command, cwd=directory, capture_output=True).stdout
    files = read_diff(b"A word before.\n\n" + diff + b"-- \n2.39.5\n\n").files
    if old == new:
        assert not files
        return
    (file,) = files
    again = render((file,))
    assert diff[diff.index(b"@@") :] == again[again.index(b"@@") :]


def cuts() -> list[int]:
    """Every place to cut the patch at, from its diff on, on or within a line."""
    return list(range(ONE.index(b"diff --git"), len(ONE)))


def test_a_patch_cut_anywhere_is_refused_or_read_whole() -> None:
    """The diffstat above it tells even a cut between hunks; a lost context line alters nothing."""
    whole = read_diff(ONE).files[0]
    # Only the last context line is lost; the one before it, cut within, will not match.
    lost_context = ONE.index(b"     if ( which >= 8 )\n         return 0;\n-- ")
    for cut in cuts():
        try:
            diff = read_diff(ONE[:cut])
        except ChangeError as error:
            assert "cut short" in error.message or "no line of a diff" in error.message, cut
            continue
        if not diff.files:  # cut within its first line: no diff at all
            assert cut < ONE.index(b"\nindex ")
            continue
        assert cut >= lost_context
        changed = [ln for hunk in diff.files[0].hunks for ln in hunk.lines if ln[:1] in b"+-"]
        assert changed == [ln for hunk in whole.hunks for ln in hunk.lines if ln[:1] in b"+-"], cut


def test_the_lost_last_context_line_is_mended_and_said() -> None:
    body = ONE[: ONE.index(b"-- \n2.39")]
    cut = body.rstrip(b"\n").rpartition(b"\n")[0]
    diff = read_diff(cut)
    assert diff.notes == (f"{BELL}: the archive cut the last context line; mended",)
    last = diff.files[0].hunks[-1]
    assert (last.old_count, last.new_count) == (11, 12)


@pytest.mark.parametrize(
    "tail", [b"", b"\n", b"\n\n", b"\n-- \n2.39.5\n", b"\npatchwork is free\n"]
)
def test_what_follows_the_cut_does_not_matter(tail: bytes) -> None:
    body = ONE[: ONE.index(b"-- \n2.39")].rstrip(b"\n").rpartition(b"\n")[0]
    assert read_diff(body + tail).files[0].added == 3


def test_two_lost_lines_are_not_mended() -> None:
    body = ONE[: ONE.index(b"-- \n2.39")].rstrip(b"\n").rsplit(b"\n", 2)[0]
    assert f"cut short at {BELL}: hunk 2 lacks its last 2 lines" in reason(body)


def test_a_lost_line_that_may_have_been_a_change_is_not_mended() -> None:
    assert "cut short at x.c: hunk 1" in reason(HEAD + b"@@ -1,2 +1,2 @@\n-a\n+b\n")


def test_a_cut_between_hunks_shows_against_the_diffstat() -> None:
    second = ONE.index(b"@@ -16,12")
    assert "less than its diffstat counts" in reason(ONE[:second])


def test_a_cut_within_an_added_last_line_is_seen() -> None:
    assert "ends within a line" in reason(HEAD + b"@@ -1 +1,2 @@\n a\n+retu")


def test_a_file_named_and_no_more_is_cut_short() -> None:
    assert "cut short at x.c: its name is there" in reason(GIT_HEAD)
    assert "cut short at x.c: its name is there" in reason(b"diff --git a/x.c b/x.c\n")


def test_a_wrapped_line_is_shown() -> None:
    text = HEAD + b"@@ -1,3 +1,3 @@\n a\n-long line that was\nwrapped by mail\n+b\n c\n"
    with pytest.raises(ChangeError, match=r"x\.c, hunk 1: line 6 is no line of a diff") as caught:
        read_diff(text)
    assert caught.value.evidence == ("wrapped by mail",)


def test_a_hunk_longer_than_its_count_is_refused() -> None:
    """git apply would leave the surplus out without a word."""
    assert "hunk 1 goes on" in reason(HEAD + b"@@ -1,2 +1,3 @@\n a\n+b\n c\n+d\n")


def test_a_hunk_cut_off_from_its_file_is_refused() -> None:
    text = HEAD + b"@@ -1 +1 @@\n-a\n+b\n\nA remark.\n\n@@ -9 +9 @@\n-c\n+d\n"
    assert "belongs to no file" in reason(text)


@pytest.mark.parametrize(
    "binary",
    [
        b"diff --git a/logo.png b/logo.png\nindex 1111111..2222222 100644\n"
        b"GIT binary patch\nliteral 3\n",
        b"diff --git a/logo.png b/logo.png\nnew file mode 100644\nindex 0000000..2222222\n"
        b"Binary files /dev/null and b/logo.png differ\n",
        b"Binary files old/logo.png and b/logo.png differ\n",
    ],
)
def test_a_binary_patch_is_refused_by_the_file_s_name(binary: bytes) -> None:
    assert "binary file logo.png" in reason(binary)


def test_a_merge_s_combined_diff_is_refused() -> None:
    text = b"diff --cc x.c\nindex 1,2..3\n--- a/x.c\n+++ b/x.c\n"
    assert "combined diff of a merge" in reason(text)


def test_names_out_of_the_ordinary() -> None:
    text = (
        b'diff --git "a/f\\303\\274r \\"x\\".c" "b/f\\303\\274r \\"x\\".c"\n'
        b"old mode 100644\nnew mode 100755\n"
        b"diff --git a/with blank.c b/with blank.c\nnew file mode 100644\nindex 0000000..e69de29\n"
    )
    first, second = read_diff(text).files
    assert first.old_name == 'a/für "x".c'
    assert (first.old_mode, first.new_mode) == ("100644", "100755")
    assert (second.old_name, second.new_name) == (None, "b/with blank.c")


def test_renames_copies_and_deletions() -> None:
    text = (
        b"diff --git a/old.c b/new.c\nsimilarity index 100%\nrename from old.c\nrename to new.c\n"
        b"diff --git a/old.c b/copy.c\nsimilarity index 90%\ncopy from old.c\ncopy to copy.c\n"
        b"index 1111111..2222222 100644\n--- a/old.c\n+++ b/copy.c\n@@ -1 +1 @@\n-a\n+b\n"
        b"diff --git a/gone.c b/gone.c\ndeleted file mode 100644\nindex 1111111..0000000\n"
        b"--- a/gone.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"
    )
    renamed, copied, gone = read_diff(text).files
    assert renamed.renamed and (renamed.old_name, renamed.new_name) == ("old.c", "new.c")
    assert copied.copied and copied.added == 1
    assert gone.new_name is None and gone.path == "a/gone.c"


def test_a_plain_diff_says_by_its_times_what_is_new() -> None:
    text = (
        b"diff -Nru old/new.c new/new.c\n"
        b"--- old/new.c\t1970-01-01 01:00:00.000000000 +0100\n"
        b"+++ new/new.c\t2026-03-04 10:00:00.000000000 +0100\n@@ -0,0 +1 @@\n+a\n"
    )
    (file,) = read_diff(text).files
    assert file.old_name is None and file.new_name == "new/new.c" and not file.from_git


def test_git_reads_what_we_write(tmp_path: Path) -> None:
    diff = render(placed(SERIES))
    done = subprocess.run(
        ["git", "apply", "--numstat"], input=diff, capture_output=True, cwd=tmp_path, check=True
    )
    assert done.stdout.split(b"\n")[0].split() == [b"3", b"2", BELL.encode()]
