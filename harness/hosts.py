"""A built Xen, a machine and a scenario in; a running QEMU with exactly that Xen booted on it out.

A host ends where the guests begin: it knows their RAM and their console, not what runs in them.
Every way in which QEMU or Xen can go away has its own exception, raised within a second of the
first sign.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from harness import devicetree
from harness.console import Console
from harness.errors import HarnessError, XenCrashed, XenExited, XenHung
from harness.machines import Machine
from harness.programs import require
from harness.pulse import Pulse
from harness.qemu_process import QemuProcess
from harness.qmp import Monitor
from harness.ram import Ram
from harness.scenarios import Scenario

Value = TypeVar("Value")

# No sync_console and a dom0_mem always: each would cost a countdown of three seconds.
XEN_BOOTARGS = "console=dtuart loglvl=all guest_loglvl=all bootscrub=0 noreboot"
BUILD_ID = re.compile(r"^\(XEN\) .*\bbuild-id: ([0-9a-f]+)\n", re.MULTILINE)
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
BOOT_SECONDS = 30.0
# Xen says its last words one right after the other; silent for longer, and it died of dying. On a
# busy machine it takes long to say them all, and half a headline would be another crash.
LAST_WORD_SECONDS = 0.8
SOCKET_BUFFER = 1 << 20  # as much of it as the kernel allows
# While waiting: this long without sleeping at all, for most answers take microseconds.
SPIN_SECONDS = 0.0002
SECONDS_WITHOUT_DOUBT = 0.5  # before this, nobody looks whether the machine still lives
LAST_WORDS = 12  # lines of the console shown with a hang
NAP_SECONDS = 0.00005


class BootableXen(Protocol):
    """What of a build a host needs."""

    @property
    def xen(self) -> Path:
        """The binary to boot."""

    @property
    def build_id(self) -> str:
        """Its build-id in hexadecimal."""

    @property
    def version(self) -> str:
        """Its version, such as "4.17.5"."""


class Probe(Protocol):
    """What looks on from inside QEMU: no part of the command line that a person repeats."""

    @property
    def arguments(self) -> Sequence[str]:
        """What QEMU is given beside its own arguments."""

    @property
    def descriptors(self) -> Sequence[int]:
        """What it inherits for that."""


class Host:
    """One QEMU with one Xen: enter it to boot, leave it and only its directory is left."""

    def __init__(
        self,
        build: BootableXen,
        machine: Machine,
        scenario: Scenario,
        directory: Path,
        *,
        default_kernel: Path,
        qemu_args: Sequence[str] = (),
        probe: Probe | None = None,
    ) -> None:
        """Describe a host; `default_kernel` runs in domains whose plan names no kernel.

        Raises UsageError if this version of Xen cannot run the scenario.
        """
        self.build = build
        self.scenario = scenario.for_version(build.version)
        self.machine = self.scenario.fitted(machine)
        self.directory = directory
        self.boot_seconds = 0.0
        """From QEMU's start to the proof that the Xen that was built is the one that runs."""
        self._kernel = default_kernel
        self._qemu_args = tuple(qemu_args)
        self._probe = probe
        self._open = contextlib.ExitStack()

    may_sleep = False
    """Whether a machine whose CPUs all sleep may be well: Linux waits for timers and for us."""

    ram: Ram
    console: Console
    qmp: Monitor
    process: QemuProcess
    command: list[str]
    """The QEMU command line as a person would run it, with Xen's console on the terminal."""

    def __enter__(self) -> Self:
        try:
            self._boot()
        except OSError as problem:
            self.close()
            raise HarnessError(f"the host cannot be set up: {problem}") from problem
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End QEMU and let go of its RAM; does nothing the second time."""
        self._open.close()

    def check(self) -> None:
        """Raise XenCrashed, XenExited or HarnessError if Xen or QEMU is no more; cheap."""
        if self.console.sick or self.console.closed:
            self._raise_what_happened()

    def wait(self, predicate: Callable[[], Value | None], seconds: float, what: str) -> Value:
        """Return what `predicate` gives as soon as that is neither None nor False.

        Raises what `check` raises, and XenHung as soon as there are signs that `what` will not
        come, or else after `seconds` in which QEMU had a CPU to run on.
        """
        began = time.monotonic()
        pulse: Pulse | None = None
        while True:
            value = predicate()
            if value is not None and value is not False:
                return value
            self.check()
            waited = time.monotonic() - began
            if waited > SECONDS_WITHOUT_DOUBT:
                pulse = pulse or self._alive(lambda: Pulse(self.process, self.qmp, self.may_sleep))
                self._judge(pulse, waited, seconds, what)
            if waited > SPIN_SECONDS:
                time.sleep(NAP_SECONDS)

    def _judge(self, pulse: Pulse, waited: float, seconds: float, what: str) -> None:
        """Raise XenHung if it is time to give up."""
        reason = self._alive(lambda: pulse.look(self.console.mark()))
        if reason is None and waited - pulse.starved_seconds() > seconds:
            reason = f"nothing came in {waited:.1f} s"
        if reason is not None:
            raise XenHung(f"waited in vain for {what}: {reason}", evidence=self._last_words())

    def _alive(self, look: Callable[[], Value]) -> Value:
        """What `look` finds; if QEMU goes away under its eyes, raise why it went."""
        try:
            return look()
        except (HarnessError, OSError):
            self.process.status(seconds=0.1)
            self.check()
            self.process.refuse_stopped()
            raise

    def _last_words(self) -> list[str]:
        return self.console.text.splitlines()[-LAST_WORDS:]

    def pause(self) -> None:
        """Stop every CPU."""
        self.qmp.execute("stop")

    def resume(self) -> None:
        """Let every CPU run on."""
        self.qmp.execute("cont")

    def _boot(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        tree, modules = self._device_tree()
        guests = [argument for module in modules for argument in ("-device", module.loader)]
        xen = ["-kernel", str(self.build.xen), "-dtb", str(tree), *guests, *self._qemu_args]
        program = str(require(self.machine.program))
        self.command = [program, *self.machine.arguments(), "-serial", "mon:stdio", *xen]
        _write_script(self.directory / "qemu.sh", self.command)

        self.ram = Ram(self.machine.ram_base, self.machine.ram_size)
        self._open.callback(self.ram.close)
        with contextlib.ExitStack() as theirs:
            ours, plumbing, descriptors = self._plumbing(theirs)
            command = [program, *self.machine.arguments("ram"), *plumbing, *xen]
            began = time.monotonic()
            self.process = QemuProcess(command, self.directory / "qemu.log", descriptors)
            self._open.callback(self.process.end)
        self.console = Console(ours[0])
        self.qmp = Monitor(ours[1])
        self._open.callback(self.console.close)
        self._open.callback(self.qmp.close)
        self._open.callback(self.process.end)  # before the others: its last words are to be heard
        self._prove_build()
        self.boot_seconds = time.monotonic() - began

    def _device_tree(self) -> tuple[Path, list[devicetree.Module]]:
        domains = self.scenario.domains
        placed = devicetree.place(self.machine, domains, self._kernel)
        bootargs = list(self.scenario.xen_args)
        if self.scenario.dom0:
            bootargs += [
                f"dom0_mem={self.scenario.dom0.memory_mib}M",
                f"dom0_max_vcpus={self.scenario.dom0.vcpus}",
            ]
        bootargs.append(XEN_BOOTARGS)  # the last word counts
        board = devicetree.board_tree(self.machine)
        path = self.directory / "host.dtb"
        path.write_bytes(devicetree.compose(board, " ".join(bootargs), domains, placed))
        return path, [module for modules in placed.values() for module in modules]

    def _plumbing(
        self, theirs: contextlib.ExitStack
    ) -> tuple[list[socket.socket], list[str], list[int]]:
        """Our ends of console and monitor, QEMU's arguments for its ends, and what it inherits."""
        ours, arguments = [], ["-sandbox", SANDBOX]
        descriptors = [self.ram.fd]
        if self._probe is not None:
            arguments += self._probe.arguments
            descriptors += self._probe.descriptors
        memory = f"size={self.machine.ram_mib}M,mem-path=/proc/self/fd/{self.ram.fd},share=on"
        arguments += ["-object", f"memory-backend-file,id=ram,{memory}"]
        log = str(self.directory / "console.log").replace(",", ",,")
        for name, more in (("console", f",logfile={log}"), ("qmp", "")):
            mine, its = socket.socketpair()
            # Each character takes a packet of its own: by default hardly 300 would find room, and
            # QEMU with its guest would wait for us to read.
            its.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            theirs.enter_context(its)
            self._open.callback(mine.close)
            ours.append(mine)
            descriptors.append(its.fileno())
            arguments += ["-chardev", f"socket,id={name},fd={its.fileno()}{more}"]
        arguments += ["-serial", "chardev:console", "-mon", "chardev=qmp,mode=control"]
        return ours, arguments, descriptors

    def _prove_build(self) -> None:
        """Wait for the build-id on the console and compare it with the one of the build."""
        said = self.wait(self._said_build_id, BOOT_SECONDS, "Xen's build-id on the console")
        if said != self.build.build_id:
            raise HarnessError(
                "the Xen that booted is not the one that was built",
                evidence=[f"built:  {self.build.build_id}", f"booted: {said}"],
            )

    def _said_build_id(self) -> str | None:
        found = BUILD_ID.search(self.console.text)
        return found[1] if found else None

    def _raise_what_happened(self) -> None:
        crash = self.console.crash(LAST_WORD_SECONDS)
        if crash is not None:
            raise XenCrashed(crash.headline, evidence=crash.lines)
        status = self.process.status(seconds=1.0)
        self.console.drain()
        if status is None:
            raise HarnessError("QEMU closed Xen's console and runs on", evidence=self._evidence())
        if status < 0:
            name = signal.Signals(-status).name
            raise HarnessError(
                f"QEMU was killed from outside by {name}",
                evidence=self._evidence(),
                advice="Was memory short? `dmesg` knows whether the kernel killed it.",
            )
        if status > 0:
            raise HarnessError(f"QEMU failed with exit status {status}", evidence=self._evidence())
        reason = self.qmp.shutdown_reason() or "it did not say why"
        if reason.startswith("host-"):
            raise HarnessError(f"QEMU was told to end: {reason}", evidence=self._evidence())
        raise XenExited(f"QEMU ended by itself: {reason}", evidence=self._last_words())

    def _evidence(self) -> list[str]:
        return [shlex.join(self.command), *self.process.said()]


def _write_script(path: Path, command: Sequence[str]) -> None:
    path.write_text(f"#!/bin/sh\nexec {shlex.join(command)}\n")
    path.chmod(0o755)
