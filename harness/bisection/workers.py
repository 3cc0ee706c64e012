"""Where commits are looked at: an executor of concurrent.futures in any of three places.

Comes in: how many, or a Dask scheduler's address, or SSH hosts. Goes out: `Workers`, to which tasks
are submitted. Refuses to know: what a task is about.

Everything that goes to SSH hosts goes through SSH: the scheduler and each worker listen on their
loopback only, and know each other by ports that a tunnel leads to the other side.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from harness.bisection.evaluation import Task
from harness.bisection.samples import Sample
from harness.errors import HarnessError, UsageError

Work = Callable[[Task], Sample]

PR_SET_PDEATHSIG = 1  # linux/prctl.h
SECONDS_TO_END = 5.0
SECONDS_TO_CONNECT = 20.0


class Workers(Protocol):
    """Some processes, here or elsewhere."""

    slots: int
    """How many tasks run at once."""
    elsewhere: bool
    """Whether their files are not ours."""

    @property
    def builders(self) -> int:
        """How many of those may build: a build keeps two cores busy all by itself."""

    def submit(self, work: Work, task: Task) -> Future[Sample]:
        """Have `work(task)` done by one of them; at most `slots` at once."""

    def end(self, task: Future[Sample]) -> bool:
        """End a task at whatever it is; return False if that cannot be."""

    def died(self, problem: BaseException) -> bool:
        """Whether `problem` means that a worker went away; then there are new ones afterwards."""

    def check(self) -> None:
        """Raise HarnessError if there is nobody left to work."""


@dataclass
class Local:
    """Processes on this machine, that end with this one whatever happens.

    Each is a pool of its own: when one is killed, the others go on.
    """

    slots: int
    elsewhere: bool = False
    _idle: list[ProcessPoolExecutor] = field(default_factory=list, repr=False)
    _ended: set[ProcessPoolExecutor] = field(default_factory=set, repr=False)
    _busy: dict[Future[Sample], ProcessPoolExecutor] = field(default_factory=dict, repr=False)

    @property
    def builders(self) -> int:
        """How many tasks may build at once."""
        return max(1, self.slots // 2)

    def submit(self, work: Work, task: Task) -> Future[Sample]:
        """Have `work(task)` done in a process that has nothing else to do."""
        self._idle = [pool for pool in self._idle if pool not in self._ended]
        pool = self._idle.pop() if self._idle else self._pool()
        try:
            future = pool.submit(_to_the_end, work, task)
        except BrokenProcessPool:  # it died while it had nothing to do
            return self.submit(work, task)
        self._busy[future] = pool
        future.add_done_callback(partial(self._done, pool))
        return future

    def end(self, task: Future[Sample]) -> bool:
        """End the process that is at the task, and have no other done by it."""
        pool = self._busy.get(task)
        if pool is None:
            return False
        self._ended.add(pool)
        for process in list((pool._processes or {}).values()):
            process.terminate()
        return True

    def _pool(self) -> ProcessPoolExecutor:
        # Not forked: the live view's thread, forked in mid-print, would take its locks along.
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin)

    def _done(self, pool: ProcessPoolExecutor, future: Future[Sample]) -> None:
        """Keep a process for the next task, unless it died."""
        self._busy.pop(future, None)
        if not future.cancelled() and not isinstance(future.exception(), BrokenProcessPool):
            self._idle.append(pool)

    def died(self, problem: BaseException) -> bool:
        """Whether a process was killed."""
        return isinstance(problem, BrokenProcessPool)

    def check(self) -> None:
        """Nothing to do: whoever dies here is noticed at once."""

    def close(self) -> None:
        """End every process with whatever it is at."""
        for pool in self._idle:
            pool.shutdown(wait=False, cancel_futures=True)
        processes = multiprocessing.active_children()
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(SECONDS_TO_END)
            if process.is_alive():
                process.kill()
                process.join()


def _begin() -> None:
    """Make a worker end with its parent, and leave Ctrl-C to it."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:  # it died before we asked
        raise SystemExit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)


def _to_the_end(work: Work, task: Task) -> Sample:
    """Do the work; once it is unwound, a process that was told to leave does not wait for more."""
    try:
        return work(task)
    except SystemExit:
        os._exit(1)


def _leave(signum: int, frame: object) -> None:
    """Unwind, so that QEMU and make are ended and nothing half-made stays."""
    del signum, frame
    raise SystemExit(1)


@dataclass
class Dask:
    """The workers of a Dask scheduler, which start and end without us."""

    address: str
    client: Any
    slots: int
    elsewhere: bool = True
    hosts: tuple[str, ...] = ()  # whose workers are ours

    def submit(self, work: Work, task: Task) -> Future[Sample]:
        """Have `work(task)` done by one of them."""
        future: Future[Sample] = self.client.get_executor(pure=False).submit(work, task)
        return future

    @property
    def builders(self) -> int:
        """How many tasks may build at once: each on a machine of its own."""
        return self.slots

    def end(self, task: Future[Sample]) -> bool:
        """Dask ends no task that runs."""
        del task
        return False

    def died(self, problem: BaseException) -> bool:
        """Whether a worker went away; Dask itself has tried others already."""
        from distributed import KilledWorker

        return isinstance(problem, KilledWorker)

    def check(self) -> None:
        """Raise HarnessError if the scheduler has no worker any more, or is gone."""
        try:
            left = self.client.scheduler_info(n_workers=-1)["workers"]
        except Exception as error:
            raise HarnessError(f"the Dask scheduler {self.address} is gone: {error}") from None
        if not left and self.hosts:
            raise HarnessError(
                f"no connection is left to {', '.join(self.hosts)}",
                advice="Once there is, repeat the command: it goes on where it was.",
            )
        if not left:
            raise HarnessError(
                f"the Dask scheduler {self.address} has no worker left",
                advice="Start workers again, and repeat the command: it goes on where it was.",
            )


@contextlib.contextmanager
def local(slots: int) -> Iterator[Workers]:
    """Give `slots` processes on this machine."""
    workers = Local(slots)
    try:
        yield workers
    finally:
        workers.close()


@contextlib.contextmanager
def dask(address: str, hosts: tuple[str, ...] = ()) -> Iterator[Workers]:
    """Give the workers of the Dask scheduler at `address`, which are ours if `hosts` are named."""
    import distributed

    connect: Any = distributed.Client
    try:
        client = connect(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise HarnessError(
            f"no Dask scheduler answers at {address}: {error}",
            advice="Start one:  dask scheduler   and on each machine:  dask worker ADDRESS",
        ) from None
    with client:
        threads = client.nthreads()
        if not threads:
            raise HarnessError(
                f"the Dask scheduler {address} has no workers",
                advice=f"Start one on each machine:  dask worker {address} --nthreads 1",
            )
        yield Dask(address, client, sum(threads.values()), hosts=hosts)


@contextlib.contextmanager
def ssh(hosts: list[str], python: str = sys.executable) -> Iterator[Workers]:
    """Give one worker on each host, which must have the harness under the same `python`."""
    import distributed
    from fabric import Connection

    from harness.remote.connection import trust_known_hosts

    start: Any = distributed.LocalCluster
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(start(n_workers=0, host="127.0.0.1", dashboard_address=None))
        scheduler = int(cluster.scheduler_address.rpartition(":")[2])
        for host in hosts:
            theirs, contact, listening = (_free_port() for _ in range(3))
            connection = stack.enter_context(Connection(host))
            trust_known_hosts(connection)
            try:
                connection.open()
                stack.enter_context(connection.forward_remote(theirs, local_port=scheduler))
                stack.enter_context(connection.forward_local(contact, remote_port=listening))
                words = [
                    python, "-m", "distributed.cli.dask_worker",
                    f"tcp://127.0.0.1:{theirs}",
                    "--listen-address", f"tcp://127.0.0.1:{listening}",
                    "--contact-address", f"tcp://127.0.0.1:{contact}",
                    "--nthreads", "1", "--no-nanny", "--no-dashboard",
                    "--name", host, "--death-timeout", "60",
                ]  # fmt: skip
                # With a terminal, the worker is hung up on when the connection ends.
                connection.run(shlex.join(words), asynchronous=True, pty=True, hide=True)
            except Exception as error:
                raise HarnessError(
                    f"{host} cannot be reached by ssh: {error}",
                    advice=f"Try:  ssh {host} {python} -c 'import harness'",
                ) from None
        workers = stack.enter_context(dask(_once_all_there(cluster, hosts, python), tuple(hosts)))
        yield workers


def _once_all_there(cluster: Any, hosts: list[str], python: str) -> str:
    deadline = time.monotonic() + 3 * SECONDS_TO_CONNECT
    while time.monotonic() < deadline:
        names = {str(worker.name) for worker in cluster.scheduler.workers.values()}
        if names >= set(hosts):
            return str(cluster.scheduler_address)
        time.sleep(0.1)
    missing = [host for host in hosts if host not in names]
    raise HarnessError(
        f"no worker came up on {', '.join(missing)}",
        advice=f"Try:  ssh {missing[0]} {python} -c 'import harness, distributed'",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def open_workers(named: str, slots: int) -> contextlib.AbstractContextManager[Workers]:
    """Open what `--workers` names: nothing, a Dask address, or hosts with commas between."""
    if not named:
        return local(slots)
    if "://" in named:
        return dask(named)
    hosts = [host.strip() for host in named.split(",")]
    if not all(hosts):
        raise UsageError(
            f"--workers {named!r} names no worker",
            advice="Give tcp://ADDRESS:PORT of a Dask scheduler, or HOST,HOST for ssh.",
        )
    return ssh(hosts)
