"""What a user may ask wrongly: each a sentence, before anything is built."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.bisection.history import History
from harness.bisection.laboratory import Event
from harness.bisection.question import Question, answer
from harness.bisection.samples import Aspect
from harness.builds import BuildOptions
from harness.cache import Cache
from harness.errors import HarnessError, UsageError
from harness.suites import Selection
from harness.tests.bisection.repositories import Made, Planned, line, make


class Nobody:
    """A view that nobody has."""

    def say(self, phrase: str) -> None:
        del phrase

    def begin(self, history: History) -> None:
        del history

    def remaining(self, count: int) -> None:
        del count

    def hear(self, event: Event) -> None:
        raise AssertionError(f"something was looked at: {event}")


def ask(
    tmp_path: Path,
    old: str,
    new: str,
    repository: str | Path = "",
    *,
    selection: Selection | None = None,
    changes: tuple[str, ...] = (),
    workers: str = "",
) -> None:
    question = Question(
        old, new, str(repository), selection, Aspect.OUTCOME, False, BuildOptions(), "virt-gicv3",
        changes, workers=workers,
    )  # fmt: skip
    answer(question, Cache(tmp_path / "cache"), tmp_path / "out", Nobody())


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path / "r.git", line("a", "b", "c"))


def test_equal_ends(tmp_path: Path, made: Made) -> None:
    with pytest.raises(UsageError, match="same commit"):
        ask(tmp_path, "c1", "c1", made.path)


def test_swapped_ends(tmp_path: Path, made: Made) -> None:
    with pytest.raises(UsageError, match="ancestor of the old end"):
        ask(tmp_path, "c2", "c0", made.path)


def test_a_revision_that_is_not_there(tmp_path: Path, made: Made) -> None:
    with pytest.raises(UsageError, match="nosuchrev"):
        ask(tmp_path, "c0", "nosuchrev", made.path)


def test_a_tag_of_something_else(tmp_path: Path, made: Made) -> None:
    subprocess.run(
        ["git", "-C", made.path, "tag", "makefile", f"{made.ids['c1']}:xen/Makefile"], check=True
    )
    with pytest.raises(UsageError, match="makefile"):
        ask(tmp_path, "c0", "makefile", made.path)


def test_a_repository_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory"):
        ask(tmp_path, "a", "b", tmp_path / "nowhere")


def test_references_without_history(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="debian:bullseye has no history"):
        ask(tmp_path, "debian:bullseye", "debian:bookworm")


def test_references_in_two_repositories(tmp_path: Path, made: Made) -> None:
    other = make(tmp_path / "other.git", line("a", "b"))
    with pytest.raises(UsageError, match="different repositories"):
        ask(tmp_path, f"git:{made.path}@c0", f"git:{other.path}@c1")


def test_a_reference_beside_a_repository(tmp_path: Path, made: Made) -> None:
    with pytest.raises(UsageError, match="reference of its own"):
        ask(tmp_path, f"git:{made.path}@c0", "c2", made.path)


def test_a_case_that_does_not_exist(tmp_path: Path, made: Made) -> None:
    with pytest.raises(UsageError, match="there is no case"):
        ask(tmp_path, "c0", "c2", made.path, selection=Selection(("testcases/no_such.py",)))
    with pytest.raises(UsageError, match="no case matches"):
        ask(tmp_path, "c0", "c2", made.path, selection=Selection((), "no_such_words"))


def test_a_range_in_which_nothing_is_built_differently(tmp_path: Path) -> None:
    plan = [
        Planned("first", (), {"xen/state": "same", "docs/a": "1"}),
        Planned("last", ("first",), {"xen/state": "same", "docs/a": "2"}),
    ]
    made = make(tmp_path / "docs.git", plan)
    with pytest.raises(UsageError, match="build the same Xen"):
        ask(tmp_path, "first", "last", made.path)


def test_a_tree_that_is_no_xen(tmp_path: Path) -> None:
    plan = [Planned("first", (), {"xen/Makefile": "all:\n"})]
    plan.append(Planned("last", ("first",), {"xen/Makefile": "all: it\n"}))
    made = make(tmp_path / "noxen.git", plan)
    with pytest.raises(UsageError, match="no version"):
        ask(tmp_path, "first", "last", made.path)


def test_a_change_that_is_not_there(tmp_path: Path, made: Made) -> None:
    with pytest.raises(UsageError, match="no file"):
        ask(tmp_path, "c0", "c2", made.path, changes=(str(tmp_path / "no.patch"),))


def test_a_dask_scheduler_that_is_not_there(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.bisection.workers.SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(HarnessError, match="no Dask scheduler answers"):
        ask(tmp_path, "c0", "c2", made.path, workers="tcp://127.0.0.1:9")


def test_workers_without_a_name(tmp_path: Path, made: Made) -> None:
    with pytest.raises(UsageError, match="names no worker"):
        ask(tmp_path, "c0", "c2", made.path, workers="one,,two")
