"""Our second stage in, what it found out about shared_info out.

`image` builds guest-kernels/second-stage, `hold` makes the copy of it that U-Boot waits with until
`let_go`, and `find_report` reads its findings from the machine's RAM. What they mean for a change,
and how it is booted, this refuses to know.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from harness.agent import HEADER, MAGIC
from harness.cache import Cache
from harness.errors import HarnessError
from harness.programs import require
from harness.ram import Ram

KERNELS = Path(__file__).parents[2] / "guest-kernels"
SOURCES = KERNELS / "second-stage"
AGENT = KERNELS / "agent"
# Where a domU's images lie in its RAM, and so in the machine's: Xen gives RAM in larger pieces.
ALIGNMENT = 2 << 20
# The Image header's magic, and what U-Boot's boot command waits at instead (domu.config).
MAGIC_AT = 56
IMAGE_MAGIC = b"ARM\x64"
HELD_MAGIC = b"WAIT"


class Event(IntEnum):
    """EVENT_* of second-stage.h: what became of an event that was sent."""

    NONE = 0
    DELIVERED = 1
    LOST = 2
    NOWHERE = 3


@dataclass(frozen=True)
class Report:
    """struct report of second-stage.h; addresses and sizes are the guest's, in bytes."""

    complete: int
    ram: int
    ram_size: int
    mapped_at: int
    result: int
    holes: int
    aliases: int
    alias: int
    shared_to_ram: int
    ram_to_shared: int
    event_before: Event
    mask_before: int
    mask_after: int
    event_after: Event

    @property
    def corrupts(self) -> bool:
        """Whether using RAM as RAM broke event channels."""
        return self.event_before is Event.DELIVERED and self.event_after is Event.LOST


LAYOUT = struct.Struct("<4Qq9Q")  # of the fields above
assert len(fields(Report)) == len(LAYOUT.unpack(bytes(LAYOUT.size)))


@dataclass(frozen=True)
class SecondStage:
    """The built kernel."""

    image: Path
    elf: Path

    @cached_property
    def symbols(self) -> dict[str, int]:
        """The addresses of what we look for, from the start of the image."""
        with self.elf.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".symtab")
            if not isinstance(table, SymbolTableSection):
                raise HarnessError(f"{self.elf} has no symbols")
            addresses = {symbol.name: int(symbol["st_value"]) for symbol in table.iter_symbols()}
        return {name: addresses[name] for name in ("mailbox", "report")}


def image(cache: Cache) -> SecondStage:
    """The second stage as a file that U-Boot or Xen can boot, built once from its sources."""
    for program in ("make", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objcopy"):
        require(program)
    content = hashlib.sha256()
    for path in sorted(path for place in (AGENT, SOURCES) for path in place.iterdir()):
        content.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    entry = cache.entry("second-stage", content.hexdigest(), _build)
    return SecondStage(entry / "second-stage.bin", entry / "second-stage")


def _build(directory: Path) -> None:
    command: list[str | Path] = [require("make"), "-s", "-C", SOURCES, f"O={directory}"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise HarnessError(
            "the second stage does not build", evidence=made.stderr.splitlines()[-10:]
        )


def hold(image: Path, destination: Path, mark: bytes = HELD_MAGIC) -> Path:
    """Write a copy that U-Boot does not start before `let_go`, and return it.

    With any other `mark` of four bytes, U-Boot does not wait for it, but shows its prompt.
    """
    content = image.read_bytes()
    if content[MAGIC_AT : MAGIC_AT + len(IMAGE_MAGIC)] != IMAGE_MAGIC:
        raise HarnessError(f"{image} is no arm64 Image")
    rest = content[MAGIC_AT + len(IMAGE_MAGIC) :]
    destination.write_bytes(content[:MAGIC_AT] + mark + rest)
    return destination


def let_go(ram: Ram, held: Path) -> None:
    """Make every copy of `held` in the machine's RAM one that U-Boot starts; none is no error.

    Xen copies the image from where QEMU put it into the domU, perhaps at this very moment: whoever
    waits for the second stage does this again and again.
    """
    with held.open("rb") as file:
        header = file.read(MAGIC_AT + len(HELD_MAGIC))
    for at in range(0, ram.size, ALIGNMENT):
        if ram.view[at : at + len(header)] == header:
            ram.view[at + MAGIC_AT : at + MAGIC_AT + len(IMAGE_MAGIC)] = IMAGE_MAGIC


def find_report(ram: Ram, stage: SecondStage) -> Report | None:
    """Return what the second stage reports, None as long as it does not."""
    mailbox, report = stage.symbols["mailbox"], stage.symbols["report"]
    for image_at in range(0, ram.size - mailbox - HEADER.size, ALIGNMENT):
        at = image_at + mailbox
        if ram.view[at : at + len(MAGIC)] != MAGIC:
            continue
        _, _, _, address, _, start, *_ = HEADER.unpack_from(ram.view, at)
        if address - start == mailbox:  # the agent's is elsewhere in its image
            return read_report(ram.view[image_at + report :][: LAYOUT.size])
    return None


def read_report(data: bytes | memoryview) -> Report:
    """Return the report that lies in `data`; HarnessError if the second stage gave up."""
    values = dict(zip((field.name for field in fields(Report)), LAYOUT.unpack(data), strict=True))
    if not values["complete"]:
        raise HarnessError("the second stage found no RAM in its device tree, or got no channel")
    return Report(
        **values
        | {
            "event_before": Event(values["event_before"]),
            "event_after": Event(values["event_after"]),
        }
    )
