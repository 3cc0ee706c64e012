"""A person's terminal on one side, Xen's console on the other; Ctrl-] parts them.

What comes from a pipe instead is typed line after line, each when U-Boot asks for one.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator

from harness.booting import Booted
from harness.reproductions.uboot_prompt import PROMPT, ask, say

LEAVE = b"\x1d"  # Ctrl-], as in telnet and virsh
NAP_SECONDS = 0.02
CHUNK = 1 << 10
# Of the modes of a terminal, as termios.tcgetattr gives them.
OUTPUT = 1


def hand_over(host: Booted, banner: str) -> None:
    """Let whoever is at standard input talk to U-Boot; raises what a host raises if Xen dies."""
    print(banner, flush=True)
    shown = host.console.text.rindex(PROMPT)
    if sys.stdin.isatty():
        with _raw(sys.stdin.fileno()):
            _talk(host, shown)
        print()
    else:
        _read_out(host, shown)


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Have every key, Ctrl-C included, go to the other side; what is printed stays as it was."""
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    modes = termios.tcgetattr(descriptor)
    modes[OUTPUT] = before[OUTPUT]
    termios.tcsetattr(descriptor, termios.TCSANOW, modes)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _talk(host: Booted, shown: int) -> None:
    while True:
        shown = _show(host, shown)
        host.check()
        if not select.select([sys.stdin], [], [], NAP_SECONDS)[0]:
            continue
        typed = os.read(sys.stdin.fileno(), CHUNK)
        before, leave, _ = typed.partition(LEAVE)
        say(host, before.decode(errors="replace"))
        if leave or not typed:
            return


def _read_out(host: Booted, shown: int) -> None:
    for line in sys.stdin:
        ask(host, line.rstrip("\n"))
        shown = _show(host, shown)
    print()


def _show(host: Booted, shown: int) -> int:
    """Print what was said since, and return where that ends."""
    said = host.console.since(shown)
    if said:
        sys.stdout.write(said)
        sys.stdout.flush()
    return shown + len(said)
