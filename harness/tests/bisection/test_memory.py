"""What was seen is found again, by source and by binary, and what is damaged is as good as none."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.bisection.memory import Memory
from harness.bisection.samples import Reached, Sample
from harness.cache import Cache
from harness.errors import HarnessError
from harness.outcomes import CaseResult, Outcome


def seen(commit: str, fingerprint: str = "f", *cases: str) -> Sample:
    runs = {case: (CaseResult(case, Outcome.FAILED, message="-16"),) for case in cases}
    build = {"fingerprint": fingerprint, "version": "4.17.0"}
    return Sample(commit, Reached.RAN, build=build, boots=(0.1,), cases=runs)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(Cache(tmp_path), "as it is built here")


def test_nothing_is_remembered_of_what_was_never_seen(memory: Memory) -> None:
    assert memory.recall("source") is None


def test_runs_add_up(memory: Memory) -> None:
    memory.keep("source", seen("c1", "f", "one"))
    memory.keep("source", seen("c1", "f", "one", "two"))
    known = memory.recall("source")
    assert known is not None
    assert (known.runs("one"), known.runs("two"), len(known.boots)) == (2, 1, 2)


def test_another_source_with_the_same_binary_shares_its_runs(memory: Memory) -> None:
    memory.keep("source", seen("c1", "f", "one"))
    memory.keep("other", seen("c2", "f", "two"))
    known = memory.recall("source")
    assert known is not None
    assert set(known.cases) == {"one", "two"}
    assert known.commit == "c1"


def test_what_does_not_build_is_remembered_with_its_reason(memory: Memory) -> None:
    broken = Sample("c1", Reached.SOURCE, "error: no", ("error: no",))
    memory.keep("source", broken)
    assert memory.recall("source") == broken


def test_another_setting_knows_nothing_of_it(memory: Memory) -> None:
    memory.keep("source", seen("c1"))
    assert Memory(memory.cache, "in another way").recall("source") is None


def test_a_damaged_file_is_as_good_as_none(memory: Memory) -> None:
    memory.keep("source", seen("c1"))
    for path in memory.cache.root.rglob("*.json"):
        path.write_text(path.read_text()[:20])
    assert memory.recall("source") is None


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_when_there_is_no_room_what_was_kept_before_stays(memory: Memory) -> None:
    memory.keep("source", seen("c1", "f", "one"))
    with no_room(16), pytest.raises(HarnessError, match="no room left"):
        memory.keep("source", seen("c1", "f", "one"))
    known = memory.recall("source")
    assert known is not None
    assert known.runs("one") == 1


def test_a_sample_can_be_cut_down_to_some_cases_and_runs(memory: Memory) -> None:
    for _ in range(3):
        whole = memory.keep("source", seen("c1", "f", "one", "two"))
    cut = whole.only(["one", "three"], 2)
    assert (cut.runs("one"), cut.runs("two"), whole.runs("two")) == (2, 0, 3)
