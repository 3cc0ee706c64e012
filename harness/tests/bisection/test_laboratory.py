"""What is begun when: looks that are waited for first, others only with what those leave."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.bisection import history as histories
from harness.bisection.evaluation import BOOT, Setting, Task
from harness.bisection.laboratory import Laboratory, Need
from harness.bisection.memory import Memory
from harness.bisection.samples import Sample
from harness.bisection.workers import Workers, local
from harness.builds import BuildOptions
from harness.cache import Cache
from harness.tests.bisection import looking
from harness.tests.bisection.repositories import Made, make
from harness.tests.bisection.test_campaign import states


@dataclass
class Held:
    """Workers whose tasks are over when the test says so."""

    then: Callable[[Held, Task], None]  # called with each task that was begun
    slots: int = 2
    builders: int = 1
    elsewhere: bool = False
    begun: dict[str, Future[Sample]] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    def submit(self, work: Callable[[Task], Sample], task: Task) -> Future[Sample]:
        del work
        future: Future[Sample] = Future()
        self.begun[task.commit], self.tasks[task.commit] = future, task
        self.then(self, task)
        return future

    def finish(self, commit: str) -> None:
        self.begun[commit].set_result(looking.look(self.tasks[commit]))

    def end(self, task: Future[Sample]) -> bool:
        self.ended += [commit for commit, future in self.begun.items() if future is task]
        return True

    def died(self, problem: BaseException) -> bool:
        del problem
        return False

    def check(self) -> None:
        pass


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path / "r.git", states(*["case passed"] * 6))


def laboratory(made: Made, directory: Path, workers: Workers) -> Laboratory:
    history = histories.between(made.path, made.ids["c0"], made.ids["c5"])
    setting = Setting(BuildOptions(), "virt-gicv3")
    memory = Memory(Cache(directory / "cache"), "test")
    place = f"git:{made.path}"
    return Laboratory(history, place, setting, workers, memory, directory / "out", looking.look)


def test_nothing_is_begun_ahead_while_a_wanted_commit_is_being_built(
    made: Made, tmp_path: Path
) -> None:
    one, other = Need(made.ids["c1"]), Need(made.ids["c2"])
    workers = Held(lambda held, task: held.finish(task.commit))
    laboratory(made, tmp_path, workers).work([one], [other])
    assert [*workers.begun] == [one.commit]


def test_what_was_begun_ahead_makes_room_for_what_is_wanted(made: Made, tmp_path: Path) -> None:
    first, ahead, next_one = (Need(made.ids[name]) for name in ("c1", "c2", "c3"))

    def then(held: Held, task: Task) -> None:
        if task.commit == first.commit:
            (Path(task.output) / BOOT).mkdir(parents=True)
        elif task.commit == ahead.commit:
            held.finish(first.commit)
        else:
            held.finish(task.commit)

    workers = Held(then)
    lab = laboratory(made, tmp_path, workers)
    put_off = []
    lab.listen = lambda event: put_off.append(event.commit) if event.put_off else None
    lab.work([first], [ahead])
    assert [*workers.begun] == [first.commit, ahead.commit]
    lab.work([next_one], [])
    assert [*workers.begun] == [first.commit, ahead.commit, next_one.commit]
    assert workers.ended == put_off == [ahead.commit]


def test_what_was_begun_ahead_and_is_wanted_now_goes_on(made: Made, tmp_path: Path) -> None:
    first, ahead, next_one = (Need(made.ids[name]) for name in ("c1", "c2", "c3"))

    def then(held: Held, task: Task) -> None:
        if task.commit != next_one.commit:
            (Path(task.output) / BOOT).mkdir(parents=True)
        if task.commit == ahead.commit:
            held.finish(first.commit)
        elif task.commit == next_one.commit:
            held.finish(ahead.commit)

    workers = Held(then)
    lab = laboratory(made, tmp_path, workers)
    lab.work([first], [ahead])
    lab.work([ahead, next_one])
    assert not workers.ended
    assert lab.met(ahead)


def test_a_process_that_died_while_it_had_nothing_to_do_is_replaced(
    made: Made, tmp_path: Path
) -> None:
    with local(1) as workers:
        lab = laboratory(made, tmp_path, workers)
        lab.get(Need(made.ids["c1"]))
        (idle,) = multiprocessing.active_children()
        idle.kill()
        idle.join()
        time.sleep(0.5)  # the pool may have noticed by now, or not
        lab.get(Need(made.ids["c2"]))
        assert lab.met(Need(made.ids["c2"]))
