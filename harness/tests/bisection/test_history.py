"""What is read from real repositories: ranges, who shares a result and why, ends that are none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.bisection import history
from harness.bisection.history import History
from harness.errors import UsageError
from harness.tests.bisection.repositories import Planned, line, make


def test_reasons_for_sharing_a_result_are_named(tmp_path: Path) -> None:
    both = {"xen/state": "x", "xen/arch/x86/a.c": "1", "xen/arch/arm/a.c": "1"}
    plan = [
        Planned("first", (), both),
        Planned("docs", ("first",), {**both, "docs/page": "new"}),
        Planned("x86", ("docs",), {**both, "docs/page": "new", "xen/arch/x86/a.c": "2"}),
        Planned("arm", ("x86",), {**both, "docs/page": "new", "xen/arch/arm/a.c": "2"}),
    ]
    made = make(tmp_path / "r.git", plan)
    found = History(made.path, made.ids["first"], made.ids["arm"])
    assert {made.names[commit]: reason for commit, reason in found.reasons.items()} == {
        "docs": "changes nothing the hypervisor is built from",
        "x86": "changes other architectures only",
    }
    assert [made.names[commit] for commit in found.graph.nodes] == ["arm"]


def test_a_header_folder_of_another_architecture_is_left_out(tmp_path: Path) -> None:
    plan = [
        Planned("first", (), {"xen/include/asm-x86/b.h": "1", "xen/include/asm-arm/b.h": "1"}),
        Planned(
            "next", ("first",), {"xen/include/asm-x86/b.h": "2", "xen/include/asm-arm/b.h": "1"}
        ),
        Planned(
            "last", ("next",), {"xen/include/asm-x86/b.h": "2", "xen/include/asm-arm/b.h": "2"}
        ),
    ]
    made = make(tmp_path / "r.git", plan)
    found = History(made.path, made.ids["first"], made.ids["last"])
    assert [made.names[commit] for commit in found.graph.nodes] == ["last"]


def test_for_its_own_architecture_nothing_is_left_out(tmp_path: Path) -> None:
    plan = [
        Planned("first", (), {"xen/arch/x86/a.c": "1"}),
        Planned("last", ("first",), {"xen/arch/x86/a.c": "2"}),
    ]
    made = make(tmp_path / "r.git", plan)
    found = History(made.path, made.ids["first"], made.ids["last"], arch="x86")
    assert len(found.graph.nodes) == 1


def test_a_commit_is_described_as_git_has_it(tmp_path: Path) -> None:
    made = make(tmp_path / "r.git", line("a", "b"))
    commit = History(made.path, made.ids["c0"], made.ids["c1"]).describe(made.ids["c1"])
    assert commit.subject == "c1: a planned commit"
    assert commit.author == "Ada <ada@example.org>"
    assert commit.date == "2020-09-13T12:28:40+00:00"
    assert commit.parents == (made.ids["c0"],)


def test_equal_ends_are_refused(tmp_path: Path) -> None:
    made = make(tmp_path / "r.git", line("a", "b"))
    with pytest.raises(UsageError, match="same commit"):
        history.between(made.path, made.ids["c1"], made.ids["c1"])


def test_swapped_ends_are_refused_with_both_ways_out(tmp_path: Path) -> None:
    made = make(tmp_path / "r.git", line("a", "b"))
    with pytest.raises(UsageError, match="is an ancestor of the old end") as caught:
        history.between(made.path, made.ids["c1"], made.ids["c0"])
    assert "--fixed" in caught.value.advice
    assert "Swap" in caught.value.advice


def test_unrelated_histories_are_refused(tmp_path: Path) -> None:
    made = make(tmp_path / "r.git", [*line("a", "b"), *line("a", "b", prefix="other")])
    with pytest.raises(UsageError, match="no common ancestor") as caught:
        history.between(made.path, made.ids["c1"], made.ids["other1"])
    assert caught.value.evidence == ()


def test_a_shallow_clone_is_named_as_the_reason(tmp_path: Path) -> None:
    branches = [
        Planned("left", ("c1",), {"xen/state": "left"}),
        Planned("right", ("c1",), {"xen/state": "right"}),
    ]
    made = make(tmp_path / "r.git", [*line("a", "b"), *branches])
    shallow = tmp_path / "shallow.git"
    # A file URL: for a plain path git copies everything, whatever the depth.
    subprocess.run(
        ["git", "clone", "-q", "--bare", "--depth=1", "--no-single-branch",
         f"file://{made.path}", shallow],
        check=True,
    )  # fmt: skip
    with pytest.raises(UsageError, match="no common ancestor") as caught:
        history.between(shallow, made.ids["left"], made.ids["right"])
    assert "shallow" in caught.value.evidence[0]
    assert "--unshallow" in caught.value.advice


def test_the_repository_is_only_read(tmp_path: Path) -> None:
    made = make(tmp_path / "r.git", line("a", "b", "c"))
    before = {path: path.stat().st_mtime_ns for path in made.path.rglob("*")}
    found = history.between(made.path, made.ids["c0"], made.ids["c2"])
    assert found.graph.nodes
    assert found.reasons == {}
    assert {path: path.stat().st_mtime_ns for path in made.path.rglob("*")} == before
