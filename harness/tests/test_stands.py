"""Stands booted ahead: the right one to the right case, none left over, and no boot in vain."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest

from harness.errors import HarnessError, XenCrashed, XenHung
from harness.stands import BOOTS_THAT_MAY_FAIL, Stands


class Booted:
    """Stands for a host: remembers whether it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def _same(stand: Booted) -> Booted:
    return stand


def raising(problem: BaseException) -> Callable[[], Booted]:
    def boot() -> Booted:
        raise problem

    return boot


def test_each_case_gets_the_stand_prepared_for_it() -> None:
    one, other = Booted(), Booted()
    with Stands[Booted]() as stands:
        stands.prepare("one", lambda: one)
        stands.prepare("other", lambda: other)
        assert stands.take("other") is other
        assert stands.take("one") is one


def test_preparing_again_does_not_boot_again() -> None:
    first = Booted()
    with Stands[Booted]() as stands:
        stands.prepare("case", lambda: first)
        stands.prepare("case", raising(AssertionError("booted twice")))
        assert stands.take("case") is first


def test_a_boot_goes_on_while_its_owner_does_other_things() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def boot() -> Booted:
        begun.set()
        assert go_on.wait(5)
        return Booted()

    with Stands[Booted]() as stands:
        stands.prepare("case", boot)
        assert begun.wait(5)
        go_on.set()
        assert not stands.take("case").closed.is_set()


def test_every_boot_happens_in_the_same_thread_which_outlives_it() -> None:
    threads: list[threading.Thread] = []

    def boot() -> Booted:
        threads.append(threading.current_thread())
        return Booted()

    with Stands[Booted]() as stands:
        for key in ("one", "other"):
            stands.prepare(key, boot)
            stands.take(key)
        assert threads[0] is threads[1]
        assert threads[0].is_alive()


@pytest.mark.parametrize("problem", [HarnessError("no QEMU"), XenCrashed("Panic"), OSError("x")])
def test_whoever_takes_a_stand_sees_what_its_boot_raised(problem: Exception) -> None:
    with Stands[Booted]() as stands:
        stands.prepare("case", raising(problem))
        with pytest.raises(type(problem)):
            stands.take("case")


def test_stands_that_nobody_took_are_closed() -> None:
    wanted, left_over, ahead = Booted(), Booted(), Booted()
    with Stands[Booted]() as stands:
        for key, stand in (("wanted", wanted), ("left over", left_over), ("ahead", ahead)):
            stands.prepare(key, partial(_same, stand))
        assert stands.take("wanted") is wanted
        stands.discard_but("ahead")
        assert left_over.closed.wait(5)
        assert not ahead.closed.is_set()
    assert ahead.closed.wait(5)
    assert not wanted.closed.is_set()


def test_a_xen_that_never_boots_is_not_tried_for_every_case() -> None:
    boots = 0

    def boot() -> Booted:
        nonlocal boots
        boots += 1
        raise XenHung("Xen's build-id did not come")

    with Stands[Booted]() as stands:
        for case in range(20):
            stands.prepare(str(case), boot)
            with pytest.raises(XenHung) as caught:
                stands.take(str(case))
        assert "not tried again" in str(caught.value)
        assert boots <= BOOTS_THAT_MAY_FAIL + 1


def test_a_boot_that_fails_now_and_then_is_tried_every_time() -> None:
    with Stands[Booted]() as stands:
        for case in range(4 * BOOTS_THAT_MAY_FAIL):
            bad = case % BOOTS_THAT_MAY_FAIL
            stands.prepare(str(case), raising(XenCrashed("Panic")) if bad else Booted)
            if bad:
                with pytest.raises(XenCrashed, match=r"^Panic$"):
                    stands.take(str(case))
            else:
                stands.take(str(case))


def test_our_own_faults_do_not_stop_the_boots() -> None:
    with Stands[Booted]() as stands:
        for case in range(2 * BOOTS_THAT_MAY_FAIL):
            stands.prepare(str(case), raising(HarnessError("machine busy")))
            with pytest.raises(HarnessError, match="machine busy"):
                stands.take(str(case))
