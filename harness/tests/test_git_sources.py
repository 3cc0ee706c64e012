"""`git:` references: clones are only read, URLs fetched once, and trouble has a clear sentence."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from harness.cache import Cache
from harness.errors import HarnessError, UsageError
from harness.git_sources import split
from harness.references import resolve
from harness.tests.toytree import BELL, Toy, make_toy


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


def snapshot(directory: Path) -> dict[str, tuple[int, str]]:
    """Modification time and hash of every file, and of every directory's listing."""
    found = {}
    for path in sorted(directory.rglob("*")):
        content = path.read_bytes() if path.is_file() else b"directory"
        digest = hashlib.sha256(content).hexdigest()
        found[str(path)] = (path.stat().st_mtime_ns, digest)
    return found


@pytest.mark.parametrize(
    ("text", "place", "revision", "is_url"),
    [
        ("/no/xen@staging", "/no/xen", "staging", False),
        ("/no/xen", "/no/xen", "HEAD", False),
        ("/no/xen@HEAD@{1}", "/no/xen", "HEAD@{1}", False),
        ("https://host/xen.git@RELEASE-4.20.0", "https://host/xen.git", "RELEASE-4.20.0", True),
        ("https://user@host/xen.git", "https://user@host/xen.git", "HEAD", True),
        ("ssh://git@host:22/a/xen.git@a/b", "ssh://git@host:22/a/xen.git", "a/b", True),
        ("git@host:a/xen.git@main", "git@host:a/xen.git", "main", True),
        ("git@host:a/xen.git", "git@host:a/xen.git", "HEAD", True),
        ("file:///srv/xen.git@v1", "file:///srv/xen.git", "v1", True),
    ],
)
def test_place_and_revision_are_told_apart(
    text: str, place: str, revision: str, is_url: bool
) -> None:
    location = split(text)
    assert (location.place, location.revision, location.is_url) == (place, revision, is_url)


def test_a_path_that_has_an_at_sign_is_a_path(tmp_path: Path) -> None:
    odd = tmp_path / "xen@home"
    odd.mkdir()
    assert split(f"{odd}@v1").place == str(odd)
    assert split(str(odd)).revision == "HEAD"


def test_a_clone_is_only_read(toy: Toy) -> None:
    toy.edit(BELL, "{", "{ ")  # an uncommitted edit, which a commit's tree has not
    before = snapshot(toy.path)
    tree = toy.tree("main")
    tree.checkout(toy.path.parent / "checkout")
    assert snapshot(toy.path) == before
    assert tree.tree == toy.tree_id("main")
    assert tree.commit == toy.line("rev-parse", "main")
    assert tree.label == f"git main {toy.line('rev-parse', 'main')[:10]}"
    assert tree.version == "4.17.0"


def test_a_clone_is_not_copied(toy: Toy) -> None:
    objects = toy.tree().repository / "objects"
    assert [
        path for path in objects.rglob("*") if path.is_file() and path.parent.name != "info"
    ] == []


def test_a_work_tree_of_a_clone_has_its_own_head(toy: Toy, tmp_path: Path) -> None:
    first = toy.line("rev-parse", "HEAD")
    toy.edit(BELL, "{", "{ ")
    second = toy.commit("Ring")
    toy.git("worktree", "add", "--detach", str(tmp_path / "other"), first)
    assert resolve(f"git:{tmp_path / 'other'}", toy.cache).commit == first
    assert resolve(f"git:{toy.path}", toy.cache).commit == second


def test_commits_that_the_build_does_not_read_share_an_identity(toy: Toy) -> None:
    before = toy.tree()
    toy.write("docs/bells.txt", "Bells ring.\n")
    toy.commit("Describe")
    described = toy.tree()
    toy.edit(BELL, "{", "{ ")
    toy.commit("Ring")
    assert described.tree != before.tree
    assert described.identity == before.identity
    assert toy.tree().identity != before.identity


def test_an_unknown_revision_names_its_neighbours(toy: Toy) -> None:
    for name in ("RELEASE-4.17.0", "RELEASE-4.17.1", "RELEASE-4.18.0"):
        toy.git("tag", name)
    with pytest.raises(UsageError, match=r"has no revision RELEASE-4\.17") as raised:
        toy.tree("RELEASE-4.17")
    assert raised.value.evidence == ("RELEASE-4.17.0", "RELEASE-4.17.1")
    with pytest.raises(UsageError) as raised:
        toy.tree("RELEASE-4.71.0")
    assert "RELEASE-4.17.0" in raised.value.evidence


def test_a_revision_is_never_an_option(toy: Toy) -> None:
    with pytest.raises(UsageError, match="has no revision --git-dir"):
        toy.tree("--git-dir")


def test_a_shallow_clone_says_that_it_is(toy: Toy, tmp_path: Path) -> None:
    first = toy.line("rev-parse", "HEAD")
    toy.edit(BELL, "{", "{ ")
    second = toy.commit("Ring")
    shallow = tmp_path / "shallow"
    toy.git("clone", "--quiet", "--depth=1", f"file://{toy.path}", str(shallow))
    assert resolve(f"git:{shallow}", toy.cache).commit == second
    with pytest.raises(UsageError, match=r"shallow clone and has no revision") as raised:
        resolve(f"git:{shallow}@{first}", toy.cache)
    assert "--unshallow" in raised.value.advice


def lose(toy: Toy, name: str) -> None:
    """Remove one object of the clone, as a bad disk or copy does."""
    digest = toy.line("rev-parse", name)
    (toy.path / ".git" / "objects" / digest[:2] / digest[2:]).unlink()


def spoil(toy: Toy, name: str) -> None:
    """Overwrite one object of the clone."""
    digest = toy.line("rev-parse", name)
    path = toy.path / ".git" / "objects" / digest[:2] / digest[2:]
    path.chmod(0o600)
    path.write_bytes(b"not what it was")


@pytest.mark.parametrize("harm", [lose, spoil])
def test_a_corrupt_clone_has_a_clear_sentence(toy: Toy, harm: object) -> None:
    assert callable(harm)
    harm(toy, "HEAD:xen/common")
    with pytest.raises(UsageError, match="damaged or incomplete at HEAD"):
        toy.tree()


def test_a_missing_file_shows_at_checkout(toy: Toy, tmp_path: Path) -> None:
    tree = toy.tree()
    lose(toy, f"HEAD:{BELL}")
    with pytest.raises(HarnessError, match="damaged or incomplete"):
        tree.checkout(tmp_path / "checkout")


def test_what_is_no_repository_is_refused(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(UsageError, match="there is no directory"):
        resolve(f"git:{tmp_path}/nothing@main", cache)
    with pytest.raises(UsageError, match="no git repository"):
        resolve(f"git:{tmp_path}@main", cache)
    with pytest.raises(UsageError, match="is no git repository"):
        resolve(f"git:file://{tmp_path}@main", cache)


def test_what_is_no_xen_is_refused(toy: Toy) -> None:
    toy.git("rm", "--quiet", "xen/Makefile")
    toy.commit("Forget the version")
    with pytest.raises(UsageError, match="is not the source of Xen"):
        toy.tree()


def test_a_url_is_fetched_once_for_what_cannot_move(toy: Toy) -> None:
    toy.git("tag", "v1")
    commit = toy.line("rev-parse", "HEAD")
    said: list[str] = []
    url = f"git:file://{toy.path}"
    assert resolve(f"{url}@v1", toy.cache, said.append).commit == commit
    assert said == [f"fetching file://{toy.path}"]
    shutil.rmtree(toy.path)  # as good as no network
    for revision in ("v1", commit, commit[:10]):
        assert resolve(f"{url}@{revision}", toy.cache, said.append).commit == commit
    assert len(said) == 1


def test_a_branch_of_a_url_is_followed(toy: Toy) -> None:
    url = f"git:file://{toy.path}@main"
    first = resolve(url, toy.cache)
    toy.edit(BELL, "{", "{ ")
    second = toy.commit("Ring")
    assert resolve(url, toy.cache).commit == second != first.commit
    said: list[str] = []
    shutil.rmtree(toy.path)
    assert resolve(url, toy.cache, said.append).commit == second
    assert "cannot be reached; using its main as known" in said[-1]


def test_a_url_has_a_head(toy: Toy) -> None:
    toy.git("checkout", "--quiet", "-b", "other")
    toy.edit(BELL, "{", "{ ")
    commit = toy.commit("Ring")
    assert resolve(f"git:file://{toy.path}", toy.cache).commit == commit


def test_a_url_that_cannot_be_reached_is_the_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot be fetched"):
        resolve("git:https://127.0.0.1:1/xen.git@main", Cache(tmp_path))


def test_the_users_git_variables_do_not_matter(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = toy.tree().tree
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert resolve(f"git:{toy.path}", toy.cache).tree == expected
