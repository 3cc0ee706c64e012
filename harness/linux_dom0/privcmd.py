"""Hypercalls as values in, made from dom0's userland: the way Xen's own toolstack makes them.

The same `Call`s that a Domain makes through its agent are made by a small program in dom0, over
/dev/xen/privcmd. Refuses to know: what the calls mean.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness.cache import Cache
from harness.errors import HarnessError
from harness.hypercalls import Answer, Buffer, Call
from harness.linux_dom0.ssh import Shell
from harness.programs import require

T = TypeVar("T")

SOURCE = Path(__file__).parents[2] / "guest-kernels" / "linux-dom0" / "hypercall.c"
PROGRAM = "/usr/bin/hypercall"
FLAGS = (
    "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-static",
    "-fno-stack-protector", "-fno-builtin", "-mno-outline-atomics", "-Wl,--build-id=none",
)  # fmt: skip
ARGUMENTS = 5
HEAD = struct.Struct("<9Q")  # struct call of hypercall.c, up to where[]
RESULT = struct.Struct("<q")
ALIGNMENT = 16


def program(cache: Cache) -> Path:
    """The program for dom0, built once from its source."""

    def make(directory: Path) -> None:
        compiler = require("aarch64-linux-gnu-gcc")
        command: list[str | Path] = [compiler, *FLAGS, SOURCE, "-o", directory / "hypercall"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise HarnessError(
                "the program for dom0 does not build", evidence=made.stderr.splitlines()[-10:]
            )

    content = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()
    return cache.entry("linux-dom0-hypercall", content, make) / "hypercall"


@dataclass
class Arena:
    """The buffers of one call, laid out one after the other."""

    data: bytearray = field(default_factory=bytearray)
    fixups: list[int] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)

    def put(self, buffer: Buffer) -> int:
        """Lay out a buffer and what it points to; return its offset."""
        if id(buffer) in self.places:
            return self.places[id(buffer)]
        self.data += bytes(-len(self.data) % ALIGNMENT)
        at = self.places[id(buffer)] = len(self.data)
        self.data += buffer.data
        for offset, inner in buffer.pointers:
            struct.pack_into("<Q", self.data, at + offset, self.put(inner))
            self.fixups.append(at + offset)
        return at


def encode(call: Call[Any]) -> tuple[str, Arena]:
    """Return the digits that spell a call, and where its buffers lie."""
    arena, pointers, words = Arena(), 0, []
    for number, argument in enumerate(call.arguments):
        if isinstance(argument, Buffer):
            pointers |= 1 << number
            argument = arena.put(argument)
        words.append(argument & 2**64 - 1)
    words += [0] * (ARGUMENTS - len(words))
    head = HEAD.pack(call.number, *words, pointers, len(arena.fixups), len(arena.data))
    where = struct.pack(f"<{len(arena.fixups)}Q", *arena.fixups)
    return (head + where + arena.data).hex(), arena


def decode(line: str, call: Call[T], arena: Arena) -> Answer[T]:
    """Return the answer that a line of the program's output is."""
    try:
        data = bytes.fromhex(line)
        (result,) = RESULT.unpack_from(data)
    except (ValueError, struct.error):
        raise HarnessError(f"dom0's answer to {call} is no answer", evidence=[line[:80]]) from None
    after = data[RESULT.size :]

    def read(buffer: Buffer) -> bytes:
        at = arena.places[id(buffer)]
        return after[at : at + len(buffer.data)]

    answer = Answer(call)
    answer.settle(result, read)
    return answer


class Privcmd:
    """Makes calls in a dom0 that one is logged into."""

    def __init__(self, shell: Shell, history: deque[str]) -> None:
        """`history` is the story that the calls become part of."""
        self._shell = shell
        self._history = history

    def do(self, call: Call[T]) -> T:
        """Make one call and return what it gives; raises XenError."""
        (answer,) = self.attempt([call])
        return answer.value

    def attempt(self, calls: Sequence[Call[T]]) -> list[Answer[T]]:
        """Make calls in order; errors are in the answers."""
        encoded = [encode(call) for call in calls]
        output = self._shell.run(PROGRAM, *(digits for digits, _ in encoded))
        lines = output.stdout.split()
        if len(lines) != len(calls):
            raise HarnessError(f"dom0 answered {len(lines)} of {len(calls)} hypercalls")
        answers = [
            decode(line, call, arena)
            for line, call, (_, arena) in zip(lines, calls, encoded, strict=True)
        ]
        self._history.extend(f"dom0 {answer!r}" for answer in answers)
        return answers
