"""`debian:` references, really fetched from the mirror of this system's apt."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cache import Cache
from harness.errors import UsageError
from harness.git import git
from harness.references import resolve

RESOLVE = """
import sys
from pathlib import Path
from harness.cache import Cache
from harness.references import resolve
print(resolve(sys.argv[2], Cache(Path(sys.argv[1])), print).label)
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A cache that knows nothing."""
    return Cache(tmp_path_factory.mktemp("cache"))


def resolve_without_network(cache: Cache, reference: str) -> list[str]:
    """Resolve in a network namespace of its own; returns what was said, and the label."""
    sandbox = ["bwrap", "--unshare-net", "--dev-bind", "/", "/", "--"]
    command = [*sandbox, sys.executable, "-c", RESOLVE, str(cache.root), reference]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def apts_state() -> str:
    """A hash over what the system's apt keeps and is configured by."""
    digest = hashlib.sha256()
    for root in ("/etc/apt", "/var/lib/apt/lists", "/var/cache/apt"):
        for path in sorted(Path(root).rglob("*")):
            status = path.lstat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def test_a_suite_gives_its_source_with_debians_patches(fresh: Cache) -> None:
    before = apts_state()
    tree = resolve("debian:bookworm", fresh)
    assert apts_state() == before
    assert tree.release == (4, 17)
    assert tree.label.startswith("debian 4.17.")
    top = git(tree.repository, "ls-tree", "--name-only", tree.tree).decode().split()
    assert {"xen", "Config.mk", "config", "debian"} <= set(top)
    assert ".pc" not in top


def test_a_second_run_needs_no_network(fresh: Cache) -> None:
    expected = resolve("debian:bookworm", fresh)
    assert resolve_without_network(fresh, "debian:bookworm") == [expected.label]
    assert resolve("debian:bookworm", fresh) == expected


def test_after_a_day_without_network_the_older_answer_serves(fresh: Cache) -> None:
    expected = resolve("debian:bookworm", fresh)
    [record] = (fresh.root / "debian-suites").rglob("bookworm.json")
    old = time.time() - 2 * 24 * 3600
    os.utime(record, (old, old))
    *said, label = resolve_without_network(fresh, "debian:bookworm")
    assert label == expected.label
    assert "Debian cannot be reached" in said[-1]


def test_a_version_is_found_in_whichever_suite_has_it(fresh: Cache) -> None:
    assert resolve("debian:4.14", fresh).release == (4, 14)
    assert resolve("debian:4.17", fresh).release == (4, 17)
    assert resolve("debian:bullseye", fresh).identity == resolve("debian:4.14", fresh).identity


def test_a_suite_that_is_none_is_refused(fresh: Cache) -> None:
    with pytest.raises(UsageError, match="Debian has no suite nosuch"):
        resolve("debian:nosuch", fresh)
