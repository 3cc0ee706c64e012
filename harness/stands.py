"""Cases to come in, booted hosts out: the next case's Xen boots while this case runs.

What a host is, this refuses to know: `boot` returns anything with a `close`. Every boot happens in
one thread that lives as long as the stands do, because a QEMU that is to die with its parent dies
with the *thread* that started it (PR_SET_PDEATHSIG in prctl(2)).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from harness.errors import HarnessError, XenFailure


class Closable(Protocol):
    """What a boot leaves running."""

    def close(self) -> None:
        """End it; never raises for what Xen did."""


Stand = TypeVar("Stand", bound=Closable)
Work = Callable[[], None]

# A Xen that does not boot fails every case alike; three proofs are enough, and a hang is not cheap.
BOOTS_THAT_MAY_FAIL = 3
SECONDS_TO_LET_GO = 5.0


class Stands(Generic[Stand]):
    """Boots at most one stand ahead of the one that is taken."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._ahead: dict[str, Future[Stand]] = {}
        self._failures: list[XenFailure | HarnessError] = []
        # A daemon: a boot that hangs must not keep an interrupted run alive. QEMU dies with it.
        self._thread = threading.Thread(target=self._serve, name="boot-ahead", daemon=True)
        self._thread.start()
        self._ends = ThreadPoolExecutor(max_workers=1, thread_name_prefix="end")
        self._ending: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def prepare(self, key: str, boot: Callable[[], Stand]) -> None:
        """Begin to boot the stand for `key`, unless that has begun already."""
        if key in self._ahead:
            return
        future: Future[Stand] = Future()
        self._ahead[key] = future

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(boot())
            except BaseException as problem:  # whoever takes the stand shall see it
                future.set_exception(problem)

        self._work.put(work)

    def take(self, key: str) -> Stand:
        """Return the stand for `key`, waiting for its boot; the caller releases it.

        Raises whatever the boot raised. Once it failed several times in a row, it is not tried
        again: the last failure is raised at once.
        """
        future = self._ahead.pop(key)
        if len(self._failures) >= BOOTS_THAT_MAY_FAIL:
            self._discard(future)
            raise self._not_again()
        try:
            stand = future.result()
        except (XenFailure, HarnessError) as failure:
            self._failures.append(failure)
            raise
        self._failures.clear()
        return stand

    def _not_again(self) -> XenFailure | HarnessError:
        last = self._failures[-1]
        message = f"{last.message} (in {len(self._failures)} boots; not tried again)"
        if isinstance(last, XenFailure):
            return type(last)(message, evidence=last.evidence)
        return HarnessError(message, evidence=last.evidence, advice=last.advice)

    def release(self, stand: Stand) -> None:
        """Close a stand that was taken, while its owner goes on."""
        self._ending = [end for end in self._ending if not end.done()]
        self._ending.append(self._ends.submit(_close, stand))

    def discard_but(self, wanted: str = "") -> None:
        """Close every stand that nobody took, except the one for the key `wanted`."""
        for key in self._ahead.keys() - {wanted}:
            self._discard(self._ahead.pop(key))

    def _discard(self, future: Future[Stand]) -> None:
        if not future.cancel():
            future.add_done_callback(_close_result)

    def close(self) -> None:
        """Discard what nobody took and end the thread; what hangs dies with the process."""
        self.discard_but()
        self._work.put(None)
        self._thread.join(SECONDS_TO_LET_GO)
        wait(self._ending, SECONDS_TO_LET_GO)
        self._ends.shutdown(wait=False)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _close_result(future: Future[Stand]) -> None:
    if future.exception() is None:
        _close(future.result())


def _close(stand: Closable) -> None:
    with contextlib.suppress(HarnessError):
        stand.close()
