"""Anything patch-shaped in, one series out; bad input gets one sentence and the right exit code."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.changes import Series, apply, read_change
from harness.errors import ChangeError, ExitCode, HarnessError, UsageError, XenverifyError
from harness.tests.toytree import BELL, CLOCK, DATA, ROPE, Toy, make_toy

AUTHOR = "Ada Campanåri <ada@bells.example>"
ONE = (DATA / "one.patch").read_bytes()
THREAD = (DATA / "thread.mbox").read_bytes()
SERIES = (DATA / "series.mbox").read_bytes()
SEED = Path(__file__).parents[3] / "shared/seed/xen-gnttab-frame-gfn-v6-1of2.patchwork.txt"
# What the patches in data/ make of the toy: git's ids of those trees.
AFTER_ONE = "8c537ade3f573bfee8b98ca9fd17c4c6fd1c9e35"
AFTER_SERIES = "d425d2750fce9b3172e00ff4978268ae7c45407d"

Read = Callable[[bytes], Series]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


@pytest.fixture
def read(toy: Toy, tmp_path: Path) -> Read:
    """Read bytes as a file called change, for the toy's tree."""

    def read_bytes(data: bytes) -> Series:
        path = tmp_path / "change"
        path.write_bytes(data)
        return read_change(str(path), toy.tree(), toy.cache)

    return read_bytes


def refused(read: Read, data: bytes) -> ChangeError:
    """Return the error that `data` is refused with; its exit code is that of changes."""
    with pytest.raises(ChangeError) as caught:
        read(data)
    assert caught.value.exit_code is ExitCode.CHANGE_DOES_NOT_APPLY
    assert caught.value.message.startswith("change: ")
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", ["one.patch", "page.patchwork.txt", "page.patchwork.html"])
def test_one_patch_from_a_file(toy: Toy, name: str) -> None:
    series = read_change(str(DATA / name), toy.tree(), toy.cache)
    (patch,) = series.patches
    assert (series.origin, series.version) == (name, 2)
    assert patch.subject == "bells: Count further than 2^32"
    assert patch.author in (AUTHOR, "Ada Campanåri")  # a page shows no address
    assert patch.date in ("2026-03-04T10:00:00+01:00", "2026-03-04T09:00:00+00:00")
    assert patch.position == (1, 2)
    assert series.files == (BELL,)
    assert (series.added, series.removed) == (3, 2)
    assert apply(toy.tree(), series).tree == AFTER_ONE


def test_the_page_whose_last_context_line_was_cut_is_mended_and_says_so(toy: Toy) -> None:
    (patch,) = read_change(str(DATA / "page.patchwork.txt"), toy.tree(), toy.cache).patches
    assert patch.notes == (f"{BELL}: the archive cut the last context line; mended",)


@pytest.mark.parametrize("path", [path for path in [SEED] if path.exists()])
def test_the_page_of_the_frame_gfn_patch(toy: Toy, path: Path) -> None:
    """The archived V6 1/2, whose reviewers' comments quote much of it."""
    series = read_change(str(path), toy.tree(), toy.cache)
    (patch,) = series.patches
    assert patch.subject == "xen/gnttab: Store frame GFN in struct page_info on Arm"
    assert patch.author == "Oleksandr Tyshchenko <oleksandr_tyshchenko@epam.com>"
    assert patch.date == "2022-05-11T18:47:00+00:00"
    assert (patch.position, series.version) == ((1, 2), 6)
    assert (len(series.files), series.added, series.removed) == (7, 87, 66)
    assert patch.notes == (
        "xen/common/page_alloc.c: the archive cut the last context line; mended",
    )


def test_a_whole_thread_becomes_its_newest_series(toy: Toy) -> None:
    """Shuffled, v1 among v2, a reply with a diff of its own; base64 and quoted-printable."""
    series = read_change(str(DATA / "thread.mbox"), toy.tree(), toy.cache)
    assert series.subject == "Bells for a busy town"
    assert [patch.position for patch in series.patches] == [(1, 2), (2, 2)]
    assert series.version == 2
    assert series.notes == (
        "v2 taken, v1 passed over",
        "cover letter passed over",
        "1 message without a patch passed over",
    )
    assert series.files == (BELL, CLOCK, ROPE)
    assert {patch.author for patch in series.patches} == {AUTHOR}
    assert apply(toy.tree(), series).tree == AFTER_SERIES


@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data,
        gzip.compress,
        lambda data: b"\n\n" + data,
        lambda data: data + b"\n_______________________________________________\nlist footer\n",
    ],
    ids=["CR LF", "byte order mark", "gzip", "empty lines", "list footer"],
)
def test_what_mail_programs_do_to_a_patch_is_undone(
    toy: Toy, read: Read, wrap: Callable[[bytes], bytes]
) -> None:
    assert apply(toy.tree(), read(wrap(SERIES))).tree == AFTER_SERIES


def test_utf_16_of_a_windows_shell_is_read(toy: Toy, read: Read) -> None:
    data = ONE.decode().encode("utf-16")
    assert apply(toy.tree(), read(data)).tree == AFTER_ONE


def test_mended_line_ends_are_said(read: Read) -> None:
    (patch,) = read(ONE.replace(b"\n", b"\r\n")).patches
    assert patch.notes == ("all its lines end in CR LF, the tree's do not; mended",)


def test_line_ends_stay_where_the_tree_has_them(toy: Toy) -> None:
    toy.write("docs/dos.txt", "one\r\ntwo\r\n")
    toy.commit("A file from DOS")
    toy.write("docs/dos.txt", "one\r\nthree\r\n")
    diff = toy.git("diff")
    toy.git("checkout", "--quiet", ".")
    series = read_change("-", toy.tree(), toy.cache, stdin=io.BytesIO(diff))
    assert series.patches[0].notes == ()
    assert b"+three\r\n" in series.patches[0].diff


def test_standard_input(toy: Toy) -> None:
    series = read_change("-", toy.tree(), toy.cache, stdin=io.BytesIO(ONE))
    assert series.origin == "standard input"


def test_a_patch_attached_to_a_mail(toy: Toy, read: Read) -> None:
    mail = (
        b"From: Bea <bea@bells.example>\nSubject: please try\nMIME-Version: 1.0\n"
        b'Content-Type: multipart/mixed; boundary="X"\n\n'
        b"--X\nContent-Type: text/plain\n\nSee below.\n"
        b'--X\nContent-Type: text/x-patch; name="one.patch"\n\n' + ONE + b"\n--X--\n"
    )
    series = read(mail)
    assert series.patches[0].author == AUTHOR
    assert apply(toy.tree(), series).tree == AFTER_ONE


def test_a_mail_that_says_who_wrote_the_patch(read: Read) -> None:
    said = ONE.replace(b"\nA bell of", b"\nFrom: Cleo <cleo@bells.example>\n\nA bell of")
    assert read(said).patches[0].author == "Cleo <cleo@bells.example>"


def test_an_encoded_subject(read: Read) -> None:
    said = ONE.replace(b"bells: Count", b"=?UTF-8?q?Gr=C3=B6=C3=9Fere?= bells: Count")
    assert read(said).patches[0].subject == "Größere bells: Count further than 2^32"


def test_git_show(toy: Toy, read: Read) -> None:
    toy.edit(CLOCK, "% 12", "% 24")
    toy.commit("clock: Strike twenty-four")
    shown = toy.git("show")
    toy.git("reset", "--quiet", "--hard", "HEAD~1")
    (patch,) = read(shown).patches
    assert patch.subject == "clock: Strike twenty-four"
    assert patch.author == "Tess Tester <tess@bells.example>"


@pytest.mark.parametrize(
    ("old", "new", "notes"),
    [
        (f"a/{CLOCK}", f"b/{CLOCK}", ()),
        (CLOCK, CLOCK, ()),
        (f"{CLOCK}.orig", CLOCK, ()),
        (f"xen-4.17/{CLOCK}", f"xen-4.17-new/{CLOCK}", ()),
        (f"old/{CLOCK}", f"new/{CLOCK}", ()),
        (f"src/xen.orig/{CLOCK}", f"src/xen/{CLOCK}", ("names read with -p2",)),
        ("a/arch/arm/clock.c", "b/arch/arm/clock.c", ("names read with -p1 within xen/",)),
        ("arch/arm/clock.c", "arch/arm/clock.c", ("names read with -p0 within xen/",)),
    ],
)
def test_a_plain_diff_finds_its_files(
    toy: Toy, read: Read, old: str, new: str, notes: tuple[str, ...]
) -> None:
    diff = (
        f"--- {old}\t2026-03-04 10:00:00.000000000 +0100\n+++ {new}\n"
        "@@ -11,4 +11,4 @@\n     hour = (hour + 1) % 12;\n \n"
        "-    for ( i = 0; i < hour; i++ )\n+    for ( i = 0; i <= hour; i++ )\n"
        "         bell_ring(0);\n"
    )
    series = read(diff.encode())
    assert series.files == (CLOCK,)
    assert series.patches[0].notes == notes
    assert apply(toy.tree(), series).tree != toy.tree_id()


def test_a_file_of_the_same_name_elsewhere_is_not_taken_for_the_one_meant(
    toy: Toy, read: Read
) -> None:
    toy.write("clock.c", "int other;\n")
    toy.git("rm", "--quiet", CLOCK)
    toy.commit("Another clock")
    for prefix in ("a/", ""):
        name = prefix + CLOCK
        diff = f"--- {name}\n+++ {name}\n@@ -1 +1 @@\n-int other;\n+int that;\n"
        assert read(f"diff --git a/{CLOCK} b/{CLOCK}\n{diff}".encode()).files == (CLOCK,)


def test_a_mail_delivered_twice_counts_once(toy: Toy, read: Read) -> None:
    listed = THREAD.replace(b"\n\nFrom ", b"\n\n____\nlist footer\n\nFrom ")
    assert apply(toy.tree(), read(THREAD + listed)).tree == AFTER_SERIES


def test_plain_diffs_make_and_delete_files(toy: Toy, read: Read) -> None:
    diff = (
        "--- a/xen/new.c\t1970-01-01 01:00:00.000000000 +0100\n"
        "+++ b/xen/new.c\t2026-03-04 10:00:00.000000000 +0100\n@@ -0,0 +1 @@\n+int x;\n"
        "--- a/README\t2026-03-04 10:00:00.000000000 +0100\n"
        "+++ b/README\t1970-01-01 01:00:00.000000000 +0100\n@@ -1 +0,0 @@\n"
        "-A toy tree to try patches on. None of it is Xen's.\n"
    )
    tree = apply(toy.tree(), read(diff.encode()))
    names = toy.git("--git-dir", str(tree.repository), "ls-tree", "-r", "--name-only", tree.tree)
    assert b"xen/new.c" in names and b"README" not in names


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "there is nothing in it"),
        (b" \n\n", "there is nothing in it"),
        (b"From a@b Thu Jan  1 00:00:00 2026\n", "no diff in it"),
        (b"A word.\n", "no diff in it"),
        (b"\x7fELF\x02\x01\x01\0\0\0\0", "no diff in it"),
        (b"\x1f\x8b\x08\xffdamaged", "it is a damaged gzip file"),
        (gzip.compress(ONE)[:-40], "it is a gzip file cut short"),
        (b"From: a@b\nSubject: Re: [PATCH] x\n\n> diff --git a/x b/x\n> +y\n", "no diff in it"),
        (ONE.replace(BELL.encode(), b"../../etc/passwd"), "leads out of the source tree"),
        (ONE.replace(b"a/xen/common/bell.c", b"a/xen/../../x"), "leads out of the source tree"),
        (ONE.replace(BELL.encode(), b".git/config"), "reaches into git's own files"),
        (ONE.replace(BELL.encode(), b"xen/.GIT/hooks/x"), "reaches into git's own files"),
        (b"--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", "an absolute path"),
        (
            b"diff --git a/x b/x\nnew file mode 120000\nindex 0000000..2222222\n"
            b"--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n",
            "symbolic link x",
        ),
        (
            b"diff --git a/x b/x\nnew file mode 160000\nindex 0000000..2222222\n"
            b"--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+Subproject commit 2222222\n",
            "the submodule x",
        ),
        (SERIES.replace(b"v2 2/2", b"v2 1/2"), "two different patches 1/2"),
        (SERIES.replace(b"/2]", b"/3]"), "not whole: it lacks patch 3/3"),
        (SERIES.replace(b"v2 2/2", b"v2 2/4"), "more than one series, of 2 and 4 patches"),
        (SERIES.replace(b"v2 2/2", b"v2"), "outside its numbers"),
        (b"diff mbox series\n\nMessage ID x\n\nPatch\n\nno more\n", "without its Patch part"),
    ],
)
def test_what_is_no_change_is_refused_in_one_sentence(
    read: Read, data: bytes, message: str
) -> None:
    assert message in refused(read, data).message


def test_a_broken_patch_of_a_series_is_named(read: Read) -> None:
    broken = SERIES[: SERIES.rindex(b"+    return 0;")]
    assert f"patch 2/2: the patch is cut short at {ROPE}: hunk 1" in refused(read, broken).message


def test_git_log_has_no_order_to_apply_in(toy: Toy, read: Read) -> None:
    toy.edit(CLOCK, "% 12", "% 24")
    toy.commit("clock: Strike twenty-four")
    error = refused(read, toy.git("log", "-p"))
    assert "2 commits as git log prints them" in error.message
    assert "git:A..B" in error.advice


def test_a_link_in_the_tree_is_not_followed(toy: Toy) -> None:
    (toy.path / "xen/outside").symlink_to("/etc")
    (toy.path / "xen/link.c").symlink_to("common/bell.c")
    toy.commit("Links")
    for name, said in (
        ("xen/outside/x", "behind the symbolic link xen/outside"),
        ("xen/link.c", "symbolic link xen/link.c"),
    ):
        diff = f"--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-a\n+b\n".encode()
        with pytest.raises(ChangeError, match=said):
            read_change("-", toy.tree(), toy.cache, stdin=io.BytesIO(diff))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "there is no file"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ],
    ids=["missing", "directory", "a loop of links"],
)
def test_a_file_that_cannot_be_read_is_a_usage_error(
    toy: Toy, tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path / "x.patch")
    with pytest.raises(UsageError, match=message) as caught:
        read_change(str(tmp_path / "x.patch"), toy.tree(), toy.cache)
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_web_address_is_not_fetched(toy: Toy) -> None:
    with pytest.raises(UsageError, match="is a web address") as caught:
        read_change("https://lists.example/x.mbox", toy.tree(), toy.cache)
    assert "lore:" in caught.value.advice


def test_an_endless_file_is_not_read_for_ever(toy: Toy) -> None:
    with pytest.raises(ChangeError, match="larger than 16 MiB"):
        read_change("/dev/zero", toy.tree(), toy.cache)


# --- commits of the reference's own repository


def test_one_commit(toy: Toy) -> None:
    base = toy.line("rev-parse", "HEAD")
    toy.edit(CLOCK, "% 12", "% 24")
    toy.commit("clock: Strike twenty-four")
    series = read_change("git:main", toy.tree(base), toy.cache)
    (patch,) = series.patches
    assert series.origin == "git:main"
    assert (patch.subject, patch.author, patch.position) == (
        "clock: Strike twenty-four",
        "Tess Tester <tess@bells.example>",
        None,
    )
    assert apply(toy.tree(base), series).tree == toy.tree_id()


def test_a_range_is_a_series_oldest_first(toy: Toy) -> None:
    toy.git("tag", "start")
    for hours in (24, 36):
        toy.edit(CLOCK, "% 12" if hours == 24 else "% 24", f"% {hours}")
        toy.commit(f"clock: Strike {hours}")
    series = read_change("git:start..main", toy.tree("start"), toy.cache)
    assert [patch.subject for patch in series.patches] == ["clock: Strike 24", "clock: Strike 36"]
    assert [patch.position for patch in series.patches] == [(1, 2), (2, 2)]
    assert apply(toy.tree("start"), series).tree == toy.tree_id()
    assert len(read_change("git:start..", toy.tree("start"), toy.cache).patches) == 2


def test_a_commit_made_after_the_reference_was_resolved_is_found(toy: Toy) -> None:
    tree = toy.tree()
    toy.edit(CLOCK, "% 12", "% 24")
    toy.commit("clock: Strike twenty-four")
    assert read_change("git:HEAD", tree, toy.cache).files == (CLOCK,)


def test_a_merge_is_no_patch(toy: Toy) -> None:
    toy.git("checkout", "--quiet", "-b", "side")
    toy.edit(CLOCK, "% 12", "% 24")
    toy.commit("side")
    toy.git("checkout", "--quiet", "main")
    toy.edit(BELL, "tower[8]", "tower[9]")
    toy.commit("main")
    toy.git("merge", "--quiet", "--no-edit", "side")
    for spec in ("git:HEAD", "git:HEAD~1..HEAD"):
        with pytest.raises(ChangeError, match=r"merge \w+, which is no patch") as caught:
            read_change(spec, toy.tree("HEAD~1"), toy.cache)
        assert "^1.." in caught.value.advice


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("git:nonsense", UsageError, "nonsense"),
        ("git:main..nonsense", UsageError, "nonsense"),
        ("git:HEAD~7", UsageError, "HEAD~7"),
        ("git:main...main", UsageError, "three dots"),
        ("git:main..main", ChangeError, "there is no commit in main that is not in main"),
        ("git:--help", UsageError, "--help"),
    ],
)
def test_commits_that_are_not_there(
    toy: Toy, spec: str, kind: type[XenverifyError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        read_change(spec, toy.tree(), toy.cache)


def test_a_range_the_wrong_way_round_is_turned(toy: Toy) -> None:
    toy.edit(CLOCK, "% 12", "% 24")
    toy.commit("clock: Strike twenty-four")
    with pytest.raises(ChangeError) as caught:
        read_change("git:main..main~1", toy.tree(), toy.cache)
    assert "git:main~1..main" in caught.value.advice


def test_commits_need_a_git_reference(toy: Toy) -> None:
    from harness.references import resolve

    tree = resolve(str(toy.path), toy.cache)
    with pytest.raises(UsageError, match="is no git reference"):
        read_change("git:HEAD", tree, toy.cache)


def test_a_clone_that_broke_is_the_harness_s_fault(toy: Toy) -> None:
    tree = toy.tree()
    top = toy.line("rev-parse", "HEAD^{tree}")
    (toy.path / ".git/objects" / top[:2] / top[2:]).unlink()
    with pytest.raises(HarnessError, match="git failed"):
        read_change(str(DATA / "one.patch"), tree, toy.cache)


def test_a_commit_with_a_binary_file_names_it(toy: Toy) -> None:
    toy.write("xen/logo.bin", os.urandom(64) + b"\0")
    toy.commit("A logo")
    with pytest.raises(ChangeError, match=r"binary file xen/logo\.bin"):
        read_change("git:HEAD", toy.tree("HEAD~1"), toy.cache)


def test_a_commit_that_changes_nothing(toy: Toy) -> None:
    toy.git("commit", "--quiet", "--allow-empty", "--message", "Nothing")
    with pytest.raises(ChangeError, match="no diff in it"):
        read_change("git:HEAD", toy.tree(), toy.cache)
