"""A machine that has booted in, a file that continues it out; and the file in, the machine again.

Comes in: QEMU's monitor. Goes out: a qcow2 file without a disk in it, only the machine's state.
Refuses to know: what runs in the machine.

Facts from trials: saving takes 0.3 to 0.5 s and 230 to 340 MiB; TCP connections into the machine
must be closed before. QEMU writes to the file when it loads from it, so each run has its own copy.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.qmp import Monitor

TAG = "ready"
NODE = "state"
DISK_BYTES = 1 << 20  # of the disk that is not used; the machine's state comes behind it
SECONDS = 120.0
NAP_SECONDS = 0.01


def save(qmp: Monitor, file: Path) -> None:
    """Write the machine's state to `file`, which must not exist; the machine runs on."""
    qmp.patience = SECONDS  # QEMU answers nothing while it writes
    name = str(file)
    _job(qmp, "blockdev-create", options={"driver": "file", "filename": name, "size": 0})
    qmp.execute("blockdev-add", driver="file", node_name="file", filename=name)
    layout = {"driver": "qcow2", "file": "file", "size": DISK_BYTES}
    _job(qmp, "blockdev-create", options=layout)
    qmp.execute("blockdev-add", driver="qcow2", node_name=NODE, file="file")
    _job(qmp, "snapshot-save", tag=TAG, vmstate=NODE, devices=[NODE])
    qmp.execute("blockdev-del", node_name=NODE)
    qmp.execute("blockdev-del", node_name="file")


def arguments(file: Path) -> list[str]:
    """QEMU's arguments to go on from `file`, which it will change."""
    name = str(file).replace(",", ",,")
    node = f"driver=qcow2,node-name={NODE},file.driver=file,file.filename={name}"
    return ["-blockdev", node, "-loadvm", TAG]


def copy(file: Path, destination: Path) -> Path:
    """Copy a file that was saved, for one run."""
    try:
        shutil.copyfile(file, destination)
    except OSError as problem:
        raise HarnessError(f"the machine's state cannot be copied: {problem}") from problem
    return destination


def _job(qmp: Monitor, command: str, **arguments: object) -> None:
    """Run a command that works in the background, and wait for its end."""
    qmp.execute(command, job_id=command, **arguments)
    deadline = time.monotonic() + SECONDS
    while (job := _state(qmp, command))["status"] != "concluded":
        if time.monotonic() > deadline:
            raise HarnessError(f"QEMU's {command} did not end within {SECONDS:g} s")
        time.sleep(NAP_SECONDS)
    qmp.execute("job-dismiss", id=command)
    if "error" in job:
        raise HarnessError(f"QEMU's {command} failed: {job['error']}")


def _state(qmp: Monitor, job_id: str) -> dict[str, Any]:
    jobs = qmp.execute("query-jobs")
    return next(job for job in jobs if job["id"] == job_id)
