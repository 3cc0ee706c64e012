"""`PATH-or-URL@REV` in, the tree of that revision out, in a mirror of ours.

Comes in: the text after `git:`. Goes out: a `Tree`. Refuses to know: what is done with it.

A clone on this machine is only read: its mirror copies nothing, but borrows the clone's objects (as
git's alternates) and keeps the new ones. The mirror of a URL is a copy, and is asked first: for a
revision that cannot move (a commit, a tag) that it has, nobody else is.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.cache import Cache
from harness.errors import HarnessError, UsageError
from harness.git import GitError, create_bare, git, run_git
from harness.progress import Progress, quiet
from harness.projects import XEN, Project
from harness.sent import sent
from harness.trees import Tree, describe_tree

ABBREVIATED = 10  # digits of a commit in labels
CLOSE_MATCHES = 5


@dataclass(frozen=True)
class Location:
    """A git reference, split."""

    place: str  # path or URL
    revision: str
    is_url: bool


def resolve(
    place_and_revision: str, cache: Cache, progress: Progress = quiet, project: Project = XEN
) -> Tree:
    """Return the tree of `PATH-or-URL@REV`; REV is HEAD where it is left out."""
    location = split(place_and_revision)
    place = sent().places.get(location.place)
    if place is not None:  # sent along with the command, with every commit there may be need of
        mirror = Path(place)
        commit = _find_commit(location, "--git-dir", mirror, shallow=False)
    elif location.is_url:
        mirror, commit = _from_url(location, cache, progress)
    else:
        mirror, commit = _from_clone(location, cache)
    try:
        tree = git(mirror, "rev-parse", "--verify", f"{commit}^{{tree}}").decode().strip()
        git(mirror, "ls-tree", "-r", tree)  # every directory must be there; files show at checkout
    except GitError as error:
        raise _damaged(location, error) from None
    name = "" if commit.startswith(location.revision) else f"{location.revision} "
    return describe_tree(
        reference=f"git:{place_and_revision}",
        repository=mirror,
        tree=tree,
        label=f"git {name}{commit[:ABBREVIATED]}",
        commit=commit,
        project=project,
    )


def split(place_and_revision: str) -> Location:
    """Split at the @ that begins the revision, which neither user@host nor HEAD@{1} has."""
    text = place_and_revision
    authority = re.match(r"\w[\w+.-]*://[^/]*|(?:[\w.-]+@)?[\w.-]+:", text)
    if authority and not Path(text.split("@")[0]).expanduser().exists():
        path, _, revision = text[authority.end() :].partition("@")
        return Location(authority[0] + path, revision or "HEAD", is_url=True)
    ends = [match.start() for match in re.finditer("@", text)] + [len(text)]
    place_end = next((end for end in ends if Path(text[:end]).expanduser().exists()), ends[0])
    return Location(text[:place_end], text[place_end + 1 :] or "HEAD", is_url=False)


def _from_clone(location: Location, cache: Cache) -> tuple[Path, str]:
    """Return a mirror that borrows the objects of a clone on this machine, and the commit."""
    path = Path(location.place).expanduser().resolve()
    if not path.exists():
        raise UsageError(f"there is no directory {location.place}")
    try:
        answer = run_git("-C", path, "rev-parse", "--path-format=absolute", "--git-common-dir")
        clone = Path(answer.decode().rstrip("\n"))
        refs = run_git("-C", path, "for-each-ref", "--format=%(objectname) %(refname)")
    except GitError as error:
        raise UsageError(
            f"{location.place} is no git repository that can be read: {error}",
            advice="If it is a clone, `git fsck` in it tells more.",
        ) from None
    commit = _find_commit(location, "-C", path, shallow=(clone / "shallow").exists())
    mirror = _mirror(cache, str(clone))
    _write_if_new(mirror / "objects" / "info" / "alternates", f"{clone / 'objects'}\n".encode())
    _write_if_new(mirror / "packed-refs", refs)
    shallow = clone / "shallow"
    if shallow.exists():
        _write_if_new(mirror / "shallow", shallow.read_bytes())
    else:
        (mirror / "shallow").unlink(missing_ok=True)
    return mirror, commit


def _write_if_new(path: Path, content: bytes) -> None:
    """Replace a file of the mirror whole: another run may be reading it."""
    if path.exists() and path.read_bytes() == content:
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)


def _from_url(location: Location, cache: Cache, progress: Progress) -> tuple[Path, str]:
    """Return the mirror of a URL and the commit, fetched if it is not there or may have moved."""
    mirror = _mirror(cache, location.place)
    with cache.lock(f"fetch-{mirror.name}", progress=progress):
        known = _commit_of(location.revision, "--git-dir", mirror)
        if known is not None and _cannot_move(mirror, location.revision):
            return mirror, known
        progress(f"fetching {location.place}")
        try:
            _fetch(mirror, location.place, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            _follow_head(mirror, location.place)
        except GitError as error:
            if known is None:
                raise _unreachable(location, error) from None
            progress(f"{location.place} cannot be reached; using its {location.revision} as known")
            return mirror, known
        if re.fullmatch(r"[0-9a-f]{40}|refs/\S+", location.revision):  # perhaps on no branch
            with suppress(GitError):
                _fetch(mirror, location.place, f"+{location.revision}:refs/asked/for")
                return mirror, git(mirror, "rev-parse", "refs/asked/for^{commit}").decode().strip()
    shallow = (mirror / "shallow").exists()
    return mirror, _find_commit(location, "--git-dir", mirror, shallow=shallow)


def _fetch(mirror: Path, url: str, *refspecs: str) -> None:
    options = ("--quiet", "--prune", "--force", "--no-tags", "--update-shallow")
    git(mirror, "fetch", *options, url, *refspecs, of_user=True)


def _follow_head(mirror: Path, url: str) -> None:
    """Let the mirror's HEAD name the branch that the URL's HEAD does."""
    answer = git(mirror, "ls-remote", "--symref", url, "HEAD", of_user=True).decode()
    if head := re.match(r"ref: (refs/heads/\S+)\tHEAD", answer):
        git(mirror, "symbolic-ref", "HEAD", head[1])


def _mirror(cache: Cache, place: str) -> Path:
    """Return our bare repository for a clone or URL, created if there is none."""
    mirror = cache.root / "git" / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.git"
    create_bare(mirror)
    return mirror


def _cannot_move(mirror: Path, revision: str) -> bool:
    """Say whether `revision` names the same commit for ever: by its id, or as a tag."""
    if re.fullmatch(r"[0-9a-f]{7,40}", revision):
        return True
    return bool(git(mirror, "for-each-ref", f"refs/tags/{revision}"))


def _commit_of(revision: str, *repository: str | Path) -> str | None:
    """Return the commit of a revision, None if there is none; `repository` are git's options."""
    wanted = ("--end-of-options", f"{revision}^{{commit}}")
    try:
        return run_git(*repository, "rev-parse", "--verify", *wanted).decode().split()[-1]
    except GitError:
        return None


def _kind_of(revision: str, *repository: str | Path) -> str | None:
    """Return what a revision names in git's words, such as "blob"; None if it names nothing."""
    try:
        name = run_git(*repository, "rev-parse", "--verify", "--end-of-options", revision)
        return run_git(*repository, "cat-file", "-t", name.decode().split()[-1]).decode().strip()
    except GitError:
        return None


def _find_commit(location: Location, *repository: str | Path, shallow: bool) -> str:
    """Return the commit that the revision names; raises UsageError with what is near it."""
    commit = _commit_of(location.revision, *repository)
    if commit is not None:
        return commit
    if shallow:
        raise UsageError(
            f"{location.place} is a shallow clone and has no revision {location.revision}",
            advice="`git fetch --unshallow --tags` in it brings the rest.",
        )
    if kind := _kind_of(location.revision, *repository):
        raise UsageError(
            f"{location.revision} in {location.place} is a {kind}, not a commit",
            advice="Name a commit, or a branch or tag of one.",
        )
    listing = run_git(*repository, "for-each-ref", "--format=%(refname)").decode().split()
    names = [re.sub(r"^refs/(heads|tags|remotes)/", "", name) for name in listing]
    wanted = location.revision.lower()
    near = [name for name in names if wanted in name.lower()][-CLOSE_MATCHES:]
    near = near or difflib.get_close_matches(location.revision, names, CLOSE_MATCHES)
    if near:
        advice = "Is one of these meant?"
    else:
        advice = "" if location.is_url else "`git fetch --tags` in it may bring it."
    raise UsageError(
        f"{location.place} has no revision {location.revision}", evidence=near, advice=advice
    )


def _damaged(location: Location, error: GitError) -> UsageError:
    return UsageError(
        f"{location.place} is damaged or incomplete at {location.revision}: {error}",
        evidence=error.lines[1:4],
        advice=f"`git -C {location.place} fsck` tells more; a fresh clone mends it.",
    )


def _unreachable(location: Location, error: GitError) -> HarnessError | UsageError:
    """Tell a URL that is no repository from one that cannot be reached."""
    if any("not found" in line or "does not appear" in line for line in error.lines):
        return UsageError(f"{location.place} is no git repository", evidence=error.lines[:3])
    return HarnessError(
        f"{location.place} cannot be fetched",
        evidence=error.lines[:4],
        advice="Is the network up, and the URL right?",
    )
