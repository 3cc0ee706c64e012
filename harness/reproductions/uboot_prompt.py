"""A U-Boot and a Xen in; a domU out that waits at U-Boot's prompt, with the console in our hands.

The second stage lies where U-Boot looks for it, but under a mark that makes U-Boot leave it alone;
START is what to type to have it started. Refuses to know: who types.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from harness.booting import Booted
from harness.builds import Build
from harness.reproductions.uboot_shared_info import MEMORY_MIB, Role, Stage
from harness.scenarios import DomainPlan, Scenario
from harness.uboot.second_stage import hold

SECONDS = 60.0
SECONDS_TO_ECHO = 2.0
SECONDS_OF_SILENCE = 5.0
NAP_SECONDS = 0.002
PROMPT = "xenguest# "  # CONFIG_SYS_PROMPT of U-Boot's own xenguest_arm64
LEFT_ALONE = b"STAY"
START = "mw.l 48200038 644d5241; run bootcmd"
# Xen gives what is typed to one domain at a time, and takes the next at three times Ctrl-A.
SWITCH = "\x01\x01\x01"
INPUT_OF = "*** Serial input to"
OURS = "*** Serial input to DOM1"
# The UART that Xen emulates has room for 32 characters, and loses what comes when it is full.
AT_ONCE = 16


@contextlib.contextmanager
def booted(role: Role, build: Build, stage: Stage) -> Iterator[Booted]:
    """Boot U-Boot up to its prompt, and have what is typed go to it."""
    directory = stage.folder / "prompt"
    directory.mkdir(parents=True, exist_ok=True)
    second_stage = hold(stage.second_stage.image, directory / "second-stage", LEFT_ALONE)
    plan = DomainPlan(
        memory_mib=MEMORY_MIB,
        kernel=stage.uboots[role].image,
        ramdisk=second_stage,
        properties={"vpl011": b""},
    )
    scenario = Scenario("uboot-prompt", domus=(plan,))
    with Booted(build, stage.machine, scenario, directory, kernel=stage.agent) as host:
        _wait_for(host, INPUT_OF, 0)
        while OURS not in host.console.text:
            mark = host.console.mark()
            host.console.send(SWITCH)
            _wait_for(host, INPUT_OF, mark)
        # Was it there before, Xen has kept it back: it waits for the end of a line of others.
        say(host, "\n")
        _wait_for(host, PROMPT, 0)
        yield host


def _wait_for(host: Booted, text: str, mark: int) -> None:
    host.wait(lambda: text in host.console.since(mark), SECONDS, f"{text!r} on the console")


def say(host: Booted, text: str) -> None:
    """Type `text`, no faster than U-Boot reads it."""
    pieces = [text[at : at + AT_ONCE] for at in range(0, len(text), AT_ONCE)]
    for piece in pieces:
        mark = host.console.mark()
        host.console.send(piece)
        if piece is not pieces[-1]:
            _wait_for_echo(host, mark + len(piece))


def ask(host: Booted, line: str) -> None:
    """Type a line, and wait until U-Boot asks for the next, or has started something silent."""
    mark = host.console.mark()
    say(host, f"{line}\n")
    while not host.console.since(mark).endswith(PROMPT):
        host.check()
        if time.monotonic() - host.console.last_word > SECONDS_OF_SILENCE:
            return
        time.sleep(NAP_SECONDS)


def _wait_for_echo(host: Booted, mark: int) -> None:
    """Wait for what U-Boot shows of what it has read; it may be busy, and not show it yet."""
    end = time.monotonic() + SECONDS_TO_ECHO
    while host.console.mark() < mark and time.monotonic() < end:
        host.check()
        time.sleep(NAP_SECONDS)
