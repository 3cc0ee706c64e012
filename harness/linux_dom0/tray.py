"""Files of ours in, the same in dom0 out at the speed of memory: a disk written while it is read.

SSH in an emulated machine moves 2 MB a second, and a kernel has 30. What is large goes over a
virtio disk instead: it is written into the disk's file here, and read from the disk there. Refuses
to know: what the files are, and how dom0 is spoken to.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from harness.errors import HarnessError

MIB = 1 << 20
SIZE = 512 * MIB
BLOCK = 4096
DISK = "/dev/vda"
SAID = "/run/tray.log"


class Tray:
    """The disk of one machine; `arguments` have QEMU show it."""

    def __init__(self, file: Path) -> None:
        """Make the disk, which takes no room until something is written."""
        self._file = file
        self._end = 0
        with file.open("wb") as disk:
            disk.truncate(SIZE)

    @property
    def arguments(self) -> list[str]:
        """QEMU's arguments; it must not keep us from writing."""
        name = str(self._file).replace(",", ",,")
        file = f"file.driver=file,file.filename={name},file.locking=off"
        node = f"driver=raw,node-name=tray,read-only=on,{file}"
        return ["-blockdev", node, "-device", "virtio-blk-device,drive=tray"]

    def put(self, content: bytes, remote: str) -> str:
        """Lay `content` on the disk, and return the command that makes it a file in dom0."""
        # Linux reads ahead, and would keep what it then found behind the last file.
        at = -(-self._end // MIB) * MIB + MIB
        self._end = at + len(content)
        if self._end > SIZE:
            raise HarnessError(
                f"{remote} is too large for the disk to dom0, or too many came before"
            )
        with self._file.open("r+b") as disk:
            disk.seek(at)
            disk.write(content)
        blocks = -(-len(content) // BLOCK)
        copy = f"dd if={DISK} of={shlex.quote(remote)} bs={BLOCK} skip={at // BLOCK} count={blocks}"
        copy += f" 2>{SAID} || {{ cat {SAID} >&2; false; }}"
        return f"{{ {copy}; }} && truncate -s {len(content)} {shlex.quote(remote)}"

    def close(self) -> None:
        """Remove the disk."""
        self._file.unlink(missing_ok=True)
