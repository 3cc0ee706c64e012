"""`PATH-or-URL@REV` in, the tree of that revision out, in a mirror of ours.

Comes in: the text after `git:`. Goes out: a `Tree`. Refuses to know: what is done with it.

The user's clone is only read. Its mirror copies nothing: it borrows the clone's objects (git's
alternates), and adds ours. A URL's mirror is fetched, and asked first: what it has needs no
network.
"""

from __future__ import annotations

from pathlib import Path

from harness.cache import Cache
from harness.errors import UsageError
from harness.git import GitError, create_bare, git, run_git
from harness.progress import Progress, quiet
from harness.trees import Tree, describe_tree


def resolve(place_and_revision: str, cache: Cache, _progress: Progress = quiet) -> Tree:
    """Return the tree of `PATH@REV`."""
    import hashlib

    place, _, revision = place_and_revision.partition("@")
    revision = revision or "HEAD"
    path = Path(place).expanduser().resolve()
    try:
        common = Path(
            run_git("-C", path, "rev-parse", "--path-format=absolute", "--git-common-dir")
            .decode()
            .strip()
        )
        commit = (
            run_git("-C", path, "rev-parse", "--verify", f"{revision}^{{commit}}").decode().strip()
        )
    except GitError as error:
        raise UsageError(f"git:{place_and_revision}: {error}") from None
    mirror = cache.root / "git" / f"{hashlib.sha256(str(common).encode()).hexdigest()[:16]}.git"
    create_bare(mirror)
    (mirror / "objects" / "info" / "alternates").write_text(f"{common}/objects\n")
    tree = git(mirror, "rev-parse", f"{commit}^{{tree}}").decode().strip()
    return describe_tree(
        reference=f"git:{place_and_revision}", repository=mirror, tree=tree,
        label=f"git {revision} {commit[:10]}", commit=commit,
    )  # fmt: skip
